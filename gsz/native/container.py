"""The file around the streams: header, directory, checksums. The byte layout is in ``docs/formats.md``."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from gsz.contract import CodecError
from gsz.native.layers import MAX_LAYERS
from gsz.native.layout import ATTRIBUTES
from gsz.splats import sh_coefficients

MAGIC = b"\x89GSZ\r\n\x1a\n"
"""As PNG's: a file that went through a text-mode transfer no longer begins with it."""
VERSION = 1

_PREFIX = struct.Struct("<8sHBBBBHI")
"""Magic, version, grid, SH degree, layers, columns, bytes of grid parameters, CRC-32 of the header without itself."""
_COUNT = struct.Struct("<I")
_SECTION = struct.Struct("<II")
"""Length and CRC-32."""
_LAYER_SIZE = _COUNT.size + (len(ATTRIBUTES) + 1) * _SECTION.size


@dataclass
class Header:
    """What precedes the streams.

    Attributes:
        grid: number of the packing, see :mod:`gsz.native.packings`.
        sh_degree: 0 to 3.
        parameters: the grid's own numbers, at most 65535 bytes.
        column_sizes: tokens in use of each column and classes of the harmonics, 1 to 256 each.
        counts: Gaussians in each layer.
        sections: for each layer, the (length, CRC-32) of each attribute's stream and of the padding.
    """

    grid: int
    sh_degree: int
    parameters: bytes
    column_sizes: list[int]
    counts: list[int]
    sections: list[list[tuple[int, int]]] = field(default_factory=list)

    @property
    def coefficients(self) -> int:
        """Harmonics above degree 0."""
        return sh_coefficients(self.sh_degree)

    @property
    def size(self) -> int:
        """Bytes before the first stream."""
        return _PREFIX.size + len(self.parameters) + len(self.column_sizes) + len(self.counts) * _LAYER_SIZE

    def layer_bytes(self, layer: int) -> int:
        return sum(length for length, _ in self.sections[layer])

    def bytes_by_attribute(self) -> dict[str, int]:
        """Bytes of the streams of all layers, and of their padding."""
        names = (*ATTRIBUTES, "padding")
        return {name: sum(sections[index][0] for sections in self.sections) for index, name in enumerate(names)}

    def whole_layers(self, available: int) -> int:
        """How many layers lie wholly within the first ``available`` bytes of the file."""
        end = self.size
        for layer in range(len(self.counts)):
            end += self.layer_bytes(layer)
            if end > available:
                return layer
        return len(self.counts)

    def pack(self) -> bytes:
        parts = [self.parameters, bytes(size - 1 for size in self.column_sizes)]
        for count, sections in zip(self.counts, self.sections, strict=True):
            parts.append(_COUNT.pack(count))
            parts.extend(_SECTION.pack(*section) for section in sections)
        numbers = (self.grid, self.sh_degree, len(self.counts), len(self.column_sizes), len(self.parameters))
        prefix = _PREFIX.pack(MAGIC, VERSION, *numbers, 0)[:-4]
        body = b"".join(parts)
        return prefix + struct.pack("<I", zlib.crc32(prefix + body)) + body

    @staticmethod
    def parse(data: bytes, source: str) -> Header:
        """The header of a file, its checksum and its claims about layers verified. ``parameters`` is not looked at.

        Raises:
            CodecError: it is no such file, of another version, truncated, corrupted or absurd.
        """
        if not data or data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise CodecError(f"{source}: not a .gsz file; check the path")
        if len(data) < _PREFIX.size:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        _, version, grid, sh_degree, layers, columns, parameter_bytes, crc = _PREFIX.unpack_from(data)
        if version != VERSION:
            raise CodecError(f"{source}: .gsz version {version} is unknown (this program reads {VERSION}); update gsz")
        size = _PREFIX.size + parameter_bytes + columns + layers * _LAYER_SIZE
        if len(data) < size:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        body = data[_PREFIX.size : size]
        if zlib.crc32(data[: _PREFIX.size - 4] + body) != crc:
            raise CodecError(f"{source}: the header is corrupted (wrong checksum); copy the file again")
        if sh_degree > 3 or not 1 <= layers <= MAX_LAYERS:
            raise CodecError(f"{source}: the header contradicts itself; the file was not written by gsz")
        parameters, sizes = body[:parameter_bytes], body[parameter_bytes : parameter_bytes + columns]
        header = Header(grid, sh_degree, parameters, [1 + size for size in sizes], [])
        for offset in range(parameter_bytes + columns, len(body), _LAYER_SIZE):
            count = _COUNT.unpack_from(body, offset)[0]
            sections = list(_SECTION.iter_unpack(body[offset + _COUNT.size : offset + _LAYER_SIZE]))
            header.counts.append(count)
            header.sections.append([(length, check) for length, check in sections])
            if count > sum(length for length, _ in sections):
                raise CodecError(
                    f"{source}: layer {len(header.counts)} claims more Gaussians than bytes; "
                    "the file was not written by gsz"
                )
        return header


def assemble(header: Header, layers: list[list[bytes]]) -> bytes:
    """The file. Fills in ``header.sections``.

    A layer with fewer bytes than Gaussians is padded with zeros: readers rely on it to bound what they allocate.
    """
    header.sections = []
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
