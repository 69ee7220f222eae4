"""``render(camera, splats, background)``, and the choice of who does it.

:func:`render_statistics` tells what each Gaussian is worth to a view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor

from gaussian_renderer.rendering import Rendering, Splats, ViewStatistics
from gsz.errors import UserError
from scene.cameras import Camera

__all__ = [
    "Backend",
    "BackendName",
    "Rendering",
    "Splats",
    "ViewStatistics",
    "choose_backend",
    "render",
    "render_statistics",
]

BackendName = Literal["auto", "inria", "gsplat", "cpu"]

_CUDA_BACKENDS = ("inria", "gsplat")
"""In the order that ``auto`` tries them; each is a module of this package."""


@dataclass(frozen=True)
class Backend:
    """Who renders, and why it was chosen.

    Attributes:
        name: What ``--backend`` calls it.
        device: Where the tensors it takes live.
        description: One line for logs: what it is and why it was chosen.
        render: The backend's own entry; use :func:`render` instead.
        render_statistics: Likewise for :func:`render_statistics`; ``None`` where the backend has no such pass.
    """

    name: str
    device: torch.device
    description: str
    render: Callable[..., Rendering]
    render_statistics: Callable[..., ViewStatistics] | None = None


@cache
def choose_backend(name: str = "auto") -> Backend:
    """The backend that ``--backend`` names; ``auto`` takes the fastest that works here.

    Raises:
        UserError: no such backend, or it cannot run here; the message says what to install.
    """
    if name == "auto":
        return _fastest()
    if name == "cpu":
        return _cpu_backend("as asked")
    if name not in _CUDA_BACKENDS:
        raise UserError(f"--backend {name}: no such backend; choose auto, {', '.join(_CUDA_BACKENDS)} or cpu")
    problem = _no_cuda()
    if problem:
        remedy = "install a CUDA build of PyTorch on a machine with an NVIDIA GPU, or use --backend cpu"
        raise UserError(f"--backend {name}: {problem}; {remedy}")
    problem = _obstacle(name)
    if problem:
        raise UserError(f"--backend {name}: {problem}")
    return _cuda_backend(name, "as asked")


def _fastest() -> Backend:
    problem = _no_cuda()
    if problem:
        return _cpu_backend(problem)
    problems: list[str] = []
    for name in _CUDA_BACKENDS:
        problem = _obstacle(name)
        if problem is None:
            return _cuda_backend(name, "; ".join(problems) or "the first choice where there is a CUDA device")
        problems.append(problem)
    return _cpu_backend("; ".join(problems))


def _no_cuda() -> str | None:
    """Why nothing can run on CUDA, or ``None`` if it can."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    return "PyTorch sees no CUDA device"


def _obstacle(name: str) -> str | None:
    """Why a CUDA backend cannot be used, with the remedy; ``None`` if it can."""
    backend = import_module(f"gaussian_renderer.{name}")
    try:
        return backend.obstacle()
    except ModuleNotFoundError as error:
        if error.name == backend.PACKAGE:
            return f"the package {backend.PACKAGE} is not installed; install it with: {backend.INSTALL}"
        return f"{backend.PACKAGE} needs the package {error.name}; install it with: pip install {error.name}"
    except ImportError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return f"{backend.PACKAGE} cannot be loaded ({reason}); build it for this PyTorch with: {backend.INSTALL}"


def _cpu_backend(why: str) -> Backend:
    from gaussian_renderer import cpu

    description = f"CPU rasterizer, {cpu.DESCRIPTION} ({why})"
    return Backend("cpu", torch.device("cpu"), description, cpu.render, cpu.render_statistics)


def _cuda_backend(name: str, why: str) -> Backend:
    # PyTorch lets convolutions round to ten bits on CUDA. SSIM and LPIPS subtract nearly equal numbers.
    torch.backends.cudnn.allow_tf32 = False
    module = import_module(f"gaussian_renderer.{name}")
    device = torch.device("cuda", 0)
    description = f"{module.PACKAGE} on {torch.cuda.get_device_name(device)} ({why})"
    return Backend(name, device, description, module.render)


def render(
    camera: Camera,
    splats: Splats,
    background: Tensor,
    *,
    backend: str = "auto",
    sh_degree: int | None = None,
    screen_offsets: Tensor | None = None,
) -> Rendering:
    """Render a view, differentiable in the six parameters.

    Args:
        camera: The view and its resolution.
        splats: The model, or any object with its six tensors, on the backend's device.
        background: ``(3,)`` RGB.
        backend: A name that :func:`choose_backend` knows. For a model on the CPU ``auto`` is the CPU's.
        sh_degree: Use the spherical harmonics only up to this degree; ``None`` uses them all.
        screen_offsets: ``(N, 2)`` zeros that collect, as their ``.grad``, the gradient with respect to the centres on
            the screen, in pixels. They do not move anything.
    """
    chosen, degree = _backend_for(backend, splats), _degree(sh_degree, splats)
    return chosen.render(camera, splats, background, sh_degree=degree, screen_offsets=screen_offsets)


def render_statistics(
    camera: Camera,
    splats: Splats,
    background: Tensor,
    *,
    backend: str = "auto",
    sh_degree: int | None = None,
    target: Tensor | None = None,
) -> ViewStatistics | None:
    """Render a view and measure what each Gaussian is worth to it, or ``None`` where the backend cannot: on CUDA.

    It costs about as much as rendering and its gradient. No gradient is recorded.

    Args:
        camera, splats, background, backend, sh_degree: As for :func:`render`.
        target: ``(H, W, 3)`` image that ``removal_loss`` is to be measured against.
    """
    measure = _backend_for(backend, splats).render_statistics
    if measure is None:
        return None
    return measure(camera, splats, background, sh_degree=_degree(sh_degree, splats), target=target)


def _backend_for(name: str, splats: Splats) -> Backend:
    return choose_backend("cpu" if name == "auto" and splats.means.device.type == "cpu" else name)


def _degree(wanted: int | None, splats: Splats) -> int:
    """The degree to render with: at most the stored one."""
    stored = {0: 0, 3: 1, 8: 2, 15: 3}[splats.sh_rest.shape[1]]
    return stored if wanted is None else min(wanted, stored)
