"""Which Gaussians touch which 16 x 16 tile, front to back.

The pairs (Gaussian, tile) are numbered Gaussian by Gaussian, in the order of the model. The drawn Gaussians are sorted
by depth once; a stable counting sort then deals their pairs out to the tiles, so that every tile's list is in depth
order without a sort of pairs. The result does not depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.layout import CUTOFF, FALLOFF_Y, SKEW, SLOPE_X, SLOPE_Y, TILE, U, V
from utils.kernels import PARALLEL, SERIAL

f32 = np.float32

_RADIX_BITS = 11
_CHUNK = 1024
_ZERO = f32(0)


@njit(**SERIAL)
def tile_span(record, rect, tile_y):
    """First and last tile column whose pixels the Gaussian's ellipse reaches in a row of tiles; empty if first > last.

    Only columns within ``rect`` (x first, x end, y first, y end) count. Where it is one tile wide or high, all of it is
    taken: there it can hold a tile the ellipse misses only at the edge of the image, and blending finds that out.

    With ``dy = V - y``, the ellipse spans ``x = U + (SLOPE_Y dy ± h) / SLOPE_X``, ``h**2 = CUTOFF - FALLOFF_Y dy**2``.
    Its rightmost point lies at ``dy = -SKEW`` and its leftmost at ``dy = SKEW``; within a row of tiles the extreme is
    there, or at the end of the row that is nearest to it.
    """
    first, end = rect[0], rect[1]
    if end - first == 1 or rect[3] - rect[2] == 1:
        return first, end - 1
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
    inverse_slope = f32(1) / record[SLOPE_X]
    right = record[U] + (record[SLOPE_Y] * right_dy + right_h) * inverse_slope + f32(1e-3)
    left = record[U] + (record[SLOPE_Y] * left_dy - left_h) * inverse_slope - f32(1e-3)
    limit = f32(end * TILE)
    # Pixel x of a column's last pixel is 16 column + 15: the column is reached when that is at least `left`.
    span_first = math.ceil((min(max(left, _ZERO), limit) - f32(TILE - 1)) / f32(TILE))
    span_last = math.floor(min(max(right, f32(-1)), limit) / f32(TILE))
    return max(first, int(span_first)), min(end - 1, int(span_last))


@njit(**SERIAL)
def count_pairs(record, rect):
    """Number of tiles within ``rect`` that :func:`tile_span` takes."""
    pairs = 0
    for tile_y in range(rect[2], rect[3]):
        first, last = tile_span(record, rect, tile_y)
        pairs += max(0, last - first + 1)
    return pairs


@njit(**SERIAL)
def sort_by_depth(pair_start, depths):
    """Indices of the Gaussians that have pairs, nearest first; ties keep the order of the model. Depths are positive.

    A least-significant-digit radix sort: the bits of positive floats order as integers do.
    """
    count = 0
    for i in range(depths.shape[0]):
        count += pair_start[i + 1] > pair_start[i]
    order, other = np.empty(count, np.int32), np.empty(count, np.int32)
    keys = depths.view(np.uint32)
    position = 0
    for i in range(depths.shape[0]):
        if pair_start[i + 1] > pair_start[i]:
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


@njit(**PARALLEL)
def fill_tiles(order, records, tile_rects, pair_start, tiles_x, blocks, tile_start, members, pairs):
    """Deal the pairs out to the tiles.

    Tile ``t`` gets the Gaussians ``members[tile_start[t] : tile_start[t + 1]]``, nearest first; the pairs of Gaussian
    ``i`` are ``pair_start[i]`` up to ``pair_start[i + 1]``. Unless it is empty, ``pairs`` gets the numbers of the
    members' pairs. The work is done in ``blocks`` parts; any number gives the same.
    """
    numbers_pairs = pairs.shape[0] > 0
    count, visible, tile_count = records.shape[0], order.shape[0], tile_start.shape[0] - 1
    pair_tiles = np.empty(pair_start[count], np.int32)
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            pair = pair_start[i]
            if pair_start[i + 1] == pair:
                continue
            for tile_y in range(tile_rects[i, 2], tile_rects[i, 3]):
                first, last = tile_span(records[i], tile_rects[i], tile_y)
                for tile_x in range(first, last + 1):
                    pair_tiles[pair] = tile_y * tiles_x + tile_x
                    pair += 1

    cursors = np.zeros((blocks, tile_count), np.int64)
    block_size = (visible + blocks - 1) // blocks
    for block in prange(blocks):
        for place in range(block * block_size, min(visible, (block + 1) * block_size)):
            i = order[place]
            for pair in range(pair_start[i], pair_start[i + 1]):
                cursors[block, pair_tiles[pair]] += 1
    running = 0
    for tile in range(tile_count):
        tile_start[tile] = running
        for block in range(blocks):
            in_block = cursors[block, tile]
            cursors[block, tile] = running
            running += in_block
    tile_start[tile_count] = running
    for block in prange(blocks):
        for place in range(block * block_size, min(visible, (block + 1) * block_size)):
            i = order[place]
            for pair in range(pair_start[i], pair_start[i + 1]):
                tile = pair_tiles[pair]
                at = cursors[block, tile]
                cursors[block, tile] = at + 1
                members[at] = i
                if numbers_pairs:
                    pairs[at] = pair
