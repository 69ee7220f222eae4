"""The packing of the grid ``fast3dgs``: columns of exactly what the codec ``fast3dgs`` stores, in fewer bytes.

Half- and single-precision numbers become integers in the order of the numbers, and are split into bytes; the leading
byte of a shape's number sees that of the one before. Positions are stored as differences along the Morton curve,
harmonics as their distance from the zero point, coded as the native grid's are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from gsz.coding.alphabet import Alphabet, buckets
from gsz.coding.morton import morton_codes
from gsz.fast3dgs import FLOAT_WIDTHS, Fast3dgsGrid, to_half
from gsz.native.layout import DC_COLUMNS, ColumnPlan, Columns, Hints, Layout, from_ycocg, lane_differences, to_ycocg
from gsz.native.packing import Packed, Packing
from gsz.native.symbols import ROWS_AT_ONCE
from gsz.splats import Splats

_STREAMS = {"opacity_logits": "opacities", "log_scales": "scales", "quaternions": "rotations"}
"""The parameters whose numbers are split into bytes, and their streams."""
_BYTES = (3, 2, 1, 0)
"""Those of an unsigned 32-bit number, the most significant first."""
_BYTE = Alphabet(8, 0, 8)
_COARSE = buckets(list(range(8, 256, 8)))
_PARAMETERS = struct.Struct("<ffBxxx")
"""Steps of DC and SH, float32 flags in the order of the codec's file."""
_HALVES = np.r_[0xFFFF:0x7FFF:-1, 0:0x8000].astype(np.uint16).view(np.float16).astype(np.float32)
"""All half-precision floats in their order, from the NaNs with a sign to those without."""


def _layout() -> Layout:
    layout = {f"mean_{axis}": ColumnPlan("means", Alphabet(3, 2, 32, signed=True), summed=True) for axis in range(3)}
    for name, stream in _STREAMS.items():
        for index in range(FLOAT_WIDTHS[name]):
            for byte in _BYTES:
                plan = ColumnPlan(stream, _BYTE)
                if byte == 2:
                    plan = ColumnPlan(stream, _BYTE, first=(f"{name}_{index}_3", _COARSE))
                elif byte == 3 and index > 0:
                    plan = ColumnPlan(stream, _BYTE, first=(f"{name}_{index - 1}_3", _COARSE))
                layout[f"{name}_{index}_{byte}"] = plan
    return layout | DC_COLUMNS


class Fast3dgsPacking(Packing):
    """The columns of the values of Fast-3DGS.

    Half-precision numbers use the upper two bytes; the lower ones are then 0 and cost nothing.

    Attributes:
        dc_step: of ``sh_dc``.
        sh_step: of ``sh_rest``.
        wide: names of the parameters in single precision.
    """

    number = 1
    name = "fast3dgs"
    layout = _layout()

    def __init__(self, dc_step: float, sh_step: float, wide: frozenset[str]):
        self.dc_step = dc_step
        self.sh_step = sh_step
        self.wide = wide

    @classmethod
    def unpack(cls, parameters: bytes) -> Fast3dgsPacking:
        if len(parameters) != _PARAMETERS.size:
            raise ValueError("the grid has a wrong length")
        dc_step, sh_step, flags = _PARAMETERS.unpack(parameters)
        if not (0 < dc_step < 3.0e36 and 0 < sh_step < 3.0e36) or flags >> len(FLOAT_WIDTHS):
            raise ValueError("the grid is out of range")
        return cls(dc_step, sh_step, frozenset(name for bit, name in enumerate(FLOAT_WIDTHS) if flags >> bit & 1))

    def pack(self) -> bytes:
        flags = sum(1 << bit for bit, name in enumerate(FLOAT_WIDTHS) if name in self.wide)
        return _PARAMETERS.pack(self.dc_step, self.sh_step, flags)

    def hints(self, attribute: str, columns: Columns, hints: Hints) -> Hints:
        if attribute != "opacities":
            return hints
        places = np.stack([columns[f"mean_{axis}"] for axis in range(3)], axis=1)
        count = len(places)
        return hints | {
            "places": places,
            "dc_steps": np.ones(count),
            "sh_fineness": np.zeros(count, np.uint8),
        }

    def finish(self, columns: Columns, hints: Hints, rows: Splats) -> None:
        for name, width in FLOAT_WIDTHS.items():
            digits, floats = (31, _singles) if name in self.wide else (15, _halves)
            used = _BYTES[: (digits + 1) // 8]
            values = getattr(rows, name)
            for index in range(width):
                if name == "means":
                    ordinals = columns[f"mean_{index}"]
                    # Ordinals of too many bits lose the upper ones.
                    numbers = (ordinals & ((1 << digits) - 1)) | (ordinals >= 0).astype(np.int64) << digits
                else:
                    planes = np.stack([columns[f"{name}_{index}_{byte}"] for byte in reversed(used)], axis=1)
                    numbers = planes.view(f"<u{len(used)}")[:, 0]
                values[:, index] = floats(numbers)
        for channel, symbols in enumerate(from_ycocg(columns["y"], columns["co"], columns["cg"])):
            rows.sh_dc[:, 0, channel] = symbols.astype(np.float32) * np.float32(self.dc_step)

    @property
    def sh_finenesses(self) -> int:
        return 1

    def dequantize_sh(self, sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray) -> None:
        # Symbols have 14 bits, so that 16 suffice for colors.
        planes = np.ascontiguousarray(symbols.reshape(-1, 3).T)
        colors = sh_rest.reshape(-1, 3)
        for channel, offsets in enumerate(from_ycocg(*planes)):
            colors[:, channel] = offsets.astype(np.float32) * np.float32(self.sh_step)


@dataclass(frozen=True)
class PackedFast3dgs(Packed):
    """A model and the grid that its values are rounded to."""

    packing: Fast3dgsPacking
    curve: np.ndarray
    grid: Fast3dgsGrid
    splats: Splats

    @staticmethod
    def of(splats: Splats, grid: Fast3dgsGrid) -> PackedFast3dgs:
        packing = Fast3dgsPacking(grid.dc.scale, grid.rest.scale, grid.wide)
        return PackedFast3dgs(packing, morton_codes(splats.means), grid, splats)

    def columns(self, rows: np.ndarray) -> Columns:
        count, coefficients = len(rows), self.splats.sh_rest.shape[1]
        means = np.empty((3, count), np.int64)
        planes = {name: np.empty((FLOAT_WIDTHS[name], 4, count), np.uint8) for name in _STREAMS}
        dc = np.empty((3, count), np.int32)
        sh = np.empty((count, coefficients, 3), np.int16)
        for begin in range(0, count, ROWS_AT_ONCE):
            here = slice(begin, begin + ROWS_AT_ONCE)
            part = self.splats.map(lambda values: np.take(values, rows[here], axis=0))  # noqa: B023
            means[:, here] = self._ordinals("means", part.means).T
            for name, of_float in planes.items():
                _split(self._ordinals(name, getattr(part, name)).T, name in self.grid.wide, of_float[..., here])
            dc[:, here] = self._ycocg("dc", part.sh_dc[:, 0])
            sh[here] = np.stack(self._ycocg("rest", part.sh_rest), axis=-1)
        columns: Columns = {f"mean_{axis}": lane_differences(means[axis]) for axis in range(3)}
        for name, of_float in planes.items():
            for index, byte in np.ndindex(*of_float.shape[:2]):
                columns[f"{name}_{index}_{byte}"] = of_float[index, byte]
        y, co, cg = dc
        return columns | {"y": y, "co": co, "cg": cg, "sh": sh.reshape(count, 3 * coefficients)}

    def _ordinals(self, name: str, values: np.ndarray) -> np.ndarray:
        """Signed integers in the order of the floats that the codec stores, -1 for -0 and 0 for +0."""
        bits, digits = (values.view(np.int32), 31) if name in self.grid.wide else (to_half(values).view(np.int16), 15)
        return bits ^ ((bits >> digits) & ((1 << digits) - 1))

    def _ycocg(self, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of ``(..., 3)`` colors, as symbols less the zero point."""
        grid = getattr(self.grid, name)
        symbols = grid.symbols(values).astype(np.int16) - np.int16(grid.zero_point)
        return to_ycocg(symbols[..., 0], symbols[..., 1], symbols[..., 2])


def _split(ordinals: np.ndarray, wide: bool, planes: np.ndarray) -> None:
    """Fill in the bytes, from the lowest on, of numbers in the order of floats, whose upper 16 bits halves are."""
    numbers = ordinals.view(np.uint32) ^ np.uint32(1 << 31) if wide else ordinals.view(np.uint16) ^ np.uint16(1 << 15)
    planes[:, :2] = 0
    for byte in range(numbers.itemsize):
        planes[:, 4 - numbers.itemsize + byte] = (numbers >> (8 * byte)) & 255


def _halves(numbers: np.ndarray) -> np.ndarray:
    """The half-precision floats of unsigned 16-bit numbers in their order."""
    return _HALVES[numbers]


def _singles(numbers: np.ndarray) -> np.ndarray:
    """The single-precision floats of unsigned 32-bit numbers in their order."""
    numbers = numbers.astype(np.uint32)
    return np.where(numbers >> 31, numbers ^ np.uint32(1 << 31), ~numbers).view(np.float32)
