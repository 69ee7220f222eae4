"""The operations of :mod:`gaussian_renderer.cpu.simd` on one lane: plain float32, int32 and bool.

The kernels are the same; they take eight times as many steps. This is for a Numba whose extension interface cannot
build vector types; results differ from theirs by rounding.
"""

from __future__ import annotations

import numpy as np

from gaussian_renderer.cpu.compiled import njit
from utils.kernels import INLINE

f32 = np.float32

LANES = 1


@njit(**INLINE)
def splat(value):
    return value


@njit(**INLINE)
def splat_int(value):
    return value


@njit(**INLINE)
def lane_numbers(part):
    return f32(part)


@njit(**INLINE)
def lane_columns(part):
    return f32(part & 3)


@njit(**INLINE)
def lane_rows(part):
    return f32(part >> 2)


@njit(**INLINE)
def load(array, start):
    return array[start]


@njit(**INLINE)
def load_int(array, start):
    return array[start]


@njit(**INLINE)
def store(array, start, value):
    array[start] = value


@njit(**INLINE)
def store_int(array, start, value):
    array[start] = value


@njit(**INLINE)
def gather(array, rows, stride, offset):
    return array[rows[0] * stride + offset]


@njit(**INLINE)
def scatter(array, rows, stride, offset, value):
    array[rows[0] * stride + offset] = value


@njit(**INLINE)
def transpose_in(array, rows, stride, offset, target, start):
    for column in range(8):
        target[start + column] = array[rows[0] * stride + offset + column]


@njit(**INLINE)
def transpose_out(array, rows, stride, offset, source, start):
    for column in range(8):
        array[rows[0] * stride + offset + column] = source[start + column]


@njit(**INLINE)
def prefetch(array, start):
    pass


@njit(**INLINE)
def less_int(left, right):
    return left < right


@njit(**INLINE)
def any_of(left, right):
    return left | right


@njit(**INLINE)
def and_not(left, right):
    return left & (not right)


@njit(**INLINE)
def select(mask, when_set, otherwise):
    return when_set if mask else otherwise


@njit(**INLINE)
def any_lane(mask):
    return mask


@njit(**INLINE)
def mask_bits(mask):
    return np.int64(mask)


@njit(**INLINE)
def square_root(value):
    return np.sqrt(value)


@njit(**INLINE)
def absolute(value):
    return abs(value)


@njit(**INLINE)
def floor(value):
    return f32(np.floor(value))


@njit(**INLINE)
def ceil(value):
    return f32(np.ceil(value))


@njit(**INLINE)
def multiply_add(left, right, summand):
    return left * right + summand


@njit(**INLINE)
def subtract_product(minuend, left, right):
    return minuend - left * right


@njit(**INLINE)
def to_int(value):
    return np.int32(value)


@njit(**INLINE)
def exp2(value):
    return np.exp2(value)


@njit(**INLINE)
def exp(value):
    value = value if value < f32(88) else f32(88)
    return np.exp(value if value > f32(-87) else f32(-87))


@njit(**INLINE)
def log2(value):
    return np.log2(value)


@njit(**INLINE)
def trailing_zeros(value):
    zeros = 0
    while value & 1 == 0:
        value >>= 1
        zeros += 1
    return zeros


@njit(**INLINE)
def horizontal_sum(value):
    return value


@njit(**INLINE)
def store_sums(array, start, a, b, c, d, e, f, g, h):
    array[start], array[start + 1], array[start + 2], array[start + 3] = a, b, c, d
    array[start + 4], array[start + 5], array[start + 6], array[start + 7] = e, f, g, h
