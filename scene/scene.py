"""A scene: its views, split by purpose, and what they should look like."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsz.errors import UserError
from gsz.splats import MAX_SH_DEGREE
from scene.cache import ImageCache, half_of_free_memory
from scene.cameras import Camera
from scene.dataset_readers import read_dataset
from scene.images import ImageSource, Photographs
from scene.points import PointCloud
from scene.splits import at_resolution_option, split_test, split_validation

if TYPE_CHECKING:
    from scene.options import SceneOptions  # It needs a library for command lines, which reading scenes does not.

log = logging.getLogger(__name__)

_EXTENT_MARGIN = 1.1


@dataclass
class Scene:
    """The views of one scene, split into training, validation and test, and what comes with them.

    Attributes:
        train, validation, test: Cameras at the resolution that ``-r`` asks for, sorted by name. Disjoint.
        images: What all of them should look like.
        background: ``(3,)`` float32, what is rendered behind everything.
        extent: 1.1 times the largest distance of a training camera (before validation is held out) from their mean,
            in world units: 3DGS' ``cameras_extent``.
        points: The points that came with the scene; ``None`` where there are none, or they were not asked for.
    """

    train: list[Camera]
    validation: list[Camera]
    test: list[Camera]
    images: ImageSource
    background: Tensor
    extent: float
    points: PointCloud | None = None


def open_scene(
    options: SceneOptions,
    validation_every: int = 10,
    device: torch.device | str = "cpu",
    *,
    with_points: bool = False,
    cache: ImageCache | None = None,
) -> Scene:
    """Open a scene that is on disk. Its photographs are read when they are first asked for.

    The splits depend on nothing but the views' names (sorted) and the options.

    Args:
        options: Which scene.
        validation_every: One in so many of the training views is held out of training for validation, from the middle
            of each group; more where there are few (:data:`FEW_VIEWS`); zero holds out none.
        device: Where the photographs and the background are wanted.
        with_points: Read the points that training begins with too. A COLMAP scene must have them then.
        cache: Where decoded photographs are kept; as the options say by default.

    Raises:
        UserError: the scene is missing, damaged or empty, or an option is out of range.
    """
    if options.source_path is None:
        raise UserError("no scene is given; name its folder with -s")
    if options.sh_degree is not None and not 0 <= options.sh_degree <= MAX_SH_DEGREE:
        raise UserError(f"--sh_degree {options.sh_degree}: must be 0 to {MAX_SH_DEGREE}")
    source = Path(options.source_path)
    dataset = read_dataset(source, options.images, with_points=with_points, skip_missing=options.skip_missing)
    photographs = Photographs(image_cache(options) if cache is None else cache, options.white_background, device)
    scene = _split(dataset.cameras, dataset.test_cameras, photographs, options, source, validation_every, device)
    scene.points = dataset.points
    return scene


def scene_of_cameras(
    cameras: list[Camera],
    images: ImageSource,
    options: SceneOptions,
    source: Path,
    validation_every: int = 10,
    device: torch.device | str = "cpu",
) -> Scene:
    """A scene that is not on disk: known cameras, and someone who knows what they should see.

    Resolution, splits, background and extent follow the same rules as in :func:`open_scene`.

    Args:
        source: Where the cameras come from, for messages.

    Raises:
        UserError: there are no cameras, or an option is out of range.
    """
    return _split(cameras, [], images, options, source, validation_every, device)


def _split(
    cameras: list[Camera],
    own_test: list[Camera],
    images: ImageSource,
    options: SceneOptions,
    source: Path,
    validation_every: int,
    device: torch.device | str,
) -> Scene:
    views, own_test = (at_resolution_option(part, options.resolution) for part in (cameras, own_test))
    training, test = split_test(views, own_test, options.eval)
    if not training:
        raise UserError(f"{source}: has no training views; give a scene with photographs")
    train, validation = split_validation(training, validation_every, source)
    return Scene(train, validation, test, images, background(options, device), cameras_extent(training))


def background(options: SceneOptions, device: torch.device | str = "cpu") -> Tensor:
    """``(3,)`` RGB behind everything: white with ``-w``, else black."""
    return torch.full((3,), float(options.white_background), device=device)


def image_cache(options: SceneOptions) -> ImageCache:
    """An empty cache on the device and of the size that the options say.

    Raises:
        UserError: there is no such device.
    """
    device = _usable_device(options.data_device)
    limit = options.cache_memory
    return ImageCache(half_of_free_memory(device) if limit is None else limit, device)


def cameras_extent(cameras: list[Camera]) -> float:
    """1.1 times the largest distance of a camera from the cameras' mean position, in world units."""
    centers = np.stack([camera.center for camera in cameras])
    return _EXTENT_MARGIN * float(np.linalg.norm(centers - centers.mean(0), axis=1).max())


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--data_device {name}: there is no such device; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        log.info("--data_device %s: there is no CUDA device here; photographs are kept on the CPU", name)
        return torch.device("cpu")
    return device
