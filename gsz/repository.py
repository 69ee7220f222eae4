"""The programs that render, which stand beside this package in a clone of the repository and are not installed with it.

They need PyTorch, and this package does not. So they are never imported here: they run in a process of their own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gsz.errors import UserError

_ROOT = Path(__file__).resolve().parents[1]


def run_program(name: str, words: Sequence[str]) -> int:
    """Run ``NAME.py`` of the repository with the arguments of a command line, and return its exit code.

    Raises:
        UserError: as :func:`require_program`.
    """
    return subprocess.call([sys.executable, str(require_program(name)), *words])


def require_program(name: str) -> Path:
    """Where ``NAME.py`` is.

    Raises:
        UserError: this package was not started from a clone, or PyTorch is not installed.
    """
    program = _ROOT / f"{name}.py"
    if not (program.is_file() and (_ROOT / "programs" / "__init__.py").is_file()):
        raise UserError(
            f"{name} renders models, which the installed package cannot; run python {name}.py in a clone of the "
            "repository, or install the clone with pip install -e ."
        )
    if find_spec("torch") is None:
        requirements = _ROOT / "requirements.txt"
        raise UserError(f"{name} renders models with PyTorch, which is not installed; pip install -r {requirements}")
    return program
