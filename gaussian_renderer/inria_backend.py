"""The INRIA backend: diff-gaussian-rasterization, the CUDA rasterizer of the 3DGS paper, where the user installed it.

It is free for research only, so it is neither shipped nor required. Any of its branches works: the original one, the
one with antialiasing and depths, and the accelerated one, which takes degree 0 of the spherical harmonics apart.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaussian_renderer.cuda import blank, color_coefficients, kept_per_camera
from gaussian_renderer.rendering import Rendering, Splats
from scene.cameras import Camera

__all__ = ["INSTALL", "PACKAGE", "matrices", "obstacle", "render"]

PACKAGE = "diff_gaussian_rasterization"
INSTALL = (
    'NVCC_APPEND_FLAGS="-include cstdint" pip install --no-build-isolation '
    "git+https://github.com/graphdeco-inria/diff-gaussian-rasterization"
)
"""GCC 13 and newer no longer include ``cstdint`` for a source that does not ask for it, as this one does not."""


def obstacle() -> str | None:
    """What keeps the installed package from working, with the remedy; ``None`` if nothing does.

    Raises:
        ImportError: the package is not installed.
    """
    from diff_gaussian_rasterization import GaussianRasterizationSettings

    unknown = sorted(set(GaussianRasterizationSettings._fields) - _SETTINGS)
    if unknown:
        return f"the {PACKAGE} installed is a variant with settings of its own ({', '.join(unknown)}); install INRIA's"
    return None


_SETTINGS = {
    *("image_height", "image_width", "tanfovx", "tanfovy", "bg", "scale_modifier", "viewmatrix", "projmatrix"),
    *("sh_degree", "campos", "prefiltered", "debug", "antialiasing"),
}
"""All settings of all branches; each branch has some of them."""


def matrices(camera: Camera) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The ``(4, 4)`` view matrix and the full projection as the kernels read them.

    Both are transposed: a world point is the row vector ``(x, y, z, 1)`` that is multiplied from the left. After the
    full projection and the division by w, x and y run from -1 to 1 over the picture, whose left and upper edges are at
    pixel -1/2; the principal point may be off-center. The third column is not used by the kernels.
    """
    projection = np.array(
        [
            [2 * camera.fx / camera.width, 0, 2 * camera.cx / camera.width - 1, 0],
            [0, 2 * camera.fy / camera.height, 2 * camera.cy / camera.height - 1, 0],
            [0, 0, 1, 0],
            [0, 0, 1, 0],
        ]
    )
    view = camera.world_to_camera
    return np.ascontiguousarray(view.T, np.float32), np.ascontiguousarray((projection @ view).T, np.float32)


@kept_per_camera
def _camera_settings(camera: Camera, device: torch.device) -> dict[str, Any]:
    """The rasterizer's settings that a camera decides."""
    view, full_projection = matrices(camera)
    return {
        "image_height": camera.height,
        "image_width": camera.width,
        # The kernels get the focal lengths back from these, in pixels.
        "tanfovx": camera.width / (2 * camera.fx),
        "tanfovy": camera.height / (2 * camera.fy),
        "viewmatrix": torch.from_numpy(view).to(device),
        "projmatrix": torch.from_numpy(full_projection).to(device),
        "campos": torch.from_numpy(camera.center.astype(np.float32)).to(device),
    }


def render(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, screen_offsets: Tensor | None = None
) -> Rendering:
    """Render with INRIA's rasterizer; see :func:`gaussian_renderer.render`."""
    if splats.means.shape[0] == 0:
        return blank(camera, splats, background)
    from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer

    settings = {
        **_camera_settings(camera, splats.means.device),
        "bg": background,
        "scale_modifier": 1.0,
        "sh_degree": sh_degree,
        "prefiltered": False,
        "debug": False,
        "antialiasing": False,
    }
    rasterizer = GaussianRasterizer(
        GaussianRasterizationSettings(**{name: settings[name] for name in GaussianRasterizationSettings._fields})
    )
    if "dc" in inspect.signature(rasterizer.forward).parameters:
        colors = {"dc": splats.sh_dc.contiguous(), "shs": splats.sh_rest.contiguous()}
    else:
        colors = {"shs": color_coefficients(splats)}
    image, radii, *_ = rasterizer(
        means3D=splats.means,
        means2D=_screen_points(camera, splats, screen_offsets),
        opacities=splats.opacity_logits.sigmoid(),
        scales=splats.log_scales.exp(),
        # The kernels take the quaternions for unit ones.
        rotations=torch.nn.functional.normalize(splats.quaternions, dim=1),
        **colors,
    )
    return Rendering(image.permute(1, 2, 0), radii)


def _screen_points(camera: Camera, splats: Splats, screen_offsets: Tensor | None) -> Tensor:
    """``(N, 3)`` zeros that collect the gradient of the centers in normalized device coordinates.

    Made from the offsets in pixels, of which the picture has ``width / 2`` in a unit of x, so that the gradient that
    arrives at the offsets is in pixels.
    """
    if screen_offsets is None:
        return torch.zeros_like(splats.means)
    x, y = screen_offsets.unbind(1)
    return torch.stack([x * (2 / camera.width), y * (2 / camera.height), torch.zeros_like(x)], dim=1)
