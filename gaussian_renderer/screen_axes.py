"""Where on its longest axis each Gaussian is met at a pixel of a view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer.rendering import Splats
from scene.cameras import Camera

_NEAR_PLANE = 0.2
_DILATION = 0.3
_MARGIN = 0.15


@dataclass(frozen=True)
class ScreenAxes:
    """The longest axes of a model in a view.

    A pixel meets a Gaussian all along its ray; its mean position along the axis, in standard deviations, is ``slope ·
    (pixel - center)`` with a slope of ``Σ⁻¹ a``: ``a`` is one deviation of the axis on the screen and ``Σ`` the
    covariance there (Zwicker et al., EWA splatting, 2001), by INRIA's conventions.

    Attributes:
        centers: ``(N, 2)`` in pixels, whose own coordinates are whole numbers.
        slopes: ``(N, 2)``; zero for Gaussians that are not in front of the camera.
    """

    centers: Tensor
    slopes: Tensor

    @staticmethod
    @torch.no_grad()
    def of(camera: Camera, splats: Splats) -> ScreenAxes:
        """The first of equally long axes counts."""
        view = torch.as_tensor(camera.world_to_camera, dtype=torch.float32, device=splats.means.device)
        rotation, translation = view[:3, :3], view[:3, 3]
        positions = splats.means @ rotation.T + translation
        in_front = positions[:, 2:] > _NEAR_PLANE
        depths = torch.where(in_front, positions[:, 2:], 1.0)
        lens = np.array([[camera.fx, camera.fy], [camera.cx, camera.cy], [camera.width, camera.height]])
        focal, principal, size = torch.as_tensor(lens, dtype=torch.float32, device=splats.means.device)
        ratios = positions[:, :2] / depths
        margin = _MARGIN * size / focal
        bent = ratios.clamp(-principal / focal - margin, (size - principal) / focal + margin)
        # (N, 2, 3): the three axes of each, one deviation long, by the Jacobian of the projection at the center.
        turned = rotation @ _rotation_matrices(splats.quaternions) * splats.log_scales.exp()[:, None, :]
        axes = (focal / depths)[:, :, None] * (turned[:, :2] - bent[:, :, None] * turned[:, 2:])
        first = splats.log_scales.argmax(1, keepdim=True)
        order = torch.cat([first, (first + 1) % 3, (first + 2) % 3], 1)[:, None, :].expand(-1, 2, -1)
        axis, second, third = axes.gather(2, order).unbind(2)
        # Σ⁻¹ a by cofactors, of the minors of the axes, in which a needle's long axis cancels exactly.
        minors = [_cross(other, axis) for other in (second, third)]
        determinant = minors[0] ** 2 + minors[1] ** 2 + _cross(second, third) ** 2
        determinant = determinant + _DILATION * axes.square().sum((1, 2))[:, None] + _DILATION**2
        towards = minors[0] * _quarter_turn(second) + minors[1] * _quarter_turn(third)
        slopes = (_DILATION * axis + towards) / determinant
        return ScreenAxes(focal * ratios + principal - 0.5, torch.where(in_front, slopes, 0.0))


def _cross(first: Tensor, second: Tensor) -> Tensor:
    """``(N, 1)`` determinants of pairs of ``(N, 2)`` vectors."""
    return first[:, :1] * second[:, 1:] - first[:, 1:] * second[:, :1]


def _quarter_turn(vectors: Tensor) -> Tensor:
    """``(-y, x)`` of ``(N, 2)`` vectors."""
    return torch.stack([-vectors[:, 1], vectors[:, 0]], 1)


def _rotation_matrices(quaternions: Tensor) -> Tensor:
    """``(N, 3, 3)`` of ``(N, 4)`` quaternions (w x y z) of any length."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
