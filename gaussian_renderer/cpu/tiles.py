"""Which Gaussians touch which 16 x 16 tile, front to back.

The visible Gaussians are sorted by depth once; a stable counting sort then deals their (Gaussian, tile) pairs out to
the tiles, so that every tile's list is in depth order without sorting pairs. Work is divided into a fixed number of
blocks, whatever the number of threads, which makes the result the same on any.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from gaussian_renderer.cpu.projection import (
    CUTOFF,
    FALLOFF_Y,
    RECORD_WIDTH,
    SKEW,
    SLOPE_X,
    SLOPE_Y,
    TILE,
    U,
    V,
)
from utils.compilation import PARALLEL, SERIAL

f32 = np.float32

_BLOCKS = 8
_RADIX_BITS = 11
_ZERO = f32(0)


@njit(**SERIAL)
def sort_by_depth(is_drawn, depths):
    """Indices of the drawn Gaussians, nearest first; ties keep the order of the model. Depths are positive.

    A least-significant-digit radix sort: the bits of positive floats order as integers do.
    """
    count = 0
    for i in range(is_drawn.shape[0]):
        count += is_drawn[i]
    order, other = np.empty(count, np.int32), np.empty(count, np.int32)
    keys = depths.view(np.uint32)
    position = 0
    for i in range(is_drawn.shape[0]):
        if is_drawn[i]:
            order[position] = i
            position += 1
    buckets = 1 << _RADIX_BITS
    for digit in range(3):
        shift = np.uint32(digit * _RADIX_BITS)
        starts = np.zeros(buckets + 1, np.int64)
        for k in range(count):
            starts[((keys[order[k]] >> shift) & np.uint32(buckets - 1)) + 1] += 1
        for bucket in range(buckets):
            starts[bucket + 1] += starts[bucket]
        for k in range(count):
            bucket = (keys[order[k]] >> shift) & np.uint32(buckets - 1)
            other[starts[bucket]] = order[k]
            starts[bucket] += 1
        order, other = other, order
    return order


@njit(**SERIAL)
def _tile_span(record, tile_y, first, end):
    """First and last tile column whose pixels the Gaussian's ellipse reaches in a row of tiles; empty if first > last.

    With ``dy = V - y``, the ellipse spans ``x = U + (SLOPE_Y dy ± h) / SLOPE_X``, ``h**2 = CUTOFF - FALLOFF_Y dy**2``.
    Its rightmost point lies at ``dy = -SKEW`` and its leftmost at ``dy = SKEW``; within a row of tiles the extreme is
    there, or at the end of the row that is nearest to it.
    """
    low = record[V] - f32(tile_y * TILE + TILE - 1)
    high = record[V] - f32(tile_y * TILE)
    reach = math.sqrt(record[CUTOFF] / record[FALLOFF_Y])
    if low > reach or high < -reach:
        return 1, 0
    low, high = max(low, -reach), min(high, reach)
    right_dy = min(max(-record[SKEW], low), high)
    left_dy = min(max(record[SKEW], low), high)
    right_h = math.sqrt(max(_ZERO, record[CUTOFF] - record[FALLOFF_Y] * right_dy * right_dy))
    left_h = math.sqrt(max(_ZERO, record[CUTOFF] - record[FALLOFF_Y] * left_dy * left_dy))
    right = record[U] + (record[SLOPE_Y] * right_dy + right_h) / record[SLOPE_X] + f32(1e-3)
    left = record[U] + (record[SLOPE_Y] * left_dy - left_h) / record[SLOPE_X] - f32(1e-3)
    limit = f32(end * TILE)
    # Pixel x of a column's last pixel is 16 column + 15: the column is reached when that is at least `left`.
    span_first = math.ceil((min(max(left, _ZERO), limit) - f32(TILE - 1)) / f32(TILE))
    span_last = math.floor(min(max(right, f32(-1)), limit) / f32(TILE))
    return max(first, span_first), min(end - 1, span_last)


@njit(**PARALLEL)
def gather_and_count(order, records, tile_rects, sorted_records, sorted_rects, rank, pair_counts):
    """Put records and rectangles in depth order, and count the tiles of each Gaussian.

    ``rank[i]`` becomes the place of Gaussian ``i`` in depth order.
    """
    for place in prange(order.shape[0]):
        i = order[place]
        rank[i] = place
        for j in range(RECORD_WIDTH):
            sorted_records[place, j] = records[i, j]
        for j in range(4):
            sorted_rects[place, j] = tile_rects[i, j]
        pairs = 0
        for tile_y in range(sorted_rects[place, 2], sorted_rects[place, 3]):
            first, last = _tile_span(sorted_records[place], tile_y, sorted_rects[place, 0], sorted_rects[place, 1])
            pairs += max(0, last - first + 1)
        pair_counts[place] = pairs


@njit(**PARALLEL)
def fill_tiles(sorted_records, sorted_rects, pair_start, tiles_x, tile_count, tile_start, members, member_slots):
    """Deal the pairs out to the tiles.

    Tile ``t`` gets ``members[tile_start[t] : tile_start[t + 1]]``, places in depth order, nearest first. The pairs of a
    Gaussian are numbered ``pair_start[place]`` onwards; ``member_slots`` says which number each member has.
    """
    visible = sorted_records.shape[0]
    pair_tiles = np.empty(pair_start[visible], np.int32)
    cursors = np.zeros((_BLOCKS, tile_count), np.int64)
    block_size = (visible + _BLOCKS - 1) // _BLOCKS
    for block in prange(_BLOCKS):
        for place in range(block * block_size, min(visible, (block + 1) * block_size)):
            pair = pair_start[place]
            for tile_y in range(sorted_rects[place, 2], sorted_rects[place, 3]):
                first, last = _tile_span(sorted_records[place], tile_y, sorted_rects[place, 0], sorted_rects[place, 1])
                for tile_x in range(first, last + 1):
                    tile = tile_y * tiles_x + tile_x
                    pair_tiles[pair] = tile
                    cursors[block, tile] += 1
                    pair += 1
    running = 0
    for tile in range(tile_count):
        tile_start[tile] = running
        for block in range(_BLOCKS):
            in_block = cursors[block, tile]
            cursors[block, tile] = running
            running += in_block
    tile_start[tile_count] = running
    for block in prange(_BLOCKS):
        for place in range(block * block_size, min(visible, (block + 1) * block_size)):
            for pair in range(pair_start[place], pair_start[place + 1]):
                tile = pair_tiles[pair]
                at = cursors[block, tile]
                cursors[block, tile] = at + 1
                members[at] = place
                member_slots[at] = pair
