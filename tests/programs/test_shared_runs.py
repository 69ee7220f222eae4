"""Proves that processes which share a run make one model: of the same bytes every time, as good as that of one process,
scored by the same sums; and that the death of one ends the others with one line, after which the run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from compress.journal import read_journal
from tests.shared_run import ROOT, process_of_rank, run, start
from utils import torchrun

SCHEDULE = "--first_iterations 20 --round_iterations 60 --final_iterations 40 --max_rounds 2 --max_psnr_drop inf"

SCORES_IN_EACH = """
import sys
from pathlib import Path
import torch
from compress import importance
from compress.views import Views
from scene import open_scene
from scene.options import SceneOptions
from tests.tiny_run import tiny_splats
from utils import ranks

ranks.start()
scene = open_scene(SceneOptions(source_path=Path(sys.argv[1]), eval=True))
views, splats = Views.of(scene, scene.train[:5]), tiny_splats(40)

def scores(measures):
    if not measures:  # As backends that measure nothing are scored; the probes are random, the rest is not.
        importance.render_statistics = lambda *arguments, **options: None
    names = [name for name in importance.SCORES if measures or not name.startswith("removal")]
    results = {name: importance.SCORES[name](splats, views, (0,)).gaussians for name in names}
    if measures:
        exchange = importance.exchange(splats, views, (0,))
        results |= {"costs": exchange.costs, "gains": exchange.gains}
    return results

measure = importance.render_statistics
for measures in (True, False):
    importance.render_statistics = measure
    shared = scores(measures)
    importance.render_statistics, share, total = measure, ranks.share, ranks.total
    ranks.share, ranks.total = list, lambda *tensors: None
    alone = scores(measures)
    ranks.share, ranks.total = share, total
    for name, expected in alone.items():
        torch.testing.assert_close(shared[name], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()), msg=name)
    ranks.check_same("the scores", shared.values())
"""


def arguments(tiny: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    source, checkpoint = tiny
    scene = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--eval"]
    return [*scene, *SCHEDULE.split(), "--max_ssim_drop", "1", *more]


def compressed(out: Path) -> bytes:
    return (out / "compressed.gsz").read_bytes()


def psnr(out: Path) -> float:
    return read_journal(out / "journal.csv")[-1].psnr


@pytest.fixture(scope="module")
def whole(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    printed = run(2, "train.py", *arguments(tiny, out))
    assert printed.count("is compressed with") == printed.count("times smaller") == 1, "one process speaks for all"
    assert "2 processes shared the run" in printed
    return out


def test_two_processes_make_as_good_a_model_as_one(tiny: tuple[Path, Path], whole: Path, tmp_path: Path):
    train.train(train.parse(arguments(tiny, tmp_path)))
    shared, alone = (read_journal(out / "journal.csv") for out in (whole, tmp_path))
    assert [(row.stage, row.iteration) for row in shared] == [(row.stage, row.iteration) for row in alone]
    assert shared[0].psnr == alone[0].psnr, "what is measured does not depend on who measures it"
    assert abs(psnr(whole) - psnr(tmp_path)) < 1.5, "of a tiny scene, whose figures scatter"
    assert compressed(whole) != compressed(tmp_path), "two views a step are not one"


def test_the_death_of_one_ends_all_with_one_line_and_the_run_goes_on(
    tiny: tuple[Path, Path], whole: Path, tmp_path: Path
):
    out = tmp_path / "killed"
    launcher = start(2, "train.py", *arguments(tiny, out))
    deadline = time.monotonic() + 120
    while not (out / "journal.csv").exists() or "round 1" not in (out / "journal.csv").read_text():
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process_of_rank(launcher, 1), signal.SIGKILL)
    killed = time.monotonic()
    printed, _ = launcher.communicate(timeout=60)
    assert time.monotonic() - killed < 60 and launcher.returncode != 0
    lines = [line for line in printed.splitlines() if "go on with: torchrun --nproc-per-node 2" in line]
    assert len(lines) == 1 and lines[0].endswith("--resume"), printed
    assert not list(out.glob("compressed.*"))

    shutil.copytree(out, tmp_path / "alone")
    assert "resuming after stage" in run(2, "train.py", *arguments(tiny, out, "--resume"))
    assert compressed(out) == compressed(whole)
    train.train(train.parse(arguments(tiny, tmp_path / "alone", "--resume")))
    assert abs(psnr(tmp_path / "alone") - psnr(whole)) < 1.5, "one process goes on with what two have begun"


def test_scores_are_the_sums_over_the_views_of_all(tiny: tuple[Path, Path], tmp_path: Path):
    script = tmp_path / "scores.py"
    script.write_text(SCORES_IN_EACH)
    run(2, script, str(tiny[0]))


def test_only_the_first_one_has_the_files_of_the_run(tiny: tuple[Path, Path], tmp_path: Path):
    """Machines need not share a folder."""
    folders = [tmp_path / str(rank) for rank in range(2)]
    for folder in folders:
        folder.mkdir()
    script = tmp_path / "apart.py"
    script.write_text("import os, sys, train\nos.chdir(sys.argv.pop(1) + '/' + os.environ['RANK'])\ntrain.main()\n")
    run(2, script, str(tmp_path), *arguments(tiny, Path("out"), "--codec", "gsz:layers=4", "--no_report"))
    assert (folders[0] / "out" / "compressed.gsz").is_file() and not list(folders[1].rglob("compressed.*"))


def test_a_mistake_of_another_than_the_first_is_told_as_well(tmp_path: Path):
    script = tmp_path / "mistaken.py"
    script.write_text("""
import os, time
from gsz.errors import UserError
from utils import cli

def main():
    if os.environ["RANK"] == "0":
        time.sleep(60)
    raise UserError("this machine lacks the file")

cli.run(main)
""")
    launcher = start(2, script)
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0 and "error: this machine lacks the file" in printed


def test_a_run_of_several_machines_goes_on_with_the_command_that_started_it(monkeypatch: pytest.MonkeyPatch):
    """torchrun's own process has it, which another one with the same words stands in for here."""
    monkeypatch.setattr("sys.argv", ["train.py", "--eval"])
    environment = {"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [
        "torchrun",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "4",
        "--rdzv-endpoint",
        "first:29500",
        "train.py",
        "--eval",
    ]
    code = "import time; print(flush=True); time.sleep(60)"
    launcher = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    launcher.stdout.readline()  # Its words are there once it runs.
    try:
        monkeypatch.setattr("os.getppid", lambda: launcher.pid)
        assert torchrun.command() == command
        monkeypatch.setattr("sys.argv", ["something", "else"])
        assert torchrun.command() == ["torchrun", "--nnodes", "2", "--nproc-per-node", "4", "something", "else"]
        monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
        assert torchrun.command() == ["torchrun", "--nproc-per-node", "4", "something", "else"]
    finally:
        launcher.kill()
        launcher.wait()


def test_a_mistake_is_told_once(tmp_path: Path):
    launcher = start(2, ROOT / "train.py", "-s", str(tmp_path / "absent"), "-m", str(tmp_path / "out"))
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert printed.count("error: ") == 1 and "--pretrained_dir" in printed
