"""Choose the least important Gaussians, and drop them."""

from __future__ import annotations

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel


def kept_after_pruning(scores: Tensor, fraction: float) -> Tensor:
    """Indices, ascending, of the Gaussians that stay when ``fraction`` of them goes, the smallest scores first.

    Of equal scores the earlier Gaussian goes first. The number that goes is rounded down, but is at least one where
    there is more than one Gaussian; one always stays. A score that is not a number counts as the smallest.
    """
    count = len(scores)
    dropped = min(max(int(fraction * count), 1), count - 1) if count > 1 else 0
    order = torch.argsort(torch.nan_to_num(scores, nan=-torch.inf), stable=True)
    return order[dropped:].sort().values


def prune(splats: GaussianModel, scores: Tensor, fraction: float) -> GaussianModel:
    """The model without the ``fraction`` of its Gaussians that has the smallest scores, in unchanged order."""
    return splats.select(kept_after_pruning(scores, fraction))


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
    """``(N,)`` mask of the Gaussians whose colour depends on the view."""
    return (splats.sh_rest.detach() != 0).flatten(1).any(1)
