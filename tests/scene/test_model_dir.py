"""Proves that INRIA's model directory is written as others read it and read as others write it, and never evaluated."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsz.errors import UserError
from scene import model_dir
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions, options_of_model
from tests import synthetic_scenes as scenes


def some_model(count: int = 4) -> GaussianModel:
    torch.manual_seed(0)
    shapes = ((3,), (3,), (4,), (1,), (1, 3), (8, 3))
    return GaussianModel(*(torch.randn(count, *shape) for shape in shapes))


def ring(count: int = 3, cx: float = 40.0) -> list[Camera]:
    poses = scenes.ring_poses(count)
    return [Camera(f"v{i}", 80, 60, 90.0, 95.0, cx, 30.0, pose) for i, pose in enumerate(poses)]


def refused(function, *arguments: object, said: str, named: Path) -> None:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.startswith(str(named)) and said in message and "\n" not in message


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    model = some_model()
    path = model_dir.save_checkpoint(tmp_path, 7000, model)
    assert path == tmp_path / "point_cloud" / "iteration_7000" / "point_cloud.ply"
    read, iteration = model_dir.load_checkpoint(tmp_path)
    assert iteration == 7000
    for (_, expected), (_, actual) in zip(model.named_parameters(), read.named_parameters(), strict=True):
        assert torch.equal(expected, actual)


def test_latest_is_the_highest_number_with_a_model(tmp_path: Path) -> None:
    for iteration, count in ((7000, 2), (30000, 3)):
        model_dir.save_checkpoint(tmp_path, iteration, some_model(count))
    for folder in ("iteration_40000", "iteration_x", "iteration_99999_old"):
        (tmp_path / "point_cloud" / folder).mkdir()
    assert model_dir.latest_iteration(tmp_path) == 30000
    assert len(model_dir.load_checkpoint(tmp_path)[0]) == 3
    assert len(model_dir.load_checkpoint(tmp_path, 7000)[0]) == 2


def test_missing_checkpoints(tmp_path: Path) -> None:
    refused(model_dir.load_checkpoint, tmp_path / "none", said="no such folder", named=tmp_path / "none")
    refused(model_dir.load_checkpoint, tmp_path, said="holds no point_cloud/iteration_*", named=tmp_path)
    path = model_dir.save_checkpoint(tmp_path, 7, some_model())
    refused(model_dir.load_checkpoint, tmp_path, 8, said="check the path", named=model_dir.checkpoint_path(tmp_path, 8))
    refused(model_dir.load_checkpoint, tmp_path, 7, 3, said="--sh_degree 2", named=path)


# --- cameras.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cx", [40.0, 37.25])
def test_cameras_round_trip(tmp_path: Path, cx: float) -> None:
    cameras = ring(cx=cx)
    model_dir.write_cameras(tmp_path, cameras)
    for expected, actual in zip(cameras, model_dir.read_cameras(tmp_path), strict=True):
        np.testing.assert_allclose(actual.world_to_camera, expected.world_to_camera, atol=1e-12)
        for field in ("name", "width", "height", "fx", "fy", "cx", "cy", "image_path"):
            assert getattr(actual, field) == getattr(expected, field)


def test_cameras_as_inria_writes_them(tmp_path: Path) -> None:
    """The camera at (1, 2, 3) whose x, y and z axes are the world's z, y and -x: those are the columns of rotation."""
    rotation = [[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    entry = {"id": 0, "img_name": "a", "width": 80, "height": 60, "position": [1, 2, 3], "rotation": rotation}
    (tmp_path / "cameras.json").write_text(json.dumps([{**entry, "fy": 95.0, "fx": 90.0}]))
    (camera,) = model_dir.read_cameras(tmp_path)
    np.testing.assert_allclose(camera.center, [1, 2, 3])
    # Four in front (-x), one to the right (+z) and two below (+y) of the camera.
    np.testing.assert_allclose(scenes.project(camera, np.array([-3, 4, 4])), [90 / 4 + 40, 95 * 2 / 4 + 30])
    model_dir.write_cameras(tmp_path, [camera])
    (written,) = json.loads((tmp_path / "cameras.json").read_text())
    assert list(written) == ["id", "img_name", "width", "height", "position", "rotation", "fy", "fx"]
    assert written == {**entry, "fy": 95.0, "fx": 90.0}


def test_camera_names_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    write_entry(tmp_path, img_name="../../etc/a")
    (camera,) = model_dir.read_cameras(tmp_path)
    assert "/" not in camera.name


def write_entry(folder: Path, **changes: object) -> None:
    entry = {"img_name": "a", "width": 80, "height": 60, "position": [0, 0, 0], "rotation": np.eye(3).tolist()}
    (folder / "cameras.json").write_text(json.dumps([{**entry, "fx": 90, "fy": 95, **changes}]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"img_name": 3}, "img_name 3"),
        ({"img_name": ".."}, "img_name"),
        ({"img_name": "a\u001b[2J"}, "img_name"),
        ({"width": "80"}, "width = 80"),
        ({"width": 80.5}, "size"),
        ({"width": -80}, "size"),
        ({"width": 10**8}, "size"),
        ({"height": 10**400}, "height = 1000"),
        ({"height": True}, "height = True"),
        ({"fx": 0}, "intrinsics"),
        ({"fx": float("nan")}, "fx = nan"),
        ({"fy": None}, "fy = None"),
        ({"cx": float("inf")}, "cx = inf"),
        ({"position": [0, 0]}, "3x3 rotation or a position"),
        ({"position": [0, 0, "a"]}, "3x3 rotation or a position"),
        ({"position": [0, 0, 10**400]}, "3x3 rotation or a position"),
        ({"position": [0, 0, float("nan")]}, "no rotation and translation"),
        ({"rotation": [[1, 0], [0, 1]]}, "3x3 rotation or a position"),
        ({"rotation": {"a": 1}}, "3x3 rotation or a position"),
        ({"rotation": (2 * np.eye(3)).tolist()}, "no rotation and translation"),
        ({"rotation": np.diag([1, 1, -1]).tolist()}, "no rotation and translation"),
    ],
)
def test_entries_that_are_not_cameras_are_refused(tmp_path: Path, changes: dict, said: str) -> None:
    write_entry(tmp_path, **changes)
    refused(model_dir.read_cameras, tmp_path, said=said, named=tmp_path / "cameras.json")


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[[]]", "[" * 50_000, "nonsense"])
def test_bad_camera_files(tmp_path: Path, text: str) -> None:
    refused(model_dir.read_cameras, tmp_path, said="check the path", named=tmp_path / "cameras.json")
    (tmp_path / "cameras.json").write_text(text)
    refused(model_dir.read_cameras, tmp_path, said="again", named=tmp_path / "cameras.json")


# --- cfg_args --------------------------------------------------------------------------------------------------------


def test_options_round_trip(tmp_path: Path) -> None:
    options = {"source_path": Path("data/it's"), "eval": True, "resolution": -1, "white_background": False, "x": None}
    model_dir.write_options(tmp_path, options)
    assert model_dir.read_options(tmp_path) == {**options, "source_path": str(Path("data/it's"))}
    # INRIA's scripts evaluate the text; it must mean the same to them.
    evaluated = eval((tmp_path / "cfg_args").read_text(), {"Namespace": argparse.Namespace})
    assert vars(evaluated) == model_dir.read_options(tmp_path)


def test_options_as_inria_writes_them(tmp_path: Path) -> None:
    text = "Namespace(data_device='cuda', eval=True, images='images_4', model_path='o', resolution=-1, sh_degree=3)"
    (tmp_path / "cfg_args").write_text(text)
    options = model_dir.read_options(tmp_path)
    assert (options["images"], options["resolution"], options["eval"]) == ("images_4", -1, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Namespace(",
        "dict(a=1)",
        "{'a': 1}",
        "Namespace(1)",
        "Namespace(**a)",
        "open('touched', 'w')",
        "Namespace(a=1); import os",
        "[Namespace(a=1)][0]",
        "Namespace(a=" + "(" * 5000 + ")" * 5000 + ")",
        "Namespace(a='" + "x" * 100_000 + "')",
        "Namespace(a='\x00')",
    ],
)
def test_options_are_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg_args").write_text(text)
    refused(model_dir.read_options, tmp_path, said="copy it again", named=tmp_path / "cfg_args")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("value", ["open('touched', 'w')", "__import__('os').system('touch touched')", "(lambda: 1)()"])
@pytest.mark.parametrize("wrapped", ["{}", "PosixPath({})", "Path('a', {})", "[{}]"])
def test_values_are_passed_over_and_never_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, wrapped: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg_args").write_text(f"Namespace(eval=True, a={wrapped.format(value)}, b=c)")
    assert model_dir.read_options(tmp_path) == {"eval": True}
    assert "the values of a, b are not plain" in caplog.text
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("path", ["PosixPath('/data/my x')", "pathlib.WindowsPath('/data/my x')", "Path('/data/my x')"])
def test_paths_of_forks_are_strings(tmp_path: Path, path: str) -> None:
    (tmp_path / "cfg_args").write_text(f"Namespace(source_path={path}, white_background=True)")
    assert model_dir.read_options(tmp_path) == {"source_path": "/data/my x", "white_background": True}
    assert options_of_model(tmp_path) == SceneOptions(Path("/data/my x"), white_background=True)


@pytest.mark.parametrize(
    "text",
    [
        "argparse.Namespace(white_background=True)",
        "\ufeffNamespace(white_background=True)",
        "Namespace(mode=<Mode.FAST: 3>, model=<torch.Model object at 0x7f00>, white_background=True)",
        "Namespace(**{'white_background': True})",
    ],
)
def test_namespaces_of_forks(tmp_path: Path, text: str) -> None:
    (tmp_path / "cfg_args").write_text(text, encoding="utf-8")
    assert model_dir.read_options(tmp_path) == {"white_background": True}


def test_options_in_json(tmp_path: Path) -> None:
    (tmp_path / "cfg_args").write_text(json.dumps({"source_path": "/data/x", "eval": True, "depths": None}, indent=1))
    assert model_dir.read_options(tmp_path) == {"source_path": "/data/x", "eval": True, "depths": None}
    (tmp_path / "cfg_args").write_text('{"a": 1')
    refused(model_dir.read_options, tmp_path, said="copy it again", named=tmp_path / "cfg_args")


def test_damaged_options_are_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert model_dir.find_options(tmp_path) == {} and caplog.text == ""
    (tmp_path / "cfg_args").write_text("Namespace(")
    assert model_dir.find_options(tmp_path) == {}
    assert "going on without it" in caplog.text and caplog.records[0].levelname == "WARNING"
    assert options_of_model(tmp_path) == SceneOptions()


def test_missing_options(tmp_path: Path) -> None:
    refused(model_dir.read_options, tmp_path, said="check the path", named=tmp_path / "cfg_args")
    (tmp_path / "cfg_args").write_bytes(b"\xff\xfe")
    refused(model_dir.read_options, tmp_path, said="copy it again", named=tmp_path / "cfg_args")
