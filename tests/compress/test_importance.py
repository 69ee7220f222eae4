"""Proves that the scores are what they say: changes of the image, checked against renders without the Gaussian.

Both as the CPU backend measures them and as they are estimated from gradients where a backend measures nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress import importance
from compress.prune import has_sh_rest, prune_sh
from compress.views import Views
from gaussian_renderer.screen_axes import ScreenAxes
from gsz.splats import SH_C0
from scene import open_scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.tiny_run import tiny_splats, write_tiny_scene


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    source, _ = write_tiny_scene(tmp_path_factory.mktemp("tiny"))
    scene = open_scene(SceneOptions(source_path=source, eval=True))
    return Views.of(scene, scene.train[:2])


@pytest.fixture(scope="module")
def splats() -> GaussianModel:
    """Opacities and colours stay clear of the cap, the clamp and the end of a pixel, where linearity ends.

    The cut at 1/255 cannot be avoided; it is what the tolerances below are for.
    """
    model = tiny_splats(25)
    model.opacity_logits.clamp_(-1.0, 0.5)
    model.sh_dc.clamp_(-0.5, 1.0)
    return model


@pytest.fixture
def probes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that measures nothing, as those on CUDA do not."""
    monkeypatch.setattr(importance, "render_statistics", lambda *arguments, **options: None)


def images(model: GaussianModel, views: Views) -> Tensor:
    with torch.no_grad():
        return torch.stack([views.render(camera, model).image for camera in views.cameras]).double()


def without(model: GaussianModel, index: int) -> GaussianModel:
    return model.select(torch.arange(len(model)) != index)


def exact_removal(splats: GaussianModel, views: Views) -> list[Tensor]:
    """The change of the images for each Gaussian, by leaving it out."""
    whole = images(splats, views)
    return [whole - images(without(splats, index), views) for index in range(len(splats))]


class Signs:
    """Keeps the random signs that a probe draws, one image a view."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[Tensor] = []
        draw = torch.randint

        def drawn(*arguments: Any, **options: Any) -> Tensor:
            self.drawn.append(draw(*arguments, **options))
            return self.drawn[-1].clone()

        monkeypatch.setattr(torch, "randint", drawn)

    @property
    def images(self) -> Tensor:
        """``(views, H, W, 3)`` of -1 and 1."""
        return torch.stack(self.drawn).double() * 2 - 1


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> Signs:
    return Signs(monkeypatch)


def probed(signs: Signs, changes: list[Tensor]) -> np.ndarray:
    """What one probe says of each change ``d`` of the images: the sum over views of ``(r · d)²``.

    For independent signs ``r`` its expectation is ``|d|²``, whatever ``d`` is; so a score that is this is unbiased.
    """
    return np.array([float((signs.images * change).sum((1, 2, 3)).square().sum()) for change in changes])


def assert_probes(scores: Tensor, expected: np.ndarray, changes: list[Tensor]) -> None:
    """Scores are those of a probe, up to a twentieth of the squared changes: the cut at 1/255 is not linear."""
    sizes = np.array([float(change.square().sum()) for change in changes])
    assert (sizes > 0.01 * sizes.max()).sum() > 10
    np.testing.assert_array_less(np.abs(scores.double().numpy() - expected), 0.05 * sizes + 1e-3 * sizes.max())


def test_the_probe_is_that_of_the_change_of_the_images(
    splats: GaussianModel, views: Views, probes_only: None, signs: Signs
):
    changes = exact_removal(splats, views)
    for seed in range(3):
        signs.drawn.clear()
        assert_probes(importance.removal_error(splats, views, (seed,)).gaussians, probed(signs, changes), changes)


def test_the_signs_of_the_probe_are_independent(splats: GaussianModel, views: Views, probes_only: None, signs: Signs):
    for seed in range(4):
        importance.removal_error(splats, views, (seed,))
    drawn = signs.images.flatten(1)
    assert len(drawn) == 8 and bool((drawn.abs() == 1).all())
    # Means and products of fair signs are 0, within 4.5 deviations of 1 / sqrt(n).
    limit = 4.5 / drawn.shape[1] ** 0.5
    assert float(drawn.mean(1).abs().max()) < limit
    assert float((drawn @ drawn.T / drawn.shape[1] - torch.eye(8)).abs().max()) < limit
    assert float((drawn[:, 1:] * drawn[:, :-1]).mean(1).abs().max()) < limit


def test_leaving_a_gaussian_out_is_linear_in_its_opacity(splats: GaussianModel, views: Views):
    changes = exact_removal(splats, views)
    weights = torch.randn(changes[0].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    leaves = splats.clone().requires_grad_()
    for index, camera in enumerate(views.cameras):
        (views.render(camera, leaves).image.double() * weights[index]).sum().backward()
    assert leaves.opacity_logits.grad is not None
    by_gradient = leaves.opacity_logits.grad[:, 0] / torch.sigmoid(-splats.opacity_logits[:, 0])
    by_removal = torch.stack([(change * weights).sum() for change in changes])
    torch.testing.assert_close(by_gradient.double(), by_removal, rtol=0.05, atol=0.05 * float(by_removal.abs().max()))


def test_the_sh_probe_is_that_of_what_its_loss_changes(
    splats: GaussianModel, views: Views, probes_only: None, signs: Signs
):
    whole = images(splats, views)
    changes = []
    for index in range(len(splats)):
        plain = splats.clone()
        plain.sh_rest[index] = 0.0
        changes.append(whole - images(plain, views))
    assert_probes(importance.sh_removal_error(splats, views, (1,)), probed(signs, changes), changes)


def exact_loss(splats: GaussianModel, views: Views) -> np.ndarray:
    """The change of the squared error for each Gaussian, by leaving it out."""
    targets = torch.stack([views.target(camera) for camera in views.cameras]).double()
    whole = images(splats, views)
    before = (whole - targets).square().sum()
    return np.array(
        [float((whole - change - targets).square().sum() - before) for change in exact_removal(splats, views)]
    )


def test_the_probe_of_the_loss_adds_what_the_error_before_says(
    splats: GaussianModel, views: Views, probes_only: None, signs: Signs
):
    """With ``d`` the change and ``e`` the error before it is ``|d|² - 2 e · d``, of which only ``|d|²`` is probed."""
    changes = exact_removal(splats, views)
    loss = exact_loss(splats, views)
    scores = importance.removal_loss(splats, views, (2,)).gaussians
    exact = np.array([float(change.square().sum()) for change in changes])
    expected = loss - exact + probed(signs, changes)
    assert np.abs(scores.double().numpy() - expected).max() < 0.05 * np.abs(loss).max()


def test_measured_removals_are_those_of_renders_without(splats: GaussianModel, views: Views):
    exact = np.array([float(change.square().sum()) for change in exact_removal(splats, views)])
    np.testing.assert_allclose(
        importance.removal_error(splats, views).gaussians, exact, rtol=1e-4, atol=1e-5 * exact.max()
    )
    by_loss, loss = importance.removal_loss(splats, views).gaussians, exact_loss(splats, views)
    np.testing.assert_allclose(by_loss, loss, rtol=1e-4, atol=1e-5 * np.abs(loss).max())


def test_measured_blend_weights_are_those_of_gradients(
    splats: GaussianModel, views: Views, request: pytest.FixtureRequest
):
    measured = importance.blend_weight(splats, views).gaussians
    request.getfixturevalue("probes_only")
    torch.testing.assert_close(measured, importance.blend_weight(splats, views).gaussians, rtol=1e-4, atol=1e-4)


def test_tilts_by_gradients_and_probes_are_those_measured(
    splats: GaussianModel, views: Views, request: pytest.FixtureRequest
):
    (measured,) = importance._measured(splats, views, lambda each: (each.tilt,), with_targets=True) or []
    request.getfixturevalue("probes_only")
    estimates = torch.stack([importance._tilt_by_gradients(splats, views, (seed,)) for seed in range(200)])
    scale = float(measured[:, :3].abs().max())
    torch.testing.assert_close(estimates[0, :, :3], measured[:, :3], rtol=1e-4, atol=1e-5 * scale)
    assert torch.equal(estimates[:, :, :3], estimates[:1, :, :3].expand(200, -1, -1))
    # Three channels and two views a probe; 200 of them leave about 5 %.
    ratios = estimates[:, :, 3].mean(0) / measured[:, 3]
    assert abs(float(ratios.mean()) - 1.0) < 0.03
    assert ratios.min() > 0.75 and ratios.max() < 1.25


def test_a_split_gains_what_colors_that_change_along_the_axis_would(splats: GaussianModel, views: Views):
    """Fitted by least squares to the images of each Gaussian alone in white among black ones."""
    gains = importance.exchange(splats, views).gains
    targets = torch.stack([views.target(camera) for camera in views.cameras]).double()
    residual = images(splats, views) - targets
    exact = []
    for index in range(len(splats)):
        halves = splats.clone()
        halves.sh_rest.zero_()
        halves.sh_dc[:] = -0.5 / SH_C0
        halves.sh_dc[index] = 0.5 / SH_C0
        weights = images(halves, replace(views, background=torch.zeros(3)))[..., :1]
        levers = torch.stack(
            [
                along_longest_axis(camera, splats, index)[..., None] * weight
                for camera, weight in zip(views.cameras, weights, strict=True)
            ]
        )
        # What is left of the squared error after the best fit, channel by channel.
        fit = (levers * residual).sum((0, 1, 2)) / levers.square().sum()
        exact.append(float(residual.square().sum() - (residual - levers * fit).square().sum()))
    np.testing.assert_allclose(gains, exact, rtol=1e-3, atol=1e-4 * max(exact))


def along_longest_axis(camera: Camera, splats: GaussianModel, index: int) -> Tensor:
    axes = ScreenAxes.of(camera, splats)
    rows, columns = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    offsets = torch.stack([columns, rows], -1) - axes.centers[index]
    return (offsets @ axes.slopes[index]).double()


def test_what_is_not_seen_gains_nothing(splats: GaussianModel, views: Views):
    unseen = splats.clone()
    unseen.opacity_logits[:5] = -20.0
    gains = importance.exchange(unseen, views).gains
    assert not gains[:5].any() and bool((gains >= 0).all()) and gains.max() > 0


def test_measuring_needs_no_luck(splats: GaussianModel, views: Views):
    for score in (importance.removal_error, importance.removal_loss):
        first, second = (score(splats, views, (seed,)).gaussians for seed in (1, 2))
        assert torch.equal(first, second)
    first, second = (importance.sh_removal_error(splats, views, (seed,)) for seed in (1, 2))
    assert torch.equal(first, second)


def test_blend_weights_sum_to_what_is_not_transparent(splats: GaussianModel, views: Views):
    white = splats.clone()
    white.sh_rest.zero_()
    white.sh_dc[:] = 0.5 / 0.28209479177387814  # Every colour is 1, so a pixel is the sum of its weights.
    total = float(images(white, views)[..., 0].sum())
    assert float(importance.blend_weight(splats, views).gaussians.sum()) == pytest.approx(total, rel=1e-4)


def test_norms_per_view_are_never_below_the_norm_of_the_sum(splats: GaussianModel, views: Views):
    together = importance.gradient_sum(splats, views).gaussians
    apart = importance.gradient_per_view(splats, views).gaussians
    assert bool((apart >= together * (1 - 1e-4)).all())
    assert not torch.allclose(apart, together)


def test_what_is_below_a_quantile_of_gradient_and_opacity_has_the_smallest_scores(views: Views):
    """Against gradients of renders whose Gaussians are moved, for every quantile."""
    splats = tiny_splats(60)
    splats.means[50:] = torch.tensor([0.0, 0.0, 1e4])  # Seen by no view, which makes no gradient of them.
    gradients = torch.zeros(60)
    seen = torch.zeros(60)
    for camera in views.cameras:
        offsets = torch.zeros(60, 2, requires_grad=True)
        rendering = views.render(camera, splats.clone().requires_grad_(), offsets)
        importance.photometric_loss(rendering.image, views.target(camera)).backward()
        assert offsets.grad is not None
        gradients += (offsets.grad * torch.tensor([camera.width / 2, camera.height / 2])).norm(dim=1)
        seen += rendering.radii > 0
    gradients = torch.where(seen > 0, gradients / seen, 0.0)
    scores = importance.gradient_and_opacity(splats, views).gaussians
    order = torch.argsort(scores, stable=True)
    for quantile in (0.3, 0.5, 0.8):
        small = [
            values < values.sort().values[int(quantile * 60)] for values in (gradients, splats.opacity_logits[:, 0])
        ]
        below = set(torch.nonzero(small[0] & small[1])[:, 0].tolist())
        assert below <= set(order[: len(below) + 10].tolist())
        assert not below or max(scores[list(below)]) < quantile * 60


@pytest.mark.parametrize("name", importance.SCORES)
def test_every_score_is_finite_repeats_and_leaves_the_model_alone(name: str, splats: GaussianModel, views: Views):
    extreme = splats.clone()
    extreme.opacity_logits[0], extreme.opacity_logits[1] = 20.0, -20.0
    copy = extreme.clone()
    first, second = (importance.SCORES[name](extreme, views, (7, 1)).gaussians for _ in range(2))
    assert first.shape == (len(extreme),) and bool(torch.isfinite(first).all())
    assert torch.equal(first, second)
    for (_, before), (_, after) in zip(copy.named_parameters(), extreme.named_parameters(), strict=True):
        assert torch.equal(before, after)


def test_pruned_sh_is_the_least_scored_and_stays_out_of_the_count():
    splats = tiny_splats(10)
    splats.sh_rest[:4] = 0.0
    scores = torch.arange(10.0)
    pruned = prune_sh(splats, scores, 0.5)
    assert has_sh_rest(pruned).nonzero()[:, 0].tolist() == [7, 8, 9]
    assert has_sh_rest(splats).sum() == 6


def test_one_pass_scores_gaussians_and_their_view_dependence(
    splats: GaussianModel, views: Views, monkeypatch: pytest.MonkeyPatch
):
    expected = importance.sh_removal_error(splats, views, (3,))
    passes: list[int] = []
    measure = importance._measured
    monkeypatch.setattr(importance, "_measured", lambda *a, **k: (passes.append(1), measure(*a, **k))[1])
    scores = importance.removal_error(splats, views, (3,))
    assert scores.sh is not None and torch.equal(scores.sh, expected) and len(passes) == 1
    assert scores.exchange is not None and torch.equal(scores.exchange.costs, scores.gaussians)
    assert importance.blend_weight(splats, views, (3,)).sh is None


def test_without_statistics_the_exchange_is_estimated(splats: GaussianModel, views: Views, probes_only: None):
    scores, exchange = importance.removal_error(splats, views, (3,)), importance.exchange(splats, views, (3,))
    assert scores.exchange is None and torch.equal(exchange.costs, scores.gaussians)
    assert bool(torch.isfinite(exchange.gains).all()) and bool((exchange.gains >= 0).all())
