"""What ``metrics.py`` does: measure the test views that ``render.py`` wrote, and record what they are worth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gsz.errors import UserError
from gsz.files import write_text
from programs.options import MeasureOptions
from quality.lpips import Lpips, load_lpips
from quality.metrics import measure
from quality.render_info import RenderInfo
from quality.summary import ModelSummary, ViewMetrics, finite_or_none, mean_metrics
from utils.progress import Progress, counted, silent
from utils.tables import cell, format_table


@dataclass(frozen=True)
class RenderedMethod:
    """The test views of one model, as PNG files: a folder ``test/ours_N``.

    Attributes:
        name: The folder's name, the key in ``results.json``.
        pairs: ``(render, photograph)``, sorted by name, of matching names and sizes.
        info: What ``render.py`` recorded, if it was ours.
    """

    name: str
    pairs: list[tuple[Path, Path]]
    info: RenderInfo | None


def find_methods(model_dir: Path) -> list[RenderedMethod]:
    """Everything rendered in a model directory, checked but not yet read.

    Raises:
        UserError: nothing is there, or renders and photographs do not match in number, name or size.
    """
    if not model_dir.is_dir():
        raise UserError(f"{model_dir}: no such model directory; check -m")
    folders = sorted(folder.parent for folder in (model_dir / "test").glob("[!.]*/renders"))
    if not folders:
        raise UserError(f"{model_dir}: no test views have been rendered; run python render.py -m {model_dir}")
    return [_check_method(folder) for folder in folders]


def _check_method(folder: Path) -> RenderedMethod:
    remedy = "run render.py again"
    renders = {path.name: path for path in (folder / "renders").glob("*.png")}
    photographs = {path.name: path for path in (folder / "gt").glob("*.png")}
    if not renders:
        raise UserError(f"{folder / 'renders'}: holds no PNG files; {remedy}")
    if renders.keys() != photographs.keys():
        raise UserError(
            f"{folder}: the {len(renders)} images in renders/ and {len(photographs)} in gt/ do not pair up; {remedy}"
        )
    pairs = [(renders[name], photographs[name]) for name in sorted(renders)]
    for render, photograph in pairs:
        sizes = [_image_size(path) for path in (render, photograph)]
        if sizes[0] != sizes[1]:
            described = [f"{width}x{height}" for width, height in sizes]
            raise UserError(f"{render}: is {described[0]}, its photograph in gt/ is {described[1]}; {remedy}")
    return RenderedMethod(folder.name, pairs, RenderInfo.read(folder))


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: does not open as an image; run render.py again") from error


def read_image(path: Path, device: torch.device | str = "cpu") -> Tensor:
    """``(H, W, 3)`` float32 in [0, 1]."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); run render.py again") from error
    return torch.tensor(pixels, device=device).float() / 255.0


def measure_method(
    method: RenderedMethod, lpips: Lpips | None, device: torch.device | str = "cpu", progress: Progress = silent
) -> dict[str, ViewMetrics]:
    """The metrics of every view, by file name."""
    views = {}
    for render, photograph in counted(method.pairs, progress):
        views[render.name] = measure(read_image(render, device), read_image(photograph, device), lpips)
    return views


def summarize(method: RenderedMethod, views: dict[str, ViewMetrics]) -> ModelSummary:
    """The means over the views, beside what ``render.py`` recorded."""
    means = mean_metrics(list(views.values()))
    if method.info is None:
        return ModelSummary(means)
    info = method.info
    return ModelSummary(means, gaussians=info.gaussians, bytes=info.bytes, fps=info.fps, backend=info.backend)


def measure_model_dir(
    model_dir: Path, lpips: Lpips | None, device: torch.device | str = "cpu", progress: Progress = silent
) -> dict[str, ModelSummary]:
    """Measure all that is rendered in a model directory and write its ``results.json`` and ``per_view.json``.

    Returns:
        The summaries by method name, as written.
    """
    summaries: dict[str, ModelSummary] = {}
    per_view: dict[str, dict[str, dict[str, float | None]]] = {}
    for method in find_methods(model_dir):
        views = measure_method(method, lpips, device, progress)
        summaries[method.name] = summarize(method, views)
        per_view[method.name] = {
            "SSIM": {name: view.ssim for name, view in views.items()},
            "PSNR": {name: finite_or_none(view.psnr) for name, view in views.items()},
            "LPIPS": {name: view.lpips for name, view in views.items()},
        }
    results = {name: summary.to_json() for name, summary in summaries.items()}
    write_text(model_dir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    write_text(model_dir / "per_view.json", json.dumps(per_view, indent=2, allow_nan=False) + "\n")
    return summaries


def results_table(results: dict[Path, dict[str, ModelSummary]]) -> str:
    """One line a model directory and method."""
    header = ["model", "method", "PSNR", "SSIM", "LPIPS", "Gaussians", "MB", "B/G", "FPS", "backend"]
    rows = [
        [
            str(model_dir),
            name,
            cell(summary.metrics.psnr, ".2f"),
            cell(summary.metrics.ssim, ".4f"),
            cell(summary.metrics.lpips, ".4f"),
            cell(summary.gaussians, ","),
            cell(summary.megabytes, ".2f"),
            cell(summary.bytes_per_gaussian, ".2f"),
            cell(summary.fps, ".1f"),
            summary.backend or "n/a",
        ]
        for model_dir, summaries in results.items()
        for name, summary in summaries.items()
    ]
    return format_table(header, rows)


def run(options: MeasureOptions, progress: Progress = silent) -> dict[Path, dict[str, ModelSummary]]:
    """Measure what the options name.

    Raises:
        UserError: renders are missing, or do not belong to the photographs beside them.
    """
    for model_dir in options.model_paths:
        find_methods(model_dir)  # A mistake in the last directory should show before the first one's minutes are spent.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lpips = load_lpips(options.lpips_weights, device)
    return {path: measure_model_dir(path, lpips, device, progress) for path in options.model_paths}
