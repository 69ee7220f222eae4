"""The layers of a file: what order Gaussians are laid in, and the coarser models that a cut file is, trained along.

A file in layers may be cut at the end of each, and what is left is a model of the most important Gaussians. Importance
is no property of a Gaussian: once its neighbor is gone, it has to stand in for it. So they are ranked as they would be
pruned, a few at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.importance import SCORES, Seed
from compress.views import Views
from scene.gaussian_model import GaussianModel

DROPPED_AT_ONCE = 0.2
"""Fraction of the Gaussians that is left out before the others are scored again."""


def iterative_importance(splats: GaussianModel, views: Views, seed: Seed, score: str, fewest: int) -> Tensor:
    """``(N,)`` ranks, 0 for the Gaussian that goes first when a fifth is dropped and what is left is scored again.

    Args:
        splats: With the values that the file holds.
        score: A name of :data:`compress.importance.SCORES`.
        fewest: With so many left, the ranks of the others settle all layers, and these are not scored again.
    """
    left = torch.arange(len(splats), device=splats.device)
    gone: list[Tensor] = []
    while len(left) > max(fewest, 1):
        scores = SCORES[score](splats.select(left), views, seed).gaussians
        order = torch.argsort(torch.nan_to_num(scores, nan=-torch.inf), stable=True)
        dropped = max(1, int(DROPPED_AT_ONCE * len(left)))
        gone.append(left[order[:dropped]])
        left = left[order[dropped:]]
    return ranks_of(torch.cat([*gone, left]))


def ranks_of(order: Tensor) -> Tensor:
    """``(N,)`` float64: the place of each Gaussian in an order of all of them."""
    ranks = torch.empty(len(order), dtype=torch.float64, device=order.device)
    ranks[order] = torch.arange(len(order), dtype=ranks.dtype, device=order.device)
    return ranks
