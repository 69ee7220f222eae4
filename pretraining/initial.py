"""The Gaussians a training begins with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from scene.gaussian_model import GaussianModel
from scene.points import PointCloud

# Value of the spherical harmonic of degree 0, which is the same in every direction.
SH_DC_BASIS = 0.5 / math.sqrt(math.pi)
INITIAL_OPACITY = 0.1
MIN_SQUARED_DISTANCE = 1e-7
NEIGHBORS = 3
# Blender scenes of the NeRF data set lie within a cube of this half-width around the origin.
BLENDER_CUBE = 1.3


def splats_at_points(points: PointCloud, sh_degree: int) -> GaussianModel:
    """One Gaussian a point: round, as wide as the point's neighbors are away, faint, of the point's color.

    Args:
        points: At least one.
        sh_degree: Degree of the spherical harmonics, 0 to 3; all but degree 0 start at zero.
    """
    count = len(points)
    squared_distances = mean_squared_neighbour_distance(points.positions)
    log_scales = 0.5 * np.log(np.maximum(squared_distances, MIN_SQUARED_DISTANCE))
    return GaussianModel.from_arrays(
        means=points.positions,
        log_scales=np.repeat(log_scales[:, None], 3, axis=1),
        quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        opacity_logits=np.full(count, math.log(INITIAL_OPACITY / (1 - INITIAL_OPACITY)), np.float32),
        sh_dc=(points.colors / 255 - 0.5) / SH_DC_BASIS,
        sh_rest=np.zeros((count, (sh_degree + 1) ** 2 - 1, 3), np.float32),
    )


def mean_squared_neighbour_distance(positions: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """``(N,)`` mean square of the distances to the three nearest other points (fewer where there are fewer)."""
    neighbors = min(NEIGHBORS, len(positions) - 1)
    if neighbors < 1:
        return np.zeros(len(positions))
    # The nearest point found is the point itself, or one that coincides with it.
    distances, _ = cKDTree(positions).query(positions, k=neighbors + 1)
    return np.square(distances[:, 1:]).mean(axis=1)


def random_points(count: int, random: np.random.Generator) -> PointCloud:
    """Gray points spread evenly in the cube that holds the Blender scenes."""
    positions = random.uniform(-BLENDER_CUBE, BLENDER_CUBE, (count, 3)).astype(np.float32)
    return PointCloud(positions, np.full((count, 3), 128, np.uint8))
