"""Rotations in the smallest-three form: unit quaternions without one component, which the others imply."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gsz.kernels import kernel
from gsz.rounding.arrays import Array, Float32s, with_tensor_form


@with_tensor_form
def drop_largest(quaternions: Float32s, real: int = 0) -> tuple[Array, Array, Array]:
    """What is left of rotations when the component of largest magnitude is made positive and dropped.

    Args:
        quaternions: ``(N, 4)`` of any length; one of length zero stands for the rotation that turns nothing.
        real: Which component is the real one.

    Returns:
        ``(N,)`` int64 index of the largest component, the first of several; ``(N,)`` float32 sign that made it
        positive; and ``(N, 3)`` float64 other components in their order, each within ``1 / sqrt(2)`` of zero.
    """
    return _dropped(quaternions, real, False)


@with_tensor_form
def drop_real(quaternions: Float32s, real: int = 0) -> tuple[Array, Array, Array]:
    """As :func:`drop_largest`, of the real component, whichever is the largest; the others are within 1 of zero."""
    return _dropped(quaternions, real, True)


def _dropped(quaternions: Float32s, real: int, always_real: bool) -> tuple[Array, Array, Array]:
    count = len(quaternions)
    dropped, signs, others = np.empty(count, np.int64), np.empty(count, np.float32), np.empty((count, 3))
    _drop(np.ascontiguousarray(quaternions), real, always_real, dropped, signs, others)
    return dropped, signs, others


@kernel
def _drop(quaternions, real, always_real, dropped, signs, others):
    for row in range(quaternions.shape[0]):
        squares = 0.0
        for i in range(4):
            squares += np.float64(quaternions[row, i]) * np.float64(quaternions[row, i])
        length = math.sqrt(squares)
        chosen = real
        if length > 0 and not always_real:
            chosen = 0
            for i in range(1, 4):
                if abs(quaternions[row, i]) > abs(quaternions[row, chosen]):
                    chosen = i
        sign = -1.0 if quaternions[row, chosen] < 0 else 1.0
        dropped[row] = chosen
        signs[row] = sign
        slot = 0
        for i in range(4):
            if i != chosen:
                others[row, slot] = sign * quaternions[row, i] / length if length > 0 else 0.0
                slot += 1


@with_tensor_form
def restore_dropped(dropped: npt.NDArray[np.integer], others: npt.NDArray[np.integer], unit: float) -> Array:
    """``(N, 4)`` float32 quaternions from integers: ``others / unit``, and what is missing of unit length.

    Args:
        dropped: ``(N,)`` which component is missing.
        others: ``(N, 3)`` of up to 30 bits, the other components.
        unit: What these stand for 1 as.
    """
    quaternions = np.empty((len(others), 4), np.float32)
    contiguous = np.ascontiguousarray(dropped, np.int64), np.ascontiguousarray(others, np.int32)
    _restore(*contiguous, unit, quaternions)
    return quaternions


@kernel
def _restore(dropped, others, unit, quaternions):
    for row in range(others.shape[0]):
        # The squares are summed as integers: no order of addition, no rounding.
        squares = 0
        for i in range(3):
            squares += np.int64(others[row, i]) * np.int64(others[row, i])
        chosen = dropped[row]
        quaternions[row, chosen] = math.sqrt(max(0.0, 1.0 - squares / (unit * unit)))
        slot = 0
        for i in range(4):
            if i != chosen:
                quaternions[row, i] = others[row, slot] / unit
                slot += 1
