"""What our renderers measure of each Gaussian is what leaving it out does to the image.

Checked against renders without each Gaussian on scenes with capped alphas, cut-offs, clamped colours, culled Gaussians
and pixels that end; and that the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from gaussian_renderer import ViewStatistics, choose_backend, render, render_statistics
from gsz.splats import SH_C0
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests import dense_reference
from tests.gaussian_renderer.test_render import (
    HEIGHT,
    WIDTH,
    all_around,
    dark,
    huge,
    make_camera,
    make_splats,
    near_plane,
    needles,
    ordinary,
    saturated,
    tiny,
)

BACKGROUND = torch.tensor([0.1, 0.2, 0.9])


def image(backend: str, camera: Camera, model: GaussianModel) -> Tensor:
    return render(camera, model, BACKGROUND, backend=backend).image.double()


def measure(backend: str, camera: Camera, model: GaussianModel, target: Tensor | None = None) -> ViewStatistics:
    statistics = render_statistics(camera, model, BACKGROUND, backend=backend, target=target)
    assert statistics is not None
    return statistics


def assert_close(measured: Tensor, exact: list[Tensor], tolerance: float) -> None:
    """Every value within the tolerance, or within a tenth of it of the largest value."""
    wanted = torch.stack(exact)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(measured.double(), wanted, rtol=tolerance, atol=0.1 * tolerance * scale)


# No pixel of the first scenes ends early, or only behind many faint Gaussians. In the last most do.
Family = Callable[[np.random.Generator], GaussianModel]
FAMILIES = [ordinary, needles, huge, tiny, all_around, near_plane, dark]


@pytest.mark.parametrize(("family", "tolerance"), [*((family, 1e-3) for family in FAMILIES), (saturated, 0.05)])
def test_statistics_are_those_of_renders_without_each_gaussian(backend, family, tolerance):
    rng = np.random.default_rng([200, FAMILIES.index(family) if family in FAMILIES else 99])
    camera, model = make_camera(rng), family(rng)
    target = torch.from_numpy(rng.uniform(size=(HEIGHT, WIDTH, 3)))
    statistics = measure(backend, camera, model, target.float())
    whole = image(backend, camera, model)
    assert torch.equal(statistics.image.double(), whole)

    errors, losses, plain_errors = [], [], []
    chosen = torch.arange(0, len(model), 3)
    for index in chosen.tolist():
        without = image(backend, camera, model.select(torch.arange(len(model)) != index))
        plain = model.clone()
        plain.sh_rest[index] = 0.0
        errors.append((without - whole).square().sum())
        losses.append((without - target).square().sum() - (whole - target).square().sum())
        plain_errors.append((image(backend, camera, plain) - whole).square().sum())
    assert_close(statistics.removal_error[chosen], errors, tolerance)
    assert statistics.removal_loss is not None
    assert_close(statistics.removal_loss[chosen], losses, tolerance)
    assert_close(statistics.sh_removal_error[chosen], plain_errors, tolerance)


@pytest.mark.parametrize("family", [ordinary, all_around, saturated])
def test_blend_weights_add_up_to_what_hides_the_background(backend, family):
    rng = np.random.default_rng([201, FAMILIES.index(family) if family in FAMILIES else 99])
    camera, model = make_camera(rng), family(rng)
    weights = measure(backend, camera, model).blend_weight
    model.sh_rest.zero_()
    model.sh_dc[:] = 0.5 / 0.28209479177387814  # Every colour is 1, so a pixel is the sum of its weights.
    white = render(camera, model, torch.zeros(3), backend=backend).image[..., 0]
    assert float(weights.sum()) == pytest.approx(float(white.sum()), rel=1e-4)
    assert (weights >= 0).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 31), (64, 2)])
def test_any_image_size(backend, width, height):
    rng = np.random.default_rng([202, width, height])
    camera, model = make_camera(rng, width, height), make_splats(rng, 40)
    whole = image(backend, camera, model)
    exact = [
        (image(backend, camera, model.select(torch.arange(40) != index)) - whole).square().sum()
        for index in range(len(model))
    ]
    assert_close(measure(backend, camera, model).removal_error, exact, 1e-3)


def exact_levers(camera: Camera, model: GaussianModel) -> tuple[Tensor, Tensor]:
    """In float64: ``(N, H, W)`` weight times position along the longest axis, and the pixels too close to call.

    The weights are renders of one Gaussian in white among black ones, three at a time; positions come from the inverse
    covariance outright.
    """
    exact, count = model.map(lambda tensor: tensor.double()), len(model)
    exact.sh_rest.zero_()
    weights = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.float64)
    for first in range(0, count, 3):
        exact.sh_dc[:] = -0.5 / SH_C0
        few = min(3, count - first)
        exact.sh_dc[torch.arange(first, first + few), 0, torch.arange(few)] = 0.5 / SH_C0
        reference = dense_reference.render(camera, exact, torch.zeros(3, dtype=torch.float64), sh_degree=3)
        weights[first : first + few] = reference.image.permute(2, 0, 1)[:few]
    world_to_camera = torch.from_numpy(camera.world_to_camera)
    rotation = world_to_camera[:3, :3]
    positions = exact.means @ rotation.T + world_to_camera[:3, 3]
    axes = dense_reference.screen_axes(camera, positions, rotation, exact)
    covariances = axes @ axes.mT + dense_reference.DILATION * torch.eye(2, dtype=torch.float64)
    longest = axes[torch.arange(count), :, model.log_scales.argmax(1)]
    focal, principal = torch.tensor([camera.fx, camera.fy]), torch.tensor([camera.cx, camera.cy])
    centers = focal * positions[:, :2] / positions[:, 2:] + principal - 0.5
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    offsets = torch.stack([columns, rows], -1) - centers[:, None, None, :]
    along = torch.einsum("nyxi,nij,nj->nyx", offsets, torch.linalg.inv(covariances), longest)
    return torch.where(weights > 0, weights * along, 0.0), reference.is_fragile


@cache
def case_with_levers(family: Family) -> tuple[Camera, GaussianModel, Tensor, Tensor, Tensor]:
    """A scene, a target, and the exact levers, which take far longer than what is compared: made for all backends."""
    rng = np.random.default_rng([208, FAMILIES.index(family) if family in FAMILIES else 99])
    camera, model = make_camera(rng), family(rng)
    target = torch.from_numpy(rng.uniform(size=(HEIGHT, WIDTH, 3))).float()
    return camera, model, target, *exact_levers(camera, model)


@pytest.mark.parametrize("family", [*FAMILIES, saturated])
def test_tilts_are_those_of_the_dense_reference(backend, family):
    """Pixels whose thresholds float32 may decide otherwise are given a target that leaves no residual."""
    camera, model, target, levers, is_fragile = case_with_levers(family)
    shown = render(camera, model, BACKGROUND, backend=backend).image
    target = torch.where(is_fragile[..., None], shown, target)
    residual = shown.double() - target.double()
    measured = measure(backend, camera, model, target).tilt
    assert measured is not None
    measured = measured.double()
    tilts = torch.einsum("nyx,yxc->nc", levers, residual)
    # The sum cancels, so its error is relative to that of the magnitudes.
    magnitudes = torch.einsum("nyx,yxc->nc", levers.abs(), residual.abs())
    assert tilts.abs().max() > 0
    assert ((measured[:, :3] - tilts).abs() <= 1e-5 * magnitudes + 1e-7 * magnitudes.max()).all()
    squared = levers.square()
    # A weight that is decided otherwise is at most 1/255 on an ellipse of 3.4 deviations.
    undecided = (0.01 * squared + (3.4 / 255) ** 2)[:, is_fragile].sum(1)
    wanted = squared.sum((1, 2))
    assert ((measured[:, 3] - wanted).abs() <= 1e-5 * wanted + 1e-7 * wanted.max() + undecided).all()


def test_without_a_target_nothing_is_said_about_error(backend):
    rng = np.random.default_rng(203)
    camera, model = make_camera(rng), ordinary(rng)
    assert measure(backend, camera, model).removal_loss is None
    assert measure(backend, camera, model).tilt is None
    # Against itself an image has no error, and the change of the squared error is the squared change.
    statistics = measure(backend, camera, model, measure(backend, camera, model).image)
    assert torch.equal(statistics.removal_loss, statistics.removal_error)
    assert statistics.tilt is not None and not statistics.tilt[:, :3].any()


def test_a_model_without_gaussians_and_one_that_is_not_seen(backend):
    rng = np.random.default_rng(204)
    behind = make_splats(rng, 5, means=rng.uniform([-1, -1, -9], [1, 1, -1], (5, 3)))
    for model in (GaussianModel.empty(), behind):
        statistics = measure(backend, make_camera(rng), model)
        for values in (statistics.removal_error, statistics.blend_weight, statistics.sh_removal_error):
            assert values.shape == (len(model),)
            assert not values.any()


def test_no_gradient_is_recorded_and_the_model_is_left_alone(backend):
    rng = np.random.default_rng(205)
    camera, model = make_camera(rng), ordinary(rng).requires_grad_()
    before = model.clone()
    statistics = measure(backend, camera, model)
    assert not statistics.image.requires_grad and not statistics.removal_error.requires_grad
    for (_, old), (_, new) in zip(before.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(old, new)


def test_same_bits_on_one_and_two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba may use one thread only here (one core, or NUMBA_NUM_THREADS=1)")
    rng = np.random.default_rng(206)
    camera, model = make_camera(rng, 120, 90), GaussianModel.concatenate([saturated(rng) for _ in range(8)])
    target = torch.from_numpy(rng.uniform(size=(90, 120, 3))).float()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(measure("cpu", camera, model, target))
    finally:
        torch.set_num_threads(before)
    for name in ("image", "blend_weight", "removal_error", "sh_removal_error", "removal_loss", "tilt"):
        assert torch.equal(*(getattr(result, name) for result in results)), name


def test_backends_without_such_a_pass_say_so(monkeypatch: pytest.MonkeyPatch):
    import gaussian_renderer

    rng = np.random.default_rng(207)
    backend = choose_backend("cpu")
    silent = gaussian_renderer.Backend("other", backend.device, "another", backend.render)
    monkeypatch.setattr(gaussian_renderer, "choose_backend", lambda name: silent)
    assert render_statistics(make_camera(rng), ordinary(rng), BACKGROUND, backend="other") is None
