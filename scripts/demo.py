"""Compress the checkpoint of the shipped scene, measure it before and after on the test views, and show both.

    make demo        # or: python scripts/demo.py [-m output/demo] [--lpips_weights FILE.npz] [train.py's settings]

Everything it writes goes to the output folder.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from _root import ROOT

from programs.options import CompressOptions, MeasureOptions, ReportOptions, parse_compress, parse_render
from scene import model_dir
from utils import cli

SCENE = ROOT / "demo" / "snowmiku"
CHECKPOINT = SCENE / "pretrained"


@dataclass
class Options(CompressOptions):
    """The main job on the shipped scene. All options are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/demo")
    """Folder to write to."""


def main() -> None:
    started = time.perf_counter()
    scene = ["-s", str(SCENE), "-i", "images_400", "--eval"]
    checkpoint = model_dir.checkpoint_path(CHECKPOINT, model_dir.latest_iteration(CHECKPOINT))
    recipe = ["--config", str(ROOT / "configs" / "demo.yaml")]
    given = [*scene, "--pretrained_dir", str(CHECKPOINT), *recipe, "--overwrite", *sys.argv[1:]]
    options = parse_compress(given, Options)
    before, after = options.model_path / "original", options.model_path / "compressed"
    cli.say(f"{CHECKPOINT}: is compressed with {options.recipe.codec} into {after}")

    # PyTorch takes seconds to load, and mistakes on the command line are answered before.
    from comparison import before_after_table, read_view, worst_view, write_comparison

    from programs import compression, measuring, rendering, reporting
    from quality.summary import read_summary

    with cli.progress_bar("compress", "it") as progress:
        result = compression.run(replace(options, model_path=after), progress)
    assert result is not None
    rendering.run(parse_render(["-m", str(before), *scene, "--model", str(checkpoint), "--skip_train"]))
    rendering.run(parse_render(["-m", str(after), "--skip_train"]))
    cli.say(measuring.results_table(measuring.run(MeasureOptions((before, after), options.lpips_weights))))

    view = worst_view(after)
    original, photograph = read_view(before, view)
    compressed, _ = read_view(after, view)
    picture = options.model_path / "comparison.png"
    write_comparison(picture, original, compressed, photograph)
    cli.say("\non the 13 test views, which the run has not seen:")
    cli.say(before_after_table(read_summary(before), read_summary(after)))
    page = reporting.run(ReportOptions(after, options.lpips_weights))
    cli.say(f"\nthe worst of these views: {picture}\nall of it, on a page for any browser: {page}")
    minutes = (time.perf_counter() - started) / 60
    cli.say(f"wrote {result.path}: {result.path.stat().st_size / 1e6:.2f} MB, in {minutes:.1f} min")


if __name__ == "__main__":
    cli.run(main)
