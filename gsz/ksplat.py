"""Mark Kellogg's ``.ksplat``: sections of Gaussians around the centers of buckets. Read, not written.

The format has no description but its program, GaussianSplats3D. A header of 4096 bytes is followed by one of 1024 bytes
for each section, and these by the sections: how many Gaussians the last buckets hold, the centers of the buckets, and
the Gaussians, bucket by bucket. Numbers are little-endian.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.contract import Codec, CodecError
from gsz.rounding.elementary import log
from gsz.rounding.opacity import LOGITS_OF_BYTES
from gsz.splats import MAX_SH_DEGREE, SH_C0, Splats, sh_coefficients

HEADER = np.dtype(
    {
        "names": ["version", "sections", "most", "count", "level", "least_sh", "most_sh"],
        "formats": [("u1", 2), "<u4", "<u4", "<u4", "<u2", "<f4", "<f4"],
        "offsets": [0, 4, 12, 16, 20, 36, 40],
        "itemsize": 4096,
    }
)
SECTION = np.dtype(
    {
        "names": [
            "count",
            "room",
            "bucket",
            "buckets",
            "width",
            "center_bytes",
            "unit",
            "full",
            "partial",
            "sh_degree",
        ],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<f4", "<u2", "<u4", "<u4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 40],
        "itemsize": 1024,
    }
)
VERSION = (0, 1)
NUMBERS = (("<f4", "<f4"), ("<f2", "<f2"), ("<f2", "u1"))
"""By the level of compression: how scales and rotations, and SH coefficients, are stored."""

UNIT = 32767
"""Steps of a position between the center of a bucket and its side, where the section does not say."""

MOST_SH = 1.5
"""The range of SH coefficients in bytes, to either side, where the header does not say."""


@dataclass(frozen=True)
class KsplatCodec(Codec):
    """What the viewer GaussianSplats3D converts to, at its compression levels 0 to 2."""

    name = "ksplat"
    suffix = ".ksplat"
    writable = False

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """The format has no magic number: a file is of it if its header says nothing that it cannot."""
        if len(head) < HEADER.itemsize:
            return False
        header = np.frombuffer(head, HEADER, 1)[0]
        return (
            tuple(header["version"]) == VERSION
            and header["level"] < len(NUMBERS)
            and 0 < header["sections"] <= max(1, header["most"])
            and 0 < header["count"] <= header["most"]
            and not any(head[44:])
        )

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        header, sections = _headers(data, source)
        parts = list(_parts(data, header, sections, source))
        degree = max((part.sh_rest.shape[1] for part in parts), default=0)
        for part in parts:
            missing = degree - part.sh_rest.shape[1]
            part.sh_rest = np.pad(part.sh_rest, ((0, 0), (0, missing), (0, 0)))
        return Splats.concatenate(parts) if parts else Splats.empty(0)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        header, sections = _headers(data, source)
        return {
            "format": self.name,
            "version": ".".join(map(str, header["version"])),
            "count": int(sections["count"].sum()),
            "sh_degree": int(sections["sh_degree"].max(initial=0)),
            "compression": int(header["level"]),
            "sections": len(sections),
        }


def _headers(data: bytes, source: str) -> tuple[np.void, npt.NDArray[np.void]]:
    """The header, and those of the sections, once what they claim is found to lie within the file."""
    if len(data) < HEADER.itemsize:
        raise CodecError(f"{source}: truncated or no .ksplat file, its header alone has {HEADER.itemsize} bytes")
    header = np.frombuffer(data, HEADER, 1)[0]
    if tuple(header["version"]) != VERSION or header["level"] >= len(NUMBERS):
        version = ".".join(map(str, header["version"]))
        raise CodecError(
            f"{source}: .ksplat version {version} with compression level {header['level']} is unknown; "
            "version 0.1 with levels 0 to 2 can be read"
        )
    if HEADER.itemsize + int(header["sections"]) * SECTION.itemsize > len(data):
        raise CodecError(f"{source}: truncated, {header['sections']} sections are claimed; download it again")
    sections = np.frombuffer(data, SECTION, int(header["sections"]), HEADER.itemsize)
    if (sections["sh_degree"] > MAX_SH_DEGREE).any():
        raise CodecError(f"{source}: corrupted, a section claims SH of degree {sections['sh_degree'].max()}")
    needed = HEADER.itemsize + sections.nbytes + sum(sum(_bytes(header, section)) for section in sections)
    if needed > len(data):
        raise CodecError(f"{source}: truncated, its sections take {needed} bytes of {len(data)}; download it again")
    if (sections["count"] > sections["room"]).any():
        raise CodecError(f"{source}: corrupted, a section holds more Gaussians than it has room for; download it again")
    return header, sections


def row_type(header: np.void, section: np.void) -> np.dtype:
    """The type of one Gaussian."""
    number, sh = NUMBERS[header["level"]]
    position = "<f4" if header["level"] == 0 else "<u2"
    names = ["means", "scales", "wxyz", "rgba", "sh"]
    widths = [3, 3, 4, 4, 3 * sh_coefficients(int(section["sh_degree"]))]
    return np.dtype(list(zip(names, [position, number, number, "u1", sh], widths, strict=True)))


def _bytes(header: np.void, section: np.void) -> tuple[int, int, int]:
    """How long a section's parts are: how full the last buckets are, the buckets' centers, and the Gaussians."""
    centers = int(section["center_bytes"]) * int(section["buckets"])
    return 4 * int(section["partial"]), centers, int(section["room"]) * row_type(header, section).itemsize


def _parts(data: bytes, header: np.void, sections: npt.NDArray[np.void], source: str) -> Iterator[Splats]:
    """The model of each section that holds any Gaussians."""
    stream = io.BytesIO(data)
    stream.seek(HEADER.itemsize + sections.nbytes)
    for section in sections:
        partial, centers, rows = map(stream.read, _bytes(header, section))
        if section["count"]:
            table = np.frombuffer(rows, row_type(header, section), int(section["count"]))
            means = table["means"]
            if header["level"]:
                unit = int(section["unit"]) or UNIT
                steps = (means.astype(np.float64) - unit) * (float(section["width"]) / 2 / unit)
                means = steps + _centers(np.frombuffer(partial, "<u4"), centers, section, source)
            yield _model(table, means, header)


def _centers(partial: npt.NDArray[np.uint32], centers: bytes, section: np.void, source: str) -> npt.NDArray[np.float32]:
    """``(N, 3)`` the center of the bucket of each Gaussian: the full buckets come first."""
    count, full = int(section["count"]), int(section["full"])
    ends = full * int(section["bucket"]) + np.cumsum(partial, dtype=np.int64)
    rows = np.arange(count)
    bucket = rows // max(1, int(section["bucket"]))
    late = bucket >= full
    bucket[late] = full + np.searchsorted(ends, rows[late], side="right")
    known = int(section["buckets"]) if section["center_bytes"] == 12 else 0
    if bucket.max(initial=-1) >= known:
        raise CodecError(f"{source}: corrupted, {count} Gaussians do not fit into {known} buckets; download it again")
    return np.frombuffer(centers, "<f4").reshape(known, 3)[bucket]


def _model(table: npt.NDArray[np.void], means: npt.NDArray[np.floating], header: np.void) -> Splats:
    sh = table["sh"].astype(np.float64)
    if header["level"] == 2:
        low, high = float(header["least_sh"]) or -MOST_SH, float(header["most_sh"]) or MOST_SH
        sh = low + sh / 255 * (high - low)
    return Splats.from_arrays(
        means=means,
        log_scales=log(table["scales"]),
        quaternions=table["wxyz"],
        opacity_logits=LOGITS_OF_BYTES[table["rgba"][:, 3]],
        sh_dc=(table["rgba"][:, :3] / 255 - 0.5) / SH_C0,
        sh_rest=_by_coefficient(sh),
    )


def _by_coefficient(sh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(N, K, 3)`` from rows that hold degree by degree, and of each all of red, then of green, then of blue."""
    degrees, begin = [], 0
    for width in (3, 5, 7):
        if begin < sh.shape[1]:
            degrees.append(sh[:, begin : begin + 3 * width].reshape(len(sh), 3, width).transpose(0, 2, 1))
            begin += 3 * width
    return np.concatenate(degrees, axis=1) if degrees else np.zeros((len(sh), 0, 3))
