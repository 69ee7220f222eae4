"""The CPU backend: our own differentiable tile rasterizer, compiled by Numba with explicit vector types.

Follows INRIA's forward pass to the constant and its gradient conventions; see ``docs/method.md``. Bit-identical results
on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer.cpu import blending, layout, projection, removal, tiles
from gaussian_renderer.cpu.lanes import DESCRIPTION
from gaussian_renderer.cpu.spherical_harmonics import SH0
from gaussian_renderer.rendering import Rendering, Splats, ViewStatistics
from gaussian_renderer.screen_axes import ScreenAxes
from gsz.errors import UserError
from gsz.kernels import announced
from gsz.memory import ReusedArrays
from scene.cameras import Camera
from utils.kernels import match_torch_threads

__all__ = ["DESCRIPTION", "Frame", "render", "render_frame", "render_statistics"]

_GRADIENTS = ReusedArrays()
"""They take as much memory as the model, in every step of fine-tuning or training."""


@dataclass
class _View:
    """A camera as the kernels take it."""

    matrix: np.ndarray
    eye: np.ndarray
    lens: projection.Intrinsics
    width: int
    height: int

    @staticmethod
    def of(camera: Camera) -> _View:
        f32 = np.float32
        # INRIA clamps x/z to 1.3 times the half field of view; for an off-centre principal point the 0.3 margin is kept
        # on either side of the image.
        margin_x, margin_y = 0.15 * camera.width / camera.fx, 0.15 * camera.height / camera.fy
        lens = projection.Intrinsics(
            f32(camera.fx),
            f32(camera.fy),
            f32(camera.cx),
            f32(camera.cy),
            f32(-camera.cx / camera.fx - margin_x),
            f32((camera.width - camera.cx) / camera.fx + margin_x),
            f32(-camera.cy / camera.fy - margin_y),
            f32((camera.height - camera.cy) / camera.fy + margin_y),
        )
        matrix = np.ascontiguousarray(camera.world_to_camera[:3], np.float32)
        return _View(matrix, camera.center.astype(np.float32), lens, camera.width, camera.height)


@dataclass
class Frame:
    """What a forward pass leaves for a walk back: a gradient or statistics."""

    view: _View
    degree: int
    colour_is_clamped: np.ndarray
    pair_start: np.ndarray
    records: np.ndarray
    tile_start: np.ndarray
    members: np.ndarray
    pairs: np.ndarray
    transmittance: np.ndarray
    pixel_ends: np.ndarray
    reached_masks: np.ndarray
    background: np.ndarray


def _array(tensor: Tensor, *shape: int) -> np.ndarray:
    """The tensor's memory as a C-contiguous float32 array; copied only where it is not one already."""
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32).reshape(shape)


def _parameters(splats: Splats) -> tuple[np.ndarray, ...]:
    count, rest = splats.means.shape[0], splats.sh_rest.shape[1]
    return (
        _array(splats.means, count, 3),
        _array(splats.log_scales, count, 3),
        _array(splats.quaternions, count, 4),
        _array(splats.opacity_logits, count),
        _array(splats.sh_dc, count, 3),
        _array(splats.sh_rest, count, rest, 3),
    )


@announced("the CPU renderer", "half a minute")
def _forward(
    view: _View, parameters: tuple[np.ndarray, ...], degree: int, background: np.ndarray, keeps_frame: bool
) -> tuple[np.ndarray, np.ndarray, Frame | None]:
    """Image and radii; and the frame, without which nothing is written that only a walk back needs."""
    threads = match_torch_threads()
    count = parameters[0].shape[0]
    records = np.empty((count, layout.RECORD_WIDTH), np.float32)
    tile_rects = np.empty(count * 4, np.float32)
    depths = np.empty(count, np.float32)
    colour_is_clamped = np.empty(count, np.uint8)
    radii, pair_counts = np.empty(count, np.int32), np.empty(count, np.int32)
    projection.project(
        *(parameter.reshape(-1) for parameter in parameters), degree, view.matrix, view.eye, view.lens, view.width,
        view.height, records.reshape(-1), depths, tile_rects, pair_counts, colour_is_clamped, radii,
    )  # fmt: skip

    pair_start = np.zeros(count + 1, np.int64)
    np.cumsum(pair_counts, out=pair_start[1:])
    pair_count = pair_start[-1]
    if pair_count > np.iinfo(np.int32).max:
        raise UserError(f"{pair_count} pairs of a Gaussian and a tile are too many to render; use smaller images")
    order = tiles.sort_by_depth(pair_start, depths)
    tiles_x, tiles_y = -(-view.width // layout.TILE), -(-view.height // layout.TILE)
    tile_start = np.empty(tiles_x * tiles_y + 1, np.int64)
    members = np.empty(pair_count, np.int32)
    pairs = np.empty(pair_count if keeps_frame else 0, np.int32)
    tiles.fill_tiles(order, records.reshape(-1), tile_rects, pair_start, tiles_x, threads, tile_start, members, pairs)
    # Blending is where most memory is in use.
    del tile_rects, depths, pair_counts, order

    image = np.empty((view.height, view.width, 3), np.float32)
    kept_tiles = tiles_x * tiles_y if keeps_frame else 0
    transmittance = np.empty((kept_tiles, blending.PIXELS), np.float32)
    pixel_ends = np.empty((kept_tiles, blending.PIXELS), np.int32)
    reached_masks = np.empty(len(pairs), np.uint32)
    blending.blend(
        tile_start, members, records, tiles_x, view.width, view.height, background, threads, image, transmittance,
        pixel_ends, reached_masks,
    )  # fmt: skip
    if not keeps_frame:
        return image, radii, None
    frame = Frame(
        view, degree, colour_is_clamped, pair_start, records, tile_start, members, pairs, transmittance, pixel_ends,
        reached_masks, background,
    )  # fmt: skip
    return image, radii, frame


@announced("the CPU renderer", "half a minute")
def _backward(frame: Frame, parameters: tuple[np.ndarray, ...], d_image: np.ndarray) -> tuple[np.ndarray, ...]:
    view = frame.view
    slots = np.empty(len(frame.members) * layout.SLOT_WIDTH, np.float32)
    blending.blend_backward(
        frame.tile_start, frame.members, frame.pairs, frame.records,
        -(-view.width // layout.TILE), view.width, view.height, frame.background, match_torch_threads(), d_image,
        frame.transmittance, frame.pixel_ends, frame.reached_masks, slots,
    )  # fmt: skip
    shapes = [parameter.shape for parameter in parameters]
    *gradients, d_centres = _GRADIENTS.blank([*shapes, (len(parameters[0]), 2)])
    means, log_scales, quaternions, opacity_logits, _, sh_rest = (parameter.reshape(-1) for parameter in parameters)
    projection.project_backward(
        means, log_scales, quaternions, opacity_logits, sh_rest, frame.degree, view.matrix, view.eye, view.lens,
        frame.colour_is_clamped, frame.pair_start, slots, *(gradient.reshape(-1) for gradient in gradients),
        d_centres.reshape(-1),
    )  # fmt: skip
    return (*gradients, d_centres)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, view: _View, degree: int, background: Tensor, *tensors: Tensor):
        parameters = _parameters(_Tensors(*tensors[:6]))
        image, radii, frame = _forward(view, parameters, degree, _array(background, 3), keeps_frame=True)
        ctx.save_for_backward(*tensors[:6])
        ctx.frame = frame
        radii_tensor = torch.from_numpy(radii)
        ctx.mark_non_differentiable(radii_tensor)
        return torch.from_numpy(image), radii_tensor

    @staticmethod
    def backward(ctx: Any, d_image: Tensor, _d_radii: Any):
        tensors = ctx.saved_tensors
        height, width, _ = d_image.shape
        parameters = _parameters(_Tensors(*tensors))
        *gradients, d_centres = _backward(ctx.frame, parameters, _array(d_image, height, width, 3))
        shaped = [torch.from_numpy(g).view(t.shape) for g, t in zip(gradients, tensors, strict=True)]
        return None, None, None, *shaped, torch.from_numpy(d_centres)


@dataclass
class _Tensors:
    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh_dc: Tensor
    sh_rest: Tensor


def render(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, screen_offsets: Tensor | None = None
) -> Rendering:
    """Render on the CPU; see :func:`gaussian_renderer.render`."""
    tensors = (
        splats.means, splats.log_scales, splats.quaternions, splats.opacity_logits, splats.sh_dc, splats.sh_rest
    )  # fmt: skip
    view = _View.of(camera)
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not needs_gradient:
        image, radii, _ = _forward(view, _parameters(splats), sh_degree, _array(background, 3), keeps_frame=False)
        return Rendering(torch.from_numpy(image), torch.from_numpy(radii))
    offsets = torch.zeros(len(splats.means), 2) if screen_offsets is None else screen_offsets
    image, radii = _Rasterize.apply(view, sh_degree, background, *tensors, offsets)
    return Rendering(image, radii)


def render_frame(camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int) -> tuple[np.ndarray, Frame]:
    """The image ``(H, W, 3)``, without a gradient, and what was blended."""
    parameters = _parameters(splats)
    image, _, frame = _forward(_View.of(camera), parameters, sh_degree, _array(background, 3), keeps_frame=True)
    assert frame is not None
    return image, frame


@torch.no_grad()
def render_statistics(
    camera: Camera, splats: Splats, background: Tensor, *, sh_degree: int, target: Tensor | None = None
) -> ViewStatistics:
    """Render on the CPU and measure each Gaussian; see :func:`gaussian_renderer.render_statistics`."""
    image, frame = render_frame(camera, splats, background, sh_degree=sh_degree)
    view, parameters = frame.view, _parameters(splats)
    residual, slopes = image, np.empty((0, 2), np.float32)  # Not read without a target.
    if target is not None:
        residual, slopes = image - _array(target, *image.shape), ScreenAxes.of(camera, splats).slopes.numpy()
    sums = np.empty((len(frame.members), removal.SUMS), np.float32)
    removal.measure_removals(
        frame.tile_start, frame.members, frame.pairs, frame.records,
        -(-view.width // layout.TILE), view.width, view.height, frame.background, match_torch_threads(),
        target is not None, residual, slopes, frame.transmittance, frame.pixel_ends, frame.reached_masks, sums,
    )  # fmt: skip
    totals = np.empty((len(parameters[0]), removal.SUMS), np.float32)
    removal.add_up(frame.pair_start, sums, totals)
    return ViewStatistics(
        image=torch.from_numpy(image),
        blend_weight=torch.from_numpy(totals[:, removal.WEIGHT].copy()),
        removal_error=torch.from_numpy(totals[:, removal.CHANGE].copy()),
        sh_removal_error=torch.from_numpy(totals[:, removal.SQUARED_WEIGHT] * _squared_sh_colour(frame, parameters)),
        removal_loss=None if target is None else torch.from_numpy(totals[:, removal.LOSS].copy()),
        tilt=None if target is None else torch.from_numpy(totals[:, removal.TILT_RED :].copy()),
    )


def _squared_sh_colour(frame: Frame, parameters: tuple[np.ndarray, ...]) -> np.ndarray:
    """``(N,)`` squared difference of each colour, as clamped, to the one without ``sh_rest``; 0 where not drawn."""
    is_drawn = np.diff(frame.pair_start) > 0
    colours = frame.records[is_drawn, layout.RED : layout.BLUE + 1]
    plain = np.maximum(SH0 * parameters[4][is_drawn] + np.float32(0.5), np.float32(0))
    squared = np.zeros(len(is_drawn), np.float32)
    squared[is_drawn] = ((colours - plain) ** 2).sum(1)
    return squared
