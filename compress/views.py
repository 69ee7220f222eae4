"""A set of views, what they should look like, and who renders them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import Rendering, render
from quality.lpips import Lpips
from quality.metrics import ViewMetrics, mean_metrics, measure
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
        target_quality: ``None`` for photographs. Where the targets are renders of the model that is compressed: what
            that model's quality against photographs is taken to be; see :func:`against_photographs`.
        lpips: Measured as well where it is given.
    """

    cameras: list[Camera]
    target: Callable[[Camera], Tensor]
    background: Tensor
    extent: float
    backend: str = "auto"
    target_quality: ViewMetrics | None = None
    lpips: Lpips | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def of(self, cameras: list[Camera]) -> Views:
        """Other cameras, everything else the same."""
        return replace(self, cameras=cameras)

    def render(self, camera: Camera, splats: GaussianModel) -> Rendering:
        """Render one view, differentiable in the six parameters."""
        return render(camera, splats, self.background, backend=self.backend)

    @torch.no_grad()
    def evaluate(self, splats: GaussianModel) -> ViewMetrics:
        """Mean quality of the model over the views."""
        splats = splats.to(self.background.device)  # Decoders return models on the CPU.
        return mean_metrics([self._measure(camera, splats) for camera in self.cameras])

    def _measure(self, camera: Camera, splats: GaussianModel) -> ViewMetrics:
        metrics = measure(self.render(camera, splats).image, self.target(camera), self.lpips)
        return metrics if self.target_quality is None else against_photographs(metrics, self.target_quality)

    def shuffled(self, seed: tuple[int, ...]) -> ShuffledViews:
        """The views in random order, again and again."""
        return ShuffledViews(self.cameras, seed)


def against_photographs(to_original: ViewMetrics, original: ViewMetrics) -> ViewMetrics:
    """What a compressed model's quality would be, from what it is against the original's renders.

    Against its own renders the original has an infinite PSNR, and every drop from there is infinite. If the error
    against the original and the original's error against the photographs have nothing to do with each other, their
    squares add, and so do the values of 1 / SSIM - 1, which are squared errors relative to contrast.

    Args:
        to_original: Of the compressed model against the original's renders.
        original: Of the original against photographs.
    """
    error = 10.0 ** (-to_original.psnr / 10.0) + 10.0 ** (-original.psnr / 10.0)
    dissimilarity = 1.0 / max(to_original.ssim, 1e-3) + 1.0 / original.ssim - 1.0
    return ViewMetrics(psnr=-10.0 * math.log10(error), ssim=1.0 / dissimilarity, lpips=to_original.lpips)


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
