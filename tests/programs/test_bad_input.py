"""Proves that bad input gets one line that names the file and the remedy, exit code 2, no traceback, and no output.

Every case of the design's list is tried through the command-line tool that a user would meet it in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

import gsz
import render
import train
from gsz import registry
from programs import training
from programs.options import PretrainOptions
from scene import model_dir
from scene.gaussian_model import GaussianModel
from tests.tiny_run import tiny_splats
from utils import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def damaged(tiny: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the scene and the checkpoint, to be spoilt."""
    shutil.copytree(tiny[0], tmp_path / "scene")
    shutil.copytree(tiny[1], tmp_path / "trained")
    return tmp_path / "scene", tmp_path / "trained"


def complaint(main: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a tool that must fail; returns its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: main() and None)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error
    return lines[0]


def compress_complaint(scene: Path, trained: Path, capsys: pytest.CaptureFixture[str], *extra: str) -> str:
    """The complaint of ``train.py``, which must leave no compressed file."""
    out = trained.parent / "out"
    arguments = ["-s", str(scene), "--pretrained_dir", str(trained), "-m", str(out), "--eval", *extra]
    line = complaint(lambda: train.train(train.parse(arguments)), capsys)
    assert not list(out.glob("compressed*")) and not list(out.rglob("*.ply"))
    return line


def checkpoint(trained: Path) -> Path:
    return model_dir.checkpoint_path(trained, 7000)


def rewrite_vertices(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    vertices = PlyData.read(str(path), mmap=False)["vertex"].data
    PlyData([PlyElement.describe(change(vertices), "vertex")]).write(str(path))


# --- Missing ---------------------------------------------------------------------------------------------------------


def test_missing_scene(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    line = compress_complaint(damaged[0] / "nowhere", damaged[1], capsys)
    assert "nowhere" in line


def test_missing_checkpoint(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    assert "nowhere" in compress_complaint(damaged[0], damaged[1] / "nowhere", capsys)
    line = compress_complaint(damaged[0], damaged[1], capsys, "--iteration", "123")
    assert "iteration_123" in line


def test_no_checkpoint_or_two(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    line = compress_complaint(damaged[0], damaged[1], capsys, "--pretrained_ply", str(checkpoint(damaged[1])))
    assert "one of the two" in line


def test_missing_photograph(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    (damaged[0] / "images" / "view_005.png").unlink()
    assert "view_005" in compress_complaint(*damaged, capsys)


def test_missing_compressed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = complaint(lambda: gsz.convert(tmp_path / "no.gslzma", tmp_path / "out.ply"), capsys)
    assert "no.gslzma" in line
    assert not (tmp_path / "out.ply").exists()


def test_missing_model_to_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert str(tmp_path) in complaint(lambda: render.main(["-m", str(tmp_path)]), capsys)


# --- The scene -------------------------------------------------------------------------------------------------------


def test_empty_scene(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(damaged[0])
    damaged[0].mkdir()
    assert str(damaged[0]) in compress_complaint(*damaged, capsys)


def test_photograph_that_does_not_open(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    (damaged[0] / "images" / "view_004.png").write_bytes(b"not a picture")
    assert "view_004.png" in compress_complaint(*damaged, capsys)


def test_photograph_cut_short(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    for path in (damaged[0] / "images").glob("*.png"):
        path.write_bytes(path.read_bytes()[:-200])
    assert ".png" in compress_complaint(*damaged, capsys)


def test_photograph_whose_size_contradicts_the_camera(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    Image.new("RGB", (80, 33)).save(damaged[0] / "images" / "view_004.png")
    line = compress_complaint(*damaged, capsys)
    assert "view_004.png" in line and "33" in line


def test_distorted_cameras(tmp_path: Path, tiny: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    from tests.synthetic_scenes import write_colmap_scene

    write_colmap_scene(tmp_path / "scene", 24, model="OPENCV")
    shutil.copytree(tiny[1], tmp_path / "trained")
    line = compress_complaint(tmp_path / "scene", tmp_path / "trained", capsys)
    assert "image_undistorter" in line


def test_pretraining_an_empty_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "scene").mkdir()
    options = PretrainOptions(model_path=tmp_path / "out")
    options.scene.source_path = tmp_path / "scene"
    assert "scene" in complaint(lambda: training.run(options), capsys)
    assert not list((tmp_path / "out").rglob("*.ply"))


# --- The checkpoint --------------------------------------------------------------------------------------------------


def test_property_missing(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    def drop(vertices: np.ndarray) -> np.ndarray:
        names = [name for name in vertices.dtype.names or () if name != "scale_1"]
        return np.ascontiguousarray(vertices[names]).astype([(name, "f4") for name in names])

    rewrite_vertices(checkpoint(damaged[1]), drop)
    line = compress_complaint(*damaged, capsys)
    assert "scale_1" in line and "point_cloud.ply" in line


def test_property_of_the_wrong_type(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    path = checkpoint(damaged[1])
    path.write_bytes(path.read_bytes().replace(b"property float scale_1", b"property list uchar float scale_1", 1))
    assert "point_cloud.ply" in compress_complaint(*damaged, capsys)


def test_checkpoint_cut_short(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    path = checkpoint(damaged[1])
    path.write_bytes(path.read_bytes()[:-100])
    assert "point_cloud.ply" in compress_complaint(*damaged, capsys)


def test_checkpoint_with_an_absurd_count(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    path = checkpoint(damaged[1])
    path.write_bytes(path.read_bytes().replace(b"element vertex 150", b"element vertex 99999999999", 1))
    assert "point_cloud.ply" in compress_complaint(*damaged, capsys)


def test_checkpoint_without_a_usable_gaussian(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    """Broken Gaussians are dropped, as ``tests/gsz/test_cleaning.py`` proves; here all of them are."""

    def spoil(vertices: np.ndarray) -> np.ndarray:
        vertices["opacity"] = np.nan
        return vertices

    rewrite_vertices(checkpoint(damaged[1]), spoil)
    line = compress_complaint(*damaged, capsys)
    assert "opacity_logits of 150" in line and "point_cloud.ply" in line


def test_checkpoint_of_another_sh_degree(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    line = compress_complaint(*damaged, capsys, "--sh_degree", "1")
    assert "point_cloud.ply" in line and "sh_degree" in line


def test_checkpoint_of_no_gaussians(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    GaussianModel.empty().save_ply(checkpoint(damaged[1]))
    assert "nothing to compress" in compress_complaint(*damaged, capsys)


# --- Compressed files ------------------------------------------------------------------------------------------------


def compressed_files() -> list[str]:
    return [name for name in registry.names(writable_only=True) if name != "ply"]


UNCHECKED = ("ply", "glb")
"""Formats without a checksum: a flipped byte of theirs is another value."""


@pytest.mark.parametrize("name", compressed_files())
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_compressed_file_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str):
    if damage == "flipped" and name in UNCHECKED:
        pytest.skip("the format has no checksum")
    codec = registry.get(name)
    path = tmp_path / f"model{codec.suffix}"
    data = bytearray(registry.write(path, tiny_splats(60), codec))
    if damage == "cut":
        data = data[: len(data) // 3]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray()
    path.write_bytes(data)
    line = complaint(lambda: gsz.convert(path, tmp_path / "out.ply"), capsys)
    assert path.name in line
    assert not (tmp_path / "out.ply").exists()


def test_compressed_file_of_an_unknown_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    codec = registry.get("lzma")
    path = tmp_path / "model.gslzma"
    data = bytearray(registry.write(path, tiny_splats(60), codec))
    data[8] = 200  # The version follows the magic of eight bytes.
    path.write_bytes(data)
    line = complaint(lambda: gsz.convert(path, tmp_path / "out.ply"), capsys)
    assert "version" in line


def test_file_of_an_unknown_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "model.docx"
    path.write_bytes(b"PK\x03\x04 nothing of ours")
    assert "model.docx" in complaint(lambda: gsz.convert(path, tmp_path / "out.ply"), capsys)


# --- The output ------------------------------------------------------------------------------------------------------


def test_output_that_cannot_be_written(damaged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    blocker = damaged[0].parent / "file"
    blocker.write_text("in the way")
    arguments = ["-s", str(damaged[0]), "--pretrained_dir", str(damaged[1]), "-m", str(blocker / "out"), "--eval"]
    assert "file" in complaint(lambda: train.train(train.parse(arguments)), capsys)
    assert blocker.read_text() == "in the way"


def test_a_failed_conversion_leaves_the_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out.ply").write_bytes(b"old")
    (tmp_path / "bad.gslzma").write_bytes(b"GSLZMA nonsense")
    complaint(lambda: gsz.convert(tmp_path / "bad.gslzma", tmp_path / "out.ply"), capsys)
    assert (tmp_path / "out.ply").read_bytes() == b"old"


# --- As a process ----------------------------------------------------------------------------------------------------


def test_a_real_process_prints_one_line_and_exits_with_2(tmp_path: Path):
    command = [sys.executable, str(ROOT / "decompress.py"), str(tmp_path / "none.ply"), str(tmp_path / "out.ply")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
