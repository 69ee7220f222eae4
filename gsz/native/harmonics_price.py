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
from gsz.native.symbols import COEFFICIENTS, ROWS_OF_VECTORS, SPACE_OF_VECTORS

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
    lines_found, d_harmonics,
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

    Returns:
        The bits.
    """
    most, last = f32(len(kinds) - 1), f32(width - 1)
    for k in range(COEFFICIENTS):
        scratch[at(_SUMS) + at(k)] = _ZERO
    for first in range(0, len(fineness), ROWS_OF_VECTORS):
        left = len(fineness) - first
        rows = left if left < ROWS_OF_VECTORS else ROWS_OF_VECTORS
        begin = at(3 * coefficients * first)
        for t in range(rows * coefficients):
            u = at(t)
            j = begin + at(3) * u
            r, g, b = harmonics[j], harmonics[j + at(1)], harmonics[j + at(2)]
            scratch[u], scratch[at(_SPACE) + u], scratch[at(2 * _SPACE) + u] = r + g + b, r - b, r - _TWO * g + b
        for i in range(rows):
            row = at(i * coefficients)
            scales = per_unit[fineness[first + i]]
            kind = kinds[_magnitudes(scratch, row, scales[0], scales[1], scales[2], rounding, most, coefficients)]
            for color in range(3):
                source = at(color * _SPACE) + row
                table = 3 * kind + color
                if kind == 0:
                    for k in range(COEFFICIENTS):
                        scratch[at(_PULLS) + source + at(k)] = _ZERO
                elif kind <= SMALL_CLASS:
                    _pay_few(scratch, source, scales[color], few, at(2 * FEW * table))
                else:
                    scale = scales[color]
                    for k in range(COEFFICIENTS):
                        size = abs(scratch[source + at(k)] * scale)
                        # At the end of a table the cost is that of its last entry, and level.
                        places[at(k)] = width * table + np.int32(size if size < last else last)
                    for k in range(COEFFICIENTS):
                        found[at(k)] = lines[at(places[at(k)])]
                    for k in range(COEFFICIENTS):
                        _pay(
                            scratch,
                            source + at(k),
                            at(_SUMS) + at(k),
                            lines_found[at(2) * at(k)],
                            lines_found[at(2) * at(k) + at(1)],
                            scale,
                        )
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
def _pay_few(scratch, source, scale, few, table):
    """All coefficients of a color of a Gaussian, of which none is on another than the first lines."""
    zero_at_0, slope_0 = few[table], few[table + at(1)]
    zero_at_1, slope_1 = few[table + at(2)], few[table + at(3)]
    zero_at_2, slope_2 = few[table + at(4)], few[table + at(5)]
    zero_at_3, slope_3 = few[table + at(6)], few[table + at(7)]
    for k in range(COEFFICIENTS):
        size = abs(scratch[source + at(k)] * scale)
        at_zero = zero_at_1 if size >= _ONE else zero_at_0
        at_zero = zero_at_2 if size >= _TWO else at_zero
        at_zero = zero_at_3 if size >= _THREE else at_zero
        slope = slope_1 if size >= _ONE else slope_0
        slope = slope_2 if size >= _TWO else slope
        slope = slope_3 if size >= _THREE else slope
        _pay(scratch, source + at(k), at(_SUMS) + at(k), at_zero, slope, scale)


@inline
def _pay(scratch, source, total, at_zero, slope, scale):
    """What one coefficient costs is added to ``total``, and its pull is noted."""
    value = scratch[source]
    pull = slope * scale
    scratch[total] += at_zero + pull * abs(value)
    scratch[at(_PULLS) + source] = pull if value > _ZERO else -pull
