"""The file around the streams: header, directory, checksums. The byte layout is in ``docs/formats.md``."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from compress.codecs.contract import CodecError
from compress.codecs.gsz.streams import ATTRIBUTES
from compress.codecs.gsz.symbols import RECONSTRUCTED, Steps

MAGIC = b"\x89GSZ\r\n\x1a\n"
"""As PNG's: a file that went through a text-mode transfer no longer begins with it."""
VERSION = 1
NATIVE = 0
FAST3DGS = 1
MAX_LAYERS = 16
COLUMNS = 12

_PREFIX = struct.Struct("<8sHBBBxHI")  # Magic, version, grid, SH degree, layers, header length, CRC of the header.
_STEPS = struct.Struct("<3dd5d4dBxHhhBB")
_SECTION = struct.Struct("<II")  # Length, CRC.
_COUNT = struct.Struct("<I")


@dataclass
class Header:
    """What precedes the streams.

    Attributes:
        grid: :data:`NATIVE` or :data:`FAST3DGS`.
        sh_degree: 0 to 3.
        steps: the grid.
        column_sizes: tokens in use of each column.
        counts: Gaussians in each layer.
        sections: for each layer, the (length, CRC-32) of each attribute's stream and of the padding.
    """

    grid: int
    sh_degree: int
    steps: Steps
    column_sizes: list[int]
    counts: list[int]
    sections: list[list[tuple[int, int]]]

    @property
    def coefficients(self) -> int:
        """Harmonics above degree 0."""
        return (self.sh_degree + 1) ** 2 - 1

    @property
    def size(self) -> int:
        """Bytes before the first stream."""
        return _PREFIX.size + len(self._body())

    def layer_bytes(self, layer: int) -> int:
        return sum(length for length, _ in self.sections[layer])

    def _body(self) -> bytes:
        steps = self.steps
        parts = [
            _STEPS.pack(
                *steps.centre,
                steps.radius,
                steps.scale_step,
                steps.rotation_step,
                steps.dc_step,
                steps.sh_step,
                steps.sh_threshold,
                *steps.sh_values,
                steps.mean_bits,
                steps.opacity_levels,
                steps.rotation_pivot,
                steps.sh_pivot,
                steps.rotation_range,
                steps.sh_range,
            ),
            bytes(size - 1 for size in self.column_sizes),
        ]
        for count, sections in zip(self.counts, self.sections, strict=True):
            parts.append(_COUNT.pack(count))
            parts.extend(_SECTION.pack(*section) for section in sections)
        return b"".join(parts)

    def pack(self) -> bytes:
        body = self._body()
        fixed = _PREFIX.pack(MAGIC, VERSION, self.grid, self.sh_degree, len(self.counts), len(body), 0)[:-4]
        return fixed + struct.pack("<I", zlib.crc32(fixed + body)) + body

    @staticmethod
    def parse(data: bytes, source: str) -> Header:
        """The header of a file, every number in it checked.

        Raises:
            CodecError: it is no such file, of another version, truncated, corrupted or absurd.
        """
        if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
            raise CodecError(f"{source}: not a .gsz file; check the path")
        if len(data) < _PREFIX.size:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        _, version, grid, sh_degree, layers, length, crc = _PREFIX.unpack_from(data)
        if version != VERSION:
            raise CodecError(f"{source}: .gsz version {version} is unknown (this program reads {VERSION}); update gsz")
        if len(data) < _PREFIX.size + length:
            raise CodecError(f"{source}: the file ends within its header; copy it again")
        body = data[_PREFIX.size : _PREFIX.size + length]
        if zlib.crc32(data[: _PREFIX.size - 4] + body) != crc:
            raise CodecError(f"{source}: the header is corrupted (wrong checksum); copy the file again")
        layer_size = _COUNT.size + (len(ATTRIBUTES) + 1) * _SECTION.size
        sane = grid in (NATIVE, FAST3DGS) and sh_degree <= 3 and 1 <= layers <= MAX_LAYERS
        if not sane or length != _STEPS.size + COLUMNS + layers * layer_size:
            raise CodecError(f"{source}: the header contradicts itself; the file was not written by gsz")
        header = Header(
            grid,
            sh_degree,
            _parse_steps(body, source),
            [1 + s for s in body[_STEPS.size : _STEPS.size + COLUMNS]],
            [],
            [],
        )
        for layer in range(layers):
            offset = _STEPS.size + COLUMNS + layer * layer_size
            header.counts.append(_COUNT.unpack_from(body, offset)[0])
            sections = list(_SECTION.iter_unpack(body[offset + _COUNT.size : offset + layer_size]))
            header.sections.append([(size, check) for size, check in sections])
            if header.counts[-1] > header.layer_bytes(layer):
                raise CodecError(
                    f"{source}: layer {layer + 1} claims {header.counts[-1]} Gaussians in "
                    f"{header.layer_bytes(layer)} bytes; the file was not written by gsz"
                )
        return header


def _parse_steps(body: bytes, source: str) -> Steps:
    numbers = _STEPS.unpack_from(body)
    floats = numbers[:13]
    mean_bits, opacity_levels, rotation_pivot, sh_pivot, rotation_range, sh_range = numbers[13:]
    limits_kept = (
        all(math.isfinite(number) and abs(number) < 1e38 for number in floats)
        and all(1e-30 < number < 1e6 for number in floats[4:8])
        and floats[3] > 1e-30
        and all(0 <= number <= 64 for number in floats[9:])
        and mean_bits <= 20
        and 2 <= opacity_levels <= 256
        and max(rotation_range, sh_range) <= 8
    )
    if not limits_kept:
        raise CodecError(f"{source}: the header's grid is out of range; the file was not written by gsz")
    return Steps(
        centre=np.array(floats[:3]),
        radius=floats[3],
        mean_bits=mean_bits,
        scale_step=floats[4],
        opacity_levels=opacity_levels,
        rotation_step=floats[5],
        dc_step=floats[6],
        sh_step=floats[7],
        sh_values=np.array(floats[9 : 9 + RECONSTRUCTED]),
        rotation_pivot=rotation_pivot,
        rotation_range=rotation_range,
        sh_pivot=sh_pivot,
        sh_range=sh_range,
        sh_threshold=floats[8],
    )


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
                f"{source}: {name} of layer {layer + 1} are corrupted (wrong checksum); copy the file again"
            )
        streams.append(section)
        position += length
    return streams[:-1]
