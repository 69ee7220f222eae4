"""Proves that the batch over the published datasets runs the right commands on the right image folders, goes on past
missing and failing scenes, and averages what metrics.py wrote; no scene is trained here."""

from __future__ import annotations

import csv
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from batch.job import SceneJob, run_job, versions

from compress.journal import JournalRow, journal_csv
from gsz.errors import UserError
from gsz.files import write_text
from quality.summary import ModelSummary, ViewMetrics, mean_summary, read_summary
from scripts import run_datasets

SCENES = {
    "mipnerf360": {
        **dict.fromkeys(["bicycle", "flowers", "garden", "stump", "treehill"], "images_4"),
        **dict.fromkeys(["room", "counter", "kitchen", "bonsai"], "images_2"),
    },
    "tanksandtemples": {"truck": "images", "train": "images"},
    "deepblending": {"drjohnson": "images", "playroom": "images"},
}


def make_scene(root: Path, dataset: str, scene: str) -> None:
    (root / dataset / scene / SCENES[dataset][scene]).mkdir(parents=True)
    (root / "models" / scene).mkdir(parents=True)


def write_results(folder: Path, summary: ModelSummary, method: str = "ours_30000") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({method: summary.to_json()}))


def run(root: Path, *arguments: str, datasets: tuple[str, ...] = tuple(SCENES)) -> None:
    folders = [part for dataset in datasets for part in (f"--{dataset}", str(root / dataset))]
    run_datasets.main([*folders, "--checkpoints", str(root / "models"), "-m", str(root / "out"), *arguments])


def test_dry_run_prints_every_command_and_writes_nothing(tmp_path, capsys):
    for dataset, scenes in SCENES.items():
        for scene in scenes:
            make_scene(tmp_path, dataset, scene)
    before = sorted(tmp_path.rglob("*"))
    recipe, weights = str(tmp_path / "recipe.yaml"), str(tmp_path / "w.npz")
    run(tmp_path, "--config", recipe, "--lpips_weights", weights, "--dry_run", "--", "--stop_on", "test")
    assert sorted(tmp_path.rglob("*")) == before

    lines = [line.removeprefix("$ ") for line in capsys.readouterr().out.splitlines()]
    commands = [[Path(part).name for part in shlex.split(line)[1:2]] + shlex.split(line)[2:] for line in lines]
    expected = []
    for dataset, scenes in SCENES.items():
        for scene, images in scenes.items():
            source, model, out = (str(tmp_path / part / scene) for part in (dataset, "models", "out"))
            train = ["train.py", "-s", source, "-i", images, "--pretrained_dir", model, "-m", out, "--eval"]
            expected.append([*train, "--config", str(tmp_path / "recipe.yaml"), "--stop_on", "test"])
            expected.append(["render.py", "-m", out, "--skip_train"])
            expected.append(["metrics.py", "-m", out, "--lpips_weights", str(tmp_path / "w.npz")])
    assert commands == expected


def test_several_recipes_have_a_folder_and_a_row_each(tmp_path, capsys):
    make_scene(tmp_path, "tanksandtemples", "truck")
    (tmp_path / "a.yaml").touch()
    (tmp_path / "b.yaml").touch()
    recipes = ("--config", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    run(tmp_path, *recipes, "--only", "truck", "--dry_run", datasets=("tanksandtemples",))
    trained = [line for line in capsys.readouterr().out.splitlines() if "train.py" in line]
    assert [str(tmp_path / "out" / name / "truck") in line for name, line in zip("ab", trained, strict=True)] == [
        True
    ] * 2

    for name, psnr in (("a", 25.0), ("b", 26.0)):
        write_results(tmp_path / "out" / name / "truck", summary(psnr, 300_000, 9_000_000))
    run(tmp_path, *recipes, "--only", "truck", *FROM_RESULTS, datasets=("tanksandtemples",))
    tree = json.loads((tmp_path / "out/results.json").read_text())["tanksandtemples"]
    assert {name: entry["scenes"]["truck"]["PSNR"] for name, entry in tree["recipes"].items()} == {"a": 25.0, "b": 26.0}
    output = capsys.readouterr().out
    assert "Tanks and Temples, b: truck" in output
    difference = next(line for line in output.splitlines() if line.startswith("  difference"))
    assert difference.split()[1] == "-0.04", "the scene's own published figure, not the average, is beside ours"


def finish(folder: Path) -> None:
    """What is left of a run that has ended: as much of it as is asked for."""
    (folder / "recipe.yaml").touch()
    (folder / "compressed.gsz").touch()
    write_text(folder / "journal.csv", journal_csv([JournalRow("final", 10, 5, 25.0, 0.8, 100)]))


def test_done_scenes_are_left_alone_and_reported(tmp_path, capsys):
    for scene in ("truck", "train"):
        make_scene(tmp_path, "tanksandtemples", scene)
        write_results(tmp_path / "out" / scene, summary(25.0, 300_000, 9_000_000))
        finish(tmp_path / "out" / scene)
    (tmp_path / "out/train/resume").mkdir()
    run(tmp_path, "--skip_done", "--dry_run", datasets=("tanksandtemples",))
    printed = capsys.readouterr().out
    assert "out/truck" not in printed
    assert "out/train" in printed, "a later run in its folder is unfinished"


def test_resume_and_overwrite_are_passed_on(tmp_path, capsys):
    make_scene(tmp_path, "tanksandtemples", "truck")
    for option in ("--resume", "--overwrite"):
        run(tmp_path, option, "--only", "truck", "--dry_run", datasets=("tanksandtemples",))
        trained, *others = capsys.readouterr().out.splitlines()
        assert trained.endswith(f"--eval {option}")
        assert not any(option in line for line in others)
    with pytest.raises(UserError, match="give one of the two"):
        run(tmp_path, "--resume", "--overwrite", datasets=("tanksandtemples",))


def test_a_second_attempt_resumes_what_the_first_began_and_nothing_older(tmp_path):
    """A machine may die before train.py has come to replace what another batch had left there."""
    attempt = job(tmp_path / "out", "", overwrite=True)
    (tmp_path / "out").mkdir()
    finish(tmp_path / "out")
    os.utime(tmp_path / "out/recipe.yaml", (1e9, 1e9))
    assert attempt.commands()[0][-1] == "--overwrite"
    attempt.mark()
    assert attempt.commands()[0][-1] == "--overwrite"
    (tmp_path / "out/recipe.yaml").touch()
    assert attempt.commands()[0][-1] == "--resume"


def summary(psnr: float, gaussians: int, size: int, lpips: float | None = 0.25) -> ModelSummary:
    return ModelSummary(ViewMetrics(psnr, 0.8, lpips), gaussians, size, 10.0, "cpu")


FROM_RESULTS = ("--skip_training", "--skip_rendering", "--skip_metrics")


def test_averages_what_metrics_wrote(tmp_path, capsys):
    for dataset in SCENES:
        (tmp_path / dataset).mkdir()
    write_results(tmp_path / "out/truck", summary(24.0, 200_000, 8_000_000))
    write_results(tmp_path / "out/train", summary(22.0, 100_000, 4_000_000))
    write_results(tmp_path / "out/playroom", summary(30.0, 300_000, 9_000_000, lpips=None))
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *FROM_RESULTS)
    assert ended.value.code == 1, "scenes without results are failures where nothing was to be run"

    tree = json.loads((tmp_path / "out/results.json").read_text())
    tree = {key: {**entry["recipes"]["default"], "published": entry["published"]} for key, entry in tree.items()}
    average = tree["tanksandtemples"]["average"]
    assert (average["PSNR"], average["Gaussians"], average["Bytes"]) == (23.0, 150_000, 6_000_000)
    assert average["BytesPerGaussian"] == 40.0
    assert tree["deepblending"]["average"]["LPIPS"] is None
    assert tree["mipnerf360"]["average"] is None
    assert set(tree["mipnerf360"]["failed"]) == set(SCENES["mipnerf360"])

    rows = list(csv.DictReader((tmp_path / "out/results.csv").open()))
    ours = [(row["dataset"], row["scene"]) for row in rows if row["recipe"] != "published"]
    assert ours == [
        *(("tanksandtemples", name) for name in ("truck", "train", "average")),
        *(("deepblending", name) for name in ("playroom", "average")),
    ]
    assert rows[3]["LPIPS"] == ""
    assert float(rows[2]["PSNR"]) == 23.0
    columns = ("PSNR", "SSIM", "LPIPS", "Gaussians", "MB")
    published = {
        (row["dataset"], row["scene"]): tuple(float(row[column]) for column in columns)
        for row in rows
        if row["recipe"] == "published"
    }
    assert published["mipnerf360", "average"] == (27.39, 0.805, 0.254, 394_753, 15.28)
    assert published["tanksandtemples", "train"] == (21.79, 0.764, 0.296, 87_527, 3.38)
    assert len(published) == 13 + 3

    output = capsys.readouterr().out
    ours = next(line for line in output.splitlines() if line.startswith("Tanks and Temples ("))
    assert "(2 of 2 scenes)" in ours
    assert ours.split()[-7:] == ["23.00", "0.800", "0.250", "150,000", "6.00", "40.00", "10.0"]
    assert "(1 of 2 scenes)" in output
    assert "FAILED: drjohnson" in output


def test_scenes_of_which_nothing_was_published(tmp_path, capsys):
    for scene, psnr in (("a", 20.0), ("b", 22.0)):
        (tmp_path / "scenes" / scene / "images").mkdir(parents=True)
        (tmp_path / "models" / scene).mkdir(parents=True)
        write_results(tmp_path / "out" / scene, summary(psnr, 100, 1000))
    folders = {"--scenes": "scenes", "--checkpoints": "models", "-m": "out"}
    arguments = [part for option, name in folders.items() for part in (option, str(tmp_path / name))]
    run_datasets.main([*arguments, *FROM_RESULTS])
    tree = json.loads((tmp_path / "out/results.json").read_text())["scenes"]
    assert tree["recipes"]["default"]["average"]["PSNR"] == 21.0 and tree["published"] == {}
    assert "published" not in capsys.readouterr().out


def test_a_missing_scene_is_skipped_and_is_no_failure(tmp_path, capsys, monkeypatch):
    """Every program is replaced by one that ends at once: what is tested is the batch."""
    make_scene(tmp_path, "tanksandtemples", "truck")
    write_results(tmp_path / "out/truck", summary(24.0, 200_000, 8_000_000))
    monkeypatch.setattr(SceneJob, "commands", lambda job: [[sys.executable, "-c", "pass"]])
    run(tmp_path, datasets=("tanksandtemples",))
    tree = json.loads((tmp_path / "out/results.json").read_text())["tanksandtemples"]["recipes"]["default"]
    assert list(tree["scenes"]) == ["truck"]
    assert "train/images is missing" in tree["skipped"]["train"]
    assert "skipped: train" in capsys.readouterr().out


def test_a_failing_scene_does_not_stop_the_others(tmp_path, capfd, monkeypatch):
    make_scene(tmp_path, "tanksandtemples", "truck")
    make_scene(tmp_path, "tanksandtemples", "train")
    write_results(tmp_path / "out/truck", summary(24.0, 200_000, 8_000_000))  # Of an earlier run: not to be reported.
    write_results(tmp_path / "out/train", summary(22.0, 100_000, 4_000_000))

    def commands(job):
        return [[sys.executable, "-c", f"import sys; sys.exit({3 * (job.output.name == 'truck')})"]]

    monkeypatch.setattr(SceneJob, "commands", commands)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, datasets=("tanksandtemples",))
    assert ended.value.code == 1
    tree = json.loads((tmp_path / "out/results.json").read_text())["tanksandtemples"]["recipes"]["default"]
    assert list(tree["scenes"]) == ["train"]
    assert "exit code 3" in tree["failed"]["truck"]
    assert "truck: FAILED" in capfd.readouterr().out


def test_bad_input(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="name at least one of --mipnerf360"):
        run(tmp_path, datasets=())
    (tmp_path / "deepblending").mkdir()
    with pytest.raises(UserError, match=r"--only garden: there is no such scene; the scenes are drjohnson, playroom"):
        run(tmp_path, "--only", "garden", datasets=("deepblending",))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'--ray needs Ray: pip install "ray==2\.60\.\*"'):
        run(tmp_path, "--ray", "127.0.0.1:1", datasets=("deepblending",))
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(__version__="2.9.3"))
    with pytest.raises(UserError, match=r'--ray needs a newer Ray than 2\.9\.3: pip install "ray==2\.60\.\*"'):
        run(tmp_path, "--ray", "127.0.0.1:1", datasets=("deepblending",))
    with pytest.raises(UserError, match=r"tanksandtemples: there is no such folder; check --tanksandtemples"):
        run(tmp_path, datasets=("tanksandtemples",))


def test_check_names_what_is_missing_or_misnamed(tmp_path, capsys):
    for scene in ("truck", "train"):
        make_scene(tmp_path, "tanksandtemples", scene)
    (tmp_path / "models/truck").rename(tmp_path / "models/Truck")
    (tmp_path / "tanksandtemples/train/images").rename(tmp_path / "tanksandtemples/train/image")
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--check", datasets=("tanksandtemples",))
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("truck: the checkpoint is missing; Truck is there: rename it") for line in lines)
    assert any("train/images: the photographs are missing; image is there" in line for line in lines)
    assert lines[-1].startswith("checked 2 scenes: ")
    assert not (tmp_path / "out").exists()


def job(output: Path, code: str, **changes: object) -> SceneJob:
    """A job whose one program is a few lines of Python."""
    program = output.parent / "program.py"
    program.write_text(code)
    fields = {
        "name": "scene",
        "needed": (),
        "output": output,
        "train": (str(program),),
        "render": None,
        "measure": None,
        "batch": "b",
        "resume": False,
        "overwrite": False,
        "versions": versions(),
    }
    return SceneJob(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_job_logs_what_its_programs_print_and_says_how_far_it_is(tmp_path):
    said: list[str] = []
    run_job(job(tmp_path / "out", "print('round 2: 5 Gaussians, PSNR 28.10 dB, SSIM 0.9')"), said.append)
    assert said == ["program.py", "round 2, 28.10 dB"]
    assert "round 2: 5 Gaussians" in (tmp_path / "out" / "batch.log").read_text()


def test_what_stops_a_job_on_a_machine_is_one_line_that_names_it(tmp_path, monkeypatch):
    here = socket.gethostname()

    def why(**changes: object) -> str:
        with pytest.raises(UserError) as failed:
            run_job(job(tmp_path / "out", "", **changes), lambda words: None)
        return str(failed.value)

    other = tuple((name, "0" if name == "torch" else version) for name, version in versions())
    assert why(versions=other).startswith(f"{here}: has torch ")
    assert why(needed=(tmp_path / "absent",)).startswith(f"{here}: {tmp_path / 'absent'} is missing")
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=10**6))
    assert why().startswith(f"{here}: only 1 MB are free at {tmp_path / 'out'}")
    monkeypatch.undo()
    (tmp_path / "out" / "batch.log").unlink(missing_ok=True)
    (tmp_path / "out" / "batch.log").symlink_to("/dev/full")
    assert why().startswith(f"{here}: {tmp_path / 'out'} cannot be written (No space left on device)")


def test_a_program_ends_with_the_process_that_started_it(tmp_path):
    """Otherwise two attempts of one scene could write to one folder."""
    alive = tmp_path / "alive"
    code = f"import time, pathlib\nwhile True:\n    pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    parent = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from batch.job import run_job
from tests.scripts.test_run_datasets import job
run_job(job(Path({str(tmp_path / "out")!r}), {code!r}), lambda words: None)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.monotonic() + 60
    while not alive.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(0.5)
    alive.unlink()
    time.sleep(0.5)
    assert not alive.exists()


class TestReadSummary:
    def test_takes_the_highest_iteration(self, tmp_path):
        entries = {f"ours_{n}": summary(psnr, 1, 1).to_json() for n, psnr in ((7000, 20.0), (30000, 25.0), (999, 10.0))}
        (tmp_path / "results.json").write_text(json.dumps(entries))
        assert read_summary(tmp_path).metrics.psnr == 25.0
        assert read_summary(tmp_path, "ours_999").metrics.psnr == 10.0

    @pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"ours_1": 3}', '{"ours_1": {"PSNR": 1}}', "[" * 100_000])
    def test_damaged(self, tmp_path, text):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(UserError, match=r"results\.json: is damaged"):
            read_summary(tmp_path)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"results\.json: cannot be read"):
            read_summary(tmp_path)


def test_mean_summary_leaves_out_what_one_scene_lacks():
    mean = mean_summary([summary(20.0, 100, 1000), ModelSummary(ViewMetrics(30.0, 0.9, 0.2))])
    assert mean.metrics.psnr == 25.0
    assert (mean.gaussians, mean.bytes, mean.fps, mean.backend) == (None, None, None, None)
