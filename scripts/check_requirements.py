"""Check that no file of requirements replaces the PyTorch that is installed, whichever build of it that is.

    python scripts/check_requirements.py     # asks the package index what it would install, and installs nothing

A CUDA build costs an afternoon when a requirement quietly brings another. The exit code is 0 if none would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _root import ROOT

from gsz.errors import UserError
from utils import cli
from utils.cli import say

FILES = ("requirements.txt", "requirements-cuda.txt", "requirements-dev.txt")


def dry_run(file: Path) -> dict[str, Any]:
    """pip's report of what it would install here.

    Raises:
        UserError: pip finds no solution, or cannot reach the package index.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    command += ["--retries", "1", "--timeout", "20", "-r", str(file)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        errors = (line for line in finished.stderr.splitlines() if line.startswith("ERROR:"))
        raise UserError(f"{file.name}: {next(errors, 'pip failed')}")
    return json.loads(finished.stdout)


def planned(report: dict[str, Any]) -> dict[str, str]:
    """Name and version of each package in a report of pip."""
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in report["install"]}


def main() -> None:
    replaced = False
    for name in FILES:
        plan = planned(dry_run(ROOT / name))
        say(f"{name}: would install {', '.join(f'{package} {plan[package]}' for package in plan) or 'nothing'}")
        if "torch" in plan:
            say(f"{name}: REPLACES PyTorch by {plan['torch']}")
            replaced = True
    if replaced:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
