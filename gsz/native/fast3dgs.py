"""The published file's values, better packed: columns of exactly what the ``lzma`` codec stores.

Half- and single-precision numbers become integers in the order of the numbers, and are split into bytes; the leading
byte of a shape's number sees that of the one before. Positions are stored as differences along the Morton curve,
harmonics as their distance from the zero point, coded as the native grid's are.
"""

from __future__ import annotations

import struct

import numpy as np
from numba import njit

from gsz.coding.rans import Alphabet, buckets
from gsz.fast3dgs import FLOAT_WIDTHS, Fast3dgsGrid, to_half
from gsz.kernels import INLINE, SERIAL
from gsz.native.streams import (
    COLOURS,
    ColumnPlan,
    Layout,
    Values,
    from_luma,
    lane_differences,
    luma_into,
)
from gsz.native.symbols import ROWS_AT_ONCE
from gsz.splats import Splats

_FLOATS = {"opacity_logits": "opacities", "log_scales": "scales", "quaternions": "rotations"}
_SH_COLOURS = ("luma", "orange", "green")
"""The order of a coefficient's symbols, as in the native grid."""
_BYTE = Alphabet(8, 0, 8)
_COARSE = buckets(list(range(8, 256, 8)))
_PARAMETERS = struct.Struct("<ffBxxx")
"""Steps of DC and SH, float32 flags in the order of the ``lzma`` file."""


def _layout() -> Layout:
    layout: Layout = {
        f"mean_{axis}": ColumnPlan("means", Alphabet(4, 3, 33, signed=True), summed=True) for axis in range(3)
    }
    for name, attribute in _FLOATS.items():
        for index in range(FLOAT_WIDTHS[name]):
            for byte in (3, 2, 1, 0):
                plan = ColumnPlan(attribute, _BYTE)
                if byte == 2:
                    plan = ColumnPlan(attribute, _BYTE, first=(f"{name}_{index}_3", _COARSE))
                elif byte == 3 and index > 0:
                    plan = ColumnPlan(attribute, _BYTE, first=(f"{name}_{index - 1}_3", _COARSE))
                layout[f"{name}_{index}_{byte}"] = plan
    return layout | COLOURS


LAYOUT = _layout()
"""Half-precision numbers use the upper two bytes; the lower ones are then 0 and cost nothing."""


def pack_parameters(grid: Fast3dgsGrid) -> bytes:
    flags = sum(1 << bit for bit, name in enumerate(FLOAT_WIDTHS) if name in grid.wide)
    return _PARAMETERS.pack(grid.dc.scale, grid.rest.scale, flags)


def unpack_parameters(data: bytes) -> tuple[float, float, frozenset[str]]:
    """The steps of DC and SH, and the names of the parameters in single precision.

    Raises:
        ValueError: a number is out of range.
    """
    if len(data) != _PARAMETERS.size:
        raise ValueError("the grid has a wrong length")
    dc_step, sh_step, flags = _PARAMETERS.unpack(data)
    if not (0 < dc_step < 3.0e36 and 0 < sh_step < 3.0e36) or flags >> len(FLOAT_WIDTHS):
        raise ValueError("the grid is out of range")
    return dc_step, sh_step, frozenset(name for bit, name in enumerate(FLOAT_WIDTHS) if flags >> bit & 1)


def to_columns(grid: Fast3dgsGrid, splats: Splats, rows: np.ndarray) -> Values:
    """The columns of the named Gaussians of a model of NumPy arrays."""
    count, coefficients = len(rows), splats.sh_rest.shape[1]
    means = np.empty((3, count), np.int64)
    floats = {name: np.empty((FLOAT_WIDTHS[name], 4, count), np.uint8) for name in _FLOATS}
    dc = np.empty((3, count), np.int32)
    sh = np.empty((count, coefficients, 3), np.int16)
    dc_zero, sh_zero = grid.dc.zero_point, grid.rest.zero_point
    for begin in range(0, count, ROWS_AT_ONCE):
        here = slice(begin, begin + ROWS_AT_ONCE)
        part = {name: np.take(values, rows[here], axis=0) for name, values in splats.named_parameters()}
        _ordinals(*_bits(part["means"], "means" in grid.wide), means[:, here])
        for name, columns in floats.items():
            _bytes(*_bits(part[name], name in grid.wide), columns[..., here])
        luma_into(grid.dc.symbols(part["sh_dc"]).reshape(-1, 3), dc_zero, *dc[:, here])
        luma, orange, green = sh[here].reshape(-1, 3).T
        luma_into(grid.rest.symbols(part["sh_rest"]).reshape(-1, 3), sh_zero, luma, green, orange)
    values: Values = {f"mean_{axis}": lane_differences(means[axis]) for axis in range(3)}
    for name, columns in floats.items():
        for index, byte in np.ndindex(*columns.shape[:2]):
            values[f"{name}_{index}_{byte}"] = columns[index, byte]
    return values | dict(zip(COLOURS, dc, strict=True)) | {"sh": sh.reshape(count, 3 * coefficients)}


def fill(arrays: dict[str, np.ndarray], values: Values, dc_step: float, wide: frozenset[str]) -> None:
    """Put the parameters that columns stand for into rows of a model's arrays; all but the harmonics.

    Columns of positions are the sums of what is stored. Numbers that are not finite are possible in a strange file.
    """
    for name, width in FLOAT_WIDTHS.items():
        for index in range(width):
            if name == "means":
                numbers = _ordered(values[f"mean_{index}"], name in wide)
            else:
                numbers = _joined(*(values[f"{name}_{index}_{byte}"] for byte in range(4)))
            column = arrays[name][:, index]
            if name in wide:
                _singles(numbers, column.view(np.uint32))
            else:
                _halves(numbers, _HALVES, column)
    dc = arrays["sh_dc"]
    dc[:] = (from_luma(values).astype(np.float32) * np.float32(dc_step)).reshape(dc.shape)


def fill_sh(sh_rest: np.ndarray, symbols: np.ndarray, sh_step: float) -> None:
    """The ``(N, K, 3)`` harmonics of ``(N, 3 K)`` symbols."""
    rgb = from_luma(dict(zip(_SH_COLOURS, symbols.reshape(-1, 3).T, strict=True)))
    np.multiply(rgb, np.float32(sh_step), out=sh_rest.reshape(rgb.shape), dtype=np.float32, casting="same_kind")


def _bits(values: np.ndarray, wide: bool) -> tuple[np.ndarray, int]:
    """The bits of what the ``lzma`` codec stores, as signed integers, and how many there are besides the sign."""
    if wide:
        return values.view(np.int32), 31
    return to_half(values).view(np.int16), 15


@njit(**INLINE)
def _ordinal(bits, digits):
    """A signed integer in the order of floats, -1 for -0 and 0 for +0."""
    return ~(bits & ((1 << digits) - 1)) if bits < 0 else bits


@njit(**SERIAL)
def _ordinals(bits, digits, ordinals):
    for i in range(bits.shape[0]):
        for axis in range(bits.shape[1]):
            ordinals[axis, i] = _ordinal(np.int64(bits[i, axis]), digits)


@njit(**SERIAL)
def _bytes(bits, digits, columns):
    """Split unsigned numbers in the order of floats, of which halves are the upper 16 bits."""
    for i in range(bits.shape[0]):
        for index in range(bits.shape[1]):
            number = (_ordinal(np.int64(bits[i, index]), digits) + (1 << digits)) << (31 - digits)
            for byte in range(4):
                columns[index, byte, i] = (number >> (8 * byte)) & 255


@njit(**SERIAL)
def _joined(lowest, low, high, highest):
    """The inverse of :func:`_bytes` for one column: uint32."""
    numbers = np.empty(len(highest), np.uint32)
    for i in range(len(numbers)):
        numbers[i] = np.uint32(highest[i]) << 24 | np.uint32(high[i]) << 16 | np.uint32(low[i]) << 8 | lowest[i]
    return numbers


@njit(**SERIAL)
def _ordered(ordinals, wide):
    """The same of ordinals; those of too many bits lose the upper ones."""
    numbers = np.empty(len(ordinals), np.uint32)
    digits = 31 if wide else 15
    for i in range(len(numbers)):
        number = (ordinals[i] & ((1 << digits) - 1)) | (np.int64(ordinals[i] >= 0) << digits)
        numbers[i] = number << (31 - digits)
    return numbers


@njit(**SERIAL)
def _singles(numbers, bits):
    """The bits of single-precision floats, from numbers in their order."""
    for i in range(len(numbers)):
        number = np.int64(numbers[i])
        bits[i] = number - (1 << 31) if number >> 31 else (1 << 32) - 1 - number


@njit(**SERIAL)
def _halves(numbers, table, values):
    for i in range(len(numbers)):
        values[i] = table[numbers[i] >> 16]


_HALVES = np.r_[0xFFFF:0x7FFF:-1, 0:0x8000].astype(np.uint16).view(np.float16).astype(np.float32)
"""All half-precision floats in their order, from the NaNs with a sign to those without."""
