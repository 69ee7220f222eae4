"""Compress a trained 3DGS model: score, prune, fine-tune on the grid of the file, write.

    python train.py -s data/garden --pretrained_dir models/garden -m output/garden --eval -i images_4

Writes to the model directory the compressed file (``compressed.*``), the model it decodes to
(``point_cloud/iteration_N/point_cloud.ply``, for any viewer), ``journal.csv`` and ``journal.png`` with a row a round,
``recipe.yaml``, ``options.yaml``, ``cameras.json`` and ``cfg_args``. ``render.py`` and ``metrics.py`` go on from there.

Without photographs (no ``-s``), the model's own renders are what the compressed model has to match, at the cameras of
its ``cameras.json`` or, for a lone ``.ply``, at cameras that are placed around or in it::

    python train.py --pretrained_ply garden.ply -m output/garden --eval
"""

from __future__ import annotations

from collections.abc import Sequence

from programs.compression import Options, parse
from programs.compression import run as train
from utils import cli

__all__ = ["Options", "main", "parse", "train"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    with cli.progress_bar("compress", "it") as progress:
        train(parse(arguments), progress)


if __name__ == "__main__":
    cli.run(main)
