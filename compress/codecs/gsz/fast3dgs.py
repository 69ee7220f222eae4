"""The published file's values, better packed: columns of exactly what the ``lzma`` codec stores.

Half- and single-precision numbers become integers in the order of the numbers, and are split into bytes; the leading
byte of a shape's number sees that of the one before. Positions are stored as differences along the Morton curve,
harmonics as their distance from the zero point, coded as the native grid's are.
"""

from __future__ import annotations

import struct

import numpy as np

from compress.codecs.gsz.streams import (
    COLOURS,
    ColumnPlan,
    Layout,
    Values,
    from_luma,
    lane_differences,
    to_luma,
)
from compress.codecs.lzma import FLOAT_WIDTHS, LzmaGrid
from compress.codecs.morton import morton_order
from compress.codecs.rans import Alphabet, buckets
from scene.gaussian_model import GaussianModel

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


def pack_parameters(grid: LzmaGrid) -> bytes:
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


def curve_ranks(splats: GaussianModel) -> np.ndarray:
    """``(N,)`` int64: each Gaussian's place along the Morton curve."""
    order = morton_order(splats.means.numpy())
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def to_columns(grid: LzmaGrid, splats: GaussianModel, rows: np.ndarray) -> Values:
    """The columns of the named Gaussians of a model on the CPU."""
    snapped = {name: tensor.detach().numpy()[rows] for name, tensor in grid.snap(splats.detach()).named_parameters()}
    values: Values = {}
    for axis, numbers in enumerate(_ordinals(snapped["means"], "means" in grid.wide).T):
        values[f"mean_{axis}"] = lane_differences(numbers)
    for name in _FLOATS:
        wide = name in grid.wide
        numbers = _ordinals(snapped[name], wide) + (1 << 31 if wide else 1 << 15)
        for index, column in enumerate(numbers.T << (0 if wide else 16)):
            for byte in range(4):
                values[f"{name}_{index}_{byte}"] = (column >> (8 * byte)) & 255
    dc = grid.dc.symbols(splats.sh_dc)[rows].reshape(-1, 3).astype(np.int64) - grid.dc.zero_point
    sh = grid.rest.symbols(splats.sh_rest)[rows].astype(np.int16) - np.int16(grid.rest.zero_point)
    colours = to_luma(sh.reshape(-1, 3))
    sh = np.stack([colours[name] for name in _SH_COLOURS], axis=1).astype(np.int16)
    return values | to_luma(dc) | {"sh": sh.reshape(len(rows), 3 * splats.sh_rest.shape[1])}


def fill(arrays: dict[str, np.ndarray], values: Values, dc_step: float, wide: frozenset[str]) -> None:
    """Put the parameters that columns stand for into rows of a model's arrays; all but the harmonics.

    Columns of positions are the sums of what is stored. Numbers that are not finite are possible in a strange file.
    """
    floats = {"means": np.stack([values[f"mean_{axis}"] for axis in range(3)], axis=1)}
    for name in _FLOATS:
        whole = [
            sum(values[f"{name}_{index}_{byte}"].astype(np.int64) << (8 * byte) for byte in range(4))
            for index in range(FLOAT_WIDTHS[name])
        ]
        numbers = np.stack(whole, axis=1)
        floats[name] = numbers - (1 << 31) if name in wide else (numbers >> 16) - (1 << 15)
    for name in FLOAT_WIDTHS:
        arrays[name][:] = _numbers(floats[name], name in wide)
    dc = arrays["sh_dc"]
    dc[:] = (from_luma(values).astype(np.float32) * np.float32(dc_step)).reshape(dc.shape)


def fill_sh(sh_rest: np.ndarray, symbols: np.ndarray, sh_step: float) -> None:
    """The ``(N, K, 3)`` harmonics of ``(N, 3 K)`` symbols."""
    colours = symbols.reshape(-1, 3).astype(np.int64)
    rgb = from_luma({name: colours[:, index] for index, name in enumerate(_SH_COLOURS)})
    np.multiply(rgb, np.float32(sh_step), out=sh_rest.reshape(rgb.shape), dtype=np.float32, casting="same_kind")


def _ordinals(numbers: np.ndarray, wide: bool) -> np.ndarray:
    """Signed int64 in the order of floats, -1 for -0 and 0 for +0."""
    bits = numbers.astype("<f4" if wide else "<f2").view("<i4" if wide else "<i2").astype(np.int64)
    magnitudes = bits & (0x7FFFFFFF if wide else 0x7FFF)
    return np.where(bits < 0, ~magnitudes, magnitudes)


def _numbers(ordinals: np.ndarray, wide: bool) -> np.ndarray:
    """The inverse of :func:`_ordinals`, as float32; ordinals of too many bits lose the upper ones."""
    sign, mask = (1 << 31, 0x7FFFFFFF) if wide else (1 << 15, 0x7FFF)
    bits = np.where(ordinals < 0, sign | (~ordinals & mask), ordinals & mask)
    return bits.astype("<u4" if wide else "<u2").view("<f4" if wide else "<f2").astype(np.float32)
