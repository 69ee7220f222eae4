"""Measure what photographs are worth: compress a model with them, with its cameras alone, and from its .ply alone.

    python scripts/compare_sources.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        -m output/sources [settings of train.py]

All three runs have the same settings, and all three are measured on the scene's test photographs. A run that has
already finished in the output folder is not done again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import _root  # noqa: F401
import tyro

from compress.judging import Judge
from compress.run_dir import RunDir
from compress.views import Views
from gsz import registry
from programs import compression, measuring, rendering
from programs.options import CompressOptions, MeasureOptions, RenderOptions, parse_compress
from programs.own_renders import OwnRenders
from quality.summary import ViewMetrics, read_summary
from scene import GaussianModel, Scene, open_scene
from utils import cli
from utils.tables import cell, format_table


@dataclass
class Options(CompressOptions):
    """What photographs are worth. All options are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/sources")
    """Folder to write to: a folder a run."""


def compress(options: Options) -> Path:
    """The compressed file of a run, which is done unless it has been."""
    if not RunDir(options.model_path).is_finished():
        with cli.progress_bar(options.model_path.name, "it") as progress:
            compression.run(replace(options, resume=True), progress)
    return rendering.choose_model(options.model_path).path


def against_original(original: Path, compressed: Path, scene: Scene) -> ViewMetrics:
    """The compressed model beside the original's renders, at the test views."""
    renders = OwnRenders(GaussianModel.load_ply(original), scene.background)
    judge = Judge(Views(scene.test, renders.load, scene.background, scene.extent))
    return judge.evaluate(registry.read(compressed))


def main() -> None:
    options = parse_compress([*sys.argv[1:], "--eval"], Options)
    _, original = compression.load_original(options)
    without = replace(options, scene=replace(options.scene, source_path=None))
    sources = {
        "photographs": options,
        "cameras": without,
        "ply": replace(without, pretrained_dir=None, pretrained_ply=original, iteration=None),
    }
    files = {name: compress(replace(source, model_path=options.model_path / name)) for name, source in sources.items()}
    files = {"original": original, **files}

    scene = open_scene(options.scene, validation_every=0)
    rows = []
    for name, file in files.items():
        measured = options.model_path / "measured" / name
        rendering.run(RenderOptions(measured, options.scene, model=file, skip_train=True))
        measuring.run(MeasureOptions((measured,), options.lpips_weights))
        summary = read_summary(measured)
        to_original = None if name == "original" else against_original(original, file, scene)
        rows.append(
            [
                name,
                cell(summary.megabytes, ".2f"),
                cell(summary.gaussians, ","),
                cell(summary.metrics.psnr, ".2f"),
                cell(summary.metrics.ssim, ".4f"),
                cell(summary.metrics.lpips, ".4f"),
                cell(to_original.psnr if to_original else None, ".2f"),
                cell(to_original.ssim if to_original else None, ".4f"),
            ]
        )
    header = ["made with", "MB", "Gaussians", "PSNR", "SSIM", "LPIPS", "PSNR to original", "SSIM to original"]
    cli.say(f"\non the {len(scene.test)} test photographs:")
    cli.say(format_table(header, rows, "markdown"))


if __name__ == "__main__":
    cli.run(main)
