"""Proves levels of detail: every level's parts together are its Gaussians, each part lies in its bounds and is a SOG
that is read; a layered .gsz gives a level for each layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gsz
from gsz.conversion import convert
from gsz.errors import UserError
from gsz.sog import SogCodec
from gsz.sog.streamed import write_levels
from tests.helpers import random_model


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] if "lods" in node else [leaf for child in node["children"] for leaf in leaves(child)]


def test_parts_together_are_the_levels_and_lie_in_their_bounds(tmp_path: Path):
    model = random_model(500, sh_degree=1).numpy()
    levels = [model, model.select(slice(0, 200)), model.select(slice(0, 3))]
    written = write_levels(tmp_path / "lod-meta.json", levels, SogCodec(), part=100)
    assert written == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    meta = json.loads((tmp_path / "lod-meta.json").read_text())
    assert (meta["counts"], meta["lodLevels"], meta["count"]) == ([500, 200, 3], 3, 500)
    parts = leaves(meta["tree"])
    assert len(parts) == 8
    seen = [0, 0, 0]
    for part in parts:
        for level, entry in part["lods"].items():
            splats = gsz.read(tmp_path / meta["filenames"][entry["file"]])
            assert len(splats) == entry["count"]
            seen[int(level)] += len(splats)
            low, high = (np.array(part["bound"][end]) - 1e-3 * sign for end, sign in (("min", 1), ("max", -1)))
            assert ((splats.means >= low) & (splats.means <= high)).all()
    assert seen == meta["counts"]


def test_a_file_in_layers_becomes_as_many_levels(tmp_path: Path):
    gsz.write(tmp_path / "model.gsz", random_model(3000, sh_degree=0).numpy(), "gsz:layers=3")
    written = convert(tmp_path / "model.gsz", tmp_path / "levels" / "lod-meta.json")
    counts = json.loads(written.path.read_text())["counts"]
    assert len(counts) == 3 and counts == sorted(counts, reverse=True)
    assert written.count == counts[0] == 3000


def test_levels_are_sog_of_at_least_one_gaussian(tmp_path: Path):
    gsz.write(tmp_path / "model.ply", random_model(10).numpy())
    with pytest.raises(UserError, match="leave --codec out"):
        convert(tmp_path / "model.ply", tmp_path / "lod-meta.json", "spz")
    with pytest.raises(UserError, match="no Gaussians"):
        write_levels(tmp_path / "lod-meta.json", [random_model(0).numpy()], SogCodec())
