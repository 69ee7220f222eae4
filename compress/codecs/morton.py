"""Morton (Z-curve) order of positions: neighbours in space become neighbours in the file, which compresses better."""

from __future__ import annotations

import numpy as np
from numba import njit

from utils.compilation import SERIAL

BITS_PER_AXIS = 21
"""Three of these fill a 63-bit code."""
DIGIT_BITS = 11
DIGITS = 6
"""So many digits make up 64 bits and more."""


def morton_order(positions: np.ndarray) -> np.ndarray:
    """The order of points along a Morton curve.

    A trained scene has a dense middle and a few points very far away, so a grid over the bounding box would put
    nearly all points into a handful of cells. The curve runs through a contracted space instead (:func:`contract`).

    Args:
        positions: ``(N, 3)`` finite floats; any span, identical points, and ``N = 0`` are fine.

    Returns:
        ``(N,)`` int64 indices. Points in one cell keep their order.
    """
    return stable_order(morton_codes(positions))


def morton_codes(positions: np.ndarray) -> np.ndarray:
    """``(N,)`` uint64 places along the curve of :func:`morton_order`."""
    steps = (1 << BITS_PER_AXIS) - 1
    cells = np.rint((contract(positions) + 1) * (steps / 2)).astype(np.uint64)
    return interleave(cells)


def stable_order(codes: np.ndarray) -> np.ndarray:
    """The ``(N,)`` int64 indices that sort non-negative 64-bit integers; equal ones keep their order."""
    return _sort_by_digits(codes.view(np.uint64))


@njit(**SERIAL)
def _sort_by_digits(codes):
    """Sort by eleven binary digits after the other, from the lowest on."""
    counts = np.zeros((DIGITS, 1 << DIGIT_BITS), np.int64)
    for i in range(len(codes)):
        for digit in range(DIGITS):
            counts[digit, (codes[i] >> np.uint64(DIGIT_BITS * digit)) & np.uint64((1 << DIGIT_BITS) - 1)] += 1
    order = np.arange(len(codes))
    codes, other_codes, other_order = codes.copy(), np.empty_like(codes), np.empty_like(order)
    for digit in range(DIGITS):
        if counts[digit].max() == len(codes):
            continue
        places = np.cumsum(counts[digit]) - counts[digit]
        for i in range(len(codes)):
            value = (codes[i] >> np.uint64(DIGIT_BITS * digit)) & np.uint64((1 << DIGIT_BITS) - 1)
            other_codes[places[value]] = codes[i]
            other_order[places[value]] = order[i]
            places[value] += 1
        codes, other_codes = other_codes, codes
        order, other_order = other_order, order
    return order


def contract(positions: np.ndarray) -> np.ndarray:
    """Positions squeezed into [-1, 1] per axis: the median at 0, what is one typical deviation away at a half.

    The map is ``t / (1 + abs(t))`` of ``t = (position - median) / scale``, where ``scale`` is the median over all
    axes of the absolute deviations, or where most points coincide their largest.

    Args:
        positions: ``(N, 3)`` finite floats.

    Returns:
        ``(N, 3)`` float64.
    """
    wide = positions.astype(np.float64)
    if len(wide) == 0:
        return wide
    deviations = wide - np.median(wide, axis=0)
    distances = np.abs(deviations)
    scale = np.median(distances) or distances.max() or 1.0
    # Dividing by scale + distance, rather than by scale first, cannot overflow.
    return deviations / (scale + distances)


def interleave(cells: np.ndarray) -> np.ndarray:
    """Morton codes: bit ``i`` of axis ``a`` becomes bit ``3 * i + a``.

    Args:
        cells: ``(N, 3)`` integers of at most :data:`BITS_PER_AXIS` bits.

    Returns:
        ``(N,)`` uint64.
    """
    spread = _spread(cells.astype(np.uint64))
    return spread[:, 0] | (spread[:, 1] << np.uint64(1)) | (spread[:, 2] << np.uint64(2))


def deinterleave(codes: np.ndarray) -> np.ndarray:
    """The ``(N, 3)`` uint64 cells of ``(N,)`` Morton codes: the inverse of :func:`interleave`."""
    codes = codes.astype(np.uint64)
    return np.stack([_gather(codes >> np.uint64(axis)) for axis in range(3)], axis=1)


_STAGES = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )
)
"""Each stage halves the runs of adjacent bits; the masks say where the bits stand after it."""


def _spread(values: np.ndarray) -> np.ndarray:
    """Move bit ``i`` to bit ``3 * i``."""
    for shift, mask in _STAGES:
        values = (values | (values << shift)) & mask
    return values


def _gather(values: np.ndarray) -> np.ndarray:
    """Move bit ``3 * i`` to bit ``i`` and drop the others."""
    before = [mask for _, mask in _STAGES[:-1]]
    values = values & _STAGES[-1][1]
    for (shift, _), mask in zip(
        reversed(_STAGES), [*reversed(before), np.uint64((1 << BITS_PER_AXIS) - 1)], strict=True
    ):
        values = (values | (values >> shift)) & mask
    return values
