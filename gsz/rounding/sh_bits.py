"""How finely the viewers' formats store spherical harmonics, and which Gaussians get the finer steps.

SPZ and SOG have room for 8 bits a coefficient, and fewer pack better: an encoder may round to multiples of 1, 2, 4, ...
64 steps without any reader knowing it. Both formats spend bits where an error would show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from gsz.errors import UserError
from gsz.rounding import elementary
from gsz.rounding.arrays import Array, Placed, as_float64, library_of
from gsz.rounding.levels import OPACITY_MIDPOINTS, look_up, nearest_levels, whole
from gsz.splats import Splats

SH_UNIT = 128
"""The finest steps of SH coefficients in 1."""

LEAST_BITS, MOST_BITS = 2, 8
MOST_AVERAGE_BITS = 16

Quality = Literal["best", "high", "medium", "low", "tiny"]

MORE_BITS: dict[Quality, float] = {"best": 10.0, "high": 1.0, "medium": 0.0, "low": -1.0, "tiny": -2.0}
"""By quality, what is added to the bits of an average Gaussian. As those of each Gaussian are held within 2 and 8 only
after that, ``best`` gives 8 bits to all but those that show less than an average one by a factor of 2**17."""


@dataclass(frozen=True)
class ShSettings:
    """The settings that the viewers' codecs share.

    Attributes:
        sh_bits: Bits of the SH coefficients of an average Gaussian, 2 to 16. Those that show more get more of them,
            those that show less get fewer, and each Gaussian's are then held within 2 and 8; so beyond 8 it says how
            little a Gaussian may show and still have 8. Readers need not know it.
        quality: ``best``, ``high``, ``medium``, ``low`` or ``tiny``: all 8 bits, one more than ``sh_bits``, as many,
            one less, or two less.
    """

    name: ClassVar[str]

    sh_bits: float = 6.0
    quality: Quality = "medium"

    def check_sh_settings(self) -> None:
        """Raise :class:`UserError` for a number of bits or a quality that there is not."""
        if not LEAST_BITS <= self.sh_bits <= MOST_AVERAGE_BITS:
            raise UserError(
                f"codec {self.name}: sh_bits {self.sh_bits} is not between {LEAST_BITS} and {MOST_AVERAGE_BITS}"
            )
        if self.quality not in MORE_BITS:
            raise UserError(f"{self.name} quality {self.quality!r} is unknown; choose one of {', '.join(MORE_BITS)}")

    def average_sh_bits(self) -> float:
        """Bits of the SH coefficients of an average Gaussian, before they are held within 2 and 8."""
        return self.sh_bits + MORE_BITS[self.quality]


def bits_of(prominence: Array, average: float, bits: float) -> Array:
    """Bits of SH coefficients, int32 from 2 to 8: ``bits`` and one more for every fourfold of what shows.

    One more for every twofold would make all errors show alike; it was worse at the same bytes, and so was one for
    every 16-fold.

    Args:
        prominence: What :func:`log2_prominence` gives, of any shape.
        average: The prominence that gets ``bits``.
    """
    return whole((prominence - average) * 0.5 + bits, LEAST_BITS, MOST_BITS)


class _Opacities(NamedTuple):
    """Thresholds of 8-bit opacities, and the binary logarithm of each opacity, that of 0 as if it were a half."""

    thresholds: Array
    log2: Array


_OPACITIES = Placed(_Opacities(OPACITY_MIDPOINTS, elementary.log2(np.maximum(np.arange(256), 0.5) / 255)))


def log2_prominence(splats: Splats) -> Array:
    """``(N,)`` float64: how much an error of each Gaussian's color shows, which is its opacity, to 8 bits, times the
    geometric mean of its longer axes, as a binary logarithm.

    A length and not an area: the area in place of its root was no better, neither for palettes nor for steps. The
    native format measures the same thing by the area, as opacity times the product of the longer axes: in
    :func:`gsz.native.symbols.fineness_of` from the rounded values, since decoders repeat it, and where it sorts layers
    from the unrounded ones.
    """
    opacities = _OPACITIES.beside(splats.opacity_logits)
    library = library_of(splats.log_scales)
    first, second, third = (as_float64(splats.log_scales[:, axis]) for axis in range(3))
    low, high = library.minimum(first, second), library.maximum(first, second)
    longer = library.maximum(high, third) + library.maximum(low, library.minimum(high, third))
    levels = nearest_levels(splats.opacity_logits.reshape(-1), opacities.thresholds)
    return longer * (0.5 / elementary.LN2) + look_up(opacities.log2, levels)
