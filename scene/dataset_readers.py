"""Photographs with known cameras, as COLMAP, Blender's NeRF exporters, nerfstudio and instant-ngp leave them on disk.

Readers open only the headers of the photographs. The cameras they return have the resolution of the photograph that
was found, with the intrinsics rescaled to it.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from gsz.errors import UserError
from scene.cameras import Camera, camera_center
from scene.colmap import POINTS, ColmapCamera, ColmapModel, model_suffix, points_path, read_model, read_model_points
from scene.images import check_image_size, image_size
from scene.photographs import PhotographFolder, unique_view_names
from scene.points import PointCloud, read_points
from scene.transforms import (
    TEST_TRANSFORMS,
    TRAIN_TRANSFORMS,
    TRANSFORMS,
    Frame,
    applied_transform,
    read_transforms,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """What a reader found.

    Attributes:
        cameras: All views that are not set apart for testing, in the order of the file.
        test_cameras: The views the dataset itself sets apart for testing; empty where it does not say.
        points: The points that came with the cameras; ``None`` where there are none, or they were not asked for.
    """

    cameras: list[Camera]
    test_cameras: list[Camera]
    points: PointCloud | None


def read_dataset(
    source_path: Path, images: str = "images", *, with_points: bool = False, skip_missing: bool = False
) -> Dataset:
    """Read the scene in a folder, whichever kind it is.

    Args:
        source_path: The folder.
        images: Folder of the photographs inside a COLMAP scene.
        with_points: Read the points too. A COLMAP scene must have them then.
        skip_missing: Leave out the views whose photographs are missing, with a warning.

    Raises:
        UserError: the folder holds no kind of scene, or what it holds is damaged or lacks photographs.
    """
    if not source_path.is_dir():
        raise UserError(f"{source_path}: there is no such folder; give the scene's folder with -s")
    sparse = source_path / "sparse"
    if sparse.is_dir() and any(sparse.iterdir()):
        return read_colmap(source_path, images, with_points=with_points, skip_missing=skip_missing)
    for name, read in ((TRAIN_TRANSFORMS, read_blender), (TRANSFORMS, read_nerfstudio)):
        if (source_path / name).is_file():
            return read(source_path, with_points=with_points, skip_missing=skip_missing)
    if sparse.is_dir():
        find_model(sparse)  # Which says that there is none.
    raise UserError(
        f"{source_path}: holds neither sparse/ (COLMAP) nor {TRAIN_TRANSFORMS} (Blender) nor {TRANSFORMS} (nerfstudio, "
        "instant-ngp); give the scene's folder with -s"
    )


# --- COLMAP ----------------------------------------------------------------------------------------------------------


def read_colmap(
    source_path: Path, images: str = "images", *, with_points: bool = False, skip_missing: bool = False
) -> Dataset:
    """Read the COLMAP model in ``sparse`` of a folder, and find its photographs in the folder ``images``.

    Raises:
        UserError: the model is missing, damaged or empty, has a camera with distortion, or a photograph is missing,
            does not open, or has another shape than its camera.
    """
    model = find_model(source_path / "sparse")
    if not model.images:
        raise UserError(f"{model.folder}: has no images with a pose; run COLMAP's mapper again")
    names = unique_view_names((image.name for image in model.images), model.folder)
    folder = _photograph_folder(source_path / images)
    photographs = folder.find(list(names), "choose the folder that has the photographs with -i", skip_missing)
    cameras = []
    for image in model.images:
        if image.name in photographs:
            lens = _pinhole(model, image.camera_id, source_path, images)
            fx, fy, cx, cy = lens.intrinsics
            name = names[image.name]
            camera = Camera(name, lens.width, lens.height, fx, fy, cx, cy, image.world_to_camera)
            cameras.append(_with_photograph(camera.check(str(model.folder)), photographs[image.name]))
    return Dataset(cameras, [], _colmap_points(model.folder) if with_points else None)


def find_model(sparse: Path) -> ColmapModel:
    """The model in ``sparse/0``, or in ``sparse`` itself; of several, which COLMAP's mapper numbers, the largest.

    Raises:
        UserError: there is none, or none that is whole.
    """
    numbered = (path for path in sparse.glob("[0-9]*") if path.name.isdecimal())
    models, problems = [], []
    for folder in sorted(numbered, key=lambda path: int(path.name)):
        try:
            suffix = model_suffix(folder)
            if suffix is not None:
                models.append(read_model(folder, suffix))
        except UserError as error:
            problems.append(error)
    if problems and not models:
        raise problems[0]
    for problem in problems:
        log.warning("%s; it is passed over", problem)
    if not models:
        suffix = model_suffix(sparse)
        if suffix is None:
            raise UserError(
                f"{sparse / '0'}: holds no COLMAP model (cameras and images, .bin or .txt); run COLMAP first"
            )
        return read_model(sparse, suffix)
    largest = max(models, key=lambda model: len(model.images))
    if len(models) > 1:
        sizes = ", ".join(f"{model.folder.name} has {len(model.images)} views" for model in models)
        log.warning(
            "%s: holds several models that COLMAP could not join (%s); %s is taken", sparse, sizes, largest.folder
        )
    return largest


def _photograph_folder(folder: Path) -> PhotographFolder:
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("images*") if path.is_dir())
        hint = f"this scene has {', '.join(others)}" if others else "copy the photographs there"
        raise UserError(f"{folder}: there is no such folder of photographs; {hint}, choose with -i")
    return PhotographFolder(folder)


def _pinhole(model: ColmapModel, camera_id: int, source_path: Path, images: str) -> ColmapCamera:
    """A camera of the model, once it is known to be a pinhole."""
    camera = model.cameras[camera_id]
    if camera.is_pinhole:
        return camera
    # Of "." and "..", the folder's own name is needed to name one beside it.
    base = source_path if source_path.name not in ("", "..") else source_path.resolve()
    undistorted = f"{base}_undistorted"
    command = shlex.join(
        [
            *("colmap", "image_undistorter", "--image_path", str(source_path / images)),
            *("--input_path", str(model.folder), "--output_path", undistorted, "--output_type", "COLMAP"),
        ]
    )
    raise UserError(
        f"{model.folder}: camera {camera_id} is {camera.lens.name} with distortion, not PINHOLE or SIMPLE_PINHOLE; "
        f"undistort first, then give -s {shlex.quote(undistorted)}: {command}"
    )


def _colmap_points(folder: Path) -> PointCloud:
    path = points_path(folder)
    if path is None:
        raise UserError(
            f"{folder}: lacks {POINTS}{model_suffix(folder)} (or {POINTS}.ply), the points that training begins with; "
            "copy the whole COLMAP model, or run COLMAP's point_triangulator"
        )
    points = read_model_points(path)
    if path.suffix == ".ply":
        log.info("%s: training begins with its %s points", path, f"{len(points):,}")
    return points


# --- Transforms ------------------------------------------------------------------------------------------------------

BLENDER_POINTS = ("points3d.ply", "points3D.ply")
"""Points beside Blender's transforms; INRIA's program puts random ones there, people better ones."""
NERFSTUDIO_POINTS = "sparse_pc.ply"
"""Where nerfstudio leaves the points, in the world of its cameras."""
NERFSTUDIO_MODEL = Path("colmap") / "sparse" / "0"
"""Where nerfstudio leaves the COLMAP model that the poses come from."""
_SAME_PLACE = 1e-3
"""How far apart two cameras may be to be one, in radii of the scene: far more than rounding, far less than a step."""


def read_blender(source_path: Path, *, with_points: bool = False, skip_missing: bool = False) -> Dataset:
    """Read ``transforms_train.json`` and, where they are there, ``transforms_test.json`` and ``points3d.ply``.

    Raises:
        UserError: a file is damaged, a camera has distortion, or a photograph is missing, does not open, or has
            another shape than its camera.
    """
    train, _ = read_transforms(source_path / TRAIN_TRANSFORMS)
    test = read_transforms(source_path / TEST_TRANSFORMS)[0] if (source_path / TEST_TRANSFORMS).is_file() else []
    cameras = _frame_cameras(train + test, source_path, skip_missing)
    points = next((path for name in BLENDER_POINTS if (path := source_path / name).is_file()), None)
    return Dataset(
        [camera for camera, frame in cameras if frame.source.name == TRAIN_TRANSFORMS],
        [camera for camera, frame in cameras if frame.source.name == TEST_TRANSFORMS],
        read_points(points) if with_points and points is not None else None,
    )


def read_nerfstudio(source_path: Path, *, with_points: bool = False, skip_missing: bool = False) -> Dataset:
    """Read the one ``transforms.json`` of nerfstudio and instant-ngp.

    The points are those of the file that it names (``ply_file_path``), or else of ``sparse_pc.ply`` or
    ``colmap/sparse/0`` beside it.

    Raises:
        UserError: a file is damaged, a camera has distortion, or a photograph is missing, does not open, or has
            another shape than its camera.
    """
    frames, shared = read_transforms(source_path / TRANSFORMS)
    cameras = _frame_cameras(frames, source_path, skip_missing)
    points = _nerfstudio_points(source_path, shared, cameras) if with_points else None
    return Dataset([camera for camera, _ in cameras], [], points)


def _frame_cameras(frames: list[Frame], source_path: Path, skip_missing: bool) -> list[tuple[Camera, Frame]]:
    """The cameras of the frames whose photographs are there, at the photographs' resolution."""
    names = unique_view_names((frame.file_path for frame in frames), source_path)
    photographs = PhotographFolder(source_path).find(
        list(names), "copy the photographs to where the file says", skip_missing
    )
    cameras = []
    for frame in frames:
        path = photographs.get(frame.file_path)
        if path is not None:
            camera = frame.camera(names[frame.file_path], image_size(path))
            cameras.append((_with_photograph(camera, path), frame))
    return cameras


def _nerfstudio_points(
    source_path: Path, shared: Mapping[str, Any], cameras: list[tuple[Camera, Frame]]
) -> PointCloud | None:
    named = shared.get("ply_file_path")
    for name in (named, NERFSTUDIO_POINTS):
        if isinstance(name, str) and (path := source_path / name.replace("\\", "/")).is_file():
            return read_points(path)
    folder = source_path / NERFSTUDIO_MODEL
    suffix, points = model_suffix(folder), points_path(folder)
    if suffix is None or points is None:
        return None
    model = read_model(folder, suffix)
    # What the file says was done to the poses is not always what was done; the cameras tell.
    candidates = (applied_transform(shared, source_path / TRANSFORMS), np.eye(4))
    transform = next((each for each in candidates if _same_world(model, each, cameras)), None)
    if transform is None:
        log.warning("%s: its cameras are not where %s has them, so its points are left out", folder, TRANSFORMS)
        return None
    cloud = read_model_points(points)
    moved = cloud.positions.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]
    return PointCloud(moved.astype(np.float32), cloud.colors)


def _same_world(model: ColmapModel, transform: np.ndarray, cameras: list[tuple[Camera, Frame]]) -> bool:
    """Whether a COLMAP model, once it is transformed, has a camera wherever a frame has one."""
    ours = np.array([camera.center for camera, _ in cameras]).reshape(-1, 3)
    theirs = np.array([camera_center(image.world_to_camera) for image in model.images]).reshape(-1, 3)
    if not len(ours) or not np.isfinite(theirs).all():
        return False
    distances, _ = cKDTree(theirs @ transform[:3, :3].T + transform[:3, 3]).query(ours)
    return bool(distances.max() <= _SAME_PLACE * np.linalg.norm(ours - ours.mean(0), axis=1).max())


# --- All -------------------------------------------------------------------------------------------------------------


def _with_photograph(camera: Camera, path: Path) -> Camera:
    """The camera at the resolution of its photograph, of which only the header is read."""
    width, height = image_size(path)
    check_image_size(path, (width, height), (camera.width, camera.height))
    return replace(camera, image_path=path).at_resolution(width, height)
