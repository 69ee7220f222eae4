"""Gaussians taken several at a time: one a lane of a vector, from and to arrays that hold them row by row.

A group is named by the rows of its Gaussians. Where fewer are left than there are lanes, the last one fills the others:
it is computed and written several times alike.
"""

from __future__ import annotations

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.lanes import lanes as simd
from utils.kernels import INLINE

LANES = simd.LANES
_BLOCK = 8
CACHE_LINE = 16
"""Floats of one."""
AHEAD = 2 * LANES
"""By how many Gaussians prefetching runs ahead."""


@njit(**INLINE)
def consecutive_rows(first, end, rows):
    """Fill ``rows`` with the numbers from ``first`` on, before ``end``."""
    for lane in range(LANES):
        rows[lane] = first + lane if first + lane < end else end - 1


@njit(**INLINE)
def listed_rows(numbers, first, end, rows):
    """Fill ``rows`` with those of ``numbers`` from ``first`` on, before ``end``."""
    for lane in range(LANES):
        rows[lane] = numbers[first + lane if first + lane < end else end - 1]


@njit(**INLINE)
def prefetch_rows(numbers, first, end, array, stride):
    """Ask for the rows of a later group: the columns of eight rows are read in an order that no processor foresees."""
    for place in range(first, first + LANES if first + LANES < end else end):
        for column in range(0, stride, CACHE_LINE):
            simd.prefetch(array, numbers[place] * stride + column)


@njit(**INLINE)
def triple(array, rows):
    """The three numbers of each row of a flat array, a vector for each."""
    return simd.gather(array, rows, 3, 0), simd.gather(array, rows, 3, 1), simd.gather(array, rows, 3, 2)


@njit(**INLINE)
def quadruple(array, rows):
    """The four numbers of each row."""
    w, x = simd.gather(array, rows, 4, 0), simd.gather(array, rows, 4, 1)
    return w, x, simd.gather(array, rows, 4, 2), simd.gather(array, rows, 4, 3)


@njit(**INLINE)
def scatter_triple(array, rows, values):
    """Write what :func:`triple` reads."""
    simd.scatter(array, rows, 3, 0, values[0])
    simd.scatter(array, rows, 3, 1, values[1])
    simd.scatter(array, rows, 3, 2, values[2])


@njit(**INLINE)
def gather_columns(array, rows, stride, columns, target):
    """The first columns of rows, at least eight of them or none, as vectors one after the other in ``target``."""
    for column in range(0, columns, _BLOCK):
        first = column if column + _BLOCK <= columns else columns - _BLOCK
        simd.transpose_in(array, rows, stride, first, target, first * LANES)


@njit(**INLINE)
def scatter_columns(array, rows, stride, columns, source):
    """Write what :func:`gather_columns` reads."""
    for column in range(0, columns, _BLOCK):
        first = column if column + _BLOCK <= columns else columns - _BLOCK
        simd.transpose_out(array, rows, stride, first, source, first * LANES)


@njit(**INLINE)
def smaller(left, right):
    """Lane by lane the smaller one; ``right`` where one of them is not a number."""
    return simd.select(left < right, left, right)


@njit(**INLINE)
def larger(left, right):
    """Lane by lane the larger one; ``right`` where one of them is not a number."""
    return simd.select(left > right, left, right)


@njit(**INLINE)
def clamp(value, low, high):
    """Within two scalars; what is not a number becomes ``low``."""
    return smaller(larger(value, simd.splat(low)), simd.splat(high))
