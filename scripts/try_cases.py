"""Run every case of a directory and print what became of it: input files with the commands that a user would give.

    python scripts/try_cases.py DIR [CASE ...] [--json FILE] [--timeout 120]

A case is a folder with a ``command.txt``, one command a line, such as ``python decompress.py in.ply out.gsz``. Each is
run by a shell in a copy of the folder, so that the input stays as it is; ``python X.py`` is the program of this
repository, and ``PROJ`` is its folder. The table has a row a command: the case, the exit code and the first and the
last line that the command printed. Exit code 1 says that a command ended with a traceback or ran out of time.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from _root import ROOT

from gsz.errors import UserError
from gsz.files import write_text
from utils import cli
from utils.tables import format_table

COMMANDS = "command.txt"
_WIDTH = 70


@dataclass
class Options:
    """Run every case of a directory and print what became of it."""

    directory: tyro.conf.Positional[Path]
    """Folder that holds a folder a case."""
    cases: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of the cases to run; all where none is given."""
    json: Path | None = None
    """File to write the table to as well."""
    timeout: float = 120.0
    """Seconds that a command may take."""


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        code: Its exit code; ``None`` where it ran out of time.
        first, last: The first and the last line that it printed, on either stream.
        traceback: Whether it printed a traceback.
    """

    case: str
    command: str
    code: int | None
    first: str
    last: str
    traceback: bool

    @property
    def sound(self) -> bool:
        return self.code is not None and not self.traceback


def run_case(folder: Path, timeout: float) -> list[Outcome]:
    """Run the commands of a case, in order, in a copy of its folder."""
    lines = (folder / COMMANDS).read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(folder, copy)
        return [_run(folder.name, line, copy, timeout) for line in lines if line.strip() and not line.startswith("#")]


def _run(case: str, line: str, folder: Path, timeout: float) -> Outcome:
    root = shlex.quote(str(ROOT))
    command = re.sub(r"\bpython (?=\w+\.py\b)", lambda _: f"python {root}/", line.replace("PROJ", root))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    try:
        finished = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(case, line, None, f"took longer than {timeout:g} s", "", False)
    except OSError as error:
        return Outcome(case, line, None, str(error), "", False)
    printed = [text.strip() for text in finished.stdout.decode(errors="replace").replace("\r", "\n").splitlines()]
    printed = [text for text in printed if text] or [""]
    traceback = any(text.startswith("Traceback") for text in printed)
    return Outcome(case, line, finished.returncode, printed[0], printed[-1], traceback)


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    folders = sorted(path.parent for path in options.directory.glob(f"*/{COMMANDS}"))
    if options.cases:
        folders = [folder for folder in folders if folder.name in options.cases]
    if not folders:
        raise UserError(f"{options.directory}: holds no case, which is a folder with a {COMMANDS}; check the path")
    outcomes: list[Outcome] = []
    for folder in folders:
        cli.say(folder.name)
        outcomes += run_case(folder, options.timeout)
    rows = [
        [each.case, "-" if each.code is None else str(each.code), each.first[:_WIDTH], each.last[:_WIDTH]]
        for each in outcomes
    ]
    cli.say("\n" + format_table(["case", "exit", "first line", "last line"], rows))
    broken = [each for each in outcomes if not each.sound]
    if options.json is not None:
        write_text(options.json, json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")
    cli.say(f"ran {len(outcomes)} commands of {len(folders)} cases; {len(broken)} ended with a traceback or not at all")
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
