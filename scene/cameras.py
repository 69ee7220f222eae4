"""A pinhole camera with a pose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError

MAX_SIDE = 1 << 16
"""The longest image side, in pixels, that a camera may have."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera, posed in the world, at the resolution it is rendered at.

    Attributes:
        name: The image's name without folder and extension; the key of everything that is kept per view.
        width, height: Resolution in pixels.
        fx, fy: Focal lengths in pixels.
        cx, cy: Principal point in pixels, with pixel centers at half-integers: the middle of the image is
            ``(width / 2, height / 2)``. It may be off-center.
        world_to_camera: ``(4, 4)`` float64 rigid transform; x right, y down, z forward (COLMAP and OpenCV axes).
        image_path: The photograph, or ``None`` where there is none.
    """

    name: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    world_to_camera: npt.NDArray[np.float64]
    image_path: Path | None = None

    @property
    def center(self) -> npt.NDArray[np.float64]:
        """``(3,)`` position of the camera in the world."""
        return camera_center(self.world_to_camera)

    @property
    def fov_x(self) -> float:
        """Horizontal field of view in radians, as if the principal point were central."""
        return 2.0 * math.atan(self.width / (2.0 * self.fx))

    @property
    def fov_y(self) -> float:
        """Vertical field of view in radians, as if the principal point were central."""
        return 2.0 * math.atan(self.height / (2.0 * self.fy))

    def at_resolution(self, width: int, height: int) -> Camera:
        """The same view at another resolution, with the intrinsics rescaled per axis."""
        x, y = width / self.width, height / self.height
        return Camera(
            self.name,
            width,
            height,
            self.fx * x,
            self.fy * y,
            self.cx * x,
            self.cy * y,
            self.world_to_camera,
            self.image_path,
        )

    def check(self, source: str) -> Camera:
        """This camera, once it is known to be one that can be rendered.

        Raises:
            UserError: the size, the intrinsics or the pose read from ``source`` are no camera's.
        """
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE):
            raise UserError(f"{source}: camera {self.name!r} has size {self.width}x{self.height}; correct the file")
        intrinsics = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, intrinsics)) or min(self.fx, self.fy) <= 0:
            raise UserError(
                f"{source}: camera {self.name!r} has intrinsics fx, fy, cx, cy = {intrinsics}; correct the file"
            )
        rotation = self.world_to_camera[:3, :3]
        rigid = (
            self.world_to_camera.shape == (4, 4)
            and bool(np.isfinite(self.world_to_camera).all())
            and np.allclose(rotation @ rotation.T, np.eye(3), atol=_POSE_TOLERANCE)
            and np.linalg.det(rotation) > 0
        )
        if not rigid:
            raise UserError(
                f"{source}: the pose of camera {self.name!r} is no rotation and translation; correct the file"
            )
        return self


_POSE_TOLERANCE = 1e-3
"""How far a rotation may be from orthonormal: far more than float32 text loses, far less than a scaled pose."""


def camera_center(world_to_camera: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(3,)`` position in the world of a camera with that ``(4, 4)`` rigid transform."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    return -rotation.T @ translation


def sizes_agree(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ``(width, height)`` can be the same picture at two scales.

    They can where either side of the smaller follows from its other side within a pixel. Both are tried, since a
    fraction cut off the short side weighs more on the long one.
    """
    (width, height), (full_width, full_height) = sorted((one, other))
    height_error = abs(height - width * full_height / full_width)
    width_error = abs(width - height * full_width / full_height)
    return min(width_error, height_error) <= 1.0
