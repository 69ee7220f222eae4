"""When things happen during training, and how fast: the defaults of the 3DGS paper's program."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gsz.errors import UserError

PAPER_ITERATIONS = 30_000


@dataclass(frozen=True)
class Schedule:
    """Learning rates and the iterations at which things happen, named as the 3DGS command line names them.

    Iterations count from 1. The opacity rate is 0.025, the later default of the authors' program (0.05 in the paper).
    """

    position_lr_init: float = 1.6e-4
    """First learning rate of the means, multiplied by the extent of the scene."""
    position_lr_final: float = 1.6e-6
    """Last learning rate of the means, multiplied by the extent of the scene."""
    position_lr_max_steps: int = PAPER_ITERATIONS
    """Iterations over which the rate of the means decays exponentially from first to last."""
    feature_lr: float = 0.0025
    """Learning rate of the colors (SH of degree 0); the higher degrees learn at a twentieth of it."""
    opacity_lr: float = 0.025
    """Learning rate of the opacity logits."""
    scaling_lr: float = 0.005
    """Learning rate of the log-scales."""
    rotation_lr: float = 0.001
    """Learning rate of the quaternions."""
    densify_from_iter: int = 500
    """Gaussians are cloned, split and pruned after this iteration."""
    densify_until_iter: int = 15_000
    """Gaussians are cloned, split and pruned before this iteration."""
    densification_interval: int = 100
    """Iterations between two rounds of densification; the view-space gradients are averaged over them."""
    opacity_reset_interval: int = 3000
    """Iterations between two resets of the opacities, as long as Gaussians are densified."""
    sh_degree_interval: int = 1000
    """Iterations after which one more degree of the spherical harmonics takes part."""

    def __post_init__(self) -> None:
        """Raise :class:`UserError` for a value that no training could be done with."""
        for name in ("position_lr_max_steps", "densification_interval", "opacity_reset_interval", "sh_degree_interval"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        for name in ("position_lr_init", "position_lr_final"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}: must be a positive number")
        for name in ("feature_lr", "opacity_lr", "scaling_lr", "rotation_lr"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}: must not be negative")

    def scaled_to(self, iterations: int) -> Schedule:
        """The same course compressed (or stretched) from the paper's 30,000 iterations to ``iterations``.

        The densification interval stays as it is: it is the window over which gradients are averaged.
        """
        factor = iterations / PAPER_ITERATIONS

        def scaled(iteration: int) -> int:
            return max(1, round(iteration * factor))

        return replace(
            self,
            position_lr_max_steps=scaled(self.position_lr_max_steps),
            densify_from_iter=scaled(self.densify_from_iter),
            densify_until_iter=scaled(self.densify_until_iter),
            opacity_reset_interval=scaled(self.opacity_reset_interval),
            sh_degree_interval=scaled(self.sh_degree_interval),
        )

    def position_rate(self, iteration: int) -> float:
        """Learning rate of the means at an iteration, in units of the scene's extent: log-linear from first to last."""
        progress = min(max(iteration / self.position_lr_max_steps, 0.0), 1.0)
        return math.exp((1 - progress) * math.log(self.position_lr_init) + progress * math.log(self.position_lr_final))

    def learning_rates(self, iteration: int, extent: float) -> dict[str, float]:
        """Learning rate of each tensor of the model by its name; ``extent`` is in world units."""
        return {
            "means": self.position_rate(iteration) * extent,
            "log_scales": self.scaling_lr,
            "quaternions": self.rotation_lr,
            "opacity_logits": self.opacity_lr,
            "sh_dc": self.feature_lr,
            "sh_rest": self.feature_lr / 20,
        }

    def sh_degree(self, iteration: int, highest: int) -> int:
        """Degree of the spherical harmonics that an iteration renders with."""
        return min(iteration // self.sh_degree_interval, highest)

    def gathers_statistics(self, iteration: int) -> bool:
        """Whether an iteration's view-space gradients count towards a densification."""
        return iteration < self.densify_until_iter

    def densifies(self, iteration: int, done: int = 1) -> bool:
        """Whether Gaussians are cloned, split and pruned after a step of ``done`` iterations, the last of them this."""
        due = iteration - iteration % self.densification_interval
        return due > iteration - done and self.densify_from_iter < due < self.densify_until_iter

    def prunes_large(self, iteration: int) -> bool:
        """Whether a densification also removes Gaussians that are too large: after the first opacity reset."""
        return iteration > self.opacity_reset_interval

    def resets_opacity(self, iteration: int, white_background: bool, done: int = 1) -> bool:
        """Whether opacities are reset after a step of ``done`` iterations, the last of them this.

        On a white background also once before densification begins, for there the random start hides the object.
        """
        if iteration >= self.densify_until_iter:
            return False
        at_start = white_background and iteration - done < self.densify_from_iter <= iteration
        return at_start or iteration % self.opacity_reset_interval < done
