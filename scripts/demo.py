"""The main job on the shipped scene: compress its checkpoint, measure before and after on the test views, show both.

    make demo        # or: python scripts/demo.py [-m output/demo] [--lpips_weights FILE.npz] [train.py's settings]

Everything it writes goes to the output folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from _root import ROOT
from comparison import before_after_table, read_view, write_comparison

import metrics
import render
import train
from quality.metrics import read_summary
from scene import model_dir
from utils import cli

SCENE = ROOT / "demo" / "snowmiku"
CHECKPOINT = SCENE / "pretrained"
SHOWN_VIEW = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model_path", type=Path, default=Path("output/demo"), help="default: %(default)s")
    parser.add_argument("--lpips_weights", type=Path, help="VGG weights for LPIPS as .npz; see README.md")
    options, settings = parser.parse_known_args()
    started = time.perf_counter()
    before, after = options.model_path / "original", options.model_path / "compressed"
    scene = ["-s", str(SCENE), "-i", "images_400", "--eval"]

    result = train.train(
        train.parse(
            [
                *("--config", str(ROOT / "configs" / "demo.yaml")),
                *(*scene, "--pretrained_dir", str(CHECKPOINT), "-m", str(after)),
                *settings,
            ]
        )
    )
    checkpoint = model_dir.checkpoint_path(CHECKPOINT, model_dir.latest_iteration(CHECKPOINT))
    render.main(["-m", str(before), *scene, "--model", str(checkpoint), "--skip_train"])
    render.main(["-m", str(after), "--skip_train"])
    weights = ["--lpips_weights", str(options.lpips_weights)] if options.lpips_weights else []
    metrics.main(["-m", str(before), str(after), *weights])

    original, photograph = read_view(before, SHOWN_VIEW)
    compressed, _ = read_view(after, SHOWN_VIEW)
    picture = options.model_path / "comparison.png"
    write_comparison(picture, original, compressed, photograph)
    cli.say("\non the 13 test views, which the run has not seen:")
    cli.say(before_after_table(read_summary(before), read_summary(after)))
    cli.say(f"\npicture: {picture}")
    minutes = (time.perf_counter() - started) / 60
    cli.say(f"wrote {result.path}: {result.path.stat().st_size / 1e6:.2f} MB, in {minutes:.1f} min")


if __name__ == "__main__":
    cli.run(main)
