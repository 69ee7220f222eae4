"""The file formats: one module a format, one line each in :data:`FORMATS`.

A line says what must be known before the format's module is imported, so that reading a PLY file loads neither Numba
nor an image library. All formats obey the law of :mod:`gsz.contract`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsz import spec as specs
from gsz.cleaning import clean, deactivate, doubts
from gsz.contract import Codec, CodecError, Grid
from gsz.errors import UserError
from gsz.files import write_bytes
from gsz.foreign import explain, read_model
from gsz.splats import Splats

__all__ = [
    "FORMATS",
    "Codec",
    "CodecError",
    "Format",
    "Grid",
    "codec",
    "decode",
    "find",
    "format_of_suffix",
    "get",
    "identify",
    "info",
    "names",
    "read",
    "write",
]

_log = logging.getLogger(__name__)

HEAD_BYTES = 4096
"""How much of a file's beginning :meth:`Codec.recognizes` is shown."""


@dataclass(frozen=True)
class Format:
    """What is known of a format without importing its module.

    Attributes:
        name: What ``--codec`` calls it.
        location: Its :class:`Codec`, as ``module:class``.
        suffix: File name ending, with the dot.
        magic: What a file may begin with; empty where the format has no magic number. :meth:`Codec.recognizes` is only
            asked where one of these fits.
        writable: Whether it can be written.
        aliases: Names that it had before.
    """

    name: str
    location: str
    suffix: str
    magic: tuple[bytes, ...] = ()
    writable: bool = True
    aliases: tuple[str, ...] = ()

    def load(self) -> type[Codec]:
        """The format's class.

        Raises:
            UserError: a package that only this format needs is not installed.
        """
        module, _, name = self.location.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            package = {"PIL": "Pillow"}.get(error.name or "", error.name)
            raise UserError(f"{self.name} files need the package {package}; run pip install {package}") from error

    def recognizes(self, head: bytes) -> bool:
        """Whether a file that begins with ``head`` is of this format; see :meth:`Codec.recognizes`."""
        return (not self.magic or head.startswith(self.magic)) and self.load().recognizes(head)


# Formats that share a magic number stand with the more particular one first, those without one at the end.
FORMATS = (
    Format("gsz", "gsz.native:GszCodec", ".gsz", (b"\x89GSZ",)),
    Format("fast3dgs", "gsz.fast3dgs:Fast3dgsCodec", ".gslzma", (b"GSLZMA",), aliases=("lzma",)),
    Format("compressed-ply", "gsz.compressed_ply:CompressedPlyCodec", ".compressed.ply", (b"ply",), writable=False),
    Format("ply", "gsz.ply:PlyCodec", ".ply", (b"ply",)),
    Format(
        "fast3dgs-pickle", "gsz.fast3dgs_pickle:Fast3dgsPickleCodec", ".xz", (b"\xfd7zXZ\0",), False, ("published",)
    ),
    Format("sog", "gsz.sog:SogCodec", ".sog", (b"PK\3\4", b"{", b" ", b"\t", b"\r", b"\n")),
    Format("spz", "gsz.spz:SpzCodec", ".spz", (b"\x1f\x8b", b"NGSP")),
    Format("glb", "gsz.gltf:GltfCodec", ".glb", (b"glTF",), aliases=("gltf",)),
    Format("ksplat", "gsz.ksplat:KsplatCodec", ".ksplat", writable=False),
    Format("splat", "gsz.splat:SplatCodec", ".splat", writable=False),
)


def names(writable_only: bool = False) -> list[str]:
    """The formats' names, in the registry's order."""
    return [format_.name for format_ in FORMATS if format_.writable or not writable_only]


def find(name: str) -> Format:
    """The format of that name, or with that alias.

    Raises:
        UserError: there is none.
    """
    by_name = {alias: format_ for format_ in FORMATS for alias in (format_.name, *format_.aliases)}
    if name not in by_name:
        raise UserError(f"codec {name!r} is unknown; choose one of {', '.join(names())}")
    return by_name[name]


def get(name: str, **settings: Any) -> Codec:
    """The codec of that name, with its settings as values.

    Raises:
        UserError: no such codec, or a setting or value that it does not know.
    """
    codec_class = find(name).load()
    specs.check_names(name, getattr(codec_class, "__dataclass_fields__", {}), list(settings))
    return codec_class(**settings)


def codec(spec: str) -> Codec:
    """The codec that ``NAME[:key=value,...]`` names, such as ``spz:version=2`` or ``gsz:quality=low,layers=1``.

    Raises:
        UserError: the name, a key or a value is wrong; the message lists the right ones.
    """
    name, texts = specs.split(spec)
    codec_class = find(name).load()
    return codec_class(**specs.parse(name, codec_class, texts))


def format_of_suffix(path: str | Path) -> Format | None:
    """The format whose suffix ``path`` ends with, the longest where several do, or None."""
    name = Path(path).name.lower()
    matching = [format_ for format_ in FORMATS if name.endswith(format_.suffix)]
    return max(matching, key=lambda format_: len(format_.suffix), default=None)


def identify(data: bytes, path: str | Path) -> Codec:
    """The codec of a file: by how its bytes begin, and where that says nothing by the suffix of ``path``.

    Raises:
        CodecError: the file is empty or of no known format.
    """
    if not data:
        raise CodecError(f"{path}: the file is empty; write or download it again")
    explanation = explain(data)
    if explanation:
        raise CodecError(f"{path}: is {explanation}")
    head = data[:HEAD_BYTES]
    found = next((format_ for format_ in FORMATS if format_.recognizes(head)), None) or format_of_suffix(path)
    if found is None:
        raise CodecError(f"{path}: not a file of a known format ({', '.join(names())}); check the path")
    return found.load()()


def decode(
    data: bytes,
    source: str | Path,
    *,
    strict: bool = False,
    activated: Collection[str] = (),
    level: int | None = None,
    max_bytes: int | None = None,
    keep: float | None = None,
    read_as: str | Codec | None = None,
) -> Splats:
    """The model in a file's bytes, of whatever format, in NumPy arrays.

    It is cleaned of what no trained model should hold, with a line in the log for each kind; see :mod:`gsz.cleaning`.

    Args:
        source: The file's name, for messages.
        strict: Refuse what would be cleaned.
        activated: Parameters that are stored after their activations: ``opacity`` (0 to 1 in place of logits) and
            ``scale`` (standard deviations in place of their logarithms).
        level, max_bytes, keep: Ask for a coarser model, see :meth:`Codec.cut`.
        read_as: The format and settings that say what the file does not, such as ``spz:axes=rdf``; by default the
            format is found by the first bytes.

    Raises:
        CodecError: the bytes are of no known format or damaged, no Gaussian is usable, or not all with ``strict``.
        UserError: a part is asked for of a format without layers, or the parameters cannot be ``activated``.
    """
    given = codec(read_as) if isinstance(read_as, str) else read_as
    found = identify(data, source) if given is None else given
    if not (level is None and max_bytes is None and keep is None):
        data = found.cut(data, str(source), level, max_bytes, keep)
    stored = deactivate(found.decode(data, str(source)).numpy(), activated, str(source))
    splats, notes = clean(stored)
    if strict and notes:
        raise CodecError(f"{source}: {'; '.join(notes)}; leave --strict out to read it so")
    lines = notes + doubts(stored)
    if len(stored) and not len(splats):
        raise CodecError(f"{source}: holds no Gaussian that can be used: {'; '.join(lines)}; export it again")
    for line in lines:
        _log.warning(f"{source}: {line}")
    if splats.antialiased:
        _log.info(
            f"{source}: was trained with antialiasing; without Mip-Splatting's 2D filter it shows a little bolder"
        )
    return splats


def read(
    path: str | Path,
    *,
    strict: bool = False,
    activated: Collection[str] = (),
    level: int | None = None,
    max_bytes: int | None = None,
    keep: float | None = None,
    read_as: str | Codec | None = None,
) -> Splats:
    """The model in a file of any known format; arguments and errors as of :func:`decode`.

    ``path`` may also be a folder with the ``meta.json`` and the images of a SOG, or that ``meta.json``.
    """
    part: dict[str, Any] = {"level": level, "max_bytes": max_bytes, "keep": keep}
    return decode(read_model(path), path, strict=strict, activated=activated, read_as=read_as, **part)


def writer(path: str | Path, spec: str | Codec | None = None) -> Codec:
    """The codec to write ``path`` with: ``spec``, or what its suffix names.

    Raises:
        UserError: ``spec`` is wrong, the suffix names no format, or the format is only read.
    """
    writable = ", ".join(names(writable_only=True))
    if spec is None:
        found = format_of_suffix(path)
        if found is None:
            raise UserError(f"{path}: the suffix names no format; use --codec with one of {writable}")
        spec = found.name
    chosen = codec(spec) if isinstance(spec, str) else spec
    if not chosen.writable:
        raise UserError(f"{path}: {chosen.name} files can be read but not written; use --codec with one of {writable}")
    return chosen


def write(path: str | Path, splats: Splats, codec: str | Codec | None = None) -> bytes:
    """Fit a grid to ``splats``, encode them and write the file atomically.

    A loop that has fine-tuned on a grid writes ``grid.encode(splats)`` instead: a fresh fit would move the grid.

    Args:
        codec: The format and its settings, as a :class:`Codec` or as text (see :func:`codec`); by default what the
            suffix of ``path`` names.

    Returns:
        The bytes of the file.

    Raises:
        UserError: a parameter is NaN or infinite, the codec is wrong or only reads, or the file cannot be written.
    """
    chosen = writer(path, codec)
    splats.check_finite(str(path))
    _say_what_is_lost(path, splats, chosen)
    data = chosen.fit(splats).encode(splats)
    write_bytes(path, data)
    return data


def _say_what_is_lost(path: str | Path, splats: Splats, codec: Codec) -> None:
    if splats.offset is not None and "offset" not in codec.keeps:
        _log.warning(
            f"{path}: {codec.name} files have no place for the offset of the positions; "
            f"add {splats.offset.tolist()} to them where the model is to stand at its place"
        )
    if splats.antialiased and "antialiased" not in codec.keeps:
        _log.warning(
            f"{path}: {codec.name} files cannot say that the model was trained with antialiasing; "
            "write .gsz, .ply, .spz or .sog to keep it"
        )


def info(path: str | Path) -> dict[str, Any]:
    """What a file's header says (see :meth:`Codec.info`), and its size under ``file_bytes``."""
    data = read_model(path)
    return {**identify(data, path).info(data, str(path)), "file_bytes": len(data)}
