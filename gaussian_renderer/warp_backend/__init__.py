"""The Warp backend: our own differentiable tile rasterizer in NVIDIA Warp (Apache-2.0), from PyPI.

Its kernels are Python that Warp compiles on first use, in about half a minute and without nvcc. Conventions are those
of the CPU backend. The same kernels run, far slower, on Warp's CPU device: that is how the tests execute them.
"""

from __future__ import annotations

from typing import Any

import torch

from gaussian_renderer.rendering import Rendering, ViewStatistics
from gsz import nvidia_warp
from gsz.nvidia_warp import INSTALL, PACKAGE

__all__ = ["INSTALL", "PACKAGE", "obstacle", "render", "render_statistics"]


def obstacle() -> str | None:
    """What keeps the installed package from working; see :func:`gsz.nvidia_warp.obstacle`."""

    def compile_kernels(device: torch.device) -> None:
        from gaussian_renderer.warp_backend import rasterizer

        rasterizer.compile_kernels(device)

    return nvidia_warp.obstacle(compile_kernels)


def render(*args: Any, **kwargs: Any) -> Rendering:
    """Render with Warp; see :func:`gaussian_renderer.render`."""
    from gaussian_renderer.warp_backend import rasterizer

    return rasterizer.render(*args, **kwargs)


def render_statistics(*args: Any, **kwargs: Any) -> ViewStatistics:
    """Render with Warp and measure each Gaussian; see :func:`gaussian_renderer.render_statistics`."""
    from gaussian_renderer.warp_backend import rasterizer

    return rasterizer.render_statistics(*args, **kwargs)
