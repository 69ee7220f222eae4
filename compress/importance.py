"""How much each Gaussian matters to the training views: one function a score.

Every score takes the model (with the values its file would hold), the views and a seed, and returns :class:`Scores`;
the Gaussians with the smallest are pruned first. Each makes one pass over the views, which processes that share a run
split among them.

The CPU backend measures what leaving a Gaussian out does to a view (:func:`gaussian_renderer.render_statistics`). For
the others two facts give the same from gradients. A rendered image is linear in each opacity (the cap of alpha and the
cut-offs aside), so leaving Gaussian k out changes it by exactly ``-o_k dI/do_k``. And for random signs ``r``, one a
pixel and channel, ``E (r · d)² = |d|²``; hence ``(o_k d(r · I)/do_k)²``, which one ordinary backward pass gives for all
k at once, is an unbiased estimate of the squared change of the image (Hutchinson's estimator of a norm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.views import Views
from gaussian_renderer import ViewStatistics, render_statistics
from gaussian_renderer.screen_axes import ScreenAxes
from gsz.splats import SH_C0
from quality.losses import photometric_loss
from scene.gaussian_model import GaussianModel
from utils import ranks

Seed = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Exchange:
    """What it costs to drop a Gaussian and what another one gains from being two, in the same unit.

    Attributes:
        costs: ``(N,)`` squared change of the images without each Gaussian, as of :func:`removal_error`.
        gains: ``(N,)`` by how much a color that changes along the axis lowers the squared error: :func:`split_gain`.
    """

    costs: Tensor
    gains: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """What a score says of ``N`` Gaussians.

    Attributes:
        gaussians: ``(N,)`` importance of each.
        sh: ``(N,)`` importance of each one's view dependence, by :func:`sh_removal_error`, where the pass over the
            views yields it for nothing.
        exchange: What :func:`exchange` gives, likewise.
    """

    gaussians: Tensor
    sh: Tensor | None = None
    exchange: Exchange | None = None


Score = Callable[[GaussianModel, Views, Seed], Scores]

_LOGIT_CAP = 8.0
"""Opacities above sigmoid(8) = 0.99966 are scored as that, so that the derivative by the logit does not vanish."""


def gradient_sum(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """The published score: the gradient of the photometric loss, accumulated over all views.

    The score of a Gaussian is the sum over its six parameter tensors of the Euclidean norm of its accumulated
    gradient. The gradients are summed before the norm is taken, so views that disagree cancel.
    """
    parameters = splats.clone().requires_grad_()
    for camera in ranks.share(views.cameras):
        photometric_loss(views.render(camera, parameters).image, views.target(camera)).backward()
    ranks.total(*_gradients(parameters))
    return Scores(_gradient_norms(parameters))


def gradient_per_view(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """As :func:`gradient_sum`, but the norms are taken view by view and then summed, so that views cannot cancel."""
    parameters = splats.clone().requires_grad_()
    scores = splats.means.new_zeros(len(splats))
    for camera in ranks.share(views.cameras):
        photometric_loss(views.render(camera, parameters).image, views.target(camera)).backward()
        scores += _gradient_norms(parameters)
        _forget_gradients(parameters)
    ranks.total(scores)
    return Scores(scores)


def gradient_and_opacity(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """The score of ELMGS (Ali et al., arXiv:2410.23213): unimportant is what has a small gradient and little opacity.

    A Gaussian goes if it is below a quantile of both: of the opacities, and of the length of the gradient of the loss
    by its position on the screen, averaged over the views that it is seen in. So its score is the larger of its places
    in both orders: those below any quantile of both are those of the smallest scores.
    """
    parameters = splats.clone().requires_grad_()
    lengths, seen = splats.means.new_zeros(len(splats)), splats.means.new_zeros(len(splats))
    for camera in ranks.share(views.cameras):
        offsets = splats.means.new_zeros(len(splats), 2).requires_grad_()
        rendering = views.render(camera, parameters, offsets)
        photometric_loss(rendering.image, views.target(camera)).backward()
        if offsets.grad is not None:
            lengths += torch.hypot(offsets.grad[:, 0] * (camera.width / 2), offsets.grad[:, 1] * (camera.height / 2))
        seen += rendering.radii > 0
    ranks.total(lengths, seen)
    return Scores(torch.maximum(_places(lengths / seen.clamp(min=1.0)), _places(splats.opacity_logits[:, 0])))


def removal_error(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """Squared change of the images, over pixels, channels and views, without the Gaussian.

    Exact where the backend measures it, else by one probe a view.
    """
    measured = _measured(
        splats, views, lambda each: (each.removal_error, each.sh_removal_error, each.tilt), with_targets=True
    )
    if measured is None:
        return Scores(*_probe(splats, views, seed))
    removal, sh_removal, tilts = measured
    return Scores(removal, sh_removal, Exchange(removal, split_gain(tilts)))


def sh_removal_error(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Tensor:
    """``(N,)`` as :func:`removal_error`, but only ``sh_rest`` is left out: the color no longer depends on the view.

    The image is linear in ``sh_rest`` (colors clamped at zero aside).
    """
    scores = removal_error(splats, views, seed).sh
    assert scores is not None
    return scores


def removal_loss(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """Change of the squared error against the photographs without the Gaussian. Negative where it gets better.

    With ``d`` the change of the image and ``e`` the error before, ``|e - d|² - |e|² = |d|² - 2 e · d``: the first term
    by probes where the backend does not measure it, the second exactly.
    """
    measured = _measured(splats, views, lambda each: (each.removal_loss,), with_targets=True)
    if measured is not None:
        return Scores(measured[0])
    probed, _ = _probe(splats, views, seed)
    parameters = _for_scoring(splats)
    for camera in ranks.share(views.cameras):
        image = views.render(camera, parameters).image
        (image * (image.detach() - views.target(camera))).sum().backward()
    assert parameters.opacity_logits.grad is not None
    ranks.total(parameters.opacity_logits.grad)
    return Scores(probed - 2.0 * _by_opacity(parameters.opacity_logits.grad, parameters))


def blend_weight(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """Sum over pixels and views of the weight ``alpha T`` that the Gaussian is blended with."""
    measured = _measured(splats, views, lambda each: (each.blend_weight,))
    if measured is not None:
        return Scores(measured[0])
    gray = _gray(splats)
    for camera in ranks.share(views.cameras):
        views.render(camera, gray).image[..., 0].sum().backward()
    assert gray.sh_dc.grad is not None
    ranks.total(gray.sh_dc.grad)
    return Scores(gray.sh_dc.grad[:, 0, 0] / SH_C0)


def exchange(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Exchange:
    """What regrowth weighs: what dropping costs, and what splitting gains."""
    scores = removal_error(splats, views, seed)
    return scores.exchange or Exchange(scores.gaussians, split_gain(_tilt_by_gradients(splats, views, seed)))


def split_gain(tilts: Tensor) -> Tensor:
    """``(N,)`` by how much the squared error falls, at most, with a color of each Gaussian that changes along its axis.

    With a color ``c + t u`` an image changes by ``w u t``, and its squared error, over pixels and views, falls most for
    ``t = -S / Q`` with the sums ``S`` of ``w u r`` and ``Q`` of ``(w u)²``: by ``S² / Q`` a channel. That is what two
    halves of different colors promise. Views that disagree cancel in ``S``.

    Args:
        tilts: ``(N, 4)`` sums over views of what :class:`gaussian_renderer.ViewStatistics` calls the tilt.
    """
    gains = tilts[:, :3].square().sum(1) / tilts[:, 3]
    return torch.where(tilts[:, 3] > 0.0, gains, 0.0)


def random(splats: GaussianModel, views: Views, seed: Seed = (0,)) -> Scores:
    """The control: every Gaussian is as likely to go as any other."""
    generator = _generator(seed)
    return Scores(torch.rand(len(splats), generator=generator).to(splats.device))


def _measured(
    splats: GaussianModel,
    views: Views,
    pick: Callable[[ViewStatistics], tuple[Tensor | None, ...]],
    with_targets: bool = False,
) -> list[Tensor] | None:
    """The sums over the views of what is picked of their statistics; ``None`` where the backend has none."""
    totals: list[Tensor] = []
    for camera in ranks.share(views.cameras):
        target = views.target(camera) if with_targets else None
        statistics = render_statistics(camera, splats, views.background, backend=views.backend, target=target)
        if statistics is None:
            return None
        picked = [tensor for tensor in pick(statistics) if tensor is not None]
        totals = [total + tensor for total, tensor in zip(totals, picked, strict=True)] if totals else picked
    ranks.total(*totals)
    return totals


def _gray(splats: GaussianModel) -> GaussianModel:
    """The same shapes in a color of 0.5, far from the clamp at zero, whose ``sh_dc`` collects gradients."""
    gray = splats.map(torch.zeros_like)
    for name in ("means", "log_scales", "quaternions", "opacity_logits"):
        setattr(gray, name, getattr(splats, name).detach())
    gray.sh_dc.requires_grad_()
    return gray


def _tilt_by_gradients(splats: GaussianModel, views: Views, seed: Seed) -> Tensor:
    """``(N, 4)`` tilts: the first three exactly, by gradients, the last estimated by a probe a view.

    A pixel is the sum of weights times colors, so the derivative by a color of an image times ``m`` is the sum of
    ``w m``. The position along an axis is linear in that of the pixel; so ``m`` is the residual, and the residual times
    either coordinate.
    """
    total = splats.means.new_zeros(len(splats), 4)
    gray = _gray(splats)
    generator = _generator(ranks.own(seed), splats.device)
    for camera in ranks.share(views.cameras):
        with torch.no_grad():
            residual = views.render(camera, splats).image - views.target(camera)
        image = views.render(camera, gray).image
        axes = ScreenAxes.of(camera, splats)
        total[:, :3] += _lever_sums(image, gray, axes, residual)
        total[:, 3] += _lever_sums(image, gray, axes, _signs(image, generator)).square().mean(1)
    ranks.total(total)
    return total


def _lever_sums(image: Tensor, gray: GaussianModel, axes: ScreenAxes, wanted: Tensor) -> Tensor:
    """``(N, 3)`` sums over pixels of ``w u`` times an image ``wanted`` (H, W, 3), by channel."""

    def weighted(factor: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((image * wanted * factor).sum(), gray.sh_dc, retain_graph=True)
        return gradient[:, 0] / SH_C0

    height, width, _ = image.shape
    # From the middle of the image, so that coordinates are small and little cancels.
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    columns = torch.arange(width, device=image.device)[None, :, None] - middle_x
    rows = torch.arange(height, device=image.device)[:, None, None] - middle_y
    plain = weighted(image.new_ones(()))
    by_x = weighted(columns) - (axes.centers[:, :1] - middle_x) * plain
    by_y = weighted(rows) - (axes.centers[:, 1:] - middle_y) * plain
    return axes.slopes[:, :1] * by_x + axes.slopes[:, 1:] * by_y


def _signs(image: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs in the shape of an image."""
    signs = torch.randint(0, 2, image.shape, generator=generator, dtype=torch.int8, device=image.device)
    return signs.to(image.dtype).mul_(2).sub_(1)


def _probe(splats: GaussianModel, views: Views, seed: Seed) -> tuple[Tensor, Tensor]:
    """Estimates of the squared change of the images without each Gaussian, and without each ``sh_rest``."""
    parameters = _for_scoring(splats)
    removal = splats.means.new_zeros(len(splats))
    sh_removal = torch.zeros_like(removal)
    # Drawn where they are needed: images full of signs would have to be copied to a GPU, which waits for them.
    generator = _generator(ranks.own(seed), splats.device)
    for camera in ranks.share(views.cameras):
        image = views.render(camera, parameters).image
        (image * _signs(image, generator)).sum().backward()
        assert parameters.opacity_logits.grad is not None
        removal += _by_opacity(parameters.opacity_logits.grad, parameters).square_()
        if parameters.sh_rest.grad is not None:
            sh_removal += (parameters.sh_rest.grad * parameters.sh_rest.detach()).sum((1, 2)).square_()
        _forget_gradients(parameters)
    ranks.total(removal, sh_removal)
    return removal, sh_removal


def _generator(seed: Seed, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers that depend on nothing but the seed and the kind of device."""
    state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(state)


def _for_scoring(splats: GaussianModel) -> GaussianModel:
    parameters = splats.clone()
    parameters.opacity_logits.clamp_(max=_LOGIT_CAP)
    return parameters.requires_grad_()


def _by_opacity(d_logits: Tensor, parameters: GaussianModel) -> Tensor:
    """``o dL/do`` from the derivative by the logit, which is ``o (1 - o) dL/do``."""
    return (d_logits / torch.sigmoid(-parameters.opacity_logits.detach()))[:, 0]


def _places(values: Tensor) -> Tensor:
    """``(N,)`` the place of each in the order from the smallest."""
    return torch.argsort(torch.argsort(values.detach(), stable=True)).to(values.dtype)


def _gradient_norms(parameters: GaussianModel) -> Tensor:
    """Sum over the tensors of the norm of each Gaussian's gradient, ``(N,)``."""
    return torch.stack([gradient.flatten(1).norm(dim=1) for gradient in _gradients(parameters)]).sum(0)


def _gradients(parameters: GaussianModel) -> list[Tensor]:
    return [tensor.grad for _, tensor in parameters.named_parameters() if tensor.grad is not None]


def _forget_gradients(parameters: GaussianModel) -> None:
    for _, tensor in parameters.named_parameters():
        tensor.grad = None


SCORES: dict[str, Score] = {
    function.__name__: function
    for function in (
        gradient_sum,
        gradient_per_view,
        gradient_and_opacity,
        removal_error,
        removal_loss,
        blend_weight,
        random,
    )
}
"""The scores of whole Gaussians, by the name that a recipe calls them."""
