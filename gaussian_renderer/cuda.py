"""What the CUDA backends share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gaussian_renderer.rendering import Rendering, Splats
from scene.cameras import Camera

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def kept_per_camera(
    build: Callable[Concatenate[Camera, Parameters], Result],
) -> Callable[Concatenate[Camera, Parameters], Result]:
    """Decorate a function of a camera (and hashable arguments) so that it runs once for each, while the camera lives.

    Copying a camera's matrices to a device makes the CPU wait for the GPU, so it is done once. What is kept goes with
    the camera, not at the end of the process.
    """
    kept: WeakKeyDictionary[Camera, dict[Hashable, Result]] = WeakKeyDictionary()

    @wraps(build)
    def of(camera: Camera, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        results = kept.setdefault(camera, {})
        key = (args, tuple(kwargs.items()))
        if key not in results:
            # What is kept must serve a backward pass too, whoever asks first.
            with torch.inference_mode(False):
                results[key] = build(camera, *args, **kwargs)
        return results[key]

    return of


def color_coefficients(splats: Splats) -> Tensor:
    """``(N, K, 3)`` spherical harmonics of all degrees, degree 0 first."""
    return torch.cat([splats.sh_dc, splats.sh_rest], dim=1)


def blank(camera: Camera, splats: Splats, background: Tensor) -> Rendering:
    """The rendering of a model without Gaussians, which not every rasterizer takes."""
    # The empty sum adds nothing to the picture, and lets a gradient (of no elements) pass as in any other rendering.
    image = background.expand(camera.height, camera.width, 3) + splats.means.sum()
    return Rendering(image, torch.zeros(0, dtype=torch.int32, device=background.device))
