"""What the first conversion after installing costs, when nothing is compiled yet, and what every later one does.

    python scripts/bench_cold_start.py [MODEL.ply] [--json FILE]

Each conversion is a process of its own, first with an empty folder for compiled code and then again with what that
process left there. It runs the command ``gsz`` of this repository, or with ``--installed`` that on the PATH. Seconds
are processor time of the process, user and system; the shortest of several runs, since only they repeat.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from _root import ROOT

from gsz.errors import UserError
from gsz.files import write_text
from utils import cli
from utils.tables import format_table

DEMO = ROOT / "demo" / "snowmiku" / "pretrained" / "point_cloud" / "iteration_15000" / "point_cloud.ply"
FORMATS = ("gsz", "gsz:grid=fast3dgs", "fast3dgs", "sog", "spz")


@dataclass
class Options:
    """What the first conversion after installing costs."""

    model: tyro.conf.Positional[Path] = DEMO
    """A model in PLY; by default the demo's."""
    formats: tuple[str, ...] = FORMATS
    """What is written from it and read back."""
    runs: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """How often each conversion is run."""
    installed: bool = False
    """Run the command gsz on the PATH instead of this repository's."""
    json: Path | None = None
    """Write the results here."""


@dataclass(frozen=True)
class Result:
    """One conversion; the keys of the JSON file.

    Attributes:
        conversion: from what to what.
        cold_s: processor seconds without compiled code.
        warm_s: the same with it.
    """

    conversion: str
    cold_s: float
    warm_s: float


def command(installed: bool) -> list[str]:
    """How the command ``gsz`` is called."""
    if not installed:
        return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import gsz.cli; gsz.cli.main()"]
    found = shutil.which("gsz")
    if found is None:
        raise UserError("there is no command gsz on the PATH; run pip install . or leave --installed out")
    return [found]


def seconds(arguments: list[str], cache: Path) -> float:
    """Processor seconds of a process that keeps compiled code in ``cache``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run(
        arguments, env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise UserError(f"{' '.join(arguments[-3:])} failed: {finished.stderr.strip().splitlines()[-1]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(conversion: str, arguments: list[str], runs: int) -> Result:
    """A conversion without compiled code and with it, the shortest of ``runs`` each."""
    cold, warm = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(seconds(arguments, Path(cache)))
            warm.append(seconds(arguments, Path(cache)))
    return Result(conversion, round(min(cold), 2), round(min(warm), 2))


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    gsz, results = command(options.installed), []
    with tempfile.TemporaryDirectory() as folder:
        for spec in options.formats:
            written, read = Path(folder) / "model.bin", Path(folder) / "model.ply"
            write = [*gsz, "convert", str(options.model), str(written), "--codec", spec]
            results.append(measure(f"ply to {spec}", write, options.runs))
            results.append(measure(f"{spec} to ply", [*gsz, "convert", str(written), str(read)], options.runs))
    rows = [[result.conversion, f"{result.cold_s:.2f}", f"{result.warm_s:.2f}"] for result in results]
    cli.say(format_table(["conversion", "first (CPU s)", "later (CPU s)"], rows, "markdown"))
    if options.json is not None:
        write_text(options.json, json.dumps([asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
