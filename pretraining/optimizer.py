"""Adam for a set of Gaussians that grows and shrinks while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pretraining.densify import carry
from scene.gaussian_model import GaussianModel
from utils import ranks
from utils.adam import adam, rate_of_step


@dataclass(eq=False)
class Moments:
    """What Adam remembers.

    Attributes:
        first, second: Running means of the gradient and of its square, of the same shapes as the model.
        steps: Number of views that have updated each of the six tensors, by name. A tensor that took no part in a
            rendering, such as the higher spherical harmonics before their time, is not updated.
    """

    first: GaussianModel
    second: GaussianModel
    steps: dict[str, int]

    @staticmethod
    def zero(splats: GaussianModel) -> Moments:
        return Moments(
            splats.detach().map(torch.zeros_like),
            splats.detach().map(torch.zeros_like),
            {name: 0 for name, _ in splats.named_parameters()},
        )


class SplatAdam:
    """Adam over the six tensors of a :class:`GaussianModel`, one parameter group each.

    Attributes:
        splats: The model that is trained; its tensors are leaves that collect gradients.
    """

    splats: GaussianModel

    def __init__(self, splats: GaussianModel, moments: Moments | None = None) -> None:
        self._install(splats, moments or Moments.zero(splats))

    def step(self, rates: dict[str, float]) -> None:
        """Update the model with these learning rates, by name, and clear its gradients."""
        for group in self._adam.param_groups:
            group["lr"] = rate_of_step(rates[group["name"]])
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def moments(self) -> Moments:
        """What Adam remembers now; shares memory with it."""
        states = {name: self._adam.state[tensor] for name, tensor in self.splats.named_parameters()}
        return Moments(
            GaussianModel(**{name: state["exp_avg"] for name, state in states.items()}),
            GaussianModel(**{name: state["exp_avg_sq"] for name, state in states.items()}),
            {name: int(state["step"]) * ranks.count() for name, state in states.items()},
        )

    def replace(self, splats: GaussianModel, origin: Tensor) -> None:
        """Go on with a changed set: rows keep what is remembered of their ``(N',)`` origin, newborns begin at zero."""
        old = self.moments()
        self._install(
            splats,
            Moments(
                old.first.map(lambda rows: carry(rows, origin)),
                old.second.map(lambda rows: carry(rows, origin)),
                old.steps,
            ),
        )

    def overwrite(self, name: str, values: Tensor) -> None:
        """Set one tensor to ``values`` of the same shape and forget its gradients' running means."""
        tensor = getattr(self.splats, name)
        with torch.no_grad():
            tensor.copy_(values)
        self._adam.state[tensor]["exp_avg"].zero_()
        self._adam.state[tensor]["exp_avg_sq"].zero_()

    def _install(self, splats: GaussianModel, moments: Moments) -> None:
        self.splats = splats.detach().requires_grad_()
        first, second = dict(moments.first.named_parameters()), dict(moments.second.named_parameters())
        groups = [{"params": [tensor], "lr": 0.0, "name": name} for name, tensor in self.splats.named_parameters()]
        self._adam = adam(groups)
        for name, tensor in self.splats.named_parameters():
            self._adam.state[tensor] = {
                "step": torch.tensor(float(moments.steps[name] // ranks.count()), device=tensor.device),
                "exp_avg": first[name],
                "exp_avg_sq": second[name],
            }
