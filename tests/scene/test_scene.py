"""Proves which views train, validate and test, at which size, and that photographs come out as 3DGS would have them.

The sizes of ``-r`` are checked against numbers worked out by hand, the splits against lists written out here, and the
memory bound of the photographs by counting what is read while more is asked for than fits.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

import scene.images
from gsz.errors import UserError
from scene import Camera, Photographs, image_cache, open_scene
from scene.cache import ImageCache, half_of_free_memory
from scene.options import SceneOptions
from scene.scene import cameras_extent
from scene.splits import at_resolution_option
from tests import synthetic_scenes as scenes


def camera(width: int = 40, height: int = 30, path: Path | None = None, name: str = "view") -> Camera:
    return Camera(name, width, height, 50.0, 50.0, width / 2, height / 2, np.eye(4), path)


def names(cameras: list[Camera]) -> list[int]:
    return [int(camera.name.split("_")[-1]) for camera in cameras]


def refused(*said: str, options: SceneOptions, **arguments: int) -> None:
    with pytest.raises(UserError) as caught:
        open_scene(options, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


# --- Splits ----------------------------------------------------------------------------------------------------------


def test_colmap_splits(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 24)
    scene = open_scene(SceneOptions(tmp_path, eval=True))
    assert names(scene.test) == [0, 8, 16]
    # 21 views are left: 1-7, 9-15, 17-23. The sixth and the sixteenth of them validate.
    assert names(scene.validation) == [6, 18]
    assert names(scene.train) == [i for i in range(24) if i not in (0, 8, 16, 6, 18)]


def test_without_eval_all_views_are_used(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 24)
    scene = open_scene(SceneOptions(tmp_path), validation_every=0)
    assert (names(scene.train), scene.validation, scene.test) == (list(range(24)), [], [])


def test_splits_do_not_depend_on_the_order_in_the_file(tmp_path: Path) -> None:
    forward = scenes.view_names(24)
    scenes.write_colmap_scene(tmp_path / "a", names=forward, count=24)
    scenes.write_colmap_scene(tmp_path / "b", names=forward[::-1], count=24)
    one, other = (open_scene(SceneOptions(tmp_path / folder, eval=True)) for folder in "ab")
    for split in ("train", "validation", "test"):
        assert names(getattr(one, split)) == names(getattr(other, split))


@pytest.mark.parametrize(("count", "held_out"), [(2, [1]), (3, [2]), (5, [2]), (8, [2, 7]), (19, [2, 7, 12, 17])])
def test_few_views_still_validate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, held_out: list[int]
) -> None:
    caplog.set_level("INFO")
    scenes.write_colmap_scene(tmp_path, count)
    scene = open_scene(SceneOptions(tmp_path))
    assert names(scene.validation) == held_out
    assert len(scene.train) == count - len(held_out)
    assert f"only {count} training views" in caplog.text


def test_enough_views_need_no_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scenes.write_colmap_scene(tmp_path, 20)
    open_scene(SceneOptions(tmp_path))
    assert caplog.text == ""


def test_blender_splits(tmp_path: Path) -> None:
    scenes.write_blender_scene(tmp_path, 20, 3)
    scene = open_scene(SceneOptions(tmp_path, eval=True))
    assert [view.name for view in scene.test] == ["test_r_0", "test_r_1", "test_r_2"]
    assert (len(scene.train), len(scene.validation)) == (18, 2)
    merged = open_scene(SceneOptions(tmp_path), validation_every=0)
    assert (len(merged.train), merged.test) == (23, [])


def test_empty_scenes(tmp_path: Path) -> None:
    refused("-s", options=SceneOptions())
    scenes.write_blender_scene(tmp_path, 0, 2)
    refused(str(tmp_path), "no training views", options=SceneOptions(tmp_path, eval=True))
    scenes.write_colmap_scene(tmp_path / "one", 1)
    refused("no training views", options=SceneOptions(tmp_path / "one", eval=True))
    refused("validation needs another", options=SceneOptions(tmp_path / "one"))
    assert len(open_scene(SceneOptions(tmp_path / "one"), validation_every=0).train) == 1


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"resolution": 0}, {}, "-r 0"),
        ({"resolution": -2}, {}, "-r -2"),
        ({"resolution": 10**9}, {}, "-r 1000000000"),
        ({"sh_degree": 4}, {}, "--sh_degree 4"),
        ({"sh_degree": -1}, {}, "--sh_degree -1"),
        ({"data_device": "gpu"}, {}, "--data_device gpu"),
        ({}, {"validation_every": 1}, "validation_every"),
        ({}, {"validation_every": -3}, "validation_every"),
    ],
)
def test_options_out_of_range(tmp_path: Path, changes: dict, arguments: dict, said: str) -> None:
    scenes.write_colmap_scene(tmp_path, 4)
    refused(said, options=replace(SceneOptions(tmp_path), **changes), **arguments)


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "resolution", "expected"),
    [
        ((1237, 822), -1, (1237, 822)),
        ((1600, 1200), -1, (1600, 1200)),
        ((3200, 2000), -1, (1600, 1000)),
        ((5187, 3361), -1, (1600, 1036)),  # 3361 / (5187 / 1600) = 1036.7, cut
        ((3201, 2001), 1, (3201, 2001)),
        ((1237, 822), 2, (618, 411)),  # 618.5 rounds to even
        ((1239, 822), 2, (620, 411)),
        ((1237, 822), 4, (309, 206)),  # 205.5 rounds to even
        ((1237, 822), 8, (155, 103)),
        ((1000, 750), 400, (400, 300)),
        ((1000, 755), 400, (400, 302)),
        ((1000, 750), 3, (3, 2)),
        ((400, 300), 800, (800, 600)),
    ],
)
def test_resolution_option(full: tuple[int, int], resolution: int, expected: tuple[int, int]) -> None:
    (resized,) = at_resolution_option([camera(*full)], resolution)
    assert (resized.width, resized.height) == expected
    assert resized.fx == pytest.approx(50 * expected[0] / full[0])
    assert resized.cy == pytest.approx(expected[1] / 2)


def test_automatic_limit_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    at_resolution_option([camera(2000, 1000), camera(2400, 1000), camera(100, 100)], -1)
    assert len(caplog.records) == 1
    caplog.clear()
    at_resolution_option([camera(2000, 1000)], 1)
    at_resolution_option([camera(1600, 1000)], -1)
    assert caplog.text == ""


def test_a_resolution_that_leaves_no_pixel_is_refused() -> None:
    with pytest.raises(UserError, match="leaves no pixel"):
        at_resolution_option([camera(1000, 100)], 5)


def test_resolution_reaches_cameras_and_photographs(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    scene = open_scene(SceneOptions(tmp_path, resolution=2))
    view = scene.train[0]
    assert (view.width, view.height, view.fx, view.cx) == (40, 30, scenes.FX / 2, scenes.CX / 2)
    assert scene.images.load(view).shape == (30, 40, 3)


def test_extent_is_that_of_3dgs(tmp_path: Path) -> None:
    cameras = []
    for x in (0.0, 3.0, 9.0):
        pose = np.eye(4)
        pose[0, 3] = -x
        cameras.append(replace(camera(), world_to_camera=pose))
    assert cameras_extent(cameras) == pytest.approx(1.1 * 5)
    # A ring of radius 4: the validation views count, the test views do not.
    scenes.write_colmap_scene(tmp_path, 24)
    assert open_scene(SceneOptions(tmp_path)).extent == pytest.approx(4.4)
    assert open_scene(SceneOptions(tmp_path, eval=True)).extent == pytest.approx(4.4, rel=0.02)


def test_background(tmp_path: Path) -> None:
    scenes.write_colmap_scene(tmp_path, 3)
    assert open_scene(SceneOptions(tmp_path)).background.tolist() == [0, 0, 0]
    assert open_scene(SceneOptions(tmp_path, white_background=True)).background.tolist() == [1, 1, 1]


# --- Photographs -----------------------------------------------------------------------------------------------------


def test_photographs_are_read_as_rows_of_rgb_in_0_to_1(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.png"))
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), pixels.astype(np.float32) / 255)


def test_loaded_images_are_the_callers_own(tmp_path: Path) -> None:
    scenes.write_photographs(tmp_path, ["a.png"], (40, 30))
    store = Photographs(ImageCache(10**6))
    store.load(camera(path=tmp_path / "a.png")).zero_()
    assert store.load(camera(path=tmp_path / "a.png")).max() > 0


def test_resizing_is_bicubic(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.resize((40, 30), Image.Resampling.BICUBIC), np.float32) / 255
    np.testing.assert_array_equal(
        Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.png")).numpy(), expected
    )


@pytest.mark.parametrize(("white", "expected"), [(True, (244, 224, 204)), (False, (40, 20, 0))])
def test_transparency_shows_the_background(tmp_path: Path, white: bool, expected: tuple[int, ...]) -> None:
    """(200, 100, 0) of alpha 51/255 = 0.2, over white: 0.2 c + 0.8 * 255."""
    scenes.write_blender_scene(tmp_path, 3, 1)
    scene = open_scene(SceneOptions(tmp_path, white_background=white))
    pixel = scene.images.load(scene.train[0])[10, 10] * 255
    np.testing.assert_allclose(pixel.numpy(), expected, atol=1.0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "1", "RGBA"])
def test_all_kinds_of_photographs(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode == "CMYK" else ".png"
    Image.new("RGB", (40, 30), (255, 255, 255)).convert(mode).save(tmp_path / f"a{suffix}")
    loaded = Photographs(ImageCache(10**6)).load(camera(path=tmp_path / f"a{suffix}"))
    assert loaded.shape == (30, 40, 3) and loaded.min() == 1.0


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which image files are opened from now on."""
    opened: list[str] = []
    open_image = scene.images.Image.open

    def counted(path: Path) -> Image.Image:
        opened.append(path.stem)
        return open_image(path)

    monkeypatch.setattr(scene.images.Image, "open", counted)
    return opened


def png(values: np.ndarray, color_type: int) -> bytes:
    """A PNG of ``(H, W, C)`` 16-bit values."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_scaled(tmp_path: Path, color_type: int, channels: int) -> None:
    """Gray and RGB, with and without an alpha of one: the upper byte of each value counts."""
    values = np.random.default_rng(0).integers(0, 65536, (30, 40, channels))
    if channels in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png(values, color_type))
    loaded = Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.png"))
    colors = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, axis=2)
    np.testing.assert_array_equal(loaded.numpy(), (colors >> 8).astype(np.float32) / 255)


def test_sixteen_bit_files_of_other_types_are_scaled(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (30, 40), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    (tmp_path / "a.bmp").write_bytes(b"P5\n40 30\n65535\n" + values.astype(">u2").tobytes())  # Netpbm by its content.
    for name in ("a.tif", "a.bmp"):
        loaded = Photographs(ImageCache(10**6)).load(camera(path=tmp_path / name))
        np.testing.assert_array_equal(loaded[..., 0].numpy(), (values >> 8).astype(np.float32) / 255)


def test_gray_in_floating_point_is_0_to_1(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (30, 40)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    loaded = Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.tif"))
    np.testing.assert_allclose(loaded[..., 0].numpy(), values, atol=0.51 / 255)
    Image.fromarray(300 * values).save(tmp_path / "b.tif")
    Image.fromarray((1e9 * values).astype(np.int32)).save(tmp_path / "c.tif")
    for name in ("b.tif", "c.tif"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read as an image \(its numbers"):
            Photographs(ImageCache(10**6)).load(camera(path=tmp_path / name))


def test_memory_bound_keeps_what_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four fit. The fourth is read again each time, and none of the three for its sake."""
    files = [f"{i}.png" for i in range(4)]
    scenes.write_photographs(tmp_path, files, (40, 30))
    views = [camera(path=tmp_path / file) for file in files]
    opened = reads(monkeypatch)
    one = 40 * 30 * 3
    cache = ImageCache(3 * one + 100)
    photographs = Photographs(cache)
    for index in (0, 1, 2, 3, 3, 0, 1, 2, 3, 0):
        photographs.load(views[index])
        assert cache.held_bytes <= cache.limit_bytes
    assert opened == ["0", "1", "2", "3", "3", "3"]
    assert cache.held_bytes == 3 * one


def test_photographs_load_without_any_cache(tmp_path: Path) -> None:
    scenes.write_photographs(tmp_path, ["a.png"], (40, 30))
    cache = ImageCache(0)
    assert Photographs(cache).load(camera(path=tmp_path / "a.png")).shape == (30, 40, 3)
    assert cache.held_bytes == 0


def test_the_bound_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes.write_colmap_scene(tmp_path, 6)
    one = 80 * 60 * 3
    small = open_scene(SceneOptions(tmp_path, cache_memory=4 * one))
    opened = reads(monkeypatch)
    for _ in range(2):
        for view in small.train:
            small.images.load(view)
    assert len(small.train) == 5 and len(opened) == 6
    assert tyro.cli(SceneOptions, args=["--cache_memory", "3GB"]).cache_memory == 3 * 10**9


def test_without_a_bound_half_of_what_is_free_is_taken() -> None:
    """Half of a reading that moves while others use memory, so within a half of another reading."""
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    free = int(available.split()[1]) * 1024
    limit = image_cache(SceneOptions()).limit_bytes
    assert 0 < limit <= 0.75 * free
    assert image_cache(SceneOptions(cache_memory=3_000_000)).limit_bytes == 3_000_000


def test_the_cache_takes_no_more_memory_than_it_counts() -> None:
    """In a process of its own, since what the heap has free is reused: 40 images of 2 MB, with larger ones between."""
    program = """
import torch
from scene.cache import ImageCache
def used(): return int(open("/proc/self/statm").read().split()[1]) * 4096
cache = ImageCache(10**9)
def made():
    return torch.zeros(2_000_000, dtype=torch.uint8)
before = used()
for index in range(40):
    cache.get(index, made).to(torch.float32).div_(255)
print(used() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * 40 * 2_000_000


def test_the_limit_of_a_container_bounds_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of files count as used there, though they would be given back."""
    monkeypatch.setattr(
        scene.cache, "_CONTAINER_FILES", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),)
    )
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 300000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    assert half_of_free_memory() == 300_000
    (tmp_path / "memory.max").write_text("max\n")
    assert half_of_free_memory() > 300_000


def test_sizes_are_kept_apart(tmp_path: Path) -> None:
    scenes.write_photographs(tmp_path, ["a.png"], (40, 30))
    store = Photographs(ImageCache(10**6))
    assert store.load(camera(path=tmp_path / "a.png")).shape == (30, 40, 3)
    assert store.load(camera(20, 15, tmp_path / "a.png")).shape == (15, 20, 3)


def test_scenes_open_headers_only(tmp_path: Path) -> None:
    """A photograph whose pixels are damaged is noticed when it is needed, not before."""
    scenes.write_colmap_scene(tmp_path, 3)
    path = tmp_path / "images" / "view_000.png"
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    scene = open_scene(SceneOptions(tmp_path))
    with pytest.raises(UserError) as caught:
        scene.images.load(scene.train[0])
    assert str(caught.value).startswith(f"{path}: cannot be read as an image")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0" + bytes(50), b"text"])
def test_files_that_are_not_images_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image"):
        Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.jpg"))


def test_photographs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such photograph"):
        Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.jpg"))
    with pytest.raises(UserError, match="'view' has no photograph"):
        Photographs(ImageCache(10**6)).load(camera())


def test_photographs_of_another_shape(tmp_path: Path) -> None:
    scenes.write_photographs(tmp_path, ["a.png"], (40, 40))
    with pytest.raises(UserError, match=r"40x40.*40x30"):
        Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.png"))


def test_photographs_of_absurd_size_are_refused(tmp_path: Path) -> None:
    """A header of 60000x60000 is refused before a pixel is decoded."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(UserError, match=r"cannot be read as an image .*decompression bomb"):
        Photographs(ImageCache(10**6)).load(camera(path=tmp_path / "a.png"))


# --- Command line ----------------------------------------------------------------------------------------------------


def test_flags_of_3dgs() -> None:
    short = [
        "-s",
        "data/garden",
        "-i",
        "images_4",
        "-r",
        "2",
        "-w",
        "--eval",
        "--sh_degree",
        "2",
        "--data_device",
        "cuda",
    ]
    long = ["--source_path", "data/garden", "--images", "images_4", "--resolution", "2", "--white_background"]
    expected = SceneOptions(Path("data/garden"), "images_4", 2, True, True, "cuda", 2)
    assert tyro.cli(SceneOptions, args=short) == expected
    assert tyro.cli(SceneOptions, args=[*long, *short[7:]]) == expected
    assert tyro.cli(SceneOptions, args=["-r", "-1"]) == SceneOptions()


def test_options_of_a_trained_model() -> None:
    values = {"source_path": "data/garden", "images": "images_4", "resolution": 4, "eval": True, "depths": ""}
    source = Path("model/cfg_args")
    assert SceneOptions.from_mapping(values, source) == SceneOptions(Path("data/garden"), "images_4", 4, eval=True)
    # What says nothing of the model is not taken over.
    assert SceneOptions.from_mapping({"skip_missing": True, "cache_memory": 10**6}, source) == SceneOptions()


@pytest.mark.parametrize(
    ("name", "value"),
    [("resolution", "4"), ("resolution", True), ("eval", 1), ("images", None), ("sh_degree", 3.0), ("images", ["a"])],
)
def test_options_of_the_wrong_type_are_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture, name: str, value: object
) -> None:
    assert SceneOptions.from_mapping({name: value}, Path("model/cfg_args")) == SceneOptions()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and f"model/cfg_args: {name} cannot be" in record.getMessage()
