"""Morton (Z-curve) order of positions: neighbours in space become neighbours in the file, which compresses better."""

from __future__ import annotations

import numpy as np
from numba import njit

from gsz.kernels import INLINE, SERIAL

BITS_PER_AXIS = 21
"""Three of these fill a 63-bit code."""
DIGIT_BITS = 11
DIGITS = 6
"""So many digits make up a code."""


def morton_order(positions: np.ndarray) -> np.ndarray:
    """The order of points along a Morton curve.

    A trained scene has a dense middle and a few points very far away, so a grid over the bounding box would put
    nearly all points into a handful of cells. The curve runs through a contracted space instead, in which the median
    is at 0, what is one typical deviation away at a half, and infinity at 1: ``t / (1 + abs(t))`` of
    ``t = (position - median) / scale``, where ``scale`` is the median over all axes of the absolute deviations, or
    where most points coincide their largest.

    Args:
        positions: ``(N, 3)`` finite floats; any span, identical points, and ``N = 0`` are fine.

    Returns:
        ``(N,)`` int64 indices. Points in one cell keep their order.
    """
    return stable_order(morton_codes(positions))


def morton_codes(positions: np.ndarray) -> np.ndarray:
    """``(N,)`` int64 places along the curve of :func:`morton_order`."""
    if len(positions) == 0:
        return np.empty(0, np.int64)
    median = np.array([np.median(positions[:, axis].astype(np.float64)) for axis in range(3)])
    distances = np.abs(positions - median)
    scale = np.median(distances, overwrite_input=True) or distances.max() or 1.0
    return interleave(_contracted_cells(positions, median, scale))


@njit(**SERIAL)
def _contracted_cells(positions, median, scale):
    cells = np.empty(positions.shape, np.int32)
    half = ((1 << BITS_PER_AXIS) - 1) / 2
    for i in range(len(positions)):
        for axis in range(3):
            deviation = np.float64(positions[i, axis]) - median[axis]
            # Dividing by scale + distance, rather than by scale first, cannot overflow.
            cells[i, axis] = np.rint((deviation / (scale + abs(deviation)) + 1) * half)
    return cells


@njit(**SERIAL)
def stable_order(codes):
    """The ``(N,)`` int64 indices that sort ``(N,)`` int64 codes, none of them negative; equal ones keep their order.

    Sorts by one digit after the other, from the lowest on.
    """
    counts = np.zeros((DIGITS, 1 << DIGIT_BITS), np.int64)
    mask = (1 << DIGIT_BITS) - 1
    for i in range(len(codes)):
        for digit in range(DIGITS):
            counts[digit, (codes[i] >> (DIGIT_BITS * digit)) & mask] += 1
    order = np.arange(len(codes))
    codes, other_codes, other_order = codes.copy(), np.empty_like(codes), np.empty_like(order)
    for digit in range(DIGITS):
        if counts[digit].max() == len(codes):
            continue
        places = np.cumsum(counts[digit]) - counts[digit]
        for i in range(len(codes)):
            value = (codes[i] >> (DIGIT_BITS * digit)) & mask
            other_codes[places[value]] = codes[i]
            other_order[places[value]] = order[i]
            places[value] += 1
        codes, other_codes = other_codes, codes
        order, other_order = other_order, order
    return order


@njit(**INLINE)
def _spread(value):
    """The low 21 bits of ``value``, two zeros between each and the next."""
    value = (value | (value << 32)) & 0x1F00000000FFFF
    value = (value | (value << 16)) & 0x1F0000FF0000FF
    value = (value | (value << 8)) & 0x100F00F00F00F00F
    value = (value | (value << 4)) & 0x10C30C30C30C30C3
    return (value | (value << 2)) & 0x1249249249249249


@njit(**INLINE)
def _gather(value):
    """Every third bit of ``value``, from the lowest on: the inverse of :func:`_spread`."""
    value &= 0x1249249249249249
    value = (value ^ (value >> 2)) & 0x10C30C30C30C30C3
    value = (value ^ (value >> 4)) & 0x100F00F00F00F00F
    value = (value ^ (value >> 8)) & 0x1F0000FF0000FF
    value = (value ^ (value >> 16)) & 0x1F00000000FFFF
    return (value ^ (value >> 32)) & 0x1FFFFF


@njit(**SERIAL)
def interleave(cells, zero=0):
    """``(N,)`` int64 Morton codes of ``(N, 3)`` int32 cells, whose smallest coordinate is ``-zero``.

    Bit ``i`` of ``cells + zero``, which have 21, along axis ``a`` becomes bit ``3 * i + a``.
    """
    codes = np.empty(len(cells), np.int64)
    for i in range(len(cells)):
        x, y = _spread(np.int64(cells[i, 0]) + zero), _spread(np.int64(cells[i, 1]) + zero)
        codes[i] = x | (y << 1) | (_spread(np.int64(cells[i, 2]) + zero) << 2)
    return codes


@njit(**SERIAL)
def deinterleave(codes, zero=0):
    """The inverse of :func:`interleave`; any int64 are taken."""
    cells = np.empty((len(codes), 3), np.int32)
    for i in range(len(codes)):
        for axis in range(3):
            cells[i, axis] = _gather(codes[i] >> axis) - zero
    return cells
