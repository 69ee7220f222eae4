"""Photographs with poses in JSON, as Blender's exporters (``transforms_train.json``) and nerfstudio and instant-ngp
(``transforms.json``) write them.

They are one format. The field of view is ``camera_angle_x`` (radians), or ``fl_x``, ``fl_y``, ``cx``, ``cy`` in pixels
of an image of ``w`` x ``h``; each may stand in a frame or for all of them. ``transform_matrix``, of three or four rows,
maps the axes of an OpenGL camera to the world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import read_json
from scene.cameras import Camera

Array = npt.NDArray[np.float64]

TRAIN_TRANSFORMS = "transforms_train.json"
TEST_TRANSFORMS = "transforms_test.json"
TRANSFORMS = "transforms.json"

_DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_CURVED_MODELS = ("FISHEYE", "EQUIRECTANGULAR", "OMNIDIRECTIONAL", "VR180", "ORTHOPHOTO")
"""Parts of the names of nerfstudio's camera models that no coefficient makes a pinhole."""
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Blender's cameras look along -z with y up; ours look along +z with y down."""


@dataclass(frozen=True)
class Frame:
    """One frame of a transforms file, with what the file says for all frames filled in.

    Attributes:
        file_path: The photograph as the file names it, relative to the scene's folder, perhaps without its type.
        values: Everything the file says of it.
        source: The file it stands in.
    """

    file_path: str
    values: Mapping[str, Any]
    source: Path

    def camera(self, name: str, found_size: tuple[int, int]) -> Camera:
        """The camera, at the size the file gives or else at that of the photograph that was found.

        Raises:
            UserError: it is not a pinhole, or what the file says of it is no camera.
        """
        self._check_lens()
        width, height = self._number("w") or found_size[0], self._number("h") or found_size[1]
        fx, fy = self._focal_lengths(width, height)
        cx, cy = self._number("cx"), self._number("cy")
        return Camera(
            name=name,
            width=int(width),
            height=int(height),
            fx=fx,
            fy=fy,
            cx=width / 2 if cx is None else cx,
            cy=height / 2 if cy is None else cy,
            world_to_camera=self._world_to_camera(),
        ).check(str(self.source))

    def _check_lens(self) -> None:
        model = str(self.values.get("camera_model", "")).upper()
        curved = self.values.get("is_fisheye") is True or any(part in model for part in _CURVED_MODELS)
        if curved or any(self._number(key) for key in _DISTORTION_KEYS):
            raise UserError(
                f"{self.source}: frame {self.file_path!r} has lens distortion; undistort the photographs first, for "
                "example with COLMAP's image_undistorter"
            )

    def _focal_lengths(self, width: float, height: float) -> tuple[float, float]:
        """``fx`` and ``fy`` in pixels of a ``width`` x ``height`` image, with square pixels if nothing is said of y."""

        def focal_length(direct: str, angle: str, side: float) -> float | None:
            pixels, field_of_view = self._number(direct), self._number(angle)
            if pixels is None and field_of_view is not None and 0 < field_of_view < math.pi:
                return side / (2.0 * math.tan(field_of_view / 2.0))
            return pixels

        fx = focal_length("fl_x", "camera_angle_x", width)
        if fx is None:
            raise UserError(
                f"{self.source}: frame {self.file_path!r} has neither fl_x nor camera_angle_x between 0 and pi; "
                "export the scene again"
            )
        fy = focal_length("fl_y", "camera_angle_y", height)
        return fx, fx if fy is None else fy

    def _world_to_camera(self) -> Array:
        try:
            camera_to_world = _with_fourth_row(np.array(self.values["transform_matrix"], np.float64))
            return np.linalg.inv(camera_to_world @ _OPENGL_TO_OPENCV).astype(np.float64)
        except (KeyError, TypeError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
            raise UserError(
                f"{self.source}: transform_matrix of frame {self.file_path!r} is no 4x4 pose, nor one of 3x4; export "
                "the scene again"
            ) from error

    def _number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise UserError(f"{self.source}: {key} of frame {self.file_path!r} is not a number; correct the file")
        return float(value)


def read_transforms(path: Path) -> tuple[list[Frame], dict[str, Any]]:
    """The frames of a transforms file, and what it says besides.

    Raises:
        UserError: the file is missing or damaged.
    """
    document = read_json(path)
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UserError(f"{path}: has no list of frames; export the scene again")
    shared = {key: value for key, value in document.items() if key != "frames"}
    result = [Frame(frame.get("file_path"), {**shared, **frame}, path) for frame in frames]
    for frame in result:
        if not isinstance(frame.file_path, str) or not frame.file_path or "\0" in frame.file_path:
            raise UserError(f"{path}: a frame has no file_path; export the scene again")
    return result, shared


def applied_transform(shared: Mapping[str, Any], source: Path) -> Array:
    """``(4, 4)``: what nerfstudio has turned COLMAP's world by before it wrote the poses, or the identity.

    Raises:
        UserError: it is no transform.
    """
    value = shared.get("applied_transform")
    if value is None:
        return np.eye(4)
    try:
        transform = _with_fourth_row(np.array(value, np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{source}: applied_transform is no 3x4 transform; export the scene again") from error
    return transform


def _with_fourth_row(matrix: Array) -> Array:
    """``(4, 4)`` from a transform of three or four rows, which may stand in one list.

    Raises:
        ValueError: it has another shape.
    """
    if matrix.shape in ((12,), (16,)):
        matrix = matrix.reshape(-1, 4)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
    if matrix.shape != (4, 4):
        raise ValueError(f"shape {matrix.shape}")
    return matrix
