"""Tables of vertices in PLY files, read by property name without believing what a header claims."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from plyfile import PlyData, PlyElement, PlyListProperty, PlyParseError, PlyProperty

from gsz.errors import UserError

_MAX_HEADER_BYTES = 1 << 20
_HEADER_END = re.compile(rb"(?<=[\r\n])end_header(\r\n|\r|\n)")
_ELEMENT_LINE = re.compile(rb"(?<=[\r\n])([ \t]*element[ \t]+\S+[ \t]+)(\S+)")

_ELEMENT_WORD = re.compile(rb"(?<=[\r\n])\s*element\s")
"""An element line in the widest sense, to notice those whose count :data:`_ELEMENT_LINE` does not see."""

_ROWS_AT_A_TIME = 1 << 12
"""Rows gathered together when columns are picked: few enough that they stay in the processor's cache."""


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file declares.

    Attributes:
        layout: The elements with their properties, all of zero rows.
        counts: How many rows each element really has, in the order of the file.
        data_start: Offset of the first byte behind the header.
    """

    layout: PlyData
    counts: list[int]
    data_start: int

    @property
    def names(self) -> list[str]:
        """The properties of a vertex, in the order of the file."""
        return [prop.name for prop in self.layout["vertex"].properties]

    def vertex_bytes(self) -> dict[str, int]:
        """How many bytes each property of a vertex takes in a binary file; of a list, its least."""
        return {prop.name: _least_bytes(prop) for prop in self.layout["vertex"].properties}

    def require(self, names: Sequence[str], source: str, remedy: str) -> None:
        """Raise :class:`UserError` unless a vertex has all these properties and each is a number."""
        properties = {prop.name: prop for prop in self.layout["vertex"].properties}
        missing = [name for name in names if name not in properties]
        if missing:
            raise UserError(f"{source}: lacks the properties {abridged(missing)}; {remedy}")
        lists = [name for name in names if isinstance(properties[name], PlyListProperty)]
        if lists:
            raise UserError(f"{source}: the properties {abridged(lists)} are lists, not numbers; {remedy}")


def read_header(stream: BinaryIO, source: str) -> PlyHeader:
    """The header of a PLY with a vertex element, once the stream is known to be long enough for what it declares.

    plyfile allocates what a header asks for, so it is given the header with the counts set to zero, and the counts
    are compared with the stream's length here.

    Args:
        stream: A seekable binary stream at its beginning.
        source: The file's name, for messages.

    Raises:
        UserError: the stream is no PLY, its header is damaged, or it is shorter than its header says.
    """
    head = stream.read(_MAX_HEADER_BYTES)
    size = stream.seek(0, io.SEEK_END)
    if not head.startswith(b"ply"):
        raise UserError(f"{source}: is not a PLY file; give the point_cloud.ply of a trained model")
    end = _HEADER_END.search(head)
    if end is None:
        raise UserError(f"{source}: its PLY header does not end; the file is truncated or damaged, copy it again")
    text = head[: end.end()]
    counts = [count for _, count in _ELEMENT_LINE.findall(text)]
    if len(_ELEMENT_WORD.findall(text)) != len(counts):
        raise UserError(f"{source}: its PLY header has an element without a count; the file is damaged, copy it again")
    bad = next((count for count in counts if not re.fullmatch(rb"[0-9]{1,18}", count)), None)
    if bad is not None:
        raise UserError(f"{source}: its PLY header declares {bad[:40]!r} rows; the file is damaged, copy it again")
    try:
        layout = PlyData.read(io.BytesIO(_ELEMENT_LINE.sub(rb"\g<1>0", text)))
    except (PlyParseError, ValueError) as error:
        raise UserError(f"{source}: its PLY header is damaged ({error}); copy the file again") from error
    if len(layout.elements) != len(counts):
        raise UserError(f"{source}: its PLY header is damaged (element lines it cannot have); copy the file again")
    if "vertex" not in layout:
        raise UserError(f"{source}: has no vertex element; give the point_cloud.ply of a trained model")

    header = PlyHeader(layout, [int(count) for count in counts], end.end())
    rows = zip(layout.elements, header.counts, strict=True)
    needed = header.data_start + sum(count * _least_row_bytes(element, layout.text) for element, count in rows)
    # The last line of an ASCII file may lack its newline.
    if size + int(layout.text) < needed:
        raise UserError(
            f"{source}: is truncated or its header is wrong: "
            f"the header asks for at least {needed} bytes, the file has {size}; copy it again"
        )
    return header


def read_vertices(stream: BinaryIO, header: PlyHeader, source: str) -> np.ndarray:
    """The ``(N,)`` records of the vertex element. Elements behind it in a binary file are not looked at.

    Raises:
        UserError: the rows do not fit the header.
    """
    if header.layout.text:
        stream.seek(0)
        try:
            return PlyData.read(stream)["vertex"].data
        except (PlyParseError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: its data does not fit its header ({error}); copy the file again") from error
    offset = header.data_start
    for element, count in zip(header.layout.elements, header.counts, strict=True):
        if any(isinstance(prop, PlyListProperty) for prop in element.properties):
            raise UserError(f"{source}: holds lists in or before the vertices; export it again without them")
        dtype = element.dtype(header.layout.byte_order)
        if element.name == "vertex":
            break
        offset += count * dtype.itemsize
    stream.seek(offset)
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)


def columns(rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """``(N, len(names))`` float32 array of the named fields of ``(N,)`` records.

    The rows are gathered in blocks: picking field after field over all rows would fetch the table from memory
    once for each field.
    """
    table = np.empty((len(rows), len(names)), np.float32)
    # A float64 beyond float32's range becomes infinite here, for the caller to refuse.
    with np.errstate(over="ignore"):
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            block = slice(start, start + _ROWS_AT_A_TIME)
            for column, name in enumerate(names):
                table[block, column] = rows[name][block]
    return table


def write_vertices(stream: BinaryIO, rows: np.ndarray) -> None:
    """Write ``(N,)`` records as the one element of a little-endian binary PLY."""
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(stream)


def abridged(names: Sequence[str], most: int = 8) -> str:
    """The names in one short line."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _least_row_bytes(element: PlyElement, text: bool) -> int:
    """The fewest bytes one row of an element can take; never zero, so that no count is free."""
    if text:
        return max(1, 2 * len(element.properties))
    return max(1, sum(map(_least_bytes, element.properties)))


def _least_bytes(prop: PlyProperty) -> int:
    return np.dtype(prop.len_dtype if isinstance(prop, PlyListProperty) else prop.val_dtype).itemsize
