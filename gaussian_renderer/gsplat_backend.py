"""The gsplat backend: the CUDA rasterizer of the nerfstudio project (Apache-2.0), from PyPI.

Written against gsplat 1.5 and 1.6. Its pictures differ from the other backends' in few pixels; ``docs/renderer.md``
says why.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaussian_renderer.cuda import blank, color_coefficients, kept_per_camera
from gaussian_renderer.rendering import Rendering, Splats
from scene.cameras import Camera

__all__ = ["INSTALL", "PACKAGE", "intrinsics", "obstacle", "render"]

PACKAGE = "gsplat"
INSTALL = 'pip install "gsplat>=1.5,<1.7"'
OLDEST = (1, 5)

NEAR_PLANE = 0.2
DILATION = 0.3
"""Added to the variances on the screen, in square pixels."""


def obstacle() -> str | None:
    """What keeps the installed package from working, with the remedy; ``None`` if nothing does.

    The first call on a machine compiles gsplat's kernels, which takes minutes.

    Raises:
        ImportError: the package is not installed.
    """
    import gsplat

    if tuple(int(part) for part in gsplat.__version__.split(".")[:2]) < OLDEST:
        return f"gsplat {gsplat.__version__} is too old; replace it with: {INSTALL}"
    try:
        from gsplat.cuda._backend import _C as kernels
    # The compiler is run by this import, and what it may raise is not documented.
    except Exception as error:
        return (
            f"gsplat's CUDA kernels do not compile ({_first_line(error)}); install the CUDA toolkit of your PyTorch, "
            "and set MAX_JOBS=2 on a machine of little memory"
        )
    if kernels is None:
        return "gsplat finds no CUDA compiler (nvcc) to build its kernels with; install the CUDA toolkit"
    return None


def intrinsics(camera: Camera) -> npt.NDArray[np.float32]:
    """``(3, 3)`` pinhole matrix in pixels, pixel centers at half-integers as everywhere here."""
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], np.float32)


@kept_per_camera
def _matrices(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """``(1, 4, 4)`` world-to-camera transform and ``(1, 3, 3)`` intrinsics on the device."""
    view = torch.from_numpy(camera.world_to_camera.astype(np.float32))
    return view[None].to(device), torch.from_numpy(intrinsics(camera))[None].to(device)


def render(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, screen_offsets: Tensor | None = None
) -> Rendering:
    """Render with gsplat; see :func:`gaussian_renderer.render`."""
    if splats.means.shape[0] == 0:
        return blank(camera, splats, background)
    from gsplat import rasterization

    view, pinhole = _matrices(camera, splats.means.device)
    images, _, projected = rasterization(
        means=splats.means,
        quats=splats.quaternions,
        scales=splats.log_scales.exp(),
        opacities=splats.opacity_logits.sigmoid().squeeze(1),
        colors=color_coefficients(splats),
        viewmats=view,
        Ks=pinhole,
        width=camera.width,
        height=camera.height,
        near_plane=NEAR_PLANE,
        eps2d=DILATION,
        sh_degree=sh_degree,
        # Packed results save memory where a view shows little of a large scene, and make the CPU wait for their number.
        packed=False,
        backgrounds=background[None],
        rasterize_mode="classic",
    )
    centers = projected["means2d"]
    if screen_offsets is not None and centers.requires_grad:
        # gsplat takes no offsets, but their gradient is that of the centers, which it gives in pixels.
        centers.register_hook(partial(_add_gradient, screen_offsets))
    # There is one radius along x and one along y.
    return Rendering(images[0], projected["radii"][0].amax(1))


def _add_gradient(screen_offsets: Tensor, d_centers: Tensor) -> None:
    gradient = d_centers.detach()[0]
    screen_offsets.grad = gradient.clone() if screen_offsets.grad is None else screen_offsets.grad + gradient


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
