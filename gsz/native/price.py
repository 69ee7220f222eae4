"""The gradient of the estimated rate by kernels, for models on the CPU; :mod:`gsz.native.rate` has it in tensors.

Everything is added to gradients in place, Gaussian by Gaussian, so that nothing as large as the model is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gsz.coding.tables import at
from gsz.kernels import inline, kernel
from gsz.native.steps import POWER_OCTAVES, Steps
from gsz.native.symbols import (
    AXIS_ORDERS,
    COEFFICIENTS,
    ROWS_OF_VECTORS,
    Finenesses,
    FinenessRules,
    fineness_of,
    kind_of,
    level_of,
    octaves_of,
    padded_thresholds,
    power_of,
    scale_symbol,
    spread,
    vectors_of,
)

_MOST_BITS = 8
"""Bit lengths of magnitudes that are told apart."""


class Priced(NamedTuple):
    """The parameters of a model that have a price, or gradients by them: attributes as of :class:`gsz.splats.Splats`.

    Positions and rotations have none. All are arrays, or all are tensors.
    """

    opacity_logits: Any
    log_scales: Any
    sh_dc: Any
    sh_rest: Any

    def rows(self, rows: slice) -> Priced:
        """Some of the Gaussians, in the same memory."""
        return Priced(*(array[rows] for array in self))


class Lines(NamedTuple):
    """What the symbols of ``C`` columns cost, in tables, one after the other: between two entries costs are a line.

    Attributes:
        bits, slopes: float32, what each entry costs, and how much more the next one does.
        begins: ``(C,)`` int64, where the tables of the columns begin.
        lows: ``(C,)`` float64, the symbols of the first entries.
        ends: ``(C,)`` float64, the largest places in the tables, just short of their last entries.
    """

    bits: np.ndarray
    slopes: np.ndarray
    begins: np.ndarray
    lows: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(tables: Sequence[np.ndarray], lows: Sequence[int]) -> Lines:
        lengths = np.array([len(table) for table in tables])
        slopes = [np.append(np.diff(table), np.float32(0)) for table in tables]
        begins = np.cumsum(lengths) - lengths
        return Lines(np.concatenate(tables), np.concatenate(slopes), begins, np.array(lows, float), lengths - 1.001)


class Prices:
    """What a model's Gaussians cost on a grid.

    Args:
        steps: the grid.
        lines: of the columns :data:`gsz.native.rate.COLUMNS`, in bits of the file.
        sh_costs: ``(kinds, 3, M)`` float32: what each magnitude of Y, Co and Cg costs in Gaussians of each class; the
            last kind stands for higher classes too, and magnitudes beyond the last cost what it does.

    Attributes:
        lines: as they were given.
        sh_lines: ``(kinds * 3 * M,)`` int64, each of two float32: what magnitude 0 would cost, and how much more the
            next one does.
        sh_width: M.
        sh_begins: ``(2**_MOST_BITS,)`` int32, the first line of a class, by the largest magnitude of a Gaussian.
    """

    def __init__(self, steps: Steps, lines: Lines, sh_costs: np.ndarray):
        self._steps, self.lines = steps, lines
        self._rules, self._thresholds = FinenessRules.of(steps), padded_thresholds(steps)
        self._per_power, self._dc_per_unit = 1 / steps.scale_steps, 1 / steps.dc_steps
        slopes = np.diff(sh_costs, axis=2, append=sh_costs[..., -1:])
        at_zero = sh_costs - slopes * np.arange(sh_costs.shape[2], dtype=np.float32)
        # A line in eight bytes, which are one load.
        self.sh_lines = np.stack([at_zero, slopes], axis=-1).view(np.int64).reshape(-1)
        self.sh_width = sh_costs.shape[2]
        lengths = [int(magnitudes).bit_length() for magnitudes in range(1 << _MOST_BITS)]
        self.sh_begins = 3 * self.sh_width * np.minimum(lengths, len(sh_costs) - 1).astype(np.int32)

    def pay(self, splats: Priced, weight: float, gradients: Priced) -> tuple[float, float]:
        """What harmonics cost, and what all else does, in bits; ``weight`` times their gradient is added to others."""
        count, coefficients = splats.sh_rest.shape[:2]
        fineness = Finenesses.blank(count)
        bits = _pay_shapes(
            splats.opacity_logits.reshape(-1),
            splats.log_scales,
            splats.sh_dc.reshape(count, 3),
            self._thresholds,
            self._steps.opacity_levels,
            self._steps.scale_pivot,
            self._per_power,
            self._dc_per_unit,
            self._rules,
            self.lines,
            weight,
            np.empty(count, np.int32),
            np.empty((count, 3), np.int32),
            fineness,
            gradients.opacity_logits.reshape(-1),
            gradients.log_scales,
            gradients.sh_dc.reshape(count, 3),
        )
        found = vectors_of(coefficients, 1, np.int64)[0]
        sums = np.zeros(ROWS_OF_VECTORS * coefficients)
        _pay_harmonics(
            splats.sh_rest.reshape(-1),
            fineness.sh,
            self._steps.sh_per_unit,
            np.float32(1 - self._steps.sh_threshold),
            self.sh_lines,
            self.sh_width,
            self.sh_begins,
            coefficients,
            np.float32(weight),
            vectors_of(coefficients, 6, np.float32),
            vectors_of(coefficients, 3, np.int32),
            found,
            found.view(np.float32),
            sums,
            gradients.sh_rest.reshape(-1),
        )
        return sum(sums.tolist()), bits


@inline
def _line(lines, column, value):
    """What a real number of steps costs, and how that changes: not at all beyond the ends of the table."""
    place = value - lines.lows[column]
    within = place >= 0.0 and place <= lines.ends[column]
    place = place if place > 0.0 else 0.0
    place = place if place < lines.ends[column] else lines.ends[column]
    below = np.int64(place)
    entry = at(lines.begins[column] + below)
    slope = np.float64(lines.slopes[entry])
    return lines.bits[entry] + slope * (place - below), slope if within else 0.0


@kernel
def _pay_shapes(
    logits,
    log_scales,
    colors,
    thresholds,
    opacity_levels,
    pivot,
    per_power,
    dc_per_unit,
    rules,
    lines,
    weight,
    levels,
    scales,
    fineness,
    d_logits,
    d_log_scales,
    d_colors,
):
    """All but the harmonics. ``levels``, ``scales`` and ``fineness`` are filled in."""
    total = 0.0
    for i in range(len(logits)):
        levels[i] = level_of(logits[i], thresholds)
        opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[i])))
        opacity = opacity if opacity > 1e-12 else 1e-12
        root = math.sqrt(opacity) * opacity_levels
        bits, slope = _line(lines, 0, root - 0.5)
        d_logits[i] += weight * slope * 0.5 * root * (1.0 - opacity)

        kind = kind_of(log_scales[i, 0], log_scales[i, 1], log_scales[i, 2])
        first, first_slope = _scale(log_scales[i, AXIS_ORDERS[kind, 0]], pivot, per_power[0])
        second, second_slope = _scale(log_scales[i, AXIS_ORDERS[kind, 1]], pivot, per_power[1])
        third, third_slope = _scale(log_scales[i, AXIS_ORDERS[kind, 2]], pivot, per_power[2])
        scales[i, 0], scales[i, 1], scales[i, 2] = scale_symbol(first), scale_symbol(second), scale_symbol(third)
        fineness_of(i, scales, levels, rules, fineness)
        size_bits, size = _line(lines, 1, first)
        gap_bits, gap = _line(lines, 2, first - second)
        thin_bits, thin = _line(lines, 3, (second + 0.5) / 2 - third)
        d_log_scales[i, AXIS_ORDERS[kind, 0]] += weight * (size + gap) * first_slope
        d_log_scales[i, AXIS_ORDERS[kind, 1]] += weight * (thin / 2 - gap) * second_slope
        d_log_scales[i, AXIS_ORDERS[kind, 2]] -= weight * thin * third_slope

        per_unit = dc_per_unit[fineness.dc[i]]
        red, green, blue = colors[i, 0] * per_unit, colors[i, 1] * per_unit, colors[i, 2] * per_unit
        y_bits, y = _line(lines, 4, (red + 2.0 * green + blue) / 4)
        cg_bits, cg = _line(lines, 5, green - (red + blue) / 2)
        co_bits, co = _line(lines, 6, red - blue)
        d_colors[i, 0] += weight * per_unit * (y / 4 - cg / 2 + co)
        d_colors[i, 1] += weight * per_unit * (y / 2 + cg)
        d_colors[i, 2] += weight * per_unit * (y / 4 - cg / 2 - co)
        total += bits + size_bits + gap_bits + thin_bits + y_bits + cg_bits + co_bits
    return total


@inline
def _scale(log_scale, pivot, per_power):
    """The power of a scale in steps, and its derivative by the log-scale: with the root r it is (3 - r) 2**w."""
    octaves = octaves_of(log_scale, pivot)
    fraction, whole = power_of(octaves)
    slope = POWER_OCTAVES * 1.5 * whole / (3.0 - fraction) * per_power
    return fraction * whole * per_power, slope if abs(octaves) < 60.0 else 0.0


@kernel
def _pay_harmonics(
    harmonics,
    fineness,
    per_unit,
    rounding,
    lines,
    width,
    tables,
    coefficients,
    weight,
    reals,
    wholes,
    found,
    lines_found,
    sums,
    d_harmonics,
):
    """Class by class: Gaussians of class 0 have nothing to pay for and feel no pull.

    Loops over all coefficients of some Gaussians at once are computed in vectors, but for that which looks up lines.

    Args:
        lines: two float32 each: what magnitude 0 would cost, and how much more the next one does.
        width: lines of a color of a class.
        tables: ``(2**_MOST_BITS,)`` int32, the first line of a class, by all magnitudes of a Gaussian in one.
        found, lines_found: the same memory.
    """
    scales, values = reals[:3], reals[3:]
    largest, begins, places = wholes[0], wholes[1], wholes[2]
    y, co, cg = values[0], values[1], values[2]
    y_scale, co_scale, cg_scale = scales[0], scales[1], scales[2]
    most, last = np.float32(len(tables) - 1), np.float32(width - 1)
    for first in range(0, len(fineness), ROWS_OF_VECTORS):
        left = len(fineness) - first
        rows = left if left < ROWS_OF_VECTORS else ROWS_OF_VECTORS
        for i in range(rows):
            spread(per_unit, fineness[first + i], i * coefficients, scales)
        begin = at(3 * coefficients * first)
        for t in range(rows * coefficients):
            u = at(t)
            j = begin + at(3) * u
            r, g, b = harmonics[j], harmonics[j + at(1)], harmonics[j + at(2)]
            y[u] = (r + g + b) * y_scale[u]
            co[u] = (r - b) * co_scale[u]
            cg[u] = (r - np.float32(2) * g + b) * cg_scale[u]
            size = abs(y[u]) if abs(y[u]) > abs(co[u]) else abs(co[u])
            size = (size if size > abs(cg[u]) else abs(cg[u])) + rounding
            largest[u] = np.int32(size if size < most else most)
        for i in range(rows):
            union = np.int32(0)
            for k in range(coefficients):
                union |= largest[at(i * coefficients) + at(k)]
            table = tables[at(union)]
            for k in range(COEFFICIENTS):
                begins[at(i * coefficients) + at(k)] = table
        for color in range(3):
            steps, scale = values[color], scales[color]
            for t in range(rows * coefficients):
                u = at(t)
                size = abs(steps[u])
                # At the end of a table the cost is that of its last entry, and level.
                places[u] = begins[u] + np.int32(color * width) + np.int32(size if size < last else last)
            for t in range(rows * coefficients):
                found[at(t)] = lines[at(places[at(t)])]
            for t in range(rows * coefficients):
                u = at(t)
                at_zero, slope = lines_found[at(2) * u], lines_found[at(2) * u + at(1)]
                sums[u] += at_zero + slope * abs(steps[u])
                steps[u] = (slope if steps[u] > 0 else -slope) * scale[u]
        for t in range(rows * coefficients):
            u = at(t)
            j = begin + at(3) * u
            even = y[u] + cg[u]
            d_harmonics[j] += weight * (even + co[u])
            d_harmonics[j + at(1)] += weight * (y[u] - np.float32(2) * cg[u])
            d_harmonics[j + at(2)] += weight * (even - co[u])
