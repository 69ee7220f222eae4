"""Small scenes written to disk for the tests: a ring of cameras around a cloud of points, as COLMAP and as Blender."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from scene.cameras import Camera

WIDTH, HEIGHT = 80, 60
FX, FY, CX, CY = 90.0, 95.0, 37.0, 33.5
"""Anisotropic and off-centre, so that a mix-up of axes or a lost principal point shows."""


def ring_poses(count: int) -> list[np.ndarray]:
    """``(4, 4)`` world-to-camera transforms of cameras on a ring, looking at the origin."""
    poses = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        center = np.array([4 * np.cos(angle), 0.7, 4 * np.sin(angle)])
        forward = -center / np.linalg.norm(center)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ center
        poses.append(pose)
    return poses


def view_names(count: int) -> list[str]:
    return [f"view_{i:03d}.png" for i in range(count)]


def write_photographs(folder: Path, names: list[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """One PNG of a colour of its own per name."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (index * 7 % 256, 100, 200)).save(path)


def colmap_model(names: list[str], model: str = "PINHOLE", points: int = 30) -> pycolmap.Reconstruction:
    """A COLMAP model with a ring of cameras, points, and an observation of every point in every image."""
    parameters = {
        "PINHOLE": [FX, FY, CX, CY],
        "SIMPLE_PINHOLE": [FX, CX, CY],
        "OPENCV": [FX, FY, CX, CY, 0.1, 0.0, 0.0, 0.0],
    }[model]
    camera = pycolmap.Camera(camera_id=1, model=model, width=WIDTH, height=HEIGHT, params=parameters)
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    generator = np.random.default_rng(0)
    positions = generator.uniform(-0.5, 0.5, (points, 3))
    for image_id, (name, pose) in enumerate(zip(names, ring_poses(len(names)), strict=True), start=1):
        seen = positions @ pose[:3, :3].T + pose[:3, 3]
        keypoints = np.stack([camera.img_from_cam(point) for point in seen])
        image = pycolmap.Image(name=name, keypoints=keypoints, camera_id=1, image_id=image_id)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    for index, position in enumerate(positions):
        track = pycolmap.Track()
        for image_id in range(1, len(names) + 1):
            track.add_element(image_id, index)
        reconstruction.add_point3D(position, track, generator.integers(0, 256, 3).astype(np.uint8))
    return reconstruction


def write_colmap_scene(
    folder: Path, count: int = 24, model: str = "PINHOLE", text: bool = False, names: list[str] | None = None
) -> pycolmap.Reconstruction:
    """A scene with ``sparse/0`` and ``images``; returns what was written as the model."""
    names = view_names(count) if names is None else names
    reconstruction = colmap_model(names, model)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    if text:
        reconstruction.write_text(sparse)
    else:
        reconstruction.write_binary(sparse)
    write_photographs(folder / "images", names)
    return reconstruction


def write_blender_scene(
    folder: Path, train: int = 12, test: int = 3, size: tuple[int, int] = (40, 30)
) -> list[np.ndarray]:
    """A Blender scene of half-transparent photographs; returns the camera-to-world matrices of the training views."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    poses = [np.linalg.inv(pose) @ flip for pose in ring_poses(train + test)]
    for split, chosen in (("train", poses[:train]), ("test", poses[train:])):
        frames = [
            {"file_path": f"./{split}/r_{index}", "transform_matrix": pose.tolist()}
            for index, pose in enumerate(chosen)
        ]
        (folder / split).mkdir(parents=True)
        for index in range(len(chosen)):
            Image.new("RGBA", size, (200, 100, 0, 51)).save(folder / split / f"r_{index}.png")
        document = {"camera_angle_x": math.radians(50), "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(document))
    return poses[:train]


def project(camera: Camera, point: np.ndarray) -> np.ndarray:
    """The pixel of a world point, by the pinhole equation and nothing else."""
    x, y, z = camera.world_to_camera[:3, :3] @ point + camera.world_to_camera[:3, 3]
    return np.array([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])
