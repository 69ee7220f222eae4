"""Photographs with known cameras, as COLMAP and as Blender's NeRF exporters leave them on disk.

Readers open only the headers of the photographs. The cameras they return have the resolution of the photograph that
was found, with the intrinsics rescaled to it.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import read_bytes
from scene.cameras import Camera
from scene.colmap_binaries import check_colmap_binaries
from scene.images import check_image_size, image_size


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points to start training from.

    Attributes:
        positions: ``(P, 3)`` float32, world units.
        colors: ``(P, 3)`` uint8, RGB.
    """

    positions: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class Dataset:
    """What a reader found.

    Attributes:
        cameras: All views that are not set apart for testing, in the order of the file.
        test_cameras: The views the dataset itself sets apart for testing; empty where it does not say.
        points: The points that came with the cameras, or ``None``.
    """

    cameras: list[Camera]
    test_cameras: list[Camera]
    points: PointCloud | None


def read_dataset(source_path: Path, images: str = "images") -> Dataset:
    """Read the scene in a folder, whichever kind it is.

    Raises:
        UserError: the folder holds neither kind of scene, or what it holds is damaged or has no photographs.
    """
    if not source_path.is_dir():
        raise UserError(f"{source_path}: there is no such folder; give the scene's folder with -s")
    if (source_path / "sparse").is_dir():
        return read_colmap(source_path, images)
    if (source_path / TRAIN_TRANSFORMS).is_file():
        return read_blender(source_path)
    raise UserError(
        f"{source_path}: holds neither sparse/ (COLMAP) nor {TRAIN_TRANSFORMS} (Blender); "
        "give the scene's folder with -s"
    )


# --- COLMAP ----------------------------------------------------------------------------------------------------------

_COLMAP_FILES = ("cameras", "images", "points3D")
_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def read_colmap(source_path: Path, images: str = "images") -> Dataset:
    """Read ``sparse/0`` or ``sparse`` of a folder, binary or text, and find its photographs in the folder ``images``.

    Raises:
        UserError: the model is missing, damaged or empty, has a camera with distortion, or a photograph is missing,
            does not open, or has another shape than its camera.
    """
    if importlib.util.find_spec("pycolmap") is None:
        raise UserError(f"{source_path}: reading a COLMAP scene needs pycolmap; pip install pycolmap")
    model_path = _find_colmap_model(source_path)
    model = _load_colmap_model(model_path)
    images_with_pose = [image for image in model.images.values() if image.has_pose]
    if not images_with_pose:
        raise UserError(f"{model_path}: has no images with a pose; run COLMAP's mapper again")
    names = unique_view_names((image.name for image in images_with_pose), model_path)
    photographs = _PhotographFolder(source_path / images)
    cameras = []
    for image in images_with_pose:
        world_to_camera = np.eye(4)
        world_to_camera[:3] = image.cam_from_world().matrix()
        intrinsics = _colmap_intrinsics(image.camera, model_path, source_path)
        camera = replace(intrinsics, name=names[image.name], world_to_camera=world_to_camera)
        camera.check(str(model_path))
        cameras.append(_with_photograph(camera, photographs.find(image.name)))
    return Dataset(cameras, [], _colmap_points(model, model_path))


def _load_colmap_model(model_path: Path) -> Any:
    """The ``pycolmap.Reconstruction`` in a folder."""
    import pycolmap

    try:
        return pycolmap.Reconstruction(model_path)
    # pycolmap reports damage by whatever its C++ code throws.
    except (ValueError, IndexError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{model_path}: is damaged ({reason}); copy the COLMAP model again") from error


def _find_colmap_model(source_path: Path) -> Path:
    """The folder with the three files of a COLMAP model, after checking that binary ones are whole."""
    candidates = (source_path / "sparse" / "0", source_path / "sparse")
    for folder in candidates:
        for suffix in (".bin", ".txt"):
            present = [name for name in _COLMAP_FILES if (folder / f"{name}{suffix}").is_file()]
            if not present:
                continue
            missing = [f"{name}{suffix}" for name in _COLMAP_FILES if name not in present]
            if missing:
                raise UserError(f"{folder}: lacks {', '.join(missing)}; copy the whole COLMAP model")
            if suffix == ".bin":
                check_colmap_binaries(folder)
            return folder
    raise UserError(
        f"{candidates[0]}: holds no COLMAP model (cameras, images and points3D, .bin or .txt); run COLMAP first"
    )


def _colmap_intrinsics(camera: Any, model_path: Path, source_path: Path) -> Camera:
    """A nameless camera at the origin, with the size and intrinsics of a pycolmap camera."""
    if camera.model.name not in _PINHOLE_MODELS:
        raise UserError(
            f"{model_path}: camera {camera.camera_id} is {camera.model.name}, not PINHOLE or SIMPLE_PINHOLE; undistort "
            f"first: colmap image_undistorter --image_path {source_path / 'images'} --input_path {model_path} "
            f"--output_path {source_path}_undistorted --output_type COLMAP"
        )
    return Camera(
        name="",
        width=camera.width,
        height=camera.height,
        fx=camera.focal_length_x,
        fy=camera.focal_length_y,
        cx=camera.principal_point_x,
        cy=camera.principal_point_y,
        world_to_camera=np.eye(4),
    )


def _colmap_points(model: Any, model_path: Path) -> PointCloud:
    # The map's own order is that of a hash table; by identifier it is the same on every machine.
    points = [point for _, point in sorted(model.points3D.items(), key=lambda item: item[0])]
    positions = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    colors = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    if not np.isfinite(positions).all():
        raise UserError(f"{model_path}: a point is NaN or infinite; copy the COLMAP model again")
    return PointCloud(positions, colors)


class _PhotographFolder:
    """Finds photographs by the names COLMAP knows them by, in a folder that may hold another version of them."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            others = sorted(path.name for path in folder.parent.glob("images*") if path.is_dir())
            hint = f"this scene has {', '.join(others)}" if others else "copy the photographs there"
            raise UserError(f"{folder}: there is no such folder of photographs; {hint}, choose with -i")
        self._folder = folder
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _IMAGE_SUFFIXES and path.is_file():
                self._by_stem[path.relative_to(folder).with_suffix("").as_posix()].append(path)

    def find(self, name: str) -> Path:
        """The photograph of that name, or else the one that differs in the file type only."""
        exact = self._folder / name
        if exact.is_file():
            return exact
        others = self._by_stem.get(str(PurePosixPath(name).with_suffix("")), [])
        if len(others) == 1:
            return others[0]
        if others:
            found = ", ".join(path.name for path in others)
            raise UserError(f"{exact}: is missing, and {found} could all stand for it; keep one of them")
        raise UserError(f"{exact}: there is no such photograph; choose the folder that has it with -i")


# --- Blender ---------------------------------------------------------------------------------------------------------

TRAIN_TRANSFORMS = "transforms_train.json"
TEST_TRANSFORMS = "transforms_test.json"

_DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Blender's cameras look along -z with y up; ours look along +z with y down."""


def read_blender(source_path: Path) -> Dataset:
    """Read ``transforms_train.json`` and, where it is there, ``transforms_test.json``.

    The field of view is ``camera_angle_x`` (radians), or ``fl_x``, ``fl_y``, ``cx``, ``cy`` in pixels of an image of
    ``w`` x ``h``; each may stand in a frame or for all of them. ``transform_matrix`` maps OpenGL camera axes to the
    world.

    Raises:
        UserError: a file is damaged, a camera has distortion, or a photograph is missing, does not open, or has
            another shape than its camera.
    """
    train = _read_frames(source_path / TRAIN_TRANSFORMS)
    test = _read_frames(source_path / TEST_TRANSFORMS) if (source_path / TEST_TRANSFORMS).is_file() else []
    names = unique_view_names((frame.file_path for frame in train + test), source_path)
    cameras, test_cameras = (
        [_blender_camera(frame, names[frame.file_path], source_path) for frame in part] for part in (train, test)
    )
    return Dataset(cameras, test_cameras, None)


@dataclass(frozen=True)
class _Frame:
    """One frame of a transforms file, with what the file says for all frames filled in.

    Attributes:
        file_path: The photograph as the file names it, relative to the scene's folder, perhaps without its type.
        values: Everything the file says of it.
        source: The file it stands in.
    """

    file_path: str
    values: Mapping[str, Any]
    source: Path

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise UserError(f"{self.source}: {key} of frame {self.file_path!r} is not a number; correct the file")
        return float(value)


def _read_frames(path: Path) -> list[_Frame]:
    document = read_json(path)
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UserError(f"{path}: has no list of frames; export the scene again")
    shared = {key: value for key, value in document.items() if key != "frames"}
    result = [_Frame(frame.get("file_path"), {**shared, **frame}, path) for frame in frames]
    for frame in result:
        if not isinstance(frame.file_path, str) or not frame.file_path or "\0" in frame.file_path:
            raise UserError(f"{path}: a frame has no file_path; export the scene again")
    return result


def _blender_camera(frame: _Frame, name: str, source_path: Path) -> Camera:
    if any(frame.number(key) for key in _DISTORTION_KEYS) or "FISHEYE" in str(frame.values.get("camera_model")):
        raise UserError(
            f"{frame.source}: frame {frame.file_path!r} has lens distortion; undistort the photographs first"
        )
    photograph = _blender_photograph(frame, source_path)
    found_width, found_height = image_size(photograph)
    width, height = frame.number("w") or found_width, frame.number("h") or found_height
    fx, fy = _blender_focal_lengths(frame, width, height)
    camera = Camera(
        name=name,
        width=int(width),
        height=int(height),
        fx=fx,
        fy=fy,
        cx=_or_else(frame.number("cx"), width / 2),
        cy=_or_else(frame.number("cy"), height / 2),
        world_to_camera=_blender_pose(frame),
    )
    return _with_photograph(camera.check(str(frame.source)), photograph)


def _blender_focal_lengths(frame: _Frame, width: float, height: float) -> tuple[float, float]:
    """``fx`` and ``fy`` in pixels of a ``width`` x ``height`` image, with square pixels if nothing is said of y."""

    def focal_length(direct: str, angle: str, side: float) -> float | None:
        pixels, field_of_view = frame.number(direct), frame.number(angle)
        if pixels is None and field_of_view is not None and 0 < field_of_view < math.pi:
            return side / (2.0 * math.tan(field_of_view / 2.0))
        return pixels

    fx = focal_length("fl_x", "camera_angle_x", width)
    if fx is None:
        raise UserError(
            f"{frame.source}: frame {frame.file_path!r} has neither fl_x nor camera_angle_x between 0 and pi; "
            "export the scene again"
        )
    return fx, _or_else(focal_length("fl_y", "camera_angle_y", height), fx)


def _blender_pose(frame: _Frame) -> npt.NDArray[np.float64]:
    try:
        camera_to_world = np.array(frame.values["transform_matrix"], np.float64)
        if camera_to_world.shape != (4, 4):
            raise ValueError(f"shape {camera_to_world.shape}")
        return np.linalg.inv(camera_to_world @ _OPENGL_TO_OPENCV).astype(np.float64)
    except (KeyError, TypeError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
        raise UserError(
            f"{frame.source}: transform_matrix of frame {frame.file_path!r} is no 4x4 pose; export the scene again"
        ) from error


def _blender_photograph(frame: _Frame, source_path: Path) -> Path:
    """The photograph of a frame; without a file type in its name it is a PNG, or else the first type that is there."""
    path = source_path / frame.file_path
    candidates = [path, *(path.with_name(path.name + suffix) for suffix in (".png", *_IMAGE_SUFFIXES))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{path}: there is no such photograph; copy it to where {frame.source.name} expects it")


# --- Both ------------------------------------------------------------------------------------------------------------


def unique_view_names(paths: Iterable[str], source: Path) -> dict[str, str]:
    """A short name for each photograph: without folder and type, or with the folder where two would be the same.

    Raises:
        UserError: a photograph is listed twice, or two differ in nothing but their type.
    """
    listed = list(paths)
    twice = next((path for path, count in Counter(listed).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{source}: the photograph {twice!r} is listed twice; remove one")
    normalised = {path: PurePosixPath(path.replace("\\", "/")) for path in listed}
    # What follows the last dot is no file type in names such as frame.0001, which Blender writes.
    typeless = {
        path: pure.with_suffix("") if pure.suffix.lower() in _IMAGE_SUFFIXES else pure
        for path, pure in normalised.items()
    }
    names = {path: pure.name for path, pure in typeless.items()}
    if len(set(names.values())) < len(names):
        names = {path: str(pure).replace("/", "_") for path, pure in typeless.items()}
    bad = next((path for path, name in names.items() if name in ("", "..") or not name.isprintable()), None)
    if bad is not None:
        raise UserError(f"{source}: {bad!r} is no name of a photograph; correct it")
    if len(set(names.values())) < len(names):
        same = Counter(names.values()).most_common(1)[0][0]
        raise UserError(f"{source}: two photographs share the name {same!r}; rename one")
    return names


def read_json(path: Path) -> Any:
    """A JSON document, or a :class:`UserError` that names the file."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); export or copy it again") from error


def _with_photograph(camera: Camera, path: Path) -> Camera:
    """The camera at the resolution of its photograph, of which only the header is read."""
    width, height = image_size(path)
    check_image_size(path, (width, height), (camera.width, camera.height))
    return replace(camera, image_path=path).at_resolution(width, height)


def _or_else(value: float | None, default: float) -> float:
    return default if value is None else value
