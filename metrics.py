"""Measure what render.py wrote: PSNR, SSIM and LPIPS of the test views, and size, count and speed of the model.

    python metrics.py -m output/garden [output/bicycle ...] [--lpips_weights lpips_vgg16.npz]

Reads ``test/*/{renders,gt}/*.png`` of each model directory, prints a table, and writes ``results.json`` and
``per_view.json`` in the shape of the 3DGS repository. Directories that INRIA's own ``render.py`` wrote work as well;
only size, count and speed are not known for them.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

from collections.abc import Sequence

from programs.options import parse_measure
from utils import cli

SPARE_MEMORY = "render the views with a smaller -r, or leave out LPIPS, which needs the most"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_measure(arguments)
    cli.say(f"{', '.join(map(str, options.model_paths))}: what render.py wrote is measured")
    from programs import measuring

    with cli.progress_bar("metrics", "views") as progress:
        results = measuring.run(options, progress)
    cli.say(measuring.results_table(results))


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
