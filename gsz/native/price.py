"""What a model would cost in bits, with the gradient, in one pass over the Gaussians; for :mod:`gsz.native.rate`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gsz.kernels import inline, kernel
from gsz.native.steps import SCALE_LIMIT, SH_LIMIT, Steps
from gsz.native.symbols import Finenesses, Octaves, clamp, fineness_of, opacity_level, padded_thresholds
from gsz.splats import Splats


class Tables(NamedTuple):
    """What symbols cost: lists of what one costs and by how much the next one costs more, in bits.

    Attributes:
        columns: ``(L, 2)`` float32, the lists of the columns one after the other.
        begins: ``(C,)`` int64, where in them the list of each column begins.
        lows: ``(C,)`` float64, the symbols of the first entries.
        ends: ``(C,)`` float64, the places in the lists beyond which cost is level, as it is before them.
        sh: ``(classes + 1, 3, M, 2)`` float32, magnitudes of Y, Co and Cg in Gaussians of each class. Nothing costs
            more than the last one.
    """

    columns: np.ndarray
    begins: np.ndarray
    lows: np.ndarray
    ends: np.ndarray
    sh: np.ndarray


def with_slopes(costs: np.ndarray) -> np.ndarray:
    """``(..., M, 2)`` float32: costs and by how much the next one is larger, which for the last is 0."""
    return np.stack([costs, np.diff(costs, append=costs[..., -1:])], -1).astype(np.float32)


class Gradients(NamedTuple):
    """Of the cost, by the parameters that have one."""

    opacity_logits: np.ndarray
    log_scales: np.ndarray
    sh_dc: np.ndarray
    sh_rest: np.ndarray


class _Units(NamedTuple):
    """The steps of a grid as the kernel takes them."""

    thresholds: np.ndarray
    levels: float
    per_scale: float
    per_color: float
    sh_per_unit: np.ndarray
    rounding: float
    octaves: Octaves


def price(splats: Splats, steps: Steps, tables: Tables, gradients: Gradients) -> tuple[float, float]:
    """The bits of opacities, scales and ``sh_dc``, and those of the harmonics; ``gradients`` are filled in.

    Args:
        splats: NumPy arrays, contiguous.
    """
    count = len(splats)
    units = _Units(
        padded_thresholds(steps),
        float(steps.opacity_levels),
        1 / steps.scale_step,
        1 / steps.dc_step,
        steps.sh_per_unit,
        1 - steps.sh_threshold,
        Octaves.of(steps),
    )
    room = _Room(
        np.empty((1, 3), np.int32),
        np.empty(1, np.int32),
        Finenesses(np.empty(1, np.uint8), np.empty(1, np.uint8)),
        np.empty(45, np.float32),
    )
    return _price(
        splats.opacity_logits.reshape(-1),
        splats.log_scales,
        splats.sh_dc.reshape(count, 3),
        splats.sh_rest.reshape(count, splats.sh_rest.shape[1] * 3),
        units,
        tables,
        room,
        gradients.opacity_logits.reshape(-1),
        gradients.log_scales,
        gradients.sh_dc.reshape(count, 3),
        gradients.sh_rest.reshape(count, splats.sh_rest.shape[1] * 3),
    )


class _Room(NamedTuple):
    """Where the kernel keeps what it computes of one Gaussian."""

    scales: np.ndarray
    level: np.ndarray
    fineness: Finenesses
    in_steps: np.ndarray


@kernel
def _price(logits, log_scales, colors, harmonics, units, tables, room, d_logits, d_log_scales, d_colors, d_harmonics):
    bits = sh_bits = 0.0
    coefficients, last = harmonics.shape[1], np.float32(tables.sh.shape[2] - 1)
    for i in range(len(logits)):
        opacity = 1.0 / (1.0 + math.exp(-np.float64(logits[i])))
        cost, slope = _column(tables, 0, opacity * units.levels - 0.5)
        bits += cost
        d_logits[i] = slope * units.levels * opacity * (1.0 - opacity)

        first, second, third = _descending(log_scales[i, 0], log_scales[i, 1], log_scales[i, 2])
        largest = log_scales[i, first] * units.per_scale
        middle, least = log_scales[i, second] * units.per_scale, log_scales[i, third] * units.per_scale
        scale_cost, scale_slope = _column(tables, 1, largest)
        gap_cost, gap_slope = _column(tables, 2, 0.5 * (largest - middle))
        thin_cost, thin_slope = _column(tables, 3, 0.25 * (middle - least))
        bits += scale_cost + gap_cost + thin_cost
        d_log_scales[i, first] = (scale_slope + 0.5 * gap_slope) * units.per_scale
        d_log_scales[i, second] = (0.25 * thin_slope - 0.5 * gap_slope) * units.per_scale
        d_log_scales[i, third] = -0.25 * thin_slope * units.per_scale

        red, green, blue = (
            colors[i, 0] * units.per_color,
            colors[i, 1] * units.per_color,
            colors[i, 2] * units.per_color,
        )
        y_cost, y_slope = _column(tables, 4, 0.25 * (red + 2.0 * green + blue))
        cg_cost, cg_slope = _column(tables, 5, green - 0.5 * (red + blue))
        co_cost, co_slope = _column(tables, 6, red - blue)
        bits += y_cost + cg_cost + co_cost
        even = 0.25 * y_slope - 0.5 * cg_slope
        d_colors[i, 0] = (even + co_slope) * units.per_color
        d_colors[i, 1] = (0.5 * y_slope + cg_slope) * units.per_color
        d_colors[i, 2] = (even - co_slope) * units.per_color
        if coefficients == 0:
            continue

        for axis in range(2):
            source = first if axis == 0 else second
            scale = np.float64(log_scales[i, source]) * units.per_scale / (1 << axis)
            room.scales[0, axis] = clamp(scale, SCALE_LIMIT >> axis)
        room.level[0] = opacity_level(units.thresholds, logits[i])
        fineness_of(0, room.scales, room.level, units.octaves, room.fineness)
        per_unit = units.sh_per_unit[room.fineness.sh[0]]
        size = np.float32(0)
        for j in range(0, coefficients, 3):
            r, g, b = harmonics[i, j], harmonics[i, j + 1], harmonics[i, j + 2]
            y, co, cg = (r + g + b) * per_unit[0], (r - b) * per_unit[1], (r - np.float32(2) * g + b) * per_unit[2]
            room.in_steps[j], room.in_steps[j + 1], room.in_steps[j + 2] = y, co, cg
            size = max(size, abs(y), abs(co), abs(cg))
        kind = _bit_length(min(np.float64(size) + units.rounding, np.float64(SH_LIMIT)), tables.sh.shape[0] - 1)
        if kind == 0:
            d_harmonics[i] = np.float32(0)
            continue
        of_y, of_co, of_cg = tables.sh[kind, 0], tables.sh[kind, 1], tables.sh[kind, 2]
        cost = np.float32(0)
        for j in range(0, coefficients, 3):
            y, y_slope = _interpolated(of_y, last, room.in_steps[j])
            co, co_slope = _interpolated(of_co, last, room.in_steps[j + 1])
            cg, cg_slope = _interpolated(of_cg, last, room.in_steps[j + 2])
            cost += y + co + cg
            y_slope, co_slope, cg_slope = y_slope * per_unit[0], co_slope * per_unit[1], cg_slope * per_unit[2]
            d_harmonics[i, j] = y_slope + cg_slope + co_slope
            d_harmonics[i, j + 1] = y_slope - np.float32(2) * cg_slope
            d_harmonics[i, j + 2] = y_slope + cg_slope - co_slope
        sh_bits += cost
    return bits, sh_bits


@inline
def _column(tables, column, value):
    """What a real number of steps costs in a column, interpolated, and the slope; level beyond the list."""
    place, end = value - tables.lows[column], tables.ends[column]
    inside = 1.0 if 0.0 < place < end else 0.0
    place = place if place > 0.0 else 0.0
    place = place if place < end else end
    below = int(place)
    entry = tables.begins[column] + below
    slope = np.float64(tables.columns[entry, 1])
    return tables.columns[entry, 0] + slope * (place - below), slope * inside


@inline
def _interpolated(costs, last, value):
    """What a real number of steps costs, and the slope there, without a branch that nobody could foresee."""
    size = abs(value)
    size = size if size < last else last
    below = int(size)
    slope = costs[below, 1]
    sign = np.float32(value > 0) - np.float32(value < 0)
    return costs[below, 0] + slope * (size - np.float32(below)), slope * sign


@inline
def _descending(a, b, c):
    """Which of three numbers is the largest, the middle and the least; ties keep their order."""
    if a >= b:
        return (0, 1, 2) if b >= c else ((0, 2, 1) if a >= c else (2, 0, 1))
    return (1, 0, 2) if a >= c else ((1, 2, 0) if b >= c else (2, 1, 0))


@inline
def _bit_length(number, most):
    """Of the whole part, at most ``most``."""
    whole, length = int(number), 0
    while whole > 0 and length < most:
        whole >>= 1
        length += 1
    return length
