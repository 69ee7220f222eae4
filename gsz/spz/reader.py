"""From a file to planes of bytes. Files come from strangers: what a header claims is held against the file's size."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from gsz.contract import CodecError
from gsz.rounding.arrays import Bytes
from gsz.splats import MAX_SH_DEGREE
from gsz.spz.layout import (
    FLAG_EXTENSIONS,
    GZIP_MAGIC,
    HEADER,
    MAGIC,
    MOST_FRACTIONAL_BITS,
    STREAM,
    TAIL_V4,
    Header,
    Planes,
    plane_widths,
    zstandard,
)

EXTENSION = struct.Struct("<II")
"""Type and length of an extension record."""

COORDINATE_SYSTEM = 0xADBE0003
"""The extension that says which axes the file has."""

INFLATION = 1032
"""Most bytes that a byte of file becomes under deflate. Files under zstd are held to it too."""

INFLATED_AT_ONCE = 1 << 16
"""Bytes read from a gzip stream, and bytes made of them, in a step that only counts."""

EXTENSION_BYTES = 1 << 20
"""Most bytes of extensions after the planes."""


def read(data: bytes, source: str) -> tuple[Header, Planes, int | None]:
    """Header, planes and, where it is said, the coordinate system of a file of any version."""
    if data[:2] == GZIP_MAGIC:
        header = _parse_header(_inflate(data, HEADER.size, source, whole=False).tobytes(), len(data), source)
        size = HEADER.size + header.count * sum(plane_widths(header.version, header.sh_degree).values())
        payload = _inflate(data, size, source, whole=True)
        planes, offset = {}, HEADER.size
        for name, width in plane_widths(header.version, header.sh_degree).items():
            planes[name] = payload[offset : offset + header.count * width].reshape(header.count, width)
            offset += header.count * width
        extensions = payload[offset:].tobytes() if header.flags & FLAG_EXTENSIONS else b""
        return header, planes, _coordinate_system(extensions)
    header = _parse_header(data, len(data), source)
    entries, begin, extensions = _streams(data, header, source)
    planes = {}
    for name, packed, size in entries:
        stream = _decompress_zstd(data[begin : begin + packed], size, name, source)
        planes[name] = np.frombuffer(stream, np.uint8).reshape(header.count, -1)
        begin += packed
    for name, width in plane_widths(header.version, header.sh_degree).items():
        planes.setdefault(name, np.empty((header.count, width), np.uint8))
    return header, planes, _coordinate_system(extensions)


def read_sizes(data: bytes, source: str) -> tuple[Header, dict[str, int]]:
    """The header of a file of any version, and how many of the file's bytes each plane takes."""
    if data[:2] == GZIP_MAGIC:
        header = _parse_header(_inflate(data, HEADER.size, source, whole=False).tobytes(), len(data), source)
        return header, _inflated_from(data, header, source)
    header = _parse_header(data, len(data), source)
    return header, {name: packed for name, packed, _ in _streams(data, header, source)[0]}


def _parse_header(head: bytes, file_bytes: int, source: str) -> Header:
    """The header, with everything it claims held against the file's size."""
    if len(head) < HEADER.size:
        raise CodecError(f"{source}: truncated, {len(head)} bytes are no SPZ header; write or download it again")
    magic, *rest = HEADER.unpack_from(head)
    header = Header(*rest)
    if magic != MAGIC:
        raise CodecError(f"{source}: not an SPZ file, its header begins otherwise; check the path")
    if not 1 <= header.version <= 4:
        raise CodecError(f"{source}: SPZ version {header.version} is unknown; versions 1 to 4 can be read")
    if header.sh_degree > MAX_SH_DEGREE:
        raise CodecError(f"{source}: SH degree {header.sh_degree} is beyond 3, the highest that can be rendered")
    if header.fractional_bits > MOST_FRACTIONAL_BITS:
        raise CodecError(f"{source}: corrupted, it claims {header.fractional_bits} fractional bits of 24")
    claimed = header.count * sum(plane_widths(header.version, header.sh_degree).values())
    if claimed > INFLATION * file_bytes:
        raise CodecError(
            f"{source}: corrupted, {file_bytes} bytes cannot hold the {header.count} Gaussians its header claims"
        )
    return header


def _inflate(data: bytes, size: int, source: str, whole: bool) -> Bytes:
    """The first ``size`` bytes under gzip; with ``whole``, also the extensions behind them, and the checksum holds."""
    inflate = zlib.decompressobj(wbits=31)
    # Piece by piece, since an inflater that makes all at once moves it whenever its memory runs out.
    payload = np.empty(size + EXTENSION_BYTES if whole else size, np.uint8)
    made = 0
    try:
        for begin in range(0, len(data), INFLATED_AT_ONCE):
            if made == len(payload) or inflate.eof:
                break
            piece = inflate.decompress(data[begin : begin + INFLATED_AT_ONCE], len(payload) - made)
            payload[made : made + len(piece)] = np.frombuffer(piece, np.uint8)
            made += len(piece)
    except zlib.error as error:
        raise CodecError(f"{source}: corrupted, gzip says {error}; write or download it again") from error
    if made < size:
        raise CodecError(f"{source}: truncated, it ends after {made} of {size} bytes; write or download it again")
    if whole and not inflate.eof:
        raise CodecError(f"{source}: truncated or overlong, gzip does not end where it should; download it again")
    return payload[:made]


def _inflated_from(data: bytes, header: Header, source: str) -> dict[str, int]:
    """How many bytes of the gzip stream each plane was inflated from, give or take what the inflater reads ahead."""
    inflate = zlib.decompressobj(wbits=31)
    taken, rest = 0, b""
    sizes = {}
    planes = {name: header.count * width for name, width in plane_widths(header.version, header.sh_degree).items()}
    for name, missing in {"header": HEADER.size, **planes}.items():
        begin = taken - len(rest)
        while missing:
            if not rest:
                rest = data[taken : taken + INFLATED_AT_ONCE]
                taken += len(rest)
            try:
                made = len(inflate.decompress(rest, min(missing, INFLATED_AT_ONCE)))
            except zlib.error as error:
                raise CodecError(f"{source}: corrupted, gzip says {error}; write or download it again") from error
            rest = inflate.unconsumed_tail
            missing -= made
            if not made and not rest and taken == len(data):
                raise CodecError(f"{source}: truncated, it ends in {name}; write or download it again")
        sizes[name] = taken - len(rest) - begin
    return sizes


def _streams(data: bytes, header: Header, source: str) -> tuple[list[tuple[str, int, int]], int, bytes]:
    """Name, packed and unpacked size of each stream of version 4, where the first begins, and the extensions."""
    if header.version != 4:
        raise CodecError(f"{source}: corrupted, SPZ version {header.version} must be under gzip")
    start = HEADER.size + TAIL_V4.size
    widths = plane_widths(header.version, header.sh_degree)
    expected = {name: header.count * width for name, width in widths.items() if header.count * width}
    table = TAIL_V4.unpack_from(data, HEADER.size)[0] if len(data) >= start else 0
    begin = table + STREAM.size * len(expected)
    if header.streams != len(expected) or not start <= table <= len(data) or begin > len(data):
        raise CodecError(f"{source}: corrupted, its table of {header.streams} streams is not where it should be")
    sizes = list(STREAM.iter_unpack(data[table:begin]))
    if [large for _, large in sizes] != list(expected.values()) or sum(small for small, _ in sizes) > len(data) - begin:
        raise CodecError(f"{source}: truncated or corrupted, its streams are not of the sizes its header implies")
    entries = [(name, small, large) for name, (small, large) in zip(expected, sizes, strict=True)]
    return entries, begin, data[start:table] if header.flags & FLAG_EXTENSIONS else b""


def _decompress_zstd(packed: bytes, size: int, name: str, source: str) -> bytes:
    zstd = zstandard()
    try:
        claimed = zstd.frame_content_size(packed)
        window = max(8 << 20, size)
        if claimed in (-1, size):
            stream = zstd.ZstdDecompressor(max_window_size=window).decompress(packed, max_output_size=size)
            if len(stream) == size:
                return stream
        problem = "its size is not what the header implies"
    except zstd.ZstdError as error:
        problem = f"zstd says {error}"
    raise CodecError(f"{source}: corrupted in {name}, {problem}; write or download it again")


def _coordinate_system(extensions: bytes) -> int | None:
    """The number of the file's axes in the extension for it, if there is one. Other extensions are skipped."""
    position = 0
    while position + EXTENSION.size <= len(extensions):
        kind, length = EXTENSION.unpack_from(extensions, position)
        position += EXTENSION.size
        if kind == COORDINATE_SYSTEM and length >= 4 and position + 4 <= len(extensions):
            return int.from_bytes(extensions[position : position + 4], "little") or None
        position += length
    return None
