"""Proves the harness of scripts/gpu_check.py on the CPU: its parts measure and record, one that fails costs the
others nothing, the random scene is what it claims, and the report says what is not of a GPU.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gpu_check
import pytest
import torch
from gpu_check import Options, Record

from gaussian_renderer import render
from gsz.errors import UserError
from utils import cli


def options(tmp_path: Path, **changes) -> Options:
    return Options(device="cpu", output=tmp_path / "report.json", counts=(60, 90), size=(64, 48), **changes).filled()


def test_the_random_scene_is_in_view_and_covers_the_picture():
    camera = gpu_check.wide_camera(96, 64)
    splats = gpu_check.random_splats(2000)
    rendering = render(camera, splats, torch.ones(3), backend="cpu")
    assert bool((rendering.radii > 0).float().mean() > 0.99)
    assert float((rendering.image != 1).any(2).float().mean()) > 0.9
    assert torch.equal(splats.means, gpu_check.random_splats(2000).means)


def test_the_floor_is_bytes_over_bandwidth():
    assert gpu_check.floor_seconds("render", 1000, 0, 236e3) == pytest.approx(1.0)
    assert gpu_check.floor_seconds("step", 0, 100, 6000) == pytest.approx(1.0)


def test_the_speed_of_a_backend_is_recorded_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "copy_bandwidth", lambda device, size: 1e9)
    monkeypatch.setattr(gpu_check, "median_seconds", once)
    record = Record(tmp_path / "found.json")
    gpu_check.time_backend(options(tmp_path, child="speed:cpu"), record)
    found = json.loads(record.path.read_text())
    assert [row["gaussians"] for row in found["rows"]] == [60, 90]
    for row in found["rows"]:
        assert all(row[f"{job}_ms"] > 0 and row[f"{job}_floor_ms"] > 0 for job in ("render", "step", "score"))
        assert row["statistics_ms"] > 0


def once(function, device, limit, most=50) -> float:
    """In place of repeated measurement."""
    function()
    return 0.001


def test_repeated_measurement_takes_the_median_and_ends():
    calls = []
    seconds = gpu_check.median_seconds(lambda: calls.append(0), torch.device("cpu"), limit=0.01, most=5)
    assert 6 <= len(calls) <= 8 and seconds >= 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_backend_that_is_not_there_is_no_failure(tmp_path):
    record = Record(tmp_path / "found.json")
    gpu_check.time_backend(options(tmp_path, child="speed:gsplat"), record)
    assert "--backend gsplat" in record.found["missing"]


def test_both_kinds_of_round_prune_and_report_their_times(tmp_path, monkeypatch):
    """On the shipped scene, at an eighth of its size and with few of its Gaussians."""
    if not (gpu_check.DEMO / "pretrained").is_dir():
        pytest.skip("the demo's checkpoint is not here")
    load = gpu_check.model_dir.load_checkpoint

    def load_little(folder):
        model, iteration = load(folder)
        return model.select(torch.arange(0, len(model), 50)), iteration

    monkeypatch.setattr(gpu_check, "model_dir", SimpleNamespace(load_checkpoint=load_little))
    record = Record(tmp_path / "found.json")
    gpu_check.compare_schedules(options(tmp_path), record)
    for name in ("plain", "ours", "native"):
        assert record.found[name]["seconds"] > 0 and record.found[name]["test_psnr"] > 5
    assert set(record.found["plain"]["seconds_of"]) == {"score", "evaluate_before", "finetune", "evaluate_after"}
    assert set(record.found["ours"]["seconds_of"]) == {"score", "finetune", "encode", "evaluate"}


def test_parts_that_fail_or_hang_cost_the_others_nothing(tmp_path, monkeypatch, capsys):
    def run(command, limit):
        part, path = command[command.index("--child") + 1], Path(command[command.index("--output") + 1])
        if part == "machine":
            path.write_text(json.dumps({"device": "a GPU", "versions": {"torch": "2"}, "copy_bytes_per_second": 4e12}))
            return None
        if part == "tests":
            return "RuntimeError: CUDA error: an address"
        path.write_text(json.dumps({"backend": "cpu", "size": [64, 48], "rows": []}))
        return "not done after 1 s"

    monkeypatch.setattr(gpu_check, "failure_of", run)
    report = gpu_check.run_all(options(tmp_path, parts=("machine", "tests", "speed")))
    parts = report["parts"]
    assert "failure" not in parts["machine"]
    assert parts["tests"]["failure"] == "RuntimeError: CUDA error: an address"
    assert "not done after" in parts["speed:cpu"]["failure"] and parts["speed:cpu"]["backend"] == "cpu"
    assert json.loads((tmp_path / "report.json").read_text()) == report
    text = (tmp_path / "report.md").read_text()
    assert "No figure here is of a GPU" in text and "tests FAILED: RuntimeError" in text
    assert "tests: 0 s, FAILED" in capsys.readouterr().out


def test_the_last_line_of_a_failed_command_is_its_reason():
    words = "import sys; print('fine'); print('Traceback\\nRuntimeError: no\\n', file=sys.stderr); sys.exit(1)"
    assert gpu_check.failure_of([sys.executable, "-c", words], 60) == "RuntimeError: no"
    assert gpu_check.failure_of([sys.executable, "-c", "print('fine')"], 60) is None


def test_a_command_that_hangs_ends_with_all_it_started(tmp_path):
    note = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {note}; wait"
    assert gpu_check.failure_of(["sh", "-c", script], 1.0) == "not done after 1.0 s"
    status = Path(f"/proc/{note.read_text().strip()}/stat")

    def has_ended() -> bool:
        """Gone, or a zombie that nobody has asked about yet."""
        try:
            return status.read_text().split()[2] == "Z"
        except OSError:
            return True

    # The signal has been sent; a busy machine may take a while to act on it.
    deadline = time.monotonic() + 20.0
    while not has_ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert has_ended()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_ends_at_once_with_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--output", str(tmp_path / "report.json")])
    with pytest.raises(SystemExit) as ended:
        cli.run(gpu_check.main)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == "error: PyTorch sees no CUDA device; try --device cpu to check the harness alone\n"
    assert not printed.out and not list(tmp_path.iterdir())


def test_all_parts_end_within_eight_minutes_once_everything_is_compiled():
    limits = {name: limit for name, (_, limit) in gpu_check.PARTS.items() if name != "prepare"}
    assert sum(limits.values()) + (len(gpu_check.CUDA_BACKENDS) - 1) * limits["speed"] <= 480


def test_a_failed_part_is_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "run_part", lambda name, options: {"part_seconds": 1.0, "failure": "no"})
    arguments = ["--device", "cpu", "--output", str(tmp_path / "report.json"), "--parts", "machine"]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code == 1


def test_an_unknown_part_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="machine, prepare, tests, speed, demo, schedule"):
        gpu_check.run_all(options(tmp_path, parts=("everything",)))


def test_the_whole_report_becomes_a_page():
    row = {"gaussians": 100_000, "in_view": 1.0}
    row |= {f"{job}_{kind}": 1.5 for job in ("render", "step", "score") for kind in ("ms", "floor_ms")}
    journal = {"gaussians": "100", "bytes": "2000000", "psnr": "30.1", "iteration": "9000"}
    report = {
        "device": "cuda",
        "quick": False,
        "parts": {
            "machine": {"device": "X", "versions": {"gsplat": None}, "copy_bytes_per_second": 4e12, "part_seconds": 1},
            "tests": {"passed": 3, "skipped": 1, "failed": [], "part_seconds": 1},
            "speed:gsplat": {"backend": "gsplat", "size": [1600, 1064], "rows": [row], "part_seconds": 1},
            "speed:inria": {"missing": "--backend inria: not installed", "part_seconds": 1},
            "demo": {"first_row": journal, "last_row": journal, "seconds": 90.0, "part_seconds": 1},
            "schedule": {
                "backend": "gsplat",
                "gaussians": 100,
                "iterations": 1000,
                "plain": {"seconds": 5.0, "test_psnr": 30.0},
                "part_seconds": 1,
            },
        },
    }
    page = gpu_check.describe(report)
    assert "GPU check: X" in page and "4000 GB/s" in page and "gsplat: not installed" in page
    assert "1600x1064" in page and "100,000" in page and "speed:inria not run" in page
    assert "2.00 MB" in page and "in 90 s" in page and "plain" in page
    assert "--quick" not in page and "cpu" not in page
