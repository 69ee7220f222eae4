"""Morton (Z-curve) order of positions: neighbors in space become neighbors in the file, which compresses better."""

from __future__ import annotations

import numpy as np

from gsz.kernels import inline, kernel

BITS_PER_AXIS = 21
"""Three of these fill a 63-bit code."""
_DIGIT_BITS = 11
_DIGITS = 6
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
    columns = positions.astype(np.float64).T
    deviations = [column - np.median(column) for column in columns]
    distances = np.abs(deviations)
    scale = np.median(distances) or distances.max() or 1.0
    cells = np.empty(positions.shape, np.int32)
    half = ((1 << BITS_PER_AXIS) - 1) / 2
    for axis, (deviation, distance) in enumerate(zip(deviations, distances, strict=True)):
        # Dividing by scale + distance, rather than by scale first, cannot overflow.
        cells[:, axis] = np.rint((deviation / (scale + distance) + 1) * half)
    return interleave(cells)


def stable_order(codes: np.ndarray) -> np.ndarray:
    """The ``(N,)`` int64 indices that sort ``(N,)`` int64 codes, none of them negative; equal ones keep their order."""
    counts = np.zeros((_DIGITS, 1 << _DIGIT_BITS), np.int64)
    _count_digits(codes, counts)
    order, codes = np.arange(len(codes)), codes.copy()
    next_order, next_codes = np.empty_like(order), np.empty_like(codes)
    # One digit after the other, from the lowest on.
    for digit, of_value in enumerate(counts):
        if of_value.max() < len(codes):
            _sort_by_digit(codes, order, _DIGIT_BITS * digit, np.cumsum(of_value) - of_value, next_codes, next_order)
            codes, order, next_codes, next_order = next_codes, next_order, codes, order
    return order


@kernel
def _count_digits(codes, counts):
    for i in range(len(codes)):
        for digit in range(_DIGITS):
            counts[digit, (codes[i] >> (_DIGIT_BITS * digit)) & ((1 << _DIGIT_BITS) - 1)] += 1


@kernel
def _sort_by_digit(codes, order, shift, places, next_codes, next_order):
    for i in range(len(codes)):
        value = (codes[i] >> shift) & ((1 << _DIGIT_BITS) - 1)
        next_codes[places[value]] = codes[i]
        next_order[places[value]] = order[i]
        places[value] += 1


@inline
def _spread(value):
    """The low 21 bits of ``value``, two zeros between each and the next."""
    value = (value | (value << 32)) & 0x1F00000000FFFF
    value = (value | (value << 16)) & 0x1F0000FF0000FF
    value = (value | (value << 8)) & 0x100F00F00F00F00F
    value = (value | (value << 4)) & 0x10C30C30C30C30C3
    return (value | (value << 2)) & 0x1249249249249249


@inline
def _gather(value):
    """Every third bit of ``value``, from the lowest on: the inverse of :func:`_spread`."""
    value &= 0x1249249249249249
    value = (value ^ (value >> 2)) & 0x10C30C30C30C30C3
    value = (value ^ (value >> 4)) & 0x100F00F00F00F00F
    value = (value ^ (value >> 8)) & 0x1F0000FF0000FF
    value = (value ^ (value >> 16)) & 0x1F00000000FFFF
    return (value ^ (value >> 32)) & 0x1FFFFF


def interleave(cells: np.ndarray, zero: int = 0) -> np.ndarray:
    """``(N,)`` int64 Morton codes of ``(N, 3)`` int32 cells, whose smallest coordinate is ``-zero``.

    Bit ``i`` of ``cells + zero``, which have 21, along axis ``a`` becomes bit ``3 * i + a``.
    """
    codes = np.empty(len(cells), np.int64)
    _interleave(cells, zero, codes)
    return codes


def deinterleave(codes: np.ndarray, zero: int = 0) -> np.ndarray:
    """The inverse of :func:`interleave`; any int64 are taken."""
    cells = np.empty((len(codes), 3), np.int32)
    _deinterleave(codes, zero, cells)
    return cells


@kernel
def _interleave(cells, zero, codes):
    for i in range(len(cells)):
        code = np.int64(0)
        for axis in range(3):
            code |= _spread(np.int64(cells[i, axis]) + zero) << axis
        codes[i] = code


@kernel
def _deinterleave(codes, zero, cells):
    for i in range(len(codes)):
        for axis in range(3):
            cells[i, axis] = _gather(codes[i] >> axis) - zero
