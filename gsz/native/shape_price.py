"""What opacities, scales and colors cost, and the gradient of that, Gaussian by Gaussian in vectors.

A column of real numbers of steps goes through three loops: one of arithmetic, which finds its places in tables, one
that looks up a line for each, and one of arithmetic again. The first and the last are computed in vectors, in float32:
a price need not be the same everywhere.
"""

from __future__ import annotations

import numpy as np

from gsz.coding.tables import at
from gsz.kernels import inline, kernel
from gsz.native.steps import POWER_OCTAVES
from gsz.rounding.elementary import LN2

f32 = np.float32

ROWS = 128
"""So many Gaussians go through a loop together; what they leave behind for the next stays in the nearest cache."""
COLUMNS = 7
OPACITY, SCALE, GAP, THIN, Y, CG, CO = range(COLUMNS)

# Rows of the scratch memory, after those of the columns.
_OPACITY_SLOPE, _PER_UNIT = COLUMNS, COLUMNS + 1
_SCALE_SLOPES = COLUMNS + 2
SCRATCH_ROWS = COLUMNS + 5

_PER_OCTAVE = f32(POWER_OCTAVES)
_POWER_SLOPE = f32(1.5 * POWER_OCTAVES)
_MOST_OCTAVES = f32(60)
_MINUS_LOG2_E = f32(-1 / LN2)
_ZERO, _HALF, _ONE, _TWO, _THREE, _FOUR = f32(0), f32(0.5), f32(1), f32(2), f32(3), f32(4)


@inline
def _power_of_two(whole):
    """2 to a whole number within 126 of zero: its exponent's bits."""
    return np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@inline
def _exp2(value):
    """``2**value`` for values within 126 of zero: a minimax polynomial, to 3e-7."""
    whole = np.floor(value + _HALF)
    rest = value - whole
    power = f32(1.327647199253e-03) * rest + f32(9.675541334454e-03)
    power = power * rest + f32(5.550713273498e-02)
    power = power * rest + f32(2.402211972384e-01)
    power = power * rest + f32(6.931469670648e-01)
    return (power * rest + _ONE) * _power_of_two(whole)


@inline
def _within(value, limit):
    """``value``, but no further than ``limit`` from zero; of NaN ``-limit``."""
    value = value if value > -limit else -limit
    return value if value < limit else limit


@inline
def _slope(column, t, found):
    return found[at(2) * (at(column * ROWS) + t) + at(1)]


@inline
def _power(log_scale, pivot):
    """See :func:`gsz.native.symbols._power_of`; and its slope."""
    octaves = _within((log_scale - pivot) * _PER_OCTAVE, _MOST_OCTAVES)
    whole = np.floor(octaves)
    root = np.sqrt(_FOUR - _THREE * (octaves - whole))
    power = _power_of_two(whole)
    slope = _POWER_SLOPE * power / root
    return (_THREE - root) * power, slope if abs(octaves) < _MOST_OCTAVES else _ZERO


@kernel
def pay_shapes(
    logits, log_scales, colors, fineness, opacity_levels, pivot, per_power, dc_per_unit, lows, lasts, begins, lines,
    weight, entries, values, lines_of_columns, found, counted, sums, d_logits, d_log_scales, d_colors,
):  # fmt: skip
    """Add bits to ``sums``, if they are ``counted``, and ``weight`` times their gradient to the others.

    Args:
        logits, log_scales, colors: flat float32.
        fineness: of the colors.
        lines: two float32 each, in eight bytes: what an entry costs, and how much more the next one does.
        entries: ``(COLUMNS * ROWS,)`` int32 scratch memory.
        values: ``(SCRATCH_ROWS * ROWS,)`` float32.
        lines_of_columns, found: ``(COLUMNS * ROWS,)`` int64, and the same memory as float32.
        sums: ``(ROWS,)`` float64.
    """
    first_per_power, second_per_power, third_per_power = per_power[0], per_power[1], per_power[2]
    for first in range(0, len(logits), ROWS):
        left = len(logits) - first
        rows = left if left < ROWS else ROWS
        begin = at(first)
        for t in range(rows):
            values[at(_PER_UNIT * ROWS) + at(t)] = dc_per_unit[fineness[begin + at(t)]]
        for t in range(rows):
            u = at(t)
            power = _exp2(_within(logits[begin + u] * _MINUS_LOG2_E, f32(80)))
            opacity = _ONE / (_ONE + power)
            root = np.sqrt(opacity) * opacity_levels
            values[at(_OPACITY_SLOPE * ROWS) + u] = _HALF * root * power * opacity
            values[at(OPACITY * ROWS) + u] = root - _HALF
        for t in range(rows):
            u = at(t)
            j = at(3) * (begin + u)
            first_power, first_slope = _power(log_scales[j], pivot)
            second_power, second_slope = _power(log_scales[j + at(1)], pivot)
            third_power, third_slope = _power(log_scales[j + at(2)], pivot)
            values[at(_SCALE_SLOPES * ROWS) + u] = first_slope
            values[at((_SCALE_SLOPES + 1) * ROWS) + u] = second_slope
            values[at((_SCALE_SLOPES + 2) * ROWS) + u] = third_slope
            # The powers in order, largest first.
            high = first_power if first_power > second_power else second_power
            low = second_power if first_power > second_power else first_power
            largest = high if high > third_power else third_power
            middle = third_power if high > third_power else high
            least = low if low < middle else middle
            middle = middle if low < middle else low
            size, second, thin = largest * first_per_power, middle * second_per_power, least * third_per_power
            values[at(SCALE * ROWS) + u] = size
            values[at(GAP * ROWS) + u] = size - second
            values[at(THIN * ROWS) + u] = (second + _HALF) * _HALF - thin
        for t in range(rows):
            u = at(t)
            j = at(3) * (begin + u)
            per_unit = values[at(_PER_UNIT * ROWS) + u]
            red, green, blue = colors[j] * per_unit, colors[j + at(1)] * per_unit, colors[j + at(2)] * per_unit
            values[at(Y * ROWS) + u] = (red + _TWO * green + blue) * f32(0.25)
            values[at(CG * ROWS) + u] = green - (red + blue) * _HALF
            values[at(CO * ROWS) + u] = red - blue

        for column in range(COLUMNS):
            low, last, line = lows[column], lasts[column], begins[column]
            for t in range(rows):
                u = at(column * ROWS) + at(t)
                place = values[u] - low
                place = place if place > _ZERO else _ZERO
                place = place if place < last else last
                below = np.int32(place)
                entries[u] = line + below
                values[u] = place - f32(below)
            for t in range(rows):
                u = at(column * ROWS) + at(t)
                lines_of_columns[u] = lines[entries[u]]
        for column in range(COLUMNS if counted else 0):
            for t in range(rows):
                u = at(column * ROWS) + at(t)
                sums[at(t)] += found[at(2) * u] + found[at(2) * u + at(1)] * values[u]

        for t in range(rows):
            u = at(t)
            d_logits[begin + u] += weight * _slope(OPACITY, u, found) * values[at(_OPACITY_SLOPE * ROWS) + u]
        for t in range(rows):
            u = at(t)
            j = at(3) * (begin + u)
            size, gap, thin = _slope(SCALE, u, found), _slope(GAP, u, found), _slope(THIN, u, found)
            by_largest = weight * (size + gap) * first_per_power
            by_middle = weight * (_HALF * thin - gap) * second_per_power
            by_least = -weight * thin * third_per_power
            # As :data:`gsz.native.symbols.KINDS` has it: of equal scales the first is the larger one.
            first_second = log_scales[j] >= log_scales[j + at(1)]
            second_third = log_scales[j + at(1)] >= log_scales[j + at(2)]
            first_third = log_scales[j] >= log_scales[j + at(2)]
            by_first = (
                (by_largest if first_third else by_middle) if first_second else (by_middle if first_third else by_least)
            )
            by_second = (
                (by_middle if second_third else by_least)
                if first_second
                else (by_largest if second_third else by_middle)
            )
            by_third = (
                (by_least if second_third else by_middle)
                if first_third
                else (by_middle if second_third else by_largest)
            )
            d_log_scales[j] += by_first * values[at(_SCALE_SLOPES * ROWS) + u]
            d_log_scales[j + at(1)] += by_second * values[at((_SCALE_SLOPES + 1) * ROWS) + u]
            d_log_scales[j + at(2)] += by_third * values[at((_SCALE_SLOPES + 2) * ROWS) + u]
        for t in range(rows):
            u = at(t)
            j = at(3) * (begin + u)
            y, cg, co = _slope(Y, u, found), _slope(CG, u, found), _slope(CO, u, found)
            per_unit = weight * values[at(_PER_UNIT * ROWS) + u]
            even = _HALF * (_HALF * y - cg)
            d_colors[j] += per_unit * (even + co)
            d_colors[j + at(1)] += per_unit * (_HALF * y + cg)
            d_colors[j + at(2)] += per_unit * (even - co)
