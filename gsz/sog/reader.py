"""From a zip of images to integers. What a file claims is checked before anything is made for it."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image

from gsz.contract import CodecError
from gsz.rounding.arrays import Bytes, Float32s, Float64s
from gsz.rounding.codebooks import CODEBOOK_SIZE
from gsz.sog.layout import FILES, MAX_PALETTE, META, PALETTE_ROW, ROTATION_TAG, VERSION, ZIP_MAGIC
from gsz.sog.levels import LARGEST_FLOAT, Levels, PaletteLevels, Ranges
from gsz.splats import MAX_SH_DEGREE, Splats, sh_coefficients

MOST_META_BYTES = 1 << 20
MOST_UNZIPPED = 1032
"""Most bytes that a byte of a member becomes under deflate."""

PIXELS_FREE = 1 << 18
PIXELS_A_BYTE = 64
"""An image may claim :data:`PIXELS_FREE` pixels, and this many more for every byte of the file."""

LARGEST_LOG = 89
"""Logarithms of positions beyond this are no float32 numbers."""


class Reader:
    """A file opened and its ``meta.json`` checked; nothing else is read until asked for."""

    def __init__(self, data: bytes, source: str) -> None:
        self._data, self._source = data, source
        if not data.startswith(ZIP_MAGIC):
            raise CodecError(f"{source}: an unbundled SOG or none at all; bundle its folder into one .sog zip file")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError) as error:
            raise CodecError(f"{source}: a truncated or corrupted zip ({error}); write or download it again") from error
        self._members = {member.filename: member for member in self._zip.infolist()}
        meta = self._parse_meta()
        version = meta.get("version")
        if version != VERSION:
            raise CodecError(f"{source}: SOG version {version!r} is unknown; version {VERSION} can be read")
        self.count = self._whole(meta, "count", 0, PIXELS_FREE + PIXELS_A_BYTE * len(data))
        self.antialiased = meta.get("antialias") is True
        keys = [key for key in FILES if key != "shN" or isinstance(meta.get("shN"), dict)]
        sections = {key: self._section(meta, key) for key in keys}
        self.files = {key: self._names(sections[key], key) for key in keys}
        lows, highs = (self._numbers(sections["means"], key, 3, 3).astype(np.float64) for key in ("mins", "maxs"))
        if np.abs([lows, highs]).max() > LARGEST_LOG:
            raise self._bad("its range of positions is beyond float32")
        scales, colors = (self._codebook(sections[key]) for key in ("scales", "sh0"))
        self._ranges = Ranges(lows, highs, scales, colors)
        self.sh_degree = self.palette_size = 0
        if "shN" in sections:
            self.sh_degree = self._whole(sections["shN"], "bands", 1, MAX_SH_DEGREE)
            self.palette_size = self._whole(sections["shN"], "count", 1, MAX_PALETTE)
            self._sh_codebook = self._codebook(sections["shN"])

    def splats(self) -> Splats[Float32s]:
        count = self.count
        low, high = (self._image(name)[:count, :3] for name in self.files["means"])
        rotations = self._image(self.files["quats"][0])[:count]
        scales = self._image(self.files["scales"][0])[:count, :3]
        colors = self._image(self.files["sh0"][0])[:count]
        if count and rotations[:, 3].min() < ROTATION_TAG:
            raise self._bad("a rotation names no largest component")
        for indices, codebook in ((scales, self._ranges.scales), (colors[:, :3], self._ranges.colors)):
            if count and indices.max() >= len(codebook):
                raise self._bad("an index is past the end of its codebook")
        levels = Levels(
            means=low | high.astype(np.int32) << 8,
            largest=rotations[:, 3].astype(np.int64) - ROTATION_TAG,
            others=rotations[:, :3].astype(np.int32),
            scales=scales,
            colors=colors[:, :3],
            opacities=colors[:, 3],
            palette=self._palette(),
        )
        return levels.values(self._ranges.tables().here).replace(antialiased=self.antialiased)

    def _palette(self) -> PaletteLevels | None:
        if self.sh_degree == 0:
            return None
        coefficients = sh_coefficients(self.sh_degree)
        centroids, label_image = self.files["shN"]
        rows = math.ceil(self.palette_size / PALETTE_ROW)
        entries = self._image(centroids, (PALETTE_ROW * coefficients, rows))[:, :3]
        entries = entries.reshape(-1, 3 * coefficients)[: self.palette_size]
        pixels = self._image(label_image)[: self.count].astype(np.int64)
        labels = pixels[:, 0] | pixels[:, 1] << 8
        if entries.max() >= len(self._sh_codebook):
            raise self._bad("a palette entry is past the end of its codebook")
        if self.count and labels.max() >= self.palette_size:
            raise self._bad("a label is past the end of the palette")
        return PaletteLevels(self._sh_codebook, entries, labels)

    def _bad(self, what: str) -> CodecError:
        return CodecError(f"{self._source}: corrupted, {what}; write or download it again")

    def packed_size(self, name: str) -> int:
        return self._members[name].compress_size

    def _read(self, name: str, most: int) -> bytes:
        """A member's bytes, its claimed size held against its packed one and ``most`` before anything is inflated."""
        member = self._members.get(name)
        if member is None:
            raise self._bad(f"{name!r} is missing")
        packed = min(member.compress_size, len(self._data))
        inflated = MOST_UNZIPPED if member.compress_type == zipfile.ZIP_DEFLATED else 1
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._bad(f"{name!r} is compressed in a way that SOG does not use")
        if member.file_size > min(most, inflated * packed):
            raise self._bad(f"{name!r} claims to be of {member.file_size} bytes")
        try:
            return self._zip.read(member)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            zlib.error,
        ) as error:
            raise self._bad(f"{name!r} cannot be unzipped ({error})") from error

    def _parse_meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._read(META, MOST_META_BYTES))
        except (ValueError, RecursionError) as error:
            raise self._bad(f"{META} is not JSON ({type(error).__name__})") from error
        if not isinstance(meta, dict):
            raise self._bad(f"{META} is not an object")
        return meta

    def _section(self, meta: dict[str, Any], key: str) -> dict[str, Any]:
        section = meta.get(key)
        if not isinstance(section, dict):
            raise self._bad(f"{META} lacks {key}")
        return section

    def _whole(self, section: dict[str, Any], key: str, least: int, most: int) -> int:
        value = section.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._bad(f"{META} claims a {key} that is no number from {least} to {most}")
        return value

    def _names(self, section: dict[str, Any], key: str) -> list[str]:
        names = section.get("files")
        if not isinstance(names, list) or len(names) != len(FILES[key]):
            raise self._bad(f"{META} does not name the {len(FILES[key])} files of {key}")
        for name in names:
            if not isinstance(name, str) or name not in self._members:
                raise self._bad(f"{META} names a file of {key} that is missing")
        return names

    def _numbers(self, section: dict[str, Any], key: str, least: int, most: int) -> Float64s:
        values = section.get(key)
        if not isinstance(values, list) or not least <= len(values) <= most:
            raise self._bad(f"{META} has no list {key} of {least} to {most} numbers")
        if not all(isinstance(value, (int, float)) and abs(value) < LARGEST_FLOAT for value in values):
            raise self._bad(f"{META} has something other than finite numbers in {key}")
        return np.array(values, np.float64)

    def _codebook(self, section: dict[str, Any]) -> Float32s:
        return self._numbers(section, "codebook", 1, CODEBOOK_SIZE).astype(np.float32)

    def _image(self, name: str, size: tuple[int, int] | None = None) -> Bytes:
        """``(pixels, 4)`` of a member: of ``size``, or of enough pixels for the Gaussians."""
        data = self._read(name, len(self._data) * 4 + (1 << 16))
        width, height = self._image_size(data, name)
        if size is not None and (width != size[0] or height < size[1]):
            raise self._bad(f"{name!r} is of {width} x {height} pixels, not {size[0]} x {size[1]}")
        if not self.count <= width * height <= PIXELS_FREE + PIXELS_A_BYTE * len(self._data) and size is None:
            raise self._bad(f"{name!r} is of {width} x {height} pixels for {self.count} Gaussians")
        try:
            with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
                pixels = np.asarray(image.convert("RGBA"))
        except (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
            raise self._bad(f"{name!r} is no image that can be read ({type(error).__name__})") from error
        if pixels.shape != (height, width, 4):
            raise self._bad(f"{name!r} is not of the size that its header says")
        return pixels.reshape(-1, 4)

    def _image_size(self, data: bytes, name: str) -> tuple[int, int]:
        """Width and height by the header of a lossless or extended WebP file, before anything is allocated for it."""
        kind = data[12:16]
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
            raise self._bad(f"{name!r} is no WebP image")
        if kind == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        raise self._bad(f"{name!r} is a lossy image, which does not keep numbers")
