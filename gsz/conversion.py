"""From a file of any format to a file of any format that can be written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gsz import registry
from gsz.contract import Codec
from gsz.errors import UserError
from gsz.splats import Splats


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
    target_bytes: int | None = None,
    read_as: str | Codec | None = None,
) -> Written:
    """Read ``source`` and write ``target``, atomically, in the format that its suffix or ``codec`` names.

    Args:
        codec: The format and its settings, see :func:`gsz.codec`.
        strict, activated, read_as: How to read what is not as it should be, or does not say what it is, see
            :func:`gsz.read`.
        level, max_bytes: Take a part of a file in layers, see :meth:`gsz.contract.Codec.decode_part`.
        target_bytes: Choose the finest steps of the format with which the file takes at most so many bytes.

    Raises:
        UserError: the source is missing, damaged or not in layers where a part of it is asked for, the target's
            format is unknown or cannot be written, it has no such setting, or the size is out of reach.
    """
    chosen = registry.writer(target, codec)
    splats = registry.read(
        source, strict=strict, activated=activated, level=level, max_bytes=max_bytes, read_as=read_as
    )
    if target_bytes is not None:
        chosen = _for_size(chosen, splats, target_bytes)
    data = registry.write(target, splats, chosen)
    return Written(Path(target), chosen, len(splats), len(data))


def _for_size(codec: Codec, splats: Splats, size: int) -> Codec:
    fitting = codec.for_size(splats, size)
    if fitting is None:
        raise UserError(
            f"{len(splats)} Gaussians in {size} bytes are out of reach of {codec.name}'s steps; "
            "allow more, write .gsz, or let train.py prune to the size"
        )
    return fitting
