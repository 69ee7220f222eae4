"""``render(camera, splats, background)``, and the choice of who does it.

:func:`render_statistics` tells what each Gaussian is worth to a view.
"""

from __future__ import annotations

from torch import Tensor

from gaussian_renderer.choice import Backend, BackendName, choose_backend
from gaussian_renderer.rendering import Rendering, Splats, ViewStatistics
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
        screen_offsets: ``(N, 2)`` zeros that collect, as their ``.grad``, the gradient with respect to the centers on
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
    """Render a view and measure what each Gaussian is worth to it, or ``None`` where the backend cannot.

    It costs about as much as rendering and its gradient. No gradient is recorded.

    Args:
        camera, splats, background, backend, sh_degree: As for :func:`render`.
        target: ``(H, W, 3)`` image that ``removal_loss`` and ``tilt`` are to be measured against.
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
