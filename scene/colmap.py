"""COLMAP's sparse models, binary and text, as its documentation describes them ("Output Format").

A model is three files. ``cameras`` holds the lenses, ``images`` a pose and a lens for each photograph, and ``points3D``
what was seen; the newer ``rigs`` and ``frames`` say nothing that is not in these. No length in a file is believed
before the file is known to be that long, and what is wrong is reported with the byte or the line where it stands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import read_bytes
from scene.points import PointCloud, read_points
from scene.rotations import rotation_matrices


@dataclass(frozen=True)
class Lens:
    """A camera model of COLMAP.

    Attributes:
        name: As COLMAP spells it.
        focal_lengths: One for both axes, or two.
        distortion: Number of parameters behind the focal lengths and the principal point.
        perspective: Whether it is a pinhole when these are all zero.
    """

    name: str
    focal_lengths: int
    distortion: int
    perspective: bool = True

    @property
    def parameters(self) -> int:
        return self.focal_lengths + 2 + self.distortion


LENSES = {
    0: Lens("SIMPLE_PINHOLE", 1, 0),
    1: Lens("PINHOLE", 2, 0),
    2: Lens("SIMPLE_RADIAL", 1, 1),
    3: Lens("RADIAL", 1, 2),
    4: Lens("OPENCV", 2, 4),
    5: Lens("OPENCV_FISHEYE", 2, 4, perspective=False),
    6: Lens("FULL_OPENCV", 2, 8),
    7: Lens("FOV", 2, 1),
    8: Lens("SIMPLE_RADIAL_FISHEYE", 1, 1, perspective=False),
    9: Lens("RADIAL_FISHEYE", 1, 2, perspective=False),
    10: Lens("THIN_PRISM_FISHEYE", 2, 8, perspective=False),
    11: Lens("RAD_TAN_THIN_PRISM_FISHEYE", 2, 12, perspective=False),
    12: Lens("SIMPLE_DIVISION", 1, 1),
    13: Lens("DIVISION", 2, 1),
    14: Lens("SIMPLE_FISHEYE", 1, 0, perspective=False),
    15: Lens("FISHEYE", 2, 0, perspective=False),
    16: Lens("EUCM", 2, 2),
    17: Lens("EQUIRECTANGULAR", 0, 0, perspective=False),
}
"""By the number that binary files know them by. The two parameters of the last are its width and height."""

_LENSES_BY_NAME = {lens.name: lens for lens in LENSES.values()}


@dataclass(frozen=True)
class ColmapCamera:
    """A lens with its parameters.

    Attributes:
        width, height: Of the photographs, in pixels.
        parameters: Focal lengths and principal point in pixels (pixel centers at half-integers), then the distortion.
    """

    lens: Lens
    width: int
    height: int
    parameters: tuple[float, ...]

    @property
    def is_pinhole(self) -> bool:
        """Whether straight lines stay straight: there is no distortion, or all of its coefficients are zero."""
        return self.lens.perspective and not any(self.parameters[self.lens.focal_lengths + 2 :])

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """``fx, fy, cx, cy`` of a pinhole."""
        fx, fy = self.parameters[0], self.parameters[self.lens.focal_lengths - 1]
        cx, cy = self.parameters[self.lens.focal_lengths : self.lens.focal_lengths + 2]
        return fx, fy, cx, cy


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A photograph with its pose.

    Attributes:
        name: Path of the photograph, relative to COLMAP's image folder.
        camera_id: Which of the model's cameras took it.
        world_to_camera: ``(4, 4)`` float64; x right, y down, z forward.
    """

    name: str
    camera_id: int
    world_to_camera: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """What is in a model besides its points.

    Attributes:
        folder: Where it is.
        cameras: By identifier.
        images: Those that have a pose, in the order of the file.
    """

    folder: Path
    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]


_ROUNDING = 1e-12

_SUFFIXES = (".bin", ".txt")
_NAMES = ("cameras", "images")
POINTS = "points3D"


def model_suffix(folder: Path) -> str | None:
    """``.bin`` or ``.txt``, whichever the model in a folder is made of; ``None`` where there is no model.

    Raises:
        UserError: a part of the model is there, and a part is missing.
    """
    incomplete = None
    for suffix in _SUFFIXES:
        missing = [f"{name}{suffix}" for name in _NAMES if not (folder / f"{name}{suffix}").is_file()]
        if not missing:
            return suffix
        if len(missing) < len(_NAMES) or (folder / f"{POINTS}{suffix}").is_file():
            incomplete = incomplete or missing
    if incomplete:
        raise UserError(f"{folder}: lacks {', '.join(incomplete)}; copy the whole COLMAP model")
    return None


def read_model(folder: Path, suffix: str) -> ColmapModel:
    """The cameras and images of a model.

    Args:
        suffix: That of its files; see :func:`model_suffix`.

    Raises:
        UserError: a file is missing, truncated or damaged.
    """
    cameras_path, images_path = (folder / f"{name}{suffix}" for name in _NAMES)
    if suffix == ".bin":
        cameras, images = _binary_cameras(cameras_path), _binary_images(images_path)
    else:
        cameras, images = _text_cameras(cameras_path), _text_images(images_path)
    for image in images:
        if image.camera_id not in cameras:
            raise UserError(
                f"{images_path}: {image.name!r} was taken by camera {image.camera_id}, which {cameras_path.name} does "
                "not have; copy the whole COLMAP model"
            )
    return ColmapModel(folder, cameras, images)


def points_path(folder: Path) -> Path | None:
    """The file with the points of a model, or ``None``.

    As in INRIA's program, ``points3D.ply`` is taken where there is one, whatever the other files say: people put
    denser points there.
    """
    paths = (folder / f"{POINTS}{suffix}" for suffix in (".ply", *_SUFFIXES))
    return next((path for path in paths if path.is_file()), None)


def read_model_points(path: Path) -> PointCloud:
    """The points of a model, in the order of their identifiers, which is the same on every machine.

    Args:
        path: Their file; see :func:`points_path`.

    Raises:
        UserError: it is truncated or damaged.
    """
    if path.suffix == ".ply":
        return read_points(path)
    points = _binary_points(path) if path.suffix == ".bin" else _text_points(path)
    if not np.isfinite(points.positions).all():
        raise UserError(f"{path}: a point is NaN or infinite; copy the COLMAP model again")
    return points


def _image(name: str, camera_id: int, pose: tuple[float, ...]) -> ColmapImage:
    """An image from the quaternion and translation that map the world to its camera."""
    quaternion = np.array(pose[:4])
    # A quaternion of zeros becomes NaN here, and the pose is refused with the camera's name.
    with np.errstate(invalid="ignore", over="ignore"):
        norm = np.linalg.norm(quaternion)
        # COLMAP's own are of length one but for rounding, which is not rounded once more.
        if abs(norm - 1.0) > _ROUNDING:
            quaternion /= norm
        rotation = rotation_matrices(quaternion)
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = rotation, pose[4:]
    return ColmapImage(name, camera_id, world_to_camera)


def _points(rows: list[tuple[float, ...]]) -> PointCloud:
    """Points from rows of identifier, x, y, z, red, green, blue."""
    rows.sort(key=lambda row: row[0])
    with np.errstate(over="ignore"):
        positions = np.array([row[1:4] for row in rows], np.float32).reshape(-1, 3)
    return PointCloud(positions, np.array([row[4:7] for row in rows], np.uint8).reshape(-1, 3))


# --- Binary: little-endian, a uint64 count, then the records ---------------------------------------------------------

_COUNT = struct.Struct("<Q")
_CAMERA_HEAD = struct.Struct("<IiQQ")
_IMAGE_HEAD = struct.Struct("<I4d3dI")
_IMAGE_POINT_BYTES = 8 + 8 + 8
_POINT = struct.Struct("<Q3d3BdQ")
_TRACK_ELEMENT_BYTES = 4 + 4


class _Binary:
    """A binary file that is taken apart from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = read_bytes(path)
        self._offset = 0

    def take(self, layout: struct.Struct) -> tuple:
        start = self._skip(layout.size)
        return layout.unpack_from(self._data, start)

    def take_name(self) -> str:
        """A name that ends with a zero byte."""
        end = self._data.find(b"\0", self._offset)
        if end < 0:
            self.refuse("a name does not end")
        start = self._skip(end + 1 - self._offset)
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError:
            self.refuse("a name is not UTF-8")

    def skip(self, size: int) -> None:
        self._skip(size)

    def _skip(self, size: int) -> int:
        """Go on behind the next ``size`` bytes, and return where they begin."""
        start = self._offset
        if size > len(self._data) - start:
            self.refuse("a record is cut off")
        self._offset += size
        return start

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(
            f"{self._path}: is truncated or damaged (at byte {self._offset} of {len(self._data)}, {reason}); copy the "
            "COLMAP model again"
        )


def _binary_cameras(path: Path) -> dict[int, ColmapCamera]:
    file = _Binary(path)
    cameras = {}
    (count,) = file.take(_COUNT)
    for _ in range(count):
        camera_id, model, width, height = file.take(_CAMERA_HEAD)
        if model not in LENSES:
            file.refuse(f"camera {camera_id} is of an unknown model, {model}")
        parameters = file.take(struct.Struct(f"<{LENSES[model].parameters}d"))
        cameras[camera_id] = ColmapCamera(LENSES[model], width, height, parameters)
    return cameras


def _binary_images(path: Path) -> list[ColmapImage]:
    file = _Binary(path)
    images = []
    (count,) = file.take(_COUNT)
    for _ in range(count):
        _, *pose, camera_id = file.take(_IMAGE_HEAD)
        name = file.take_name()
        (points,) = file.take(_COUNT)
        file.skip(points * _IMAGE_POINT_BYTES)
        images.append(_image(name, camera_id, tuple(pose)))
    return images


def _binary_points(path: Path) -> PointCloud:
    file = _Binary(path)
    rows = []
    (count,) = file.take(_COUNT)
    for _ in range(count):
        *row, _, track_length = file.take(_POINT)
        file.skip(track_length * _TRACK_ELEMENT_BYTES)
        rows.append(tuple(row))
    return _points(rows)


# --- Text: a line a record, two for an image -------------------------------------------------------------------------

_IMAGE_FIELDS = 10
_POINT_FIELDS = 7


class _Line:
    """A line of a text file, with its number for messages."""

    def __init__(self, path: Path, number: int, text: str) -> None:
        self._path = path
        self._number = number
        self.text = text

    def refuse(self, reason: object) -> NoReturn:
        raise UserError(f"{self._path}: line {self._number} is damaged ({reason}); copy or export the model again")


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of a text file that are not comments; empty ones too, which mean something in ``images.txt``."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is damaged (not UTF-8 at byte {error.start}); save it as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped.startswith("#"):
            yield _Line(path, number, stripped)


def _text_cameras(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for line in _lines(path):
        if not line.text:
            continue
        fields = line.text.split()
        lens = _LENSES_BY_NAME.get(fields[1]) if len(fields) > 1 else None
        if lens is None:
            line.refuse("it names no camera model of COLMAP")
        if len(fields) != 4 + lens.parameters:
            line.refuse(f"a {lens.name} camera has {4 + lens.parameters} fields, not {len(fields)}")
        try:
            width, height = int(fields[2]), int(fields[3])
            cameras[int(fields[0])] = ColmapCamera(lens, width, height, tuple(map(float, fields[4:])))
        except ValueError as error:
            line.refuse(error)
    return cameras


def _text_images(path: Path) -> list[ColmapImage]:
    """The images of ``images.txt``, where a line of 2D points follows each image's own.

    Those lines may be empty, and who writes the file by hand leaves them out. So what follows an image is only taken
    for its points where it can be nothing else.
    """
    images = []
    points_may_follow = False
    for line in _lines(path):
        if points_may_follow and _is_points(line.text):
            points_may_follow = False
        elif line.text:
            images.append(_text_image(line))
            points_may_follow = True
    return images


def _is_points(text: str) -> bool:
    """Whether a line holds nothing, or x, y and an identifier again and again."""
    fields = text.split()
    if len(fields) % 3:
        return False
    # There may be thousands; of an image's line, these hold the name's first words and its last.
    return all(map(_is_number, (*fields[: _IMAGE_FIELDS + 2], *fields[-1:])))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_image(line: _Line) -> ColmapImage:
    # The name is the rest of the line, spaces and all.
    fields = line.text.split(maxsplit=_IMAGE_FIELDS - 1)
    if len(fields) != _IMAGE_FIELDS:
        line.refuse(f"an image has {_IMAGE_FIELDS} fields, not {len(fields)}")
    try:
        int(fields[0])
        return _image(fields[9], int(fields[8]), tuple(map(float, fields[1:8])))
    except ValueError as error:
        line.refuse(error)


def _text_points(path: Path) -> PointCloud:
    rows = []
    for line in _lines(path):
        if not line.text:
            continue
        fields = line.text.split(maxsplit=_POINT_FIELDS)[:_POINT_FIELDS]
        if len(fields) != _POINT_FIELDS:
            line.refuse(f"a point has at least {_POINT_FIELDS} fields, not {len(fields)}")
        try:
            color = tuple(map(int, fields[4:]))
            rows.append((int(fields[0]), *map(float, fields[1:4]), *color))
        except ValueError as error:
            line.refuse(error)
        if not all(0 <= channel <= 255 for channel in color):
            line.refuse("a color is not 0 to 255")
    return _points(rows)
