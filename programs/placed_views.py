"""Cameras for a model that comes without any, each looked through before it is taken.

:mod:`scene.placement` says where there is room to stand, from the Gaussians alone. What takes a renderer is judged
here: whether a camera has something in its way, how much it shows, and whether a hollow model is an object or a room.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import choose_backend, render
from gsz.errors import UserError
from gsz.splats import SH_C0
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import PlacementOptions
from scene.placement import CameraPlacer, Kind, NoPlaceError, Shape, cameras_all_around
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

MAX_HIDDEN_SHARE = 0.01
"""Share of a hollow model that may be hidden from around it for it to be an object, with nothing in it to be seen."""

_TRIES_A_VIEW = 20
_FEWEST_VIEWS = 4
_BEST_QUANTILE = 0.9
_PILOT_VIEWS = 64
_CHECK_WIDTH = 160
_WHERE = {"orbit": "around", "inside": "inside"}


def placed_cameras(
    splats: GaussianModel,
    placement: PlacementOptions,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress = silent,
) -> list[Camera]:
    """Cameras placed around or in a model, each looked through before it is taken.

    One whose image is filled by what is right before it, or shows much less than others' do, is replaced by another.
    Where it is not said which, and one of the two has hardly any views, the other is tried. The same model, options,
    seed and backend give the same cameras.

    Raises:
        UserError: there are hardly any views of the model to be had; the message says what was tried.
    """
    placement.check()
    kinds = [placement.views] if placement.views != "auto" else kinds_by_likelihood(splats, backend)
    reasons = []
    for kind in kinds:
        try:
            return _cameras_of_kind(splats, replace(placement, views=kind), seed, backend, progress)
        except NoPlaceError as error:
            reasons.append(error.reason)
    remedy = f"try --views {_other(kinds[0])}" if len(kinds) == 1 else "look at it in a viewer, or give cameras with -s"
    raise UserError(f"{', and '.join(reasons)}; {remedy}")


def _other(kind: Kind) -> Kind:
    return "inside" if kind == "orbit" else "orbit"


def kinds_by_likelihood(splats: GaussianModel, backend: str = "auto") -> list[Kind]:
    """Both ways to look at a model, the likelier one first.

    A model that is filled is looked at from around. One that is empty in the middle is a room, unless cameras all
    around it see all of it: then it is an object that is hollow, with nothing inside to look at.
    """
    shape = Shape.of(splats)
    kind = shape.kind
    if kind == "inside":
        hidden = hidden_share(splats, shape, backend)
        kind = "orbit" if hidden <= MAX_HIDDEN_SHARE else "inside"
        log.info("views: the model is hollow, and %.1f %% of it is hidden from outside", 100.0 * hidden)
    return [kind, _other(kind)]


def _cameras_of_kind(
    splats: GaussianModel, placement: PlacementOptions, seed: int, backend: str, progress: Progress
) -> list[Camera]:
    placer = CameraPlacer(splats, placement, seed)
    kind = placer.kind
    look = Looker(splats, NEAR * placer.shape.radius, backend)
    accepted: list[Camera] = []
    faults: Counter[str] = Counter()
    pilots = [(camera, look(camera)) for camera in islice(placer, _PILOT_VIEWS)]
    worths = [sight.worth for _, sight in pilots if sight.fault(kind) is None]
    least = MIN_WORTH * float(np.quantile(worths, _BEST_QUANTILE)) if worths else 0.0
    for camera, sight in chain(pilots, ((camera, look(camera)) for camera in placer)):
        fault = sight.fault(kind, least)
        if fault is None:
            accepted.append(replace(camera, name=f"placed_{len(accepted):05d}"))
            progress(len(accepted), placement.view_count, kind)
        else:
            faults[fault] += 1
        tries = len(accepted) + faults.total()
        if len(accepted) == placement.view_count or tries == _TRIES_A_VIEW * placement.view_count:
            break
    if len(accepted) < _FEWEST_VIEWS:
        listed = ", ".join(f"{count} {fault}" for fault, count in faults.most_common())
        raise NoPlaceError(
            f"only {len(accepted)} of {tries} cameras placed {_WHERE[kind]} it see the model well "
            f"(--views {kind}: {listed})",
            kind,
        )
    log.info("views: %s, %d cameras placed, %d rejected", kind, len(accepted), faults.total())
    if len(accepted) < placement.view_count:
        log.warning("views: there should be %d; --views %s may find more", placement.view_count, _other(kind))
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

    def fault(self, kind: Kind, least_worth: float = 0.0) -> str | None:
        """Why this is no view of the model, if it is none."""
        if self.near_share > MAX_NEAR_SHARE:
            return "have something right before them"
        if self.coverage < MIN_COVERAGE[kind]:
            return "show next to nothing"
        return "show much less than others" if self.worth < least_worth else None


class Looker:
    """Measures what a camera sees, by rendering the model with measurements for colors.

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


# --- Object or room --------------------------------------------------------------------------------------------------

_SIDE_VIEWS = 32
_SIDE_PIXELS = 128
_OPAQUE = 0.1
_GROWTH = 2.0
"""How much larger the Gaussians are drawn, so that a wall of them has no holes."""
_SEEN_IN = 2
"""In so many of the views a Gaussian has to be seen to be no secret: one may look through a gap."""


@torch.no_grad()
def hidden_share(splats: GaussianModel, shape: Shape, backend: str = "auto") -> float:
    """Share of a model, by opacity, that cameras all around it do not see because something else is in front.

    All that is not nearly transparent is taken to be opaque. What lies within three standard deviations, or a fiftieth
    of the model's radius, of what is seen counts as seen: surfaces of trained models have a thickness.
    """
    device = choose_backend(backend).device
    opaque = splats.detach().to(device)
    opaque = opaque.select((opaque.opacities[:, 0] > _OPAQUE).nonzero()[:, 0])
    walls = opaque.replace(
        log_scales=opaque.log_scales + math.log(_GROWTH),
        opacity_logits=torch.full_like(opaque.opacity_logits, 10.0),
        sh_rest=opaque.sh_rest.new_zeros(len(opaque), 0, 3),
    )
    tolerance = 3.0 * opaque.scales.max(dim=1).values + 0.02 * shape.radius
    seen = torch.zeros(len(opaque), device=device)
    in_image = torch.ones(len(opaque), dtype=torch.bool, device=device)
    for camera in cameras_all_around(shape, _SIDE_VIEWS, _SIDE_PIXELS) if len(opaque) else []:
        world_to_camera = torch.as_tensor(camera.world_to_camera, dtype=torch.float32, device=device)
        x, y, depths = (opaque.means @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]).T
        pixels = torch.stack([y / depths * camera.fy + camera.cy, x / depths * camera.fx + camera.cx])
        inside = (depths > 0.0) & ((pixels >= 0.0) & (pixels < _SIDE_PIXELS)).all(0)
        rows, columns = pixels.nan_to_num().clamp(0, _SIDE_PIXELS - 1).long()
        fronts = _front_depths(camera, walls, depths, backend)[rows, columns]
        seen += (inside & (depths <= fronts + tolerance)).float()
        in_image &= inside
    hidden = in_image & (seen < _SEEN_IN)
    return float((opaque.opacities[:, 0] * hidden).sum() / opaque.opacities.sum().clamp_min(1e-12))


def _front_depths(camera: Camera, walls: GaussianModel, depths: Tensor, backend: str) -> Tensor:
    """``(H, W)`` depth of what is nearest in each pixel, by rendering depths for colors."""
    nearest, farthest = depths.min(), depths.max()
    shades = (depths - nearest) / (farthest - nearest).clamp_min(1e-12)
    shaded = walls.replace(sh_dc=((shades - 0.5) / SH_C0)[:, None, None].expand(-1, 1, 3).contiguous())
    image = render(camera, shaded, torch.ones(3, device=depths.device), backend=backend).image
    return nearest + image[..., 0] * (farthest - nearest)
