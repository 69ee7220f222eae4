"""Front-to-back alpha blending of the tiles, and its gradient.

A tile is cut into 32 chunks of 4 x 2 pixels, the lanes of a vector (where there is one lane only, its pixels are the
parts of a chunk; where there are sixteen, two chunks that lie below each other are a block). For each Gaussian of a
tile a 32-bit mask names the chunks its alpha >= 1/255 ellipse can reach; only those are blended. The rules are INRIA's:
alpha is capped at 0.99, skipped below 1/255, and a pixel ends before the Gaussian that would bring its transmittance
below 1e-4.

Chunk ``c`` is the one at column ``c // 8`` of four pixels and row ``c % 8`` of two; within a tile, pixels are stored
chunk by chunk, and in a chunk row by row.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import prange

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.lanes import BLOCK, CHUNK, PARTS, pixels
from gaussian_renderer.cpu.lanes import lanes as simd
from gaussian_renderer.cpu.layout import (
    ALPHA_MIN,
    BLUE,
    CUTOFF,
    FALLOFF_Y,
    GREEN,
    LOG2_OPACITY,
    M_YY,
    RECORD_WIDTH,
    RED,
    SLOPE_X,
    SLOPE_Y,
    SLOT_WIDTH,
    TILE,
    U,
    V,
)
from utils.kernels import INLINE, PARALLEL

f32 = np.float32

PIXELS = TILE * TILE
CHUNKS = PIXELS // CHUNK
ALPHA_MAX = f32(0.99)
TRANSMITTANCE_MIN = f32(1e-4)
_EXPONENT_MIN = f32(-40)  # Far below 1/255, and within reach of the exponential.
_SLACK = f32(1e-3)  # Pixels by which the ellipse is widened against rounding.
_FAR = f32(1e30)
AHEAD = 6  # Members by which the reading of records runs ahead.
_ZERO, _ONE, _TWO = f32(0), f32(1), f32(2)
CHUNKS_OF_BLOCK = BLOCK // CHUNK
_FIRST_CHUNKS = sum(1 << chunk for chunk in range(0, CHUNKS, CHUNKS_OF_BLOCK))


@njit(**INLINE)
def pixel(k):
    """Column and row, within the tile, of the ``k``-th stored pixel."""
    return (k >> 6) * 4 + (k & 3), ((k >> 3) & 7) * 2 + ((k >> 2) & 1)


@njit(**INLINE)
def stored(x, y):
    """Where the pixel of that column and row of the tile is stored."""
    return ((x >> 2) << 6) + ((y >> 1) << 3) + ((y & 1) << 2) + (x & 3)


@njit(**INLINE)
def prefetch_record(records, i):
    """The records of a tile are scattered over memory: fetch one ahead. It may lie across two cache lines."""
    simd.prefetch(records, i * RECORD_WIDTH)
    simd.prefetch(records, i * RECORD_WIDTH + RECORD_WIDTH - 1)


@njit(**INLINE)
def _row_spans(record, x0, dy):
    """Left and right ends of the ellipse alpha = 1/255, relative to ``x0``, a row a lane; crossed where it misses."""
    inverse_slope = _ONE / record[SLOPE_X]
    squared = simd.splat(record[CUTOFF]) - simd.splat(record[FALLOFF_Y]) * dy * dy
    half_width = simd.square_root(squared) * simd.splat(inverse_slope)
    half_width = simd.select(squared >= simd.splat(_ZERO), half_width, simd.splat(-_FAR))
    middle = simd.splat(record[U] - x0) + simd.splat(record[SLOPE_Y] * inverse_slope) * dy
    return middle - half_width, middle + half_width


@njit(**INLINE)
def reached_chunks(record, x0, y0):
    """Mask of the chunks of the tile at pixel (x0, y0) that the ellipse alpha = 1/255 may reach."""
    mask = 0
    for part in range(CHUNK // simd.LANES):
        # A lane is a row of chunks, which is two rows of pixels.
        upper_dy = simd.splat(record[V] - f32(y0)) - simd.lane_numbers(part) * simd.splat(_TWO)
        upper_low, upper_high = _row_spans(record, f32(x0), upper_dy)
        lower_low, lower_high = _row_spans(record, f32(x0), upper_dy - simd.splat(_ONE))
        low = simd.select(upper_low < lower_low, upper_low, lower_low)
        high = simd.select(upper_high > lower_high, upper_high, lower_high)
        for column in range(TILE // 4):
            left, right = f32(column * 4) - _SLACK, f32(column * 4 + 3) + _SLACK
            reached = (low <= simd.splat(right)) & (high >= simd.splat(left))
            mask |= simd.mask_bits(reached) << (column * 8 + part * simd.LANES)
    return mask


@njit(**INLINE)
def blocks_of(chunks):
    """Of each block that has a chunk in the mask, the first chunk."""
    return (chunks | chunks >> (CHUNKS_OF_BLOCK - 1)) & _FIRST_CHUNKS


Footprint = namedtuple("Footprint", "u v slope_x slope_y t_step falloff_y log2_opacity lane_y")
"""What the fall-off of a Gaussian over the chunks of a tile needs; the centre is relative to the tile."""


@njit(**INLINE)
def footprint(record, x0, y0, part):
    """The footprint of a Gaussian in the tile at pixel (x0, y0), for the lanes of a part of the blocks."""
    slope_x, slope_y, lane_y = record[SLOPE_X], record[SLOPE_Y], pixels.lane_rows(part)
    return Footprint(
        record[U] - f32(x0),
        record[V] - f32(y0),
        slope_x,
        slope_y,
        pixels.splat(slope_x) * pixels.lane_columns(part) + pixels.splat(slope_y) * lane_y,
        pixels.splat(record[FALLOFF_Y]),
        pixels.splat(record[LOG2_OPACITY]),
        lane_y,
    )


@njit(**INLINE)
def falloff(shape, chunk):
    """``t``, ``dy`` and the alpha, not yet capped, of a Gaussian on the lanes of the block of a chunk."""
    first_dx, first_dy = shape.u - f32((chunk >> 3) * 4), shape.v - f32((chunk & 7) * 2)
    dy = pixels.splat(first_dy) - shape.lane_y
    t = pixels.splat(shape.slope_x * first_dx + shape.slope_y * first_dy) - shape.t_step
    exponent = pixels.subtract_product(shape.log2_opacity, shape.falloff_y * dy, dy)
    exponent = pixels.subtract_product(exponent, t, t)
    exponent_min = pixels.splat(_EXPONENT_MIN)
    return t, dy, pixels.exp2(pixels.select(exponent > exponent_min, exponent, exponent_min))


@njit(**INLINE)
def _has_open_pixel(through, chunk):
    is_open = False
    for part in range(PARTS):
        is_open |= pixels.any_lane(pixels.load(through, chunk * CHUNK + part * pixels.LANES) > pixels.splat(_ZERO))
    return is_open


@njit(**INLINE)
def dealt(job, count, threads):
    """The tile of a job, so that threads that take equal shares of consecutive jobs get every ``threads``-th tile each.

    The middle of an image takes longer than its edges, and neighbours share what they read.
    """
    share, larger_shares = count // threads, count % threads
    boundary = larger_shares * (share + 1)
    if job < boundary:
        return job % (share + 1) * threads + job // (share + 1)
    return (job - boundary) % share * threads + larger_shares + (job - boundary) // share


@njit(**PARALLEL)
def blend(
    tile_start, members, records, tiles_x, width, height, background, threads, image, transmittance, pixel_ends,
    reached_masks,
):  # fmt: skip
    """Blend every tile; the same on any number of ``threads``.

    Writes ``image`` (height, width, 3) and, unless these are empty, what a walk back needs: tile by tile and in stored
    order, the final ``transmittance`` (tiles, 256) and ``pixel_ends`` (tiles, 256), the position in the tile's list of
    the Gaussian before which a pixel ended, or the list's length where it never did; and up to the last end in its tile
    ``reached_masks``, what :func:`reached_chunks` says of each member.
    """
    keeps_ends, tile_count = transmittance.shape[0] > 0, tile_start.shape[0] - 1
    for job in prange(tile_count):
        tile = dealt(job, tile_count, threads)
        # A pixel that has ended holds its transmittance with the sign changed, which no comparison below lets pass.
        through = np.empty(PIXELS, np.float32)
        red, green, blue = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        zero, one = pixels.splat(_ZERO), pixels.splat(_ONE)
        alpha_min, alpha_max = pixels.splat(ALPHA_MIN), pixels.splat(ALPHA_MAX)
        transmittance_min = pixels.splat(TRANSMITTANCE_MIN)
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        begin, end = tile_start[tile], tile_start[tile + 1]
        columns, rows = min(TILE, width - x0), min(TILE, height - y0)
        ends = np.zeros(PIXELS, np.int32)
        open_chunks = 0
        through[:] = -_ONE
        for y in range(rows):
            for x in range(columns):
                k = stored(x, y)
                through[k] = _ONE
                ends[k] = end - begin
        for chunk in range(CHUNKS):
            open_chunks |= (through[chunk * CHUNK] > _ZERO) << chunk  # A chunk that is open has its first pixel inside.

        for k in range(begin, end):
            prefetch_record(records, members[min(k + AHEAD, end - 1)])
            record = records[members[k]]
            r, g, b = pixels.splat(record[RED]), pixels.splat(record[GREEN]), pixels.splat(record[BLUE])
            reached = reached_chunks(record, x0, y0)
            if keeps_ends:
                reached_masks[k] = reached
            for part in range(PARTS):
                shape = footprint(record, x0, y0, part)
                todo = blocks_of(reached & open_chunks)
                while todo != 0:
                    chunk = simd.trailing_zeros(todo)
                    todo &= todo - 1
                    at = chunk * CHUNK + part * pixels.LANES
                    _, _, alpha = falloff(shape, chunk)
                    alpha = pixels.select(alpha < alpha_max, alpha, alpha_max)
                    before = pixels.load(through, at)
                    after = before * (one - alpha)
                    touches = (alpha >= alpha_min) & (before > zero)
                    contributes = touches & (after >= transmittance_min)
                    weight = pixels.select(contributes, alpha * before, zero)
                    pixels.store(red, at, pixels.multiply_add(weight, r, pixels.load(red, at)))
                    pixels.store(green, at, pixels.multiply_add(weight, g, pixels.load(green, at)))
                    pixels.store(blue, at, pixels.multiply_add(weight, b, pixels.load(blue, at)))
                    after = pixels.select(contributes, after, before)
                    ending = pixels.and_not(touches, contributes)
                    some_end = pixels.any_lane(ending)
                    if some_end:
                        after = pixels.select(ending, zero - before, after)
                        position = pixels.splat_int(np.int32(k - begin))
                        pixels.store_int(ends, at, pixels.select(ending, position, pixels.load_int(ends, at)))
                    pixels.store(through, at, after)
                    if some_end and not _has_open_pixel(through, chunk):
                        open_chunks &= ~(((1 << CHUNKS_OF_BLOCK) - 1) << chunk)
            if open_chunks == 0:
                break

        for k in range(PIXELS):
            through[k] = abs(through[k])
            red[k] += through[k] * background[0]
            green[k] += through[k] * background[1]
            blue[k] += through[k] * background[2]
        for y in range(rows):
            for x in range(columns):
                k = stored(x, y)
                image[y0 + y, x0 + x, 0], image[y0 + y, x0 + x, 1], image[y0 + y, x0 + x, 2] = red[k], green[k], blue[k]
        if keeps_ends:
            transmittance[tile] = through
            pixel_ends[tile] = ends


@njit(**PARALLEL)
def blend_backward(
    tile_start, members, pairs, records, tiles_x, width, height, background, threads, d_image, transmittance,
    pixel_ends, reached_masks, slots,
):  # fmt: skip
    """Fill the gradient slots of all (Gaussian, tile) pairs; see :mod:`gaussian_renderer.cpu.layout` for their columns.

    Walks each tile back to front. One running scalar a pixel, the colour behind dotted with dL/dimage, stands for the
    three channels. Every slot of the flat array ``slots`` is written; ``members[k]`` has that of number ``pairs[k]``.
    """
    tile_count = tile_start.shape[0] - 1
    for job in prange(tile_count):
        tile = dealt(job, tile_count, threads)
        current, behind = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
        d_red, d_green = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        d_blue = np.zeros(PIXELS, np.float32)
        chunk_ends = np.zeros(CHUNKS, np.int32)
        zero, one = pixels.splat(_ZERO), pixels.splat(_ONE)
        alpha_min, alpha_max = pixels.splat(ALPHA_MIN), pixels.splat(ALPHA_MAX)
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        ends = pixel_ends[tile]
        for y in range(min(TILE, height - y0)):
            for x in range(min(TILE, width - x0)):
                k = stored(x, y)
                d_red[k], d_green[k] = d_image[y0 + y, x0 + x, 0], d_image[y0 + y, x0 + x, 1]
                d_blue[k] = d_image[y0 + y, x0 + x, 2]
        for k in range(PIXELS):
            current[k] = transmittance[tile, k]
            behind[k] = current[k] * (d_red[k] * background[0] + d_green[k] * background[1] + d_blue[k] * background[2])
            chunk_ends[k >> 3] = max(chunk_ends[k >> 3], ends[k])

        begin = tile_start[tile]
        latest = np.int32(0)
        for chunk in range(CHUNKS):
            latest = max(latest, chunk_ends[chunk])
        for k in range(begin + latest, tile_start[tile + 1]):
            for j in range(SLOT_WIDTH):
                slots[np.int64(pairs[k]) * SLOT_WIDTH + j] = _ZERO

        live_chunks, next_change = 0, latest
        for position in range(latest - 1, -1, -1):
            if position < next_change:
                # Chunks come to life on the way to the front, each where its last pixel ended.
                live_chunks, next_change = 0, 0
                for chunk in range(CHUNKS):
                    if chunk_ends[chunk] > position:
                        live_chunks |= 1 << chunk
                    else:
                        next_change = max(next_change, np.int64(chunk_ends[chunk]))
            prefetch_record(records, members[begin + max(position - AHEAD, 0)])
            record = records[members[begin + position]]
            r, g, b = pixels.splat(record[RED]), pixels.splat(record[GREEN]), pixels.splat(record[BLUE])
            position_lanes = pixels.splat_int(np.int32(position))
            sum_r, sum_g, sum_b = zero, zero, zero
            m_0, m_t, m_y, m_tt, m_ty, m_yy = zero, zero, zero, zero, zero, zero
            reached = blocks_of(np.int64(reached_masks[begin + position]) & live_chunks)
            for part in range(PARTS):
                shape = footprint(record, x0, y0, part)
                todo = reached
                while todo != 0:
                    chunk = simd.trailing_zeros(todo)
                    todo &= todo - 1
                    at = chunk * CHUNK + part * pixels.LANES
                    t, dy, uncapped = falloff(shape, chunk)
                    capped = pixels.select(uncapped < alpha_max, uncapped, alpha_max)
                    touches = (capped >= alpha_min) & pixels.less_int(position_lanes, pixels.load_int(ends, at))
                    alpha = pixels.select(touches, capped, zero)
                    inverse_rest = one / (one - alpha)
                    before = pixels.load(current, at) * inverse_rest
                    pixels.store(current, at, before)
                    weight = alpha * before
                    pixel_r, pixel_g, pixel_b = (
                        pixels.load(d_red, at),
                        pixels.load(d_green, at),
                        pixels.load(d_blue, at),
                    )
                    colour = pixels.multiply_add(b, pixel_b, pixels.multiply_add(g, pixel_g, r * pixel_r))
                    colour_behind = pixels.load(behind, at)
                    d_alpha = pixels.subtract_product(before * colour, colour_behind, inverse_rest)
                    pixels.store(behind, at, pixels.multiply_add(weight, colour, colour_behind))
                    sum_r = pixels.multiply_add(weight, pixel_r, sum_r)
                    sum_g = pixels.multiply_add(weight, pixel_g, sum_g)
                    sum_b = pixels.multiply_add(weight, pixel_b, sum_b)
                    # INRIA passes the gradient through the cap as well: it multiplies by the uncapped alpha.
                    s = pixels.select(touches, uncapped, zero) * d_alpha
                    s_t, s_y = s * t, s * dy
                    m_0, m_t, m_y = m_0 + s, m_t + s_t, m_y + s_y
                    m_tt, m_ty = pixels.multiply_add(s_t, t, m_tt), pixels.multiply_add(s_t, dy, m_ty)
                    m_yy = pixels.multiply_add(s_y, dy, m_yy)
            slot = np.int64(pairs[begin + position]) * SLOT_WIDTH
            # In the order of the columns of a slot.
            pixels.store_sums(slots, slot, sum_r, sum_g, sum_b, m_0, m_t, m_y, m_tt, m_ty)
            slots[slot + M_YY] = pixels.horizontal_sum(m_yy)
