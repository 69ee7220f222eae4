"""Splatting written down once more, densely and in plain PyTorch, behind the signatures of the two CUDA packages.

It takes what gsplat and diff-gaussian-rasterization take, in their conventions, and returns what they return, so that
the backends can be tested without a GPU. Formulas: Kerbl et al. 2023; constants: those the packages document.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE = 16
ALPHA_CUT = 1 / 255


def sh_colours(degree: int, coefficients: Tensor, directions: Tensor) -> Tensor:
    """``(N, 3)`` colours of ``(N, K, 3)`` coefficients seen along ``(N, 3)`` directions, clamped from below."""
    x, y, z = torch.nn.functional.normalize(directions, dim=1).unbind(1)
    basis = [torch.full_like(x, math.sqrt(1 / (4 * math.pi)))]
    if degree >= 1:
        first = math.sqrt(3 / (4 * math.pi))
        basis += [-first * y, first * z, -first * x]
    if degree >= 2:
        second = math.sqrt(15 / (4 * math.pi))
        basis += [
            second * x * y,
            -second * y * z,
            math.sqrt(5 / (16 * math.pi)) * (2 * z * z - x * x - y * y),
            -second * x * z,
            second / 2 * (x * x - y * y),
        ]
    if degree >= 3:
        outer, middle = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        inner, centre = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        basis += [
            -outer * y * (3 * x * x - y * y),
            middle * x * y * z,
            -inner * y * (4 * z * z - x * x - y * y),
            centre * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -inner * x * (4 * z * z - x * x - y * y),
            middle / 2 * z * (x * x - y * y),
            -outer * x * (x * x - 3 * y * y),
        ]
    weights = torch.stack(basis, dim=1)
    return (torch.einsum("nk,nkc->nc", weights, coefficients[:, : weights.shape[1]]) + 0.5).clamp(min=0)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """``(N, 3, 3)`` of unit quaternions w x y z."""
    w, x, y, z = quaternions.unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def screen_covariances(
    in_camera: Tensor, rotation: Tensor, scales: Tensor, quaternions: Tensor, focal: tuple, limits: tuple
) -> Tensor:
    """``(N, 2, 2)`` covariances in square pixels; ``limits`` clamp x/z and y/z: low and high x, low and high y."""
    x, y, z = in_camera.unbind(1)
    x, y = (x / z).clamp(limits[0], limits[1]) * z, (y / z).clamp(limits[2], limits[3]) * z
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([focal[0] / z, zero, -focal[0] * x / z**2], dim=1),
            torch.stack([zero, focal[1] / z, -focal[1] * y / z**2], dim=1),
        ],
        dim=1,
    )
    axes = rotation_matrices(quaternions) * scales[:, None, :]
    projected = jacobian @ rotation @ axes
    return projected @ projected.transpose(1, 2) + 0.3 * torch.eye(2)


def composite(
    centres: Tensor,
    covariances: Tensor,
    depths: Tensor,
    opacities: Tensor,
    colours: Tensor,
    radii: Tensor,
    background: Tensor,
    size: tuple[int, int],
    alpha_cap: float,
) -> Tensor:
    """``(H, W, 3)``: front to back, in the tiles that the ``(N, 2)`` radii around the centres touch."""
    width, height = size
    columns, rows = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    inverse = torch.linalg.inv(covariances)
    image, transmittance = torch.zeros(height, width, 3), torch.ones(height, width)
    done = torch.zeros(height, width, dtype=torch.bool)
    for i in torch.argsort(depths).tolist():
        if radii[i].min() == 0:
            continue
        # In pixel numbers, whose tiles begin at multiples of 16.
        low = ((centres[i] - 0.5 - radii[i]) / TILE).long()
        high = ((centres[i] - 0.5 + radii[i] + TILE - 1) / TILE).long()
        in_tiles = (columns // TILE >= low[0]) & (columns // TILE < high[0])
        in_tiles &= (rows // TILE >= low[1]) & (rows // TILE < high[1])
        offset = torch.stack([centres[i, 0] - columns - 0.5, centres[i, 1] - rows - 0.5], dim=-1)
        power = -0.5 * torch.einsum("hwi,ij,hwj->hw", offset, inverse[i], offset)
        alpha = (opacities[i] * power.exp()).clamp(max=alpha_cap)
        alpha = torch.where(in_tiles & (alpha >= ALPHA_CUT) & ~done, alpha, torch.zeros_like(alpha))
        following = transmittance * (1 - alpha)
        stops = following < 1e-4
        done = done | stops
        alpha = torch.where(stops, torch.zeros_like(alpha), alpha)
        image = image + (alpha * transmittance)[..., None] * colours[i]
        transmittance = transmittance * (1 - alpha)
    return image + transmittance[..., None] * background


def gsplat_module() -> ModuleType:
    """Something that can stand in ``sys.modules`` for gsplat 1.5, rendering on the CPU."""

    def rasterization(
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near_plane: float = 0.01,
        far_plane: float = 1e10,
        radius_clip: float = 0.0,
        eps2d: float = 0.3,
        sh_degree: int | None = None,
        packed: bool = True,
        tile_size: int = TILE,
        backgrounds: Tensor | None = None,
        render_mode: str = "RGB",
        rasterize_mode: str = "classic",
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        count = len(means)
        assert quats.shape == (count, 4) and scales.shape == (count, 3) and opacities.shape == (count,)
        assert viewmats.shape == (1, 4, 4) and Ks.shape == (1, 3, 3)
        assert backgrounds is not None and backgrounds.shape == (1, 3) and sh_degree is not None and not packed
        assert rasterize_mode == "classic" and eps2d == 0.3
        rotation, translation = viewmats[0, :3, :3], viewmats[0, :3, 3]
        in_camera = means @ rotation.T + translation
        x, y, z = in_camera.unbind(1)
        fx, fy, cx, cy = Ks[0, 0, 0], Ks[0, 1, 1], Ks[0, 0, 2], Ks[0, 1, 2]
        margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
        limits = (-cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y)
        covariances = screen_covariances(
            in_camera, rotation, scales, torch.nn.functional.normalize(quats, dim=1), (fx, fy), limits
        )
        centres = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=1)[None]
        with torch.no_grad():
            extent = torch.sqrt(2 * torch.log((opacities / ALPHA_CUT).clamp(min=1))).clamp(max=3.33)
            deviations = covariances.diagonal(dim1=1, dim2=2).sqrt()
            radii = torch.ceil(extent[:, None] * deviations)
            inside = ((centres[0] + radii > 0) & (centres[0] - radii < torch.tensor([width, height]))).all(1)
            radii = radii * (inside & (z >= near_plane) & (opacities >= ALPHA_CUT))[:, None]
        eye = -rotation.T @ translation
        image = composite(
            centres[0],
            covariances,
            z,
            opacities,
            sh_colours(sh_degree, colors, means - eye),
            radii,
            backgrounds[0],
            (width, height),
            0.999,
        )
        return image[None], image[None, ..., :1], {"means2d": centres, "radii": radii.int()[None]}

    module = ModuleType("gsplat")
    module.__version__ = "1.5.3"  # type: ignore[attr-defined]
    module.rasterization = rasterization  # type: ignore[attr-defined]
    return module


class _Settings(NamedTuple):
    """The settings of INRIA's branch with antialiasing."""

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool
    antialiasing: bool


class _OldSettings(NamedTuple):
    """The settings of INRIA's first version."""

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool


def _rasterize_inria(
    settings: Any,
    means3D: Tensor,
    means2D: Tensor,
    opacities: Tensor,
    shs: Tensor,
    scales: Tensor,
    rotations: Tensor,
) -> tuple[Tensor, Tensor]:
    assert means2D.shape == means3D.shape and opacities.shape == (len(means3D), 1)
    width, height = settings.image_width, settings.image_height
    homogeneous = torch.cat([means3D, torch.ones(len(means3D), 1)], dim=1)
    in_camera = (homogeneous @ settings.viewmatrix)[:, :3]
    clip = homogeneous @ settings.projmatrix
    # The positions on the screen are an input that only collects gradients; here it takes part, being zero.
    device = clip[:, :2] / (clip[:, 3:] + 1e-7) + means2D[:, :2]
    size = torch.tensor([width, height])
    pixels = ((device + 1) * size - 1) / 2
    focal = (width / (2 * settings.tanfovx), height / (2 * settings.tanfovy))
    x, y = 1.3 * settings.tanfovx, 1.3 * settings.tanfovy
    rotation = settings.viewmatrix[:3, :3].T
    covariances = screen_covariances(in_camera, rotation, scales, rotations, focal, (-x, x, -y, y))
    with torch.no_grad():
        largest = torch.linalg.eigvalsh(covariances)[:, 1]
        radii = torch.ceil(3 * largest.sqrt())
        tiles = torch.tensor([-(-width // TILE), -(-height // TILE)])
        low = torch.minimum(((pixels - radii[:, None]) / TILE).long().clamp(min=0), tiles)
        high = torch.minimum(((pixels + radii[:, None] + TILE - 1) / TILE).long().clamp(min=0), tiles)
        radii = radii * ((in_camera[:, 2] > 0.2) & ((high - low).prod(1) > 0))
    image = composite(
        pixels + 0.5,
        covariances,
        in_camera[:, 2],
        opacities[:, 0],
        sh_colours(settings.sh_degree, shs, means3D - settings.campos),
        radii[:, None].expand(-1, 2),
        settings.bg,
        (width, height),
        0.99,
    )
    return image.permute(2, 0, 1), radii.int()


def inria_module(branch: str = "antialiasing") -> ModuleType:
    """Something that can stand in ``sys.modules`` for diff_gaussian_rasterization, rendering on the CPU.

    Args:
        branch: "original" returns two values, "antialiasing" three, "accelerated" takes degree 0 apart.
    """

    class GaussianRasterizer(torch.nn.Module):
        def __init__(self, raster_settings: Any) -> None:
            super().__init__()
            self.raster_settings = raster_settings

    def forward(self, means3D, means2D, opacities, shs=None, colors_precomp=None, scales=None, rotations=None):
        image, radii = _rasterize_inria(self.raster_settings, means3D, means2D, opacities, shs, scales, rotations)
        return (image, radii) if branch == "original" else (image, radii, image[:1])

    def accelerated(
        self, means3D, means2D, opacities, dc=None, shs=None, colors_precomp=None, scales=None, rotations=None
    ):
        return forward(self, means3D, means2D, opacities, torch.cat([dc, shs], 1), None, scales, rotations)

    GaussianRasterizer.forward = accelerated if branch == "accelerated" else forward  # type: ignore[assignment]
    module = ModuleType("diff_gaussian_rasterization")
    module.GaussianRasterizer = GaussianRasterizer  # type: ignore[attr-defined]
    module.GaussianRasterizationSettings = _OldSettings if branch == "original" else _Settings  # type: ignore[attr-defined]
    return module
