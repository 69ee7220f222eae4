"""Proves that COLMAP and Blender scenes become the cameras that took the photographs, and that bad ones are refused.

The cameras are checked by where they project known 3D points: against COLMAP's own observations, against a scene
written by hand, and against Blender's axes worked out on paper.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsz.errors import UserError
from scene.cameras import Camera, sizes_agree
from scene.colmap import LENSES, ColmapCamera, Lens, model_suffix, points_path, read_model, read_model_points
from scene.dataset_readers import read_colmap, read_dataset
from scene.photographs import unique_view_names
from scene.points import PointCloud, write_points
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


def test_points_keep_their_colors(tmp_path: Path) -> None:
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
    path = points_path(tmp_path)
    assert path == tmp_path / f"points3D{suffix}"
    points = read_model_points(path)
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


# --- COLMAP scenes as people have them -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
def test_names_with_spaces(tmp_path: Path, text: bool) -> None:
    names = ["my photo 1.png", "my photo 2.png", "2 of 3/1 2  3.png", "2 of 3/1 2 3 4 5 6.png"]
    scenes.write_colmap_scene(tmp_path, names=names, text=text)
    cameras = read_colmap(tmp_path).cameras
    assert [camera.image_path for camera in cameras] == [tmp_path / "images" / name for name in names]


@pytest.mark.parametrize(("before", "after"), [("images/", ""), ("C:\\my scene\\left\\", "left/")])
def test_photographs_that_are_in_another_folder_than_their_names(tmp_path: Path, before: str, after: str) -> None:
    """As where COLMAP was run on the scene's folder, or on another computer; INRIA's program takes the last part."""
    names = [f"{before}VIEW {i}.PNG" for i in range(3)]
    scenes.write_colmap_scene(tmp_path, names=names)
    shutil.rmtree(tmp_path / "images")
    scenes.write_photographs(tmp_path / "images", [f"{after}view {i}.png" for i in range(3)])
    dataset = read_dataset(tmp_path)
    assert [camera.image_path.name for camera in dataset.cameras] == [f"view {i}.png" for i in range(3)]


def test_a_photograph_stands_for_one_view(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, names=["left/a.png", "right/a.png", "b.png"])
    shutil.rmtree(tmp_path / "images")
    scenes.write_photographs(tmp_path / "images", ["a.png", "b.png"])
    refused(tmp_path, "2 of 3 are missing")


def test_a_tab_in_a_name_is_a_space(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, names=["a\tb.png"], text=True)
    assert read_dataset(tmp_path).cameras[0].name == "a b"


@pytest.mark.parametrize("text", [False, True])
def test_names_with_backslashes(tmp_path: Path, text: bool) -> None:
    written = scenes.ColmapScene.ring(["left\\a.png", "right\\a.png"])
    (tmp_path / "sparse/0").mkdir(parents=True)
    (written.write_text if text else written.write_binary)(tmp_path / "sparse/0")
    scenes.write_photographs(tmp_path / "images", ["left/a.png", "right/a.png"])
    cameras = by_name(read_colmap(tmp_path).cameras)
    assert {name: camera.image_path for name, camera in cameras.items()} == {
        "left_a": tmp_path / "images/left/a.png",
        "right_a": tmp_path / "images/right/a.png",
    }


@pytest.mark.parametrize("blank", ["", "\n", "# a comment\n", "\n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_images_without_lines_of_points(tmp_path: Path, blank: str, newline: str) -> None:
    """Who writes images.txt by hand leaves them out, or puts other lines there; no image may vanish."""
    scenes.write_colmap_scene(tmp_path, 5, text=True)
    path = tmp_path / "sparse/0/images.txt"
    lines = [line + "\n" + blank for line in path.read_text().splitlines() if line.endswith(".png")]
    path.write_text("\ufeff# by hand\n" + "".join(lines).rstrip("\n"), encoding="utf-8", newline=newline)
    assert len(read_colmap(tmp_path).cameras) == 5


def test_some_images_without_lines_of_points(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 4, text=True)
    path = tmp_path / "sparse/0/images.txt"
    _, *lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[0:2], lines[2], *lines[4:6], lines[6]]))
    assert len(read_colmap(tmp_path).cameras) == 4


def test_a_line_of_points_is_not_taken_for_an_image(tmp_path: Path) -> None:
    """COLMAP writes 3.0 as 3, so that a line of four points could be read as an image whose name is "7 8 12"."""
    write_by_hand(tmp_path)
    path = tmp_path / "sparse/0/images.txt"
    path.write_text(path.read_text().replace("60.0 100.0 11", "1 2 11 4 5 11 3 4 7 7 8 12"))
    assert set(by_name(read_colmap(tmp_path).cameras)) == {"a", "b"}


def several_models(folder: Path, *sizes: int) -> None:
    """Models in ``sparse/0``, ``sparse/1`` and so on, with photographs of their own."""
    total = 0
    for index, size in enumerate(sizes):
        names = [f"v{total + i}.png" for i in range(size)]
        scenes.write_photographs(folder / "images", names)
        sparse = folder / "sparse" / str(index)
        sparse.mkdir(parents=True)
        scenes.ColmapScene.ring(names).write_binary(sparse)
        total += size


def test_the_largest_of_several_models_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    several_models(tmp_path, 2, 5, 3)
    assert set(by_name(read_colmap(tmp_path).cameras)) == {f"v{i}" for i in range(2, 7)}
    (message,) = caplog.messages
    assert "0 has 2 views, 1 has 5 views, 2 has 3 views" in message and f"{tmp_path / 'sparse/1'} is taken" in message


def test_the_first_of_equal_models_is_taken(tmp_path: Path) -> None:
    several_models(tmp_path, 3, 3)
    assert set(by_name(read_colmap(tmp_path).cameras)) == {"v0", "v1", "v2"}


def test_a_damaged_model_beside_a_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    several_models(tmp_path, 3, 4)
    (tmp_path / "sparse/1/images.bin").write_bytes(b"\xff" * 20)
    assert len(read_colmap(tmp_path).cameras) == 3
    assert "sparse/1/images.bin: is truncated or damaged" in caplog.text
    (tmp_path / "sparse/0/images.bin").write_bytes(b"\xff" * 20)
    refused(tmp_path, "truncated or damaged", named="sparse/0/images.bin")


@pytest.mark.parametrize("text", [False, True])
def test_points_may_be_missing_where_none_are_needed(tmp_path: Path, text: bool) -> None:
    scenes.write_colmap_scene(tmp_path, 3, text=text)
    (tmp_path / f"sparse/0/points3D.{'txt' if text else 'bin'}").unlink()
    assert len(read_dataset(tmp_path).cameras) == 3
    refused(tmp_path, "the points that training begins with", with_points=True)


@pytest.mark.parametrize("alone", [False, True])
def test_points_of_a_ply_count_as_in_inrias_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, alone: bool
) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    if alone:
        (tmp_path / "sparse/0/points3D.bin").unlink()
    points = PointCloud(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.uint8))
    write_points(tmp_path / "sparse/0/points3D.ply", points)
    caplog.set_level("INFO")
    read = read_colmap(tmp_path, with_points=True).points
    assert read is not None
    np.testing.assert_array_equal(read.positions, points.positions)
    assert "points3D.ply: training begins with its 3 points" in caplog.text


@pytest.mark.parametrize("text", [False, True])
def test_distortion_of_zero_is_accepted(tmp_path: Path, text: bool) -> None:
    scenes.write_colmap_scene(tmp_path, 3, "OPENCV without distortion", text)
    camera = read_colmap(tmp_path).cameras[0]
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (scenes.FX, scenes.FY, scenes.CX, scenes.CY)


@pytest.mark.parametrize("lens", LENSES.values(), ids=lambda lens: lens.name)
def test_which_lenses_are_pinholes(lens: Lens) -> None:
    fisheye = "FISHEYE" in lens.name or lens.name == "EQUIRECTANGULAR"
    straight = ColmapCamera(lens, 80, 60, (50.0,) * (lens.parameters - lens.distortion) + (0.0,) * lens.distortion)
    assert straight.is_pinhole is not fisheye
    if not fisheye:
        assert straight.intrinsics == (50.0,) * 4
    for index in range(lens.distortion):
        bent = list(straight.parameters)
        bent[index - lens.distortion] = 0.01
        assert not ColmapCamera(lens, 80, 60, tuple(bent)).is_pinhole


def test_the_command_that_undistorts_can_be_pasted(tmp_path: Path) -> None:
    source = tmp_path / "it's my scene"
    scenes.write_colmap_scene(source, 2, "OPENCV")
    (source / "images").rename(source / "my images")
    with pytest.raises(UserError) as caught:
        read_dataset(source, "my images")
    command = str(caught.value).split(": colmap ")[1]
    assert shlex.split(command) == [
        *("image_undistorter", "--image_path", str(source / "my images"), "--input_path", str(source / "sparse/0")),
        *("--output_path", f"{source}_undistorted", "--output_type", "COLMAP"),
    ]


def test_the_undistorted_scene_goes_beside_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes.write_colmap_scene(tmp_path / "scene", 2, "OPENCV")
    monkeypatch.chdir(tmp_path / "scene")
    with pytest.raises(UserError, match=f"--output_path {tmp_path}/scene_undistorted "):
        read_dataset(Path())


def test_missing_photographs_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{i:02d}.png" for i in range(12)]
    scenes.write_colmap_scene(tmp_path, names=names)
    for name in names[1:3]:
        (tmp_path / "images" / name).unlink()
    refused(tmp_path, "2 of 12 are missing: 01.png, 02.png)", "--skip_missing", named="images/01.png")
    cameras = read_dataset(tmp_path, skip_missing=True).cameras
    assert [camera.name for camera in cameras] == [name[:2] for name in names if name not in names[1:3]]
    assert "2 of 12 are missing: 01.png, 02.png" in caplog.text
    for name in names[3:]:
        (tmp_path / "images" / name).unlink()
    refused(tmp_path, "11 of 12 are missing: 01.png, 02.png,", "08.png and 3 more)", named="images/01.png")
    (tmp_path / "images" / names[0]).unlink()
    refused(tmp_path, "12 of 12 are missing", skip=True)


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


def test_a_folder_without_a_scene_is_refused(tmp_path: Path) -> None:
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


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
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
def test_invalid_cameras_are_refused(tmp_path: Path, camera: str, said: str) -> None:
    write_by_hand(tmp_path)
    (tmp_path / "sparse/0/cameras.txt").write_text(camera + "\n")
    refused(tmp_path, said)


def test_invalid_poses_are_refused(tmp_path: Path) -> None:
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
