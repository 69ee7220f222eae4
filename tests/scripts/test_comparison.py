"""Proves that the before/after picture shows the pixels it claims to show, and the table the right ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsz.errors import UserError
from quality.summary import ModelSummary, ViewMetrics
from scripts import comparison


def bright(value: float, height: int = 60, width: int = 80) -> torch.Tensor:
    return torch.full((height, width, 3), value)


def panel(picture: np.ndarray, number: int, height: int = 60, width: int = 80) -> np.ndarray:
    left = number * (width + 4)
    return picture[-height:, left : left + width]


def test_shows_the_four_pictures_in_order(tmp_path):
    original = bright(0.4)
    original[10:20, 10:20] = 0.5
    comparison.write_comparison(tmp_path / "out.png", original, bright(0.42), bright(0.8))
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    assert picture.shape[1] == 4 * 80 + 3 * 4
    assert (panel(picture, 0) == 204).all()
    assert panel(picture, 1)[15, 15, 0] == 128
    assert (panel(picture, 2) == 107).all()
    difference = panel(picture, 3)
    assert difference[0, 0, 0] == pytest.approx(255 * 10 * 0.02, abs=1)
    assert difference[15, 15, 0] == pytest.approx(255 * 10 * 0.08, abs=1)
    labels = picture[:-60]
    for number in range(4):
        assert (labels[:, number * 84 : number * 84 + 80] < 128).any(), "every panel has a label in dark ink"


def test_without_photograph(tmp_path):
    comparison.write_comparison(tmp_path / "out.png", bright(0.2), bright(0.9))
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    assert picture.shape[1] == 3 * 80 + 2 * 4
    assert (panel(picture, 2) == 255).all(), "the difference saturates at white"


def test_pictures_must_be_of_one_size():
    with pytest.raises(ValueError, match="second"):
        comparison.comparison_picture([("first", bright(0.1)), ("second", bright(0.1, 30, 80))])


BEFORE = ModelSummary(ViewMetrics(28.91, 0.9012, 0.153), 102_332, 25_380_000)
AFTER = ModelSummary(ViewMetrics(28.86, 0.8991, 0.16), 40_100, 1_269_000)


def test_the_table_shows_before_and_after():
    lines = comparison.before_after_table(BEFORE, AFTER).splitlines()
    assert lines[2].split() == ["original", "28.91", "0.9012", "0.1530", "102,332", "25.38", "1.0x"]
    assert lines[3].split() == ["compressed", "28.86", "0.8991", "0.1600", "40,100", "1.27", "20.0x"]
    markdown = comparison.before_after_table(BEFORE, AFTER, "markdown").splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in markdown)


def test_table_of_unknown_sizes():
    unknown = ModelSummary(ViewMetrics(28.0, 0.9))
    assert comparison.before_after_table(unknown, unknown).splitlines()[3].split()[-4:] == ["n/a"] * 4


def write_views(model_dir: Path, values: list[float], size: tuple[int, int] = (80, 60)) -> None:
    for name in ("renders", "gt"):
        folder = model_dir / "test/ours_5" / name
        folder.mkdir(parents=True)
        for index, value in enumerate(values):
            Image.new("RGB", size, (round(255 * value),) * 3).save(folder / f"{index:05d}.png")


def test_command_line(tmp_path, capsys):
    write_views(tmp_path / "before", [0.2, 0.4])
    write_views(tmp_path / "after", [0.2, 0.6])
    folders = [str(tmp_path / "before"), str(tmp_path / "after")]
    comparison.main([*folders, "--view", "1", "-o", str(tmp_path / "picture.png")])
    picture = np.asarray(Image.open(tmp_path / "picture.png"))
    assert [panel(picture, number)[0, 0, 0] for number in range(4)] == [102, 102, 153, 255]
    assert "wrote" in capsys.readouterr().out

    with pytest.raises(UserError, match="no test view 2; choose --view 0 to 1"):
        comparison.main([*folders, "--view", "2", "-o", str(tmp_path / "other.png")])
    assert not (tmp_path / "other.png").exists()

    write_views(tmp_path / "small", [0.2, 0.6], (40, 30))
    with pytest.raises(UserError, match="same -r"):
        comparison.main([folders[0], str(tmp_path / "small"), "-o", str(tmp_path / "other.png")])
