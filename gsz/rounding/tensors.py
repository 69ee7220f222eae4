"""Rounding in PyTorch: gradients that pass straight through it, and the arithmetic for models that live on a GPU.

The values on a GPU are those of the kernels bit for bit, because every step is an operation that has only one right
result, each is a kernel of its own, so that no compiler can contract a product and a sum into one rounding, and sums of
a few terms are written out in the order of the kernels. Square roots are the exception that is made to be one: see
:func:`square_root`. Nothing is divided by a Python number, which PyTorch on CUDA replaces by a product with its
reciprocal, and nothing goes to the CPU or waits for it.

Imported only where a model is made of tensors.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsz.rounding.arrays import Array
from gsz.rounding.elementary import LN2, ROOT_HALF, SERIES
from gsz.rounding.palettes import sums_of
from gsz.splats import Splats


def on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is where NumPy and the kernels can work on it."""
    return tensor.device.type == "cpu"


def arrays_of(splats: Splats) -> Splats:
    """The Gaussians as what rounding works on: NumPy arrays where they are on the CPU, else detached tensors."""
    return splats.numpy() if on_cpu(splats.means) else splats.map(lambda tensor: tensor.detach())


def on_device(table: Array, device: torch.device) -> Tensor:
    """A table on a device; bytes become int32, which can be indices. As a GPU waits for it, copy a table once."""
    tensor = table if isinstance(table, Tensor) else torch.tensor(table)
    return (tensor.int() if tensor.dtype == torch.uint8 else tensor).to(device)


def as_tensor(array: Array) -> Tensor:
    """A new NumPy array as a tensor of the same memory; a tensor as it is."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


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


def straight_through(values: Tensor, snapped: Array, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """``snapped`` in the shape of ``values``, with a gradient that is handed to ``values`` unchanged.

    Outside of ``[low, high]``, where the grid ends, a gradient is dropped if descending it would lead further out;
    one that leads back in passes, so that no parameter is stranded.
    """
    tensor = as_tensor(snapped).reshape(values.shape)
    if not (torch.is_grad_enabled() and values.requires_grad):
        return tensor
    return _StraightThrough.apply(values, tensor, low, high)


def straight_through_rotation(quaternions: Tensor, snapped: Array, signs: Array) -> Tensor:
    """Grid rotations whose gradient goes to ``quaternions`` through their normalization.

    ``signs`` ``(N,)`` says where the stored quaternion is the negated one: the same rotation, the opposite gradient.
    """
    if not (torch.is_grad_enabled() and quaternions.requires_grad):
        return straight_through(quaternions, snapped)
    unit = torch.nn.functional.normalize(quaternions, dim=1)
    return straight_through(unit * as_tensor(signs)[:, None], snapped)


class _Shared(torch.autograd.Function):
    """See :func:`shared`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, vectors: Tensor, labels: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(labels)
        ctx.count = count
        return vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (labels,) = ctx.saved_tensors
        gradient = gradients[0].reshape(len(labels), math.prod(gradients[0].shape[1:]))
        if on_cpu(gradient):
            ones = np.ones(len(labels), np.float32)
            sums = torch.from_numpy(sums_of(gradient.numpy(), ones, labels.numpy(), ctx.count)[0])
        else:
            # The order of these sums, and with it their last bits, is left to chance, as in all gradients of a GPU.
            sums = torch.zeros((ctx.count, gradient.shape[1]), dtype=torch.float64, device=gradient.device)
            sums.index_add_(0, labels, gradient.double())
        return sums.float().index_select(0, labels).reshape(gradients[0].shape), None, None, None


def shared(rows: Tensor, vectors: Array, labels: Array, count: int) -> Tensor:
    """Palette vectors in the place of rows. The gradient of a vector is the sum of its rows', and each of them gets it.

    So Adam moves them all alike, as if the vector itself were what is optimized. With gradients of their own, rows that
    hardly matter would move as fast as those that do, and nothing would bring any back to the vector it is shown as.

    Args:
        rows: ``(N, ...)`` what is replaced.
        vectors: In the shape of ``rows``, the vector of each.
        labels: ``(N,)`` int64 numbers of the vectors.
        count: How many vectors there are.
    """
    return _Shared.apply(rows, as_tensor(vectors).reshape(rows.shape), as_tensor(labels), count)


_SPLITTER = 2.0**27 + 1.0


def square_root(squares: Tensor) -> Tensor:
    """The correctly rounded square roots of float64 numbers that are 0 or between 1e-290 and 1e290.

    NVIDIA documents those of CUDA to be that. On a CPU PyTorch hands this to a library of the processor's maker where
    there is one, and its roots may be the neighbors of the right ones, so they are checked and corrected. A root ``y``
    is right if ``squares`` is above the product of ``y`` and the number below it and not above that of ``y`` and the
    number above it (Tuckerman's test: between these products lie the squares of all real numbers nearer to ``y`` than
    to its neighbors, and no other number). Both are told by the sign of a residual that is computed without error, the
    square of ``y`` being the sum of two float64 numbers (Dekker 1971).
    """
    roots = torch.sqrt(squares)
    if squares.is_cuda:
        return roots
    above = torch.nextafter(roots, torch.full_like(roots, math.inf))
    below = torch.nextafter(roots, torch.zeros_like(roots))
    product = roots * roots
    high = roots * _SPLITTER
    high = high - (high - roots)
    low = roots - high
    error = ((high * high - product) + (high * low + high * low)) + low * low
    residual = (squares - product) - error
    right = torch.where(residual > roots * (above - roots), above, roots)
    return torch.where(residual <= -(roots * (roots - below)), below, right)


# What follows is for tensors what functions of the same names, which have the descriptions, are for NumPy arrays.


def signed_log(values: Tensor) -> Tensor:
    """See :func:`gsz.rounding.levels.signed_log`."""
    size = values.double().abs()
    fraction, exponent = torch.frexp(size + 1.0)
    small = fraction < ROOT_HALF
    fraction = torch.where(small, 2.0 * fraction, fraction)
    exponent = (exponent - small.int()).double()
    ratio = torch.where(exponent == 0, size / (size + 2.0), (fraction - 1.0) / (fraction + 1.0))
    square = ratio * ratio
    total = torch.zeros_like(ratio)
    for factor in SERIES:
        total = total * square + factor
    return torch.copysign(exponent * LN2 + total * ratio, values)


def nearest_levels(values: Tensor, thresholds: Tensor) -> Tensor:
    """See :func:`gsz.rounding.levels.nearest_levels`."""
    return torch.searchsorted(thresholds, values.contiguous(), right=True, out_int32=True)


def whole(values: Tensor, low: int, high: int) -> Tensor:
    """See :func:`gsz.rounding.levels.whole`."""
    return values.round().nan_to_num(low, high, low).clamp(low, high).int()


def round_to_multiples(values: Tensor, scale: Tensor, steps: Tensor, low: float, high: float) -> Tensor:
    """See :func:`gsz.rounding.levels.round_to_multiples`."""
    rounded = (values * scale / steps[:, None]).round() * steps[:, None]
    return rounded.nan_to_num(low, high, low).clamp(low, high) + 0.0


def multiples(levels: Tensor, units: Tensor) -> Tensor:
    """See :func:`gsz.rounding.levels.multiples`."""
    return levels.float() * units


def look_up(table: Tensor, levels: Tensor) -> Tensor:
    """See :func:`gsz.rounding.levels.look_up`."""
    return table.index_select(0, levels.reshape(-1)).reshape(levels.shape)


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """See :func:`gsz.rounding.levels.take_rows`."""
    return table.index_select(0, rows)


class _RotationTables(NamedTuple):
    """By the index of a dropped component.

    Attributes:
        rest: ``(4, 3)`` int64 indices of the other components.
        places: ``(4, 4)`` int64, where each of the four is in the dropped one followed by the others.
        units: ``(4, 4)`` float64, the quaternion of this component alone.
    """

    rest: Tensor
    places: Tensor
    units: Tensor


@cache
def _rotation_tables(device: torch.device) -> _RotationTables:
    rest = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    places = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]])
    return _RotationTables(*(on_device(table, device) for table in (rest, places, np.eye(4))))


def drop_largest(quaternions: Tensor, real: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gsz.rounding.rotations.drop_largest`."""
    wide, length = _lengths(quaternions, real)
    return _without(wide.abs().argmax(1), wide, length)


def drop_real(quaternions: Tensor, real: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gsz.rounding.rotations.drop_real`."""
    wide, length = _lengths(quaternions, real)
    return _without(torch.full_like(wide[:, 0], real, dtype=torch.int64), wide, length)


def _lengths(quaternions: Tensor, real: int) -> tuple[Tensor, Tensor]:
    """``(N, 4)`` float64 quaternions, zeros replaced by the one that turns nothing, and ``(N, 1)`` their lengths."""
    wide = quaternions.double()
    a, b, c, d = (wide * wide).unbind(1)
    length = square_root(a + b + c + d)[:, None]
    nothing = length == 0
    return torch.where(nothing, _rotation_tables(wide.device).units[real], wide), length.masked_fill(nothing, 1.0)


def _without(dropped: Tensor, wide: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rest = _rotation_tables(wide.device).rest
    sign = 1.0 - 2.0 * (wide.gather(1, dropped[:, None]) < 0)
    return dropped, sign[:, 0], sign * wide.gather(1, rest[dropped]) / length


def restore_dropped(dropped: Tensor, others: Tensor, unit: float) -> Tensor:
    """See :func:`gsz.rounding.rotations.restore_dropped`."""
    tables = _rotation_tables(others.device)
    wide = others.long()
    squares = (wide * wide).sum(1, keepdim=True)
    # A tensor of ones times the divisor: by a number CUDA would not divide, but multiply with its reciprocal.
    one = tables.units[:1, :1]
    missing = square_root((1.0 - squares / (one * (unit * unit))).clamp(min=0.0))
    return torch.cat([missing, wide / (one * unit)], 1).gather(1, tables.places[dropped]).float()


_REACH = 1024.0
"""Numbers of palette rows are taken to be within this of zero."""


def centroids_of(rows: Tensor, weights: Tensor, labels: Tensor, previous: Tensor) -> Tensor:
    """See :func:`gsz.rounding.palettes.centroids_of`. Weights are at most 1.

    What is added up are whole numbers, so that the order, which a GPU leaves to chance, does not matter.
    """
    unit = 2.0 ** (52 - len(rows).bit_length())
    weights = weights.double() * unit
    weighted = rows.double().clamp(-_REACH, _REACH) * weights[:, None]
    sums = torch.zeros(previous.shape, dtype=torch.int64, device=rows.device)
    sums.index_add_(0, labels, weighted.round().long())
    masses = torch.zeros(len(previous), dtype=torch.int64, device=rows.device)
    masses.index_add_(0, labels, weights.round().long())
    return torch.where((masses > 0)[:, None], (sums.double() / masses.double()[:, None]).float(), previous)
