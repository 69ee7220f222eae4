"""The host's side of the Warp backend: memory, the order of the kernels, and the gradient for PyTorch.

All memory comes from PyTorch and all work goes to its current stream; see :mod:`gsz.warp_launch`. An image waits once,
for the number of pairs of a Gaussian and a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from gaussian_renderer.rendering import Rendering, Splats, ViewStatistics
from gaussian_renderer.screen_axes import ScreenAxes
from gaussian_renderer.warp_backend import blending, projection, tiles
from gaussian_renderer.warp_backend.harmonics import SH0
from gaussian_renderer.warp_backend.splats import FLOATS, ScreenSplat
from gaussian_renderer.warp_backend.view import View, view_of
from gsz.errors import UserError
from gsz.warp_launch import array, on_stream_of
from scene.cameras import Camera

__all__ = ["compile_kernels", "render", "render_statistics"]

PARAMETERS = ("means", "log_scales", "quaternions", "opacity_logits", "sh_dc", "sh_rest")


@dataclass
class _Frame:
    """What a forward pass leaves for a walk back: a gradient or statistics."""

    view: View
    degree: int
    background: Tensor
    splats: Tensor
    pair_counts: Tensor
    tile_start: Tensor
    members: Tensor
    transmittance: Tensor
    ends: Tensor

    def walk(self, kernel: Any, image: Tensor, columns: int, *more: Any) -> Tensor:
        """``(N, columns)`` sums over all pixels; ``image`` and ``more`` are what the kernel takes besides."""
        sums = torch.zeros(len(self.splats), columns, device=image.device)
        with on_stream_of(image.device) as device:
            _launch_blocks(
                kernel,
                self.view,
                [
                    *(array(self.tile_start), array(self.members), _splat_array(self.splats)),
                    *(array(self.background), self.view),
                    *(array(self.transmittance), array(self.ends), array(image, wp.vec3)),
                    array(sums, wp.types.vector(length=columns, dtype=wp.float32)),
                    *more,
                ],
                device,
            )
        return sums


def compile_kernels(device: torch.device) -> None:
    """Compile and load all kernels for a device, if that has not been done."""
    target = wp.device_from_torch(device)
    for module in (projection, tiles):
        wp.load_module(module, device=target)
    wp.load_module(blending, device=target, block_dim=blending.LANES)


def _splat_array(tensor: Tensor) -> wp.array:
    device = wp.device_from_torch(tensor.device)
    return wp.array(ptr=tensor.data_ptr(), dtype=ScreenSplat, shape=(len(tensor),), device=device)


def _launch_blocks(kernel: Any, view: View, inputs: list[Any], device: wp.Device) -> None:
    blocks = view.tiles[0] * view.tiles[1] * blending.BLOCKS
    wp.launch_tiled(kernel, dim=[blocks], inputs=inputs, block_dim=blending.LANES, device=device)


def _plain(tensor: Tensor, *shape: int) -> Tensor:
    """The tensor's memory as contiguous float32; copied only where it is not that already."""
    return tensor.detach().to(torch.float32).contiguous().view(shape)


def _parameters(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    count, rest = len(tensors[0]), tensors[5].shape[1]
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 3), (count, rest, 3))
    return tuple(_plain(tensor, *shape) for tensor, shape in zip(tensors, shapes, strict=True))


def _arrays(parameters: tuple[Tensor, ...]) -> list[Any]:
    """The parameters, or their gradients, as kernels take them."""
    means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest = parameters
    return [
        array(means, wp.vec3),
        array(log_scales, wp.vec3),
        array(quaternions, wp.vec4),
        array(opacity_logits),
        array(sh_dc, wp.vec3),
        array(sh_rest, wp.vec3),
    ]


def _forward(
    view: View, parameters: tuple[Tensor, ...], degree: int, background: Tensor
) -> tuple[Tensor, Tensor, _Frame]:
    """Image, radii, and what a walk back needs."""
    with on_stream_of(background.device) as device:
        splats, radii, pair_counts, tile_start, members = _project(view, parameters, degree, device)
        width, height = view.size
        image = torch.empty(height, width, 3, device=background.device)
        transmittance = torch.empty(height, width, device=background.device)
        ends = torch.empty(height, width, dtype=torch.int32, device=background.device)
        _launch_blocks(
            blending.blend,
            view,
            [
                *(array(tile_start), array(members), _splat_array(splats), array(background), view),
                *(array(image, wp.vec3), array(transmittance), array(ends)),
            ],
            device,
        )
    frame = _Frame(view, degree, background, splats, pair_counts, tile_start, members, transmittance, ends)
    return image, radii, frame


def _project(view: View, parameters: tuple[Tensor, ...], degree: int, device: wp.Device) -> tuple[Tensor, ...]:
    """What blending needs of the Gaussians, their radii, their numbers of tiles, and the tiles' lists."""
    count, target = len(parameters[0]), parameters[0].device
    splats = torch.empty(count, FLOATS, device=target)
    depths = torch.empty(2 * count, device=target)
    tile_rects = torch.empty(count, 4, dtype=torch.int32, device=target)
    pair_counts, radii = torch.empty(2, count, dtype=torch.int32, device=target)
    wp.launch(
        projection.project,
        count,
        [*_arrays(parameters), degree, view],
        [
            *(_splat_array(splats), array(depths), array(tile_rects, wp.vec4i)),
            *(array(pair_counts), array(radii)),
        ],
        device=device,
    )
    # The Gaussians are sorted by depth once; a stable sort then deals their pairs to the tiles by the few bits of a
    # tile's number. Sorting needs room for as much again.
    order = torch.arange(2 * count, dtype=torch.int32, device=target)
    wp.utils.radix_sort_pairs(wp.from_torch(depths), wp.from_torch(order), count)
    tile_start, members = _sorted_into_tiles(view, order[:count], splats, tile_rects, pair_counts, device)
    return splats, radii, pair_counts, tile_start, members


def _sorted_into_tiles(
    view: View, order: Tensor, splats: Tensor, tile_rects: Tensor, pair_counts: Tensor, device: wp.Device
) -> tuple[Tensor, Tensor]:
    """``(tiles + 1,)`` where each tile's list starts, and the lists: Gaussians in ``order``."""
    pair_ends = torch.cumsum(pair_counts[order], 0, dtype=torch.int64)
    pairs = int(pair_ends[-1]) if len(order) else 0  # The one wait.
    if pairs > np.iinfo(np.int32).max:
        raise UserError(f"{pairs} pairs of a Gaussian and a tile are too many to render; use smaller images")
    columns, rows = view.tiles
    pair_tiles, members = torch.empty(2, 2 * pairs, dtype=torch.int32, device=order.device)
    wp.launch(
        tiles.list_pairs,
        len(order),
        [
            *(array(order), array(pair_ends), _splat_array(splats), array(tile_rects, wp.vec4i)),
            *(array(pair_counts), columns),
        ],
        [array(pair_tiles), array(members)],
        device=device,
    )
    bits = (columns * rows - 1).bit_length()
    wp.utils.radix_sort_pairs(wp.from_torch(pair_tiles), wp.from_torch(members), pairs, end_bit=bits)
    numbers = torch.arange(columns * rows + 1, dtype=torch.int32, device=order.device)
    tile_start = torch.searchsorted(pair_tiles[:pairs], numbers, out_int32=True)
    return tile_start, members[:pairs].clone()


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, view: View, degree: int, background: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        image, radii, ctx.frame = _forward(view, _parameters(tensors[:6]), degree, _plain(background, 3))
        ctx.save_for_backward(*tensors[:6])
        ctx.mark_non_differentiable(radii)
        return image, radii

    @staticmethod
    def backward(ctx: Any, d_image: Tensor, _d_radii: Any) -> tuple[Tensor | None, ...]:
        frame, parameters = ctx.frame, _parameters(ctx.saved_tensors)
        sums = frame.walk(blending.blend_backward, _plain(d_image, *d_image.shape), 9)
        gradients = tuple(map(torch.zeros_like, parameters))
        d_centers = torch.zeros(len(sums), 2, device=sums.device)
        means, log_scales, quaternions, opacity_logits, _, sh_rest = _arrays(parameters)
        with on_stream_of(sums.device) as device:
            wp.launch(
                projection.project_backward,
                len(sums),
                [
                    *(means, log_scales, quaternions, opacity_logits, sh_rest, frame.degree, frame.view),
                    *(_splat_array(frame.splats), array(frame.pair_counts), array(sums, projection.Sums)),
                ],
                [*_arrays(gradients), array(d_centers, wp.vec2)],
                device=device,
            )
        shaped = (gradient.view(t.shape) for gradient, t in zip(gradients, ctx.saved_tensors, strict=True))
        return None, None, None, *shaped, d_centers


def render(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, screen_offsets: Tensor | None = None
) -> Rendering:
    """Render with Warp; see :func:`gaussian_renderer.render`."""
    tensors = tuple(getattr(splats, name) for name in PARAMETERS)
    view = view_of(camera)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        image, radii, _ = _forward(view, _parameters(tensors), sh_degree, _plain(background, 3))
        return Rendering(image, radii)
    offsets = screen_offsets if screen_offsets is not None else tensors[0].new_zeros(len(tensors[0]), 2)
    image, radii = _Rasterize.apply(view, sh_degree, background, *tensors, offsets)
    return Rendering(image, radii)


@torch.no_grad()
def render_statistics(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, target: Tensor | None = None
) -> ViewStatistics:
    """Render with Warp and measure each Gaussian; see :func:`gaussian_renderer.render_statistics`."""
    parameters = _parameters(tuple(getattr(splats, name) for name in PARAMETERS))
    image, _, frame = _forward(view_of(camera), parameters, sh_degree, _plain(background, 3))
    residual, slopes = image, image.new_zeros(len(splats.means), 2)  # What they give is not told without a target.
    if target is not None:
        residual, slopes = image - target, ScreenAxes.of(camera, splats).slopes.contiguous()
    sums = frame.walk(blending.measure_removals, residual, 8, array(slopes, wp.vec2))
    weight, squared_weight, change, loss = sums[:, :4].unbind(1)
    return ViewStatistics(
        image=image,
        blend_weight=weight.contiguous(),
        removal_error=change.contiguous(),
        sh_removal_error=squared_weight * _squared_sh_color(frame, parameters),
        removal_loss=None if target is None else loss.contiguous(),
        tilt=None if target is None else sums[:, 4:].contiguous(),
    )


def _squared_sh_color(frame: _Frame, parameters: tuple[Tensor, ...]) -> Tensor:
    """``(N,)`` squared difference of each color, as clamped, to the one without ``sh_rest``; 0 where not drawn."""
    colors = frame.splats[:, -3:].clamp_min(0)
    plain = (SH0 * parameters[4] + 0.5).clamp_min(0)
    return torch.where(frame.pair_counts > 0, (colors - plain).square().sum(1), 0.0)
