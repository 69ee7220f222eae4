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
