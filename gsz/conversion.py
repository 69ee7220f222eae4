"""From a file of any format to a file of any format that can be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsz import __version__, registry
from gsz.contract import Codec
from gsz.errors import UserError
from gsz.files import write_bytes
from gsz.foreign import read_model
from gsz.sog.streamed import LEVELS_FILE, write_levels
from gsz.splats import Splats

SOG = "sog"


@dataclass(frozen=True)
class Written:
    """A file that was written: its format, how many Gaussians it holds, and its bytes."""

    path: Path
    codec: Codec
    count: int
    file_bytes: int


def convert(
    source: str | Path,
    target: str | Path,
    codec: str | Codec | None = None,
    *,
    strict: bool = False,
    activated: Collection[str] = (),
    level: int | None = None,
    max_bytes: int | None = None,
    keep: float | None = None,
    target_bytes: int | None = None,
    read_as: str | Codec | None = None,
) -> Written:
    """Read ``source`` and write ``target``, atomically, in the format that its suffix or ``codec`` names.

    A ``target`` of the name ``lod-meta.json`` is a SOG in levels of detail, one for each layer of a ``.gsz``; the files
    that it names are written into folders beside it.

    Args:
        codec: The format and its settings, see :func:`gsz.codec`.
        strict, activated, read_as: How to read what is not as it should be, or does not say what it is, see
            :func:`gsz.read`.
        level, max_bytes, keep: Take the first part of a file in layers, see :meth:`gsz.contract.Codec.cut`. In a file
            of the same format it is written byte for byte, unless ``codec`` or ``target_bytes`` ask for another one.
        target_bytes: Choose the finest steps of the format with which the file takes at most so many bytes.

    Raises:
        UserError: the source is missing, damaged or not in layers where a part of it is asked for, the target's
            format is unknown or cannot be written, it has no such setting, or the size is out of reach.
    """
    streamed = Path(target).name == LEVELS_FILE
    chosen = registry.writer(target, codec or (SOG if streamed else None))
    data = read_model(source)
    is_part = not (level is None and max_bytes is None and keep is None)
    found = registry.identify(data, source)
    if is_part:
        data = found.cut(data, str(source), level, max_bytes, keep)
    if streamed:
        return _stream(data, source, Path(target), chosen)
    splats = registry.decode(data, source, strict=strict, activated=activated, read_as=read_as)
    if is_part and found.name == chosen.name and not (codec or target_bytes or activated or read_as):
        write_bytes(target, data)
        return Written(Path(target), chosen, len(splats), len(data))
    splats = splats.replace(metadata=_label(splats, found, data))
    if target_bytes is not None:
        chosen = _for_size(chosen, splats, target_bytes)
    data = registry.write(target, splats, chosen)
    return Written(Path(target), chosen, len(splats), len(data))


def lasting(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of itself that is still true of one that is made from it: all but its quality."""
    return {key: value for key, value in metadata.items() if key != "quality"}


def _label(splats: Splats, found: Codec, data: bytes) -> dict[str, Any]:
    """What the written file says of itself. What the source said stays, but its quality, which is not the target's."""
    said = lasting(splats.metadata)
    source = {"format": found.name, "gaussians": len(splats), "bytes": len(data)}
    return {"generator": f"gsz {__version__}", "source": source, **said}


def _stream(data: bytes, source: str | Path, target: Path, codec: Codec) -> Written:
    """Write the layers of a file as levels of detail."""
    if codec.name != SOG:
        raise UserError(f"{target}: levels are written as {SOG}, not as {codec.name}; leave --codec out")
    layers = registry.identify(data, source).info(data, str(source)).get("layers", [])
    coarser = [registry.decode(data, source, level=level) for level in range(len(layers) - 1, 0, -1)]
    levels = [registry.decode(data, source), *coarser]
    return Written(target, codec, len(levels[0]), write_levels(target, levels, codec))


def _for_size(codec: Codec, splats: Splats, size: int) -> Codec:
    fitting = codec.for_size(splats, size)
    if fitting is None:
        raise UserError(
            f"{len(splats)} Gaussians in {size} bytes are out of reach of {codec.name}'s steps; "
            "allow more, write .gsz, or let train.py prune to the size"
        )
    return fitting
