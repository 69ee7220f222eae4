"""Our two renderers give the image and all gradients of an independent dense float64 renderer, on any scene.

Each test that takes a ``backend`` runs for the CPU's renderer and, on Warp's CPU device, for Warp's. Also proved: the
reference's own gradients (by finite differences), the stated conventions (alpha cap, frustum clamp, near plane, ties),
the same bits on one and two threads, inputs of any layout and type, Gaussians of NaN, infinity and absurd size, several
passes in flight, and rendering in a forked child.
"""

from __future__ import annotations

import math
import multiprocessing
import tracemalloc

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_renderer import render
from gaussian_renderer.cpu import blending
from gsz.errors import UserError
from scene.cameras import MAX_SIDE, Camera
from scene.gaussian_model import GaussianModel
from tests import dense_reference

WIDTH, HEIGHT = 40, 36
FRAGILE_MAX = 0.01  # Largest share of pixels that may be left out because a threshold is too close to call.


def make_camera(rng: np.random.Generator, width: int = WIDTH, height: int = HEIGHT, off_centre: float = 0.0) -> Camera:
    """A camera near the origin that looks along +z, slightly turned; ``off_centre`` is a fraction of the image size."""
    axis = rng.normal(size=3)
    axis *= 0.15 / np.linalg.norm(axis)
    w, (x, y, z) = math.sqrt(1 - axis @ axis), axis
    pose = np.eye(4)
    pose[:3, :3] = dense_reference.rotation_matrices(torch.tensor([[w, x, y, z]], dtype=torch.float64))[0].numpy()
    pose[:3, 3] = rng.uniform(-0.1, 0.1, 3)
    focal = width / (2 * math.tan(math.radians(30)))
    cx, cy = width * (0.5 + off_centre), height * (0.5 - off_centre)
    return Camera("view", width, height, focal, focal * 1.1, cx, cy, pose)


def make_splats(rng: np.random.Generator, count: int, degree: int = 3, **changes: np.ndarray) -> GaussianModel:
    """Gaussians a few pixels wide that fill the view of :func:`make_camera`; ``changes`` replaces whole parameters."""
    parameters = {
        "means": rng.uniform([-2.4, -2.2, 3], [2.4, 2.2, 7], (count, 3)),
        "log_scales": rng.normal(math.log(0.25), 0.5, (count, 3)),
        "quaternions": rng.normal(0, 1, (count, 4)),
        "opacity_logits": rng.normal(0, 2, (count, 1)),
        "sh_dc": rng.uniform(-1.2, 1.7, (count, 1, 3)),
        "sh_rest": rng.normal(0, 0.15, (count, (degree + 1) ** 2 - 1, 3)),
    }
    return GaussianModel.from_arrays(**{**parameters, **changes})


def ordinary(rng: np.random.Generator) -> GaussianModel:
    return make_splats(rng, 150)


def needles(rng: np.random.Generator) -> GaussianModel:
    """Ratios of the longest to the other axes up to 1e4."""
    log_scales = np.log(rng.uniform(0.5, 3, (100, 1))) - rng.uniform(math.log(30), math.log(1e4), (100, 3))
    log_scales[np.arange(100), rng.integers(0, 3, 100)] = np.log(rng.uniform(0.5, 3, 100))
    return make_splats(rng, 100, log_scales=log_scales)


def huge(rng: np.random.Generator) -> GaussianModel:
    """Far larger than the view, some seen from within."""
    return make_splats(
        rng, 40, log_scales=rng.normal(math.log(5), 1, (40, 3)), opacity_logits=rng.normal(-3, 1, (40, 1))
    )


def tiny(rng: np.random.Generator) -> GaussianModel:
    """Thousandths of a pixel and less: only the dilation is seen."""
    return make_splats(rng, 200, log_scales=rng.uniform(-25, -7, (200, 3)))


def all_around(rng: np.random.Generator) -> GaussianModel:
    """Behind the camera, beside the view and in it."""
    return make_splats(rng, 300, means=rng.uniform(-6, 6, (300, 3)))


def near_plane(rng: np.random.Generator) -> GaussianModel:
    """Depths about the near plane, where the Jacobian and its clamp are at their extremes."""
    means = np.stack([*rng.uniform(-0.4, 0.4, (2, 100)), rng.uniform(0.05, 0.6, 100)], 1)
    return make_splats(rng, 100, means=means, log_scales=rng.normal(math.log(0.03), 0.5, (100, 3)))


def saturated(rng: np.random.Generator) -> GaussianModel:
    """Opacity logits up to 20 either way: capped alphas, pixels that end, Gaussians that are never seen."""
    return make_splats(rng, 120, opacity_logits=rng.uniform(-20, 20, (120, 1)))


def dark(rng: np.random.Generator) -> GaussianModel:
    """Many colours clamped at zero."""
    return make_splats(rng, 150, sh_dc=rng.normal(-1.8, 0.5, (150, 1, 3)))


def unnormalised(rng: np.random.Generator) -> GaussianModel:
    """Quaternions of lengths from 1e-4 to 1e4."""
    quaternions = rng.normal(0, 1, (150, 4)) * 10 ** rng.uniform(-4, 4, (150, 1))
    return make_splats(rng, 150, quaternions=quaternions)


FAMILIES = [ordinary, needles, huge, tiny, all_around, near_plane, saturated, dark, unnormalised]


def leaves(model: GaussianModel, dtype: torch.dtype = torch.float32) -> GaussianModel:
    return model.map(lambda tensor: tensor.detach().to(dtype).clone()).requires_grad_()


def gradients(model: GaussianModel, offsets: Tensor) -> dict[str, Tensor]:
    named = {name: tensor.grad for name, tensor in model.named_parameters()}
    return {name: grad for name, grad in {**named, "screen_offsets": offsets.grad}.items() if grad is not None}


def compare(
    backend: str, camera: Camera, model: GaussianModel, rng: np.random.Generator, *, degree: int = 3,
    image_tolerance: float = 1e-5, gradient_tolerance: float = 3e-5,
) -> None:  # fmt: skip
    """Image, radii and gradients agree with the reference wherever float32 can decide the thresholds.

    ``gradient_tolerance`` bounds the error of each parameter's whole gradient, relative to its norm. Fragile pixels are
    left out of the loss, so that one flipped threshold cannot hide, or excuse, a wrong gradient.
    """
    background = torch.from_numpy(rng.uniform(0, 1, 3).astype(np.float32))
    exact, ours = leaves(model, torch.float64), leaves(model)
    exact_offsets = torch.zeros(len(model), 2, dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(len(model), 2, requires_grad=True)
    reference = dense_reference.render(
        camera, exact, background.double(), sh_degree=degree, screen_offsets=exact_offsets
    )
    rendering = render(camera, ours, background, backend=backend, sh_degree=degree, screen_offsets=offsets)

    certain = ~reference.is_fragile
    assert certain.float().mean() >= 1 - FRAGILE_MAX
    assert rendering.image.shape == (camera.height, camera.width, 3)
    difference = (rendering.image - reference.image).detach().abs()
    assert difference[certain].max() < image_tolerance
    assert difference.max() < 0.02, "a flipped threshold changes a pixel by little"
    assert ((rendering.radii - reference.radii).abs() <= 1).all(), "the radius is rounded up"
    assert ((rendering.radii > 0) != (reference.radii > 0)).sum() <= 1

    weights = torch.from_numpy(rng.normal(size=(camera.height, camera.width, 3))) * certain[..., None]
    (rendering.image * weights.float()).sum().backward()
    (reference.image * weights.float().double()).sum().backward()
    expected = gradients(exact, exact_offsets)
    actual = gradients(ours, offsets)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (actual[name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        assert error < gradient_tolerance, f"gradient of {name}: relative error {error:.2g}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_image_and_gradients(backend, family, seed):
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    compare(backend, make_camera(rng), family(rng), rng)


@pytest.mark.parametrize(("stored", "active"), [(0, 0), (1, 1), (2, 2), (3, 2), (3, 1), (3, 0), (2, 1), (1, 0)])
def test_spherical_harmonics_of_any_degree(backend, stored, active):
    rng = np.random.default_rng([100, stored, active])
    model = make_splats(rng, 80, degree=stored)
    compare(backend, make_camera(rng), model, rng, degree=active)


def test_a_degree_above_the_stored_one_takes_what_is_there(backend):
    rng = np.random.default_rng(101)
    camera, model, background = make_camera(rng), make_splats(rng, 50, degree=1), torch.zeros(3)
    expected = render(camera, model, background, backend=backend, sh_degree=1).image
    for degree in (None, 3):
        assert torch.equal(render(camera, model, background, backend=backend, sh_degree=degree).image, expected)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 31), (33, 5), (64, 2), (48, 48)])
@pytest.mark.parametrize("off_centre", [0.0, 0.3, -0.8])
def test_any_image_size_and_principal_point(backend, width, height, off_centre):
    rng = np.random.default_rng([102, width, height, int(10 * off_centre + 50)])
    compare(backend, make_camera(rng, width, height, off_centre), make_splats(rng, 100), rng)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_none_one_and_two_gaussians(backend, count):
    rng = np.random.default_rng([103, count])
    means = rng.uniform([-0.5, -0.5, 4], [0.5, 0.5, 5], (count, 3))
    compare(backend, make_camera(rng), make_splats(rng, count, means=means), rng)


def test_nothing_to_see_is_the_background(backend):
    rng = np.random.default_rng(104)
    behind = make_splats(rng, 30, means=rng.uniform([-1, -1, -9], [1, 1, -1], (30, 3)))
    background = torch.tensor([0.2, 1.5, -0.3])  # Any background, also one that is no displayable colour.
    for model in (GaussianModel.empty(), behind):
        rendering = render(make_camera(rng), model, background, backend=backend)
        assert torch.equal(rendering.image, background.expand(HEIGHT, WIDTH, 3))
        assert not rendering.radii.any()


def test_more_pairs_than_can_be_numbered_are_refused(backend):
    """Gaussians that cover an image of 65,536 x 65,536 pixels; nothing of its size is allocated."""
    camera = Camera("vast", MAX_SIDE, MAX_SIDE, 1e5, 1e5, MAX_SIDE / 2, MAX_SIDE / 2, np.eye(4))
    model = make_splats(np.random.default_rng(119), 128, log_scales=np.full((128, 3), 3.0))
    model.opacity_logits.fill_(5.0)
    with pytest.raises(UserError, match=r"^2147483648 pairs .* too many to render; use smaller images$"):
        render(camera, model, torch.zeros(3), backend=backend)


def test_the_reference_has_the_gradients_of_what_it_computes():
    """Finite differences, on a scene without capped alphas, clamped coordinates or thresholds in the way."""
    rng = np.random.default_rng(105)
    count, camera = 3, make_camera(rng, 8, 6)
    model = make_splats(
        rng, count, means=rng.uniform([-0.6, -0.6, 3], [0.6, 0.6, 5], (count, 3)),
        log_scales=rng.normal(0.5, 0.2, (count, 3)), opacity_logits=rng.uniform(-2, 0, (count, 1)),
    )  # fmt: skip
    weights = torch.from_numpy(rng.normal(size=(6, 8, 3)))
    offsets = torch.zeros(count, 2, dtype=torch.float64, requires_grad=True)
    parameters = [tensor for _, tensor in leaves(model, torch.float64).named_parameters()]

    def loss(*tensors: Tensor) -> Tensor:
        *six, moved = tensors
        reference = dense_reference.render(
            camera, GaussianModel(*six), torch.ones(3).double(), sh_degree=3, screen_offsets=moved
        )
        assert not reference.is_fragile.any()
        return (reference.image * weights).sum()

    assert torch.autograd.gradcheck(loss, (*parameters, offsets), eps=1e-6, atol=1e-6, rtol=1e-4)


def test_spherical_harmonics_of_the_reference_are_orthonormal():
    """Integrated over the sphere, exactly, by Gauss-Legendre and equidistant points."""
    heights, weights = np.polynomial.legendre.leggauss(8)
    angles = np.arange(16) * (2 * math.pi / 16)
    height, angle = (grid.ravel() for grid in np.meshgrid(heights, angles, indexing="ij"))
    radius = np.sqrt(1 - height**2)
    directions = torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1))
    area = torch.from_numpy(np.repeat(weights, 16) * (2 * math.pi / 16))
    values = dense_reference.spherical_harmonics(directions, 3)
    torch.testing.assert_close(values.T @ (area[:, None] * values), torch.eye(16, dtype=torch.float64))


def centred(opacity_logit: float, **changes: np.ndarray) -> GaussianModel:
    """One round Gaussian in the middle of the view of a camera at the origin."""
    parameters = {
        "means": np.array([[0.0, 0.0, 4.0]]),
        "log_scales": np.full((1, 3), math.log(0.5)),
        "quaternions": np.array([[1.0, 0, 0, 0]]),
        "opacity_logits": np.array([[opacity_logit]]),
        "sh_dc": np.zeros((1, 1, 3)),
        "sh_rest": np.zeros((1, 0, 3)),
    }
    return GaussianModel.from_arrays(**{**parameters, **changes})


STRAIGHT = Camera("straight", 32, 32, 40.0, 40.0, 16.5, 16.5, np.eye(4))  # The axis meets the centre of pixel (16, 16).


def test_alpha_is_capped_and_its_gradient_is_not(backend):
    model = leaves(centred(8.0))
    image = render(STRAIGHT, model, torch.zeros(3), backend=backend).image
    assert image[16, 16, 0].item() == pytest.approx(0.99 * 0.5, rel=1e-6)
    image[16, 16, 0].backward()
    opacity = torch.sigmoid(torch.tensor(8.0, dtype=torch.float64)).item()
    assert model.opacity_logits.grad.item() == pytest.approx(0.5 * opacity * (1 - opacity), rel=1e-3)


def test_the_near_plane_is_at_a_fifth(backend):
    for depth, seen in ((0.2, False), (0.2001, True)):
        model = centred(2.0, means=np.array([[0.0, 0.0, depth]]), log_scales=np.full((1, 3), math.log(0.01)))
        rendering = render(STRAIGHT, model, torch.zeros(3), backend=backend)
        assert bool(rendering.image.any()) is seen
        assert bool(rendering.radii[0] > 0) is seen


def test_gaussians_of_equal_depth_keep_their_order(backend):
    model = GaussianModel.concatenate([centred(4.0, sh_dc=np.full((1, 1, 3), value)) for value in (1.0, -1.0)])
    forward = render(STRAIGHT, model, torch.zeros(3), backend=backend).image
    backward = render(STRAIGHT, model.select(torch.tensor([1, 0])), torch.zeros(3), backend=backend).image
    assert forward[16, 16, 0] > 0.7 > 0.3 > backward[16, 16, 0]


@pytest.mark.parametrize("angle", [0.1, 0.7854, 1.2])
def test_a_needle_of_ratio_ten_thousand(backend, angle):
    """``a c - b b`` in float32 loses every digit here; image and gradients must not."""
    rng = np.random.default_rng(106)
    tilted = np.array([[math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]])
    model = centred(3.0, log_scales=np.log([[5.0, 5e-4, 5e-4]]), quaternions=tilted, sh_rest=np.zeros((1, 15, 3)))
    compare(backend, STRAIGHT, model, rng, gradient_tolerance=1e-4)


def passes(backend: str, model: GaussianModel, camera: Camera, weights: Tensor) -> list[Tensor]:
    """Image, radii and gradients of one forward and backward pass."""
    fresh = leaves(model)
    offsets = torch.zeros(len(model), 2, requires_grad=True)
    rendering = render(camera, fresh, torch.tensor([0.1, 0.2, 0.3]), backend=backend, screen_offsets=offsets)
    (rendering.image * weights).sum().backward()
    return [rendering.image.detach(), rendering.radii, *gradients(fresh, offsets).values()]


def test_same_bits_on_one_and_two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba may use one thread only here (one core, or NUMBA_NUM_THREADS=1)")
    rng = np.random.default_rng(107)
    camera = make_camera(rng, 120, 90)
    weights = torch.from_numpy(rng.normal(size=(90, 120, 3))).float()
    before = torch.get_num_threads()
    try:
        for family in (ordinary, huge, saturated, all_around):
            model = GaussianModel.concatenate([family(rng) for _ in range(8)])
            torch.set_num_threads(1)
            one = passes("cpu", model, camera, weights)
            torch.set_num_threads(2)
            two = passes("cpu", model, camera, weights)
            for left, right in zip(one, two, strict=True):
                assert left.numpy().tobytes() == right.numpy().tobytes()
    finally:
        torch.set_num_threads(before)


def test_two_passes_in_flight_do_not_disturb_each_other(backend):
    rng = np.random.default_rng(108)
    model, weights = ordinary(rng), torch.from_numpy(rng.normal(size=(HEIGHT, WIDTH, 3))).float()
    cameras = [make_camera(rng), make_camera(rng)]
    alone = [passes(backend, model, camera, weights) for camera in cameras]
    background = torch.tensor([0.1, 0.2, 0.3])
    copies = [leaves(model) for _ in cameras]
    images = [render(c, m, background, backend=backend).image for c, m in zip(cameras, copies, strict=True)]
    for image in reversed(images):
        (image * weights).sum().backward()
    for copy, image, expected in zip(copies, images, alone, strict=True):
        assert torch.equal(image.detach(), expected[0])
        for (_, tensor), gradient in zip(copy.named_parameters(), expected[2:], strict=False):
            assert torch.equal(tensor.grad, gradient)


def test_no_gradients_are_recorded_where_none_are_wanted(backend):
    rng = np.random.default_rng(109)
    camera, model, background = make_camera(rng), leaves(ordinary(rng)), torch.ones(3)
    recorded = render(camera, model, background, backend=backend)
    assert recorded.image.requires_grad
    assert not recorded.radii.requires_grad
    with torch.no_grad():
        silent = render(camera, model, background, backend=backend)
    assert not silent.image.requires_grad
    assert torch.equal(silent.image, recorded.image)
    assert torch.equal(silent.radii, recorded.radii)
    assert not render(camera, model.detach(), background, backend=backend).image.requires_grad


def peak_and_kept(work) -> tuple[int, int]:
    """Bytes of arrays allocated at the peak of some work, and those still held by what it returns."""
    work()
    tracemalloc.start()
    try:
        result = work()
        kept, peak = tracemalloc.get_traced_memory()
        del result
        return peak, kept
    finally:
        tracemalloc.stop()


def test_without_gradients_nothing_is_kept_and_less_is_allocated():
    rng = np.random.default_rng(117)
    width, height = 320, 240
    camera, background = make_camera(rng, width, height), torch.zeros(3)
    model = make_splats(rng, 3000)
    recording = model.clone().requires_grad_()
    image = render(camera, model, background, backend="cpu").image
    assert torch.equal(image, render(camera, recording, background, backend="cpu").image)

    peak_recorded, kept_recorded = peak_and_kept(lambda: render(camera, recording, background, backend="cpu"))
    peak_silent, kept_silent = peak_and_kept(lambda: render(camera, model, background, backend="cpu"))
    result_bytes = 4 * (width * height * 3 + len(model))
    assert result_bytes <= kept_silent < 1.05 * result_bytes
    # Transmittance and end of every pixel, and the numbers of the pairs.
    assert kept_recorded > kept_silent + 8 * width * height
    assert peak_recorded > peak_silent + 8 * width * height


def test_a_view_of_a_small_part_of_the_scene(backend):
    """Most Gaussians lie outside, near and far: the quick test before the projection proper drops none that shows."""
    rng = np.random.default_rng(118)
    count = 800
    means, log_scales = rng.uniform(-12, 12, (count, 3)), rng.uniform(-6, 1, (count, 3))
    model = make_splats(rng, count, means=means, log_scales=log_scales)
    camera = make_camera(rng, off_centre=0.2)
    assert 0.02 < (render(camera, model, torch.zeros(3), backend=backend).radii > 0).float().mean() < 0.5
    compare(backend, camera, model, rng)


def test_only_some_parameters_want_gradients(backend):
    rng = np.random.default_rng(110)
    model, weights = ordinary(rng), torch.ones(HEIGHT, WIDTH, 3)
    camera = make_camera(rng)
    everything = passes(backend, model, camera, weights)
    partial = model.clone()
    partial.sh_dc.requires_grad_()
    image = render(camera, partial, torch.tensor([0.1, 0.2, 0.3]), backend=backend).image
    (image * weights).sum().backward()
    assert torch.equal(partial.sh_dc.grad, everything[2 + 4])
    assert partial.means.grad is None


def test_inputs_of_any_layout_and_type(backend):
    rng = np.random.default_rng(111)
    camera, model, weights = make_camera(rng), ordinary(rng), torch.ones(HEIGHT, WIDTH, 3)
    background = torch.tensor([0.1, 0.2, 0.3])
    expected = passes(backend, model, camera, weights)

    strided = model.map(lambda t: torch.stack([t, t + 1], -1)[..., 0].detach()).requires_grad_()
    assert not strided.means.is_contiguous()
    double = leaves(model, torch.float64)
    for variant in (strided, double):
        image = render(camera, variant, background.to(variant.means.dtype), backend=backend).image
        assert image.dtype == torch.float32
        assert torch.equal(image.detach(), expected[0])
        # The gradient of a sum arrives as an expanded tensor, of no memory of its own.
        image.sum().backward()
        for (_, tensor), gradient in zip(variant.named_parameters(), expected[2:], strict=False):
            assert tensor.grad.dtype == tensor.dtype
            assert torch.equal(tensor.grad, gradient.to(tensor.dtype))


ABSURD = [math.nan, math.inf, -math.inf, 1e30, -1e30, 1e38, 1e-38]


@pytest.mark.parametrize("parameter", [name for name, _ in GaussianModel.empty().named_parameters()])
@pytest.mark.parametrize("value", ABSURD)
def test_absurd_parameters_do_no_harm(backend, parameter, value):
    """No crash, no write out of bounds, no NaN in the image or in the gradients of the other Gaussians.

    A Gaussian that is not a number is culled: the others render as if it were not there.
    """
    rng = np.random.default_rng(112)
    camera, model = make_camera(rng), make_splats(rng, 64)
    broken = torch.arange(len(model)) % 4 == 0
    getattr(model, parameter)[broken] = value
    weights = torch.from_numpy(rng.normal(size=(HEIGHT, WIDTH, 3))).float()
    image, radii, *grads = passes(backend, model, camera, weights)
    assert image.isfinite().all()
    assert (radii >= 0).all()
    assert all(grad[~broken].isfinite().all() for grad in grads)
    if math.isnan(value):
        without, _, *expected = passes(backend, model.select(~broken), camera, weights)
        assert torch.equal(image, without)
        for grad, wanted in zip(grads, expected, strict=True):
            assert torch.equal(grad[~broken], wanted)
            assert not grad[broken].any()


def test_one_component_that_is_not_a_number(backend):
    rng = np.random.default_rng(113)
    camera, clean = make_camera(rng), make_splats(rng, 40)
    expected = render(camera, clean.select(torch.arange(1, 40)), torch.ones(3), backend=backend).image
    for name, tensor in clean.named_parameters():
        for component in range(tensor[0].numel()):
            model = clean.clone()
            getattr(model, name)[0].view(-1)[component] = math.nan
            image = render(camera, model, torch.ones(3), backend=backend).image
            assert torch.equal(image, expected), f"{name}, component {component}"


def test_a_gaussian_at_the_eye(backend):
    """Its direction has no length, but the near plane keeps it away from the harmonics."""
    rng = np.random.default_rng(114)
    camera = make_camera(rng)
    model = leaves(make_splats(rng, 3, means=np.tile(camera.center, (3, 1)), log_scales=np.ones((3, 3))))
    image = render(camera, model, torch.zeros(3), backend=backend).image
    image.sum().backward()
    assert not image.any()
    assert all(not tensor.grad.any() for _, tensor in model.named_parameters())


def _render_in_child(model: GaussianModel, camera: Camera, weights: Tensor, answers) -> None:
    answers.put([tensor.numpy().tobytes() for tensor in passes("cpu", model, camera, weights)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_render():
    """Data loaders fork; a threading layer that does not survive it would hang the child for ever."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    rng = np.random.default_rng(115)
    camera, model = make_camera(rng), ordinary(rng)
    weights = torch.from_numpy(rng.normal(size=(HEIGHT, WIDTH, 3))).float()
    expected = [tensor.numpy().tobytes() for tensor in passes("cpu", model, camera, weights)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_render_in_child, args=(model, camera, weights, answers))
    child.start()
    try:
        assert answers.get(timeout=60) == expected
    finally:
        child.join(10)
        child.kill()


def test_an_unknown_backend_is_refused():
    rng = np.random.default_rng(116)
    with pytest.raises(UserError, match="--backend voxel: no such backend"):
        render(make_camera(rng), GaussianModel.empty(), torch.zeros(3), backend="voxel")


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("tiles", [1, 6, 475, 1700])
def test_each_tile_is_dealt_to_one_thread(tiles, threads):
    """Threads take equal shares of consecutive jobs; each gets tiles from all over the image."""
    dealt = [blending.dealt.py_func(job, tiles, threads) for job in range(tiles)]
    assert sorted(dealt) == list(range(tiles))
    assert dealt[: -(-tiles // threads)] == list(range(0, tiles, threads))
