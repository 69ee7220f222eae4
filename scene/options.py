"""Which scene, how it is read, and where cameras are placed without one, as options of a command line."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gsz.errors import UserError
from scene.cameras import MAX_SIDE
from scene.model_dir import OPTIONS_FILE, find_options
from utils.options import OptionalSize

log = logging.getLogger(__name__)

_OF_THIS_RUN = ("skip_missing", "cache_memory")
"""Options that say nothing of a model, and so are not taken from its ``cfg_args``."""

_TYPES = {"sh_degree": int}
"""Types of options whose default is of none."""


@dataclass
class SceneOptions:
    """Which scene, and how it is read. The flags are those of the 3DGS repository."""

    source_path: Annotated[Path | None, tyro.conf.arg(aliases=["-s"])] = None
    """Folder of the scene: photographs with COLMAP's sparse/, with Blender's transforms_train.json, or with the
    transforms.json of nerfstudio and instant-ngp."""
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
    sh_degree: int | None = None
    """Degree of the spherical harmonics, 0 to 3. By default that of the trained model; 3 where one is trained."""
    skip_missing: bool = False
    """Go on without the views whose photographs are missing."""
    cache_memory: OptionalSize = None
    """How much of the decoded photographs is kept, such as 4GB; by default half of what is free on --data_device."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: Path) -> SceneOptions:
        """Options from a mapping, such as a model's ``cfg_args``; keys that are no option are passed over.

        So is, with a warning, a value that the option cannot have: other programs write what they like there.

        Args:
            source: Where the values come from, for the warning.
        """
        options = cls()
        for field in fields(cls):
            if field.name not in values or field.name in _OF_THIS_RUN:
                continue
            value = values[field.name]
            if field.name == "source_path":
                value = Path(value) if isinstance(value, str | Path) and str(value) else None
            # Exact types: True is an int to isinstance, and no resolution.
            elif type(value) is not _TYPES.get(field.name, type(getattr(options, field.name))):
                log.warning("%s: %s cannot be %r, so it is passed over", source, field.name, value)
                continue
            setattr(options, field.name, value)
        return options


def options_of_model(model_dir: Path) -> SceneOptions:
    """The options that a model was made with, as far as its folder says and says it legibly, else the defaults."""
    return SceneOptions.from_mapping(find_options(model_dir), model_dir / OPTIONS_FILE)


@dataclass
class PlacementOptions:
    """Where cameras are placed around or in a model that comes without any."""

    views: Literal["auto", "orbit", "inside"] = "auto"
    """Look at the model from around (orbit) or from within (inside); auto decides by whether its middle is empty and
    there is something in it that cannot be seen from outside."""
    view_count: int = 96
    """Cameras to place."""
    view_size: str = "800x600"
    """Width and height of their images in pixels."""

    def check(self) -> None:
        """Raise :class:`UserError` for a setting that makes no sense."""
        if not 4 <= self.view_count <= 100_000:
            raise UserError(f"--view_count {self.view_count}: must be 4 to 100000")
        _ = self.size

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)``."""
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", self.view_size)
        size = (int(match[1]), int(match[2])) if match else (0, 0)
        if not all(16 <= side <= MAX_SIDE for side in size):
            raise UserError(f"--view_size {self.view_size}: must be WIDTHxHEIGHT in pixels, such as 800x600")
        return size
