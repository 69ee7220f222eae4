"""Views for a model that comes without photographs: what it shows itself is what its compressed file should show.

The cameras are those of the model directory's ``cameras.json``; without one they are placed by :mod:`scene.placement`
and accepted or rejected here, where there is a renderer to look through them.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import choose_backend, render
from gsz.errors import UserError
from gsz.splats import SH_C0
from quality.summary import ViewMetrics
from scene import Scene, background, image_cache, scene_of_cameras
from scene.cache import ImageCache
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.model_dir import CAMERAS_FILE, read_cameras
from scene.options import SceneOptions
from scene.placement import CameraPlacer, Kind, PlacementOptions
from utils.progress import Progress, silent

log = logging.getLogger(__name__)

NEAR = 0.2
"""What is nearer to a placed camera than this, in radii of the model, is in its way."""
MAX_NEAR_SHARE = 0.1
"""Share of the image that may be in the way."""
MIN_COVERAGE = {"orbit": 0.02, "inside": 0.3}
"""Share of the image in which there must be something."""
MIN_WORTH = 0.4
"""How much a view must show, relative to the best ones: behind walls and under floors, where nobody took photographs,
a trained model is a fog of large Gaussians, which nobody will look at and no byte should be spent on."""

ASSUMED_QUALITY = ViewMetrics(psnr=27.0, ssim=0.82)
"""What the original is taken to have against the photographs that nobody has: about the mean of 3DGS on the outdoor and
indoor scenes of Mip-NeRF 360. See :func:`compress.judging.against_photographs`."""

_TRIES_A_VIEW = 20
_FEWEST_VIEWS = 4
_BEST_QUANTILE = 0.9
_PILOT_VIEWS = 64
_CHECK_WIDTH = 160


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
    if model_dir is not None and (model_dir / CAMERAS_FILE).is_file():
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


def known_cameras(model_dir: Path) -> list[Camera]:
    """The cameras of ``cameras.json``.

    Raises:
        UserError: the file is missing, damaged or empty, or names two views the same.
    """
    path = model_dir / CAMERAS_FILE
    cameras = read_cameras(model_dir)
    if not cameras:
        raise UserError(f"{path}: holds no cameras; remove it to have cameras placed, or copy it again")
    name, count = Counter(camera.name for camera in cameras).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {count} cameras have the name {name!r}; rename them")
    return cameras


def placed_cameras(
    splats: GaussianModel,
    placement: PlacementOptions,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress = silent,
) -> list[Camera]:
    """Cameras placed around or in a model, each looked through before it is taken.

    One whose image is filled by what is right before it, or shows much less than others' do, is replaced by another.
    The same model, options, seed and backend give the same cameras.

    Raises:
        UserError: there are hardly any views of the model to be had.
    """
    placer = CameraPlacer(splats, placement, seed)
    look = Looker(splats, NEAR * placer.shape.radius, backend)
    accepted: list[Camera] = []
    tries = 0
    pilots = [(camera, look(camera)) for camera in islice(placer, _PILOT_VIEWS)]
    worths = [sight.worth for _, sight in pilots if sight.is_clear(placer.kind)]
    least = MIN_WORTH * float(np.quantile(worths, _BEST_QUANTILE)) if worths else 0.0
    for camera, sight in chain(pilots, ((camera, look(camera)) for camera in placer)):
        tries += 1
        if sight.is_clear(placer.kind) and sight.worth >= least:
            accepted.append(replace(camera, name=f"placed_{len(accepted):05d}"))
            progress(len(accepted), placement.view_count, placer.kind)
        if len(accepted) == placement.view_count or tries == _TRIES_A_VIEW * placement.view_count:
            break
    other = "inside" if placer.kind == "orbit" else "orbit"
    if len(accepted) < _FEWEST_VIEWS:
        raise UserError(
            f"only {len(accepted)} of {tries} placed cameras see the model well (--views {placer.kind}); "
            f"try --views {other}"
        )
    log.info("views: %s, %d cameras placed, %d rejected", placer.kind, len(accepted), tries - len(accepted))
    if len(accepted) < placement.view_count:
        log.warning("views: there should be %d; --views %s may find more", placement.view_count, other)
    return accepted


@dataclass(frozen=True)
class Sight:
    """What a camera sees.

    Attributes:
        near_share: Share of the image taken by Gaussians nearer than the limit, in [0, 1].
        coverage: Share of the image taken by any, in [0, 1].
        blur: Mean standard deviation, along their longest axis, of the Gaussians in the image, as a share of its width.
        view_dependence: Mean absolute difference that ``sh_rest`` makes to the image; photographs teach it to a model
            in the directions that they were taken from. Models without ``sh_rest`` have their coverage in its place.
    """

    near_share: float
    coverage: float
    blur: float
    view_dependence: float

    @property
    def worth(self) -> float:
        """How much there is to see, and how sharp it is."""
        return self.view_dependence / max(self.blur, 1e-12)

    def is_clear(self, kind: Kind) -> bool:
        """Whether nothing is in the way, and something is to be seen."""
        return self.near_share <= MAX_NEAR_SHARE and self.coverage >= MIN_COVERAGE[kind]


class Looker:
    """Measures what a camera sees, by rendering the model with measurements for colours.

    Red is one where a Gaussian is near, green is one everywhere, blue is the Gaussian's size on the screen.

    Args:
        near: Distance in world units.
    """

    def __init__(self, splats: GaussianModel, near: float, backend: str = "auto") -> None:
        self._backend = backend
        self._splats = splats.detach().to(choose_backend(backend).device)
        self._sizes = self._splats.scales.max(dim=1).values
        self._near = near

    @torch.no_grad()
    def __call__(self, camera: Camera) -> Sight:
        splats = self._splats
        center = torch.as_tensor(camera.center, dtype=torch.float32, device=splats.device)
        distances = (splats.means - center).norm(dim=1)
        is_near = (distances < self._near).float()
        size = (self._sizes / distances.clamp_min(1e-12) * (camera.fx / camera.width)).clamp_max(1.0)
        colors = torch.stack([is_near, torch.ones_like(is_near), size], dim=1)
        measured = splats.replace(
            sh_dc=((colors - 0.5) / SH_C0)[:, None], sh_rest=splats.sh_rest.new_zeros(len(splats), 0, 3)
        )
        small = camera.at_resolution(_CHECK_WIDTH, max(1, round(_CHECK_WIDTH * camera.height / camera.width)))
        near_share, coverage, size_share = self._image(small, measured).mean(dim=(0, 1)).tolist()
        view_dependence = coverage
        if splats.sh_rest.shape[1]:
            plain = splats.replace(sh_rest=measured.sh_rest)
            view_dependence = (self._image(small, splats) - self._image(small, plain)).abs().mean().item()
        return Sight(near_share, coverage, size_share / max(coverage, 1e-12), view_dependence)

    def _image(self, camera: Camera, splats: GaussianModel) -> Tensor:
        black = torch.zeros(3, device=splats.device)
        return render(camera, splats, black, backend=self._backend).image.clamp(0.0, 1.0)
