"""Proves that PSNR, SSIM and LPIPS are computed in full precision, whatever PyTorch is set to do with convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quality import ssim as ssim_module
from quality.lpips import VggLpips, weight_shapes


@pytest.fixture
def flags_at_convolutions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each convolution was allowed to round to TF32, which PyTorch allows by default."""
    seen: list[bool] = []
    convolve = torch.nn.functional.conv2d

    def watched(*arguments, **options) -> Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return convolve(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    return seen


def images() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(40, 48, 3, generator=random), torch.rand(40, 48, 3, generator=random)


def small_vgg(device: str = "cpu") -> VggLpips:
    random = np.random.default_rng(0)
    return VggLpips({name: 0.05 * random.random(shape, np.float32) for name, shape in weight_shapes().items()}, device)


def test_lpips_and_ssim_convolve_exactly_and_leave_the_setting_alone(flags_at_convolutions: list[bool]):
    before = torch.backends.cudnn.allow_tf32
    image, target = images()
    small_vgg()(image, target)
    of_lpips = len(flags_at_convolutions)
    leaf = image.requires_grad_()
    ssim_module._separable_ssim(leaf, target).backward()
    assert of_lpips == 26 and len(flags_at_convolutions) > of_lpips + 10, "forward and backward"
    assert not any(flags_at_convolutions)
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_gradient_of_the_window_is_the_window():
    image, target = images()
    image, target = image[:14, :15].double().requires_grad_(), target[:14, :15].double()
    assert torch.autograd.gradcheck(lambda x: ssim_module._separable_ssim(x, target), (image,))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_metrics_are_those_of_the_cpu():
    """Without anybody having set the flag: it is the metrics' own business."""
    image, target = images()
    close = image + 1e-3 * target
    on_gpu = float(ssim_module._separable_ssim(close.cuda(), image.cuda()))
    assert on_gpu == pytest.approx(float(ssim_module._separable_ssim(close, image)), abs=1e-6)
    assert small_vgg("cuda")(image, target) == pytest.approx(small_vgg()(image, target), rel=1e-5)
