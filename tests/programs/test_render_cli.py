"""Proves that render.py, and metrics.py after it, work end to end on a tiny scene, with the real renderer.

The photographs of the scene are renders of the model itself. So every render must equal its photograph to the last bit:
had render.py taken another model, view, order, resolution or background, it would not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metrics
import render
from gaussian_renderer import choose_backend
from gsz import registry
from gsz.errors import UserError
from programs import rendering
from scene import GaussianModel, open_scene
from scene.model_dir import save_checkpoint, write_options
from scene.options import SceneOptions

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 32, 24
TRAIN_VIEWS, TEST_VIEWS = 3, 2


def random_model(seed: int, count: int = 60) -> GaussianModel:
    random = np.random.default_rng(seed)
    return GaussianModel.from_arrays(
        means=random.uniform(-1, 1, (count, 3)),
        log_scales=np.log(random.uniform(0.05, 0.3, (count, 3))),
        quaternions=random.standard_normal((count, 4)),
        opacity_logits=random.uniform(-1, 3, (count, 1)),
        sh_dc=random.uniform(-1.5, 1.5, (count, 1, 3)),
        sh_rest=random.uniform(-0.2, 0.2, (count, 3, 3)),
    )


def frame(name: str, angle: float) -> dict[str, object]:
    """A camera four units from the origin, which it looks at (OpenGL axes)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    pose = [[cosine, 0, sine, 4 * sine], [0, 1, 0, 0], [-sine, 0, cosine, 4 * cosine], [0, 0, 0, 1]]
    return {"file_path": name, "transform_matrix": pose}


def write_scene(folder: Path) -> None:
    for split, views in (("train", TRAIN_VIEWS), ("test", TEST_VIEWS)):
        (folder / split).mkdir(parents=True)
        frames = [frame(f"{split}/r_{view}", view + 0.5 * (split == "test")) for view in range(views)]
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
        for view in range(views):
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / split / f"r_{view}.png")


def photograph(folder: Path, model: GaussianModel) -> None:
    """Replace the photographs by renders of ``model``."""
    scene = open_scene(SceneOptions(source_path=folder, eval=True), validation_every=0)
    renderer = rendering.Renderer(model, scene.background, choose_backend("cpu"))
    for camera in scene.train + scene.test:
        assert camera.image_path is not None
        rendering.save_png(renderer.image(camera), camera.image_path)


@pytest.fixture(scope="module")
def photographed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    photograph(folder, random_model(0))
    return folder


@pytest.fixture
def model_dir(photographed: Path, tmp_path: Path) -> Path:
    """A model directory with the photographed model as its latest checkpoint, and another one before it."""
    folder = tmp_path / "model"
    save_checkpoint(folder, 30, random_model(0))
    save_checkpoint(folder, 7, random_model(1))
    options = {"source_path": str(photographed), "eval": True, "sh_degree": 1, "resolution": -1, "images": "images"}
    write_options(folder, {**options, "model_path": str(folder), "white_background": False, "data_device": "cpu"})
    return folder


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_renders_what_was_photographed(model_dir, photographed, capsys):
    render.main(["-m", str(model_dir)])
    for split, views in (("train", TRAIN_VIEWS), ("test", TEST_VIEWS)):
        renders, targets = (images(model_dir / split / "ours_30" / part) for part in ("renders", "gt"))
        assert list(renders) == [f"{view:05d}.png" for view in range(views)]
        assert same(renders, targets)
        assert same(targets, {f"0000{path.stem[-1]}.png": image for path, image in named(photographed / split)})
        assert renders["00000.png"].shape == (HEIGHT, WIDTH, 3)
        assert renders["00000.png"].std() > 10, "there is something to see"
    info = json.loads((model_dir / "test/ours_30/render_info.json").read_text())
    assert info.pop("fps") > 0
    assert info.pop("device") == choose_backend("auto").description
    checkpoint = model_dir / "point_cloud/iteration_30/point_cloud.ply"
    assert info == {
        "file": "point_cloud.ply",
        "bytes": checkpoint.stat().st_size,
        "gaussians": 60,
        "backend": choose_backend("auto").name,
        "resolution": [WIDTH, HEIGHT],
    }
    assert not list(model_dir.rglob(".*")), "nothing temporary is left"
    assert "60 Gaussians" in capsys.readouterr().out


def named(folder: Path) -> list[tuple[Path, np.ndarray]]:
    return [(path, np.asarray(Image.open(path))) for path in sorted(folder.iterdir())]


def test_metrics_reads_what_render_wrote(model_dir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lpips", None)
    render.main(["-m", str(model_dir), "--skip_train"])
    render.main(["-m", str(model_dir), "--skip_train", "--iteration", "7"])
    metrics.main(["-m", str(model_dir)])
    results = json.loads((model_dir / "results.json").read_text())
    assert results["ours_30"]["PSNR"] is None, "identical images"
    assert results["ours_30"]["SSIM"] == pytest.approx(1.0, abs=1e-6)
    assert results["ours_7"]["PSNR"] < 30
    assert results["ours_30"]["Gaussians"] == 60
    assert results["ours_30"]["BytesPerGaussian"] == results["ours_30"]["Bytes"] / 60
    assert results["ours_30"]["Backend"] == choose_backend("auto").name
    assert not (model_dir / "train").exists()
    assert "ours_30" in capsys.readouterr().out


def test_iteration_chooses_the_checkpoint(model_dir):
    render.main(["-m", str(model_dir), "--iteration", "7", "--skip_train"])
    assert not same(images(model_dir / "test/ours_7/renders"), images(model_dir / "test/ours_7/gt"))
    assert not (model_dir / "test/ours_30").exists()


def test_the_compressed_file_comes_first(model_dir):
    """The checkpoint of the same iteration is spoiled: what is reported is what was decoded."""
    registry.write(model_dir / "compressed.ply", random_model(0), registry.get("ply"))
    save_checkpoint(model_dir, 30, random_model(2, count=10))
    render.main(["-m", str(model_dir), "--skip_train"])
    assert same(images(model_dir / "test/ours_30/renders"), images(model_dir / "test/ours_30/gt"))
    info = json.loads((model_dir / "test/ours_30/render_info.json").read_text())
    assert (info["file"], info["gaussians"]) == ("compressed.ply", 60)

    render.main(["-m", str(model_dir), "--skip_train", "--iteration", "-1"])
    info = json.loads((model_dir / "test/ours_30/render_info.json").read_text())
    assert (info["file"], info["gaussians"]) == ("point_cloud.ply", 10)


@pytest.mark.parametrize("name", registry.names(writable_only=True))
def test_models_of_any_format_are_rendered(model_dir, tmp_path, name):
    """The scene is photographed from what the format's decoder returns, so that the renders must show exactly that."""
    codec = registry.get(name)
    path = tmp_path / f"other{codec.suffix}"
    registry.write(path, random_model(0), codec)
    write_scene(tmp_path / "scene")
    photograph(tmp_path / "scene", GaussianModel.of(registry.read(path)))
    render.main(["-m", str(model_dir), "-s", str(tmp_path / "scene"), "--model", str(path), "--skip_train"])
    assert same(images(model_dir / "test/other/renders"), images(model_dir / "test/other/gt"))
    assert json.loads((model_dir / "test/other/render_info.json").read_text())["bytes"] == path.stat().st_size


def test_no_images_of_an_earlier_run_remain(model_dir):
    folder = model_dir / "test/ours_30"
    for part in ("renders", "gt"):
        (folder / part).mkdir(parents=True)
        (folder / part / "00099.png").write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")
    (model_dir / "test/.ours_30.partial/renders").mkdir(parents=True)
    render.main(["-m", str(model_dir), "--skip_train"])
    assert [path.name for path in sorted((folder / "renders").iterdir())] == ["00000.png", "00001.png"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(model_dir.rglob(".*"))


def test_a_failed_run_leaves_the_earlier_images(model_dir, photographed, tmp_path):
    """A photograph that does not open is met after some views are written."""
    render.main(["-m", str(model_dir), "--skip_train"])
    before = images(model_dir / "test/ours_30/renders")
    write_scene(tmp_path / "broken")
    data = (tmp_path / "broken/test/r_1.png").read_bytes()
    (tmp_path / "broken/test/r_1.png").write_bytes(data[:45])
    with pytest.raises(UserError, match=r"r_1\.png"):
        render.main(["-m", str(model_dir), "--skip_train", "-s", str(tmp_path / "broken")])
    assert same(images(model_dir / "test/ours_30/renders"), before)
    assert not list(model_dir.rglob(".*"))


def test_flags_override_cfg_args(model_dir, photographed, capsys):
    render.main(["-m", str(model_dir), "-s", str(photographed), "-r", "16", "-w", "--no_eval"])
    folder = model_dir / "train/ours_30"
    renders = images(folder / "renders")
    assert len(renders) == TRAIN_VIEWS + TEST_VIEWS
    assert {image.shape for image in renders.values()} == {(12, 16, 3)}
    assert renders["00000.png"][0, 0].min() > 200, "the corner is background"
    assert "made without --eval" in capsys.readouterr().out
    assert not (model_dir / "test").exists()


def test_a_directory_without_cfg_args_needs_only_the_scene(model_dir, photographed):
    (model_dir / "cfg_args").unlink()
    render.main(["-m", str(model_dir), "-s", str(photographed), "--eval", "--skip_train"])
    assert same(images(model_dir / "test/ours_30/renders"), images(model_dir / "test/ours_30/gt"))


def test_a_lone_file_is_rendered_into_a_new_folder(model_dir, photographed, tmp_path):
    checkpoint = model_dir / "point_cloud/iteration_30/point_cloud.ply"
    render.main(["-m", str(tmp_path / "new"), "--model", str(checkpoint), "-s", str(photographed), "--eval"])
    assert same(images(tmp_path / "new/test/ours_30/renders"), images(tmp_path / "new/test/ours_30/gt"))
    with pytest.raises(UserError, match="give the scene's folder with -s"):
        render.main(["-m", str(tmp_path / "newer"), "--model", str(checkpoint)])
    assert not (tmp_path / "newer").exists()


def test_png_values_are_rounded_to_nearest(tmp_path):
    image = torch.tensor([0.0, 0.49 / 255, 0.51 / 255, 1.0]).reshape(2, 2, 1).expand(2, 2, 3)
    rendering.save_png(image, tmp_path / "image.png")
    assert np.asarray(Image.open(tmp_path / "image.png"))[..., 0].tolist() == [[0, 0], [1, 255]]


def refused(*arguments: object) -> str:
    """Run the tool as a user does; it must exit with code 2 and one line, which is returned."""
    command = [sys.executable, str(ROOT / "render.py"), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if line]
    assert len(lines) == 1, process.stderr
    return lines[0]


def test_exit_code_of_a_missing_directory(tmp_path):
    assert "no such model directory" in refused("-m", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "a.spz", "--iteration", "7"], "give one of them"),
        (["--model", "nowhere.spz"], r"nowhere\.spz: there is no such file"),
        (["--iteration", "8"], "iteration_8"),
        (["--skip_train", "--skip_test"], "nothing to render"),
        (["--skip_train", "--no_eval"], "nothing to render"),
        (["-s", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_bad_arguments(model_dir, arguments, message):
    before = sorted(model_dir.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        render.main(["-m", str(model_dir), *arguments])
    assert "\n" not in str(caught.value)
    assert sorted(model_dir.rglob("*")) == before


def test_bad_directories(model_dir):
    (model_dir / "compressed.ply").write_bytes(b"ply\n")
    with pytest.raises(UserError, match=r"compressed\.ply"):
        render.main(["-m", str(model_dir)])
    other = next(format_.suffix for format_ in registry.FORMATS if format_.suffix != ".ply")
    (model_dir / f"compressed{other}").write_bytes(b"")
    with pytest.raises(UserError, match=r"several compressed files.*--model"):
        render.main(["-m", str(model_dir)])
    (model_dir / f"compressed{other}").unlink()
    (model_dir / "compressed.ply").unlink()
    (model_dir / "cfg_args").unlink()
    with pytest.raises(UserError, match="give the scene's folder with -s"):
        render.main(["-m", str(model_dir)])
    (model_dir / "cfg_args").write_text("__import__('os')")
    with pytest.raises(UserError, match="cfg_args"):
        render.main(["-m", str(model_dir)])


def test_a_directory_without_a_model(model_dir):
    for number in (7, 30):
        (model_dir / f"point_cloud/iteration_{number}/point_cloud.ply").unlink()
    with pytest.raises(UserError, match="point_cloud"):
        render.main(["-m", str(model_dir)])
