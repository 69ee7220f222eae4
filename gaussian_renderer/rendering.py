"""What every backend takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Splats(Protocol):
    """Anything with the six tensors of a model: shapes, units and meaning as in :mod:`scene.gaussian_model`."""

    @property
    def means(self) -> Tensor: ...
    @property
    def log_scales(self) -> Tensor: ...
    @property
    def quaternions(self) -> Tensor: ...
    @property
    def opacity_logits(self) -> Tensor: ...
    @property
    def sh_dc(self) -> Tensor: ...
    @property
    def sh_rest(self) -> Tensor: ...


@dataclass
class Rendering:
    """A rendered view.

    Attributes:
        image: ``(H, W, 3)`` float32, linear in the colours; may exceed [0, 1] as in 3DGS, which clamps only for output.
        radii: ``(N,)`` int32, the 3-sigma radius on the screen in pixels, 0 for Gaussians outside the view.
    """

    image: Tensor
    radii: Tensor
