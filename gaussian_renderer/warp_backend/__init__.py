"""The Warp backend: our own differentiable tile rasterizer in NVIDIA Warp (Apache-2.0), from PyPI.

Its kernels are Python that Warp compiles on first use, in about half a minute and without nvcc. Conventions are those
of the CPU backend. The same kernels run, far slower, on Warp's CPU device: that is how the tests execute them.
"""

from __future__ import annotations

from typing import Any

import torch

from gaussian_renderer.rendering import Rendering, ViewStatistics

__all__ = ["INSTALL", "PACKAGE", "obstacle", "render", "render_statistics"]

PACKAGE = "warp"
INSTALL = 'pip install "warp-lang>=1.17,<1.20"'
OLDEST = (1, 17)
"""From PyPI it uses CUDA 12; newer ones use CUDA 13."""
OLDEST_ON_CPU = (1, 19)
"""Before, a block on the CPU had one lane."""


def obstacle() -> str | None:
    """What keeps the installed package from working, with the remedy; ``None`` if nothing does.

    Where there is a CUDA device, the first call on a machine compiles the kernels.

    Raises:
        ImportError: the package is not installed.
    """
    import warp

    version = tuple(int(part) for part in warp.__version__.split(".")[:2])
    if version < (OLDEST if torch.cuda.is_available() else OLDEST_ON_CPU):
        return f"warp-lang {warp.__version__} is too old; replace it with: {INSTALL}"
    if not torch.cuda.is_available():
        return None
    if not warp.is_cuda_available():
        return (
            f"warp-lang {warp.__version__} cannot use this NVIDIA driver: from 1.18 on it needs driver 580 or newer; "
            "update the driver, or install an older one with: pip install warp-lang==1.17.0"
        )
    from gaussian_renderer.warp_backend import rasterizer

    try:
        rasterizer.compile_kernels(torch.device("cuda", 0))
    # NVRTC is run by this, and what it may raise is not documented.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"Warp's compiler does not take the kernels ({reason}); install a tested version: {INSTALL}"
    return None


def render(*args: Any, **kwargs: Any) -> Rendering:
    """Render with Warp; see :func:`gaussian_renderer.render`."""
    from gaussian_renderer.warp_backend import rasterizer

    return rasterizer.render(*args, **kwargs)


def render_statistics(*args: Any, **kwargs: Any) -> ViewStatistics:
    """Render with Warp and measure each Gaussian; see :func:`gaussian_renderer.render_statistics`."""
    from gaussian_renderer.warp_backend import rasterizer

    return rasterizer.render_statistics(*args, **kwargs)
