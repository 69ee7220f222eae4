"""The loss that 3DGS trains with."""

from __future__ import annotations

from torch import Tensor

from utils.ssim import SSIMTarget, ssim

DSSIM_WEIGHT = 0.2


def photometric_loss(image: Tensor, target: SSIMTarget | Tensor, dssim_weight: float = DSSIM_WEIGHT) -> Tensor:
    """``(1 - w) L1 + w (1 - SSIM)`` of two ``(H, W, 3)`` images; Kerbl et al., 3D Gaussian Splatting, 2023, eq. 7."""
    if not isinstance(target, SSIMTarget):
        target = SSIMTarget.of(target)
    l1 = (image - target.image).abs().mean()
    return (1.0 - dssim_weight) * l1 + dssim_weight * (1.0 - ssim(image, target))
