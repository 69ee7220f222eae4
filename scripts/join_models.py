"""Join the blocks of a model that ``split_model.py`` cut and ``run_datasets.py`` compressed.

    python scripts/join_models.py output/city city.gsz                  # of output/city/compressed/*/compressed.*
    python scripts/join_models.py output/city city.ply --compressed output/other

Of each block what lies in its own cell is taken, so that the parts meet without overlap. The format is that of the
file's name, with settings as ``--codec`` gives them.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

from dataclasses import dataclass
from pathlib import Path

import _root  # noqa: F401
import tyro
from blocks.cells import Partition

import gsz
from gsz.splats import Splats
from programs.rendering import choose_model
from scene.gaussian_model import GaussianModel
from utils import cli


@dataclass
class Options:
    """Join the blocks of a model."""

    folder: tyro.conf.Positional[Path]
    """What split_model.py wrote."""
    output: tyro.conf.Positional[Path]
    """The file to write."""
    compressed: Path | None = None
    """Folder with a model directory a block; by default "compressed" in the first folder."""
    codec: str | None = None
    """Format of the file, with its settings; by default that of its name."""


def join(options: Options) -> Splats:
    """Crop and join the blocks, and write them.

    Raises:
        UserError: a block is missing or damaged, or the file cannot be written.
    """
    partition = Partition.read(options.folder / "blocks.json")
    folder = options.compressed or options.folder / "compressed"
    parts = []
    for cell in partition.cells:
        block = GaussianModel.load_ply(choose_model(folder / cell.name).path).numpy()
        parts.append(GaussianModel.of(block.select(cell.contains(partition.points(block)))))
    joined = GaussianModel.concatenate(parts).numpy()
    gsz.write(options.output, joined, options.codec)
    return joined


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    joined = join(options)
    cli.say(f"wrote {options.output}: {len(joined):,} Gaussians, {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.run(main)
