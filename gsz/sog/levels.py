"""The integers of a file, and what they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gsz.rounding.arrays import Array, Float32s, Float64s, Placed
from gsz.rounding.elementary import signed_exp
from gsz.rounding.levels import (
    OPACITY_LOGITS,
    OPACITY_MIDPOINTS,
    look_up,
    midpoints_of,
    nearest_levels,
    signed_log,
    take_rows,
    whole,
)
from gsz.rounding.rotations import drop_largest, restore_dropped
from gsz.sog.layout import MEAN_STEPS, ROTATION_UNIT
from gsz.splats import Splats

LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Tables(NamedTuple):
    """Ascending values that levels stand for, and the thresholds between them at which the nearest one changes.

    Attributes:
        means: ``(3 * 65536,)``, axis by axis; an axis begins at its entry of ``mean_offsets``.
        mean_lows, mean_rates: ``(3,)`` float64, logarithms of the first levels, and levels in a unit of them.
        scales, colors: Codebooks of log-scales and of SH of degree 0.
    """

    means: Array
    mean_lows: Array
    mean_rates: Array
    mean_offsets: Array
    scales: Array
    scale_thresholds: Array
    colors: Array
    color_thresholds: Array
    opacities: Array
    opacity_thresholds: Array


@dataclass(frozen=True, eq=False)
class Ranges:
    """What the header of a file says about all attributes but the harmonics above degree 0.

    Attributes:
        lows, highs: ``(3,)`` float64 ends of the positions' range, as ``sign(x) log(1 + abs(x))``.
        scales, colors: Ascending codebooks of log-scales and of SH of degree 0.
    """

    lows: Float64s
    highs: Float64s
    scales: Float32s
    colors: Float32s

    def tables(self) -> Placed[Tables]:
        """The tables that turn levels into values and back."""
        spans = self.highs - self.lows
        share = np.arange(MEAN_STEPS + 1) / MEAN_STEPS
        coordinates = signed_exp(self.lows[:, None] + spans[:, None] * share)
        tables = Tables(
            means=np.clip(coordinates, -LARGEST_FLOAT, LARGEST_FLOAT).astype(np.float32).reshape(-1),
            mean_lows=self.lows,
            mean_rates=np.divide(MEAN_STEPS, spans, out=np.zeros(3), where=spans > 0),
            mean_offsets=np.arange(3, dtype=np.int32) << 16,
            scales=self.scales,
            scale_thresholds=midpoints_of(self.scales),
            colors=self.colors,
            color_thresholds=midpoints_of(self.colors),
            opacities=OPACITY_LOGITS,
            opacity_thresholds=OPACITY_MIDPOINTS,
        )
        return Placed(tables)


@dataclass(eq=False)
class PaletteLevels:
    """The integers of the harmonics above degree 0: vectors that Gaussians share.

    Attributes:
        codebook: ``(256,)`` float32, or fewer: what entries stand for.
        entries: ``(vectors, 3 K)`` uint8 (of tensors int32) indices into the codebook, the channels of a coefficient
            adjacent.
        labels: ``(N,)`` int64 number of each Gaussian's vector.
    """

    codebook: Array
    entries: Array
    labels: Array

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.entries.shape[1] // 3 + 1) - 1

    def values(self) -> Array:
        """``(N, K, 3)`` coefficients."""
        rows = take_rows(look_up(self.codebook, self.entries), self.labels)
        return rows.reshape(len(rows), rows.shape[1] // 3, 3)


@dataclass(eq=False)
class Levels:
    """The integers of a file, a row a Gaussian.

    Attributes:
        means: ``(N, 3)`` int32 of 16 bits.
        largest: ``(N,)`` int64 index of the largest component of the rotation, w x y z.
        others: ``(N, 3)`` int32 bytes of the other components.
        scales, colors: ``(N, 3)`` uint8 (of tensors int32) indices into the codebooks.
        opacities: ``(N,)`` uint8 (of tensors int32).
        palette: The harmonics above degree 0; None where there are none.
    """

    means: Array
    largest: Array
    others: Array
    scales: Array
    colors: Array
    opacities: Array
    palette: PaletteLevels | None

    @staticmethod
    def of(splats: Splats, tables: Tables, palette: PaletteLevels | None) -> tuple[Levels, Array]:
        """The integers of every Gaussian, and the ``(N,)`` signs of the stored quaternions."""
        largest, signs, others = drop_largest(splats.quaternions)
        levels = Levels(
            means=whole((signed_log(splats.means) - tables.mean_lows) * tables.mean_rates, 0, MEAN_STEPS),
            largest=largest,
            others=whole((others * math.sqrt(2) + 1.0) * 127.5, 0, 255),
            scales=nearest_levels(splats.log_scales, tables.scale_thresholds),
            colors=nearest_levels(splats.sh_dc.reshape(-1, 3), tables.color_thresholds),
            opacities=nearest_levels(splats.opacity_logits.reshape(-1), tables.opacity_thresholds),
            palette=palette,
        )
        return levels, signs

    def values(self, tables: Tables) -> Splats:
        """What the integers stand for: the one path that both decoding and snapping take."""
        sh_dc = look_up(tables.colors, self.colors)[:, None]
        return Splats(
            means=look_up(tables.means, self.means + tables.mean_offsets),
            log_scales=look_up(tables.scales, self.scales),
            quaternions=restore_dropped(self.largest, 2 * self.others - 255, ROTATION_UNIT),
            opacity_logits=look_up(tables.opacities, self.opacities)[:, None],
            sh_dc=sh_dc,
            sh_rest=sh_dc[:, :0] if self.palette is None else self.palette.values(),
        )
