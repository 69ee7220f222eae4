"""The values that one file can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsz.coding.morton import morton_order
from gsz.contract import Grid, ModelT
from gsz.rounding.arrays import Array, as_float64, library_of
from gsz.rounding.axes import Axes, axes_of
from gsz.rounding.levels import look_up, nearest_levels, round_to_multiples, whole
from gsz.rounding.rotations import drop_largest, drop_real
from gsz.rounding.sh_bits import MOST_BITS, SH_UNIT, bits_of, log2_prominence
from gsz.splats import Splats
from gsz.spz.layout import FLAG_ANTIALIASED, Header
from gsz.spz.levels import MAGNITUDE_UNIT, TABLES, Levels, rotation_unit
from gsz.spz.writer import write

LARGEST_FIXED = (1 << 23) - 1
COLOR_STEPS = 0.15 * 255


@dataclass(eq=False)
class SpzGrid(Grid):
    """The values that a file of one version can hold.

    Attributes:
        version, fractional_bits: As the file's header says.
        sh_bits: Bits of SH coefficients of a Gaussian whose prominence is ``2 ** average_prominence``.
        system: Number of the file's coordinate system.
    """

    version: int
    fractional_bits: int
    sh_bits: float
    average_prominence: float
    system: int

    def snap(self, splats: ModelT) -> ModelT:
        from gsz.rounding.tensors import arrays_of, straight_through, straight_through_rotation

        arrays = arrays_of(splats)
        axes = axes_of(self.system).beside(arrays.means)
        levels, signs = self._levels(arrays, axes)
        values = levels.values(self.fractional_bits, axes)
        reach = LARGEST_FIXED * 2.0**-self.fractional_bits
        tables = TABLES.here
        return splats.replace(
            means=straight_through(splats.means, values.means, -reach, reach),
            log_scales=straight_through(splats.log_scales, values.log_scales, *_ends(tables.log_scales)),
            quaternions=straight_through_rotation(splats.quaternions, values.quaternions, signs),
            opacity_logits=straight_through(
                splats.opacity_logits, values.opacity_logits, *_ends(tables.opacity_logits)
            ),
            sh_dc=straight_through(splats.sh_dc, values.sh_dc, *_ends(tables.sh_dc)),
            sh_rest=straight_through(splats.sh_rest, values.sh_rest, -1.0, (SH_UNIT - 1) / SH_UNIT),
        )

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        arrays = splats.numpy()
        levels, _ = self._levels(arrays, axes_of(self.system).here)
        order = morton_order(arrays.means)
        if splats.sh_degree > 0:
            # Neighbors of like steps pack better: a tenth of the coefficients' bytes for a hundredth of the means'.
            order = order[np.argsort(-self._sh_bits(arrays)[order], kind="stable")]
        streams = [np.ascontiguousarray(plane[order]).tobytes() for plane in levels.planes(self.version).values()]
        flags = FLAG_ANTIALIASED if splats.antialiased else 0
        return write(Header(self.version, len(splats), splats.sh_degree, self.fractional_bits, flags, 0), streams)

    def _levels(self, splats: Splats, axes: Axes) -> tuple[Levels, Array]:
        """The integers of every Gaussian in the order of ``splats``, and the signs of the stored quaternions."""
        library = library_of(splats.means)
        dropped, others, signs = self._rotations(splats.quaternions, axes)
        thresholds = TABLES.beside(splats.means).opacity_thresholds
        levels = Levels(
            means=self._fixed(splats.means, axes),
            # Readers disagree about what 0 and 255 are, so they are not written.
            opacities=library.clip(nearest_levels(splats.opacity_logits.reshape(-1), thresholds), 1, 254),
            colors=whole(splats.sh_dc.reshape(-1, 3) * COLOR_STEPS + 127.5, 0, 255),
            scales=whole(splats.log_scales * 16.0 + 160.0, 0, 255),
            dropped=dropped,
            others=others,
            rotation_unit=rotation_unit(self.version),
            sh_rest=self._sh_levels(splats, axes),
        )
        return levels, signs

    def _fixed(self, means: Array, axes: Axes) -> Array:
        steps = as_float64(means * axes.means) * 2.0**self.fractional_bits
        return whole(steps, -LARGEST_FIXED, LARGEST_FIXED)

    def _rotations(self, quaternions: Array, axes: Axes) -> tuple[Array, Array, Array]:
        """Index of the dropped component, the others, and the sign by which the stored quaternion differs."""
        parts = [quaternions[:, 1:] * axes.imaginary, quaternions[:, :1]]
        xyzw = library_of(quaternions).concatenate(parts, 1)
        if self.version == 2:
            real, signs, others = drop_real(xyzw, 3)
            return real, 2 * whole((others + 1.0) * 127.5, 0, 255) - 255, signs
        largest, signs, others = drop_largest(xyzw, 3)
        return largest, whole(others * MAGNITUDE_UNIT, -511, 511), signs

    def _sh_bits(self, splats: Splats) -> Array:
        """``(N,)`` bits of the coefficients of each Gaussian."""
        return bits_of(log2_prominence(splats), self.average_prominence, self.sh_bits)

    def _sh_levels(self, splats: Splats, axes: Axes) -> Array:
        """Bytes less 128, which stands for 0: multiples of 1 to 64, the coarser the less a Gaussian shows."""
        count, coefficients, _ = splats.sh_rest.shape
        rows = splats.sh_rest.reshape(count, 3 * coefficients)
        steps = look_up(TABLES.beside(rows).sh_steps, MOST_BITS - self._sh_bits(splats))
        return round_to_multiples(rows, axes.sh[: 3 * coefficients] * SH_UNIT, steps, -SH_UNIT, SH_UNIT - 1)


def _ends(table: Array) -> tuple[float, float]:
    return float(table[0]), float(table[-1])
