"""Proves that a run which is killed, or whose disk is full, goes on later and ends with the bytes of one that was not.

The runs here are processes of their own, killed by SIGKILL, which no program can answer. ``test_compress.py``
tries more moments within one process.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
from compress.journal import read_journal
from compress.run_dir import RunDir, RunState
from utils import cli

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE = [
    "--config",
    str(ROOT / "configs" / "fast3dgs.yaml"),
    "--first_iterations",
    "20",
    "--round_iterations",
    "80",
    "--final_iterations",
    "20",
    "--max_rounds",
    "3",
]

DIES_WRITING = """
import os, pathlib, signal, sys

replace, left = pathlib.Path.replace, [int(sys.argv.pop(1))]

def replace_or_die(path, target):
    # What is to be renamed has been written beside the old file, which is still there.
    left[0] -= target.name == "state.npz"
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

pathlib.Path.replace = replace_or_die
import train
train.main()
"""
"""Runs ``train.py``, but dies when it is about to put the n-th state in place."""


@pytest.fixture(scope="module")
def whole(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    run(tiny, out)
    return out


def arguments(tiny: tuple[Path, Path], out: Path, *extra: str) -> list[str]:
    source, checkpoint = tiny
    return ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--eval", *SCHEDULE, *extra]


def run(tiny: tuple[Path, Path], out: Path, *extra: str) -> None:
    """The command line in this process; a mistake of the user's ends it as it would end the program."""
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: void(train.train(train.parse(arguments(tiny, out, *extra)))))
    if ended.value.code != 0:
        raise ended.value


def void(_: object) -> None:
    pass


def start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Wait until something is so, and kill the process then and there."""
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def stages(out: Path) -> list[str]:
    journal = out / "journal.csv"
    return [row.stage for row in read_journal(journal)] if journal.exists() else []


def same_result(one: Path, other: Path) -> bool:
    """Whether two runs wrote the same models, rounds included. Times differ, so journals are compared by stage."""
    files = [sorted(path.relative_to(out) for path in out.rglob("*.gslzma")) for out in (one, other)]
    equal = all((one / name).read_bytes() == (other / name).read_bytes() for name in files[0])
    return files[0] == files[1] and len(files[0]) == 5 and equal and stages(one) == stages(other)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tiny: tuple[Path, Path], whole: Path, tmp_path: Path):
    """Once amid the second round, once while writing the state that follows it."""
    out = tmp_path / "killed"
    kill_when(start(["train.py", *arguments(tiny, out)]), lambda: "round 1" in stages(out))
    assert "round 3" not in stages(out) and not list(out.glob("compressed.*"))
    process = start(["-c", DIES_WRITING, "1", *arguments(tiny, out, "--resume")])
    assert process.wait(120) == -signal.SIGKILL
    assert list((out / "resume").glob(".state-*.npz")), "it died before the state was written"
    assert start(["train.py", *arguments(tiny, out, "--resume")]).wait(120) == 0
    assert same_result(out, whole)
    assert not (out / "resume").exists()


@contextmanager
def disk_that_fills_up(after_states: int) -> Iterator[None]:
    """After so many states, every write beyond 3000 bytes of a file fails, as on a full disk."""
    before, save, saved = resource.getrlimit(resource.RLIMIT_FSIZE), RunDir.save_state, []

    def save_and_fill(folder: RunDir, state: RunState) -> None:
        save(folder, state)
        saved.append(state)
        if len(saved) == after_states:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "save_state", save_and_fill)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_a_run_that_can_be_resumed(
    tiny: tuple[Path, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with disk_that_fills_up(after_states=3), pytest.raises(SystemExit) as ended:
        run(tiny, tmp_path)
    assert ended.value.code == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert last_line.startswith("error: ") and "cannot be written" in last_line and "free space" in last_line
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    run(tiny, tmp_path, "--resume")
    assert "resuming after stage 'round 1'" in capsys.readouterr().out
    assert same_result(tmp_path, whole)


def test_a_folder_where_a_file_should_be_ends_a_run_that_can_be_resumed(
    tiny: tuple[Path, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    obstacle = tmp_path / "compressed.gslzma"
    (obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        run(tiny, tmp_path)
    assert ended.value.code == 2
    assert f"error: {obstacle}: cannot be written" in capsys.readouterr().err.strip().splitlines()[-1]
    shutil.rmtree(obstacle)
    run(tiny, tmp_path, "--resume")
    assert "resuming after stage 'round 3'" in capsys.readouterr().out
    assert same_result(tmp_path, whole)
