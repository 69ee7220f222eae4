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
        image: ``(H, W, 3)`` float32, linear in the colors; may exceed [0, 1] as in 3DGS, which clamps only for output.
        radii: ``(N,)`` int32, the 3-sigma radius on the screen in pixels, 0 for Gaussians outside the view.
    """

    image: Tensor
    radii: Tensor


@dataclass
class ViewStatistics:
    """What each Gaussian is worth to a view: exact, but for what ``docs/method.md`` says of pixels that end.

    Errors are squared, summed over pixels and channels; colors are not clamped from above.

    Attributes:
        image: ``(H, W, 3)``, as in :class:`Rendering`.
        blend_weight: ``(N,)`` sum over pixels of the weight ``alpha T`` that the Gaussian is blended with.
        removal_error: ``(N,)`` squared change of the image when the Gaussian is left out.
        sh_removal_error: ``(N,)`` the same when only its ``sh_rest`` is taken away.
        removal_loss: ``(N,)`` change of the squared error against the target when the Gaussian is left out, negative
            where the image gets better; ``None`` without a target.
        tilt: ``(N, 4)``; what the image less the target says of a color ``c + t u`` of each Gaussian, with ``u`` the
            position along its longest axis in standard deviations. The first three are the sums over pixels of ``w u``
            times the residual of each channel, the last that of ``(w u)²``, with ``w`` the blending weight. ``None``
            without a target.
    """

    image: Tensor
    blend_weight: Tensor
    removal_error: Tensor
    sh_removal_error: Tensor
    removal_loss: Tensor | None
    tilt: Tensor | None
