"""A zip of images and their ``meta.json``, opened. What it claims is checked before anything is made for it."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image

from gsz.contract import CodecError
from gsz.foreign import plain_name
from gsz.rounding.arrays import Bytes, Float64s
from gsz.sog.layout import META, ZIP_MAGIC

MOST_META_BYTES = 1 << 20
MOST_UNZIPPED = 1032
"""Most bytes that a byte of a member becomes under deflate."""

PIXELS_FREE = 1 << 18
PIXELS_A_BYTE = 64
"""An image may claim :data:`PIXELS_FREE` pixels, and this many more for every byte of the file."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Archive:
    """The members of a file, by their names beside its ``meta.json``, and what that says.

    Attributes:
        meta: The object in ``meta.json``.
        most: The most Gaussians, and the most pixels of an image, that the file is believed to have.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._data, self._source = data, source
        if not data.startswith(ZIP_MAGIC):
            raise CodecError(f"{source}: a part of an unbundled SOG or none at all; give its folder or its meta.json")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError) as error:
            raise CodecError(f"{source}: a truncated or corrupted zip ({error}); write or download it again") from error
        members = {member.filename.replace("\\", "/"): member for member in self._zip.infolist()}
        # Who zips the folder of an unbundled SOG has the folder's name before all others.
        folders = [name.removesuffix(META) for name in members if f"/{name}".endswith(f"/{META}")]
        folder = min(folders, key=len, default="")
        self._members = {
            name.removeprefix(folder): member for name, member in members.items() if name.startswith(folder)
        }
        self.most = PIXELS_FREE + PIXELS_A_BYTE * len(data)
        self.meta = self._parse_meta()

    def bad(self, what: str) -> CodecError:
        return CodecError(f"{self._source}: corrupted, {what}; write or download it again")

    def packed_size(self, name: str) -> int:
        return self._members[name].compress_size

    def section(self, key: str) -> dict[str, Any]:
        section = self.meta.get(key)
        if not isinstance(section, dict):
            raise self.bad(f"{META} lacks {key}")
        return section

    def whole(self, section: dict[str, Any], key: str, least: int, most: int) -> int:
        return self.whole_number(section.get(key), key, least, most)

    def whole_number(self, value: object, key: str, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.bad(f"{META} claims a {key} that is no number from {least} to {most}")
        return value

    def files(self, key: str, count: int) -> list[str]:
        """The names of an entry's images."""
        named = self.section(key).get("files")
        if not isinstance(named, list) or len(named) != count:
            raise self.bad(f"{META} does not name the {count} files of {key}")
        names = [name for name in map(plain_name, named) if name in self._members]
        if len(names) < count:
            raise self.bad(f"{META} names a file of {key} that is missing")
        return names

    def numbers(self, section: dict[str, Any], key: str, least: int, most: int) -> Float64s:
        values = section.get(key)
        if not isinstance(values, list) or not least <= len(values) <= most:
            raise self.bad(f"{META} has no list {key} of {least} to {most} numbers")
        if not all(isinstance(value, (int, float)) and abs(value) < LARGEST_FLOAT for value in values):
            raise self.bad(f"{META} has something other than finite numbers in {key}")
        return np.array(values, np.float64)

    def image(self, name: str, count: int) -> Bytes:
        """``(pixels, 4)`` of a member, of at least ``count`` pixels."""
        data, width, height = self._image(name)
        if not count <= width * height <= self.most:
            raise self.bad(f"{name!r} is of {width} x {height} pixels for {count} Gaussians")
        return self._pixels(data, name, width, height)

    def image_of(self, name: str, width: int, rows: int) -> Bytes:
        """``(pixels, 4)`` of a member of a certain width, and of at least so many rows."""
        data, *size = self._image(name)
        if size[0] != width or size[1] < rows:
            raise self.bad(f"{name!r} is of {size[0]} x {size[1]} pixels, not {width} x {rows}")
        return self._pixels(data, name, *size)

    def image_size(self, name: str) -> tuple[int, int]:
        """Width and height."""
        _, width, height = self._image(name)
        return width, height

    def _parse_meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._read(META, MOST_META_BYTES))
        except (ValueError, RecursionError) as error:
            raise self.bad(f"{META} is not JSON ({type(error).__name__})") from error
        if not isinstance(meta, dict):
            raise self.bad(f"{META} is not an object")
        return meta

    def _read(self, name: str, most: int) -> bytes:
        """A member's bytes, its claimed size held against its packed one and ``most`` before anything is inflated."""
        member = self._members.get(name)
        if member is None:
            raise self.bad(f"{name!r} is missing")
        packed = min(member.compress_size, len(self._data))
        inflated = MOST_UNZIPPED if member.compress_type == zipfile.ZIP_DEFLATED else 1
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.bad(f"{name!r} is compressed in a way that SOG does not use")
        if member.file_size > min(most, inflated * packed):
            raise self.bad(f"{name!r} claims to be of {member.file_size} bytes")
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
            raise self.bad(f"{name!r} cannot be unzipped ({error})") from error

    def _image(self, name: str) -> tuple[bytes, int, int]:
        """A member, and its width and height by the header of a lossless or extended WebP file.

        They are known before anything is allocated for the pixels.
        """
        data = self._read(name, len(self._data) * 4 + (1 << 16))
        kind = data[12:16]
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
            raise self.bad(f"{name!r} is no WebP image")
        if kind == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return data, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8X":
            return data, int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        raise self.bad(f"{name!r} is a lossy image, which does not keep numbers")

    def _pixels(self, data: bytes, name: str, width: int, height: int) -> Bytes:
        try:
            with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
                pixels = np.asarray(image.convert("RGBA"))
        except (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
            raise self.bad(f"{name!r} is no image that can be read ({type(error).__name__})") from error
        if pixels.shape != (height, width, 4):
            raise self.bad(f"{name!r} is not of the size that its header says")
        return pixels.reshape(-1, 4)
