"""Proves that any format becomes the scene tensors FlashGS makes of the same PLY, and what the example does with
and without FlashGS' extension.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from tests.synthetic_scenes import ring_poses
from tests.tiny_run import tiny_splats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import flashgs_example

from gsz import registry
from scene import model_dir
from scene.cameras import Camera
from scene.flashgs import FlashGSScene
from scene.gaussian_model import GaussianModel
from utils import cli


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_tensors_are_those_of_the_ply_to_the_bit(tmp_path, degree):
    path = tmp_path / "model.ply"
    tiny_splats(40, sh_degree=degree).save_ply(path)
    scene = FlashGSScene.of(GaussianModel.of(registry.read(path)))
    rows = PlyData.read(path)["vertex"]
    column = {name: np.asarray(rows[name]) for name in rows.data.dtype.names}

    assert np.array_equal(scene.position, np.stack([column[axis] for axis in "xyz"], 1))
    assert scene.shs.shape == (40, 48) and scene.shs.is_contiguous()
    shs = scene.shs.numpy()
    per_channel = (degree + 1) ** 2 - 1
    for channel in range(3):
        assert np.array_equal(shs[:, channel], column[f"f_dc_{channel}"])
        for j in range(1, 16):
            stored = column[f"f_rest_{channel * per_channel + j - 1}"] if j <= per_channel else np.zeros(40)
            assert np.array_equal(shs[:, 3 * j + channel], stored)
    np.testing.assert_allclose(scene.opacity, 1 / (1 + np.exp(-column["opacity"].astype(np.float64))), rtol=1e-6)
    assert scene.opacity.shape == (40,)
    assert all(getattr(scene, name).dtype == torch.float32 for name in ("position", "shs", "opacity", "cov3d"))


def test_covariances_are_those_that_scipy_rotates():
    splats = tiny_splats(50)
    wxyz = splats.quaternions.double().numpy()
    rotation = Rotation.from_quat(wxyz[:, [1, 2, 3, 0]]).as_matrix()
    variances = np.exp(2 * splats.log_scales.double().numpy())
    expected = rotation @ (variances[:, :, None] * rotation.transpose(0, 2, 1))
    triangle = np.stack([expected[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1)
    scale = variances.max(1, keepdims=True)
    assert np.abs(FlashGSScene.of(splats).cov3d.numpy() - triangle).max() < 2e-6 * scale.max()
    assert (np.abs(FlashGSScene.of(splats).cov3d.numpy() - triangle) / scale).max() < 2e-6


@pytest.mark.parametrize("name", ["fast3dgs", "gsz", "spz"])
def test_every_format_becomes_the_tensors_of_its_own_ply(tmp_path, name):
    if name not in registry.names(writable_only=True):
        pytest.skip(f"no codec {name}")
    codec = registry.get(name)
    compressed, ply = tmp_path / f"model{codec.suffix}", tmp_path / "model.ply"
    registry.write(compressed, tiny_splats(30), codec)
    GaussianModel.of(registry.read(compressed)).save_ply(ply)
    ours, theirs = (FlashGSScene.of(GaussianModel.of(registry.read(path))) for path in (compressed, ply))
    for tensor in ("position", "shs", "opacity", "cov3d"):
        assert torch.equal(getattr(ours, tensor), getattr(theirs, tensor)), tensor


def cameras(count: int = 2, cx: float = 20.0) -> list[Camera]:
    return [Camera(f"view_{i}", 40, 30, 50.0, 52.0, cx, 15.0, pose) for i, pose in enumerate(ring_poses(count))]


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    model_dir.save_checkpoint(tmp_path, 7000, tiny_splats(30))
    model_dir.write_cameras(tmp_path, cameras())
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["flashgs_example.py", *map(str, arguments)])
    flashgs_example.main()


def test_without_the_extension_the_tensors_are_described_and_one_line_says_what_is_missing(
    model_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_gaussian_splatting", None)
    run(monkeypatch, "-m", model_path)
    lines = capsys.readouterr().out.splitlines()
    assert "30 Gaussians; 2 cameras" in lines[0]
    assert lines[2] == "shs: (30, 48) float32, 0.0 MB"
    assert lines[-1].startswith("nothing is rendered: ") and "setup.py install" in lines[-1]
    assert not (model_path / "flashgs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line_says_so(model_path, monkeypatch, capsys):
    run(monkeypatch, "-m", model_path)
    assert "no CUDA device" in capsys.readouterr().out.splitlines()[-1]


def test_a_model_of_no_gaussians_is_refused(model_path, monkeypatch, capsys):
    empty = model_path / "empty.ply"
    tiny_splats(3).select(torch.zeros(0, dtype=torch.long)).save_ply(empty)
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: run(monkeypatch, "-m", model_path, "--model", empty))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {empty}: holds no Gaussians")


class RecordingOps:
    """FlashGS' operations as far as their arguments go: checks shapes, and draws each view in one grey."""

    def __init__(self, arguments: int) -> None:
        self.arguments = arguments
        self.poses: list[tuple[torch.Tensor, torch.Tensor]] = []
        documentation = ", ".join(f"arg{i}" for i in range(arguments))

        def preprocess(*given):
            assert len(given) == self.arguments
            position, shs, opacity, cov3d, width, height, tile_x, tile_y, eye, rotation, fx, fy, far, near = given[:14]
            assert [tuple(t.shape) for t in (position, shs, opacity, cov3d)] == [(30, 3), (30, 48), (30,), (30, 6)]
            assert (width, height, tile_x, tile_y, fx, fy, far, near) == (40, 30, 32, 16, 50.0, 52.0, 100.0, 0.01)
            self.poses.append((eye, rotation))
            given[-1].fill_(7)

        preprocess.__doc__ = f"preprocess({documentation}) -> None"
        self.preprocess = preprocess

    def get_sort_buffer_size(self, pairs: int) -> int:
        return 8 * pairs

    def sort_gaussian(self, pairs, width, height, tile_x, tile_y, space, *keys_and_values):
        assert (pairs, len(keys_and_values)) == (7, 4) and space.dtype == torch.int8

    def render_32x16(self, pairs, width, height, *buffers):
        image = buffers[-1]
        assert image.shape == (height, width, 3) and image.dtype == torch.uint8
        image.fill_(100)


@pytest.mark.parametrize("arguments", [20, 21])
def test_the_extension_is_given_the_scene_and_the_cameras(arguments):
    ops = RecordingOps(arguments)
    flashgs = flashgs_example.FlashGS(ops, FlashGSScene.of(tiny_splats(30)), max_pairs=100)
    for camera in cameras():
        image = flashgs.render(camera)
        assert bool((image == 100).all())
    for camera, (eye, rotation) in zip(cameras(), ops.poses, strict=True):
        # A point a unit in front of the camera.
        ahead = eye + rotation @ torch.tensor([0.0, 0.0, 1.0])
        in_camera = camera.world_to_camera @ np.append(ahead.numpy(), 1)
        np.testing.assert_allclose(in_camera[:3], [0, 0, 1], atol=1e-5)


def test_too_many_pairs_are_an_error_with_a_remedy():
    flashgs = flashgs_example.FlashGS(RecordingOps(20), FlashGSScene.of(tiny_splats(30)), max_pairs=7)
    with pytest.raises(flashgs_example.UserError, match="--max_pairs 14"):
        flashgs.render(cameras()[0])


def test_views_are_written_and_an_off_centre_principal_point_is_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setitem(sys.modules, "flash_gaussian_splatting", ModuleType("flash_gaussian_splatting"))
    flashgs = SimpleNamespace(render=lambda camera: torch.full((30, 40, 3), 9, dtype=torch.uint8))
    flashgs_example.render_cameras(flashgs, cameras(cx=23.5), tmp_path / "flashgs", repeats=1)
    assert sorted(path.name for path in (tmp_path / "flashgs").iterdir()) == ["view_0.png", "view_1.png"]
    assert "3.5 pixels" in capsys.readouterr().err
