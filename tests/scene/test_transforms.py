"""Proves that Blender's and nerfstudio's JSON becomes the cameras that took the photographs, or is refused.

The axes are worked out on paper. What nerfstudio does to COLMAP's world is done here to a scene that is read both ways.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsz.errors import UserError
from scene.cameras import Camera
from scene.dataset_readers import read_blender, read_colmap, read_dataset
from scene.points import PointCloud, write_points
from tests import synthetic_scenes as scenes


def refused(folder: Path, *said: str, named: str = "", skip: bool = False) -> None:
    """Reading fails with one line that names a file in the folder and contains what is expected."""
    with pytest.raises(UserError) as caught:
        read_dataset(folder, with_points=True, skip_missing=skip)
    message = str(caught.value)
    assert message.startswith(str(folder / named)) and "\n" not in message
    for part in said:
        assert part in message


# --- Blender ---------------------------------------------------------------------------------------------------------


def test_blender_axes(tmp_path: Path) -> None:
    """A camera at (0, 0, 5) with Blender's own axes looks down at the origin: +x is right, +y is up in the picture."""
    matrix = np.eye(4)
    matrix[2, 3] = 5
    write_transforms(tmp_path, {"camera_angle_x": math.pi / 2}, [{"transform_matrix": matrix.tolist()}])
    camera = read_blender(tmp_path).cameras[0]
    assert (camera.fx, camera.fy) == pytest.approx((20.0, 20.0))
    np.testing.assert_allclose(scenes.project(camera, np.zeros(3)), [20, 15])
    np.testing.assert_allclose(scenes.project(camera, np.array([1.0, 0, 0])), [24, 15])
    np.testing.assert_allclose(scenes.project(camera, np.array([0, 1.0, 0])), [20, 11])
    np.testing.assert_allclose(camera.center, [0, 0, 5], atol=1e-12)


def test_blender_splits_and_poses(tmp_path: Path) -> None:
    poses = scenes.write_blender_scene(tmp_path, 5, 2)
    dataset = read_dataset(tmp_path)
    assert dataset.points is None
    # r_0 and r_1 are in both folders, so that every name says its folder.
    assert [camera.name for camera in dataset.cameras] == [f"train_r_{i}" for i in range(5)]
    assert [camera.name for camera in dataset.test_cameras] == ["test_r_0", "test_r_1"]
    for camera, pose in zip(dataset.cameras, poses, strict=True):
        np.testing.assert_allclose(camera.center, pose[:3, 3], atol=1e-12)
        assert camera.fx == pytest.approx(20 / math.tan(math.radians(25)))
        np.testing.assert_allclose(scenes.project(camera, np.zeros(3)), [20, 15], atol=1e-9)


def test_blender_without_test_views(tmp_path: Path) -> None:
    scenes.write_blender_scene(tmp_path, 3, 1)
    (tmp_path / "transforms_test.json").unlink()
    dataset = read_blender(tmp_path)
    assert ([camera.name for camera in dataset.cameras], dataset.test_cameras) == (["r_0", "r_1", "r_2"], [])


def write_transforms(folder: Path, shared: dict, frames: list[dict], suffix: str = ".png") -> None:
    """A scene of 40x30 photographs; frames get a pose and a file_path where they have none."""
    folder.mkdir(exist_ok=True)
    complete = []
    for index, frame in enumerate(frames):
        Image.new("RGB", (40, 30)).save(folder / f"p{index}{suffix}")
        complete.append({"file_path": f"p{index}{suffix}", "transform_matrix": np.eye(4).tolist(), **frame})
    (folder / "transforms_train.json").write_text(json.dumps({**shared, "frames": complete}))


def test_blender_intrinsics_in_pixels(tmp_path: Path) -> None:
    """Given for 80x60 and read at 40x30; what a frame says counts more than what is said for all."""
    shared = {"fl_x": 100, "fl_y": 110, "cx": 41, "cy": 27, "w": 80, "h": 60, "k1": 0.0}
    write_transforms(tmp_path, shared, [{}, {"fl_x": 120, "cx": 44}])
    first, second = read_blender(tmp_path).cameras
    assert (first.fx, first.fy, first.cx, first.cy) == (50, 55, 20.5, 13.5)
    assert (second.fx, second.fy, second.cx, second.cy) == (60, 55, 22, 13.5)


def test_blender_intrinsics_fill_in(tmp_path: Path) -> None:
    write_transforms(tmp_path, {}, [{"fl_x": 50}, {"camera_angle_x": 1.0, "camera_angle_y": 0.7}])
    first, second = read_blender(tmp_path).cameras
    assert (first.fx, first.fy, first.cx, first.cy) == (50, 50, 20, 15)
    assert (second.fx, second.fy) == pytest.approx((20 / math.tan(0.5), 15 / math.tan(0.35)))


@pytest.mark.parametrize("file_path", ["p0", "./p0", "p0.jpg"])
def test_blender_names_without_type(tmp_path: Path, file_path: str) -> None:
    write_transforms(tmp_path, {"camera_angle_x": 1.0}, [{"file_path": file_path}], ".jpg")
    assert read_blender(tmp_path).cameras[0].image_path == tmp_path / "p0.jpg"


@pytest.mark.parametrize(
    ("shared", "frame", "said"),
    [
        ({}, {}, "neither fl_x nor camera_angle_x"),
        ({"camera_angle_x": 4.0}, {}, "neither fl_x nor camera_angle_x"),
        ({"camera_angle_x": "1"}, {}, "camera_angle_x of frame 'p0.png' is not a number"),
        ({"fl_x": float("nan")}, {}, "fl_x of frame 'p0.png' is not a number"),
        ({"fl_x": 10**400}, {}, "fl_x of frame 'p0.png' is not a number"),
        ({"fl_x": -5}, {}, "intrinsics"),
        ({"fl_x": 50, "w": 1e12}, {}, "size"),
        ({"fl_x": 50, "k1": 0.1}, {}, "undistort"),
        ({"fl_x": 50, "camera_model": "OPENCV_FISHEYE"}, {}, "undistort"),
        ({"fl_x": 50}, {"transform_matrix": [[1, 2], [3]]}, "no 4x4 pose"),
        ({"fl_x": 50}, {"transform_matrix": np.zeros((4, 4)).tolist()}, "no 4x4 pose"),
        ({"fl_x": 50}, {"transform_matrix": (2 * np.eye(4)).tolist()}, "no rotation and translation"),
        ({"fl_x": 50}, {"transform_matrix": "eye"}, "no 4x4 pose"),
        ({"fl_x": 50}, {"file_path": 3}, "no file_path"),
        ({"fl_x": 50}, {"file_path": "a\0b"}, "no file_path"),
    ],
)
def test_bad_frames(tmp_path: Path, shared: dict, frame: dict, said: str) -> None:
    write_transforms(tmp_path, shared, [frame])
    refused(tmp_path, said, named="transforms_train.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"frames": {}}', '{"frames": [1]}', "[" * 100_000, "\xff", "{}"])
def test_bad_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "transforms_train.json").write_bytes(text.encode("latin-1"))
    refused(tmp_path, "; export", named="transforms_train.json")


def test_bad_blender_photographs(tmp_path: Path) -> None:
    write_transforms(tmp_path, {"fl_x": 50, "w": 40, "h": 35}, [{}])
    refused(tmp_path, "40x30", "40x35", named="p0.png")
    (tmp_path / "p0.png").unlink()
    refused(tmp_path, "no such photograph", named="p0.png")
    write_transforms(tmp_path, {"fl_x": 50}, [{"file_path": "p0.png"}, {"file_path": "p0.png"}])
    refused(tmp_path, "listed twice")


def test_missing_blender_photographs_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scenes.write_blender_scene(tmp_path, 5, 2)
    for path in ("train/r_1.png", "test/r_0.png"):
        (tmp_path / path).unlink()
    refused(tmp_path, "2 of 7 are missing: ./train/r_1, ./test/r_0)", "--skip_missing", named="train/r_1")
    dataset = read_dataset(tmp_path, skip_missing=True)
    assert [camera.name for camera in dataset.cameras] == [f"train_r_{i}" for i in (0, 2, 3, 4)]
    assert [camera.name for camera in dataset.test_cameras] == ["test_r_1"]
    assert "2 of 7 are missing" in caplog.text


def test_poses_of_three_rows(tmp_path: Path) -> None:
    scenes.write_blender_scene(tmp_path, 4, 2)
    whole = read_blender(tmp_path)
    for name in ("transforms_train.json", "transforms_test.json"):
        document = json.loads((tmp_path / name).read_text())
        for frame in document["frames"]:
            frame["transform_matrix"] = frame["transform_matrix"][:3]
        (tmp_path / name).write_text(json.dumps(document))
    same_cameras(read_blender(tmp_path).cameras, whole.cameras)


@pytest.mark.parametrize("rows", [3, 4])
def test_poses_in_one_list(tmp_path: Path, rows: int) -> None:
    write_transforms(tmp_path, {"fl_x": 50}, [{}])
    whole = read_blender(tmp_path)
    document = json.loads((tmp_path / "transforms_train.json").read_text())
    (frame,) = document["frames"]
    frame["transform_matrix"] = np.ravel(frame["transform_matrix"][:rows]).tolist()
    (tmp_path / "transforms_train.json").write_text(json.dumps(document))
    same_cameras(read_blender(tmp_path).cameras, whole.cameras)


@pytest.mark.parametrize(
    "file_path",
    ["train\\p0.png", ".\\train\\p0", "train\\p0.jpg", "C:\\my scene\\train\\p0.png", "/home/me/scene/train/p0"],
)
def test_backslashes_between_folders(tmp_path: Path, file_path: str) -> None:
    write_transforms(tmp_path / "train", {}, [{}])
    shared = {"fl_x": 50, "frames": [{"file_path": file_path, "transform_matrix": np.eye(4).tolist()}]}
    (tmp_path / "transforms_train.json").write_text(json.dumps(shared))
    assert read_dataset(tmp_path).cameras[0].image_path == tmp_path / "train/p0.png"


def test_points_beside_blenders_cameras(tmp_path: Path) -> None:
    scenes.write_blender_scene(tmp_path, 3, 1)
    assert read_dataset(tmp_path, with_points=True).points is None
    points = PointCloud(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.uint8))
    for name in ("points3d.ply", "points3D.ply"):
        write_points(tmp_path / name, points)
        same_points(read_dataset(tmp_path, with_points=True).points, points)
        assert read_dataset(tmp_path).points is None
        (tmp_path / name).unlink()


# --- nerfstudio and instant-ngp --------------------------------------------------------------------------------------

APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
"""How nerfstudio turns COLMAP's world: y down becomes z up."""


def write_nerfstudio(folder: Path, count: int = 10, applied: np.ndarray | None = APPLIED) -> PointCloud:
    """A COLMAP scene as nerfstudio converts it, with the model that it comes from in ``colmap/sparse/0``; returns the
    points, turned."""
    names = [f"frame_{i + 1:05d}.png" for i in range(count)]
    written = scenes.ColmapScene.ring(names)
    (folder / "colmap/sparse/0").mkdir(parents=True)
    written.write_binary(folder / "colmap/sparse/0")
    scenes.write_photographs(folder / "images", names)
    turn = np.eye(4)
    turn[:3] = np.eye(4)[:3] if applied is None else applied
    frames = [
        {
            "file_path": f"images/{name}",
            "transform_matrix": (turn @ np.linalg.inv(pose) @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist(),
            "colmap_im_id": index,
        }
        for index, (name, pose) in enumerate(written.poses.items())
    ]
    document = {
        **{
            "w": scenes.WIDTH,
            "h": scenes.HEIGHT,
            "fl_x": scenes.FX,
            "fl_y": scenes.FY,
            "cx": scenes.CX,
            "cy": scenes.CY,
        },
        **{"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "camera_model": "OPENCV", "frames": frames},
        "ply_file_path": "sparse_pc.ply",
    }
    if applied is not None:
        document["applied_transform"] = applied.tolist()
    (folder / "transforms.json").write_text(json.dumps(document))
    positions = written.positions @ turn[:3, :3].T + turn[:3, 3]
    return PointCloud(positions.astype(np.float32), written.colors.astype(np.uint8))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same_cameras(one: list[Camera], other: list[Camera]) -> None:
    assert [camera.name for camera in one] == [camera.name for camera in other] and one
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_allclose(mine.world_to_camera, yours.world_to_camera, atol=1e-12)
        for name in ("width", "height", "fx", "fy", "cx", "cy", "image_path"):
            assert getattr(mine, name) == getattr(yours, name)


def same_points(read: PointCloud | None, expected: PointCloud) -> None:
    assert read is not None
    np.testing.assert_allclose(read.positions, expected.positions, atol=1e-6)
    np.testing.assert_array_equal(read.colors, expected.colors)


def test_nerfstudio_sees_what_colmap_saw(tmp_path: Path) -> None:
    """The points are turned as the cameras are, so that each is seen at the pixel where COLMAP's cameras see it."""
    expected = write_nerfstudio(tmp_path)
    dataset = read_dataset(tmp_path, with_points=True)
    same_points(dataset.points, expected)
    assert dataset.points is not None and not dataset.test_cameras
    (tmp_path / "sparse").symlink_to(tmp_path / "colmap/sparse")
    colmap = read_colmap(tmp_path, with_points=True)
    assert colmap.points is not None
    for camera, original in zip(dataset.cameras, colmap.cameras, strict=True):
        assert (camera.name, camera.image_path) == (original.name, original.image_path)
        for turned, position in zip(dataset.points.positions, colmap.points.positions, strict=True):
            np.testing.assert_allclose(scenes.project(camera, turned), scenes.project(original, position), atol=1e-4)


def test_nerfstudio_without_a_turn(tmp_path: Path) -> None:
    expected = write_nerfstudio(tmp_path, applied=None)
    same_points(read_dataset(tmp_path, with_points=True).points, expected)


def test_points_that_nerfstudio_names(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    points = PointCloud(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.uint8))
    write_points(tmp_path / "sparse_pc.ply", points)
    same_points(read_dataset(tmp_path, with_points=True).points, points)
    change_shared(tmp_path, {})
    (tmp_path / "sparse").mkdir()  # Empty, as some leave it; it makes no scene of COLMAP.
    same_points(read_dataset(tmp_path, with_points=True).points, points)
    (tmp_path / "sparse_pc.ply").rename(tmp_path / "other.ply")
    change_shared(tmp_path, {"ply_file_path": ".\\other.ply"})
    same_points(read_dataset(tmp_path, with_points=True).points, points)


def change_shared(folder: Path, changes: dict) -> None:
    document = json.loads((folder / "transforms.json").read_text())
    document.pop("ply_file_path", None)
    (folder / "transforms.json").write_text(json.dumps({**document, **changes}))


def test_a_turn_that_was_not_applied(tmp_path: Path) -> None:
    """Some tools write where the world was to be turned, and leave the poses as they are."""
    expected = write_nerfstudio(tmp_path, applied=None)
    edit(tmp_path / "transforms.json", applied_transform=APPLIED.tolist())
    same_points(read_dataset(tmp_path, with_points=True).points, expected)


@pytest.mark.parametrize("changes", [{"applied_transform": None}, {"applied_transform": np.eye(4).tolist()}])
def test_points_of_another_world_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict) -> None:
    """instant-ngp moves the cameras without saying how."""
    write_nerfstudio(tmp_path)
    edit(tmp_path / "transforms.json", **changes)
    assert read_dataset(tmp_path, with_points=True).points is None
    assert "its cameras are not where transforms.json has them" in caplog.text


def test_a_model_without_points_leaves_them_random(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    (tmp_path / "colmap/sparse/0/points3D.bin").unlink()
    assert read_dataset(tmp_path, with_points=True).points is None
    write_nerfstudio(tmp_path / "none")
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"none/colmap/sparse/0/{name}.bin").unlink()
    assert read_dataset(tmp_path / "none", with_points=True).points is None


def test_intrinsics_of_every_frame(tmp_path: Path) -> None:
    """As nerfstudio writes them for several cameras, and instant-ngp by an angle."""
    write_nerfstudio(tmp_path, 2)
    path = tmp_path / "transforms.json"
    first, second = json.loads(path.read_text())["frames"]
    own = {"fl_x": 70.0, "fl_y": 71.0, "cx": 40.0, "cy": 30.0, "w": 80, "h": 60, "k1": 0.0, "camera_model": "PINHOLE"}
    path.write_text(json.dumps({"camera_angle_x": 1.0, "frames": [first, {**second, **own}]}))
    one, other = read_dataset(tmp_path).cameras
    assert (one.fx, one.fy) == pytest.approx((40 / math.tan(0.5),) * 2)
    assert (other.fx, other.fy, other.cx, other.cy) == (70.0, 71.0, 40.0, 30.0)


def test_transforms_of_windows_with_three_rows(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    plain = read_dataset(tmp_path)
    path = tmp_path / "transforms.json"
    frames = json.loads(path.read_text())["frames"]
    for frame in frames:
        frame["file_path"] = frame["file_path"].replace("/", "\\")
        frame["transform_matrix"] = frame["transform_matrix"][:3]
    edit(path, frames=frames)
    same_cameras(read_dataset(tmp_path).cameras, plain.cameras)


@pytest.mark.parametrize(
    "changes",
    [
        {"camera_model": "OPENCV_FISHEYE"},
        {"camera_model": "EQUIRECTANGULAR"},
        {"is_fisheye": True},
        {"k3": 0.01},
        {"p2": -0.01},
    ],
)
def test_lenses_that_bend_are_refused(tmp_path: Path, changes: dict) -> None:
    write_nerfstudio(tmp_path)
    edit(tmp_path / "transforms.json", **changes)
    refused(tmp_path, "has lens distortion", "undistort", named="transforms.json")


def test_an_applied_transform_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path)
    edit(tmp_path / "transforms.json", applied_transform=[[1, 2], [3]])
    refused(tmp_path, "applied_transform is no 3x4 transform", named="transforms.json")
