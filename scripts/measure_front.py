"""What the rounds of a run lost on the views that judged them, beside what they lost on the test views.

    python scripts/measure_front.py -m output/garden -s data/garden -i images_4 --pretrained_dir models/garden

The table tells how well a budget that is measured on the former keeps what it promises for the latter.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import _root  # noqa: F401
from tqdm import tqdm

import train
from compress.budget import quality_lost
from compress.front import read_front
from compress.run_dir import read_journal
from compress.views import Views
from gsz import registry
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.tables import format_table


def measure_front(run: train.Options) -> str:
    """A row a round in Markdown.

    Raises:
        UserError: there is no run in the folder, or the scene or the original cannot be read.
    """
    uncompressed = read_journal(run.model_path / "journal.csv")[0].metrics
    front = read_front(run.model_path / "front")
    original, original_path = train.load_original(run)
    scene = train.load_scene(run, original, original_path)
    test = Views(scene.test, scene.images.load, scene.background, scene.extent, run.backend)
    before = test.evaluate(original.to(scene.background.device))
    rows = []
    for entry in tqdm(front.entries, unit="model", leave=False):
        judged = quality_lost(entry.metrics, uncompressed)
        tested = quality_lost(test.evaluate(GaussianModel.of(registry.read(front.path(entry)))), before)
        rows.append(
            [
                entry.stage,
                f"{entry.gaussians:,}",
                f"{entry.bytes / 1e6:.2f}",
                f"{judged.psnr:.2f}",
                f"{judged.ssim:.4f}",
                f"{tested.psnr:.2f}",
                f"{tested.ssim:.4f}",
            ]
        )
    header = ["", "Gaussians", "MB", "PSNR lost where judged", "SSIM", "PSNR lost on test views", "SSIM"]
    return format_table(header, rows, "markdown")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], usage="%(prog)s OPTIONS, which are those of the run", allow_abbrev=False
    )
    _, settings = parser.parse_known_args(arguments)
    cli.say(measure_front(train.parse([*settings, "--eval"])))


if __name__ == "__main__":
    cli.run(main)
