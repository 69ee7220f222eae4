"""What a compressed file says of itself, as far as it is known before it is made; see ``docs/formats.md``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gsz
from gsz.conversion import lasting
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.model_dir import camera_entries

_POSE = ("position", "rotation", "width", "height", "fx", "fy", "cx", "cy")
_DIGITS = 3
"""After the point: enough for a place to look from, and few bytes."""


def label_of(original: GaussianModel, original_bytes: int, cameras: Sequence[Camera]) -> dict[str, Any]:
    """The metadata of a file that is made from a model: what that model says of itself, who makes the file, from how
    many Gaussians and bytes, which way is up, and a camera to begin with.

    Nothing in it depends on when or where the file is made.
    """
    label = lasting(original.metadata) | {
        "generator": f"gsz {gsz.__version__}, train.py",
        "source": {"gaussians": len(original), "bytes": original_bytes},
    }
    up = _up(cameras)
    if up:
        label["up"] = up
    if cameras:
        (entry,) = camera_entries(cameras[:1])
        label["camera"] = {name: _rounded(entry[name]) for name in _POSE if name in entry}
    return label


def _up(cameras: Sequence[Camera]) -> list[float]:
    """The mean of the cameras' upward axes, of length 1; nothing where they cancel each other out."""
    mean = [-math.fsum(float(camera.world_to_camera[1, axis]) for camera in cameras) for axis in range(3)]
    length = math.hypot(*mean)
    return [] if length < 1e-3 * len(cameras) or not cameras else [_rounded(number / length) for number in mean]


def _rounded(value: Any) -> Any:
    """Numbers, or lists of them, with few digits; those that are whole without any."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    number = round(float(value), _DIGITS)
    return int(number) if number == int(number) else number
