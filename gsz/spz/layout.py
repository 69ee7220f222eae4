"""What a file is made of: its header, its planes, and what else its versions have."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from gsz.errors import UserError
from gsz.rounding.arrays import Bytes
from gsz.splats import sh_coefficients

MAGIC = 0x5053474E
"""``NGSP`` in the order of the file."""

HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, count, SH degree, fractional bits, flags, and reserved (to version 3) or number of streams (4)."""

TAIL_V4 = struct.Struct("<I12x")
"""What follows :data:`HEADER` in version 4: where the table of streams begins."""

STREAM = struct.Struct("<QQ")
"""An entry of that table: compressed and uncompressed size."""

FLAG_ANTIALIASED, FLAG_EXTENSIONS = 1, 2
"""Bits of the header's flags: see :class:`gsz.splats.Splats` for the first; the second, that extensions follow."""

GZIP_MAGIC = b"\x1f\x8b"
MOST_FRACTIONAL_BITS = 23

FLAG_ANTIALIASED = 1
FLAG_EXTENSIONS = 2

Planes = dict[str, Bytes]
"""Per attribute ``(N, bytes a Gaussian)``."""


@dataclass(frozen=True)
class Header:
    """The fields of :data:`HEADER` after the magic number, in their order."""

    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    flags: int
    streams: int


def plane_widths(version: int, sh_degree: int) -> dict[str, int]:
    """Bytes a Gaussian of each plane, in the order of the file."""
    return {
        "means": 6 if version == 1 else 9,
        "opacity_logits": 1,
        "sh_dc": 3,
        "log_scales": 3,
        "quaternions": 4 if version >= 3 else 3,
        "sh_rest": 3 * sh_coefficients(sh_degree),
    }


def zstandard() -> Any:
    """The package for version 4."""
    try:
        import zstandard
    except ImportError as error:
        raise UserError("SPZ version 4 needs the package zstandard; run pip install zstandard") from error
    return zstandard
