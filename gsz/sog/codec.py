"""``fit``, ``decode`` and ``info``, and the settings of files written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gsz.contract import Codec
from gsz.errors import UserError
from gsz.rounding.codebooks import fit_codebook
from gsz.rounding.levels import signed_log
from gsz.rounding.palettes import PaletteFitter
from gsz.rounding.sh_bits import ShSettings
from gsz.sog.grid import SogGrid
from gsz.sog.layout import ATTRIBUTES, MAX_PALETTE, META, ZIP_MAGIC
from gsz.sog.levels import Ranges
from gsz.sog.palette import fit_palette, weights_of
from gsz.sog.reader import open_reader
from gsz.splats import Splats

LEAST_SCALE_WEIGHT = 1e-3
"""Added to the weights of scales in their codebook, whose average is 1."""


@dataclass(frozen=True)
class SogCodec(ShSettings, Codec):
    """The settings of files written; see also :class:`gsz.rounding.sh_bits.ShSettings`.

    Attributes:
        palette: Most vectors of spherical harmonics, 1 to 65536. Gaussians share vectors only where there are more
            Gaussians than that; fewer vectors save bytes, but cost more quality than they are worth.
        iterations: Number of k-means iterations for the palette.
        seed: Seed of its starting points.
    """

    name = "sog"
    suffix = ".sog"
    keeps = frozenset({"antialiased"})

    palette: int = MAX_PALETTE
    iterations: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.palette <= MAX_PALETTE:
            raise UserError(f"codec sog: palette {self.palette} is not between 1 and {MAX_PALETTE}")
        self.check_sh_settings()

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith(ZIP_MAGIC) or (head.lstrip().startswith(b"{") and b'"version"' in head)

    def fit(self, splats: Splats) -> SogGrid:
        splats = splats.numpy()
        logs = signed_log(splats.means) if len(splats) else np.zeros((1, 3))
        # What a Gaussian covers is its prominence squared; the few largest need the finest steps.
        scale_weights = np.broadcast_to(weights_of(splats, 2.0)[:, None] + LEAST_SCALE_WEIGHT, (len(splats), 3))
        ranges = Ranges(
            lows=logs.min(axis=0),
            highs=logs.max(axis=0),
            scales=fit_codebook(splats.log_scales, scale_weights),
            colors=fit_codebook(splats.sh_dc),
        )
        fitter = PaletteFitter(self.palette, self.iterations, self.seed)
        return SogGrid(ranges, fit_palette(splats, fitter, self.average_sh_bits()))

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        return open_reader(data, source).splats()

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        reader = open_reader(data, source)
        size_of = reader.archive.packed_size
        sizes = {ATTRIBUTES[key]: sum(map(size_of, files)) for key, files in reader.files.items()}
        return {
            "format": self.name,
            "version": reader.version,
            "count": reader.count,
            "sh_degree": reader.sh_degree,
            "antialiased": reader.antialiased,
            "palette": reader.palette_size,
            "bytes": {**sizes, "tables": size_of(META)},
        }
