"""The thresholds of adaptive density control."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gsz.errors import UserError


@dataclass(frozen=True)
class DensityRules:
    """The thresholds of densification and pruning, named as the 3DGS command line names them where it does."""

    densify_grad_threshold: float = 0.0002
    """Mean view-space gradient, in normalized device coordinates, from which a Gaussian is cloned or split."""
    percent_dense: float = 0.01
    """Up to this largest scale, as a share of the extent of the scene, a Gaussian is cloned, above it split."""
    min_opacity: float = 0.005
    """Fainter Gaussians are removed."""
    max_world_scale: float = 0.1
    """Larger Gaussians, as a share of the extent of the scene, are removed after the first opacity reset."""
    max_screen_radius: float = 0.0
    """Gaussians seen with a larger radius in pixels are removed after the first opacity reset; 0 removes none.
    The paper's program states 20, but clears the radii before it compares them, so that none is ever removed by it;
    0 is what its published results were made with."""
    max_gaussians: int = 0
    """Upper bound of the number of Gaussians; the highest gradients come first when it is met. 0 sets no bound."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise UserError(f"--{name} {value}: must not be negative")
