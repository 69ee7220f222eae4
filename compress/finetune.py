"""One stage of fine-tuning: Adam on the photometric loss of the values that the file can hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from compress.averaging import RunningAverage
from compress.prune import has_sh_rest
from compress.recipe import Recipe
from compress.views import Views
from gsz.registry import Codec, Grid
from quality.losses import finite_loss, photometric_loss
from scene.gaussian_model import GaussianModel
from utils import ranks
from utils.adam import adam

_LOSS_EVERY = 50
"""Iterations between two looks at the loss; a look makes a GPU wait."""


def finetune(
    splats: GaussianModel,
    codec: Codec,
    views: Views,
    recipe: Recipe,
    iterations: int,
    seed: tuple[int, ...],
    progress: Callable[[float | None], None] = lambda loss: None,
    lr_factor: float = 1.0,
) -> tuple[GaussianModel, Grid]:
    """Fine-tune a model on a codec's grid.

    Each iteration renders ``grid.snap(splats)`` from one training view; the gradient passes straight through to the
    six tensors. Processes that share a run (:mod:`utils.ranks`) do as many iterations at once, as one step.

    Args:
        splats: Where to begin. Not changed.
        codec: Whose grid; it is fitted to ``splats`` first.
        views: The training views.
        recipe: Learning rates and weights of the loss.
        iterations: May be zero: then only the grid is fitted.
        seed: Fixes the order of the views.
        progress: Called after every step, with the loss now and then and ``None`` otherwise.
        lr_factor: What the learning rates of scales, rotations, opacities and ``sh_dc`` are multiplied with.

    Returns:
        The fine-tuned model, or its average, and the grid to encode it with.

    Raises:
        UserError: the loss is not finite.
    """
    splats = splats.clone()
    grid = ranks.once(lambda: codec.fit(splats))
    if len(splats) == 0:
        return splats, grid
    without_sh_rest = ~has_sh_rest(splats) if recipe.sh_prune_fraction > 0.0 else None
    splats.requires_grad_()
    rates = recipe.learning_rates(views.extent, lr_factor)
    groups = [{"params": [tensor], "lr": rates[name]} for name, tensor in splats.named_parameters() if tensor.numel()]
    optimizer = adam(groups)
    steps = math.ceil(iterations / ranks.count())
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, recipe.lr_decay, total_iters=max(steps - 1, 1))
    average = RunningAverage(splats, recipe.average ** ranks.count()) if recipe.average else None
    for step, camera in zip(range(steps), ranks.dealt(views.shuffled(seed)), strict=False):
        grid.observe(splats)
        snapped = grid.snap(splats)
        image = views.render(camera, snapped).image
        loss = photometric_loss(image, views.target(camera), recipe.dssim_weight)
        loss = loss + _cost(grid, splats, snapped, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(tensor for _, tensor in splats.named_parameters())
        if without_sh_rest is not None and splats.sh_rest.grad is not None:
            splats.sh_rest.grad[without_sh_rest] = 0.0  # What was pruned stays pruned.
        optimizer.step()
        decay.step()
        if average is not None:
            average.update(splats)
        progress(finite_loss(loss, camera.name, "fine-tuning") if step % _LOSS_EVERY == 0 else None)
    ranks.check_same("fine-tuning", (tensor for _, tensor in splats.named_parameters()))
    return (splats if average is None else average.splats).detach(), grid


def _cost(grid: Grid, splats: GaussianModel, snapped: GaussianModel, recipe: Recipe) -> torch.Tensor | float:
    """What the model pays for its size: for the file's estimated bits, or where there is no estimate for sh_rest."""
    bits = grid.estimated_bits(splats) if recipe.rate_weight else None
    if bits is not None:
        return recipe.rate_weight * bits / len(splats)
    if recipe.sh_rest_penalty and snapped.sh_rest.numel():
        return recipe.sh_rest_penalty * snapped.sh_rest.abs().mean()
    return 0.0
