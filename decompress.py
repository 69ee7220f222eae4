"""Turn a splat file of any format into any other: ``python decompress.py garden.gsz garden.ply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from compress.budget import parse_size
from gsz import registry
from gsz.errors import UserError
from gsz.files import read_bytes
from gsz.native import GszCodec
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.cli import say


def convert(
    source: Path,
    target: Path,
    codec: str | None = None,
    level: int | None = None,
    max_bytes: int | None = None,
    target_size: str = "",
    **settings: Any,
) -> None:
    """Read ``source`` and write ``target``, in the format that its suffix or ``codec`` names.

    ``level`` and ``max_bytes`` take a part of a file in layers; see :meth:`gsz.native.GszCodec.decode`.
    ``target_size``, such as "5MB", is met by the steps of the grid. ``settings`` are the codec's.

    Raises:
        UserError: the source is missing, damaged or not in layers where a part of it is asked for, the target's
            format is unknown or cannot be written, it has no such setting, or the size is out of reach.
    """
    chosen = _codec_for(target, codec, settings)
    size = parse_size(target_size) if target_size else None
    whole = level is None and max_bytes is None
    splats = GaussianModel.of(registry.read(source) if whole else _read_part(source, level, max_bytes))
    if size is not None:
        chosen = _for_size(chosen, splats, size)
    data = registry.write(target, splats, chosen)
    each = f", {len(data) / len(splats):.1f} bytes each" if len(splats) else ""
    say(f"wrote {target} ({chosen.name}): {len(splats):,} Gaussians, {len(data) / 1e6:.3f} MB{each}")


def _read_part(source: Path, level: int | None, max_bytes: int | None) -> GaussianModel:
    data = read_bytes(source)
    layered = registry.identify(data, source)
    if not isinstance(layered, GszCodec):
        raise UserError(f"{source}: {layered.name} files have no layers; leave --level and --max_bytes out")
    splats = layered.decode(data, str(source), level, max_bytes)
    splats.check_finite(str(source))
    return splats


def describe(path: Path) -> None:
    """Print what a file's header says, an item a line.

    Raises:
        UserError: the file is missing, damaged or of no known format.
    """
    for key, value in registry.info(path).items():
        say(f"{key}: {_readable(value)}")


def _for_size(codec: registry.Codec, splats: GaussianModel, size: int) -> registry.Codec:
    fitting = codec.for_size(splats, size)
    if fitting is None:
        raise UserError(
            f"--target_size: {len(splats)} Gaussians in {size} bytes are out of reach of {codec.name}'s steps; "
            "allow more, write .gsz, or let train.py prune to the size"
        )
    return fitting


def _codec_for(target: Path, name: str | None, settings: dict[str, Any]) -> registry.Codec:
    """The codec to write ``target`` with, checked before anything is read."""
    writable = registry.names(writable_only=True)
    if name is not None:
        chosen = registry.get(name, **settings)
    else:
        by_suffix = registry.suffix_codec(target)
        if by_suffix is None:
            raise UserError(f"{target}: the suffix names no format; use --codec with one of {', '.join(writable)}")
        chosen = registry.get(by_suffix.name, **settings)
    if not chosen.writable:
        raise UserError(
            f"{target}: {chosen.name} files can only be read; use --codec with one of {', '.join(writable)}"
        )
    return chosen


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def main(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    target: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")] = None,
    /,
    codec: str | None = None,
    level: int | None = None,
    max_bytes: int | None = None,
    quality: str = "",
    grid: str = "",
    target_size: str = "",
    version: int | None = None,
    info: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Turn a splat file of any format into any other.

    Args:
        source: The file to read; its format is found by its first bytes.
        target: The file to write; its suffix chooses the format. Replaced if it exists.
        codec: Write this format, whatever the suffix of OUT.
        level: Of a .gsz file, take the first so many layers of importance only.
        max_bytes: Of a .gsz file, take the layers that lie within so many first bytes.
        quality: How fine the grid of a .gsz, .sog or .spz file is: best, high, medium, low or tiny.
        grid: Write a .gsz file with exactly the values of the lzma codec: fast3dgs.
        target_size: Write the .gsz file with the finest grid that takes at most this size, such as 5MB.
        version: Write a .spz file of this version: 2 (for glTF's extension), 3 or 4.
        info: Print what the header of IN says, and write nothing.
    """
    if info:
        describe(source)
    elif target is None:
        raise UserError("no OUT is given; name the file to write, or use --info")
    else:
        given = {"quality": quality, "grid": grid, "version": version}
        settings = {name: value for name, value in given.items() if value not in ("", None)}
        convert(source, target, codec, level, max_bytes, target_size, **settings)


def run() -> None:
    """Run the tool with the arguments of the process."""
    cli.run(lambda: tyro.cli(main, use_underscores=True))


if __name__ == "__main__":
    run()
