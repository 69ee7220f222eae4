"""Proves that metrics.py measures what is in the PNG files, writes it in the shape of the 3DGS repository, and refuses
directories in which renders and photographs do not belong together, in one line and with exit code 2."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metrics
from gsz.errors import UserError
from quality.lpips import VggLpips, load_lpips, weight_shapes
from quality.metrics import measure, psnr
from quality.render_info import RenderInfo
from quality.ssim import ssim
from quality.summary import ModelSummary, ViewMetrics, mean_metrics
from utils.tables import format_table

ROOT = Path(__file__).resolve().parents[2]


def random_pixels(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).float() / 255


def write_method(folder: Path, renders: list[np.ndarray], photographs: list[np.ndarray]) -> None:
    for name, images in (("renders", renders), ("gt", photographs)):
        (folder / name).mkdir(parents=True)
        for index, pixels in enumerate(images):
            Image.fromarray(pixels).save(folder / name / f"{index:05d}.png")


INFO = RenderInfo("compressed.lzma", 12_000, 1_000, "cpu", "2 threads", (32, 24), 12.5)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Two rendered methods, one with our record and one as INRIA's program leaves it."""
    ours, theirs = tmp_path / "model/test/ours_10", tmp_path / "model/test/ours_7"
    write_method(ours, [random_pixels(1), random_pixels(2)], [random_pixels(3), random_pixels(4)])
    write_method(theirs, [random_pixels(5)], [random_pixels(5)])
    (ours / "render_info.json").write_text(INFO.to_json())
    return tmp_path / "model"


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)


class TestPsnr:
    def test_formula(self):
        image, target = torch.zeros(4, 5, 3), torch.full((4, 5, 3), 0.1)
        assert psnr(image, target) == pytest.approx(20.0, abs=1e-6)

    def test_all_channels_count_at_once(self):
        image, target = torch.zeros(4, 5, 3), torch.zeros(4, 5, 3)
        target[..., 0] = 0.3  # Mean squared error 0.03; a mean of per-channel PSNRs would be infinite.
        assert psnr(image, target) == pytest.approx(-10 * math.log10(0.03), abs=1e-5)

    def test_identical_images_are_infinitely_good(self):
        assert psnr(torch.rand(4, 5, 3), torch.rand(4, 5, 3)) < 20
        image = torch.rand(4, 5, 3)
        assert psnr(image, image.clone()) == math.inf

    def test_small_errors_are_not_lost_in_a_large_image(self):
        image = torch.full((600, 800, 3), 0.5)
        target = image.clone()
        target[0, 0, 0] += 2.0**-12
        assert psnr(image, target) == pytest.approx(-10 * math.log10(2.0**-24 / (600 * 800 * 3)), abs=1e-9)

    def test_sizes_must_match(self):
        with pytest.raises(ValueError, match="one size"):
            psnr(torch.zeros(4, 5, 3), torch.zeros(5, 4, 3))


def test_measure_clamps_the_render():
    target = torch.ones(16, 16, 3)
    assert measure(target + 1.0, target).psnr == math.inf


def test_means_are_taken_of_each_metric():
    views = [ViewMetrics(20.0, 0.5, 0.3), ViewMetrics(30.0, 0.7, 0.1)]
    assert mean_metrics(views) == ViewMetrics(25.0, pytest.approx(0.6), pytest.approx(0.2))
    assert mean_metrics([*views, ViewMetrics(25.0, 0.6, None)]).lpips is None
    with pytest.raises(ValueError, match="no views"):
        mean_metrics([])


def test_summary_survives_json():
    summary = ModelSummary(ViewMetrics(math.inf, 1.0, None), 10, 250, 3.5, "cpu")
    text = json.dumps(summary.to_json(), allow_nan=False)
    assert ModelSummary.from_json(json.loads(text)) == summary
    assert summary.bytes_per_gaussian == 25.0


def test_summary_reads_what_inrias_program_writes():
    summary = ModelSummary.from_json({"SSIM": 0.8, "PSNR": 27.0, "LPIPS": 0.2})
    assert summary == ModelSummary(ViewMetrics(27.0, 0.8, 0.2))
    for broken in ({}, {"SSIM": 0.8}, {"SSIM": "0.8", "PSNR": 20.0}):
        with pytest.raises(ValueError, match=r"missing|not a number"):
            ModelSummary.from_json(broken)


def test_measures_the_png_files(model_dir, no_package, capsys):
    metrics.main(["-m", str(model_dir)])
    results = json.loads((model_dir / "results.json").read_text())
    per_view = json.loads((model_dir / "per_view.json").read_text())

    renders, targets = (
        (as_tensor(random_pixels(seed)) for seed in (1, 2)),
        (as_tensor(random_pixels(s)) for s in (3, 4)),
    )
    pairs = list(zip(renders, targets, strict=True))
    expected_psnr = [psnr(*pair) for pair in pairs]
    expected_ssim = [float(ssim(*pair)) for pair in pairs]
    assert per_view["ours_10"]["PSNR"] == {"00000.png": expected_psnr[0], "00001.png": expected_psnr[1]}
    assert per_view["ours_10"]["SSIM"] == {"00000.png": expected_ssim[0], "00001.png": expected_ssim[1]}
    assert per_view["ours_10"]["LPIPS"] == {"00000.png": None, "00001.png": None}
    assert results["ours_10"] == {
        "PSNR": pytest.approx(np.mean(expected_psnr)),
        "SSIM": pytest.approx(np.mean(expected_ssim)),
        "LPIPS": None,
        "Gaussians": 1000,
        "Bytes": 12000,
        "BytesPerGaussian": 12.0,
        "FPS": 12.5,
        "Backend": "cpu",
    }
    # Identical images: infinite PSNR is null in JSON. Nothing is known of a model that another program rendered.
    assert results["ours_7"] == {
        "PSNR": None,
        "SSIM": pytest.approx(1.0),
        "LPIPS": None,
        **dict.fromkeys(["Gaussians", "Bytes", "BytesPerGaussian", "FPS", "Backend"]),
    }
    output = capsys.readouterr().out
    assert output.count("--lpips_weights") == 1
    row = next(line for line in output.splitlines() if "ours_10" in line)
    psnr_and_ssim = [f"{np.mean(expected_psnr):.2f}", f"{np.mean(expected_ssim):.4f}"]
    assert row.split()[1:] == ["ours_10", *psnr_and_ssim, "n/a", "1,000", "0.01", "12.00", "12.5", "cpu"]
    assert "inf" in next(line for line in output.splitlines() if "ours_7" in line)


def test_lpips_from_a_weights_file(model_dir, tmp_path, no_package):
    random = np.random.default_rng(0)
    weights = {name: 0.05 * random.random(shape, np.float32) for name, shape in weight_shapes().items()}
    np.savez(tmp_path / "weights.npz", **weights)
    lpips = load_lpips(tmp_path / "weights.npz")
    assert isinstance(lpips, VggLpips)
    metrics.main(["-m", str(model_dir), "--lpips_weights", str(tmp_path / "weights.npz")])
    per_view = json.loads((model_dir / "per_view.json").read_text())
    assert per_view["ours_10"]["LPIPS"]["00001.png"] == lpips(as_tensor(random_pixels(2)), as_tensor(random_pixels(4)))
    assert per_view["ours_7"]["LPIPS"]["00000.png"] == 0.0


def refused(*arguments: object) -> str:
    """Run the tool as a user does; it must exit with code 2 and one line, which is returned."""
    command = [sys.executable, str(ROOT / "metrics.py"), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if line]
    assert len(lines) == 1, process.stderr
    return lines[0]


def test_missing_directory(tmp_path):
    assert "no such model directory" in refused("-m", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "gt/00001.png").unlink(), r"2 images in renders/ and 1 in gt/"),
        (lambda folder: (folder / "gt/00001.png").rename(folder / "gt/00009.png"), "do not pair up"),
        (lambda folder: [path.unlink() for path in (folder / "renders").iterdir()], "holds no PNG"),
        (lambda folder: Image.new("RGB", (30, 24)).save(folder / "gt/00001.png"), "32x24.*30x24"),
        (lambda folder: (folder / "renders/00000.png").write_bytes(b"no image"), r"00000\.png: does not open"),
        (lambda folder: (folder / "render_info.json").write_text('{"file": 1e999}'), r"render_info\.json: is damaged"),
        (lambda folder: (folder / "renders").rename(folder / "other"), "run python render.py"),
    ],
)
def test_directories_that_do_not_belong_together(tmp_path, spoil, message):
    folder = tmp_path / "test/ours_1"
    write_method(folder, [random_pixels(1), random_pixels(2)], [random_pixels(3), random_pixels(4)])
    (folder / "render_info.json").write_text(INFO.to_json())
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        metrics.main(["-m", str(tmp_path)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results.json").exists()


def test_truncated_png(tmp_path):
    folder = tmp_path / "test/ours_1"
    write_method(folder, [random_pixels(1)], [random_pixels(2)])
    data = (folder / "renders/00000.png").read_bytes()
    (folder / "renders/00000.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"00000\.png: cannot be read"):
        metrics.main(["-m", str(tmp_path)])


def test_a_bad_directory_among_good_ones_costs_nothing(model_dir, tmp_path):
    with pytest.raises(UserError, match="no such model directory"):
        metrics.main(["-m", str(model_dir), str(tmp_path / "nowhere")])
    assert not (model_dir / "results.json").exists()


def test_tables_line_up():
    rows = [["a", "1.00"], ["long name", "10.00"]]
    assert format_table(["x", "PSNR"], rows).splitlines() == [
        "x           PSNR",
        "---------  -----",
        "a           1.00",
        "long name  10.00",
    ]
    assert format_table(["x", "PSNR"], rows, "markdown").splitlines()[1] == "| --------- | ----: |"
