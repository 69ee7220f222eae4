"""Which Gaussians touch which 16 x 16 tile."""

from __future__ import annotations

import warp as wp

from gaussian_renderer.warp_backend.splats import ScreenSplat, span
from gaussian_renderer.warp_backend.view import TILE

wp.set_module_options({"enable_backward": False})


@wp.func
def tile_range(low: float, high: float, tiles: int):
    """Tiles ``[first, end)`` of an axis that hold the pixels ``[low, high]``; any float is safe."""
    limit = float(tiles * TILE)
    first = int(wp.min(wp.max(low, 0.0), limit)) / TILE
    end = int(wp.min(wp.max(high, -1.0), limit) + float(TILE)) / TILE
    return wp.vec2i(first, wp.min(end, tiles))


@wp.func
def tiles_meeting(center: wp.vec2, before: wp.vec2, after: wp.vec2, tiles: wp.vec2i):
    """The tiles that meet ``[center - before, center + after]``: x first, x end, y first, y end."""
    x = tile_range(center[0] - before[0], center[0] + after[0], tiles[0])
    y = tile_range(center[1] - before[1], center[1] + after[1], tiles[1])
    return wp.vec4i(x[0], x[1], y[0], y[1])


@wp.func
def tile_span(splat: ScreenSplat, rect: wp.vec4i, row: int):
    """The columns ``[first, end)`` of a row of tiles, within ``rect``, that the Gaussian's ellipse reaches.

    Where ``rect`` is one tile wide or high, all of it is taken: there it can hold a tile that the ellipse misses only
    at the edge of the image, and blending finds that out.
    """
    if rect[1] - rect[0] == 1 or rect[3] - rect[2] == 1:
        return wp.vec2i(rect[0], rect[1])
    reached = span(splat, row * TILE, row * TILE + TILE - 1)
    if reached[0] > reached[1]:
        return wp.vec2i(0, 0)
    # Pixels are at whole coordinates, so that a column is reached from its first pixel to its last.
    limit = float(rect[1] * TILE)
    left = wp.ceil((wp.clamp(reached[0], 0.0, limit) - float(TILE - 1)) / float(TILE))
    right = wp.floor(wp.clamp(reached[1], -1.0, limit) / float(TILE))
    return wp.vec2i(wp.max(rect[0], int(left)), wp.min(rect[1], int(right) + 1))


@wp.func
def count_tiles(splat: ScreenSplat, rect: wp.vec4i):
    """Number of tiles within ``rect`` that :func:`tile_span` takes."""
    count = wp.int32(0)
    for row in range(rect[2], rect[3]):
        columns = tile_span(splat, rect, row)
        count += wp.max(0, columns[1] - columns[0])
    return count


@wp.kernel
def list_pairs(
    order: wp.array[wp.int32],
    ends: wp.array[wp.int64],
    splats: wp.array[ScreenSplat],
    tile_rects: wp.array[wp.vec4i],
    pair_counts: wp.array[wp.int32],
    columns: int,
    pair_tiles: wp.array[wp.int32],
    members: wp.array[wp.int32],
):
    """Write the pairs (tile, Gaussian) of the Gaussians in ``order``; those of place ``k`` end before ``ends[k]``."""
    place = wp.tid()
    i = order[place]
    if pair_counts[i] == 0:
        return
    at = int(ends[place]) - pair_counts[i]
    for row in range(tile_rects[i][2], tile_rects[i][3]):
        reached = tile_span(splats[i], tile_rects[i], row)
        for column in range(reached[0], reached[1]):
            pair_tiles[at] = row * columns + column
            members[at] = i
            at += 1
