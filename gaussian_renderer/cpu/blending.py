"""Front-to-back alpha blending of the tiles, and its gradient.

A tile is 16 rows of two 8-pixel chunks. For each Gaussian of a tile a 32-bit mask names the chunks its alpha >= 1/255
ellipse can reach; only those are blended. The rules are INRIA's: alpha is capped at 0.99, skipped below 1/255, and a
pixel ends before the Gaussian that would bring its transmittance below 1e-4.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from gaussian_renderer.cpu import simd
from gaussian_renderer.cpu.projection import (
    ALPHA_MIN,
    BLUE,
    CUTOFF,
    D_BLUE,
    D_GREEN,
    D_RED,
    FALLOFF_Y,
    GREEN,
    LOG2_OPACITY,
    M_0,
    M_T,
    M_TT,
    M_TY,
    M_Y,
    M_YY,
    RED,
    SLOPE_X,
    SLOPE_Y,
    SLOT_WIDTH,
    TILE,
    U,
    V,
)
from utils.compilation import INLINE, PARALLEL

f32 = np.float32

PIXELS = TILE * TILE
_ALPHA_MAX = f32(0.99)
_TRANSMITTANCE_MIN = f32(1e-4)
_EXPONENT_MIN = f32(-40)  # Far below 1/255, and within reach of the exponential.
_SLACK = f32(1e-3)  # Pixels by which the ellipse is widened against rounding.
_CHUNK_BITS = 16  # Bit 16 * chunk + row of a mask.
_ZERO, _ONE = f32(0), f32(1)


@njit(**INLINE)
def _reached_chunks(record, x0, y0):
    """Mask of the chunks of the tile at pixel (x0, y0) that the ellipse alpha = 1/255 may reach."""
    mask = 0
    inverse_slope = _ONE / record[SLOPE_X]
    zero = simd.splat(_ZERO)
    for half in range(2):
        dy = simd.splat(record[V] - f32(y0 + half * 8)) - simd.lane_numbers()
        squared = simd.splat(record[CUTOFF]) - simd.splat(record[FALLOFF_Y]) * dy * dy
        reached = squared >= zero
        half_width = simd.square_root(simd.select(reached, squared, zero)) * simd.splat(inverse_slope)
        middle = simd.splat(record[U] - f32(x0)) + simd.splat(record[SLOPE_Y] * inverse_slope) * dy
        low, high = middle - half_width, middle + half_width
        left = reached & (low <= simd.splat(f32(7) + _SLACK)) & (high >= simd.splat(-_SLACK))
        right = reached & (low <= simd.splat(f32(15) + _SLACK)) & (high >= simd.splat(f32(8) - _SLACK))
        mask |= simd.mask_bits(left) << (half * 8)
        mask |= simd.mask_bits(right) << (_CHUNK_BITS + half * 8)
    return mask


@njit(**PARALLEL)
def blend(
    tile_start, members, records, tiles_x, width, height, background, image, transmittance, last_member, tile_last
):
    """Blend every tile.

    Writes ``image`` (height, width, 3) and what the gradient needs, tile by tile: the final ``transmittance``
    (tiles, 256), the position in the tile's list of the last Gaussian that contributed to each pixel (``last_member``,
    -1 for none) and its maximum over the tile (``tile_last``).
    """
    for tile in prange(tile_start.shape[0] - 1):
        # A pixel that has ended holds 0 in `open_transmittance` and its final value in `ended_transmittance`.
        open_transmittance = np.empty(PIXELS, np.float32)
        ended_transmittance = np.ones(PIXELS, np.float32)
        red, green, blue = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        last = np.full(PIXELS, -1, np.int32)
        zero, one = simd.splat(_ZERO), simd.splat(_ONE)
        alpha_min, alpha_max = simd.splat(ALPHA_MIN), simd.splat(_ALPHA_MAX)
        transmittance_min, exponent_min = simd.splat(_TRANSMITTANCE_MIN), simd.splat(_EXPONENT_MIN)
        lanes = simd.lane_numbers()
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        for k in range(PIXELS):
            open_transmittance[k] = _ONE if (x0 + k % TILE < width and y0 + k // TILE < height) else _ZERO

        begin, end = tile_start[tile], tile_start[tile + 1]
        for k in range(begin, end):
            if (k - begin) % 32 == 31:
                remaining = zero
                for j in range(PIXELS // 8):
                    remaining = remaining + simd.load(open_transmittance, j * 8)
                if simd.horizontal_sum(remaining) <= _ZERO:
                    break
            record = records[members[k]]
            u, v, slope_x, slope_y = record[U], record[V], record[SLOPE_X], record[SLOPE_Y]
            falloff_y, log2_opacity = record[FALLOFF_Y], record[LOG2_OPACITY]
            t_step = simd.splat(slope_x) * lanes
            r, g, b = simd.splat(record[RED]), simd.splat(record[GREEN]), simd.splat(record[BLUE])
            position = simd.splat_int(np.int32(k - begin))
            todo = _reached_chunks(record, x0, y0)
            while todo != 0:
                bit = simd.trailing_zeros(todo)
                todo &= todo - 1
                row, column = bit & 15, (bit >> 4) * 8
                at = row * TILE + column
                dy = v - f32(y0 + row)
                t = simd.splat(slope_x * (u - f32(x0 + column)) + slope_y * dy) - t_step
                exponent = simd.splat(log2_opacity - falloff_y * dy * dy) - t * t
                alpha = simd.exp2_nonpositive(simd.select(exponent > exponent_min, exponent, exponent_min))
                alpha = simd.select(alpha < alpha_max, alpha, alpha_max)
                before = simd.load(open_transmittance, at)
                after = before * (one - alpha)
                touches = (alpha >= alpha_min) & (before > zero)
                contributes = touches & (after >= transmittance_min)
                ends = simd.and_not(touches, contributes)
                weight = simd.select(contributes, alpha * before, zero)
                simd.store(red, at, simd.load(red, at) + weight * r)
                simd.store(green, at, simd.load(green, at) + weight * g)
                simd.store(blue, at, simd.load(blue, at) + weight * b)
                simd.store_int(last, at, simd.select(contributes, position, simd.load_int(last, at)))
                remaining = simd.select(contributes, after, before)
                if simd.any_lane(ends):
                    simd.store(ended_transmittance, at, simd.select(ends, before, simd.load(ended_transmittance, at)))
                    remaining = simd.select(ends, zero, remaining)
                simd.store(open_transmittance, at, remaining)

        latest = np.int32(-1)
        for k in range(PIXELS):
            final = open_transmittance[k] if open_transmittance[k] > _ZERO else ended_transmittance[k]
            transmittance[tile, k] = final
            last_member[tile, k] = last[k]
            latest = max(latest, last[k])
            x, y = x0 + k % TILE, y0 + k // TILE
            if x < width and y < height:
                image[y, x, 0] = red[k] + final * background[0]
                image[y, x, 1] = green[k] + final * background[1]
                image[y, x, 2] = blue[k] + final * background[2]
        tile_last[tile] = latest


@njit(**PARALLEL)
def blend_backward(
    tile_start, members, member_slots, records, tiles_x, width, height, background,
    d_image, transmittance, last_member, tile_last, slots,
):  # fmt: skip
    """Fill the gradient slots of all (Gaussian, tile) pairs; see :mod:`gaussian_renderer.cpu.projection` for columns.

    Walks each tile back to front. One running scalar a pixel, the colour behind dotted with dL/dimage, stands for the
    three channels. Every slot is written.
    """
    for tile in prange(tile_start.shape[0] - 1):
        current = np.empty(PIXELS, np.float32)
        behind = np.empty(PIXELS, np.float32)
        d_red, d_green, d_blue = (
            np.zeros(PIXELS, np.float32),
            np.zeros(PIXELS, np.float32),
            np.zeros(PIXELS, np.float32),
        )
        last = np.empty(PIXELS, np.int32)
        zero, one = simd.splat(_ZERO), simd.splat(_ONE)
        alpha_min, alpha_max = simd.splat(ALPHA_MIN), simd.splat(_ALPHA_MAX)
        exponent_min = simd.splat(_EXPONENT_MIN)
        lanes = simd.lane_numbers()
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        for k in range(PIXELS):
            x, y = x0 + k % TILE, y0 + k // TILE
            current[k] = transmittance[tile, k]
            last[k] = last_member[tile, k]
            if x < width and y < height:
                d_red[k], d_green[k], d_blue[k] = d_image[y, x, 0], d_image[y, x, 1], d_image[y, x, 2]
            behind[k] = current[k] * (d_red[k] * background[0] + d_green[k] * background[1] + d_blue[k] * background[2])

        begin, end = tile_start[tile], tile_start[tile + 1]
        latest = begin + tile_last[tile]
        for k in range(latest + 1, end):
            for j in range(SLOT_WIDTH):
                slots[member_slots[k], j] = _ZERO
        for k in range(latest, begin - 1, -1):
            record = records[members[k]]
            u, v, slope_x, slope_y = record[U], record[V], record[SLOPE_X], record[SLOPE_Y]
            falloff_y, log2_opacity = record[FALLOFF_Y], record[LOG2_OPACITY]
            t_step = simd.splat(slope_x) * lanes
            r, g, b = simd.splat(record[RED]), simd.splat(record[GREEN]), simd.splat(record[BLUE])
            position = simd.splat_int(np.int32(k - begin))
            sum_r, sum_g, sum_b = zero, zero, zero
            m_0, m_t, m_y, m_tt, m_ty, m_yy = zero, zero, zero, zero, zero, zero
            todo = _reached_chunks(record, x0, y0)
            while todo != 0:
                bit = simd.trailing_zeros(todo)
                todo &= todo - 1
                row, column = bit & 15, (bit >> 4) * 8
                at = row * TILE + column
                live = simd.less_equal_int(position, simd.load_int(last, at))
                if not simd.any_lane(live):
                    continue
                dy = v - f32(y0 + row)
                dy_lanes = simd.splat(dy)
                t = simd.splat(slope_x * (u - f32(x0 + column)) + slope_y * dy) - t_step
                exponent = simd.splat(log2_opacity - falloff_y * dy * dy) - t * t
                uncapped = simd.exp2_nonpositive(simd.select(exponent > exponent_min, exponent, exponent_min))
                capped = simd.select(uncapped < alpha_max, uncapped, alpha_max)
                touches = (capped >= alpha_min) & live
                alpha = simd.select(touches, capped, zero)
                inverse_rest = one / (one - alpha)
                before = simd.load(current, at) * inverse_rest
                simd.store(current, at, before)
                weight = alpha * before
                pixel_r, pixel_g, pixel_b = simd.load(d_red, at), simd.load(d_green, at), simd.load(d_blue, at)
                colour = r * pixel_r + g * pixel_g + b * pixel_b
                colour_behind = simd.load(behind, at)
                d_alpha = before * colour - colour_behind * inverse_rest
                simd.store(behind, at, colour_behind + weight * colour)
                sum_r, sum_g, sum_b = sum_r + weight * pixel_r, sum_g + weight * pixel_g, sum_b + weight * pixel_b
                # INRIA passes the gradient through the cap as well: it multiplies by the uncapped alpha.
                s = simd.select(touches, uncapped, zero) * d_alpha
                s_t, s_y = s * t, s * dy_lanes
                m_0, m_t, m_y = m_0 + s, m_t + s_t, m_y + s_y
                m_tt, m_ty, m_yy = m_tt + s_t * t, m_ty + s_t * dy_lanes, m_yy + s_y * dy_lanes
            slot = slots[member_slots[k]]
            slot[D_RED] = simd.horizontal_sum(sum_r)
            slot[D_GREEN] = simd.horizontal_sum(sum_g)
            slot[D_BLUE] = simd.horizontal_sum(sum_b)
            slot[M_0] = simd.horizontal_sum(m_0)
            slot[M_T] = simd.horizontal_sum(m_t)
            slot[M_Y] = simd.horizontal_sum(m_y)
            slot[M_TT] = simd.horizontal_sum(m_tt)
            slot[M_TY] = simd.horizontal_sum(m_ty)
            slot[M_YY] = simd.horizontal_sum(m_yy)
