"""Turn a splat file of any format into any other: ``python decompress.py garden.gsz garden.ply``.

The same as ``gsz convert`` and ``gsz info`` of the installed package, with the options that this program always had.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from gsz import interrupts

    interrupts.watch()

import sys
from collections.abc import Sequence
from pathlib import Path

from gsz import cli
from gsz.errors import UserError


def main(words: Sequence[str]) -> None:
    """Run the program with the arguments of a command line."""
    parser = cli.Parser("decompress.py", description="Turn a splat file of any format into any other.")
    parser.add_argument("source", type=Path, metavar="IN", help="its format is found by its first bytes")
    parser.add_argument(
        "target", type=Path, metavar="OUT", nargs="?", help="its suffix chooses the format; replaced if it exists"
    )
    parser.add_conversion()
    parser.add_argument("--quality", metavar="NAME", help="short for --codec NAME:quality=...")
    parser.add_argument("--grid", metavar="NAME", help="short for --codec gsz:grid=...")
    parser.add_argument("--version", metavar="N", help="short for --codec spz:version=...")
    parser.add_argument("--info", action="store_true", help="print what the header of IN says, and write nothing")

    arguments = parser.parse_args(words)
    if arguments.info:
        cli.info(arguments.source)
        return
    if arguments.target is None:
        raise UserError("no OUT is given; name the file to write, or use --info")
    settings = {name: getattr(arguments, name) for name in ("quality", "grid", "version")}
    arguments.codec = _with_settings(arguments.target, arguments.codec, {k: v for k, v in settings.items() if v})
    cli.convert(arguments)


def _with_settings(target: Path, spec: str | None, settings: dict[str, str]) -> str | None:
    """The codec in one line, from ``--codec`` or the suffix and from options that are short for one setting each."""
    if not settings:
        return spec
    from gsz import registry

    spec = spec or registry.writer(target).name
    return spec + ("," if ":" in spec else ":") + ",".join(f"{name}={value}" for name, value in settings.items())


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
