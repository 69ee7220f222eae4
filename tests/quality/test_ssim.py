"""SSIM and the photometric loss equal an independent float64 convolution, in value and gradient, at any image size.

Also proved: the target's kept statistics change nothing, the same bits on one and two threads, no gradient mode, inputs
of any layout and type, and refusals of images that do not fit.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from quality.losses import photometric_loss
from quality.ssim import SSIMTarget, ssim

SIZES = [(1, 1), (1, 30), (30, 1), (3, 4), (10, 11), (33, 40), (70, 37)]


def reference(image: Tensor, target: Tensor) -> Tensor:
    """The formula of Wang et al. with one full two-dimensional 11 x 11 window, zero padding, float64."""
    distance = torch.arange(11, dtype=torch.float64) - 5
    profile = torch.exp(-(distance**2) / (2 * 1.5**2))
    window = torch.outer(profile, profile)
    window = (window / window.sum())[None, None]

    def blur(planes: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(planes[:, None], window, padding=5)[:, 0]

    x, y = image.permute(2, 0, 1).double(), target.permute(2, 0, 1).double()
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).mean()


def pair(height: int, width: int, kind: str = "noise", seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image and its target, float32 in [0, 1]."""
    rng = np.random.default_rng([seed, height, width])
    target = rng.uniform(0, 1, (height, width, 3))
    if kind == "noise":
        image = rng.uniform(0, 1, target.shape)
    elif kind == "close":
        target = 0.5 + 0.4 * np.sin(np.arange(width)[None, :, None] / 5 + np.arange(height)[:, None, None] / 7 + target)
        image = np.clip(target + rng.normal(0, 0.02, target.shape), 0, 1)
    elif kind == "flat":
        image, target = np.full_like(target, 0.3), np.full_like(target, 0.7)
    else:
        image, target = np.zeros_like(target), np.ones_like(target)
    return torch.from_numpy(image).float(), torch.from_numpy(target).float()


def gradient(function, image: Tensor, target, dtype: torch.dtype = torch.float32) -> tuple[float, Tensor]:
    leaf = image.to(dtype).clone().requires_grad_()
    value = function(leaf, target)
    value.backward()
    return value.item(), leaf.grad


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("kind", ["noise", "close", "flat", "extreme"])
def test_value_and_gradient(height, width, kind):
    image, target = pair(height, width, kind)
    expected, expected_gradient = gradient(reference, image, target, torch.float64)
    value, actual_gradient = gradient(ssim, image, target)
    error = (actual_gradient - expected_gradient).norm() / expected_gradient.norm()
    # Where both images are flat, variances are differences of almost equal numbers: half a unit in the last place of
    # 0.49, seen beside C2 = 0.0009, is 3e-5.
    assert value == pytest.approx(expected, abs=1e-4 if kind == "flat" else 2e-6)
    assert error < 1e-4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40)])
def test_an_image_is_like_itself(height, width):
    image, _ = pair(height, width, "close")
    value, slope = gradient(ssim, image, image)
    assert value == pytest.approx(1.0, abs=1e-6)
    assert slope.abs().max() * image.numel() < 0.05


def test_upstream_gradients_and_both_terms_add_up():
    image, target = pair(33, 40)
    kept = SSIMTarget.of(target)

    def combined(leaf: Tensor, other) -> Tensor:
        return 3 * ssim(leaf, other) - (leaf * 0.5).sum()

    _, expected = gradient(lambda leaf, other: 3 * reference(leaf, other) - (leaf * 0.5).sum(), image, target)
    _, actual = gradient(combined, image, kept)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40), (70, 37)])
def test_photometric_loss(weight, height, width):
    image, target = pair(height, width, "close")
    image[0, 0, :2] = target[0, 0, :2]  # The gradient of |0| is 0.

    def expected_loss(leaf: Tensor, other: Tensor) -> Tensor:
        return (1 - weight) * (leaf - other).abs().mean() + weight * (1 - reference(leaf, other))

    expected, expected_gradient = gradient(expected_loss, image, target.double(), torch.float64)
    for other in (target, SSIMTarget.of(target)):
        value, actual = gradient(lambda leaf, o: photometric_loss(leaf, o, weight), image, other)
        assert value == pytest.approx(expected, abs=2e-5)
        assert (actual - expected_gradient).norm() / expected_gradient.norm() < 1e-4
        doubled = gradient(lambda leaf, o: 2 * photometric_loss(leaf, o, weight), image, other)[1]
        torch.testing.assert_close(doubled, 2 * actual)


def test_the_default_loss_is_that_of_3dgs():
    image, target = pair(33, 40)
    expected = 0.8 * (image - target).abs().mean() + 0.2 * (1 - reference(image, target))
    assert photometric_loss(image, target).item() == pytest.approx(expected.item(), abs=1e-6)


def test_kept_statistics_change_nothing():
    target = pair(33, 40)[1]
    kept = SSIMTarget.of(target)
    for seed in (1, 2):
        image = pair(33, 40, seed=seed)[0]
        fresh, reused = gradient(ssim, image, target), gradient(ssim, image, kept)
        assert fresh[0] == reused[0]
        assert torch.equal(fresh[1], reused[1])
    assert kept.bytes == 3 * target.numel() * 4


def test_two_losses_in_flight_do_not_disturb_each_other():
    images, targets = zip(*(pair(33, 40, seed=seed) for seed in (1, 2)), strict=True)
    alone = [gradient(photometric_loss, image, target)[1] for image, target in zip(images, targets, strict=True)]
    copies = [image.clone().requires_grad_() for image in images]
    losses = [photometric_loss(copy, target) for copy, target in zip(copies, targets, strict=True)]
    for loss in reversed(losses):
        loss.backward()
    assert all(torch.equal(copy.grad, expected) for copy, expected in zip(copies, alone, strict=True))


def test_same_bits_on_one_and_two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba may use one thread only here (one core, or NUMBA_NUM_THREADS=1)")
    image, target = pair(150, 61)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            kept = SSIMTarget.of(target)
            results.append((*gradient(ssim, image, kept), *gradient(photometric_loss, image, kept)))
    finally:
        torch.set_num_threads(before)
    one, two = results
    assert one[0] == two[0]
    assert one[2] == two[2]
    assert torch.equal(one[1], two[1])
    assert torch.equal(one[3], two[3])


def test_no_gradients_are_recorded_where_none_are_wanted():
    image, target = pair(33, 40)
    assert not ssim(image, target).requires_grad
    assert not photometric_loss(image, target).requires_grad
    with torch.no_grad():
        assert not ssim(image.requires_grad_(), target).requires_grad


def test_inputs_of_any_layout_and_type():
    image, target = pair(33, 40)
    expected, expected_gradient = gradient(photometric_loss, image, target)
    flipped = image.flip(0).contiguous().flip(0)
    planar = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not planar.is_contiguous()
    for variant in (flipped, planar, image.double()):
        for other in (target, target.double(), target.permute(2, 0, 1).contiguous().permute(1, 2, 0)):
            value, slope = gradient(photometric_loss, variant, other, variant.dtype)
            assert value == pytest.approx(expected, abs=1e-7)
            assert slope.dtype == variant.dtype
            torch.testing.assert_close(slope, expected_gradient.to(variant.dtype))


def test_images_that_do_not_fit_are_refused():
    image, target = pair(33, 40)
    for other in (target[:32], target[:, :39], target[..., :2]):
        with pytest.raises(ValueError, match=r"differ in size|three channels"):
            ssim(image, other)
        with pytest.raises(ValueError, match=r"differ in size|three channels"):
            photometric_loss(image, other)
    grey = torch.zeros(8, 8, 1)
    with pytest.raises(ValueError, match="three channels"):
        ssim(grey, grey)


def test_an_empty_image_has_no_similarity():
    empty = torch.zeros(0, 40, 3)
    assert math.isnan(ssim(empty, empty).item())
