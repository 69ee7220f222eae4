"""``fit``, ``decode`` and ``info``, and the settings of files written."""

from __future__ import annotations

import logging
import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gsz.contract import Codec, CodecError
from gsz.errors import UserError
from gsz.rounding import elementary
from gsz.rounding.arrays import Float32s
from gsz.rounding.axes import RIGHT_DOWN_FRONT, RIGHT_UP_BACK, axes_of
from gsz.rounding.sh_bits import ShSettings, log2_prominence
from gsz.splats import Splats
from gsz.spz.grid import LARGEST_FIXED, SpzGrid
from gsz.spz.layout import FLAG_ANTIALIASED, GZIP_MAGIC, HEADER, MAGIC, MOST_FRACTIONAL_BITS
from gsz.spz.levels import Levels
from gsz.spz.reader import read, read_sizes

logger = logging.getLogger(__name__)

STEPS_IN_A_SCALE = 4
"""Binary logarithm of how many position steps the largest axis of a small Gaussian has."""

USUAL_FRACTIONAL_BITS = 12

SYSTEMS = {"rub": RIGHT_UP_BACK, "rdf": RIGHT_DOWN_FRONT}
"""Names of coordinate systems: right, up, back, as Niantic describes the format; right, down, front, as INRIA's
programs have it."""


@dataclass(frozen=True)
class SpzCodec(ShSettings, Codec):
    """The settings of files written; those read say themselves what they are. See also
    :class:`gsz.rounding.sh_bits.ShSettings`.

    Attributes:
        version: 3 (gzip), 4 (zstd), or 2, with coarser rotations, which glTF's ``KHR_gaussian_splatting`` extension for
            SPZ asks for.
        fractional_bits: Binary digits of positions after the point, 0 to 23; by default as the model needs.
        axes: Which axes a file has that does not say: ``rub``, as Niantic describes the format, or ``rdf``, INRIA's own
            axes, which splat-transform from version 3, SuperSplat, gsply and Niantic's own converter leave as they are.
    """

    name = "spz"
    suffix = ".spz"
    keeps = frozenset({"antialiased"})

    version: Literal[2, 3, 4] = 3
    fractional_bits: int | None = None
    axes: Literal["rub", "rdf"] = "rub"

    def __post_init__(self) -> None:
        if self.version not in (2, 3, 4):
            raise UserError(f"codec spz: version {self.version} cannot be written; choose 2, 3 or 4")
        if self.fractional_bits is not None and not 0 <= self.fractional_bits <= MOST_FRACTIONAL_BITS:
            raise UserError(f"codec spz: fractional_bits {self.fractional_bits} is not between 0 and 23")
        if self.axes not in SYSTEMS:
            raise UserError(f"codec spz: axes {self.axes!r} are unknown; choose {' or '.join(SYSTEMS)}")
        self.check_sh_settings()

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        if head[:2] == GZIP_MAGIC:
            try:
                head = zlib.decompressobj(wbits=31).decompress(head, HEADER.size)
            except zlib.error:
                return False
        return head[:4] == MAGIC.to_bytes(4, "little")

    def fit(self, splats: Splats) -> SpzGrid:
        splats = splats.numpy()
        bits = self.fractional_bits
        if bits is None:
            bits = choose_fractional_bits(splats.means, splats.log_scales)
        average = elementary.mean(log2_prominence(splats)) if len(splats) else 0.0
        return SpzGrid(self.version, bits, self.average_sh_bits(), average, SYSTEMS[self.axes])

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        header, planes, said = read(data, source)
        system = SYSTEMS[self.axes] if said is None else said
        if not 1 <= system <= 8:
            raise CodecError(
                f"{source}: its axes are turned by a quarter (coordinate system {system}); convert it to RUB"
            )
        splats = Levels.of(planes, header.version).values(header.fractional_bits, axes_of(system).here)
        return splats.replace(antialiased=bool(header.flags & FLAG_ANTIALIASED))

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        header, sizes = read_sizes(data, source)
        return {
            "format": self.name,
            "version": header.version,
            "count": header.count,
            "sh_degree": header.sh_degree,
            "fractional_bits": header.fractional_bits,
            "antialiased": bool(header.flags & FLAG_ANTIALIASED),
            "bytes": sizes,
        }


def choose_fractional_bits(means: Float32s, log_scales: Float32s) -> int:
    """Binary digits after the point that place a model's Gaussians well, as far as the 24 bits reach.

    A step is to be a small part of the largest axis of nearly all Gaussians; finer ones would only cost bytes.
    """
    if len(means) == 0:
        return USUAL_FRACTIONAL_BITS
    extent = max(float(np.abs(means).max()), 2.0**-60)
    # The most digits with which the furthest position is a number of 24 bits, by the exponent of their quotient.
    fitting = math.frexp(LARGEST_FIXED / extent)[1] - 1
    if fitting < 0:
        logger.warning("spz: positions up to %.3g are beyond the format's 8388607; they are moved to its edge", extent)
    smallest = float(np.quantile(log_scales.max(axis=1), 0.05)) / elementary.LN2
    needed = math.ceil(STEPS_IN_A_SCALE - smallest)
    return max(0, min(max(needed, USUAL_FRACTIONAL_BITS), fitting, MOST_FRACTIONAL_BITS))
