"""Proves that every cut of a variant's file is measured, from the rounds of a finished run, and none is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import train
from gsz.errors import UserError
from scripts import compare_prefixes
from tests.tiny_run import write_tiny_scene


def finished(folder: Path, *extra: str) -> Path:
    source, checkpoint = write_tiny_scene(folder, 1800)
    given = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(folder / "run"), "--eval", "--no_report"]
    iterations = {"first": 1, "round": 1, "final": 2}
    given += [word for name, number in iterations.items() for word in (f"--{name}_iterations", str(number))]
    given += ["--prune_fraction", "0.4", "--max_rounds", "1", "--max_psnr_drop", "inf", "--max_ssim_drop", "inf"]
    train.train(train.parse([*given, *extra]))
    return folder / "run"


def test_cuts_are_measured_from_the_last_round_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, results = finished(tmp_path), tmp_path / "prefixes.json"
    arguments = ["-m", str(run), "--json", str(results), "--variants", "progressive"]
    compare_prefixes.main(arguments)
    rows = json.loads(results.read_text())["rows"]
    assert [row["gaussians"] for row in rows] == [270, 540, 1080]
    assert [row["bytes"] for row in rows] == sorted(row["bytes"] for row in rows)
    assert all(row["test"]["psnr"] != row["training"]["psnr"] for row in rows)
    plot = tmp_path / "prefixes.png"
    compare_prefixes.main([*arguments, "untrained, by removal error", "25 % alone", "--plot", str(plot)])
    assert plot.read_bytes().startswith(b"\x89PNG")
    *before, _, _, whole, alone = json.loads(results.read_text())["rows"]
    assert before == rows and whole["gaussians"] == 1080 and alone["gaussians"] == 270
    assert "| 25 % alone" in capsys.readouterr().out
    other = tmp_path / "other.json"
    shorter = ["-m", str(run), "--json", str(other), "--variants", "whole, one layer", "--final_iterations", "1"]
    compare_prefixes.main([*shorter, "--beside", str(results)])
    listed = capsys.readouterr().out
    assert "| 25 % alone" in listed and "| whole, one layer" in listed
    assert len(json.loads(other.read_text())["rows"]) == 1, "what is listed along is not kept twice"
    other.write_text("[]")
    with pytest.raises(UserError, match=r"other\.json: is not a file of results"):
        compare_prefixes.main([*arguments, "--beside", str(other)])
    with pytest.raises(UserError, match="--variants half: there is none of that name"):
        compare_prefixes.main(["-m", str(run), "--variants", "half"])


def test_a_run_that_was_progressive_itself_is_compared_with_one_that_is_not(tmp_path: Path):
    run, results = finished(tmp_path, "--progressive", "--codec", "gsz:layers=2"), tmp_path / "prefixes.json"
    compare_prefixes.main(["-m", str(run), "--json", str(results), "--variants", "whole, one layer", "progressive"])
    assert [row["gaussians"] for row in json.loads(results.read_text())["rows"]] == [1080, 270, 540, 1080]
