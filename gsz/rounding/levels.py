"""Rounding numbers to levels, and tables of what levels stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.kernels import kernel
from gsz.rounding import elementary, opacity
from gsz.rounding.arrays import Array, Float32s, Float64s, with_tensor_form
from gsz.rounding.elementary import LN2, ROOT_HALF, SERIES

MOST_THRESHOLDS = 255


@with_tensor_form
def nearest_levels(values: Float32s, thresholds: Float32s) -> Array:
    """How many of the ascending thresholds are no larger, for every value.

    Args:
        values: Of any shape.
        thresholds: At most 255.

    Returns:
        Levels in the shape of ``values``; uint8, of tensors int32.
    """
    values = np.ascontiguousarray(values)
    # Nothing is as large as NaN, so that no level is beyond the last.
    padded = np.full(MOST_THRESHOLDS, np.nan, np.float32)
    padded[: len(thresholds)] = thresholds
    levels = np.empty(values.shape, np.uint8)
    _nearest_levels(values.reshape(-1), padded, levels.reshape(-1))
    return levels


@kernel
def _nearest_levels(values, thresholds, levels):
    for index in range(values.size):
        value = values[index]
        # A binary search over 255 entries whose only condition becomes a conditional move.
        level = 0
        for step in (128, 64, 32, 16, 8, 4, 2, 1):
            level += step if thresholds[level + step - 1] <= value else 0
        levels[index] = level


@with_tensor_form
def whole(values: npt.NDArray[np.floating], low: int, high: int) -> Array:
    """The nearest whole numbers from ``low`` to ``high``, as int32, halves to the even one; NaN becomes ``low``."""
    values = np.ascontiguousarray(values)
    rounded = np.empty(values.shape, np.int32)
    _whole(values.reshape(-1), low, high, rounded.reshape(-1))
    return rounded


@kernel
def _whole(values, low, high, rounded):
    for index in range(values.size):
        value = np.rint(values[index])
        # Written so that NaN becomes the lower end.
        rounded[index] = np.int32(min(value, high)) if value > low else low


@with_tensor_form
def round_to_multiples(values: Float32s, scale: Float32s, steps: Float32s, low: float, high: float) -> Array:
    """``(N, C)`` float32 multiples of ``steps``, those nearest to ``values * scale``; never -0.

    Args:
        values: ``(N, C)``.
        scale: ``(C,)`` by column.
        steps: ``(N,)`` by row; powers of two, so that nothing is rounded but the multiple.
        low, high: Results are clamped to these, whether they are multiples or not.
    """
    rounded = np.empty(values.shape, np.float32)
    ends = np.float32(low), np.float32(high)
    _round_to_multiples(np.ascontiguousarray(values), scale, steps, *ends, rounded)
    return rounded


@kernel
def _round_to_multiples(values, scale, steps, low, high, rounded):
    for row in range(values.shape[0]):
        step = steps[row]
        for column in range(values.shape[1]):
            multiple = step * np.rint(values[row, column] * scale[column] / step)
            # Adding zero turns -0 into 0; written so that NaN becomes the lower end.
            rounded[row, column] = min(multiple, high) + np.float32(0) if multiple > low else low


@with_tensor_form
def multiples(levels: npt.NDArray[np.number], units: Float32s) -> Array:
    """``(N, C)`` float32 ``levels * units``.

    Args:
        levels: ``(N, C)`` float32, or integers of up to 24 bits.
        units: ``(C,)`` by column.
    """
    values = np.empty(levels.shape, np.float32)
    _multiples(levels, units, values)
    return values


@kernel
def _multiples(levels, units, values):
    for row in range(levels.shape[0]):
        for column in range(levels.shape[1]):
            values[row, column] = np.float32(levels[row, column]) * units[column]


@with_tensor_form
def look_up(table: npt.NDArray[np.floating], levels: npt.NDArray[np.integer]) -> Array:
    """``table[levels]`` of a flat table, in the shape of ``levels``."""
    levels = np.ascontiguousarray(levels)
    values = np.empty(levels.shape, table.dtype)
    _look_up(table, levels.reshape(-1), values.reshape(-1))
    return values


@kernel
def _look_up(table, levels, values):
    for index in range(levels.size):
        values[index] = table[levels[index]]


@with_tensor_form
def take_rows(table: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> Array:
    """``(N, C)`` rows of a table, by their ``(N,)`` numbers."""
    return np.take(table, rows, axis=0)


@with_tensor_form
def signed_log(values: Float32s) -> Float64s:
    """``sign(x) log(1 + abs(x))`` of finite numbers, to 1e-14 of it: the exponent of ``1 + abs(x)`` times the logarithm
    of 2, and :data:`SERIES` for the rest, whose ``r`` is at most 0.18."""
    values = np.ascontiguousarray(values)
    logs = np.empty(values.shape)
    _signed_log(values.reshape(-1), logs.reshape(-1))
    return logs


@kernel
def _signed_log(values, logs):
    for index in range(values.size):
        size = abs(np.float64(values[index]))
        fraction, exponent = math.frexp(1.0 + size)
        if fraction < ROOT_HALF:
            fraction, exponent = 2.0 * fraction, exponent - 1
        ratio = size / (2.0 + size) if exponent == 0 else (fraction - 1.0) / (fraction + 1.0)
        square = ratio * ratio
        total = 0.0
        for factor in SERIES:
            total = total * square + factor
        logs[index] = math.copysign(exponent * LN2 + total * ratio, values[index])


def midpoints_of(codebook: Float32s) -> Float32s:
    """The ``len(codebook) - 1`` decision thresholds of an ascending codebook."""
    return ((codebook[1:].astype(np.float64) + codebook[:-1]) / 2).astype(np.float32)


OPACITY_LOGITS = opacity.LOGITS_OF_BYTES
"""The logit of each opacity byte; 0 and 255 stand a millionth inside, as splat-transform reads them."""

OPACITY_MIDPOINTS = elementary.logit((np.arange(255) + 0.5) / 255).astype(np.float32)
"""Logits at which the nearest 8-bit opacity changes: level ``k`` lies between entries ``k - 1`` and ``k``."""
