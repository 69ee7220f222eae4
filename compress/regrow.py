"""Give Gaussians back where the images are wrong: in place of more of the least important ones, others become two.

Pruning only removes. Where a model lacks detail, fine-tuning cannot make up for it at the small rates of the positions;
a Gaussian that is split there can. But each split takes one more Gaussian away, so it has to promise more than that one
carries: the fall of the squared error if the two halves had colors of their own, against the squared change of the
images without the Gaussian that goes. Both are in the same unit and measured in the same pass over the views.

A split keeps what the Gaussian adds up to. With the children ``d`` deviations to either side of the middle of its
longest axis, and that axis times ``s``, the variance along it is ``s² + d²`` of the parent's, and the mass, which is
opacity times extent, ``2 k s`` of it for an opacity of ``k`` times the parent's: hence ``s = sqrt(1 - d²)`` and
``k = 1 / (2 s)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.prune import kept_after_pruning
from scene.gaussian_model import GaussianModel

OFFSET = 0.7
"""How far each child lies from the middle of its parent, in standard deviations of the longest axis."""

SHRINK = math.sqrt(1.0 - OFFSET**2)
"""What the longest axis is multiplied with: 0.714."""

FADE = 0.5 / SHRINK
"""What the opacity is multiplied with: 0.700."""


@dataclass(frozen=True)
class Change:
    """What a round does to the set of Gaussians, as rows of the model before it.

    Attributes:
        kept: ``(K,)`` ascending indices of those that stay as they are.
        split: ``(S,)`` ascending indices of those that become two; none of them is in ``kept``.
    """

    kept: Tensor
    split: Tensor

    def __len__(self) -> int:
        """The number of Gaussians afterwards."""
        return len(self.kept) + 2 * len(self.split)

    def apply(self, splats: GaussianModel) -> GaussianModel:
        """The Gaussians that stay, then the first child of every parent, then the second of every parent."""
        changed = GaussianModel.concatenate([splats.select(self.kept), split_in_two(splats.select(self.split))])
        return changed.replace(offset=splats.offset, antialiased=splats.antialiased, metadata=splats.metadata)


def prune_only(scores: Tensor, dropped: int) -> Change:
    """Drop the ``dropped`` smallest scores and split none."""
    kept = kept_after_pruning(scores, dropped)
    return Change(kept, kept[:0])


def choose(scores: Tensor, costs: Tensor, gains: Tensor, dropped: int, at_most: int) -> Change:
    """Drop the ``dropped`` smallest scores, and one more for each split that is worth it.

    The next smallest scores are set against the largest gains of all that come after them, one against one, for as
    long as the gain exceeds the cost. So ``dropped`` fewer are left in all, however many are split. Ties go to the
    earlier Gaussian; a NaN is the smallest score or gain, and no cost that pays.

    Args:
        scores: ``(N,)`` importance of each Gaussian.
        costs: ``(N,)`` squared change of the images without it.
        gains: ``(N,)`` by how much the squared error would fall with two in its place, in the same unit.
        at_most: How many are split at most; and never more than half of what ``dropped`` leaves.
    """
    new = max(0, min(at_most, (len(scores) - dropped) // 2))
    if new == 0:
        return prune_only(scores, dropped)
    kept = kept_after_pruning(scores, dropped)
    staying = kept_after_pruning(scores, dropped + new)
    going = kept[~torch.isin(kept, staying)]
    going = going[torch.argsort(torch.nan_to_num(scores[going], nan=-torch.inf), stable=True)]
    parents = staying[torch.argsort(torch.nan_to_num(gains[staying], nan=-torch.inf), descending=True, stable=True)]
    pays = gains[parents[:new]] > costs[going]
    worth = int(pays.long().cumprod(0).sum())
    is_split = torch.isin(kept, parents[:worth])
    is_gone = torch.isin(kept, going[:worth])
    return Change(kept[~is_split & ~is_gone], kept[is_split])


@torch.no_grad()
def split_in_two(parents: GaussianModel) -> GaussianModel:
    """Two children a parent, side by side along its longest axis, the first of equally long ones.

    They have the parent's covariance and mass together, and its color: harmonics that were pruned stay pruned.

    Returns:
        ``2 * len(parents)`` Gaussians: the first child of every parent, then the second of every parent.
    """
    longest = torch.nn.functional.one_hot(parents.log_scales.argmax(1), 3).to(parents.log_scales.dtype)
    step = OFFSET * rotate(parents.rotations, longest * parents.scales)
    children = GaussianModel.concatenate([parents, parents])
    children.means = torch.cat([parents.means + step, parents.means - step])
    children.log_scales = children.log_scales + math.log(SHRINK) * torch.cat([longest, longest])
    children.opacity_logits = faded(children.opacity_logits)
    return children


def faded(logits: Tensor) -> Tensor:
    """The logits of :data:`FADE` times the opacities.

    With ``x`` the logit, ``k sigmoid(x)`` has the odds ``k / (1 - k + exp(-x))``, as logarithms without overflow.
    """
    return math.log(FADE) - torch.logaddexp(-logits, torch.full_like(logits, math.log(1.0 - FADE)))


def rotate(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """``(N, 3)`` vectors turned by ``(N, 4)`` unit quaternions (w x y z)."""
    real, imaginary = quaternions[:, :1], quaternions[:, 1:]
    twice_cross = 2.0 * torch.linalg.cross(imaginary, vectors)
    return vectors + real * twice_cross + torch.linalg.cross(imaginary, twice_cross)
