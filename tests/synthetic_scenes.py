"""Small scenes written to disk for the tests: a ring of cameras around a cloud of points, as COLMAP and as Blender."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scene.cameras import Camera

WIDTH, HEIGHT = 80, 60
FX, FY, CX, CY = 90.0, 95.0, 37.0, 33.5
"""Anisotropic and off-centre, so that a mix-up of axes or a lost principal point shows."""

LENSES = {
    "PINHOLE": (1, (FX, FY, CX, CY)),
    "SIMPLE_PINHOLE": (0, (FX, CX, CY)),
    "OPENCV": (4, (FX, FY, CX, CY, 0.1, 0.0, 0.0, 0.0)),
    "OPENCV without distortion": (4, (FX, FY, CX, CY, 0.0, 0.0, 0.0, 0.0)),
}
"""COLMAP's number of a camera model, and its parameters here."""


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


@dataclass
class ColmapScene:
    """What is written as a COLMAP model, whose every image sees every point.

    Attributes:
        lens: The one of all images, a key of :data:`LENSES`.
        poses: ``(4, 4)`` world-to-camera transform of each image, by name.
        seen: ``(P, 2)`` pixels where each image sees the points, by name.
        positions, colors: ``(P, 3)`` of the points.
    """

    lens: str
    poses: dict[str, np.ndarray]
    seen: dict[str, np.ndarray]
    positions: np.ndarray
    colors: np.ndarray

    @staticmethod
    def ring(names: list[str], lens: str = "PINHOLE", points: int = 30) -> ColmapScene:
        """A ring of cameras around random points."""
        generator = np.random.default_rng(0)
        positions = generator.uniform(-0.5, 0.5, (points, 3))
        poses = dict(zip(names, ring_poses(len(names)), strict=True))
        _, parameters = LENSES[lens]
        focal = (FX, FX) if lens == "SIMPLE_PINHOLE" else parameters[:2]
        seen = {}
        for name, pose in poses.items():
            x, y, z = pose[:3, :3] @ positions.T + pose[:3, 3:]
            seen[name] = np.stack([focal[0] * x / z + CX, focal[1] * y / z + CY], axis=1)
        return ColmapScene(lens, poses, seen, positions, generator.integers(0, 256, (points, 3)))

    def write_binary(self, folder: Path) -> None:
        number, parameters = LENSES[self.lens]
        camera = struct.pack(f"<QIiQQ{len(parameters)}d", 1, 1, number, WIDTH, HEIGHT, *parameters)
        (folder / "cameras.bin").write_bytes(camera)
        images = [struct.pack("<Q", len(self.poses))]
        for index, (name, pose) in enumerate(self.poses.items(), start=1):
            images.append(struct.pack("<I7dI", index, *quaternion(pose[:3, :3]), *pose[:3, 3], 1))
            images.append(name.encode() + b"\0" + struct.pack("<Q", len(self.positions)))
            images.extend(struct.pack("<ddq", *pixel, i) for i, pixel in enumerate(self.seen[name], start=1))
        (folder / "images.bin").write_bytes(b"".join(images))
        points = [struct.pack("<Q", len(self.positions))]
        for index, (position, color) in enumerate(zip(self.positions, self.colors, strict=True), start=1):
            track = [value for image in range(1, len(self.poses) + 1) for value in (image, index - 1)]
            points.append(struct.pack("<Q3d3BdQ", index, *position, *color, 0.5, len(self.poses)))
            points.append(struct.pack(f"<{len(track)}I", *track))
        (folder / "points3D.bin").write_bytes(b"".join(points))

    def write_text(self, folder: Path) -> None:
        _, parameters = LENSES[self.lens]
        lens = self.lens.split()[0]
        (folder / "cameras.txt").write_text(f"# one camera\n1 {lens} {WIDTH} {HEIGHT} {_joined(parameters)}\n")
        images = ["# two lines an image"]
        for index, (name, pose) in enumerate(self.poses.items(), start=1):
            images.append(f"{index} {_joined([*quaternion(pose[:3, :3]), *pose[:3, 3]])} 1 {name}")
            images.append(" ".join(f"{x!r} {y!r} {i}" for i, (x, y) in enumerate(self.seen[name].tolist(), start=1)))
        (folder / "images.txt").write_text("\n".join(images) + "\n")
        points = [
            f"{index} {_joined(position)} {_joined(color)} 0.5 1 {index - 1}"
            for index, (position, color) in enumerate(zip(self.positions, self.colors, strict=True), start=1)
        ]
        (folder / "points3D.txt").write_text("\n".join(points) + "\n")


def _joined(numbers: object) -> str:
    return " ".join(repr(number) for number in np.asarray(numbers).tolist())


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """w x y z of a rotation, by its largest component."""
    squares = np.array([1 + np.trace(rotation), *(1 + 2 * np.diag(rotation) - np.trace(rotation))]) / 4
    skew = [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    products = np.zeros((4, 4))
    products[0, 1:] = products[1:, 0] = np.array(skew) / 4
    products[1:, 1:] = (rotation + rotation.T) / 4
    np.fill_diagonal(products, squares)
    largest = int(squares.argmax())
    w, x, y, z = products[largest] / math.sqrt(squares[largest])
    return float(w), float(x), float(y), float(z)


def write_colmap_scene(
    folder: Path, count: int = 24, model: str = "PINHOLE", text: bool = False, names: list[str] | None = None
) -> ColmapScene:
    """A scene with ``sparse/0`` and ``images``; returns what was written as the model."""
    names = view_names(count) if names is None else names
    scene = ColmapScene.ring(names, model)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    if text:
        scene.write_text(sparse)
    else:
        scene.write_binary(sparse)
    write_photographs(folder / "images", names)
    return scene


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
