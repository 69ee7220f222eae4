"""The average of a model over the last iterations of a stage, which may go on in large steps and still come to rest.

Values next to a rounding threshold keep crossing it as long as steps are large. Rates that decay stop that, and with it
the learning; an average does not need them to.
"""

from __future__ import annotations

import torch

from scene.gaussian_model import GaussianModel


class RunningAverage:
    """An exponential moving average of the six tensors.

    An update weighs the model with ``1 - min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that the start of the
    stage is soon forgotten, however long it is.

    Attributes:
        splats: The average; a copy of the first model before the first update.
    """

    def __init__(self, splats: GaussianModel, decay: float) -> None:
        self.splats = splats.clone()
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, splats: GaussianModel) -> None:
        """Take in the model after another iteration."""
        weight = 1.0 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages = [tensor for _, tensor in self.splats.named_parameters()]
        torch._foreach_lerp_(averages, [tensor.detach() for _, tensor in splats.named_parameters()], weight)
        self._updates += 1
