"""A set of views: their cameras, what they should look like, and who renders them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from gaussian_renderer import Rendering, render
from scene import Scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel


@dataclass(frozen=True)
class Views:
    """Cameras with their targets and the renderer.

    Attributes:
        cameras: The views, sorted by name.
        target: What a view should look like: ``(H, W, 3)`` float32 in [0, 1].
        background: ``(3,)`` RGB behind everything.
        extent: Size of the scene in world units, which the learning rate of the means is relative to.
        backend: Name of the renderer.
    """

    cameras: list[Camera]
    target: Callable[[Camera], Tensor]
    background: Tensor
    extent: float
    backend: str = "auto"

    @staticmethod
    def of(scene: Scene, cameras: list[Camera], backend: str = "auto") -> Views:
        """Some of a scene's views, whose targets are the scene's images."""
        return Views(cameras, scene.images.load, scene.background, scene.extent, backend)

    def __len__(self) -> int:
        return len(self.cameras)

    def at(self, cameras: list[Camera]) -> Views:
        """Other cameras, everything else the same."""
        return replace(self, cameras=cameras)

    def render(self, camera: Camera, splats: GaussianModel, screen_offsets: Tensor | None = None) -> Rendering:
        """Render one view, differentiable in the six parameters; see :func:`gaussian_renderer.render`."""
        return render(camera, splats, self.background, backend=self.backend, screen_offsets=screen_offsets)

    def shuffled(self, seed: tuple[int, ...]) -> ShuffledViews:
        """The views in random order, again and again."""
        return ShuffledViews(self.cameras, seed)


class ShuffledViews:
    """An endless sequence of cameras: one random permutation of them after the other, fixed by the seed."""

    def __init__(self, cameras: list[Camera], seed: tuple[int, ...]) -> None:
        self._cameras = cameras
        self._random = np.random.default_rng(seed)
        self._order: list[int] = []

    def __iter__(self) -> ShuffledViews:
        return self

    def __next__(self) -> Camera:
        if not self._order:
            self._order = self._random.permutation(len(self._cameras)).tolist()
        return self._cameras[self._order.pop()]
