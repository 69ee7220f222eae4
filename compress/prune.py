"""Choose the least important Gaussians, and drop them."""

from __future__ import annotations

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel


def kept_after_pruning(scores: Tensor, dropped: int) -> Tensor:
    """Indices, ascending, of the Gaussians that stay when the ``dropped`` smallest scores go; one always stays.

    Of equal scores the earlier Gaussian goes first. A score that is not a number counts as the smallest.
    """
    order = torch.argsort(torch.nan_to_num(scores, nan=-torch.inf), stable=True)
    return order[min(dropped, max(len(scores) - 1, 0)) :].sort().values


def prune(splats: GaussianModel, scores: Tensor, dropped: int) -> GaussianModel:
    """The model without the ``dropped`` Gaussians that have the smallest scores, in unchanged order."""
    return splats.select(kept_after_pruning(scores, dropped))


def prune_sh(splats: GaussianModel, scores: Tensor, fraction: float) -> GaussianModel:
    """The model with ``sh_rest`` zero for the ``fraction`` of the Gaussians that have any and score least in that."""
    having = has_sh_rest(splats).nonzero()[:, 0]
    if fraction <= 0.0 or len(having) == 0:
        return splats
    order = torch.argsort(torch.nan_to_num(scores[having], nan=-torch.inf), stable=True)
    loses = having[order[: max(1, int(fraction * len(having)))]]
    pruned = splats.clone()
    pruned.sh_rest[loses] = 0.0
    return pruned


def has_sh_rest(splats: GaussianModel) -> Tensor:
    """``(N,)`` mask of the Gaussians whose color depends on the view."""
    return (splats.sh_rest.detach() != 0).flatten(1).any(1)
