"""The average of a model over the last iterations of a stage, which may go on in large steps and still come to rest.

Values next to a rounding threshold keep crossing it as long as steps are large. Rates that decay stop that, and with it
the learning; an average does not need them to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RunningAverage:
    """An exponential moving average of tensors.

    An update weighs the tensors with ``1 - min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that the start of
    the stage is soon forgotten, however long it is.

    Args:
        tensors: What it begins with.
        decay: Fraction of itself that it keeps at most.
        updates: How many iterations ``tensors`` are the average of already, where it goes on from an earlier one.

    Attributes:
        tensors: The average; a copy of what it began with before the first update.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float, updates: int = 0) -> None:
        self.tensors = [tensor.detach().clone() for tensor in tensors]
        self._decay = decay
        self._updates = updates

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor]) -> None:
        """Take in the tensors after another iteration."""
        weight = 1.0 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self.tensors, [tensor.detach() for tensor in tensors], weight)
        self._updates += 1
