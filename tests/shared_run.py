"""Real processes that share a run: ``torchrun`` on this machine, which exchange by gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(processes: int, script: str | Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a script in so many processes; what they print comes out together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(script), *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(processes: int, script: str | Path, *arguments: str) -> str:
    """Run a script in so many processes to its end, and return what they printed."""
    process = start(processes, script, *arguments)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def process_of_rank(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process id of one of the processes that a ``torchrun`` has started."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            return int(child)
    raise AssertionError(f"there is no process of rank {rank}")
