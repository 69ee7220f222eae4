"""Proves that formats are compared on the same Gaussians from the same beginning, and that no run is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from programs import compression
from scripts import compare_grids
from tests.tiny_run import write_tiny_scene


def test_all_formats_begin_with_the_same_pruned_model_and_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    source, checkpoint = write_tiny_scene(tmp_path)
    results, folder = tmp_path / "grids.json", tmp_path / "pruned"
    arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "--json", str(results), "-m", str(folder)]
    arguments += ["--iterations", "4", "--pruning_iterations", "2", "--keep_ratio", "0.5"]
    begun: list[Path | None] = []
    run = compression.run
    monkeypatch.setattr(compression, "run", lambda options: (begun.append(options.pretrained_ply), run(options))[1])
    compare_grids.main([*arguments, "--formats", "ply"])
    assert begun == [None, folder / "compressed.ply"]

    compare_grids.main([*arguments, "--formats", "ply", "gsz"])
    assert begun[2:] == [folder / "compressed.ply"]
    in_float, in_gsz = json.loads(results.read_text())["rows"]
    assert in_float["gaussians"] == in_gsz["gaussians"] == 75 and in_gsz["bytes"] < in_float["bytes"]
    assert in_float["test"] != in_gsz["test"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| gsz")
