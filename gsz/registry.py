"""The registry of file formats: one module a format, one line each in :data:`CODECS`.

Formats obey the law of :mod:`gsz.contract`: what a decoder returns is what ``grid.snap`` showed to
fine-tuning. Nothing in this package renders or optimises, so it can be lifted out and used alone.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gsz.compressed_ply import CompressedPlyCodec
from gsz.contract import Codec, CodecError, Grid
from gsz.errors import UserError
from gsz.fast3dgs import Fast3dgsCodec
from gsz.fast3dgs_pickle import Fast3dgsPickleCodec
from gsz.files import read_bytes, write_bytes
from gsz.native import GszCodec
from gsz.ply import PlyCodec
from gsz.sog import SogCodec
from gsz.splat import SplatCodec
from gsz.splats import Splats
from gsz.spz import SpzCodec

__all__ = [
    "CODECS",
    "Codec",
    "CodecError",
    "Grid",
    "decode",
    "get",
    "identify",
    "info",
    "names",
    "read",
    "suffix_codec",
    "write",
]

HEAD_BYTES = 512
"""How much of a file's beginning :meth:`Codec.recognises` is shown."""

# Formats that share a magic number stand with the more particular one first.
CODECS: tuple[type[Codec], ...] = (
    GszCodec,
    Fast3dgsCodec,
    CompressedPlyCodec,
    PlyCodec,
    Fast3dgsPickleCodec,
    SogCodec,
    SpzCodec,
    SplatCodec,
)


def names(writable_only: bool = False) -> list[str]:
    """The formats' names, in the registry's order."""
    return [codec.name for codec in CODECS if codec.writable or not writable_only]


def get(name: str, **settings: Any) -> Codec:
    """The codec of that name, with its settings.

    Raises:
        UserError: no such codec, or a setting or value that it does not know.
    """
    by_name = {known: codec for codec in CODECS for known in (codec.name, *codec.aliases)}
    if name not in by_name:
        raise UserError(f"codec {name!r} is unknown; choose one of {', '.join(names())}")
    codec = by_name[name]
    known: list[str] = [field.name for field in fields(codec)] if is_dataclass(codec) else []
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"codec {name!r} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return codec(**settings)


def suffix_codec(path: str | Path) -> type[Codec] | None:
    """The format whose suffix ``path`` ends with, the longest where several do, or None."""
    name = Path(path).name.lower()
    matching = [codec for codec in CODECS if name.endswith(codec.suffix)]
    return max(matching, key=lambda codec: len(codec.suffix), default=None)


def identify(data: bytes, path: str | Path) -> Codec:
    """The codec of a file: by how its bytes begin, and where that says nothing by the suffix of ``path``.

    Raises:
        CodecError: the file is empty or of no known format.
    """
    if not data:
        raise CodecError(f"{path}: the file is empty; write or download it again")
    head = data[:HEAD_BYTES]
    codec = next((codec for codec in CODECS if codec.recognises(head)), None) or suffix_codec(path)
    if codec is None:
        raise CodecError(f"{path}: not a file of a known format ({', '.join(names())}); check the path")
    return codec()


def decode(data: bytes, source: str | Path) -> Splats:
    """The model in a file's bytes, of whatever format. ``source`` is the file's name.

    Raises:
        CodecError: the bytes are of no known format or damaged, or a parameter is NaN or infinite.
    """
    model = identify(data, source).decode(data, str(source))
    try:
        model.check_finite(str(source))
    except UserError as error:
        raise CodecError(str(error)) from error
    return model


def read(path: str | Path) -> Splats:
    """The model in a file of any known format; raises as :func:`decode` does, and for a missing file."""
    return decode(read_bytes(path), path)


def write(path: str | Path, splats: Splats, codec: Codec) -> bytes:
    """Fit a grid to ``splats``, encode them and write the file atomically. Returns the file's bytes.

    A loop that has fine-tuned on a grid writes ``grid.encode(splats)`` instead: a fresh fit would move the grid.

    Raises:
        UserError: a parameter is NaN or infinite, the codec only reads, or the file cannot be written.
    """
    splats.check_finite(str(path))
    data = codec.fit(splats).encode(splats)
    write_bytes(path, data)
    return data


def info(path: str | Path) -> dict[str, Any]:
    """What a file's header says (see :meth:`Codec.info`), and its size under ``file_bytes``."""
    data = read_bytes(path)
    return {**identify(data, path).info(data, str(path)), "file_bytes": len(data)}
