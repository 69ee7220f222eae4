"""What Adam remembers of a model, carried from one stage of fine-tuning to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel


@dataclass(frozen=True, eq=False)
class Moments:
    """Running means of each parameter's gradient and of its square.

    Attributes:
        first, second: In the shapes of the model.
        steps: How many updates they are of.
    """

    first: GaussianModel
    second: GaussianModel
    steps: int

    def select(self, indices: Tensor) -> Moments:
        """Those of the Gaussians that stay."""
        return Moments(self.first.select(indices), self.second.select(indices), self.steps)

    def to(self, device: torch.device) -> Moments:
        return Moments(self.first.to(device), self.second.to(device), self.steps)


class AdamMemory:
    """The moments of ``torch.optim.Adam``, which a stage goes on from and leaves behind.

    Attributes:
        moments: ``None`` before the first stage.
    """

    def __init__(self, moments: Moments | None = None) -> None:
        self.moments = moments

    def recall(self, optimizer: torch.optim.Optimizer, splats: GaussianModel) -> None:
        """Give an optimizer of the model's six tensors what is remembered of them."""
        if self.moments is None:
            return
        first, second = dict(self.moments.first.named_parameters()), dict(self.moments.second.named_parameters())
        for name, tensor in splats.named_parameters():
            if tensor.numel():
                optimizer.state[tensor] = {
                    "step": torch.tensor(float(self.moments.steps), device=tensor.device),
                    "exp_avg": first[name].to(tensor.device, copy=True),
                    "exp_avg_sq": second[name].to(tensor.device, copy=True),
                }

    @staticmethod
    def forget_sh_rest(optimizer: torch.optim.Optimizer, splats: GaussianModel, rows: Tensor) -> None:
        """Take the momentum out of view dependence that was pruned, which would otherwise grow again."""
        state = optimizer.state.get(splats.sh_rest)
        if state:
            state["exp_avg"][rows] = 0.0

    def keep(self, optimizer: torch.optim.Optimizer, splats: GaussianModel) -> None:
        """Remember what the optimizer knows of the model's six tensors."""
        states = {name: optimizer.state.get(tensor, {}) for name, tensor in splats.named_parameters()}

        def moment(kind: str) -> GaussianModel:
            zeros = splats.detach().map(torch.zeros_like)
            return GaussianModel(**{name: state.get(kind, getattr(zeros, name)) for name, state in states.items()})

        steps = max(int(state["step"]) for state in states.values() if state)
        self.moments = Moments(moment("exp_avg"), moment("exp_avg_sq"), steps)
