"""The file around the streams: header, directory, checksums. The byte layout is in ``docs/formats.md``."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from gsz.contract import LARGEST_CORRECTION, CodecError, Correction
from gsz.native.layers import MAX_LAYERS
from gsz.native.layout import ATTRIBUTES
from gsz.native.metadata import unpack_metadata
from gsz.splats import sh_coefficients

MAGIC = b"\x89GSZ\r\n\x1a\n"
"""As PNG's: a file that went through a text-mode transfer no longer begins with it."""
VERSION = 2
FEATURES = ("antialiased",)
"""What the bits of ``features`` mean, from the lowest on. A reader refuses a file with one that it does not know."""

_PREFIX = struct.Struct("<8sHHBBBBHHI3d")
"""Magic, version, features, grid, SH degree, layers, columns, bytes of grid parameters and of metadata, CRC-32 of the
header without itself, and the offset of positions."""
_CRC = slice(20, 24)
_LAYER = struct.Struct("<Iff")
"""Gaussians, and what is added where a file ends here: to log-scales and to opacity logits."""
_SECTION = struct.Struct("<II")
"""Length and CRC-32."""
_LAYER_SIZE = _LAYER.size + (len(ATTRIBUTES) + 1) * _SECTION.size


@dataclass
class Header:
    """What precedes the streams.

    Attributes:
        grid: number of the packing, see :mod:`gsz.native.packings`.
        sh_degree: 0 to 3.
        parameters: the grid's own numbers, at most 65535 bytes.
        column_sizes: tokens in use of each column and classes of the harmonics, 1 to 256 each.
        counts: Gaussians in each layer.
        corrections: of each layer.
        sections: for each layer, the (length, CRC-32) of each attribute's stream and of the padding.
        antialiased: see :class:`gsz.splats.Splats`.
        offset: the same; zeros for none.
        label: the metadata in JSON, as bytes; see :mod:`gsz.native.metadata`.
    """

    grid: int
    sh_degree: int
    parameters: bytes
    column_sizes: list[int]
    counts: list[int]
    corrections: list[Correction] = field(default_factory=list)
    sections: list[list[tuple[int, int]]] = field(default_factory=list)
    antialiased: bool = False
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    label: bytes = b""

    @property
    def coefficients(self) -> int:
        """Harmonics above degree 0."""
        return sh_coefficients(self.sh_degree)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the label says."""
        return unpack_metadata(self.label, "<header>")

    @property
    def size(self) -> int:
        """Bytes before the first stream."""
        texts = len(self.parameters) + len(self.label) + len(self.column_sizes)
        return _PREFIX.size + texts + len(self.counts) * _LAYER_SIZE

    def layer_bytes(self, layer: int) -> int:
        return sum(length for length, _ in self.sections[layer])

    def bytes_by_attribute(self) -> dict[str, int]:
        """Bytes of the streams of all layers, and of their padding."""
        names = (*ATTRIBUTES, "padding")
        return {name: sum(sections[index][0] for sections in self.sections) for index, name in enumerate(names)}

    def end_of(self, layer: int) -> int:
        """Bytes of the file up to the end of a layer."""
        return self.size + sum(map(self.layer_bytes, range(layer + 1)))

    def whole_layers(self, available: int) -> int:
        """How many layers lie wholly within the first ``available`` bytes of the file."""
        return sum(self.end_of(layer) <= available for layer in range(len(self.counts)))

    def pack(self) -> bytes:
        parts = [self.parameters, self.label, bytes(size - 1 for size in self.column_sizes)]
        for count, correction, sections in zip(self.counts, self.corrections, self.sections, strict=True):
            parts.append(_LAYER.pack(count, *correction))
            parts.extend(_SECTION.pack(*section) for section in sections)
        numbers = (self.grid, self.sh_degree, len(self.counts), len(self.column_sizes), len(self.parameters))
        prefix = _PREFIX.pack(MAGIC, VERSION, int(self.antialiased), *numbers, len(self.label), 0, *self.offset)
        header = bytearray(prefix + b"".join(parts))
        header[_CRC] = struct.pack("<I", _checksum(header))
        return bytes(header)

    @staticmethod
    def parse(data: bytes, source: str) -> Header:
        """The header of a file, its checksum and its claims about layers verified. ``parameters`` is not looked at.

        Raises:
            CodecError: it is no such file, of another version or with unknown features, truncated, corrupted or absurd.
        """
        if not data or data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise CodecError(f"{source}: not a .gsz file; check the path")
        if len(data) < _PREFIX.size:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        numbers = _PREFIX.unpack_from(data)
        version, features, grid, sh_degree, layers, columns, parameter_bytes, metadata_bytes, crc = numbers[1:10]
        if version == 1:
            raise CodecError(
                f"{source}: .gsz version 1 was a draft that is no longer read; write the file again from its model"
            )
        if version != VERSION:
            raise CodecError(f"{source}: .gsz version {version} is unknown (this program reads {VERSION}); update gsz")
        if features >> len(FEATURES):
            unknown = [str(bit) for bit in range(len(FEATURES), 16) if features >> bit & 1]
            raise CodecError(f"{source}: needs the .gsz features {', '.join(unknown)}, which are unknown; update gsz")
        size = _PREFIX.size + parameter_bytes + metadata_bytes + columns + layers * _LAYER_SIZE
        if len(data) < size:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        if _checksum(data[:size]) != crc:
            raise CodecError(f"{source}: the header is corrupted (wrong checksum); copy the file again")
        offset = numbers[10:]
        if sh_degree > 3 or not 1 <= layers <= MAX_LAYERS or not all(map(math.isfinite, offset)):
            raise CodecError(f"{source}: the header contradicts itself; the file was not written by gsz")
        body = data[_PREFIX.size : size]
        parameters, body = body[:parameter_bytes], body[parameter_bytes:]
        label = body[:metadata_bytes]
        unpack_metadata(label, source)
        sizes, directory = body[metadata_bytes:][:columns], body[metadata_bytes:][columns:]
        header = Header(grid, sh_degree, parameters, [1 + size for size in sizes], [])
        header.antialiased, header.offset, header.label = bool(features & 1), offset, bytes(label)
        for begin in range(0, len(directory), _LAYER_SIZE):
            count, *correction = _LAYER.unpack_from(directory, begin)
            sections = list(_SECTION.iter_unpack(directory[begin + _LAYER.size : begin + _LAYER_SIZE]))
            header.counts.append(count)
            header.corrections.append(Correction(*correction))
            header.sections.append([(length, check) for length, check in sections])
            if not all(abs(number) <= LARGEST_CORRECTION for number in correction):
                raise CodecError(
                    f"{source}: layer {len(header.counts)} has a correction that is out of range; "
                    "the file was not written by gsz"
                )
            if count > sum(length for length, _ in sections):
                raise CodecError(
                    f"{source}: layer {len(header.counts)} claims more Gaussians than bytes; "
                    "the file was not written by gsz"
                )
        return header


def _checksum(header: bytes | bytearray) -> int:
    """The CRC-32 of a header without that number."""
    return zlib.crc32(header[_CRC.stop :], zlib.crc32(header[: _CRC.start]))


def assemble(header: Header, layers: list[list[bytes]]) -> bytes:
    """The file. Fills in ``header.sections``, and ``header.corrections`` where there are none.

    A layer with fewer bytes than Gaussians is padded with zeros: readers rely on it to bound what they allocate.
    """
    header.sections = []
    header.corrections = header.corrections or [Correction()] * len(layers)
    parts: list[bytes] = []
    for count, streams in zip(header.counts, layers, strict=True):
        padding = bytes(max(0, count - sum(map(len, streams))))
        header.sections.append([(len(part), zlib.crc32(part)) for part in [*streams, padding]])
        parts.extend([*streams, padding])
    return header.pack() + b"".join(parts)


def layer_streams(data: bytes, header: Header, layer: int, source: str) -> list[memoryview]:
    """The attributes' streams of a layer that is wholly there, checksums verified.

    Raises:
        CodecError: a checksum is wrong.
    """
    position = header.size + sum(header.layer_bytes(earlier) for earlier in range(layer))
    view = memoryview(data)
    streams = []
    for name, (length, crc) in zip((*ATTRIBUTES, "padding"), header.sections[layer], strict=True):
        section = view[position : position + length]
        if zlib.crc32(section) != crc:
            raise CodecError(
                f"{source}: {name} of layer {layer + 1} is corrupted (wrong checksum); copy the file again"
            )
        streams.append(section)
        position += length
    return streams[:-1]
