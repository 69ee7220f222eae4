"""What ``torchrun`` says of this process, read from the environment, without PyTorch."""

from __future__ import annotations

import os
import sys


def is_used() -> bool:
    """Whether ``torchrun`` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process tells the user what all of a run's processes do: the only one, or the first of several."""
    return not is_used() or os.environ.get("RANK", "0") == "0"


def command() -> list[str]:
    """The command that started this process and the others of its run."""
    if not is_used():
        return list(sys.orig_argv)
    processes = ["--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
    return ["torchrun", *processes, *sys.argv]
