"""Proves that recipes are compared at equal cost, and that the coarser models of a file are measured as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import compare_recipes
from tests.tiny_run import write_tiny_scene


def test_recipes_keep_the_same_count_in_the_same_iterations(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, checkpoint = write_tiny_scene(tmp_path, 1200)
    results = tmp_path / "recipes.json"
    arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "--json", str(results)]
    arguments += ["--iterations", "12", "--keep_ratio", "0.5", "--recipes", "progressive", "elmgs"]
    compare_recipes.main(arguments)
    written = results.read_text()
    progressive, elmgs = json.loads(written)["rows"]
    assert (
        (progressive["gaussians"], progressive["iterations"]) == (elmgs["gaussians"], elmgs["iterations"]) == (600, 12)
    )
    counts = [cut["gaussians"] for cut in progressive["cuts"]]
    assert counts == [300] and 0 < progressive["cuts"][0]["bytes"] < progressive["bytes"]
    assert not elmgs["cuts"]
    table = capsys.readouterr().out
    assert table.count("| progressive, cut") == 1

    compare_recipes.main(arguments)
    assert results.read_text() == written
