"""The layers of a file: what order Gaussians are laid in, and the coarser models that a cut file is, trained along.

A file in layers may be cut at the end of each, and what is left is a model of the most important Gaussians. Importance
is no property of a Gaussian: once its neighbor is gone, it has to stand in for it. So they are ranked as they would be
pruned, a few at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compress.importance import SCORES, Seed
from compress.views import Views
from gsz.contract import Correction
from scene.gaussian_model import GaussianModel

A_FIFTH, A_LAYER = 0.2, 0.5
"""Fractions of the Gaussians that are left out before the others are scored again: for good, and for a round."""


def iterative_importance(
    splats: GaussianModel, views: Views, seed: Seed, score: str, fewest: int, dropped_at_once: float = A_FIFTH
) -> Tensor:
    """``(N,)`` ranks, 0 for the Gaussian that goes first when some are dropped and what is left is scored again.

    Args:
        splats: With the values that the file holds.
        score: A name of :data:`compress.importance.SCORES`.
        fewest: With so many left, the ranks of the others settle all layers, and these are not scored again.
        dropped_at_once: Fraction that is dropped before the others are scored again.
    """
    left = torch.arange(len(splats), device=splats.device)
    gone: list[Tensor] = []
    while len(left) > max(fewest, 1):
        scores = SCORES[score](splats.select(left), views, seed).gaussians
        order = torch.argsort(torch.nan_to_num(scores, nan=-torch.inf), stable=True)
        dropped = max(1, int(dropped_at_once * len(left)))
        gone.append(left[order[:dropped]])
        left = left[order[dropped:]]
    return ranks_of(torch.cat([*gone, left]))


def ranks_of(order: Tensor) -> Tensor:
    """``(N,)`` float64: the place of each Gaussian in an order of all of them."""
    ranks = torch.empty(len(order), dtype=torch.float64, device=order.device)
    ranks[order] = torch.arange(len(order), dtype=ranks.dtype, device=order.device)
    return ranks


class Prefixes:
    """The coarser models of a file in layers, while they are trained: the first rows of a model, to each layer's end.

    Attributes:
        offsets: For each, ``(1, 2)`` what is added to its log-scales and to its opacity logits; leaves with gradients.
    """

    def __init__(
        self,
        ends: Sequence[int],
        share: float,
        seed: Seed,
        corrections: Sequence[Correction] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            ends: Gaussians to the end of each layer, the last of which is the whole model.
            share: Fraction of the iterations that are for prefixes, each of them as often.
            corrections: Where the offsets begin; zeros by default.
        """
        self._ends = list(ends)
        self._share = share if len(ends) > 1 else 0.0
        self._random = np.random.default_rng(seed)
        begun = [*corrections, *[Correction()] * len(ends)][: len(ends) - 1]
        self.offsets = [torch.tensor([each], device=device).requires_grad_() for each in begun]

    def draw(self) -> int | None:
        """Which prefix the next iteration is for, or ``None`` for the whole."""
        if self._random.random() >= self._share:
            return None
        return int(self._random.integers(len(self._ends) - 1))

    def end(self, prefix: int | None) -> int:
        """How many Gaussians a prefix has."""
        return self._ends[-1 if prefix is None else prefix]

    def of(self, splats: GaussianModel, prefix: int | None) -> GaussianModel:
        """The Gaussians of a prefix; gradients pass to the whole."""
        return splats if prefix is None else splats.map(lambda tensor: tensor[: self._ends[prefix]])

    def corrected(self, part: GaussianModel, prefix: int | None) -> GaussianModel:
        """A prefix as it is decoded from a file that ends with it."""
        if prefix is None:
            return part
        offset = self.offsets[prefix]
        return part.replace(
            log_scales=part.log_scales + offset[:, :1], opacity_logits=part.opacity_logits + offset[:, 1:]
        )
