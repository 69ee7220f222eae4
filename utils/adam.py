"""The optimizer of fine-tuning and of training: Adam, as 3DGS sets it up, for steps of one view or of several.

Processes that share a run make one step of as many views as there are processes, from the mean of their gradients. Such
steps come to the same place as single ones if rates are multiplied by the root of that number, the two betas raised to
its power, and epsilon divided by its root: the rule of Grendel (Zhao et al., "On Scaling Up 3D Gaussian Splatting
Training", arXiv:2406.18533).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from utils import ranks

BETAS = (0.9, 0.999)
EPSILON = 1e-15
"""As in 3DGS: gradients of single Gaussians are so small that the usual 1e-8 would slow the steps."""


def adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Adam over parameter groups whose rates, ``lr``, are those for steps of one view."""
    views = ranks.count()
    groups = [{**group, "lr": rate_of_step(group["lr"])} for group in groups]
    betas = (BETAS[0] ** views, BETAS[1] ** views)
    return torch.optim.Adam(groups, betas=betas, eps=EPSILON / math.sqrt(views), fused=True)


def rate_of_step(rate: float) -> float:
    """The learning rate of a step, from that for a step of one view."""
    return rate * math.sqrt(ranks.count())
