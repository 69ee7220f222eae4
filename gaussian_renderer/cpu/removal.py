"""What each Gaussian is worth to an image: exact changes of the pixels without it, from one walk back to front.

With ``w = alpha T`` the weight of a Gaussian in a pixel, ``c`` its colour and ``b`` the colour that an eye just behind
it would see, the pixel without it differs by

    change = w (b - c),        b in front of it = alpha c + (1 - alpha) b,        b behind everything = the background.

Nothing is linearised: alpha is the capped one, and 0 where blending skips it. One thing is left out: a pixel that has
ended, because the next Gaussian would have brought its transmittance below 1e-4, might go on if a Gaussian before its
end were gone. Here it ends where it ended, with the background behind.

The same walk measures what a Gaussian would gain from a color that changes along its longest axis, ``c + t u`` for
``u`` the position along it in standard deviations: with ``r`` the residual against a target, the sums of ``w u r`` and
of ``(w u)²``.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from gaussian_renderer.cpu.blending import (
    AHEAD,
    ALPHA_MAX,
    CHUNKS,
    CHUNKS_OF_BLOCK,
    PIXELS,
    blocks_of,
    dealt,
    falloff,
    footprint,
    pixel,
    prefetch_record,
)
from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.lanes import CHUNK, PARTS, pixels
from gaussian_renderer.cpu.lanes import lanes as simd
from gaussian_renderer.cpu.layout import ALPHA_MIN, BLUE, GREEN, RED, SLOPE_X, SLOPE_Y, TILE
from utils.kernels import PARALLEL

f32 = np.float32

# Columns of the sums over pixels: of the weights, of their squares, of |change|**2, of the change of the squared error
# against a target; and with l = weight * along, of l times the residual there, by channel, and of l**2.
WEIGHT, SQUARED_WEIGHT, CHANGE, LOSS, TILT_RED, TILT_GREEN, TILT_BLUE, SQUARED_LEVER = range(8)
SUMS = 8

_CHUNK = 256
_ZERO, _ONE, _TWO = f32(0), f32(1), f32(2)


@njit(**PARALLEL)
def measure_removals(
    tile_start, members, pairs, records, tiles_x, width, height, background, threads, has_target, residual,
    slopes, transmittance, pixel_ends, reached_masks, sums,
):  # fmt: skip
    """Fill ``sums`` (pairs, 8), the sums over the pixels of a tile, of all (Gaussian, tile) pairs.

    ``residual`` (height, width, 3) is the image less the target. The change of a squared error of ``residual`` is
    ``change (change + 2 residual)``. ``slopes`` (N, 2) are those of :class:`gaussian_renderer.screen_axes.ScreenAxes`.
    Without a target neither is read. ``transmittance``, ``pixel_ends`` and ``reached_masks`` are those of
    :func:`gaussian_renderer.cpu.blending.blend`.
    """
    tile_count = tile_start.shape[0] - 1
    for job in prange(tile_count):
        tile = dealt(job, tile_count, threads)
        current = np.empty(PIXELS, np.float32)
        behind_r, behind_g, behind_b = np.empty((3, PIXELS), np.float32)
        residual_r, residual_g, residual_b = np.zeros((3, PIXELS), np.float32)
        chunk_ends = np.zeros(CHUNKS, np.int32)
        zero, one, two = pixels.splat(_ZERO), pixels.splat(_ONE), pixels.splat(_TWO)
        alpha_min, alpha_max = pixels.splat(ALPHA_MIN), pixels.splat(ALPHA_MAX)
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        ends = pixel_ends[tile]
        begin, end = tile_start[tile], tile_start[tile + 1]
        for k in range(PIXELS):
            x, y = pixel(k)
            x += x0
            y += y0
            current[k] = transmittance[tile, k]
            behind_r[k], behind_g[k], behind_b[k] = background[0], background[1], background[2]
            if has_target and x < width and y < height:
                residual_r[k] = residual[y, x, 0]
                residual_g[k] = residual[y, x, 1]
                residual_b[k] = residual[y, x, 2]
            chunk_ends[k >> 3] = max(chunk_ends[k >> 3], ends[k])

        latest = np.int32(0)
        for chunk in range(CHUNKS):
            latest = max(latest, chunk_ends[chunk])
        for k in range(begin + latest, end):
            for j in range(SUMS):
                sums[pairs[k], j] = _ZERO
        for position in range(latest - 1, -1, -1):
            prefetch_record(records, members[begin + max(position - AHEAD, 0)])
            member = members[begin + position]
            record = records[member]
            along_t, along_y = zero, zero
            if has_target:
                # slope · (pixel - center), by the record's t = SLOPE_X dx + SLOPE_Y dy.
                slope_t = slopes[member, 0] / record[SLOPE_X]
                along_t, along_y = pixels.splat(-slope_t), pixels.splat(slope_t * record[SLOPE_Y] - slopes[member, 1])
            r, g, b = pixels.splat(record[RED]), pixels.splat(record[GREEN]), pixels.splat(record[BLUE])
            position_lanes = pixels.splat_int(np.int32(position))
            sum_weight, sum_squared, sum_change, sum_loss = zero, zero, zero, zero
            tilt_r, tilt_g, tilt_b, sum_lever = zero, zero, zero, zero
            reached = blocks_of(np.int64(reached_masks[begin + position]))
            for part in range(PARTS):
                shape = footprint(record, x0, y0, part)
                todo = reached
                while todo != 0:
                    chunk = simd.trailing_zeros(todo)
                    todo &= todo - 1
                    if max(chunk_ends[chunk], chunk_ends[chunk + CHUNKS_OF_BLOCK - 1]) <= position:
                        continue
                    at = chunk * CHUNK + part * pixels.LANES
                    t, dy, alpha = falloff(shape, chunk)
                    alpha = pixels.select(alpha < alpha_max, alpha, alpha_max)
                    touches = (alpha >= alpha_min) & pixels.less_int(position_lanes, pixels.load_int(ends, at))
                    alpha = pixels.select(touches, alpha, zero)
                    inverse_rest = one / (one - alpha)
                    before = pixels.load(current, at) * inverse_rest
                    pixels.store(current, at, before)
                    weight = alpha * before
                    behind = pixels.load(behind_r, at), pixels.load(behind_g, at), pixels.load(behind_b, at)
                    step_r, step_g, step_b = r - behind[0], g - behind[1], b - behind[2]
                    pixels.store(behind_r, at, behind[0] + alpha * step_r)
                    pixels.store(behind_g, at, behind[1] + alpha * step_g)
                    pixels.store(behind_b, at, behind[2] + alpha * step_b)
                    # The change is - weight * step.
                    squared_weight = weight * weight
                    change = squared_weight * (step_r * step_r + step_g * step_g + step_b * step_b)
                    loss = zero
                    if has_target:
                        error_r, error_g = pixels.load(residual_r, at), pixels.load(residual_g, at)
                        error_b = pixels.load(residual_b, at)
                        loss = two * weight * (step_r * error_r + step_g * error_g + step_b * error_b)
                        lever = weight * (along_t * t + along_y * dy)
                        tilt_r, tilt_g = tilt_r + lever * error_r, tilt_g + lever * error_g
                        tilt_b, sum_lever = tilt_b + lever * error_b, sum_lever + lever * lever
                    sum_weight, sum_squared = sum_weight + weight, sum_squared + squared_weight
                    sum_change, sum_loss = sum_change + change, sum_loss + loss
            pair = pairs[begin + position]
            sums[pair, WEIGHT] = pixels.horizontal_sum(sum_weight)
            sums[pair, SQUARED_WEIGHT] = pixels.horizontal_sum(sum_squared)
            sums[pair, CHANGE] = pixels.horizontal_sum(sum_change)
            sums[pair, LOSS] = sums[pair, CHANGE] - pixels.horizontal_sum(sum_loss)
            sums[pair, TILT_RED] = pixels.horizontal_sum(tilt_r)
            sums[pair, TILT_GREEN] = pixels.horizontal_sum(tilt_g)
            sums[pair, TILT_BLUE] = pixels.horizontal_sum(tilt_b)
            sums[pair, SQUARED_LEVER] = pixels.horizontal_sum(sum_lever)


@njit(**PARALLEL)
def add_up(pair_start, sums, totals):
    """Sum the rows of each Gaussian's pairs, in their order, into its row of ``totals`` (N, 8)."""
    count = totals.shape[0]
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            for j in range(SUMS):
                totals[i, j] = _ZERO
            for pair in range(pair_start[i], pair_start[i + 1]):
                for j in range(SUMS):
                    totals[i, j] += sums[pair, j]
