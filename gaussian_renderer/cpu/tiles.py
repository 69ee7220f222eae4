"""Which Gaussians touch which 16 x 16 tile, front to back.

The pairs (Gaussian, tile) are numbered Gaussian by Gaussian, in the order of the model. The drawn Gaussians are sorted
by depth once; a stable counting sort then deals their pairs out to the tiles, so that every tile's list is in depth
order without a sort of pairs. The result does not depend on the number of threads.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import prange

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.groups import LANES, larger, listed_rows, quadruple, smaller
from gaussian_renderer.cpu.lanes import lanes as simd
from gaussian_renderer.cpu.layout import CUTOFF, FALLOFF_Y, RECORD_WIDTH, SKEW, SLOPE_X, SLOPE_Y, TILE, U, V
from utils.kernels import INLINE, PARALLEL, SERIAL

f32 = np.float32

_RADIX_BITS, _DIGITS = 11, 3
_CHUNK = 1024
_AHEAD = 8  # Places by which the reading of Gaussians in order of depth runs ahead.
_ZERO, _ONE = f32(0), f32(1)
_TILE, _PER_TILE = f32(TILE), f32(1 / TILE)
_SLACK = f32(1e-3)


Ellipse = namedtuple("Ellipse", "u v slope_x slope_y falloff_y cutoff skew")
"""Columns of a record, several Gaussians at a time."""

Rect = namedtuple("Rect", "x_first x_end y_first y_end")
"""The tiles that Gaussians may touch, as whole floats."""


@njit(**INLINE)
def tile_spans(ellipse, rect, tile_y):
    """First and last tile columns whose pixels the ellipses reach in rows of tiles; empty if first > last.

    Only tiles of ``rect`` count. Where it is one tile wide or high, all of it is taken: there it can hold a tile the
    ellipse misses only at the edge of the image, and blending finds that out.

    With ``dy = v - y``, the ellipse spans ``x = u + (slope_y dy ± h) / slope_x``, ``h**2 = cutoff - falloff_y dy**2``.
    Its rightmost point lies at ``dy = -skew`` and its leftmost at ``dy = skew``; within a row of tiles the extreme is
    there, or at the end of the row that is nearest to it.
    """
    high = ellipse.v - _TILE * tile_y
    low = high - f32(TILE - 1)
    reach = simd.square_root(ellipse.cutoff / ellipse.falloff_y)
    misses = simd.any_of(low > reach, high < _ZERO - reach)
    low, high = larger(low, _ZERO - reach), smaller(high, reach)
    right_dy = smaller(larger(_ZERO - ellipse.skew, low), high)
    left_dy = smaller(larger(ellipse.skew, low), high)
    zero = simd.splat(_ZERO)
    right_h = simd.square_root(larger(ellipse.cutoff - ellipse.falloff_y * right_dy * right_dy, zero))
    left_h = simd.square_root(larger(ellipse.cutoff - ellipse.falloff_y * left_dy * left_dy, zero))
    inverse_slope = _ONE / ellipse.slope_x
    right = ellipse.u + (ellipse.slope_y * right_dy + right_h) * inverse_slope + _SLACK
    left = ellipse.u + (ellipse.slope_y * left_dy - left_h) * inverse_slope - _SLACK
    limit = rect.x_end * _TILE
    # Pixel x of a column's last pixel is 16 column + 15: the column is reached when that is at least `left`.
    first = simd.ceil((smaller(larger(left, zero), limit) - f32(TILE - 1)) * _PER_TILE)
    last = simd.floor(smaller(larger(right, simd.splat(-_ONE)), limit) * _PER_TILE)
    first, last = larger(first, rect.x_first), smaller(last, rect.x_end - _ONE)
    is_line = simd.any_of(rect.x_end - rect.x_first <= _ONE, rect.y_end - rect.y_first <= _ONE)
    first = simd.select(is_line, rect.x_first, first)
    last = simd.select(is_line, rect.x_end - _ONE, simd.select(misses, first - _ONE, last))
    return first, simd.select(tile_y < rect.y_end, last, first - _ONE)


@njit(**INLINE)
def count_tiles(ellipse, rect):
    """Numbers of tiles within ``rect`` that :func:`tile_spans` takes, as floats."""
    tiles, tile_y = simd.splat(_ZERO), rect.y_first
    while simd.any_lane(tile_y < rect.y_end):
        first, last = tile_spans(ellipse, rect, tile_y)
        tiles += larger(last - first + _ONE, simd.splat(_ZERO))
        tile_y += _ONE
    return tiles


@njit(**SERIAL)
def sort_by_depth(pair_start, depths):
    """Indices of the Gaussians that have pairs, nearest first; ties keep the order of the model. Depths are positive.

    A least-significant-digit radix sort: the bits of positive floats order as integers do. What is moved are depths
    with their Gaussian's number below them. It is serial: waking threads for each digit takes as long as they save.
    """
    count, bits = 0, depths.view(np.uint32)
    items, others = np.empty((2, depths.shape[0]), np.uint64)
    places = np.zeros((_DIGITS, 1 << _RADIX_BITS), np.int64)
    mask = np.uint64((1 << _RADIX_BITS) - 1)
    for i in range(depths.shape[0]):
        if pair_start[i + 1] > pair_start[i]:
            key = np.uint64(bits[i])
            items[count] = key << np.uint64(32) | np.uint64(i)
            count += 1
            for digit in range(_DIGITS):
                places[digit, (key >> np.uint64(digit * _RADIX_BITS)) & mask] += 1
    for digit in range(_DIGITS):
        running = 0
        for value in range(places.shape[1]):
            running, places[digit, value] = running + places[digit, value], running
        shift = np.uint64(32 + digit * _RADIX_BITS)
        for k in range(count):
            item = items[k]
            value = (item >> shift) & mask
            others[places[digit, value]] = item
            places[digit, value] += 1
        items, others = others, items
    order = np.empty(count, np.int32)
    for k in range(count):
        order[k] = np.int32(items[k] & np.uint64(0xFFFFFFFF))
    return order


@njit(**SERIAL)
def _list_tiles(begin, end, records, tile_rects, pair_start, tiles_x, pair_tiles):
    """Write the numbers of the tiles that the Gaussians from ``begin`` up to ``end`` touch."""
    drawn, rows, places = np.empty(end - begin + 1, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    firsts, lasts, tile_ys = (np.empty(LANES, np.int32), np.empty(LANES, np.int32), np.empty(LANES, np.int32))
    drawn_count = 0
    for i in range(begin, end):
        drawn[drawn_count] = i
        drawn_count += pair_start[i + 1] > pair_start[i]
    for group in range(0, drawn_count, LANES):
        listed_rows(drawn, group, drawn_count, rows)
        for lane in range(LANES):
            places[lane] = pair_start[rows[lane]]
        ellipse = Ellipse(
            simd.gather(records, rows, RECORD_WIDTH, U), simd.gather(records, rows, RECORD_WIDTH, V),
            simd.gather(records, rows, RECORD_WIDTH, SLOPE_X), simd.gather(records, rows, RECORD_WIDTH, SLOPE_Y),
            simd.gather(records, rows, RECORD_WIDTH, FALLOFF_Y), simd.gather(records, rows, RECORD_WIDTH, CUTOFF),
            simd.gather(records, rows, RECORD_WIDTH, SKEW),
        )  # fmt: skip
        x_first, x_end, y_first, y_end = quadruple(tile_rects, rows)
        tile_y = y_first
        while simd.any_lane(tile_y < y_end):
            first, last = tile_spans(ellipse, Rect(x_first, x_end, y_first, y_end), tile_y)
            simd.store_int(firsts, 0, simd.to_int(first))
            simd.store_int(lasts, 0, simd.to_int(last))
            simd.store_int(tile_ys, 0, simd.to_int(tile_y))
            for lane in range(LANES):
                for tile_x in range(firsts[lane], lasts[lane] + 1):
                    pair_tiles[places[lane]] = tile_ys[lane] * tiles_x + tile_x
                    places[lane] += 1
            tile_y += _ONE


@njit(**INLINE)
def _prefetch_pairs(order, place, pair_start, pair_tiles):
    """In order of depth Gaussians are scattered over memory: fetch what is looked up of one ahead."""
    last = order.shape[0] - 1
    simd.prefetch(pair_start, order[min(place + 2 * _AHEAD, last)])
    simd.prefetch(pair_tiles, pair_start[order[min(place + _AHEAD, last)]])


@njit(**PARALLEL)
def fill_tiles(order, records, tile_rects, pair_start, tiles_x, blocks, tile_start, members, pairs):
    """Deal the pairs out to the tiles.

    Tile ``t`` gets the Gaussians ``members[tile_start[t] : tile_start[t + 1]]``, nearest first; the pairs of Gaussian
    ``i`` are ``pair_start[i]`` up to ``pair_start[i + 1]``. Unless it is empty, ``pairs`` gets the numbers of the
    members' pairs. ``records`` and ``tile_rects`` are flat. The work is done in ``blocks`` parts; any number gives the
    same.
    """
    numbers_pairs = pairs.shape[0] > 0
    count, visible, tile_count = pair_start.shape[0] - 1, order.shape[0], tile_start.shape[0] - 1
    pair_tiles = np.empty(pair_start[count], np.int32)
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        begin, end = chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)
        _list_tiles(begin, end, records, tile_rects, pair_start, tiles_x, pair_tiles)

    cursors = np.zeros((blocks, tile_count), np.int64)
    block_size = (visible + blocks - 1) // blocks
    if blocks == 1:
        for pair in range(pair_tiles.shape[0]):  # In whatever order: so it is that of the memory.
            cursors[0, pair_tiles[pair]] += 1
    else:
        for block in prange(blocks):
            for place in range(block * block_size, min(visible, (block + 1) * block_size)):
                _prefetch_pairs(order, place, pair_start, pair_tiles)
                for pair in range(pair_start[order[place]], pair_start[order[place] + 1]):
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
            _prefetch_pairs(order, place, pair_start, pair_tiles)
            i = order[place]
            for pair in range(pair_start[i], pair_start[i + 1]):
                tile = pair_tiles[pair]
                at = cursors[block, tile]
                cursors[block, tile] = at + 1
                members[at] = i
                if numbers_pairs:
                    pairs[at] = pair
