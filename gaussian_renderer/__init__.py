"""``render(camera, splats, background)``, and the choice of who does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from gaussian_renderer.rendering import Rendering, Splats
from scene.cameras import Camera
from utils.errors import UserError

__all__ = ["Backend", "BackendName", "Rendering", "Splats", "choose_backend", "render"]

BackendName = Literal["auto", "cpu"]


@dataclass(frozen=True)
class Backend:
    """Who renders, and why it was chosen.

    Attributes:
        name: What ``--backend`` calls it.
        device: Where the tensors it takes live.
        description: One line for logs: what it is and why it was chosen.
        render: The backend's own entry; use :func:`render` instead.
    """

    name: str
    device: torch.device
    description: str
    render: Callable[..., Rendering]


@cache
def choose_backend(name: str = "auto") -> Backend:
    """The backend that ``--backend`` names; ``auto`` takes the fastest that works here.

    Raises:
        UserError: no such backend, or it cannot run here; the message says what to install.
    """
    if name in ("auto", "cpu"):
        from gaussian_renderer import cpu

        why = "as asked" if name == "cpu" else "no CUDA backend is installed"
        return Backend("cpu", torch.device("cpu"), f"CPU rasterizer ({why})", cpu.render)
    raise UserError(f"--backend {name}: no such backend; choose auto or cpu")


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
        backend: A name that :func:`choose_backend` knows.
        sh_degree: Use the spherical harmonics only up to this degree; ``None`` uses them all.
        screen_offsets: ``(N, 2)`` zeros that collect, as their ``.grad``, the gradient with respect to the centres on
            the screen, in pixels. They do not move anything.
    """
    stored_degree = {0: 0, 3: 1, 8: 2, 15: 3}[splats.sh_rest.shape[1]]
    degree = stored_degree if sh_degree is None else min(sh_degree, stored_degree)
    return choose_backend(backend).render(camera, splats, background, sh_degree=degree, screen_offsets=screen_offsets)
