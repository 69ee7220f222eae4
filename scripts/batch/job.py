"""One scene and recipe: the command lines, run one after the other with a log, and what became of them.

A job runs wherever it is sent, so nothing here knows of clusters or terminals. It does not import PyTorch: the programs
do, in processes of their own.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.run_dir import RECIPE_FILE, RunDir
from gsz.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LOG_NAME = "batch.log"
BATCH_NAME = "batch.id"
"""A file in a scene's output folder that names the batch which ran there last, so that a second attempt resumes."""

DECISIVE = ("torch", "numpy", "numba")
"""Packages whose version may change the bytes that come out."""

_STAGE = re.compile(r"^(uncompressed|first|round \d+|final): .*?PSNR (-?[\d.]+|inf) dB")
_DYING_SECONDS = 10
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class SceneJob:
    """What one scene takes.

    Attributes:
        name: Of the scene, with the recipe's where there are several, for messages.
        needed: Folders that have to be there, such as the photographs; empty where nothing is trained.
        output: The model directory.
        train, render, measure: The arguments of the three programs, without the interpreter; ``None`` leaves one out.
        batch: Name of the batch. An output folder that carries it was begun by an earlier attempt of the same batch.
        resume: Whether a run that another batch left unfinished goes on, and a finished one is kept.
        overwrite: Whether what another batch left is replaced.
        versions: What every machine of the batch has to agree on, see :func:`versions`.
    """

    name: str
    needed: tuple[Path, ...]
    output: Path
    train: tuple[str, ...] | None
    render: tuple[str, ...] | None
    measure: tuple[str, ...] | None
    batch: str
    resume: bool
    overwrite: bool
    versions: tuple[tuple[str, str], ...]

    def commands(self) -> list[list[str]]:
        """The command lines in order. Training is told to go on where an earlier attempt has begun it."""
        train = self.train
        if train is not None and (self.resume or self._has_begun()):
            train = (*train, "--resume")
        elif train is not None and self.overwrite:
            train = (*train, "--overwrite")
        return [
            [sys.executable, *arguments] for arguments in (train, self.render, self.measure) if arguments is not None
        ]

    def mark(self) -> None:
        """Leave the batch's name in the output folder."""
        if self._marked() != self.batch:
            (self.output / BATCH_NAME).write_text(self.batch, encoding="utf-8")

    def _has_begun(self) -> bool:
        """Whether an earlier attempt of this batch came as far as to begin a run: what is there may be older."""
        recipe = RunDir(self.output).folder / RECIPE_FILE
        if self._marked() != self.batch or not recipe.is_file():
            return False
        return recipe.stat().st_mtime >= (self.output / BATCH_NAME).stat().st_mtime

    def _marked(self) -> str | None:
        path = self.output / BATCH_NAME
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


class JobFailed(Exception):
    """A program of a job ended with an error. The message is one line."""


def versions() -> tuple[tuple[str, str], ...]:
    """What machines that run jobs of one batch must agree on, by name: the sources, Python and a few packages."""
    digest = hashlib.sha256()
    rooms = [package.parent for package in ROOT.glob("*/__init__.py")]
    files = [*ROOT.glob("*.py"), *(path for folder in (*rooms, ROOT / "configs") for path in folder.rglob("*.*"))]
    for path in sorted(path for path in files if path.suffix in (".py", ".yaml")):
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    python = ".".join(str(part) for part in sys.version_info[:2])
    packages = [(name, importlib.metadata.version(name)) for name in DECISIVE]
    return (("the programs", digest.hexdigest()[:12]), ("Python", python), *packages)


def check_place(job: SceneJob) -> None:
    """See that this machine can run a job.

    Raises:
        UserError: its programs are of another version, data is missing, or the disk is full; the line names the
            machine.
    """
    here = socket.gethostname()
    for (name, mine), (_, wanted) in zip(versions(), job.versions, strict=True):
        if mine != wanted:
            raise UserError(
                f"{here}: has {name} {mine}, the batch was started with {wanted}; bring all machines to the same "
                "commit and the same packages"
            )
    missing = [path for path in job.needed if not path.is_dir()]
    if missing:
        raise UserError(f"{here}: {missing[0]} is missing; put the data on storage that all machines share")
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(job.output).free
    except OSError as error:
        raise UserError(f"{here}: {job.output} cannot be written ({error.strerror}); choose another -m") from error
    if free < 100_000_000:
        raise UserError(f"{here}: only {free / 1e6:.0f} MB are free at {job.output}; free space or choose another -m")


def run_job(job: SceneJob, progress: Callable[[str], None]) -> None:
    """Run the programs of a job on this machine; all that they print goes to :data:`LOG_NAME` in the output folder.

    Args:
        progress: Called with a few words whenever there is something new, such as ``round 3, 28.41 dB``.

    Raises:
        UserError: see :func:`check_place`.
        JobFailed: a program ended with an error; the message names the machine and quotes the program's last line.
    """
    check_place(job)
    try:
        commands = job.commands()
        job.mark()
        with (job.output / LOG_NAME).open("a", encoding="utf-8") as log:
            for command in commands:
                log.write(f"$ {shlex.join(command)}\n")
                log.flush()
                _run(command, log, progress)
    except OSError as error:
        here = socket.gethostname()
        raise UserError(
            f"{here}: {job.output} cannot be written ({error.strerror}); free space or choose another -m"
        ) from error


def _run(command: Sequence[str], log, progress: Callable[[str], None]) -> None:
    program = Path(command[1]).name
    progress(program)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_die_with_parent,
    )
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            last = line.strip() or last
            stage = _STAGE.match(line)
            if stage is not None:
                progress(f"{stage[1]}, {stage[2]} dB")
        code = process.wait()
    except BaseException:
        # An interrupted batch gives the program the time that it takes to save its state.
        process.terminate()
        try:
            process.wait(_DYING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if code != 0:
        here = socket.gethostname()
        raise JobFailed(f"{here}: {program} ended with exit code {code}: {last.removeprefix('error: ')}")


def _die_with_parent() -> None:
    """Let the kernel end a program whose batch process is killed, so that no two attempts write to one folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
