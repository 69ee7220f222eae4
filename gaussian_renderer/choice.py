"""Which backend renders: the one asked for, or the first that works here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import torch

from gaussian_renderer import nvidia
from gaussian_renderer.rendering import Rendering, ViewStatistics
from gsz.errors import UserError

__all__ = ["CUDA_BACKENDS", "Backend", "BackendName", "choose_backend", "obstacle_to"]

_log = logging.getLogger(__name__)

BackendName = Literal["auto", "inria", "gsplat", "warp", "cpu"]

CUDA_BACKENDS = ("inria", "gsplat", "warp")
"""In the order that ``auto`` tries them. Each is a module of this package: its name and ``_backend``."""

_NEEDS_GPU = "install a CUDA build of PyTorch on a machine with an NVIDIA GPU (see README.md), or use --backend cpu"


@dataclass(frozen=True)
class Backend:
    """Who renders, and why it was chosen.

    Attributes:
        name: What ``--backend`` calls it.
        device: Where the tensors it takes live.
        description: One line for logs: what it is and why it was chosen.
        render: The backend's own entry; use :func:`gaussian_renderer.render` instead.
        render_statistics: Likewise for :func:`gaussian_renderer.render_statistics`; ``None`` where the backend has no
            such pass.
    """

    name: str
    device: torch.device
    description: str
    render: Callable[..., Rendering]
    render_statistics: Callable[..., ViewStatistics] | None = None


@cache
def choose_backend(name: str = "auto") -> Backend:
    """The backend that ``--backend`` names; ``auto`` takes the first of :data:`CUDA_BACKENDS` that works, else the CPU.

    Raises:
        UserError: no such backend, or it cannot run here; the message says what to install.
    """
    if name == "auto":
        return _first_that_works()
    if name == "cpu":
        return _on_cpu("as asked")
    if name not in CUDA_BACKENDS:
        raise UserError(f"--backend {name}: no such backend; choose auto, {', '.join(CUDA_BACKENDS)} or cpu")
    without_cuda = _why_no_cuda()
    if without_cuda and name != "warp":
        raise UserError(f"--backend {name}: {without_cuda}; {_NEEDS_GPU}")
    problem = _obstacle(name)
    if problem:
        raise UserError(f"--backend {name}: {problem}")
    if without_cuda:
        _log.warning(
            "--backend warp: %s, so that Warp runs on the CPU. That is for tests and many times slower than "
            "--backend cpu.",
            without_cuda,
        )
        return _with(name, torch.device("cpu"), "the CPU, for tests", "as asked")
    return _on_cuda(name, "as asked")


def obstacle_to(name: str) -> str | None:
    """Why a backend cannot render on CUDA here, with the remedy; ``None`` if it can."""
    return _why_no_cuda() or _obstacle(name)


def _first_that_works() -> Backend:
    problem = _why_no_cuda()
    problems = [problem] if problem else []
    if not problem:
        for name in CUDA_BACKENDS:
            obstacle = _obstacle(name)
            if obstacle is None:
                return _on_cuda(name, "; ".join(problems) or "the first choice where there is a CUDA device")
            problems.append(obstacle)
    why = "; ".join(problems)
    if torch.cuda.is_available() or nvidia.driver():
        _log.warning("This machine has a GPU, but everything is rendered on the CPU, many times slower: %s", why)
    return _on_cpu(why)


def _why_no_cuda() -> str | None:
    """Why nothing can run on CUDA, with the remedy where there is a GPU; ``None`` if it can."""
    if torch.cuda.is_available():
        return None
    built_for, driver = torch.version.cuda, nvidia.driver()
    if driver is None:
        return "this PyTorch is built without CUDA" if built_for is None else "PyTorch sees no CUDA device"
    runs = "CUDA {}.{}".format(*driver.cuda)
    if built_for is None:
        return f"this PyTorch is built without CUDA; install one for {runs} or older (see README.md)"
    return (
        f"this PyTorch is built for CUDA {built_for} and the NVIDIA driver runs {runs}; update the driver, or install "
        f"a PyTorch for {runs} or older (see README.md)"
    )


def _obstacle(name: str) -> str | None:
    """Why a backend's package cannot be used, with the remedy; ``None`` if it can."""
    backend = import_module(f"gaussian_renderer.{name}_backend")
    try:
        return backend.obstacle()
    except ModuleNotFoundError as error:
        if error.name == backend.PACKAGE:
            return f"the package {backend.PACKAGE} is not installed; install it with: {backend.INSTALL}"
        return f"{backend.PACKAGE} needs the package {error.name}; install it with: pip install {error.name}"
    except ImportError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return f"{backend.PACKAGE} cannot be loaded ({reason}); build it for this PyTorch with: {backend.INSTALL}"


def _on_cpu(why: str) -> Backend:
    from gaussian_renderer import cpu

    description = f"CPU rasterizer, {cpu.DESCRIPTION} ({why})"
    return Backend("cpu", torch.device("cpu"), description, cpu.render, cpu.render_statistics)


def _on_cuda(name: str, why: str) -> Backend:
    device = torch.device("cuda", 0)
    return _with(name, device, torch.cuda.get_device_name(device), why)


def _with(name: str, device: torch.device, device_name: str, why: str) -> Backend:
    module = import_module(f"gaussian_renderer.{name}_backend")
    description = f"{module.PACKAGE} on {device_name} ({why})"
    return Backend(name, device, description, module.render, getattr(module, "render_statistics", None))
