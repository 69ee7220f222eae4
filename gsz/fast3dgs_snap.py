"""Rounding to the values of :mod:`gsz.fast3dgs` with gradients, for fine-tuning; what of it needs PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gsz.fast3dgs_limits import HALF_MAX, LARGEST_SCALE, LEVELS, SMALLEST_SCALE


def range_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value, widened to contain 0, as float64 scalars on the device of ``values``."""
    if values.numel() == 0:
        return values.new_zeros((), dtype=torch.float64), values.new_zeros((), dtype=torch.float64)
    low, high = torch.aminmax(values.detach())
    return low.double().clamp(max=0.0), high.double().clamp(min=0.0)


def snap_affine(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """The values of :class:`gsz.fast3dgs.AffineGrid`; gradients pass, except where the range cuts a value off."""
    low, high = _scalar(low, values), _scalar(high, values)
    step = ((high - low) / LEVELS).clamp(SMALLEST_SCALE, LARGEST_SCALE).float()
    zero_point = (-low / step.double()).round().clamp(0, LEVELS)
    return _AffineSnap.apply(values, step, zero_point)


def snap_half(values: Tensor) -> Tensor:
    """The nearest finite float16, with the gradient of the identity."""
    return _HalfSnap.apply(values)


def _scalar(number: float | Tensor, values: Tensor) -> Tensor:
    """A float64 scalar on the device of ``values``, which need not be waited for."""
    if isinstance(number, Tensor):
        return number
    return torch.full((), number, dtype=torch.float64, device=values.device)


def _offsets(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The 8-bit symbols of ``values``, less the zero point, as float32."""
    offsets = torch.mul(values, (1.0 / scale.double()).float()).round_()
    if values.device.type != "cpu":
        return offsets.clamp_(-zero_point.float(), LEVELS - zero_point.float())
    # With numbers for bounds it is faster; on the CPU reading them waits for nothing.
    zero = float(zero_point)
    return offsets.clamp_(-zero, LEVELS - zero)


class _AffineSnap(torch.autograd.Function):
    """Rounding to an affine grid with the gradient of the clamp alone.

    It runs on all SH in every fine-tuning iteration, so it makes few passes over memory and stores no mask.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        ctx.save_for_backward(values, scale, zero_point)
        # Adding zero turns -0 into the +0 that a decoder computes.
        return _offsets(values, scale, zero_point).mul_(scale).add_(0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, scale, zero_point = ctx.saved_tensors
        low, high = -(zero_point + 0.5) * scale, (LEVELS - zero_point + 0.5) * scale
        if values.device.type != "cpu":
            return torch.where((values > low) & (values < high), gradient, 0.0), None, None
        # The same in one fused pass, which takes the bounds as numbers.
        return torch.ops.aten.hardtanh_backward(gradient, values, float(low), float(high)), None, None


class _HalfSnap(torch.autograd.Function):
    """Rounding to float16, to the nearest finite number, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clamp(-HALF_MAX, HALF_MAX).half().float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
