"""Structural similarity as 3DGS computes it, fused for the CPU; statistics of the target are computed once.

Wang et al., Image quality assessment: from error visibility to structural similarity, 2004; 11 x 11 Gaussian window of
sigma 1.5, zero padding, C1 = 0.01**2, C2 = 0.03**2, mean over pixels and channels. On CUDA the same is computed by the
``fused-ssim`` package where it is installed, else by separable convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from quality.precision import exact_convolutions
from utils.kernels import INLINE, PARALLEL, Kernels, match_torch_threads

f32 = np.float32
njit = Kernels(Path(__file__).resolve().parent).njit

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_RADIUS = WINDOW // 2
_CHANNELS = 3
# A job is this many rows and interleaved columns of the image; what it needs of them stays in a core's cache.
_BAND, _BLOCK = 64, 256
_HALO = _RADIUS * _CHANNELS

_weights = np.exp(-((np.arange(WINDOW) - _RADIUS) ** 2) / (2 * _SIGMA**2))
_weights /= _weights.sum()
_W0, _W1, _W2, _W3, _W4, _W5 = (f32(weight) for weight in _weights[: _RADIUS + 1])


@njit(**INLINE)
def _blur_row(padded, out):
    """Horizontal window over a row of interleaved RGB that is padded by the radius on both sides."""
    for x in range(out.shape[0]):
        out[x] = (
            _W5 * padded[x + 15]
            + _W4 * (padded[x + 12] + padded[x + 18])
            + _W3 * (padded[x + 9] + padded[x + 21])
            + _W2 * (padded[x + 6] + padded[x + 24])
            + _W1 * (padded[x + 3] + padded[x + 27])
            + _W0 * (padded[x] + padded[x + 30])
        )


@njit(**INLINE)
def _blur_column(rows, top, x):
    """Vertical window at column ``x`` over the eleven rows from ``top`` on."""
    return (
        _W5 * rows[top + 5, x]
        + _W4 * (rows[top + 4, x] + rows[top + 6, x])
        + _W3 * (rows[top + 3, x] + rows[top + 7, x])
        + _W2 * (rows[top + 2, x] + rows[top + 8, x])
        + _W1 * (rows[top + 1, x] + rows[top + 9, x])
        + _W0 * (rows[top, x] + rows[top + 10, x])
    )


@njit(**INLINE)
def _columns(job, blocks, width):
    """The columns ``[left, right)`` of a job, those ``[begin, end)`` its window reads, and where a padded row has them.

    The loops below run over slices, from 0 on: an index that could be negative would keep LLVM from vectorizing them.
    """
    left = (job % blocks) * _BLOCK
    right = min(width, left + _BLOCK)
    begin = max(0, left - _HALO)
    return left, right, begin, min(width, right + _HALO), begin - left + _HALO


@njit(**PARALLEL)
def _target_statistics(target, mean, mean_of_square):
    """Blur the target and its square; all arrays are (height, 3 * width)."""
    height, width = target.shape
    blocks = (width + _BLOCK - 1) // _BLOCK
    for job in prange((height + _BAND - 1) // _BAND * blocks):
        first = job // blocks * _BAND
        last = min(height, first + _BAND)
        left, right, begin, end, offset = _columns(job, blocks, width)
        blurred, blurred_square = np.zeros((2, _BAND + 2 * _RADIUS, _BLOCK), np.float32)
        padded, padded_square = np.zeros((2, _BLOCK + 2 * _HALO), np.float32)
        for y in range(max(0, first - _RADIUS), min(height, last + _RADIUS)):
            wanted = target[y, begin:end]
            inner, inner_square = padded[offset : offset + end - begin], padded_square[offset : offset + end - begin]
            for x in range(end - begin):
                inner[x] = wanted[x]
                inner_square[x] = wanted[x] * wanted[x]
            _blur_row(padded, blurred[y - first + _RADIUS])
            _blur_row(padded_square, blurred_square[y - first + _RADIUS])
        for y in range(first, last):
            mean_row, square_row = mean[y, left:right], mean_of_square[y, left:right]
            for x in range(right - left):
                mean_row[x] = _blur_column(blurred, y - first, x)
                square_row[x] = _blur_column(blurred_square, y - first, x)


@njit(**PARALLEL)
def _forward(image, target, target_mean, target_square, d_mean, d_square, d_product, sums):
    """Sums of SSIM and of absolute differences, a row of ``sums`` (jobs, 2) a job.

    Writes the derivatives of the sum of SSIM by the blurred image, its blurred square and its blurred product with the
    target.
    """
    height, width = image.shape
    c1, c2, two = f32(_C1), f32(_C2), f32(2)
    blocks = (width + _BLOCK - 1) // _BLOCK
    for job in prange(sums.shape[0]):
        first = job // blocks * _BAND
        last = min(height, first + _BAND)
        left, right, begin, end, offset = _columns(job, blocks, width)
        rows, rows_square, rows_product = np.zeros((3, _BAND + 2 * _RADIUS, _BLOCK), np.float32)
        padded, padded_square, padded_product = np.zeros((3, _BLOCK + 2 * _HALO), np.float32)
        for y in range(max(0, first - _RADIUS), min(height, last + _RADIUS)):
            values, wanted = image[y, begin:end], target[y, begin:end]
            inner, inner_square = padded[offset : offset + end - begin], padded_square[offset : offset + end - begin]
            inner_product = padded_product[offset : offset + end - begin]
            for x in range(end - begin):
                inner[x] = values[x]
                inner_square[x] = values[x] * values[x]
                inner_product[x] = values[x] * wanted[x]
            _blur_row(padded, rows[y - first + _RADIUS])
            _blur_row(padded_square, rows_square[y - first + _RADIUS])
            _blur_row(padded_product, rows_product[y - first + _RADIUS])
        # Sums go column by column: one running sum along a row would have to be added up one pixel at a time.
        similarity_sums, difference_sums = np.zeros((2, _BLOCK), np.float32)
        for y in range(first, last):
            values, wanted = image[y, left:right], target[y, left:right]
            mean_row, square_row = target_mean[y, left:right], target_square[y, left:right]
            d_mean_row, d_square_row = d_mean[y, left:right], d_square[y, left:right]
            d_product_row = d_product[y, left:right]
            for x in range(right - left):
                mean_x = _blur_column(rows, y - first, x)
                mean_y = mean_row[x]
                variance_x = _blur_column(rows_square, y - first, x) - mean_x * mean_x
                variance_y = square_row[x] - mean_y * mean_y
                covariance = _blur_column(rows_product, y - first, x) - mean_x * mean_y
                luminance, structure = two * mean_x * mean_y + c1, two * covariance + c2
                mean_norm, variance_norm = mean_x * mean_x + mean_y * mean_y + c1, variance_x + variance_y + c2
                inverse = f32(1) / (mean_norm * variance_norm)
                similarity = luminance * structure * inverse
                similarity_sums[x] += similarity
                difference_sums[x] += abs(values[x] - wanted[x])
                by_square = -similarity * mean_norm * inverse
                by_product = two * luminance * inverse
                d_square_row[x] = by_square
                d_product_row[x] = by_product
                d_mean_row[x] = (
                    two * mean_y * structure * inverse
                    - two * mean_x * similarity * variance_norm * inverse
                    - two * mean_x * by_square
                    - mean_y * by_product
                )
        for x in range(right - left):
            sums[job, 0] += similarity_sums[x]
            sums[job, 1] += difference_sums[x]


@njit(**PARALLEL)
def _backward(image, target, d_mean, d_square, d_product, ssim_scale, l1_scale, d_image):
    """Gradient of ``ssim_scale`` times the sum of SSIM plus ``l1_scale`` times the sum of absolute differences.

    The window is symmetric, so the gradient of SSIM is the same blur of the three derivatives, recombined.
    """
    height, width = image.shape
    blocks = (width + _BLOCK - 1) // _BLOCK
    for job in prange((height + _BAND - 1) // _BAND * blocks):
        first = job // blocks * _BAND
        last = min(height, first + _BAND)
        left, right, begin, end, offset = _columns(job, blocks, width)
        rows, rows_square, rows_product = np.zeros((3, _BAND + 2 * _RADIUS, _BLOCK), np.float32)
        padded, padded_square, padded_product = np.zeros((3, _BLOCK + 2 * _HALO), np.float32)
        for y in range(max(0, first - _RADIUS), min(height, last + _RADIUS)):
            padded[offset : offset + end - begin] = d_mean[y, begin:end]
            padded_square[offset : offset + end - begin] = d_square[y, begin:end]
            padded_product[offset : offset + end - begin] = d_product[y, begin:end]
            _blur_row(padded, rows[y - first + _RADIUS])
            _blur_row(padded_square, rows_square[y - first + _RADIUS])
            _blur_row(padded_product, rows_product[y - first + _RADIUS])
        for y in range(first, last):
            values, wanted, d_row = image[y, left:right], target[y, left:right], d_image[y, left:right]
            for x in range(right - left):
                by_ssim = (
                    _blur_column(rows, y - first, x)
                    + f32(2) * values[x] * _blur_column(rows_square, y - first, x)
                    + wanted[x] * _blur_column(rows_product, y - first, x)
                )
                sign = (f32(1) if values[x] > wanted[x] else f32(0)) - (f32(1) if values[x] < wanted[x] else f32(0))
                d_row[x] = ssim_scale * by_ssim + l1_scale * sign


@dataclass(frozen=True)
class SSIMTarget:
    """A target image with what SSIM needs of it: the blurred target and the blurred square of the target.

    Attributes:
        image: ``(H, W, 3)`` float32 in [0, 1].
        mean, mean_of_square: The same shape; only on the CPU, else ``None``.
    """

    image: Tensor
    mean: Tensor | None = None
    mean_of_square: Tensor | None = None

    @staticmethod
    def of(image: Tensor) -> SSIMTarget:
        """A target with its statistics, which are computed here and used in every comparison."""
        if image.is_cuda:
            return SSIMTarget(image)
        image = image.detach().float().contiguous()
        mean, square = torch.empty_like(image), torch.empty_like(image)
        if image.numel():
            match_torch_threads()
            _target_statistics(_rows(image), _rows(mean), _rows(square))
        return SSIMTarget(image, mean, square)

    @property
    def bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(t.numel() * t.element_size() for t in (self.image, self.mean, self.mean_of_square) if t is not None)


def _rows(image: Tensor) -> np.ndarray:
    height, width, channels = image.shape
    if channels != _CHANNELS:
        raise ValueError(f"images must have three channels, not {channels}")
    return image.detach().numpy().reshape(height, width * channels)


class _CpuSimilarity(torch.autograd.Function):
    """``ssim_weight * SSIM + l1_weight * L1``, and its gradient, in two passes over the image."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: SSIMTarget, ssim_weight: float, l1_weight: float) -> Tensor:
        image = image.contiguous()
        derivatives = [torch.empty_like(image) for _ in range(3)]
        assert target.mean is not None and target.mean_of_square is not None
        height, width, _ = image.shape
        match_torch_threads()
        sums = np.zeros((-(-height // _BAND) * -(-width * _CHANNELS // _BLOCK), 2))
        statics = [_rows(tensor) for tensor in (target.image, target.mean, target.mean_of_square)]
        _forward(_rows(image), *statics, *map(_rows, derivatives), sums)
        ctx.target, ctx.weights = target, (ssim_weight, l1_weight)
        ctx.save_for_backward(image, *derivatives)
        similarity, difference = sums.sum(0) / image.numel()
        return torch.tensor(ssim_weight * similarity + l1_weight * difference, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, d_value: Tensor) -> tuple[Tensor, None, None, None]:
        image, *derivatives = ctx.saved_tensors
        d_image = torch.empty_like(image)
        ssim_scale, l1_scale = (f32(weight * d_value.item() / image.numel()) for weight in ctx.weights)
        _backward(_rows(image), _rows(ctx.target.image), *map(_rows, derivatives), ssim_scale, l1_scale, _rows(d_image))
        return d_image, None, None, None


@cache
@torch.inference_mode(False)  # What is kept must serve a backward pass too, whoever asks first.
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window along one axis. Copying it to a GPU makes the CPU wait, so it is done once."""
    return torch.tensor(_weights, dtype=dtype, device=device)


class _Blur(torch.autograd.Function):
    """The window over ``(1, 3, H, W)`` planes, by two one-dimensional convolutions in full precision.

    It is symmetric, so the gradient is the window over the gradient.
    """

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        weights = _window(planes.dtype, planes.device)
        across = weights.view(1, 1, 1, WINDOW).expand(_CHANNELS, 1, 1, WINDOW)
        down = weights.view(1, 1, WINDOW, 1).expand(_CHANNELS, 1, WINDOW, 1)
        with exact_convolutions():
            rows = torch.nn.functional.conv2d(planes, across, padding=(0, _RADIUS), groups=_CHANNELS)
            return torch.nn.functional.conv2d(rows, down, padding=(_RADIUS, 0), groups=_CHANNELS)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Blur.apply(gradients[0])


def _separable_ssim(image: Tensor, target: Tensor) -> Tensor:
    """SSIM by convolutions; any device, any float type."""
    blur = _Blur.apply
    x, y = image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None]
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return (numerator / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))).mean()


def _cuda_ssim(image: Tensor, target: Tensor) -> Tensor:
    try:
        from fused_ssim import fused_ssim
    except ImportError:
        return _separable_ssim(image, target)
    return fused_ssim(image.permute(2, 0, 1)[None].contiguous(), target.permute(2, 0, 1)[None].contiguous())


def ssim(image: Tensor, target: Tensor | SSIMTarget) -> Tensor:
    """Mean SSIM of two ``(H, W, 3)`` images in [0, 1]; differentiable in the first.

    Pass an :class:`SSIMTarget` where the same target is compared again and again.

    Raises:
        ValueError: the images differ in size, or do not have three channels.
    """
    return ssim_and_l1(image, target, 1.0, 0.0)


def ssim_and_l1(image: Tensor, target: Tensor | SSIMTarget, ssim_weight: float, l1_weight: float) -> Tensor:
    """``ssim_weight`` times the mean SSIM plus ``l1_weight`` times the mean absolute difference; see :func:`ssim`."""
    if not isinstance(target, SSIMTarget):
        target = SSIMTarget.of(target)
    if image.shape != target.image.shape:
        raise ValueError(f"the images differ in size: {tuple(image.shape)} and {tuple(target.image.shape)}")
    if image.numel() == 0:
        return torch.tensor(math.nan)
    if image.is_cuda:
        return ssim_weight * _cuda_ssim(image, target.image) + l1_weight * (image - target.image).abs().mean()
    return _CpuSimilarity.apply(image.float(), target, ssim_weight, l1_weight)
