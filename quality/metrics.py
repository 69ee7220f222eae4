"""How good a render is: PSNR, SSIM and LPIPS of views."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quality.lpips import Lpips
from quality.ssim import ssim
from quality.summary import ViewMetrics


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of one view: ``20 log10(1 / sqrt(mse))`` over all pixels and channels at once.

    Args:
        image, target: ``(H, W, 3)`` in [0, 1].

    Returns:
        ``math.inf`` for identical images. The squared error is summed in float64.
    """
    if image.shape != target.shape:
        raise ValueError(f"expected images of one size, got {tuple(image.shape)} and {tuple(target.shape)}")
    squared_error = float((image.double() - target.double()).square().mean())
    return math.inf if squared_error == 0.0 else -10.0 * math.log10(squared_error)


@torch.inference_mode()
def measure(image: Tensor, target: Tensor, lpips: Lpips | None = None) -> ViewMetrics:
    """The metrics of one view; the image is clamped to [0, 1] first, as a PNG of it would be."""
    image = image.clamp(0.0, 1.0)
    return ViewMetrics(
        psnr=psnr(image, target),
        ssim=float(ssim(image, target)),
        lpips=None if lpips is None else lpips(image, target),
    )
