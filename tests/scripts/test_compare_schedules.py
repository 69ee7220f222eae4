"""Proves that the compared schedules are equal in iterations and counts, and that none is run twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.recipe import Recipe
from programs import compression
from scripts import compare_schedules
from tests.tiny_run import write_tiny_scene


@pytest.mark.parametrize("name", compare_schedules.VARIANTS)
def test_every_variant_spends_the_same_iterations_on_the_same_count(name: str):
    recipe = compare_schedules.VARIANTS[name].recipe(Recipe(), 3000, 0.25)
    count, rounds = 40_000, 0
    while count > 10_000:
        count -= recipe.budget(40_000).to_drop(recipe.prune_fraction, count, 0)
        rounds += 1
    assert count == 10_000 and rounds <= recipe.max_rounds
    assert recipe.first_iterations + rounds * recipe.round_iterations + recipe.final_iterations == 3000


def test_runs_are_measured_on_test_views_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    source, checkpoint = write_tiny_scene(tmp_path)
    results = tmp_path / "schedules.json"
    arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "--json", str(results)]
    arguments += ["--iterations", "12", "--keep_ratio", "0.5", "--prune_fraction", "0.3"]
    compare_schedules.main([*arguments, "--variants", "baseline"])
    (first,) = json.loads(results.read_text())["rows"]
    assert (first["gaussians"], first["iterations"]) == (75, 12)
    assert first["test"]["psnr"] != first["validation"]["psnr"]

    done: list[str] = []
    run = compression.run
    monkeypatch.setattr(compression, "run", lambda options: (done.append("run"), run(options))[1])
    compare_schedules.main([*arguments, "--variants", "baseline", "40 % a round"])
    rows = json.loads(results.read_text())["rows"]
    assert done == ["run"] and rows[0] == first and rows[1]["gaussians"] == 75
    assert "| 40 % a round" in capsys.readouterr().out
