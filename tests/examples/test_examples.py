"""Proves that every program of ``examples/`` runs as its first lines say, and does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gsz
from scene import model_dir
from scene.cameras import Camera
from tests.synthetic_scenes import ring_poses
from tests.tiny_run import tiny_splats


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.ply"
    gsz.write(path, tiny_splats(200))
    return path


def run(root: Path, *words: str | Path) -> str:
    """What a command line prints that is run in the repository's folder, with the package on the path."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_here(root: Path):
    tested = Path(__file__).read_text()
    assert [path.stem for path in (root / "examples").glob("*.py") if path.stem not in tested] == []


def test_a_model_is_written_in_every_format(root: Path, model: Path):
    said = run(root, "examples/convert.py", model)
    for suffix in (".gsz", ".spz", ".sog"):
        written = model.with_suffix(suffix)
        assert len(gsz.read(written)) == 200
        assert f"{written}: {written.stat().st_size:,} bytes, 200 Gaussians" in said


def test_a_model_is_read_and_its_opaque_part_kept(root: Path, model: Path, tmp_path: Path):
    said = run(root, "examples/read_in_python.py", model, tmp_path / "opaque.ply")
    whole, kept = gsz.read(model), gsz.read(tmp_path / "opaque.ply")
    np.testing.assert_array_equal(kept.means, whole.means[whole.opacity_logits[:, 0] > 0])
    assert f"200 Gaussians of SH degree 3 around {np.median(whole.means, axis=0)}" in said


def test_a_view_is_rendered(root: Path, model: Path, tmp_path: Path):
    cameras = [Camera(f"view {n}", 80, 60, 90.0, 95.0, 37.0, 33.5, pose) for n, pose in enumerate(ring_poses(2))]
    model_dir.write_cameras(tmp_path, cameras)
    said = run(root, "-m", "examples.render_one_view", model, tmp_path / "cameras.json", "1", tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (60, 80, 3)
    assert pixels.std() > 10
    assert "80x60 pixels from camera view 1, by " in said
