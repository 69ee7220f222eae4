"""Proves ``scripts/bench_codecs.py``: the JSON file has what was measured, the table says the same, and with a scene
the quality on its test views is that of the decoded file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from scripts import bench_codecs
from tests.helpers import random_model
from tests.tiny_run import write_tiny_scene


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_codecs.py", *map(str, arguments)])
    bench_codecs.main()


def test_codecs_are_measured_on_a_model_and_its_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, checkpoint = write_tiny_scene(tmp_path)
    model = checkpoint / "point_cloud" / "iteration_7000" / "point_cloud.ply"
    chosen = ["ply", "lzma", "spz:version=2", "spz"]
    results = tmp_path / "codecs.json"
    bench(monkeypatch, model, "--codecs", *chosen, "-s", source, "--no-peers", "--json", results)

    entry = json.loads(results.read_text())["models"][str(model)]
    assert (entry["count"], entry["sh_degree"], list(entry["codecs"])) == (150, 3, chosen)
    for measured in entry["codecs"].values():
        assert measured["law_holds"] is True
        assert measured["bytes_per_gaussian"] == pytest.approx(measured["bytes"] / 150)
        assert 0.5 < sum(measured["by_attribute"].values()) / measured["bytes"] <= 1
        assert measured["max_error"]["opacities"] >= measured["mean_error"]["opacities"] >= 0
    assert entry["codecs"]["ply"]["test_psnr"] == entry["test_psnr"]
    assert set(entry["codecs"]["ply"]["max_error"].values()) == {0.0}
    assert entry["codecs"]["spz"]["test_psnr"] < entry["test_psnr"]

    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| codec", "| ply", "| lzma", "| spz:version=2", "| spz"]
    assert rows[1][2] == f"{model.stat().st_size / 150:.2f}"


def test_scaling_replicates_a_model_and_measures_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, checkpoint = write_tiny_scene(tmp_path)
    model = checkpoint / "point_cloud" / "iteration_7000" / "point_cloud.ply"
    results = tmp_path / "scaling.json"
    in_this_process = lambda function, *arguments: function(*arguments)  # noqa: E731
    monkeypatch.setattr(bench_codecs, "_alone", in_this_process)
    peaks = iter(range(0, 1 << 40, 1 << 20))  # This process has had its peak long ago.
    monkeypatch.setattr(bench_codecs, "_peak_bytes", lambda: next(peaks))
    bench(monkeypatch, model, "--scaling", "--counts", "400", "1000", "--codecs", "gsz", "--json", results)

    measured = json.loads(results.read_text())["models"][str(model)]["gsz"]
    assert {count: entry["count"] for count, entry in measured.items()} == {"400": 400, "1000": 1000}
    assert measured["1000"]["model_bytes"] == 1000 * 4 * 59
    assert all(entry["encode_s"] > 0 and entry["decode_s"] > 0 for entry in measured.values())
    assert measured["400"]["decode_peak_bytes"] == measured["400"]["encode_peak_bytes"] == 1 << 20
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| gsz ")]
    assert [row[1].strip() for row in rows] == ["400", "1,000"]


def test_replicated_models_keep_what_decides_their_size() -> None:
    splats = random_model(50, sh_degree=2)
    splats.sh_rest[::2] = 0
    copies = bench_codecs.replicated(splats, 120)
    assert len(copies) == 120
    assert torch.equal(copies.sh_rest != 0, splats.sh_rest[torch.arange(120) % 50] != 0)
    assert len(torch.unique(copies.means, dim=0)) == 120
    assert not torch.equal(copies.log_scales[:50], copies.log_scales[50:100])
