"""What the viewers' grids share: rounding onto levels, tables of level values, rotations, and their gradients.

Every value a decoder returns comes from a table or from arithmetic on the stored integers, and ``snap`` takes the same
path, so the law of :mod:`gsz.contract` holds by construction: rounding decides the integers, the integers
alone decide the values.

What is slow in PyTorch on a CPU is written twice: as a kernel for the CPU, compiled without fast-math, and in tensors
for other devices, where nothing goes to the CPU or waits for it. Both give the same bits, for the reasons that
:mod:`gsz.native.device` gives.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from gsz.errors import UserError
from gsz.kernels import SERIAL
from scene.gaussian_model import GaussianModel

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer]


def on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is where the kernels can work on it."""
    return tensor.device.type == "cpu"


class _StraightThrough(torch.autograd.Function):
    """Replaces values by their grid values; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, snapped: Tensor, low: float, high: float) -> Tensor:
        ctx.clamps = _may_leave(values, low, high)
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


def _may_leave(values: Tensor, low: float, high: float) -> bool:
    """Whether a value may be outside of ``[low, high]``; the CPU looks, since that waits for nothing there."""
    if not on_cpu(values):
        return low > -math.inf or high < math.inf
    smallest, largest = torch.aminmax(values) if values.numel() else (values.new_zeros(()),) * 2
    return bool(smallest < low) or bool(largest > high)


def straight_through(values: Tensor, snapped: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """``snapped`` in the shape of ``values``, with a gradient that is handed to ``values`` unchanged.

    Outside of ``[low, high]``, where the grid ends, a gradient is dropped if descending it would lead further out;
    one that leads back in passes, so that no parameter is stranded.
    """
    snapped = snapped.reshape(values.shape)
    if not (torch.is_grad_enabled() and values.requires_grad):
        return snapped
    return _StraightThrough.apply(values, snapped, low, high)


def straight_through_rotation(quaternions: Tensor, snapped: Tensor, signs: Tensor) -> Tensor:
    """Grid rotations whose gradient goes to ``quaternions`` through their normalisation.

    ``signs`` ``(N,)`` says where the stored quaternion is the negated one: the same rotation, the opposite gradient.
    """
    if not (torch.is_grad_enabled() and quaternions.requires_grad):
        return straight_through(quaternions, snapped)
    return straight_through(torch.nn.functional.normalize(quaternions, dim=1) * signs[:, None], snapped)


def as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A parameter as a contiguous float32 array on the CPU, without a copy where it is one already."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())


@njit(**SERIAL)
def _round_to_multiples(values, scale, steps, low, high, rounded):
    for row in range(values.shape[0]):
        step = steps[row]
        for column in range(values.shape[1]):
            multiple = step * np.rint(values[row, column] * scale[column] / step)
            # Adding zero turns -0 into 0; written so that NaN becomes the lower end.
            rounded[row, column] = min(multiple, high) + np.float32(0) if multiple > low else low


def round_to_multiples(values: Tensor, scale: Tensor, steps: Tensor, low: float, high: float) -> Tensor:
    """``(N, C)`` float32 multiples of ``steps``, those nearest to ``values * scale``; never -0.

    Args:
        values: ``(N, C)`` float32.
        scale: ``(C,)`` float32 by column.
        steps: ``(N,)`` float32 by row; powers of two, so that nothing is rounded but the multiple.
        low, high: Results are clamped to these, whether they are multiples or not.
    """
    if not on_cpu(values):
        multiples = (values * scale / steps[:, None]).round() * steps[:, None]
        return multiples.nan_to_num(low, high, low).clamp(low, high) + 0.0
    rounded = torch.empty(values.shape)
    ends = np.float32(low), np.float32(high)
    _round_to_multiples(values.contiguous().numpy(), scale.numpy(), steps.numpy(), *ends, rounded.numpy())
    return rounded


@njit(**SERIAL)
def _nearest_levels(values, thresholds, levels):
    for index in range(values.size):
        value = values[index]
        # A binary search over 255 entries whose only condition becomes a conditional move.
        level = 0
        for step in (128, 64, 32, 16, 8, 4, 2, 1):
            level += step if thresholds[level + step - 1] <= value else 0
        levels[index] = level


def nearest_levels(values: Tensor, thresholds: Tensor) -> Tensor:
    """For every float32 value how many of the ascending ``thresholds``, at most 255, are no larger: int32."""
    values = values.detach().contiguous()
    if not on_cpu(values):
        return torch.searchsorted(thresholds, values, right=True, out_int32=True)
    # Nothing is as large as NaN, so that no level is beyond the last.
    padded = np.full(255, np.nan, np.float32)
    padded[: len(thresholds)] = thresholds.numpy()
    levels = torch.empty(values.shape, dtype=torch.int32)
    _nearest_levels(values.numpy().reshape(-1), padded, levels.numpy().reshape(-1))
    return levels


_LN2 = math.log(2)
_ROOT = math.sqrt(0.5)
_SERIES = tuple(2.0 / odd for odd in range(17, 0, -2))


@njit(**SERIAL)
def _signed_log(values, logs):
    for index in range(values.size):
        size = abs(np.float64(values[index]))
        fraction, exponent = math.frexp(1.0 + size)
        if fraction < _ROOT:
            fraction, exponent = 2.0 * fraction, exponent - 1
        ratio = size / (2.0 + size) if exponent == 0 else (fraction - 1.0) / (fraction + 1.0)
        square = ratio * ratio
        total = 0.0
        for factor in _SERIES:
            total = total * square + factor
        logs[index] = math.copysign(exponent * _LN2 + total * ratio, values[index])


def signed_log(values: Tensor) -> Tensor:
    """``sign(x) log(1 + abs(x))`` of finite float32 values, as float64, to 1e-14 of it.

    The library's logarithm has other last bits on other machines. This is the exponent of ``1 + abs(x)`` times the
    logarithm of 2, and the series ``log(1 + a) = 2 (r + r**3 / 3 + r**5 / 5 + ...)`` with ``r = a / (2 + a)`` for the
    rest, ``r`` being at most 0.18.
    """
    values = values.detach().contiguous()
    if on_cpu(values):
        logs = torch.empty(values.shape, dtype=torch.float64)
        _signed_log(values.numpy().reshape(-1), logs.numpy().reshape(-1))
        return logs
    size = values.double().abs()
    fraction, exponent = torch.frexp(size + 1.0)
    small = fraction < _ROOT
    fraction = torch.where(small, 2.0 * fraction, fraction)
    exponent = (exponent - small.int()).double()
    ratio = torch.where(exponent == 0, size / (size + 2.0), (fraction - 1.0) / (fraction + 1.0))
    square = ratio * ratio
    total = torch.zeros_like(ratio)
    for factor in _SERIES:
        total = total * square + factor
    return torch.copysign(exponent * _LN2 + total * ratio, values)


def whole(values: Tensor, low: int, high: int) -> Tensor:
    """The nearest whole numbers from ``low`` to ``high``, as int32; NaN becomes ``low``."""
    return values.round().nan_to_num(low, high, low).clamp(low, high).int()


@njit(**SERIAL)
def _look_up_bytes(table, levels, values):
    for index in range(levels.size):
        values[index] = table[levels[index]]


def look_up(table: Tensor, levels: Tensor) -> Tensor:
    """``table[levels]`` of a flat table, in the shape of ``levels``; of 256 entries where levels are bytes."""
    if levels.dtype == torch.uint8:
        values = np.empty(levels.shape, np.float32)
        _look_up_bytes(table.numpy(), levels.numpy().reshape(-1), values.reshape(-1))
        return torch.from_numpy(values)
    return table.index_select(0, levels.reshape(-1)).reshape(levels.shape)


@njit(**SERIAL)
def _multiples(levels, units, values):
    for row in range(levels.shape[0]):
        for column in range(levels.shape[1]):
            values[row, column] = np.float32(levels[row, column]) * units[column]


def multiples(levels: Tensor, units: Tensor) -> Tensor:
    """``(N, C)`` float32 ``levels * units``.

    Args:
        levels: ``(N, C)`` float32, or integers of up to 24 bits, as files have them.
        units: ``(C,)`` float32.
    """
    if levels.is_floating_point() or not on_cpu(levels):
        return levels.float() * units
    # NumPy asks for large pages where PyTorch does not; clearing small ones takes longer than all the rest.
    values = np.empty(levels.shape, np.float32)
    _multiples(levels.numpy(), units.numpy(), values)
    return torch.from_numpy(values)


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


def constant(values: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A table on a device. Copying it there makes a GPU wait, so that a table is to be made once."""
    return torch.as_tensor(np.asarray(values), dtype=dtype).to(device)


@njit(**SERIAL)
def _drop_largest(quaternions, identity, largest, signs, others):
    for row in range(quaternions.shape[0]):
        squares = 0.0
        for i in range(4):
            squares += np.float64(quaternions[row, i]) * np.float64(quaternions[row, i])
        length = math.sqrt(squares)
        chosen = 0
        for i in range(1, 4):
            if abs(quaternions[row, i]) > abs(quaternions[row, chosen]):
                chosen = i
        if length == 0:
            chosen = identity
        sign = -1.0 if quaternions[row, chosen] < 0 else 1.0
        largest[row] = chosen
        signs[row] = sign
        slot = 0
        for i in range(4):
            if i != chosen:
                others[row, slot] = sign * quaternions[row, i] / length if length > 0 else 0.0
                slot += 1


_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""By the index of the largest component, those of the others."""
_PLACES = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]])
"""By the index of the largest component, where each of the four is in the largest followed by the others."""


@cache
def _rotation_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """:data:`_OTHERS`, :data:`_PLACES` and the four unit rows, on a device."""
    others, places = (constant(table, device, torch.int64) for table in (_OTHERS, _PLACES))
    return others, places, constant(np.eye(4), device, torch.float64)


def drop_largest(quaternions: Tensor, identity: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest-three form of rotations: what is left when the component of largest magnitude is made positive.

    Args:
        quaternions: ``(N, 4)`` float32 of any length; one of length zero stands for the rotation that turns nothing.
        identity: Which component is the real one.

    Returns:
        ``(N,)`` int64 index of the largest component, ``(N,)`` float32 sign that made it positive, and ``(N, 3)``
        float64 other components in their order, each within ``1 / sqrt(2)`` of zero.
    """
    count, device = len(quaternions), quaternions.device
    quaternions = quaternions.detach()
    if on_cpu(quaternions):
        largest, signs = torch.empty(count, dtype=torch.int64), torch.empty(count)
        others = torch.empty((count, 3), dtype=torch.float64)
        _drop_largest(quaternions.contiguous().numpy(), identity, largest.numpy(), signs.numpy(), others.numpy())
        return largest, signs, others
    rest, _, units = _rotation_tables(device)
    wide = quaternions.double()
    w, x, y, z = (wide * wide).unbind(1)
    length = (w + x + y + z).sqrt()[:, None]
    nothing = length == 0
    wide = torch.where(nothing, units[identity], wide)
    largest = wide.abs().argmax(1)
    sign = 1.0 - 2.0 * (wide.gather(1, largest[:, None]) < 0)
    others = sign * wide.gather(1, rest[largest]) / length.masked_fill(nothing, 1.0)
    return largest, sign[:, 0], others


@njit(**SERIAL)
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


def restore_largest(largest: Tensor, others: Tensor, unit: float) -> Tensor:
    """``(N, 4)`` float32 quaternions from smallest-three integers: ``others / unit``, and the rest of unit length."""
    if on_cpu(others):
        quaternions = torch.empty((len(others), 4))
        _restore_largest(largest.numpy(), others.numpy(), unit, quaternions.numpy())
        return quaternions
    _, places, units = _rotation_tables(others.device)
    wide = others.long()
    squares = (wide * wide).sum(1, keepdim=True)
    # A tensor of ones times the divisor: by a number CUDA would not divide, but multiply with its reciprocal.
    one = units[:1, :1]
    rest = (1.0 - squares / (one * (unit * unit))).clamp(min=0.0).sqrt()
    return torch.cat([rest, wide / (one * unit)], 1).gather(1, places[largest]).float()


@cache
def _log2_opacities(device: torch.device) -> tuple[Tensor, Tensor]:
    """Thresholds of 8-bit opacities, and the binary logarithm of each."""
    opacities = np.log2(np.maximum(np.arange(256), 0.5) / 255)
    return constant(OPACITY_MIDPOINTS, device), constant(opacities, device, torch.float64)


SH_UNIT = 128
"""The finest steps of SH coefficients in 1."""

LEAST_SH_BITS, MOST_SH_BITS = 2, 8

MORE_SH_BITS = {"best": 10.0, "high": 1.0, "medium": 0.0, "low": -1.0, "tiny": -2.0}
"""By the quality of a viewer's file: bits of SH coefficients beyond the format's usual number."""


def check_viewer_settings(name: str, sh_bits: float, quality: str) -> None:
    """Raise :class:`UserError` for a number of bits or a quality that the viewers' codecs do not have."""
    if not LEAST_SH_BITS <= sh_bits <= 16:
        raise UserError(f"codec {name}: sh_bits {sh_bits} is not between {LEAST_SH_BITS} and 16")
    if quality not in MORE_SH_BITS:
        raise UserError(f"{name} quality {quality!r} is unknown; choose one of {', '.join(MORE_SH_BITS)}")


def bits_of_sh(prominence: Tensor, average: float, bits: float) -> Tensor:
    """Bits of SH coefficients, int32 from 2 to 8: ``bits`` and one more for every fourfold of what shows.

    One more for every twofold would make all errors show alike; it was worse at the same bytes, and so was one for
    every 16-fold.

    Args:
        prominence: What :func:`log2_prominence` gives, of any shape.
        average: The prominence that gets ``bits``.
    """
    return whole((prominence - average) * 0.5 + bits, LEAST_SH_BITS, MOST_SH_BITS)


def log2_prominence(splats: GaussianModel) -> Tensor:
    """``(N,)`` float64: how much an error of each Gaussian's colour shows, which is its opacity, to 8 bits, times the
    geometric mean of its longer axes.

    Its area in place of the root of its area was no better, neither for palettes nor for steps.
    """
    thresholds, log2_opacities = _log2_opacities(splats.device)
    first, second, third = splats.log_scales.detach().double().unbind(1)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    longer = torch.maximum(high, third) + torch.maximum(low, torch.minimum(high, third))
    levels = nearest_levels(splats.opacity_logits.reshape(-1), thresholds)
    return longer * (0.5 / math.log(2)) + look_up(log2_opacities, levels)
