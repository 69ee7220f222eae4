"""Proves that the comparison of fronts measures the runs' own files, and interpolates sizes at equal quality."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from gsz import registry
from gsz.errors import UserError
from scripts import compare_fronts
from scripts.compare_fronts import Point, at_quality
from tests.tiny_run import write_tiny_scene


def test_every_file_of_the_runs_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    source, checkpoint = write_tiny_scene(tmp_path)
    runs = [tmp_path / "lzma", tmp_path / "gsz"]
    for run in runs:
        arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(run), "--eval"]
        arguments += ["--first_iterations", "2", "--round_iterations", "2", "--final_iterations", "2"]
        arguments += ["--max_rounds", "2", "--max_psnr_drop", "inf", "--max_ssim_drop", "inf", "--codec", run.name]
        train.train(train.parse(arguments))
    results, plot = tmp_path / "fronts.json", tmp_path / "fronts.png"
    command = [*map(str, runs), "--json", str(results), "--plot", str(plot)]
    compare_fronts.main(command)
    points = compare_fronts.measure(runs, results, None)
    assert [point.is_final for point in points] == [False, False, False, True] * 2
    assert [point.bytes for point in points] == [
        file.stat().st_size for run in runs for file in compare_fronts.files_of(run)
    ]
    assert points[3].gaussians == len(registry.read(runs[0] / "compressed.gslzma"))
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "| lzma" in capsys.readouterr().out

    monkeypatch.setattr(compare_fronts, "test_views", lambda _: pytest.fail("measured again"))
    compare_fronts.main(command)


def test_sizes_are_interpolated_between_the_files_around_a_quality():
    points = [
        Point("run", "front/1", 400, 4000, 30.0, 0.9),
        Point("run", "front/2", 200, 2500, 27.0, 0.9),  # Larger and worse than the next: not of the front.
        Point("run", "front/3", 100, 1000, 28.0, 0.9),
    ]
    assert at_quality(points, 29.0) == pytest.approx((2000.0, 200.0))
    assert at_quality(points, 30.0) == pytest.approx((4000.0, 400.0))
    assert at_quality(points, 27.5) is None and at_quality(points, 30.5) is None


def test_a_folder_without_a_run_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no|no point_cloud|no finished run"):
        compare_fronts.measure([tmp_path], tmp_path / "fronts.json", None)
