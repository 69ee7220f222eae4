"""Quaternions as rotation matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rotation_matrices(quaternions: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``(..., 3, 3)`` rotation matrices of ``(..., 4)`` unit quaternions, w x y z.

    A matrix maps what the quaternion turns: for the pose of a COLMAP image the world to the camera, for a Gaussian its
    own axes, which are the matrix's columns, to the world.
    """
    w, x, y, z = np.moveaxis(np.asarray(quaternions, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
