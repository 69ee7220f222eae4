"""Proves that the points of a PLY are written as INRIA's program does, and read from what it and others write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from gsz.errors import UserError
from scene.gaussian_model import GaussianModel
from scene.points import PointCloud, read_points, write_points


@pytest.mark.parametrize("count", [0, 5])
def test_points_round_trip(tmp_path: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    positions = generator.normal(size=(count, 3)).astype(np.float32)
    points = PointCloud(positions, generator.integers(0, 256, (count, 3)).astype(np.uint8))
    write_points(tmp_path / "input.ply", points)
    read = read_points(tmp_path / "input.ply")
    np.testing.assert_array_equal(read.positions, points.positions)
    np.testing.assert_array_equal(read.colors, points.colors)
    assert (read.positions.dtype, read.colors.dtype) == (np.float32, np.uint8)
    layout = [(prop.name, prop.val_dtype) for prop in PlyData.read(str(tmp_path / "input.ply"))["vertex"].properties]
    assert layout == [(n, "f4") for n in ("x", "y", "z", "nx", "ny", "nz")] + [
        (n, "u1") for n in ("red", "green", "blue")
    ]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(("kind", "red"), [("u1", 255), ("f4", 1.0), ("f4", 255.0)])
def test_points_of_other_programs(tmp_path: Path, text: bool, kind: str, red: float) -> None:
    """Doubles, other properties between them, and colors of either range."""
    layout = [("red", kind), ("x", "f8"), ("y", "f8"), ("quality", "f4"), ("z", "f8"), ("green", kind), ("blue", kind)]
    rows = np.array([(red, 1.5, 2.5, 9, 3.5, 0, red)], layout)
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(tmp_path / "a.ply"))
    points = read_points(tmp_path / "a.ply")
    np.testing.assert_array_equal(points.positions, [[1.5, 2.5, 3.5]])
    np.testing.assert_array_equal(points.colors, [[255, 0, 255]])


def test_bad_points(tmp_path: Path) -> None:
    path = tmp_path / "input.ply"

    def refused(said: str) -> None:
        with pytest.raises(UserError) as caught:
            read_points(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and said in message and "\n" not in message

    refused("check the path")
    write_points(path, PointCloud(np.full((2, 3), np.nan, np.float32), np.zeros((2, 3), np.uint8)))
    refused("NaN")
    path.write_bytes(path.read_bytes()[:-1])
    refused("truncated")
    GaussianModel.empty().save_ply(path)
    refused("lacks the properties red, green, blue")
