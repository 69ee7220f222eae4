"""From planes of bytes to a file."""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, replace

from gsz.spz.layout import HEADER, MAGIC, STREAM, TAIL_V4, Header, zstandard

GZIP_LEVEL = 5
"""Level 9 saves 3 % of the file and takes fifteen times as long."""

ZSTD_LEVEL = 12
SKIPPABLE_FRAME = 0x184D2A50
INFLATION_WRITTEN = 1000
"""Most bytes that a byte under zstd stands for, so that Niantic's reader (1024 for positions) takes the file."""


def write(header: Header, streams: list[bytes]) -> bytes:
    """The file of planes, in their order."""
    return _under_zstd(header, streams) if header.version == 4 else _under_gzip(header, streams)


def _under_gzip(header: Header, streams: list[bytes]) -> bytes:
    deflate = zlib.compressobj(GZIP_LEVEL, wbits=31)
    parts = [HEADER.pack(MAGIC, *astuple(header)), *streams]
    return b"".join([deflate.compress(part) for part in parts]) + deflate.flush()


def _under_zstd(header: Header, streams: list[bytes]) -> bytes:
    zstd = zstandard()
    kept = [stream for stream in streams if stream]
    packed = [zstd.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(stream) for stream in kept]
    table_end = HEADER.size + TAIL_V4.size + STREAM.size * len(kept)
    # Readers refuse files that grow too much, so those of very uniform models are padded with a frame they skip.
    missing = -(-sum(map(len, kept)) // INFLATION_WRITTEN) - table_end - sum(map(len, packed))
    if missing > 0:
        packed[-1] += struct.pack("<II", SKIPPABLE_FRAME, missing) + bytes(missing)
    table = b"".join(STREAM.pack(len(small), len(large)) for small, large in zip(packed, kept, strict=True))
    head = HEADER.pack(MAGIC, *astuple(replace(header, streams=len(kept)))) + TAIL_V4.pack(HEADER.size + TAIL_V4.size)
    return head + table + b"".join(packed)
