"""The packing of the native grid: how its symbols become columns, and back."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gsz.coding.alphabet import Alphabet, buckets
from gsz.coding.morton import deinterleave, interleave
from gsz.coding.neighbors import BELOW, LEVEL
from gsz.coding.tables import StreamError, at
from gsz.kernels import inline, kernel
from gsz.native.layout import (
    AS_IT_IS,
    DC_COLUMNS,
    ColumnPlan,
    Columns,
    Hints,
    Layout,
    Prediction,
    from_ycocg,
    lane_differences,
    mapped,
    to_ycocg,
)
from gsz.native.packing import Packed, Packing
from gsz.native.steps import MEAN_LIMIT, RECONSTRUCTED, SCALE_LIMIT, Steps
from gsz.native.symbols import (
    ROWS_OF_ARITHMETIC,
    Finenesses,
    FinenessRules,
    Symbols,
    dequantize_into,
    dequantize_sh,
    find_fineness,
    quantize,
)
from gsz.splats import Splats

_HALF_OCTAVES = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
_QUARTER_OCTAVES = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    11,
    13,
    15,
    18,
    21,
    25,
    30,
    35,
    42,
    50,
    59,
    70,
    83,
    99,
    118,
    140,
    166,
    198,
    235,
]
_ROTATION = ColumnPlan("rotations", Alphabet(5, 3, 15, signed=True), first=("rotation_fineness", AS_IT_IS))

_PARAMETERS = struct.Struct("<3d2d7d4d4BH3h")
"""Center, radius, scale pivot; steps of scales, rotations, DC, SH and its Co and Cg, SH threshold; SH values; bits of
means, ranges of rotations, DC and SH, opacity levels, and the three pivots."""


class NativePacking(Packing):
    """The columns of a native grid.

    Attributes:
        steps: the grid.
    """

    number = 0
    name = "native"
    layout: ClassVar[Layout] = {
        "distance": ColumnPlan("means", Alphabet(2, 2, 63), previous=buckets([36, 48, 60]), summed=True),
        "opacity": ColumnPlan(
            "opacities",
            Alphabet(7, 4, 8),
            prediction=Prediction(LEVEL, 12.0, mapped(list(range(1, 12))), lambda seen: seen["opacity_levels"]),
        ),
        "scale": ColumnPlan(
            "scales",
            Alphabet(7, 3, 20),
            prediction=Prediction(
                LEVEL, 4.0, mapped(_QUARTER_OCTAVES), lambda seen: np.ones(len(seen["opacity_level"]))
            ),
        ),
        "gap": ColumnPlan(
            "scales",
            Alphabet(6, 2, 20),
            prediction=Prediction(
                BELOW,
                1.0,
                mapped([-6, -3, -1, 0, 1, 2, 4, 6, 9, 13, 20], 128),
                lambda seen: seen["scale"],
                buckets(_HALF_OCTAVES, 12),
            ),
        ),
        "thin": ColumnPlan(
            "scales",
            Alphabet(6, 2, 20),
            prediction=Prediction(
                BELOW,
                2.0,
                mapped([-6, -2, -1, 0, 1, 2, 4, 8, 12, 18, 26, 40], 128),
                lambda seen: (seen["scale"] - seen["gap"] + 1) >> 1,
                buckets(_HALF_OCTAVES, 13),
            ),
        ),
        "rotation_x": _ROTATION,
        "rotation_y": _ROTATION,
        "rotation_z": _ROTATION,
        **DC_COLUMNS,
    }
    # ``distance``: Morton code less that of the Gaussian eight before. ``gap``: the first scale less the second.
    # ``thin``: half the second, rounded up, less the third.

    def __init__(self, steps: Steps):
        self.steps = steps

    @classmethod
    def unpack(cls, parameters: bytes) -> NativePacking:
        if len(parameters) != _PARAMETERS.size:
            raise ValueError("the grid has a wrong length")
        numbers = _PARAMETERS.unpack(parameters)
        floats, (mean_bits, *ranges, opacity_levels), pivots = numbers[:16], numbers[16:21], numbers[21:]
        limits_kept = (
            all(math.isfinite(number) and abs(number) < 1e38 for number in floats)
            and floats[3] > 1e-30
            and abs(floats[4]) <= 1e6
            and all(1e-30 < number < 1e6 for number in floats[5:11])
            and all(0 <= number <= 64 for number in floats[11:])
            and mean_bits <= 16
            and 2 <= opacity_levels <= 256
            and max(ranges) <= 8
        )
        if not limits_kept:
            raise ValueError("the grid is out of range")
        steps = Steps(
            center=np.array(floats[:3]),
            radius=floats[3],
            mean_bits=mean_bits,
            scale_pivot=floats[4],
            scale_step=floats[5],
            opacity_levels=opacity_levels,
            rotation_step=floats[6],
            dc_step=floats[7],
            sh_step=floats[8],
            sh_chroma=np.array(floats[9:11]),
            sh_values=np.array(floats[12 : 12 + RECONSTRUCTED]),
            rotation_pivot=pivots[0],
            rotation_range=ranges[0],
            dc_pivot=pivots[1],
            dc_range=ranges[1],
            sh_pivot=pivots[2],
            sh_range=ranges[2],
            sh_threshold=floats[11],
        )
        return cls(steps)

    def pack(self) -> bytes:
        steps = self.steps
        return _PARAMETERS.pack(
            *steps.center,
            steps.radius,
            steps.scale_pivot,
            steps.scale_step,
            steps.rotation_step,
            steps.dc_step,
            steps.sh_step,
            *steps.sh_chroma,
            steps.sh_threshold,
            *steps.sh_values,
            steps.mean_bits,
            steps.rotation_range,
            steps.dc_range,
            steps.sh_range,
            steps.opacity_levels,
            steps.rotation_pivot,
            steps.dc_pivot,
            steps.sh_pivot,
        )

    def columns(self, symbols: Symbols, curve: np.ndarray) -> Columns:
        """The columns of symbols, in their order. ``curve`` has their Morton codes."""
        first, second, third = np.ascontiguousarray(symbols.scales.T)
        x, y, z = np.ascontiguousarray(symbols.rotations.T)
        luma, co, cg = to_ycocg(*np.ascontiguousarray(symbols.dc.T))
        return {
            "distance": lane_differences(curve),
            "opacity": symbols.opacities,
            "scale": first,
            "gap": first - second,
            "thin": ((second + 1) >> 1) - third,
            "rotation_x": x,
            "rotation_y": y,
            "rotation_z": z,
            "y": luma,
            "co": co,
            "cg": cg,
            "sh": symbols.sh,
        }

    def hints(self, attribute: str, columns: Columns, hints: Hints) -> Hints:
        if attribute == "opacities":
            positions = deinterleave(columns["distance"], MEAN_LIMIT)
            levels = np.full(len(positions), np.float64(self.steps.opacity_levels))
            return hints | {"places": positions, "opacity_levels": levels}
        if attribute == "scales":
            levels = columns["opacity"]
            if int(levels.max(initial=0)) >= self.steps.opacity_levels:
                raise StreamError("a level is out of range")
            return hints | {"opacity_level": levels.astype(np.uint8)}
        if attribute == "rotations":
            count = len(columns["scale"])
            scales = np.empty((count, 3), np.int32)
            fineness = Finenesses.blank(count)
            symbols = (columns[name].astype(np.int64, copy=False) for name in ("scale", "gap", "thin"))
            rules, opacities = FinenessRules.of(self.steps), np.empty(ROWS_OF_ARITHMETIC, np.int32)
            _shapes(*symbols, hints["opacity_level"], rules, opacities, scales.reshape(-1), fineness)
            return hints | {
                "scales": scales,
                "rotation_fineness": fineness.rotations,
                "dc_fineness": fineness.dc,
                "dc_steps": np.take(self.steps.dc_steps, fineness.dc),
                "sh_fineness": fineness.sh,
            }
        return hints

    def finish(self, columns: Columns, hints: Hints, rows: Splats) -> None:
        symbols = Symbols(
            means=hints["places"],
            scales=hints["scales"],
            opacities=hints["opacity_level"],
            rotations=_side_by_side(columns["rotation_x"], columns["rotation_y"], columns["rotation_z"]),
            dc=_side_by_side(*from_ycocg(columns["y"], columns["co"], columns["cg"])),
            sh=np.empty((len(rows), 0), np.int16),
        )
        fineness = Finenesses(hints["rotation_fineness"], hints["dc_fineness"], hints["sh_fineness"])
        dequantize_into(rows, symbols, fineness, self.steps)

    @property
    def sh_finenesses(self) -> int:
        return len(self.steps.sh_steps)

    def dequantize_sh(self, sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray) -> None:
        dequantize_sh(sh_rest, symbols, fineness, self.steps)


@dataclass(frozen=True)
class PackedNative(Packed):
    """A model on a native grid."""

    packing: NativePacking
    curve: np.ndarray
    symbols: Symbols

    @staticmethod
    def of(splats: Splats, steps: Steps) -> PackedNative:
        symbols = quantize(splats, steps).symbols
        return PackedNative(NativePacking(steps), interleave(symbols.means, MEAN_LIMIT), symbols)

    def columns(self, rows: np.ndarray) -> Columns:
        return self.packing.columns(self.symbols.take(rows), self.curve[rows])


def _side_by_side(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """``(N, 3)`` int32."""
    table = np.empty((len(first), 3), np.int32)
    for column, values in enumerate((first, second, third)):
        table[:, column] = values
    return table


@kernel
def _shapes(scale, gap, thin, levels, rules, opacities, scales, fineness):
    """Fill in ``(3 N,)`` scale symbols and what follows from them. Those of a strange file are cut off.

    ``opacities`` is :data:`ROWS_OF_ARITHMETIC` int32 of scratch memory.
    """
    for begin in range(0, len(scale), ROWS_OF_ARITHMETIC):
        left = len(scale) - begin
        rows = left if left < ROWS_OF_ARITHMETIC else ROWS_OF_ARITHMETIC
        for t in range(rows):
            i = at(begin) + at(t)
            opacities[at(t)] = rules.covered[levels[i]]
            first = scale[i]
            second = first - gap[i]
            scales[at(3) * i] = _cut_off(first)
            scales[at(3) * i + at(1)] = _cut_off(second)
            scales[at(3) * i + at(2)] = _cut_off(((second + 1) >> 1) - thin[i])
        find_fineness(0, at(begin), rows, scales, opacities, rules.pivots, rules.ranges, fineness.rotations)
        find_fineness(1, at(begin), rows, scales, opacities, rules.pivots, rules.ranges, fineness.dc)
        find_fineness(2, at(begin), rows, scales, opacities, rules.pivots, rules.ranges, fineness.sh)


@inline
def _cut_off(symbol):
    limit = 4 * SCALE_LIMIT
    return np.int32(-limit if symbol < -limit else (limit if symbol > limit else symbol))
