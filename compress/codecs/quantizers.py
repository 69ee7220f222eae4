"""What the viewers' grids share: rounding onto levels, tables of level values, rotations, and their gradients.

Every value a decoder returns comes from a table or from arithmetic on the stored integers, and ``snap`` takes the same
path, so the law of :mod:`compress.codecs.contract` holds by construction: rounding decides the integers, the integers
alone decide the values. The kernels are compiled without fast-math, so that every machine rounds alike.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel

Floats = npt.NDArray[np.floating]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer]


class _StraightThrough(torch.autograd.Function):
    """Replaces values by their grid values; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, snapped: Tensor, low: float, high: float) -> Tensor:
        smallest, largest = torch.aminmax(values) if values.numel() else (values.new_zeros(()),) * 2
        ctx.clamps = bool(smallest < low) or bool(largest > high)
        ctx.low, ctx.high = low, high
        ctx.save_for_backward(*([values] if ctx.clamps else []))
        return snapped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = gradients[0]
        if ctx.clamps:
            (values,) = ctx.saved_tensors
            outward = ((values < ctx.low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
            gradient = gradient.masked_fill(outward, 0.0)
        return gradient, None, None, None


def straight_through(values: Tensor, snapped: npt.NDArray[np.float32], low: float = -math.inf, high: float = math.inf):
    """``snapped`` as a tensor like ``values``, whose gradient is handed to ``values`` unchanged.

    Outside of ``[low, high]``, where the grid ends, a gradient is dropped if descending it would lead further out;
    one that leads back in passes, so that no parameter is stranded.
    """
    result = torch.from_numpy(snapped).reshape(values.shape).to(values.device)
    if not (torch.is_grad_enabled() and values.requires_grad):
        return result
    return _StraightThrough.apply(values, result, low, high)


def straight_through_rotation(
    quaternions: Tensor, snapped: npt.NDArray[np.float32], signs: npt.NDArray[np.float32]
) -> Tensor:
    """Grid rotations whose gradient goes to ``quaternions`` through their normalisation.

    ``signs`` ``(N,)`` says where the stored quaternion is the negated one: the same rotation, the opposite gradient.
    """
    if not (torch.is_grad_enabled() and quaternions.requires_grad):
        return straight_through(quaternions, snapped)
    sign = torch.from_numpy(signs).to(quaternions.device)[:, None]
    return straight_through(torch.nn.functional.normalize(quaternions, dim=1) * sign, snapped)


def as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A parameter as a contiguous float32 array on the CPU, without a copy where it is one already."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())


@numba.njit(cache=True, nogil=True)
def _round_to_multiples(values, scale, steps, middle, symbols):
    for row in range(values.shape[0]):
        step = steps[row]
        for column in range(values.shape[1]):
            level = middle + step * np.rint(values[row, column] * scale[column] / step)
            # Written so that NaN becomes byte 0.
            symbols[row, column] = np.uint8(min(level, np.float32(255)) if level > 0 else np.float32(0))


def round_to_multiples(values: Floats, scale: Floats, steps: Floats, middle: float) -> Bytes:
    """``(N, C)`` bytes, nearest to ``middle + values * scale`` of those that differ from ``middle`` by multiples.

    Args:
        values: ``(N, C)`` float32.
        scale: ``(C,)`` by column.
        steps: ``(N,)`` of what, by row; powers of two, so that nothing is rounded but the level.
        middle: The byte of 0. Results are clamped to 0 and 255, whether those are multiples or not.
    """
    symbols = np.empty(values.shape, np.uint8)
    rows = (np.asarray(row, np.float32) for row in (scale, steps))
    _round_to_multiples(values, *rows, np.float32(middle), symbols)
    return symbols


@numba.njit(cache=True, nogil=True)
def _look_up_columns(tables, levels, values):
    for row in range(levels.shape[0]):
        for column in range(levels.shape[1]):
            values[row, column] = tables[column, levels[row, column]]


def look_up_columns(tables: npt.NDArray[np.float32], levels: Integers) -> npt.NDArray[np.float32]:
    """``(N, C)`` values ``tables[c, levels[:, c]]``. The caller has made sure that no level is past its table."""
    values = np.empty(levels.shape, np.float32)
    _look_up_columns(tables, levels, values)
    return values


@numba.njit(cache=True, nogil=True)
def _nearest_levels(values, midpoints, levels):
    for index in range(values.size):
        value = values[index]
        # A binary search over 255 entries whose only condition becomes a conditional move.
        level = 0
        for step in (128, 64, 32, 16, 8, 4, 2, 1):
            level += step if midpoints[level + step - 1] <= value else 0
        levels[index] = level


def nearest_levels(values: Floats, midpoints: npt.NDArray[np.float32]) -> Bytes:
    """For every value, how many of the ascending ``midpoints`` (at most 255) are no larger: its level, same shape."""
    levels = np.empty(values.shape, np.uint8)
    padded = np.full(255, np.inf, np.float32)
    padded[: midpoints.size] = midpoints
    _nearest_levels(values.reshape(-1), padded, levels.reshape(-1))
    return levels


def midpoints_of(codebook: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The ``len(codebook) - 1`` decision thresholds of an ascending codebook."""
    return ((codebook[1:].astype(np.float64) + codebook[:-1]) / 2).astype(np.float32)


def logit(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of the sigmoid, for probabilities strictly between 0 and 1."""
    return np.log(probabilities / (1.0 - probabilities))


SH_C0 = 0.28209479177387814
"""The spherical harmonic of degree 0: a colour of 0 to 1 is ``0.5 + SH_C0 * sh_dc``."""

OPACITY_LOGITS = logit(np.clip(np.arange(256) / 255, 1e-6, 1 - 1e-6)).astype(np.float32)
"""The logit of each opacity byte; 0 and 255 stand a millionth inside, as splat-transform reads them."""

OPACITY_MIDPOINTS = logit((np.arange(255) + 0.5) / 255).astype(np.float32)
"""Logits at which the nearest 8-bit opacity changes: level ``k`` lies between entries ``k - 1`` and ``k``."""


@numba.njit(cache=True, nogil=True)
def _drop_largest(quaternions, identity, largest, signs, others):
    for row in range(quaternions.shape[0]):
        squares = 0.0
        for i in range(4):
            squares += np.float64(quaternions[row, i]) * np.float64(quaternions[row, i])
        length = math.sqrt(squares)
        chosen = identity
        for i in range(4):
            if abs(quaternions[row, i]) > abs(quaternions[row, chosen]):
                chosen = i
        sign = -1.0 if quaternions[row, chosen] < 0 else 1.0
        largest[row] = chosen
        signs[row] = sign
        slot = 0
        for i in range(4):
            if i != chosen:
                others[row, slot] = sign * quaternions[row, i] / length if length > 0 else 0.0
                slot += 1


def drop_largest(
    quaternions: Floats, identity: int = 0
) -> tuple[Bytes, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The smallest-three form of rotations: what is left when the component of largest magnitude is made positive.

    Args:
        quaternions: ``(N, 4)`` of any length; one of length zero stands for the rotation that turns nothing.
        identity: Which component is the real one.

    Returns:
        ``(N,)`` index of the largest component, ``(N,)`` float32 sign that made it positive, and ``(N, 3)`` float64
        other components in their order, each within ``1 / sqrt(2)`` of zero.
    """
    count = len(quaternions)
    largest, signs, others = np.empty(count, np.uint8), np.empty(count, np.float32), np.empty((count, 3))
    _drop_largest(quaternions, identity, largest, signs, others)
    return largest, signs, others


@numba.njit(cache=True, nogil=True)
def _restore_largest(largest, others, unit, quaternions):
    for row in range(others.shape[0]):
        # The squares are summed as integers: no order of addition, no rounding.
        squares = 0
        for i in range(3):
            squares += np.int64(others[row, i]) * np.int64(others[row, i])
        chosen = largest[row]
        quaternions[row, chosen] = math.sqrt(max(0.0, 1.0 - squares / (unit * unit)))
        slot = 0
        for i in range(4):
            if i != chosen:
                quaternions[row, i] = others[row, slot] / unit
                slot += 1


def restore_largest(largest: Integers, others: Integers, unit: float) -> npt.NDArray[np.float32]:
    """``(N, 4)`` quaternions from smallest-three integers: ``others / unit``, and the rest of the unit length."""
    quaternions = np.empty((len(others), 4), np.float32)
    _restore_largest(largest, others, unit, quaternions)
    return quaternions


def log2_prominence(splats: GaussianModel) -> npt.NDArray[np.float64]:
    """``(N,)`` how much an error of each Gaussian's colour shows: opacity times the geometric mean of its longer axes.

    Its area in place of the root of its area was no better, neither for palettes nor for steps.
    """
    logs = np.sort(as_array(splats.log_scales).astype(np.float64), axis=1)
    logits = as_array(splats.opacity_logits)[:, 0].astype(np.float64)
    return ((logs[:, 1] + logs[:, 2]) / 2 - np.logaddexp(0, -logits)) / math.log(2)
