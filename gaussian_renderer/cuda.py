"""What the CUDA backends share."""

from __future__ import annotations

import torch
from torch import Tensor

from gaussian_renderer.rendering import Rendering, Splats
from scene.cameras import Camera

CAMERAS_KEPT = 4096
"""Cameras whose matrices stay on the device. Copying them there makes the CPU wait for the GPU, so it is done once."""


def colour_coefficients(splats: Splats) -> Tensor:
    """``(N, K, 3)`` spherical harmonics of all degrees, degree 0 first."""
    return torch.cat([splats.sh_dc, splats.sh_rest], dim=1)


def blank(camera: Camera, splats: Splats, background: Tensor) -> Rendering:
    """The rendering of a model without Gaussians, which not every rasterizer takes."""
    # The empty sum adds nothing to the picture, and lets a gradient (of no elements) pass as in any other rendering.
    image = background.expand(camera.height, camera.width, 3) + splats.means.sum()
    return Rendering(image, torch.zeros(0, dtype=torch.int32, device=background.device))
