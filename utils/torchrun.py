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
    return ["torchrun", *_options(), *sys.argv]


def _options() -> list[str]:
    """Those of torchrun. How several machines meet only its own command line says, which Linux shows."""
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    processes = ["--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
    if machines == "1":
        return processes
    from pathlib import Path  # This module is imported before signals are answered.

    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        words = []
    launcher = [index for index, word in enumerate(words) if Path(word).name in ("torchrun", "torch.distributed.run")]
    if not launcher or words[-len(sys.argv) :] != sys.argv:
        return ["--nnodes", machines, *processes]
    return words[launcher[0] + 1 : -len(sys.argv)]
