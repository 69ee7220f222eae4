"""The values that one file can hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gsz.coding.morton import morton_order
from gsz.contract import Grid, ModelT
from gsz.rounding.arrays import Array, Float32s, Placed
from gsz.rounding.levels import OPACITY_LOGITS
from gsz.sog.levels import Levels, Ranges, Tables
from gsz.sog.palette import ShPalette
from gsz.sog.writer import write
from gsz.splats import Splats


@dataclass(eq=False)
class SogGrid(Grid):
    """The range of positions, three codebooks and the palette of one model.

    A grid with a palette belongs to the Gaussians it was fitted to, in their order: each keeps its palette vector, and
    :meth:`observe` and :meth:`settle` move the vectors to the means of their Gaussians. A model of another count is a
    :class:`ValueError`; other Gaussians, or the same in another order, need :meth:`rebind` or a fit of their own.

    Attributes:
        ranges: What is stored besides the palette.
        sh: The palette; None for a model without harmonics above degree 0.
    """

    ranges: Ranges
    sh: ShPalette | None

    def observe(self, splats: Splats) -> None:
        from gsz.rounding.tensors import arrays_of

        if self.sh is not None:
            self.sh.observe(arrays_of(splats).sh_rest)

    def settle(self, splats: Splats) -> None:
        from gsz.rounding.tensors import arrays_of

        if self.sh is not None:
            self.sh.follow(arrays_of(splats).sh_rest)

    def rebind(self, splats: Splats) -> SogGrid:
        """The same values for other Gaussians: each has the palette vector that is nearest to its coefficients.

        Takes seconds for large models.
        """
        return self if self.sh is None else replace(self, sh=self.sh.rebound(splats.numpy()))

    def snap(self, splats: ModelT) -> ModelT:
        from gsz.rounding.tensors import arrays_of, shared, straight_through, straight_through_rotation

        levels, tables, signs = self._levels(arrays_of(splats))
        values = levels.values(tables)
        palette = levels.palette
        return splats.replace(
            # Bounds by axis would matter little: positions leave the model's own box rarely and not far.
            means=straight_through(splats.means, values.means),
            log_scales=straight_through(splats.log_scales, values.log_scales, *_ends(self.ranges.scales)),
            quaternions=straight_through_rotation(splats.quaternions, values.quaternions, signs),
            opacity_logits=straight_through(splats.opacity_logits, values.opacity_logits, *_ends(OPACITY_LOGITS)),
            sh_dc=straight_through(splats.sh_dc, values.sh_dc, *_ends(self.ranges.colors)),
            sh_rest=straight_through(splats.sh_rest, values.sh_rest)
            if palette is None
            else shared(splats.sh_rest, values.sh_rest, palette.labels, len(palette.entries)),
        )

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        arrays = splats.numpy()
        levels, _, _ = self._levels(arrays)
        return write(levels, self.ranges, morton_order(arrays.means), splats.antialiased)

    def _levels(self, splats: Splats) -> tuple[Levels, Tables, Array]:
        """The integers of every Gaussian in the order of ``splats``, their tables, and its quaternion's sign."""
        tables = self._tables.beside(splats.means)
        palette = None if self.sh is None else self.sh.levels(splats.sh_rest)
        levels, signs = Levels.of(splats, tables, palette)
        return levels, tables, signs

    @cached_property
    def _tables(self) -> Placed[Tables]:
        return self.ranges.tables()


def _ends(table: Float32s) -> tuple[float, float]:
    return float(table[0]), float(table[-1])
