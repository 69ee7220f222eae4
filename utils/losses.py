"""The loss that 3DGS trains with."""

from __future__ import annotations

from torch import Tensor

from utils.ssim import SSIMTarget, ssim_and_l1

DSSIM_WEIGHT = 0.2


def photometric_loss(image: Tensor, target: SSIMTarget | Tensor, dssim_weight: float = DSSIM_WEIGHT) -> Tensor:
    """``(1 - w) L1 + w (1 - SSIM)`` of two ``(H, W, 3)`` images; Kerbl et al., 3D Gaussian Splatting, 2023, eq. 7."""
    return dssim_weight + ssim_and_l1(image, target, -dssim_weight, 1.0 - dssim_weight)
