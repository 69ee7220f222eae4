"""An independent renderer to compare with: every pixel against every Gaussian, in float64, differentiated by PyTorch.

It follows the published description of 3DGS and the conventions of INRIA's program that ``docs/method.md`` lists, and
shares neither code nor formulas with the rasterizer: the covariance is inverted outright, the spherical harmonics come
from their definition through Legendre polynomials, and the transmittance is a cumulative product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

TILE = 16
NEAR_PLANE = 0.2
DILATION = 0.3
ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN = 0.99, 1 / 255, 1e-4

# How near to a threshold a float32 renderer may decide otherwise: relative for alpha, transmittance and radius, pixels
# for positions.
_ALPHA_MARGIN, _TRANSMITTANCE_MARGIN, _RADIUS_MARGIN, _PIXEL_MARGIN = 3e-4, 1e-3, 1e-5, 1e-3


@dataclass
class Reference:
    """What the reference renders.

    Attributes:
        image: ``(H, W, 3)`` float64.
        radii: ``(N,)`` int64, 0 for Gaussians outside the view.
        is_fragile: ``(H, W)`` pixels where some decision (in or out of a tile, alpha >= 1/255, transmittance >= 1e-4)
            is so close that a float32 renderer may decide otherwise.
    """

    image: Tensor
    radii: Tensor
    is_fragile: Tensor


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """``(N, (degree + 1)**2)`` real harmonics with the Condon-Shortley phase at unit vectors, m from -band to band."""
    x, y, z = directions.unbind(1)
    columns = []
    for band in range(degree + 1):
        legendre = np.polynomial.Polynomial(np.polynomial.legendre.leg2poly([0.0] * band + [1.0]))
        for m in range(-band, band + 1):
            order = abs(m)
            area = 4 * math.pi / (2 * band + 1)
            norm = math.sqrt(math.factorial(band - order) / math.factorial(band + order) / area)
            polar = torch.zeros_like(z)
            for power, coefficient in enumerate(legendre.deriv(order).coef if order else legendre.coef):
                polar = polar + float(coefficient) * z**power
            real, imaginary = torch.ones_like(x), torch.zeros_like(x)
            for _ in range(order):
                real, imaginary = real * x - imaginary * y, real * y + imaginary * x
            azimuth = real if m == 0 else math.sqrt(2) * (real if m > 0 else imaginary)
            columns.append((-1) ** order * norm * polar * azimuth)
    return torch.stack(columns, 1)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """``(N, 3, 3)`` of ``(N, 4)`` wxyz of any length; a quaternion of length zero counts as no rotation."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1, eps=1e-12).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _clamped(coordinate: Tensor, depth: Tensor, low: float, high: float) -> Tensor:
    """INRIA's clamp of x or y for the Jacobian; outside its bounds the coordinate counts as a constant."""
    ratio = coordinate / depth
    limited = (ratio.clamp(low, high) * depth).detach()
    return torch.where((ratio >= low) & (ratio <= high), coordinate, limited)


def screen_axes(camera: Camera, positions: Tensor, rotation: Tensor, splats: GaussianModel) -> Tensor:
    """``(N, 2, 3)`` axes, one standard deviation long, on the screen, of Gaussians at ``positions`` in camera space."""
    x, y, z = positions.unbind(1)
    margin_x, margin_y = 0.15 * camera.width / camera.fx, 0.15 * camera.height / camera.fy
    right, bottom = (camera.width - camera.cx) / camera.fx, (camera.height - camera.cy) / camera.fy
    x = _clamped(x, z, -camera.cx / camera.fx - margin_x, right + margin_x)
    y = _clamped(y, z, -camera.cy / camera.fy - margin_y, bottom + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([camera.fx / z, zero, -camera.fx * x / z**2], -1),
            torch.stack([zero, camera.fy / z, -camera.fy * y / z**2], -1),
        ],
        -2,
    )
    return jacobian @ rotation @ rotation_matrices(splats.quaternions) * splats.log_scales.exp()[:, None, :]


def _covariances(camera: Camera, positions: Tensor, rotation: Tensor, splats: GaussianModel) -> Tensor:
    """``(N, 2, 2)`` covariances on the screen, dilated."""
    axes = screen_axes(camera, positions, rotation, splats)
    return axes @ axes.mT + DILATION * torch.eye(2, dtype=axes.dtype)


def _tiles_inside(centre: Tensor, radius: Tensor, pixels: Tensor, slack: float) -> Tensor:
    """``(N, P)``: whether the tile of each pixel, along one axis, meets the square of INRIA's rule."""
    first = torch.floor((centre - radius - slack) / TILE)
    end = torch.floor((centre + radius + TILE - 1 + slack) / TILE)
    tile = torch.div(pixels, TILE, rounding_mode="floor")
    return (tile >= first[:, None]) & (tile < end[:, None])


def _inverse(matrices: Tensor) -> Tensor:
    a, b, c = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]
    inverse = torch.stack([c, -b, -b, a], -1) / (a * c - b * b)[:, None]
    return inverse.view(-1, 2, 2)


def render(
    camera: Camera, splats: GaussianModel, background: Tensor, *, sh_degree: int, screen_offsets: Tensor | None = None
) -> Reference:
    """Render float64 splats; differentiable in the six tensors and in ``screen_offsets``, which are added in pixels."""
    world_to_camera = torch.from_numpy(camera.world_to_camera)
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    width, height, count = camera.width, camera.height, len(splats.means)
    positions = splats.means @ rotation.T + translation
    in_front = positions.detach()[:, 2] > NEAR_PLANE
    order = torch.argsort(positions.detach()[:, 2], stable=True)
    order = order[in_front[order]]
    chosen = splats.map(lambda tensor: tensor[order])
    positions = positions[order]

    covariance = _covariances(camera, positions, rotation, chosen)
    inverse = _inverse(covariance)
    focal = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    principal = torch.tensor([camera.cx, camera.cy], dtype=torch.float64)
    centre = focal * positions[:, :2] / positions[:, 2:] + principal - 0.5
    if screen_offsets is not None:
        centre = centre + screen_offsets[order]
    eye = torch.from_numpy(camera.center)
    directions = torch.nn.functional.normalize(chosen.means - eye, dim=1)
    coefficients = torch.cat([chosen.sh_dc, chosen.sh_rest], 1)[:, : (sh_degree + 1) ** 2]
    colours = torch.einsum("nk,nkc->nc", spherical_harmonics(directions, sh_degree), coefficients)
    colours = (colours + 0.5).clamp_min(0)

    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.reshape(-1), columns.reshape(-1)
    offset = centre[:, None, :] - torch.stack([columns, rows], -1)
    exponent = -0.5 * torch.einsum("npi,nij,npj->np", offset, inverse, offset)
    uncapped = torch.sigmoid(chosen.opacity_logits) * exponent.exp()
    # INRIA's backward pass multiplies by the uncapped alpha: the gradient goes through the cap as if it were not there.
    alpha = uncapped + (uncapped.clamp_max(ALPHA_MAX) - uncapped).detach()

    with torch.no_grad():
        mean = (covariance[:, 0, 0] + covariance[:, 1, 1]) / 2
        spread = (covariance[:, 0, 0] - covariance[:, 1, 1]) ** 2 / 4 + covariance[:, 0, 1] ** 2
        extent = 3 * torch.sqrt(mean + torch.sqrt(spread.clamp_min(0.1)))

        def reached(radius: Tensor, slack: float) -> Tensor:
            return _tiles_inside(centre[:, 0], radius, columns, slack) & _tiles_inside(
                centre[:, 1], radius, rows, slack
            )

        inside = reached(extent.ceil(), 0.0)
        surely = reached((extent * (1 - _RADIUS_MARGIN)).ceil(), -_PIXEL_MARGIN)
        perhaps = reached((extent * (1 + _RADIUS_MARGIN)).ceil(), _PIXEL_MARGIN)
        touches = inside & (alpha >= ALPHA_MIN)
        after = torch.cumprod(1 - alpha * touches, 0)
        contributes = touches & (after >= TRANSMITTANCE_MIN)
        fragile = (surely != perhaps) & (alpha >= ALPHA_MIN * (1 - _ALPHA_MARGIN))
        fragile |= perhaps & ((alpha / ALPHA_MIN - 1).abs() < _ALPHA_MARGIN)
        fragile |= (after / TRANSMITTANCE_MIN - 1).abs() < _TRANSMITTANCE_MARGIN
        # What lies behind the end of a pixel cannot change it.
        before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
        fragile &= before >= TRANSMITTANCE_MIN * (1 - _TRANSMITTANCE_MARGIN)
        radii = torch.zeros(count, dtype=torch.int64)
        radii[order] = torch.where(inside.any(1), extent.ceil().long(), 0)

    alpha = alpha * contributes
    through = torch.cumprod(torch.cat([torch.ones(1, height * width, dtype=torch.float64), 1 - alpha]), 0)
    image = torch.einsum("np,nc->pc", alpha * through[:-1], colours) + through[-1, :, None] * background
    return Reference(image.view(height, width, 3), radii, fragile.any(0).view(height, width))
