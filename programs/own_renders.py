"""Views for a model that comes without photographs: what it shows itself is what its compressed file should show.

The cameras are those of the model directory's ``cameras.json``; without one they are placed around or in the model.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from gaussian_renderer import choose_backend, render
from gsz.errors import UserError
from programs.placed_views import placed_cameras
from quality.summary import ViewMetrics
from scene import Scene, background, image_cache, scene_of_cameras
from scene.cache import ImageCache
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.model_dir import CAMERAS_FILE, read_cameras_file
from scene.options import PlacementOptions, SceneOptions
from utils.progress import Progress, silent

log = logging.getLogger(__name__)

ASSUMED_QUALITY = ViewMetrics(psnr=27.0, ssim=0.82)
"""What the original is taken to have against the photographs that nobody has: about the mean of 3DGS on the outdoor and
indoor scenes of Mip-NeRF 360. See :func:`compress.judging.against_photographs`."""


class OwnRenders:
    """What a model shows at a camera, in place of a photograph: float32, never rounded to 8 bits.

    Args:
        cache: Where renders are kept, as far as it goes; by default none is.
    """

    def __init__(
        self, splats: GaussianModel, background: Tensor, backend: str = "auto", cache: ImageCache | None = None
    ) -> None:
        device = choose_backend(backend).device
        self._splats = splats.detach().to(device)
        self._background = background.to(device)
        self._backend = backend
        self._cache = ImageCache(0) if cache is None else cache

    def load(self, camera: Camera) -> Tensor:
        """``(H, W, 3)`` float32 in [0, 1]; not to be changed."""
        image = self._cache.get((camera.name, camera.width, camera.height), lambda: self._render(camera))
        return image.to(self._background.device)

    @torch.no_grad()
    def _render(self, camera: Camera) -> Tensor:
        return render(camera, self._splats, self._background, backend=self._backend).image.clamp(0.0, 1.0)


def scene_without_photographs(
    splats: GaussianModel,
    checkpoint: Path,
    model_dir: Path | None,
    options: SceneOptions,
    placement: PlacementOptions,
    *,
    validation_every: int = 10,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress = silent,
) -> Scene:
    """The scene that a trained model makes of itself.

    Args:
        splats: The model, of at least one Gaussian.
        checkpoint: Its file, for messages.
        model_dir: The directory it comes from; its ``cameras.json`` is taken if there is one.
        placement: How cameras are placed where there is none.

    Raises:
        UserError: ``cameras.json`` is damaged, empty, or names two views the same; or no views of the model are found.
    """
    if has_cameras(model_dir):
        assert model_dir is not None
        source = model_dir / CAMERAS_FILE
        cameras = known_cameras(model_dir)
        log.info(
            "no photographs are given (-s): the targets are the model's own renders at the %d cameras of %s",
            len(cameras),
            source,
        )
    else:
        source = checkpoint
        cameras = placed_cameras(splats, placement, seed=seed, backend=backend, progress=progress)
        log.info(
            "no photographs and no cameras are given: the targets are the model's own renders at %d placed cameras",
            len(cameras),
        )
    log.info(
        "PSNR and SSIM are measured against these renders; budgets count estimates, as if the original had %.0f dB and "
        "%.2f against photographs",
        ASSUMED_QUALITY.psnr,
        ASSUMED_QUALITY.ssim,
    )
    device = choose_backend(backend).device
    images = OwnRenders(splats, background(options, device), backend, image_cache(options))
    return scene_of_cameras(cameras, images, options, source, validation_every, device)


def has_cameras(model_dir: Path | None) -> bool:
    """Whether a model comes with the cameras of its photographs, so that none are placed."""
    return model_dir is not None and (model_dir / CAMERAS_FILE).is_file()


def known_cameras(path: Path) -> list[Camera]:
    """The cameras of a ``cameras.json``, or of the one in a folder.

    Raises:
        UserError: the file is missing, damaged or empty, or names two views the same.
    """
    if path.is_dir():
        path = path / CAMERAS_FILE
    cameras = read_cameras_file(path)
    if not cameras:
        raise UserError(f"{path}: holds no cameras; remove it to have cameras placed, or copy it again")
    name, count = Counter(camera.name for camera in cameras).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {count} cameras have the name {name!r}; rename them")
    return cameras
