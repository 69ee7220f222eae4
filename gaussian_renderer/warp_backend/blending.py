"""Front-to-back alpha blending, its gradient, and what each Gaussian is worth, 8 x 4 pixels at a time.

A block of 32 lanes (one warp on CUDA) has a lane for each pixel. For every batch of 32 Gaussians of its tile each lane
fetches one into shared memory and tests whether its ellipse alpha = 1/255 can reach any of the block's pixels; the
lanes then walk together through those that do. The rules are INRIA's: alpha is capped at 0.99, skipped below 1/255, and
a pixel ends before the Gaussian that would bring its transmittance below 1e-4.
"""

from __future__ import annotations

import warp as wp

from gaussian_renderer.warp_backend.projection import Sums
from gaussian_renderer.warp_backend.splats import ALPHA_MIN, ScreenSplat, falloff, span, whitened
from gaussian_renderer.warp_backend.view import TILE, View

wp.set_module_options(
    {"enable_backward": False, "block_dim": 32}
)  # 32 is LANES, in which all kernels here are launched.

LANES = 32
BLOCKS = 8
"""Blocks of a tile: two columns, four rows."""

WIDTH = wp.constant(8)
HEIGHT = wp.constant(4)
_ALPHA_MAX = wp.constant(0.99)
_TRANSMITTANCE_MIN = wp.constant(1e-4)
_NONE = wp.constant(wp.uint32(0))
_ONE = wp.constant(wp.uint32(1))


@wp.func
def corner_of(block: int, view: View):
    """The first pixel of a block."""
    tile = block / BLOCKS
    part = block % BLOCKS
    x = (tile % view.tiles[0]) * TILE + (part % 2) * WIDTH
    y = (tile / view.tiles[0]) * TILE + (part / 2) * HEIGHT
    return wp.vec2i(x, y)


@wp.func
def fetched(splats: wp.array[ScreenSplat], i: int):
    """A Gaussian with its color clamped at 0."""
    splat = splats[i]
    splat.color = wp.max(splat.color, wp.vec3())
    return splat


@wp.func
def reach_bit(splat: ScreenSplat, corner: wp.vec2i, lane: int):
    """The lane's bit if the Gaussian can reach a pixel of the block, else 0."""
    ends = span(splat, corner[1], corner[1] + HEIGHT - 1)
    if ends[0] > float(corner[0] + WIDTH - 1) or ends[1] < float(corner[0]) or ends[0] > ends[1]:
        return _NONE
    return _ONE << wp.uint32(lane)


@wp.func
def lowest_bit(mask: wp.uint32):
    """The number of the lowest bit that is set: the exponent of the float that has this bit alone."""
    return (wp.cast(float(mask & (~mask + _ONE)), wp.int32) >> 23) - 127


@wp.kernel
def blend(
    tile_start: wp.array[wp.int32],
    members: wp.array[wp.int32],
    splats: wp.array[ScreenSplat],
    background: wp.array[wp.float32],
    view: View,
    image: wp.array2d[wp.vec3],
    transmittance: wp.array2d[wp.float32],
    ends: wp.array2d[wp.int32],
):
    """Blend every pixel.

    Writes the image and what a walk back needs: the final transmittance, and one more than the place, in the tile's
    list, of the last Gaussian that the pixel took.
    """
    block, lane = wp.tid()
    corner = corner_of(block, view)
    x = corner[0] + lane % WIDTH
    y = corner[1] + lane / WIDTH
    begin = tile_start[block / BLOCKS]
    count = tile_start[block / BLOCKS + 1] - begin
    is_inside = x < view.size[0] and y < view.size[1]
    is_open = wp.int32(is_inside)
    through = wp.float32(1.0)
    color = wp.vec3()
    end = wp.int32(0)
    for batch in range((count + LANES - 1) / LANES):
        if wp.tile_extract(wp.tile_max(wp.tile(is_open)), 0) == 0:
            break
        place = batch * LANES + lane
        splat = fetched(splats, members[begin + wp.min(place, count - 1)])
        bit = wp.where(place < count, reach_bit(splat, corner, lane), _NONE)
        batch_splats = wp.tile(splat)
        todo = wp.tile_extract(wp.tile_reduce(wp.bit_or, wp.tile(bit)), 0)
        while todo != _NONE:
            k = lowest_bit(todo)
            todo &= todo - _ONE
            if is_open != 0:
                current = wp.tile_extract(batch_splats, k)
                alpha = wp.min(falloff(current, whitened(current, x, y)), _ALPHA_MAX)
                if alpha >= ALPHA_MIN:
                    after = through * (1.0 - alpha)
                    if after < _TRANSMITTANCE_MIN:
                        is_open = 0
                    else:
                        color += alpha * through * current.color
                        through = after
                        end = batch * LANES + k + 1
    if is_inside:
        image[y, x] = color + through * wp.vec3(background[0], background[1], background[2])
        transmittance[y, x] = through
        ends[y, x] = end


@wp.kernel
def blend_backward(
    tile_start: wp.array[wp.int32],
    members: wp.array[wp.int32],
    splats: wp.array[ScreenSplat],
    background: wp.array[wp.float32],
    view: View,
    transmittance: wp.array2d[wp.float32],
    ends: wp.array2d[wp.int32],
    d_image: wp.array2d[wp.vec3],
    sums: wp.array[Sums],
):
    """Add what every pixel says about each Gaussian to its ``sums``, from dL/dimage. Walks back to front.

    Of the color behind a Gaussian only the product with dL/dimage is needed: one number a pixel.
    """
    block, lane = wp.tid()
    corner = corner_of(block, view)
    x = corner[0] + lane % WIDTH
    y = corner[1] + lane / WIDTH
    begin = tile_start[block / BLOCKS]
    end = wp.int32(0)
    through = wp.float32(1.0)
    d_pixel = wp.vec3()
    if x < view.size[0] and y < view.size[1]:
        end = ends[y, x]
        through = transmittance[y, x]
        d_pixel = d_image[y, x]
    behind = wp.dot(wp.vec3(background[0], background[1], background[2]), d_pixel)
    latest = wp.tile_extract(wp.tile_max(wp.tile(end)), 0)
    for batch in range((latest + LANES - 1) / LANES):
        last = latest - 1 - batch * LANES
        place = last - lane
        member = members[begin + wp.max(place, 0)]
        splat = fetched(splats, member)
        bit = wp.where(place >= 0, reach_bit(splat, corner, lane), _NONE)
        batch_splats = wp.tile(splat)
        batch_members = wp.tile(member)
        todo = wp.tile_extract(wp.tile_reduce(wp.bit_or, wp.tile(bit)), 0)
        while todo != _NONE:
            k = lowest_bit(todo)
            todo &= todo - _ONE
            part = Sums()
            if last - k < end:
                current = wp.tile_extract(batch_splats, k)
                z = whitened(current, x, y)
                uncapped = falloff(current, z)
                alpha = wp.min(uncapped, _ALPHA_MAX)
                if alpha >= ALPHA_MIN:
                    through = through / (1.0 - alpha)
                    step = wp.dot(current.color, d_pixel) - behind
                    behind += alpha * step
                    d_color = alpha * through * d_pixel
                    # INRIA passes the gradient through the cap as well: it multiplies by the uncapped alpha.
                    s = uncapped * through * step
                    part = Sums(
                        d_color[0], d_color[1], d_color[2],
                        s, s * z[0], s * z[1], s * z[0] * z[0], s * z[0] * z[1], s * z[1] * z[1],
                    )  # fmt: skip
            total = wp.tile_reduce(wp.add, wp.tile(part, preserve_type=True))
            wp.tile_atomic_add(sums, total, offset=wp.tile_extract(batch_members, k))


Removals = wp.types.vector(length=8, dtype=wp.float32)
"""What :func:`measure_removals` sums up, in its order."""


@wp.kernel
def measure_removals(
    tile_start: wp.array[wp.int32],
    members: wp.array[wp.int32],
    splats: wp.array[ScreenSplat],
    background: wp.array[wp.float32],
    view: View,
    transmittance: wp.array2d[wp.float32],
    ends: wp.array2d[wp.int32],
    residual: wp.array2d[wp.vec3],
    sums: wp.array[Removals],
    slopes: wp.array[wp.vec2],
):
    """Add what leaving each Gaussian out does to every pixel to its ``sums``; see :mod:`gaussian_renderer.cpu.removal`.

    Sums are of the weights, of their squares, of the squared change, and of the change of the squared error where the
    error is ``residual``, the image less the target; then, with the weight times the position along the longest axis,
    of its products with the error's channels and of its square. ``slopes`` are those of
    :class:`gaussian_renderer.screen_axes.ScreenAxes`.
    """
    block, lane = wp.tid()
    corner = corner_of(block, view)
    x = corner[0] + lane % WIDTH
    y = corner[1] + lane / WIDTH
    begin = tile_start[block / BLOCKS]
    end = wp.int32(0)
    through = wp.float32(1.0)
    error = wp.vec3()
    if x < view.size[0] and y < view.size[1]:
        end = ends[y, x]
        through = transmittance[y, x]
        error = residual[y, x]
    behind = wp.vec3(background[0], background[1], background[2])
    latest = wp.tile_extract(wp.tile_max(wp.tile(end)), 0)
    for batch in range((latest + LANES - 1) / LANES):
        last = latest - 1 - batch * LANES
        place = last - lane
        member = members[begin + wp.max(place, 0)]
        splat = fetched(splats, member)
        slope = wp.vec2(slopes[member])
        bit = wp.where(place >= 0, reach_bit(splat, corner, lane), _NONE)
        batch_splats = wp.tile(splat)
        batch_slopes = wp.tile(slope, preserve_type=True)
        batch_members = wp.tile(member)
        todo = wp.tile_extract(wp.tile_reduce(wp.bit_or, wp.tile(bit)), 0)
        while todo != _NONE:
            k = lowest_bit(todo)
            todo &= todo - _ONE
            part = Removals()
            if last - k < end:
                current = wp.tile_extract(batch_splats, k)
                alpha = wp.min(falloff(current, whitened(current, x, y)), _ALPHA_MAX)
                if alpha >= ALPHA_MIN:
                    through = through / (1.0 - alpha)
                    weight = alpha * through
                    step = current.color - behind
                    behind += alpha * step
                    # The pixel changes by -weight * step.
                    change = weight * weight * wp.dot(step, step)
                    loss = change - 2.0 * weight * wp.dot(step, error)
                    offset = wp.vec2(float(x), float(y)) - current.center
                    lever = weight * wp.dot(wp.tile_extract(batch_slopes, k), offset)
                    tilt = lever * error
                    part = Removals(weight, weight * weight, change, loss, tilt[0], tilt[1], tilt[2], lever * lever)
            total = wp.tile_reduce(wp.add, wp.tile(part, preserve_type=True))
            wp.tile_atomic_add(sums, total, offset=wp.tile_extract(batch_members, k))
