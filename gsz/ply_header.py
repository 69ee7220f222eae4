"""Tables of vertices in PLY files, read by property name without believing what a header claims.

The format is that of Greg Turk (1994): a header of text lines, then the rows of each element, in text or in binary of
either byte order.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError

Records = npt.NDArray[np.void]
"""Rows of an element: a structured array with a field for each property."""

_MAX_HEADER_BYTES = 1 << 20
_HEADER_END = {
    # In files of carriage returns alone a line feed behind the last one is already data.
    b"\n": re.compile(rb"\r?\nend_header[ \t]*\r?\n"),
    b"\r": re.compile(rb"\rend_header[ \t]*\r"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": None}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_WRITTEN_TYPES = {"u1": "uchar", "f4": "float", "f8": "double"}

_MICROSOFT = re.compile(rb"nan\(\w+\)|1\.?#(INF|IND|QNAN|SNAN)0*", re.IGNORECASE)
"""What the C library of Microsoft prints for NaN and infinity: "-nan(ind)", and before 2015 "1.#INF"."""

_ROWS_AT_A_TIME = 1 << 12
"""Rows gathered together when columns are picked: few enough that they stay in the processor's cache."""


@dataclass(frozen=True)
class PlyProperty:
    """A property: its name, NumPy's code of its type, and for a list that of its length."""

    name: str
    code: str
    length_code: str | None = None

    @property
    def least_bytes(self) -> int:
        """The fewest bytes it takes in a binary file."""
        return np.dtype(self.length_code or self.code).itemsize


@dataclass(frozen=True)
class PlyElement:
    """A table: its name, how many rows the header claims it has, and its columns."""

    name: str
    count: int
    properties: tuple[PlyProperty, ...]

    @property
    def has_lists(self) -> bool:
        return any(prop.length_code is not None for prop in self.properties)

    def dtype(self, order: str) -> np.dtype:
        """The type of a row without lists, in a byte order of ``<`` or ``>``."""
        return np.dtype([(prop.name, order + prop.code) for prop in self.properties])

    def least_row_bytes(self, text: bool) -> int:
        """The fewest bytes that a row takes."""
        return sum(2 if text else prop.least_bytes for prop in self.properties)


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file declares.

    Attributes:
        elements: The tables, in the order of the file.
        order: The byte order, ``<`` or ``>``; None where the rows are text.
        comments: The comment lines, whatever bytes they hold.
        data_start: Offset of the first byte behind the header.
    """

    elements: tuple[PlyElement, ...]
    order: str | None
    comments: tuple[str, ...]
    data_start: int

    @property
    def vertex(self) -> PlyElement:
        return next(element for element in self.elements if element.name == "vertex")

    @property
    def names(self) -> list[str]:
        """The properties of a vertex, in the order of the file."""
        return [prop.name for prop in self.vertex.properties]

    def kind(self, name: str) -> np.dtype:
        """The declared type of a vertex's property; rows in text are float64 whatever it is."""
        return np.dtype(next(prop.code for prop in self.vertex.properties if prop.name == name))

    def vertex_bytes(self) -> dict[str, int]:
        """How many bytes each property of a vertex takes in a binary file; of a list, its least."""
        return {prop.name: prop.least_bytes for prop in self.vertex.properties}

    def require(self, names: Sequence[str], source: str, remedy: str) -> None:
        """Raise :class:`UserError` unless a vertex has all these properties and each is a number."""
        properties = {prop.name: prop for prop in self.vertex.properties}
        missing = [name for name in names if name not in properties]
        if missing:
            raise UserError(f"{source}: lacks the properties {abridged(missing)}; {remedy}")
        lists = [name for name in names if properties[name].length_code is not None]
        if lists:
            raise UserError(f"{source}: the properties {abridged(lists)} are lists, not numbers; {remedy}")


def read_header(stream: BinaryIO, source: str) -> PlyHeader:
    """The header of a PLY with a vertex element, once the stream is known to be long enough for what it declares.

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
    newline = b"\r" if head[3:4] == b"\r" and head[4:5] != b"\n" else b"\n"
    end = _HEADER_END[newline].search(head)
    if end is None:
        raise UserError(f"{source}: its PLY header does not end; the file is truncated or damaged, copy it again")
    lines = [line.strip().decode(errors="replace") for line in head[: end.start()].split(newline)[1:]]
    try:
        order, elements = _parse(lines)
    except _Damage as damage:
        raise UserError(f"{source}: its PLY header is damaged ({damage}); copy the file again") from damage
    if not any(element.name == "vertex" for element in elements):
        raise UserError(f"{source}: has no vertex element; give the point_cloud.ply of a trained model")
    comments = [line.partition(" ")[2] for line in lines if line.startswith("comment ")]
    header = PlyHeader(tuple(elements), order, tuple(comments), end.end())
    _check_size(header, size, source)
    return header


def read_vertices(stream: BinaryIO, header: PlyHeader, source: str) -> Records:
    """The ``(N,)`` records of the vertex element. Elements behind it are not looked at.

    Raises:
        UserError: the rows do not fit the header, or the vertices or what stands before them hold lists.
    """
    if header.vertex.has_lists:
        raise UserError(f"{source}: holds lists in or before the vertices; export it again without them")
    if header.order is None:
        stream.seek(header.data_start)
        return _read_text(stream.read(), header, source)
    offset = header.data_start
    for element in header.elements:
        if element.has_lists:
            raise UserError(f"{source}: holds lists in or before the vertices; export it again without them")
        if element.name == "vertex":
            break
        offset += element.count * element.dtype(header.order).itemsize
    stream.seek(offset)
    dtype = header.vertex.dtype(header.order)
    return np.frombuffer(stream.read(header.vertex.count * dtype.itemsize), dtype)


def columns(rows: Records, names: Sequence[str], dtype: type[np.floating] = np.float32) -> np.ndarray:
    """``(N, len(names))`` array of the named fields of ``(N,)`` records, float32 unless ``dtype`` is another.

    The rows are gathered in blocks: picking field after field over all rows would fetch the table from memory
    once for each field.
    """
    table = np.empty((len(rows), len(names)), dtype)
    # A float64 beyond float32's range becomes infinite here, for the caller to deal with.
    with np.errstate(over="ignore"):
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            block = slice(start, start + _ROWS_AT_A_TIME)
            for column, name in enumerate(names):
                table[block, column] = rows[name][block]
    return table


def write_vertices(stream: BinaryIO, rows: Records, comments: Sequence[str] = ()) -> None:
    """Write ``(N,)`` little-endian records of float32, float64 and uint8 as the one element of a binary PLY."""
    types = [(name, rows.dtype[name].str[1:]) for name in rows.dtype.names or ()]
    properties = "".join(f"property {_WRITTEN_TYPES[code]} {name}\n" for name, code in types)
    said = "".join(f"comment {comment}\n" for comment in comments)
    header = f"ply\nformat binary_little_endian 1.0\n{said}element vertex {len(rows)}\n{properties}end_header\n"
    stream.write(header.encode())
    stream.write(rows.view(np.uint8).data)


def abridged(names: Sequence[str], most: int = 8) -> str:
    """The names in one short line."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class _Damage(Exception):
    """A header is not as the format wants it."""


def _parse(lines: Sequence[str]) -> tuple[str | None, list[PlyElement]]:
    """Byte order and elements of a header, from its lines between ``ply`` and ``end_header``."""
    order: str | None = None
    formats, elements = 0, list[PlyElement]()
    for line in lines:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
                formats += 1
            case ["element", name, count]:
                if not re.fullmatch("[0-9]{1,18}", count):
                    raise _Damage(f"it declares {count[:40]!r} rows")
                elements.append(PlyElement(name, int(count), ()))
            case ["property", *words] if elements:
                last = elements[-1]
                elements[-1] = PlyElement(last.name, last.count, (*last.properties, _property(words)))
            case _:
                raise _Damage(f"its line {line[:40]!r} is not one of a PLY header")
    if formats != 1:
        raise _Damage(f"it has {formats} format lines")
    for names in _names(elements):
        if len(set(names)) < len(names):
            raise _Damage(f"{next(name for name in names if names.count(name) > 1)!r} is declared twice")
    return order, elements


def _property(words: Sequence[str]) -> PlyProperty:
    match words:
        case [code, name] if code in _TYPES:
            return PlyProperty(name, _TYPES[code])
        case ["list", length, code, name] if code in _TYPES and length in _TYPES:
            return PlyProperty(name, _TYPES[code], _TYPES[length])
    raise _Damage(f"the property {' '.join(words)[:40]!r} has no type that PLY knows")


def _names(elements: Sequence[PlyElement]) -> Iterator[list[str]]:
    """The lists of names in which each must be another."""
    yield [element.name for element in elements]
    for element in elements:
        yield [prop.name for prop in element.properties]


def _check_size(header: PlyHeader, size: int, source: str) -> None:
    text = header.order is None
    needed = header.data_start + sum(element.count * element.least_row_bytes(text) for element in header.elements)
    # Rows without properties take no bytes; so that no count is free, there cannot be more of them than bytes.
    needed = max([needed, *(element.count for element in header.elements if not element.properties)])
    # The last line of an ASCII file may lack its newline.
    if size + int(text) < needed:
        raise UserError(
            f"{source}: is truncated or its header is wrong: "
            f"the header asks for at least {needed} bytes, the file has {size}; copy it again"
        )


def _plain(word: re.Match[bytes]) -> bytes:
    return b"inf" if word[1] and word[1].upper() == b"INF" else b"nan"


def _read_text(data: bytes, header: PlyHeader, source: str) -> Records:
    """The vertices of a file in text: one row a line, and lines of white space do not count."""
    lines = [line.decode("latin-1") for line in _MICROSOFT.sub(_plain, data).splitlines() if line.strip()]
    before = sum(element.count for element in header.elements[: header.elements.index(header.vertex)])
    lines = lines[before : before + header.vertex.count]
    dtype = np.dtype([(prop.name, "f8") for prop in header.vertex.properties])
    width = len(header.vertex.properties)
    if not header.vertex.count:
        return np.empty(0, dtype)
    try:
        table = np.loadtxt(lines, np.float64, comments=None, ndmin=2) if lines else np.empty((0, width))
    except (ValueError, OverflowError):
        table = np.empty((0, 0))
    if table.shape != (header.vertex.count, width):
        raise UserError(
            f"{source}: its data does not fit its header, which declares {header.vertex.count} rows of {width} numbers;"
            " copy the file again"
        )
    return np.ascontiguousarray(table).view(dtype)[:, 0]
