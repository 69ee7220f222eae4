"""What spherical harmonics cost, and the gradient of that, in vectors of float32.

The sums of colors, and the gradient of them at the end, are computed for all coefficients of some Gaussians at once; in
between, a vector has the coefficients of one Gaussian, since what they cost depends on its class. A loop of so many
steps is one vector; the lanes that a Gaussian has no coefficients for, which are those of the next one, count for
nothing and are overwritten by its.
"""

from __future__ import annotations

import numpy as np

from gsz.coding.tables import at
from gsz.kernels import inline, kernel
from gsz.native.symbols import COEFFICIENTS, ROWS_OF_VECTORS, SPACE_OF_VECTORS, sum_colors

f32 = np.float32

MOST_BITS = 8
"""Bit lengths of magnitudes that are told apart."""
FEW = 4
"""Magnitudes in Gaussians up to :data:`SMALL_CLASS` are below this: nearly all Gaussians there are."""
SMALL_CLASS = 2

_SPACE = SPACE_OF_VECTORS
_PULLS = 3 * _SPACE
_SUMS = 6 * _SPACE
SCRATCH = 6 * _SPACE + COEFFICIENTS

_ZERO, _ONE, _TWO, _THREE = f32(0), f32(1), f32(2), f32(3)


@kernel
def pay_harmonics(
    harmonics, fineness, per_unit, rounding, few, lines, width, kinds, coefficients, weight, scratch, places, found,
    lines_found, counted, d_harmonics,
):  # fmt: skip
    """Class by class: Gaussians of class 0 have nothing to pay for and feel no pull.

    Args:
        harmonics, d_harmonics: flat float32; ``weight`` times the gradient is added to the latter.
        fineness: of the harmonics.
        lines: two float32 each, in eight bytes: what magnitude 0 would cost, and how much more the next one does.
        few: the first :data:`FEW` lines of each color of each class, as float32.
        width: lines of a color of a class.
        kinds: ``(2**MOST_BITS,)`` int32, the class of a Gaussian, by all of its magnitudes in one.
        scratch: ``(SCRATCH,)`` float32.
        places: ``(COEFFICIENTS,)`` int32 scratch memory.
        found, lines_found: ``(COEFFICIENTS,)`` int64, and the same memory as float32.
        counted: whether bits are asked for.

    Returns:
        The bits, or 0.
    """
    most, last = f32(len(kinds) - 1), f32(width - 1)
    for k in range(COEFFICIENTS):
        scratch[at(_SUMS) + at(k)] = _ZERO
    for first in range(0, len(fineness), ROWS_OF_VECTORS):
        left = len(fineness) - first
        rows = left if left < ROWS_OF_VECTORS else ROWS_OF_VECTORS
        begin = at(3 * coefficients * first)
        sum_colors(harmonics, begin, rows * coefficients, scratch)
        for i in range(rows):
            row = at(i * coefficients)
            scales = per_unit[fineness[first + i]]
            kind = kinds[_magnitudes(scratch, row, scales[0], scales[1], scales[2], rounding, most, coefficients)]
            table = at(3 * kind)
            if kind == 0:
                for k in range(COEFFICIENTS):
                    u = at(_PULLS) + row + at(k)
                    scratch[u], scratch[at(_SPACE) + u], scratch[at(2 * _SPACE) + u] = _ZERO, _ZERO, _ZERO
            elif kind <= SMALL_CLASS:
                _pull_few(scratch, row, scales[0], scales[1], scales[2], few, at(2 * FEW) * table)
                if counted:
                    _count_few(scratch, row, scales[0], scales[1], scales[2], few, at(2 * FEW) * table)
            else:
                for color in range(3):
                    source, scale = at(color * _SPACE) + row, scales[color]
                    for k in range(COEFFICIENTS):
                        size = abs(scratch[source + at(k)] * scale)
                        # At the end of a table the cost is that of its last entry, and level.
                        places[at(k)] = width * np.int32(3 * kind + color) + np.int32(size if size < last else last)
                    for k in range(COEFFICIENTS):
                        found[at(k)] = lines[at(places[at(k)])]
                    for k in range(COEFFICIENTS):
                        _note(scratch, source + at(k), lines_found[at(2) * at(k) + at(1)] * scale)
                    if counted:
                        for k in range(COEFFICIENTS):
                            _count(scratch, source + at(k), k, lines_found[at(2) * at(k)])
        for t in range(rows * coefficients):
            u = at(t)
            j = begin + at(3) * u
            y, co, cg = scratch[at(_PULLS) + u], scratch[at(_PULLS + _SPACE) + u], scratch[at(_PULLS + 2 * _SPACE) + u]
            even = y + cg
            d_harmonics[j] += weight * (even + co)
            d_harmonics[j + at(1)] += weight * (y - _TWO * cg)
            d_harmonics[j + at(2)] += weight * (even - co)
    total = 0.0
    for k in range(coefficients):
        total += scratch[at(_SUMS) + at(k)]
    return total


@inline
def _magnitudes(scratch, row, y_scale, co_scale, cg_scale, rounding, most, coefficients):
    """All magnitudes of a Gaussian in one, bit by bit."""
    union = np.int32(0)
    for k in range(COEFFICIENTS):
        u = row + at(k)
        y, co = abs(scratch[u] * y_scale), abs(scratch[at(_SPACE) + u] * co_scale)
        cg = abs(scratch[at(2 * _SPACE) + u] * cg_scale)
        size = y if y > co else co
        size = (size if size > cg else cg) + rounding
        magnitude = np.int32(size if size < most else most)
        union = np.int32(union | (magnitude if k < coefficients else np.int32(0)))
    return union


@inline
def _pull_few(scratch, row, y_scale, co_scale, cg_scale, few, table):
    """The gradient by the coefficients of a Gaussian, of which none is on another than the first lines."""
    co_table, cg_table = table + at(2 * FEW), table + at(4 * FEW)
    y_0, y_1, y_2, y_3 = few[table + at(1)], few[table + at(3)], few[table + at(5)], few[table + at(7)]
    co_0, co_1, co_2 = few[co_table + at(1)], few[co_table + at(3)], few[co_table + at(5)]
    cg_0, cg_1, cg_2 = few[cg_table + at(1)], few[cg_table + at(3)], few[cg_table + at(5)]
    co_3, cg_3 = few[co_table + at(7)], few[cg_table + at(7)]
    for k in range(COEFFICIENTS):
        u = row + at(k)
        y, co, cg = scratch[u], scratch[at(_SPACE) + u], scratch[at(2 * _SPACE) + u]
        _note(scratch, u, _of_four(abs(y * y_scale), y_0, y_1, y_2, y_3) * y_scale)
        _note(scratch, at(_SPACE) + u, _of_four(abs(co * co_scale), co_0, co_1, co_2, co_3) * co_scale)
        _note(scratch, at(2 * _SPACE) + u, _of_four(abs(cg * cg_scale), cg_0, cg_1, cg_2, cg_3) * cg_scale)


@inline
def _count_few(scratch, row, y_scale, co_scale, cg_scale, few, table):
    """What the coefficients cost that :func:`_pull_few` was for."""
    co_table, cg_table = table + at(2 * FEW), table + at(4 * FEW)
    y_0, y_1, y_2, y_3 = few[table], few[table + at(2)], few[table + at(4)], few[table + at(6)]
    co_0, co_1, co_2 = few[co_table], few[co_table + at(2)], few[co_table + at(4)]
    cg_0, cg_1, cg_2 = few[cg_table], few[cg_table + at(2)], few[cg_table + at(4)]
    co_3, cg_3 = few[co_table + at(6)], few[cg_table + at(6)]
    for k in range(COEFFICIENTS):
        u = row + at(k)
        y, co, cg = scratch[u], scratch[at(_SPACE) + u], scratch[at(2 * _SPACE) + u]
        _count(scratch, u, k, _of_four(abs(y * y_scale), y_0, y_1, y_2, y_3))
        _count(scratch, at(_SPACE) + u, k, _of_four(abs(co * co_scale), co_0, co_1, co_2, co_3))
        _count(scratch, at(2 * _SPACE) + u, k, _of_four(abs(cg * cg_scale), cg_0, cg_1, cg_2, cg_3))


@inline
def _of_four(size, below_1, below_2, below_3, above):
    found = below_2 if size >= _ONE else below_1
    found = below_3 if size >= _TWO else found
    return above if size >= _THREE else found


@inline
def _note(scratch, source, pull):
    """The gradient by a coefficient, of this size."""
    scratch[at(_PULLS) + source] = pull if scratch[source] > _ZERO else -pull


@inline
def _count(scratch, source, k, at_zero):
    """What a coefficient costs is added to the sums, after its gradient was noted."""
    scratch[at(_SUMS) + at(k)] += at_zero + scratch[at(_PULLS) + source] * scratch[source]
