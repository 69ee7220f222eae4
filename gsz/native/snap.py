"""Rounding to the native grid with gradients, for fine-tuning; what of it needs PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gsz.contract import ModelT
from gsz.native import symbols
from gsz.native.device import DeviceSteps
from gsz.native.steps import Steps
from gsz.splats import Splats


def snap(steps: Steps | DeviceSteps, splats: ModelT) -> ModelT:
    """``splats``, a model of tensors, as a decoder will return it; gradients go straight through the rounding.

    Args:
        steps: of the device that the model is on.
    """
    tensors = [tensor for _, tensor in splats.named_parameters()]
    return type(splats)(*_Snap.apply(steps, *tensors))


class _Snap(torch.autograd.Function):
    """Round to the grid; in the backward pass, straight through the rounding."""

    @staticmethod
    def forward(ctx: Any, steps: Steps | DeviceSteps, *tensors: Tensor) -> tuple[Tensor, ...]:
        model = Splats(*tensors)
        ctx.save_for_backward(model.quaternions)
        if isinstance(steps, DeviceSteps):
            snapped, device_frames = steps.snap(model)
            ctx.back = partial(steps.shape_gradients, device_frames)
        else:
            quantized = symbols.quantize(model, steps)
            snapped = symbols.dequantize(quantized, steps).map(torch.from_numpy)
            ctx.back = partial(_shape_gradients, quantized.frames)
        return tuple(tensor for _, tensor in snapped.named_parameters())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, log_scales, quaternions, *others = gradients
        (original,) = ctx.saved_tensors
        quaternions, log_scales = ctx.back(original, quaternions, log_scales)
        return (None, means, log_scales, quaternions, *others)


def _shape_gradients(
    frames: symbols.Frames, original: Tensor, quaternion_gradient: Tensor, log_scale_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`gsz.native.symbols.shape_gradients` of tensors on the CPU."""
    arrays = (tensor.detach().contiguous().numpy() for tensor in (original, quaternion_gradient, log_scale_gradient))
    quaternions, log_scales = symbols.shape_gradients(frames, *arrays)
    return torch.from_numpy(quaternions), torch.from_numpy(log_scales)
