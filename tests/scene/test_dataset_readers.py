"""Proves that COLMAP and Blender scenes become the cameras that took the photographs, and that bad ones are refused.

The cameras are checked by where they project known 3D points: against COLMAP's own observations, against a scene
written by hand, and against Blender's axes worked out on paper.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsz.errors import UserError
from scene.cameras import Camera, sizes_agree
from scene.colmap import LENSES, model_suffix, read_model, read_model_points
from scene.dataset_readers import read_blender, read_colmap, read_dataset
from scene.photographs import unique_view_names
from scene.points import PointCloud
from tests import synthetic_scenes as scenes

DEMO = Path(__file__).parents[2] / "demo" / "snowmiku"
WRITTEN_BY_COLMAP = Path(__file__).parents[1] / "colmap_files"

HAND_CAMERAS = "# by hand\n7 PINHOLE 200 100 50 60 110 40\n"
# The first image is turned by a quarter about y. The second has no observations, so its second line is empty.
HAND_IMAGES = f"""# by hand
3 {math.sqrt(0.5)} 0 {math.sqrt(0.5)} 0 1 2 3 7 north/b.png
60.0 100.0 11
9 1 0 0 0 0 0 5 7 a.png

"""
HAND_POINTS = "# by hand\n11 -1 0.5 -2 255 128 0 0.25 3 0\n12 0 0 0 1 2 3 0.5\n"


def write_by_hand(folder: Path, below: str = "sparse/0") -> None:
    sparse = folder / below
    sparse.mkdir(parents=True)
    (sparse / "cameras.txt").write_text(HAND_CAMERAS)
    (sparse / "images.txt").write_text(HAND_IMAGES)
    (sparse / "points3D.txt").write_text(HAND_POINTS)
    scenes.write_photographs(folder / "images", ["a.png", "north/b.png"], (200, 100))


def by_name(cameras: list[Camera]) -> dict[str, Camera]:
    return {camera.name: camera for camera in cameras}


# --- COLMAP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("model", ["PINHOLE", "SIMPLE_PINHOLE"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_projects_where_colmap_saw_the_points(tmp_path: Path, text: bool, model: str, scale: float) -> None:
    written = scenes.write_colmap_scene(tmp_path, 6, model, text)
    size = (round(scenes.WIDTH * scale), round(scenes.HEIGHT * scale))
    scenes.write_photographs(tmp_path / "images_small", scenes.view_names(6), size)
    dataset = read_colmap(tmp_path, "images_small")
    assert len(dataset.cameras) == 6 and not dataset.test_cameras
    for name, pose in written.poses.items():
        camera = by_name(dataset.cameras)[Path(name).stem]
        assert (camera.width, camera.height) == size
        assert camera.image_path == tmp_path / "images_small" / name
        np.testing.assert_allclose(camera.world_to_camera, pose, atol=1e-12)
        for position, pixel in zip(written.positions, written.seen[name], strict=True):
            np.testing.assert_allclose(scenes.project(camera, position), pixel * scale, atol=1e-6)


def test_intrinsics_follow_each_axis_of_the_photograph(tmp_path: Path) -> None:
    """80x60 read at 27x20: rounding makes the two factors differ, and each is applied to its own axis."""
    scenes.write_colmap_scene(tmp_path, 3)
    scenes.write_photographs(tmp_path / "images_3", scenes.view_names(3), (27, 20))
    camera = read_colmap(tmp_path, "images_3").cameras[0]
    expected = (scenes.FX * 27 / 80, scenes.FY * 20 / 60, scenes.CX * 27 / 80, scenes.CY * 20 / 60)
    np.testing.assert_allclose((camera.fx, camera.fy, camera.cx, camera.cy), expected)


def test_points_keep_their_colours(tmp_path: Path) -> None:
    written = scenes.write_colmap_scene(tmp_path, 3)
    points = read_colmap(tmp_path, with_points=True).points
    assert points is not None
    assert points.positions.dtype == np.float32 and points.colors.dtype == np.uint8
    np.testing.assert_allclose(points.positions, written.positions, rtol=1e-6)
    np.testing.assert_array_equal(points.colors, written.colors)
    assert read_colmap(tmp_path).points is None


@pytest.mark.parametrize("below", ["sparse/0", "sparse"])
def test_reads_what_is_written_by_hand(tmp_path: Path, below: str) -> None:
    write_by_hand(tmp_path, below)
    dataset = read_dataset(tmp_path, with_points=True)
    cameras = by_name(dataset.cameras)
    assert set(cameras) == {"a", "b"}
    assert dataset.points is not None and len(dataset.points) == 2
    np.testing.assert_array_equal(dataset.points.colors, [[255, 128, 0], [1, 2, 3]])
    # R (x, y, z) = (z, y, -x) for a quarter turn about y: (-1, 0.5, -2) -> (-2, 0.5, 1) -> + t = (-1, 2.5, 4),
    # and the pixel is (50 * -1/4 + 110, 60 * 2.5/4 + 40).
    np.testing.assert_allclose(scenes.project(cameras["b"], np.array([-1, 0.5, -2])), [97.5, 77.5])
    np.testing.assert_allclose(scenes.project(cameras["a"], np.zeros(3)), [110, 40])
    np.testing.assert_allclose(cameras["a"].center, [0, 0, -5])


def test_binary_and_text_agree(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path / "binary", 4)
    scenes.write_colmap_scene(tmp_path / "text", 4, text=True)
    binary, text = read_colmap(tmp_path / "binary"), read_colmap(tmp_path / "text")
    for name, camera in by_name(binary.cameras).items():
        np.testing.assert_allclose(camera.world_to_camera, by_name(text.cameras)[name].world_to_camera, atol=1e-12)


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_reads_what_colmap_writes(suffix: str) -> None:
    """All of its camera models, and a rig, whose images have poses of their own all the same."""
    assert model_suffix(WRITTEN_BY_COLMAP) == ".bin"
    expected = json.loads((WRITTEN_BY_COLMAP / "expected.json").read_text())
    model = read_model(WRITTEN_BY_COLMAP, suffix)
    assert {camera.lens.name for camera in model.cameras.values()} == {lens.name for lens in LENSES.values()}
    for camera_id, camera in model.cameras.items():
        values = {"model": camera.lens.name, "width": camera.width, "height": camera.height}
        assert {**values, "params": list(camera.parameters)} == expected["cameras"][str(camera_id)]
    assert {image.name for image in model.images} == set(expected["images"])
    for image in model.images:
        assert image.camera_id == expected["images"][image.name]["camera_id"]
        np.testing.assert_array_equal(image.world_to_camera[:3], expected["images"][image.name]["cam_from_world"])


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_reads_the_points_that_colmap_writes(tmp_path: Path, suffix: str) -> None:
    shutil.copy(WRITTEN_BY_COLMAP / f"points3D{suffix}", tmp_path)
    points, path = read_model_points(tmp_path)
    assert path == tmp_path / f"points3D{suffix}"
    expected = json.loads((WRITTEN_BY_COLMAP / "expected.json").read_text())["points"]
    np.testing.assert_array_equal(points.positions, np.array([row[:3] for row in expected], np.float32))
    np.testing.assert_array_equal(points.colors, [row[3:] for row in expected])


def test_rigs_and_frames_are_not_needed(tmp_path: Path) -> None:
    """They say nothing that the images do not say, and COLMAP before 3.12 wrote none."""
    scenes.write_colmap_scene(tmp_path, 3)
    for name in ("rigs.bin", "frames.bin"):
        (tmp_path / "sparse/0" / name).write_bytes(b"half a f")
    assert len(read_colmap(tmp_path).cameras) == 3


def test_photographs_may_have_another_type(tmp_path: Path) -> None:
    names = [f"left/v{i}.JPG" for i in range(3)]
    scenes.write_colmap_scene(tmp_path, 3, names=names)
    scenes.write_photographs(tmp_path / "images_png", [f"left/v{i}.png" for i in range(3)])
    paths = [camera.image_path for camera in read_colmap(tmp_path, "images_png").cameras]
    assert sorted(map(str, paths)) == [str(tmp_path / f"images_png/left/v{i}.png") for i in range(3)]
    # The exact name wins over the same name with another type.
    scenes.write_photographs(tmp_path / "images_png", names)
    paths = [camera.image_path for camera in read_colmap(tmp_path, "images_png").cameras]
    assert sorted(map(str, paths)) == [str(tmp_path / f"images_png/left/v{i}.JPG") for i in range(3)]


def test_ambiguous_types_are_refused(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 2)
    folder = tmp_path / "images_x"
    scenes.write_photographs(folder, ["view_000.jpg", "view_000.bmp", "view_001.png"])
    refused(tmp_path, "view_000.bmp, view_000.jpg could all stand for it", images="images_x")


def test_names_that_would_collide_keep_their_folder(tmp_path: Path) -> None:
    names = ["left/0.png", "right/0.png", "right/1.png"]
    scenes.write_colmap_scene(tmp_path, 3, names=names)
    assert set(by_name(read_colmap(tmp_path).cameras)) == {"left_0", "right_0", "right_1"}


def test_view_names() -> None:
    source = Path("model")
    assert unique_view_names(["a/x.jpg", "y.0001", "z.tar.png"], source) == {
        "a/x.jpg": "x",
        "y.0001": "y.0001",
        "z.tar.png": "z.tar",
    }
    for names, said in (
        (["a.png", "a.png"], "listed twice"),
        (["a.png", "a.jpg"], "share the name 'a'"),
        (["../.."], "not the name of a photograph"),
        ([""], "not the name of a photograph"),
        (["a\nb.png"], "not the name of a photograph"),
    ):
        with pytest.raises(UserError, match=said):
            unique_view_names(names, source)


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo scene is not in this checkout")
def test_the_demo_scene() -> None:
    dataset = read_colmap(DEMO, "images_400", with_points=True)
    assert len(dataset.cameras) == 97 and dataset.points is not None and len(dataset.points) == 25784
    assert {(camera.width, camera.height) for camera in dataset.cameras} == {(400, 300)}
    assert dataset.cameras[0].fx == pytest.approx(1324.675376645595 / 4)
    # The points have their colors where the cameras see them, some hidden behind others: less so in other photographs.
    photographs = [camera.image_path for camera in dataset.cameras]
    own, others = (
        np.mean([color_error(*pair, dataset.points) for pair in zip(dataset.cameras[::10], paths, strict=True)])
        for paths in (photographs[::10], photographs[::-10])
    )
    assert own < 0.65 * others


def color_error(camera: Camera, photograph: Path | None, points: PointCloud) -> float:
    """Median difference of the points' colors from the photograph's where the camera has them in its image."""
    seen = points.positions @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    x, y = (seen[:, :2] / seen[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)).T
    inside = (seen[:, 2] > 0) & (x > 0) & (x < camera.width) & (y > 0) & (y < camera.height)
    assert photograph is not None
    pixels = np.asarray(Image.open(photograph), np.int16)[y[inside].astype(int), x[inside].astype(int)]
    return float(np.median(np.abs(pixels - points.colors[inside]).max(1)))


# --- Bad COLMAP scenes -----------------------------------------------------------------------------------------------


def refused(
    folder: Path, *said: str, images: str = "images", named: str = "", with_points: bool = True, skip: bool = False
) -> None:
    """Reading fails with one line that names a file in the folder and contains what is expected."""
    with pytest.raises(UserError) as caught:
        read_dataset(folder, images, with_points=with_points, skip_missing=skip)
    message = str(caught.value)
    assert message.startswith(str(folder / named)) and "\n" not in message
    for part in said:
        assert part in message


def test_no_scene(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder", "-s")
    refused(tmp_path, "neither sparse/ (COLMAP) nor transforms_train.json")
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    refused(tmp_path, "no COLMAP model")


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_incomplete_model(tmp_path: Path, text: bool, name: str) -> None:
    scenes.write_colmap_scene(tmp_path, 2, text=text)
    missing = f"{name}.{'txt' if text else 'bin'}"
    (tmp_path / "sparse/0" / missing).unlink()
    refused(tmp_path, f"lacks {missing}")


@pytest.mark.parametrize("text", [False, True])
def test_distortion(tmp_path: Path, text: bool) -> None:
    scenes.write_colmap_scene(tmp_path, 2, "OPENCV", text)
    refused(tmp_path, "is OPENCV", "colmap image_undistorter --image_path", str(tmp_path / "sparse/0"))


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("damage", ["empty", "cut", "count"])
def test_damaged_binaries(tmp_path: Path, name: str, damage: str) -> None:
    scenes.write_colmap_scene(tmp_path, 2)
    path = tmp_path / "sparse/0" / f"{name}.bin"
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[:-1], "count": struct.pack("<Q", 2**60) + data[8:]}[damage])
    refused(tmp_path, "truncated or damaged", named=f"sparse/0/{name}.bin")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cameras", "1 PINHOLE 80"),
        ("cameras", "1"),
        ("cameras", "1 FISH 80 60 1"),
        ("cameras", "1 PINHOLE 80 60 x 50 40 30"),
        ("cameras", "1 PINHOLE 80 60 50 50 40 30 0.1"),
        ("images", "1 x"),
        ("images", "1 1 0 0 0 0 0 zero 1 a.png"),
        ("points3D", "1 0 0 0 255 255"),
        ("points3D", "1 0 0 0 255 255 256 0.5"),
        ("points3D", "1 0 0 y 255 255 255 0.5"),
    ],
)
def test_damaged_text(tmp_path: Path, name: str, line: str) -> None:
    scenes.write_colmap_scene(tmp_path, 2, text=True)
    (tmp_path / "sparse/0" / f"{name}.txt").write_text(f"# by hand\n{line}\n")
    refused(tmp_path, "line 2 is damaged", named=f"sparse/0/{name}.txt")


def test_text_that_is_none(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 2, text=True)
    (tmp_path / "sparse/0/images.txt").write_bytes(b"# caf\xe9\n")
    refused(tmp_path, "not UTF-8 at byte 5", named="sparse/0/images.txt")


@pytest.mark.parametrize("text", [False, True])
def test_images_of_a_camera_that_is_not_there(tmp_path: Path, text: bool) -> None:
    scenes.write_colmap_scene(tmp_path, 2, text=text)
    (tmp_path / "sparse/0/cameras.bin").write_bytes(bytes(8))
    (tmp_path / "sparse/0/cameras.txt").write_text("")
    refused(tmp_path, "'view_000.png' was taken by camera 1, which cameras")


def test_damage_is_found_where_it_is(tmp_path: Path) -> None:
    """The head of the one camera ends at byte 32, and its four parameters need as many bytes again."""
    scenes.write_colmap_scene(tmp_path, 2)
    path = tmp_path / "sparse/0/cameras.bin"
    path.write_bytes(path.read_bytes()[:50])
    refused(tmp_path, "at byte 32 of 50", named="sparse/0/cameras.bin")
    scenes.write_colmap_scene(tmp_path / "name", 2)
    path = tmp_path / "name/sparse/0/images.bin"
    path.write_bytes(path.read_bytes().replace(b"view_001", b"view\xff001"))
    refused(tmp_path / "name", "a name is not UTF-8", named="sparse/0/images.bin")


def test_empty_model(tmp_path: Path) -> None:
    (tmp_path / "sparse/0").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"sparse/0/{name}.bin").write_bytes(bytes(8))
    refused(tmp_path, "no images with a pose")


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        ("7 PINHOLE 200 100 -50 60 110 40", "intrinsics"),
        ("7 PINHOLE 200 100 50 nan 110 40", ""),
        ("7 PINHOLE 0 100 50 60 110 40", "size"),
        ("7 PINHOLE 200 4000000000 50 60 110 40", "size"),
    ],
)
def test_cameras_that_are_none(tmp_path: Path, camera: str, said: str) -> None:
    write_by_hand(tmp_path)
    (tmp_path / "sparse/0/cameras.txt").write_text(camera + "\n")
    refused(tmp_path, said)


def test_poses_that_are_none(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 2)
    path = tmp_path / "sparse/0/images.bin"
    data = bytearray(path.read_bytes())
    translation = 8 + 4 + 4 * 8
    struct.pack_into("<d", data, translation, math.nan)
    path.write_bytes(data)
    refused(tmp_path, "the pose of camera 'view_00", "no rotation and translation")


def test_missing_photographs(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    (tmp_path / "images/view_001.png").unlink()
    refused(tmp_path, "no such photograph", "-i", named="images/view_001.png")
    (tmp_path / "images").rename(tmp_path / "images_8")
    refused(tmp_path, "no such folder of photographs", "images_8", "-i", named="images")
    (tmp_path / "images_8").rename(tmp_path / "photos")
    refused(tmp_path, "copy the photographs there", named="images")


def test_photographs_that_do_not_open(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    (tmp_path / "images/view_001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(tmp_path, "cannot be read as an image", named="images/view_001.png")


@pytest.mark.parametrize("size", [(60, 80), (80, 64), (40, 32), (160, 117)])
def test_photographs_of_another_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    scenes.write_photographs(tmp_path / "images", ["view_002.png"], size)
    refused(tmp_path, f"{size[0]}x{size[1]}", "80x60", "-i", named="images/view_002.png")


def test_which_sizes_agree() -> None:
    assert sizes_agree((400, 299), (696, 521))
    assert sizes_agree((696, 521), (400, 299))
    assert sizes_agree((221, 400), (1038, 1880))
    assert sizes_agree((1237, 822), (4946, 3286))
    assert not sizes_agree((400, 302), (1600, 1200))
    assert not sizes_agree((300, 400), (400, 300))


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
