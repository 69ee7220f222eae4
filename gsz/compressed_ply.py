"""PlayCanvas' ``.compressed.ply``: chunks of 256 Gaussians with ranges of their own. Read, not written."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.contract import Codec, CodecError
from gsz.errors import UserError
from gsz.ply_header import PlyElement, PlyHeader, Records, read_header
from gsz.rounding.opacity import LOGITS_OF_BYTES
from gsz.splats import SH_C0, Splats

CHUNK = 256
"""Gaussians that share a row of the ``chunk`` element; the last chunk may have fewer."""

PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
ROTATION_UNIT = 1023 * math.sqrt(2)
"""Rotation components are 10 bits ``v`` for ``(2 v - 1023) / 1023``, full scale being 1 / sqrt(2)."""

SH_DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}
SH_SPAN = 8
"""SH coefficients are bytes over [-4, 4]."""


@dataclass(frozen=True)
class CompressedPlyCodec(Codec):
    """What SuperSplat, splat-transform and gsplat write as compressed PLY, with or without ranges of color and SH."""

    name = "compressed-ply"
    suffix = ".compressed.ply"
    writable = False

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith((b"ply\n", b"ply\r\n")) and b"\nelement chunk " in head

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        elements = _elements(data, source)
        chunks, vertices = elements["chunk"], elements["vertex"]
        count = len(vertices)
        if len(chunks) != -(-count // CHUNK):
            raise CodecError(
                f"{source}: corrupted, {count} Gaussians do not make {len(chunks)} chunks; download it again"
            )
        word = {name: vertices[name].astype(np.uint32) for name in PACKED}
        color = _fields(word["packed_color"], 8, 8, 8, 8)
        rgb = color[:, :3] / 255
        if "min_r" in (chunks.dtype.names or ()):
            rgb = _within(chunks, "min_{}", "max_{}", "rgb", rgb, source)
        positions = _fields(word["packed_position"], 11, 10, 11) / [2047, 1023, 2047]
        scales = _fields(word["packed_scale"], 11, 10, 11) / [2047, 1023, 2047]
        return Splats.from_arrays(
            means=_within(chunks, "min_{}", "max_{}", "xyz", positions, source),
            log_scales=_within(chunks, "min_scale_{}", "max_scale_{}", "xyz", scales, source),
            quaternions=_quaternions(_fields(word["packed_rotation"], 2, 10, 10, 10)),
            opacity_logits=LOGITS_OF_BYTES[color[:, 3]],
            sh_dc=(rgb - 0.5) / SH_C0,
            sh_rest=_sh_rest(elements.get("sh"), count, source),
        )

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        elements = _elements(data, source)
        numbers = len(elements["sh"].dtype.names or ()) if "sh" in elements else 0
        if numbers not in SH_DEGREES:
            raise CodecError(f"{source}: corrupted, {numbers} SH a Gaussian are of no degree; download it again")
        vertices = elements["vertex"]
        return {
            "format": self.name,
            "version": None,
            "count": len(vertices),
            "sh_degree": SH_DEGREES[numbers],
            "bytes": {name: rows.nbytes for name, rows in elements.items()},
        }


def _elements(data: bytes, source: str) -> dict[str, Records]:
    """The file's elements by name, each ``(N,)`` records, with the properties that the format needs."""
    try:
        header = read_header(io.BytesIO(data), source)
    except UserError as error:
        raise CodecError(str(error)) from error
    elements: dict[str, Records] = {}
    offset = header.data_start
    for element in header.elements:
        rows = _records(data, offset, header, element, source)
        elements[element.name] = rows
        offset += rows.nbytes
    _require(elements, "vertex", PACKED, np.uint32, source)
    ranges = [f"{end}_{scale}{axis}" for end in ("min", "max") for scale in ("", "scale_") for axis in "xyz"]
    has_colors = "chunk" in elements and "min_r" in (elements["chunk"].dtype.names or ())
    colors = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
    _require(elements, "chunk", [*ranges, *(colors if has_colors else [])], np.float32, source)
    return elements


def _records(data: bytes, offset: int, header: PlyHeader, element: PlyElement, source: str) -> Records:
    if header.order is None or element.has_lists:
        raise CodecError(f"{source}: not a compressed PLY, which is binary and has no lists; check the path")
    if not element.properties:
        # gsplat writes the SH of degree 0 so. NumPy reads no rows of nothing, but there can be an array of them.
        return np.empty(element.count, np.dtype([]))
    return np.frombuffer(data, element.dtype(header.order), element.count, offset)


def _require(elements: dict[str, Records], name: str, properties: Sequence[str], kind: type, source: str) -> None:
    """Raise unless an element has all these properties, of this type."""
    fields = elements[name].dtype.fields if name in elements else None
    bad = [
        prop for prop in properties if fields is None or prop not in fields or fields[prop][0].newbyteorder("=") != kind
    ]
    if bad:
        raise CodecError(f"{source}: corrupted, its element {name} lacks {bad[0]} of the right type; download it again")


def _fields(words: npt.NDArray[np.uint32], *widths: int) -> npt.NDArray[np.int32]:
    """``(N, len(widths))`` bit fields of words, the highest first; they fill the word."""
    fields, shift = [], 32
    for width in widths:
        shift -= width
        fields.append((words >> np.uint32(shift)) & np.uint32((1 << width) - 1))
    return np.stack(fields, axis=1).astype(np.int32)


def _quaternions(fields: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """``(N, 4)`` unit quaternions, w x y z, from ``(N, 4)`` fields: the largest component's index, and the others."""
    largest, others = fields[:, :1], 2 * fields[:, 1:] - 1023
    squares = (others * others).sum(axis=1, keepdims=True)
    rest = np.sqrt(np.maximum(0.0, 1.0 - squares / ROTATION_UNIT**2))
    places = np.arange(4)[None, :]
    # Before the largest component the others keep their places, behind it they are one further.
    slots = np.clip(places - (places > largest), 0, 2)
    return np.where(places == largest, rest, np.take_along_axis(others, slots, axis=1) / ROTATION_UNIT)


def _within(
    chunks: Records, low: str, high: str, axes: str, shares: npt.NDArray[np.float64], source: str
) -> npt.NDArray[np.float64]:
    """Values at ``(N, 3)`` shares of the way through their chunks' ranges."""
    lows, highs = (
        np.stack([chunks[name.format(axis)].astype(np.float64) for axis in axes], axis=1) for name in (low, high)
    )
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        raise CodecError(
            f"{source}: corrupted, the range {low.format(axes[0])} of a chunk is not finite; download it again"
        )
    chunk = np.arange(len(shares)) // CHUNK
    return lows[chunk] * (1 - shares) + highs[chunk] * shares


def _sh_rest(rows: Records | None, count: int, source: str) -> npt.NDArray[np.float32]:
    """``(N, K, 3)`` from the ``sh`` element, whose columns are channel by channel; none without it or its columns."""
    names = list(rows.dtype.names or ()) if rows is not None else []
    if rows is None or not names:
        return np.zeros((count, 0, 3), np.float32)
    numbers = len(names)
    expected = [f"f_rest_{i}" for i in range(numbers)]
    _require({"sh": rows}, "sh", expected, np.uint8, source)
    if numbers not in SH_DEGREES or len(rows) != count:
        raise CodecError(f"{source}: corrupted, its SH are {numbers} numbers for {len(rows)} of {count} Gaussians")
    byte = np.arange(256)
    # Bytes are bucket centers, except that the first and the last are the very ends of the range.
    shares = np.where(byte == 0, 0, np.where(byte == 255, 1, (byte + 0.5) / 256))
    table = ((shares - 0.5) * SH_SPAN).astype(np.float32)
    columns = np.stack([table[rows[name]] for name in expected], axis=1)
    return np.ascontiguousarray(columns.reshape(count, 3, numbers // 3).transpose(0, 2, 1))
