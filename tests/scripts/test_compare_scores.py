"""Proves that the comparison of scores measures what it says, goes on where it stopped, and mixes no settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsz.errors import UserError
from scripts import compare_scores


def compare(tiny: tuple[Path, Path], results: Path, *extra: str) -> list[dict]:
    source, checkpoint = tiny
    arguments = [
        "-s",
        str(source),
        "--pretrained_dir",
        str(checkpoint),
        "--json",
        str(results),
        "--pruned",
        "0.5",
        "0.8",
    ]
    compare_scores.main([*arguments, "--prune_fraction", "0.3", "--round_iterations", "2", *extra])
    return json.loads(results.read_text())["rows"]


def test_scores_are_compared_at_equal_counts_and_only_once(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    results, plot = tmp_path / "scores.json", tmp_path / "scores.png"
    first = compare(tiny, results, "--scores", "removal_error")
    assert [row["gaussians"] for row in first] == [150, 75, 30, 75, 30]
    # Two rounds of at most 30 % reach a half; three more reach a fifth.
    assert [row["iterations"] for row in first] == [0, 0, 0, 4, 10]
    assert all(row["test"]["psnr"] < first[0]["test"]["psnr"] for row in first[1:3])

    monkeypatch.setitem(compare_scores.importance.SCORES, "removal_error", lambda *_: pytest.fail("computed again"))
    both = compare(tiny, results, "--scores", "removal_error", "random", "--plot", str(plot))
    assert both[:5] == first and [row["score"] for row in both[5:]] == ["random"] * 4
    for important, arbitrary in zip(both[1:5], both[5:], strict=True):
        assert important["test"]["psnr"] > arbitrary["test"]["psnr"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "| removal_error" in capsys.readouterr().out


def test_results_of_other_settings_are_not_mixed(tiny: tuple[Path, Path], tmp_path: Path):
    results = tmp_path / "scores.json"
    compare(tiny, results, "--scores", "random")
    with pytest.raises(UserError, match=r"other settings \(seed\)"):
        compare(tiny, results, "--scores", "random", "--seed", "1")
    results.write_text("[]")
    with pytest.raises(UserError, match="not a file of results"):
        compare(tiny, results, "--scores", "random")
