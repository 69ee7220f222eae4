"""What is on disk, read into memory: a scene's cameras, split by purpose, and its photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import tyro
from torch import Tensor

from gsz.errors import UserError
from scene.cameras import MAX_SIDE, Camera
from scene.dataset_readers import PointCloud, read_dataset
from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel
from scene.images import DEFAULT_MEMORY_LIMIT_BYTES, ImageStore
from utils.cli import say

__all__ = ["Camera", "GaussianModel", "ImageSource", "ImageStore", "PointCloud", "Scene", "SceneOptions"]

TEST_EVERY = 8
"""With ``--eval``, every eighth view by name is for testing, as in 3DGS and Mip-NeRF 360 (``llffhold``)."""

AUTOMATIC_WIDTH_LIMIT = 1600
"""With ``-r -1``, wider photographs are scaled down to this width, as in 3DGS."""

FEW_VIEWS = 20
"""Where there are fewer views to train on, one in :data:`FEW_VIEWS_EVERY` is held out for validation: one or two views
would say little."""
FEW_VIEWS_EVERY = 5

_EXTENT_MARGIN = 1.1


@dataclass
class SceneOptions:
    """Which scene, and how it is read. The flags are those of the 3DGS repository."""

    source_path: Annotated[Path | None, tyro.conf.arg(aliases=["-s"])] = None
    """Folder of the scene: photographs with COLMAP's sparse/, or with Blender's transforms_train.json."""
    images: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "images"
    """Folder of the photographs inside a COLMAP scene, such as images_4."""
    resolution: Annotated[int, tyro.conf.arg(aliases=["-r"])] = -1
    """1, 2, 4 or 8: divide the photographs' size by this. Another number: their width in pixels.
    -1: as they are, but at most 1600 wide."""
    white_background: Annotated[bool, tyro.conf.arg(aliases=["-w"])] = False
    """Render on white, not black, and lay transparent photographs over it."""
    eval: bool = False
    """Set views apart for testing: every 8th by name, or those of transforms_test.json."""
    data_device: str = "cpu"
    """Where decoded photographs are kept: cpu or cuda."""
    sh_degree: int = MAX_SH_DEGREE
    """Degree of the spherical harmonics, 0 to 3."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SceneOptions:
        """Options from a mapping such as a model's ``cfg_args``; keys that are no option are passed over.

        Raises:
            UserError: a value is of another type than the option.
        """
        options = cls()
        for field in fields(cls):
            if field.name not in values:
                continue
            value = values[field.name]
            if field.name == "source_path":
                value = Path(value) if isinstance(value, str | Path) else None
            # Exact types: True is an int to isinstance, and no resolution.
            elif type(value) is not type(getattr(options, field.name)):
                raise UserError(f"option {field.name} cannot be {value!r}; correct the cfg_args it came from")
            setattr(options, field.name, value)
        return options


class ImageSource(Protocol):
    """Who knows what a view should look like: an :class:`ImageStore` of photographs, or a model that is rendered."""

    def load(self, camera: Camera) -> Tensor:
        """``(height, width, 3)`` float32 in [0, 1]."""
        ...


class Scene:
    """The views of one scene, split into training, validation and test, and what comes with them.

    The splits depend on nothing but the views' names (sorted) and the options. The photographs are read when they are
    first asked for.

    Args:
        options: Which scene.
        validation_every: One in so many of the training views is held out of training for validation, from the middle
            of each group; more where there are few (:data:`FEW_VIEWS`); zero holds out none.
        device: Where the photographs and the background are wanted.
        memory_limit_bytes: Bound of the photographs kept in memory.

    Attributes:
        train, validation, test: Cameras at the resolution that ``-r`` asks for, sorted by name. Disjoint.
        images: The photographs of all of them.
        points: The points that came with the scene, or ``None``.
        background: ``(3,)`` float32, what is rendered behind everything.
        extent: 1.1 times the largest distance of a training camera (before validation is held out) from their mean,
            in world units: 3DGS' ``cameras_extent``.

    Raises:
        UserError: the scene is missing, damaged or empty, or an option is out of range.
    """

    def __init__(
        self,
        options: SceneOptions,
        validation_every: int = 10,
        device: torch.device | str = "cpu",
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
    ) -> None:
        if options.source_path is None:
            raise UserError("no scene is given; name its folder with -s")
        if not 0 <= options.sh_degree <= MAX_SH_DEGREE:
            raise UserError(f"--sh_degree {options.sh_degree}: must be 0 to {MAX_SH_DEGREE}")
        source = Path(options.source_path)
        dataset = read_dataset(source, options.images)

        self._split(dataset.cameras, dataset.test_cameras, options, validation_every, source)
        self.points = dataset.points
        self.images: ImageSource = ImageStore(
            memory_limit_bytes, options.white_background, device, _usable_device(options.data_device)
        )
        self.background = background(options, device)

    @classmethod
    def of_cameras(
        cls,
        cameras: list[Camera],
        images: ImageSource,
        options: SceneOptions,
        source: Path,
        validation_every: int = 10,
        device: torch.device | str = "cpu",
    ) -> Scene:
        """A scene that is not on disk: known cameras, and someone who knows what they should see.

        Resolution, splits, background and extent follow the same rules.

        Args:
            source: Where the cameras come from, for messages.

        Raises:
            UserError: there are no cameras, or an option is out of range.
        """
        scene = cls.__new__(cls)
        scene._split(cameras, [], options, validation_every, source)
        scene.points = None
        scene.images = images
        scene.background = background(options, device)
        return scene

    def _split(
        self, cameras: list[Camera], test: list[Camera], options: SceneOptions, validation_every: int, source: Path
    ) -> None:
        views = at_resolution_option(cameras, options.resolution)
        own_test = at_resolution_option(test, options.resolution)
        training, self.test = _split_test(views, own_test, options.eval)
        if not training:
            raise UserError(f"{source}: has no training views; give a scene with photographs")
        self.train, self.validation = _split_validation(training, validation_every, source)
        self.extent = cameras_extent(training)


def background(options: SceneOptions, device: torch.device | str = "cpu") -> Tensor:
    """``(3,)`` RGB behind everything: white with ``-w``, else black."""
    return torch.full((3,), float(options.white_background), device=device)


def cameras_extent(cameras: list[Camera]) -> float:
    """1.1 times the largest distance of a camera from the cameras' mean position, in world units."""
    centers = np.stack([camera.center for camera in cameras])
    return _EXTENT_MARGIN * float(np.linalg.norm(centers - centers.mean(0), axis=1).max())


def at_resolution_option(cameras: list[Camera], resolution: int) -> list[Camera]:
    """The cameras at the size that the option ``-r`` asks for, rounded as 3DGS rounds.

    Raises:
        UserError: the option is neither -1 nor positive, or leaves no pixel.
    """
    if resolution != -1 and not 0 < resolution <= MAX_SIDE:
        raise UserError(f"-r {resolution}: must be 1, 2, 4, 8, a width in pixels, or -1")
    if resolution == -1 and any(camera.width > AUTOMATIC_WIDTH_LIMIT for camera in cameras):
        say(f"photographs wider than {AUTOMATIC_WIDTH_LIMIT} pixels are scaled down to that; -r 1 keeps their size")
    return [camera.at_resolution(*_size(camera.width, camera.height, resolution)) for camera in cameras]


def _size(width: int, height: int, resolution: int) -> tuple[int, int]:
    if resolution in (1, 2, 4, 8):
        size = round(width / resolution), round(height / resolution)
    else:
        if resolution == -1:
            divisor = max(1.0, width / AUTOMATIC_WIDTH_LIMIT)
        else:
            divisor = width / resolution
        # 3DGS cuts the fraction off here, so that a width may come out one less than what was asked for. It is kept:
        # views must have the size INRIA's programs give them for the numbers to be comparable.
        size = int(width / divisor), int(height / divisor)
    if min(size) < 1:
        raise UserError(f"-r {resolution}: leaves no pixel of a {width}x{height} photograph; give a larger size")
    return size


def _split_test(views: list[Camera], own_test: list[Camera], hold_out: bool) -> tuple[list[Camera], list[Camera]]:
    """Training and test views, each sorted by name."""

    def by_name(cameras: list[Camera]) -> list[Camera]:
        return sorted(cameras, key=lambda camera: camera.name)

    if not hold_out:
        return by_name(views + own_test), []
    if own_test:
        return by_name(views), by_name(own_test)
    ordered = by_name(views)
    return [view for i, view in enumerate(ordered) if i % TEST_EVERY], ordered[::TEST_EVERY]


def _split_validation(training: list[Camera], every: int, source: Path) -> tuple[list[Camera], list[Camera]]:
    """Views to train on and views to validate on.

    The middle one of each group of ``every`` is held out: its neighbours on both sides are trained on, so that it
    measures what the model shows between known views and not beyond them.
    """
    if every < 0 or every == 1:
        raise UserError(f"validation_every = {every}: must be 0 (hold out none) or at least 2")
    if every == 0:
        return training, []
    if len(training) < 2:
        raise UserError(f"{source}: has one training view, and validation needs another; add photographs")
    if len(training) < FEW_VIEWS:
        every = min(every, FEW_VIEWS_EVERY)
        say(f"{source}: only {len(training)} training views; one in {every} of them is for validation")
    held_out = set(range(every // 2, len(training), every)) or {len(training) // 2}
    train = [view for i, view in enumerate(training) if i not in held_out]
    return train, [training[i] for i in sorted(held_out)]


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--data_device {name}: there is no such device; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        say(f"--data_device {name}: there is no CUDA device here; photographs are kept on the CPU")
        return torch.device("cpu")
    return device
