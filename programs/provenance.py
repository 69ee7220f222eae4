"""How a run was made: what it notes when it begins, and what its page says of it."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

import gsz
from compress.run_dir import MADE_FILE
from gaussian_renderer import Backend
from gsz.errors import UserError
from gsz.files import read_bytes


def how_it_is_made(backend: Backend) -> dict[str, str]:
    """What a run notes of itself when it begins, for its page."""
    return {
        "command": shlex.join(sys.argv),
        "gsz": gsz.__version__,
        "python": platform.python_version(),
        "pytorch": str(torch.__version__),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "renderer": backend.description,
        "begun": time.strftime("%Y-%m-%d %H:%M"),
    }


def read_made(run: Path) -> dict[str, str]:
    """What a run noted of itself; nothing where it did not, as those of older versions."""
    path = run / MADE_FILE
    if not path.is_file():
        return {}
    try:
        noted = yaml.safe_load(read_bytes(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not what train.py wrote; remove it") from error
    return {str(name): str(value) for name, value in noted.items()} if isinstance(noted, dict) else {}
