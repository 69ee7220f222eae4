"""The loss that 3DGS trains with."""

from __future__ import annotations

import math

from torch import Tensor

from gsz.errors import UserError
from quality.ssim import SSIMTarget, ssim_and_l1

DSSIM_WEIGHT = 0.2


def photometric_loss(image: Tensor, target: SSIMTarget | Tensor, dssim_weight: float = DSSIM_WEIGHT) -> Tensor:
    """``(1 - w) L1 + w (1 - SSIM)`` of two ``(H, W, 3)`` images; Kerbl et al., 3D Gaussian Splatting, 2023, eq. 7."""
    return dssim_weight + ssim_and_l1(image, target, -dssim_weight, 1.0 - dssim_weight)


def finite_loss(loss: Tensor, view: str, what: str) -> float:
    """The value of a loss; on CUDA reading it waits for the GPU.

    Args:
        view: Which view was rendered, and ``what`` whose loss it is, for the message.

    Raises:
        UserError: it is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(
            f"{view}: the loss of {what} is not finite; lower the learning rates, or look for a camera with a broken "
            "pose"
        )
    return value
