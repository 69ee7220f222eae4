"""Measure what render.py wrote: PSNR, SSIM and LPIPS of the test views, and size, count and speed of the model.

    python metrics.py -m output/garden [output/bicycle ...] [--lpips_weights lpips_vgg16.npz]

Reads ``test/*/{renders,gt}/*.png`` of each model directory, prints a table, and writes ``results.json`` and
``per_view.json`` in the shape of the 3DGS repository. Directories that INRIA's own ``render.py`` wrote work as well;
only size, count and speed are not known for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from programs import measuring
from utils import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    with cli.progress_bar("metrics", "views") as progress:
        results = measuring.run(measuring.parse(arguments), progress)
    cli.say(measuring.results_table(results))


if __name__ == "__main__":
    cli.run(main)
