"""One stage of fine-tuning: Adam on the photometric loss of the values that the file can hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from compress.averaging import RunningAverage
from compress.layers import Prefixes
from compress.prune import has_sh_rest
from compress.recipe import Recipe
from compress.views import Views
from gsz.contract import LARGEST_CORRECTION, Correction
from gsz.registry import Codec, Grid
from gsz.splats import PARAMETERS
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
    corrections: Sequence[Correction] | None = None,
    prefix_iterations: int | None = None,
    learning: int = 0,
    averaged: int = 0,
) -> tuple[GaussianModel, Grid]:
    """Fine-tune a model on a codec's grid.

    Each iteration renders ``grid.snap(splats)`` from one training view; the gradient passes straight through to the
    six tensors. With ``corrections``, some iterations render what the file is when it is cut after one of its layers.
    Processes that share a run (:mod:`utils.ranks`) do as many iterations at once, as one step.

    Args:
        splats: Where to begin. Not changed.
        codec: Whose grid; it is fitted to ``splats`` first.
        views: The training views.
        recipe: Learning rates and weights of the loss.
        iterations: May be zero: then only the grid is fitted.
        seed: Fixes the order of the views.
        progress: Called after every step, with the loss now and then and ``None`` otherwise.
        lr_factor: What the learning rates of scales, rotations, opacities and ``sh_dc`` are multiplied with.
        corrections: ``None`` trains the whole alone. Otherwise the layers of the file are trained along, the most
            important Gaussians being the first rows, and these are the layers' corrections to begin with, if any.
        prefix_iterations: After so many iterations the whole is trained alone; ``None`` is never.
        learning: For so many iterations, from the first one, the grid's steps are learned; then they stay.
        averaged: Iterations of the same stage that ``splats`` are the average of; it then goes on.

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
    ends = [len(splats)] if corrections is None else grid.layer_ends(len(splats))
    prefixes = Prefixes(ends, recipe.prefix_share, (*seed, 1), corrections or (), splats.device)
    rates = recipe.learning_rates(views.extent, lr_factor)
    groups = [{"params": [tensor], "lr": rates[name]} for name, tensor in splats.named_parameters() if tensor.numel()]
    if prefixes.offsets and recipe.correction_lr:
        groups.append({"params": prefixes.offsets, "lr": recipe.correction_lr})
    learned = grid.learn_steps(splats) if learning else None
    if learned is not None:
        groups.append({"params": [learned], "lr": recipe.steps_lr})
    optimizer = adam(groups)
    steps = math.ceil(iterations / ranks.count())
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, recipe.lr_decay, total_iters=max(steps - 1, 1))
    trained = [*(tensor for _, tensor in splats.named_parameters()), *prefixes.offsets]
    decay_of_average, updates = recipe.average ** ranks.count(), averaged // ranks.count()
    average = RunningAverage(trained, decay_of_average, updates) if recipe.average else None
    # For the file's estimated bits, or where there is no estimate for sh_rest.
    pays = recipe.rate_weight > 0.0 and grid.has_estimate
    for step, camera in zip(range(steps), ranks.dealt(views.shuffled(seed)), strict=False):
        done = step * ranks.count()
        shown = step % _LOSS_EVERY == 0
        if learned is not None and done >= learning:
            learned.requires_grad_(False)
        grid.observe(splats)
        prefix = prefixes.draw() if prefix_iterations is None or done < prefix_iterations else None
        snapped = grid.snap(prefixes.of(splats, prefix))
        image = views.render(camera, prefixes.corrected(snapped, prefix)).image
        loss = photometric_loss(image, views.target(camera), recipe.dssim_weight)
        if not pays and recipe.sh_rest_penalty and snapped.sh_rest.numel():
            loss = loss + recipe.sh_rest_penalty * snapped.sh_rest.abs().mean()
        loss.backward()
        del snapped, image  # What is computed next takes memory of its own.
        if pays:
            # The weight is that of bits a Gaussian, so the same whatever the file is cut to.
            count = prefixes.end(prefix)
            bits = grid.pay(splats, recipe.rate_weight / count, count, counted=shown)
            loss = loss.detach() + recipe.rate_weight / len(splats) * bits
        ranks.average_gradients(trained if learned is None else [*trained, learned])
        if without_sh_rest is not None and splats.sh_rest.grad is not None:
            splats.sh_rest.grad[without_sh_rest] = 0.0  # What was pruned stays pruned.
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # The next image is made without their memory.
        decay.step()
        if average is not None:
            average.update(trained)
        progress(finite_loss(loss, camera.name, "fine-tuning") if shown else None)
    ranks.check_same("fine-tuning", trained)
    tensors = [tensor.detach() for tensor in trained] if average is None else average.tensors
    bounded = (offset[0].clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION) for offset in tensors[len(PARAMETERS) :])
    grid.corrections = [Correction(*offset.tolist()) for offset in bounded]
    tuned = splats.replace(**dict(zip(PARAMETERS, tensors, strict=False)))
    grid.settle(tuned)
    return tuned, grid
