"""Render the training and test views of a model, in any format, beside the photographs.

    python render.py -m output/garden                       # the run's compressed file, or else its latest checkpoint
    python render.py -m output/garden --iteration 30000     # a checkpoint; -1 is the latest
    python render.py -m output/garden --model garden.spz    # any other model of the same scene
    python render.py -m output/other --model garden.spz -s data/garden --eval           # into a folder of its own

Scene, image folder and resolution are those in the model directory's ``cfg_args``; the usual flags override them.
Images go to ``train/ours_N/{renders,gt}/00000.png`` and ``test/ours_N/...`` as in the 3DGS repository, where
``metrics.py`` finds them. The test views are then rendered once more without writing, to measure the speed. For a model
that was compressed without photographs, the renders of its original stand for them.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

from collections.abc import Sequence

from programs.options import parse_render
from utils import cli

SPARE_MEMORY = "give a smaller -r, or --backend cpu to leave the GPU out"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_render(arguments)
    cli.say(f"{options.model_path}: its views are rendered")
    from programs import rendering

    with cli.progress_bar("render", "views") as progress:
        rendering.run(options, progress)


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
