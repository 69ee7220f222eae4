"""The numbers of a native grid: what turns symbols into parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gsz.rounding import elementary
from gsz.rounding.elementary import LN2

MEAN_LIMIT = (1 << 20) - 1
"""Largest absolute mean symbol: three of them interleave into 63 bits."""
SCALE_LIMIT = (1 << 20) - 1
ROTATION_LIMIT = (1 << 15) - 1
DC_LIMIT = 1 << 20
SH_LIMIT = (1 << 13) - 1
LARGEST_MEAN = 3.0e38
LARGEST_EXPONENT = 200
"""Binary exponents of positions, in radii, beyond which decoders do not go."""
RECONSTRUCTED = 4
"""Magnitudes below this have a stored reconstruction value; larger ones are multiples of the step."""

SCALE_POWER = 0.4
"""Scales are on a grid that is uniform in this power of them."""
POWER_OCTAVES = SCALE_POWER / LN2
"""Octaves of the power in a unit of log-scale."""
LOGS_PER_OCTAVE = LN2 / SCALE_POWER
"""Units of log-scale in an octave of the power: 1.7328679513998633."""
SMALLEST_SCALE = 0.375
"""What the scale symbol 0 stands for, in steps: a scale has a logarithm."""
COARSER_SCALES = (1.0, 1.0, 2.0)
"""The steps of the axes, largest first, in those of the first: an error of the thinnest shows least."""

SIZE_UNIT = 32
"""Parts of an octave in which sizes and opacities are measured for the finenesses."""
SIZE_OF_NOTHING = -114
"""Of the scale symbol 0; see :func:`gsz.native.symbols.fineness_of`."""


class FinenessRule(NamedTuple):
    """How fine something is, by a Gaussian's sizes and opacity: weights of their logarithms, in 1/256.

    The step of what is rounded falls with the scales to the powers ``first``, ``second`` and ``third``, largest scale
    first, and with the opacity to the power ``opacity``.
    """

    first: int
    second: int
    third: int
    opacity: int


ROTATION_RULE = FinenessRule(256, -38, -77, 97)
"""Rotations show by how long a Gaussian is, and the less the thicker it is."""
DC_RULE = FinenessRule(64, 77, -26, 110)
SH_RULE = FinenessRule(128, 128, 0, 128)
"""Harmonics by the square root of what a Gaussian covers."""


@dataclass(frozen=True)
class Steps:
    """The numbers that turn symbols into parameters; all of them are stored in the file.

    Attributes:
        center: ``(3,)`` float64, world units; where the contracted space is finest.
        radius: world units; within it positions are on a uniform grid.
        mean_bits: the grid step of positions is ``radius * 2**-mean_bits``.
        scale_pivot: the natural logarithm of the scale at which log-scales have the step ``scale_step``. They are on a
            grid uniform in the power :data:`SCALE_POWER` of scales: larger ones have smaller steps.
        scale_step: that step, of the two largest scales of a Gaussian. The third has twice this step.
        opacity_levels: number of opacities, 2 to 256.
        rotation_step: step of the vector part of a unit quaternion.
        dc_step: step of degree-0 harmonics.
        sh_step: step of the Y of the others, which is the mean of red, green and blue.
        sh_chroma: ``(2,)`` float64; the steps of their Co and Cg, in units of ``sh_step``; see :func:`chroma_steps`.
        sh_values: ``(RECONSTRUCTED,)`` float64; what magnitudes 0, 1, ... stand for, in steps. The first is 0.
        rotation_pivot: what :data:`ROTATION_RULE` makes of the Gaussians whose rotations have exactly
            ``rotation_step``, in 1/32 octaves; see :func:`gsz.native.symbols.fineness_of`.
        rotation_range: by how many half octaves that step may be divided or multiplied, 0 to 8.
        dc_pivot: the same for :data:`DC_RULE` and ``dc_step``.
        dc_range: the same for ``dc_step``.
        sh_pivot: the same for :data:`SH_RULE` and ``sh_step``.
        sh_range: the same for ``sh_step``.
        sh_threshold: fraction of a step beyond which a magnitude is rounded up; only encoders use it.
    """

    center: np.ndarray
    radius: float
    mean_bits: int
    scale_pivot: float
    scale_step: float
    opacity_levels: int
    rotation_step: float
    dc_step: float
    sh_step: float
    sh_chroma: np.ndarray
    sh_values: np.ndarray
    rotation_pivot: int = 0
    rotation_range: int = 0
    dc_pivot: int = 0
    dc_range: int = 0
    sh_pivot: int = 0
    sh_range: int = 0
    sh_threshold: float = 0.5

    @cached_property
    def rotation_steps(self) -> np.ndarray:
        """``(2 * rotation_range + 1,)`` float64: the steps of each fineness, coarsest first."""
        return _half_octaves(self.rotation_step, self.rotation_range)

    @cached_property
    def scale_steps(self) -> np.ndarray:
        """``(3,)`` float64: the steps of the power of scales, which is 1 at the pivot, by axis."""
        return SCALE_POWER * self.scale_step * np.array(COARSER_SCALES)

    @cached_property
    def per_scale(self) -> np.ndarray:
        """``(3,)`` float64: the reciprocals of :attr:`scale_steps`."""
        return 1 / self.scale_steps

    @cached_property
    def per_rotation(self) -> np.ndarray:
        """The reciprocals of :attr:`rotation_steps`."""
        return 1 / self.rotation_steps

    @cached_property
    def per_dc(self) -> np.ndarray:
        """The reciprocals of :attr:`dc_steps`."""
        return 1 / self.dc_steps

    @cached_property
    def pivots(self) -> np.ndarray:
        """``(3,)`` int64: of rotations, DC and harmonics."""
        return np.array([self.rotation_pivot, self.dc_pivot, self.sh_pivot])

    @cached_property
    def ranges(self) -> np.ndarray:
        """``(3,)`` int64: the same."""
        return np.array([self.rotation_range, self.dc_range, self.sh_range])

    @cached_property
    def small_scales(self) -> np.ndarray:
        """``(3, 512)`` float32: what scale symbols below 512 stand for, as log-scales, by axis."""
        symbols = np.arange(512.0)
        symbols[0] = SMALLEST_SCALE
        fraction, exponent = np.frexp(self.scale_steps[:, None] * symbols)
        above = 2.0 * fraction - 1.0
        octaves = (exponent - 1.0) + above * (4.0 - above) * (1 / 3)
        return (octaves * LOGS_PER_OCTAVE + self.scale_pivot).astype(np.float32)

    @cached_property
    def dc_steps(self) -> np.ndarray:
        """``(2 * dc_range + 1,)`` float64: the steps of each fineness, coarsest first."""
        return _half_octaves(self.dc_step, self.dc_range)

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
        """``(opacity_levels,)`` float32: opacities, the squares of ``(level + 1/2) / levels``, as logits.

        Rounded to 1/4096, so that a decoder with any good logarithm has the same.
        """
        opacity = self._opacities
        return (np.rint(elementary.logit(opacity) * 4096) / 4096).astype(np.float32)

    @cached_property
    def opacity_thresholds(self) -> np.ndarray:
        """``(opacity_levels - 1,)`` float32: the logits of the opacities from which a level begins."""
        return elementary.logit((np.arange(1, self.opacity_levels) / self.opacity_levels) ** 2).astype(np.float32)

    @cached_property
    def padded_thresholds(self) -> np.ndarray:
        """``(255,)`` float32 :attr:`opacity_thresholds`. Those beyond the last are NaN, which nothing reaches."""
        thresholds = np.full(255, np.nan, np.float32)
        thresholds[: self.opacity_levels - 1] = self.opacity_thresholds
        return thresholds

    @cached_property
    def covered(self) -> np.ndarray:
        """``(opacity_levels,)`` int64: the logarithm of each opacity, in 1/32 octaves."""
        return np.rint(SIZE_UNIT * elementary.log2(self._opacities)).astype(np.int64)

    @property
    def _opacities(self) -> np.ndarray:
        return ((np.arange(self.opacity_levels) + 0.5) / self.opacity_levels) ** 2

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
