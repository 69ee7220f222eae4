"""Where the checkpoints of a training are."""

from __future__ import annotations

import re
from pathlib import Path

from utils.state import read_description

REMEDY = "delete it to resume from an earlier one"

_FILE_NAME = re.compile(r"chkpnt(\d+)\.npz")


def checkpoint_path(model_path: Path, iteration: int) -> Path:
    """The checkpoint that is asked for after an iteration."""
    return model_path / f"chkpnt{iteration}.npz"


def rolling_checkpoint_path(model_path: Path) -> Path:
    """The checkpoint that is replaced every few minutes."""
    return model_path / "chkpnt_latest.npz"


def latest_checkpoint(model_path: Path) -> Path | None:
    """The checkpoint of the highest iteration in a model directory, or ``None``.

    Raises:
        UserError: the one that is replaced every few minutes is damaged.
    """
    if not model_path.is_dir():
        return None
    found = [(int(match[1]), path) for path in model_path.iterdir() if (match := _FILE_NAME.fullmatch(path.name))]
    rolling = rolling_checkpoint_path(model_path)
    if rolling.is_file():
        found.append((int(read_description(rolling, REMEDY).get("iteration", 0)), rolling))
    return max(found)[1] if found else None
