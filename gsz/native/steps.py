"""The numbers of a native grid: what turns symbols into parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gsz.rounding import elementary
from gsz.rounding.elementary import LN2

MEAN_LIMIT = (1 << 20) - 1
"""Largest absolute mean symbol: three of them interleave into 63 bits."""
SCALE_LIMIT = (1 << 17) - 1
ROTATION_LIMIT = (1 << 15) - 1
DC_LIMIT = 1 << 20
SH_LIMIT = (1 << 13) - 1
LARGEST_MEAN = 3.0e38
LARGEST_EXPONENT = 200
"""Binary exponents of positions, in radii, beyond which decoders do not go."""
RECONSTRUCTED = 4
"""Magnitudes below this have a stored reconstruction value; larger ones are multiples of the step."""


@dataclass(frozen=True)
class Steps:
    """The numbers that turn symbols into parameters; all of them are stored in the file.

    Attributes:
        center: ``(3,)`` float64, world units; where the contracted space is finest.
        radius: world units; within it positions are on a uniform grid.
        mean_bits: the grid step of positions is ``radius * 2**-mean_bits``.
        scale_step: step of the natural logarithm of the largest scale. The second has twice this step and the third
            four times: what they round off shows less.
        opacity_levels: number of opacities, 2 to 256.
        rotation_step: step of the vector part of a unit quaternion.
        dc_step: step of degree-0 harmonics.
        sh_step: step of the Y of the others, which is the mean of red, green and blue.
        sh_chroma: ``(2,)`` float64; the steps of their Co and Cg, in units of ``sh_step``; see :func:`chroma_steps`.
        sh_values: ``(RECONSTRUCTED,)`` float64; what magnitudes 0, 1, ... stand for, in steps. The first is 0.
        rotation_pivot: leverage, in 1/16 octaves, of the Gaussians whose rotations have exactly ``rotation_step``.
        rotation_range: by how many half octaves that step may be divided or multiplied, 0 to 8; see
            :func:`gsz.native.symbols.fineness_of`.
        sh_pivot: the same for coverage and ``sh_step``.
        sh_range: the same for ``sh_step``.
        sh_threshold: fraction of a step beyond which a magnitude is rounded up; only encoders use it.
    """

    center: np.ndarray
    radius: float
    mean_bits: int
    scale_step: float
    opacity_levels: int
    rotation_step: float
    dc_step: float
    sh_step: float
    sh_chroma: np.ndarray
    sh_values: np.ndarray
    rotation_pivot: int = 0
    rotation_range: int = 0
    sh_pivot: int = 0
    sh_range: int = 0
    sh_threshold: float = 0.5

    @cached_property
    def rotation_steps(self) -> np.ndarray:
        """``(2 * rotation_range + 1,)`` float64: the steps of each fineness, coarsest first."""
        return _half_octaves(self.rotation_step, self.rotation_range)

    @cached_property
    def sh_steps(self) -> np.ndarray:
        """``(2 * sh_range + 1, 3)`` float64: the steps of Y, Co and Cg of each fineness, coarsest first."""
        return np.multiply.outer(_half_octaves(self.sh_step, self.sh_range), [1, *self.sh_chroma])

    @cached_property
    def sh_per_unit(self) -> np.ndarray:
        """``(2 * sh_range + 1, 3)`` float32, by fineness: Y, Co and Cg, in steps, of a unit of the sums.

        The sums are red + green + blue, red - blue, and red - 2 green + blue.
        """
        per_step = 1 / _half_octaves(self.sh_step, self.sh_range)
        return (per_step[:, None] * (1 / np.array([3, 2, 6])) / [1, *self.sh_chroma]).astype(np.float32)

    @cached_property
    def opacity_logits(self) -> np.ndarray:
        """``(opacity_levels,)`` float32: opacities ``(level + 1/2) / levels`` as logits.

        Rounded to 1/4096, so that a decoder with any good logarithm has the same.
        """
        opacity = (np.arange(self.opacity_levels) + 0.5) / self.opacity_levels
        return (np.rint(elementary.logit(opacity) * 4096) / 4096).astype(np.float32)

    @cached_property
    def opacity_thresholds(self) -> np.ndarray:
        """``(opacity_levels - 1,)`` float32: the logits of opacities ``level / levels``, from which a level begins."""
        opacity = np.arange(1, self.opacity_levels) / self.opacity_levels
        return elementary.logit(opacity).astype(np.float32)

    @cached_property
    def covered(self) -> np.ndarray:
        """``(opacity_levels,)`` int64: the logarithm of each opacity, in 1/16 octaves."""
        opacity = (np.arange(self.opacity_levels) + 0.5) / self.opacity_levels
        return np.rint(16 * elementary.log2(opacity)).astype(np.int64)

    @property
    def octaves_per_scale(self) -> int:
        """What a step of scales is in octaves, times ``2**20``."""
        return round(self.scale_step / LN2 * (16 << 16))

    def described(self) -> dict[str, float]:
        """The steps by name, that of positions in world units."""
        return {
            "mean": self.radius * 2.0**-self.mean_bits,
            "log_scale": self.scale_step,
            "opacity_levels": self.opacity_levels,
            "rotation": self.rotation_step,
            "dc": self.dc_step,
            "sh": self.sh_step,
        }


def chroma_steps(chroma: float) -> np.ndarray:
    """The steps of Co and Cg in those of Y, ``chroma`` times those that make equal errors of color."""
    return np.array([math.sqrt(1.5), math.sqrt(0.5)]) * chroma


def _half_octaves(step: float, span: int) -> np.ndarray:
    """``step`` times the square root of 2 to the powers ``span`` to ``-span``."""
    root = math.sqrt(0.5)
    return np.array([step * math.ldexp(root if half % 2 else 1.0, -(half // 2)) for half in range(-span, span + 1)])
