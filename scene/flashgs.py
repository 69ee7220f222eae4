"""Scene tensors of FlashGS (Feng et al., FlashGS: Efficient 3D Gaussian Splatting for Large-scale and High-resolution
Rendering, 2024), as its own loader makes them of an INRIA checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel

COEFFICIENTS = (MAX_SH_DEGREE + 1) ** 2
UPPER_TRIANGLE = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
"""Rows and columns of xx, xy, xz, yy, yz, zz."""


@dataclass(frozen=True)
class FlashGSScene:
    """``N`` Gaussians after their activations, float32 and contiguous.

    Attributes:
        position: ``(N, 3)`` world units.
        shs: ``(N, 48)`` spherical harmonics of degree 0 to 3: coefficient by coefficient, red, green, blue each.
        opacity: ``(N,)`` in (0, 1).
        cov3d: ``(N, 6)`` covariances, square world units: xx, xy, xz, yy, yz, zz.
    """

    position: Tensor
    shs: Tensor
    opacity: Tensor
    cov3d: Tensor

    def __len__(self) -> int:
        return int(self.position.shape[0])

    @staticmethod
    def of(model: GaussianModel) -> FlashGSScene:
        """The tensors of a model, on its device. Coefficients of degrees that it does not have are zero."""
        model = model.detach()
        coefficients = torch.cat([model.sh_dc, model.sh_rest], dim=1)
        shs = coefficients.new_zeros(len(model), COEFFICIENTS, 3)
        shs[:, : coefficients.shape[1]] = coefficients
        return FlashGSScene(
            model.means.contiguous(),
            shs.flatten(1),
            model.opacities.flatten(),
            upper_triangles(covariances(model)),
        )


def covariances(model: GaussianModel) -> Tensor:
    """``(N, 3, 3)`` covariances ``R S Sᵀ Rᵀ`` in square world units; quaternions of any length are taken."""
    w, x, y, z = model.rotations.unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotations = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    axes = rotations * model.scales[:, None, :]
    return axes @ axes.transpose(1, 2)


def upper_triangles(matrices: Tensor) -> Tensor:
    """``(N, 6)``: xx, xy, xz, yy, yz, zz of symmetric ``(N, 3, 3)`` matrices."""
    rows, columns = UPPER_TRIANGLE
    return matrices[:, list(rows), list(columns)].contiguous()
