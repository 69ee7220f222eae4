"""The command ``gsz``: what files hold, and from any format to any other.

``decompress.py`` of the repository is a face of the same functions with the options it always had.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gsz import interrupts
from gsz.errors import UserError
from gsz.repository import require_program, run_program

EXIT_BAD_INPUT = 2

REPOSITORY_COMMANDS = {
    "compare": "measure how far two models are apart, or a model and its scene",
    "view": "show one or two models, or a run, in the browser",
}
"""Commands that are programs of the repository, by the names of those."""


def main() -> NoReturn:
    """The console script."""
    run(lambda: _main(sys.argv[1:]))


def run(program: Callable[[], None]) -> NoReturn:
    """Run a program to its end, and end the process with its exit code.

    What goes wrong is one line on standard error: exit code 2 for a :class:`UserError` and for too little memory, 130
    for Ctrl-C, 143 for SIGTERM where :func:`gsz.interrupts.watch` has been called. What this package logs is printed,
    warnings to standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    log, handler = logging.getLogger("gsz"), _Printer()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        program()
        sys.stdout.flush()
    except UserError as error:
        _fail(f"error: {error}", EXIT_BAD_INPUT)
    except MemoryError:
        _fail("error: there is not enough memory for this model; convert it on a larger machine", EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        interrupts.end()
    except BrokenPipeError:
        # Whoever reads the output has seen enough of it. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        log.removeHandler(handler)
    sys.exit(0)


def convert(arguments: argparse.Namespace) -> None:
    """Convert SRC to DST, with a first line at once and a last line of what was written."""
    from gsz.cleaning import gaussians, listed
    from gsz.conversion import convert
    from gsz.sizes import parse_size

    max_bytes, target = (text and parse_size(text) for text in (arguments.max_bytes, arguments.target_size))
    _check_verification(arguments)
    _say(f"reading {arguments.source}")
    written = convert(
        arguments.source,
        arguments.target,
        arguments.codec,
        strict=arguments.strict,
        activated=listed(arguments.activated),
        level=arguments.level,
        max_bytes=max_bytes,
        keep=arguments.keep,
        target_bytes=target,
        read_as=arguments.read_as,
    )
    each = f", {written.file_bytes / written.count:.1f} bytes each" if written.count else ""
    size = f"{written.file_bytes / 1e6:.3f} MB"
    _say(f"wrote {written.path} ({written.codec.name}): {gaussians(written.count)}, {size}{each}")
    if arguments.verify:
        least = [] if arguments.min_psnr is None else ["--min_psnr", str(arguments.min_psnr)]
        code = run_program("compare", [str(arguments.source), str(arguments.target), "--brief", *least])
        if code:
            sys.exit(code)


def _check_verification(arguments: argparse.Namespace) -> None:
    """Raise :class:`UserError` where ``--verify`` makes no sense, before minutes are spent on the conversion."""
    if arguments.min_psnr is not None and not arguments.verify:
        raise UserError("--min_psnr belongs to --verify; add it")
    if arguments.verify and (arguments.activated or arguments.read_as):
        raise UserError(
            "--verify reads SRC without --activated and --read_as; convert it to .ply first, and verify what follows"
        )
    if arguments.verify:
        require_program("compare")


def info(source: Path) -> None:
    """Print what a file's header says, an item a line.

    Raises:
        UserError: the file is missing, damaged or of no known format.
    """
    from gsz import registry

    for key, value in registry.info(source).items():
        _say(f"{key}: {_readable(value)}")


def formats() -> None:
    """Print the formats, whether they can be written, and their settings, a format a paragraph."""
    from gsz import registry
    from gsz.spec import settings_of

    for format_ in registry.FORMATS:
        use = "read and written" if format_.writable else "read only"
        also = f", also called {', '.join(format_.aliases)}" if format_.aliases else ""
        _say(f"{format_.name:<15} {format_.suffix:<16} {use}{also}")
        if format_.writable:
            for setting in settings_of(format_.load()).values():
                _say(f"    {setting.name}={_readable(setting.default)}: {setting.values}")


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names only, and refuses in one line."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def add_conversion(self) -> None:
        """The options of a conversion, apart from its two files."""
        option = self.add_argument
        option(
            "--codec",
            metavar="SPEC",
            help="write this format whatever the suffix of DST: NAME[:key=value,...], see gsz formats",
        )
        option(
            "--read_as",
            "--read-as",
            metavar="SPEC",
            help="what SRC does not say itself, such as spz:axes=rdf",
        )
        option("--strict", action="store_true", help="refuse models with broken values instead of cleaning them")
        option(
            "--activated",
            metavar="NAMES",
            default="",
            help="opacity, scale or opacity,scale: SRC holds these after their activations",
        )
        option("--level", type=int, metavar="N", help="take the first N layers of importance of a .gsz file only")
        option(
            "--keep",
            type=float,
            metavar="FRACTION",
            help="take the layers that hold at most this fraction of a .gsz file's Gaussians, such as 0.25",
        )
        option(
            "--max_bytes",
            "--max-bytes",
            metavar="SIZE",
            help="take the layers that lie within the first SIZE of a .gsz file, such as 100kB",
        )
        option(
            "--target_size",
            "--target-size",
            metavar="SIZE",
            help="write a .gsz file with the finest steps that take at most SIZE, such as 5MB",
        )
        option(
            "--verify",
            action="store_true",
            help="render SRC and DST and say in a line how far apart they are; needs a clone of the repository",
        )
        option(
            "--min_psnr",
            "--min-psnr",
            type=float,
            metavar="DB",
            help="with --verify: end with exit code 1 where the mean PSNR of DST's renders against SRC's is lower",
        )


def _main(words: Sequence[str]) -> None:
    from gsz import __version__

    parser = Parser("gsz", description="Files of 3D Gaussian Splatting models.")
    parser.add_argument("--version", action="version", version=f"gsz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("info", help="print what the header of a file says")
    command.add_argument("source", type=Path, metavar="FILE")

    command = commands.add_parser("convert", help="write a file of any format as another one")
    command.add_argument("source", type=Path, metavar="SRC", help="its format is found by its first bytes")
    command.add_argument(
        "target", type=Path, metavar="DST", help="its suffix chooses the format; replaced if it exists"
    )
    command.add_conversion()

    commands.add_parser("formats", help="list the formats and their settings")

    for name, what in REPOSITORY_COMMANDS.items():
        commands.add_parser(name, help=f"{what} (in a clone of the repository)", add_help=False)
    if words and words[0] in REPOSITORY_COMMANDS:
        sys.exit(run_program(words[0], words[1:]))

    arguments = parser.parse_args(words)
    if arguments.command == "info":
        info(arguments.source)
    elif arguments.command == "formats":
        formats()
    else:
        convert(arguments)


class _Printer(logging.Handler):
    """Prints what the package logs: a line of what a user should see as it is, warnings to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print(f"warning: {record.getMessage()}", file=sys.stderr, flush=True)
        else:
            _say(record.getMessage())


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(line: str, code: int) -> NoReturn:
    interrupts.last_words(line)
    sys.exit(code)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)
