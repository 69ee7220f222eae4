"""Cut a model that is too large for one GPU into blocks that overlap, each with the cameras that see it.

    python scripts/split_model.py models/city/point_cloud/iteration_30000/point_cloud.ply -s data/city --eval \\
        --blocks 4x2 -m output/city
    python scripts/run_datasets.py --scenes output/city/scenes --checkpoints output/city/models \\
        -m output/city/compressed
    python scripts/join_models.py output/city city.gsz

As VastGaussian and CityGaussian do, but for a model that is trained already. Blocks are cells of the plane that the
cameras move in, each with as many Gaussians as the others (``blocks.json``), and with what lies around them
(``--overlap``), which is cropped again in the end. ``scenes/`` gets a scene a block: the views it has at least
``--least_share`` of, and what it should look like in them (:mod:`blocks.scenes`); ``models/`` its checkpoint. With
``--eval`` the scene's test views stay test views of every block and are never trained on.

The whole model is rendered here, once a view and for every three blocks, without gradients: that takes a tenth of the
memory that fine-tuning takes.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import _root  # noqa: F401
import numpy as np
import torch
import tyro
from blocks.cells import Partition
from blocks.scenes import Block, SceneWriter, targets

from compress.views import Views
from gaussian_renderer import choose_backend
from gsz.errors import UserError
from programs.options import BackendName
from scene import GaussianModel, model_dir, open_scene
from scene.options import SceneOptions
from utils import cli
from utils.progress import Progress, counted, silent


@dataclass
class Options:
    """Cut a model into blocks that overlap, each with the cameras that see it."""

    model: tyro.conf.Positional[Path]
    """The trained model, in any format."""
    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder to write to."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    blocks: str = "2x2"
    """Columns and rows."""
    overlap: float = 0.1
    """How far a block reaches into its neighbors, as a part of its own size."""
    least_share: float = 0.01
    """A view that a block has a smaller part of, on average over the pixels, is none of the block's."""
    backend: BackendName = "auto"
    """Renderer."""


def split(options: Options, progress: Progress = silent) -> Partition:
    """Write the scenes, the checkpoints and ``blocks.json``.

    Raises:
        UserError: an option makes no sense, the model or the scene is damaged, or a block is seen by too few views.
    """
    columns, rows = _numbers(options.blocks)
    if not 0.0 <= options.overlap <= 1.0 or not 0.0 <= options.least_share < 1.0:
        raise UserError("--overlap and --least_share must lie between 0 and 1")
    backend = choose_backend(options.backend)
    whole = GaussianModel.load_ply(options.model).to(backend.device)
    scene = open_scene(options.scene, validation_every=0, device=backend.device)
    views = Views.of(scene, [*scene.train, *scene.test], options.backend)
    if columns * rows > len(whole):
        raise UserError(
            f"--blocks {options.blocks}: are more blocks than the {len(whole)} Gaussians of {options.model}"
        )

    centers = np.stack([camera.center for camera in scene.train])
    partition = Partition.of(whole, centers, columns, rows)
    points = partition.points(whole)
    masks = [cell.contains(points, cell.margin(points, options.overlap)) for cell in partition.cells]
    blocks = [
        Block(cell.name, torch.from_numpy(mask).to(whole.device))
        for cell, mask in zip(partition.cells, masks, strict=True)
    ]
    writers = [SceneWriter(options.model_path / "scenes" / block.name) for block in blocks]
    tests = {camera.name for camera in scene.test}
    for camera in counted(views.cameras, progress):
        for writer, (target, share) in zip(writers, targets(camera, views, whole, blocks), strict=True):
            if share >= options.least_share:
                writer.add(camera, target, tests=camera.name in tests)
    for block, writer in zip(blocks, writers, strict=True):
        if writer.training_views < 2:
            raise UserError(
                f"block {block.name}: is seen by too few views; give fewer --blocks or a lower --least_share"
            )
        writer.finish()
        model_dir.save_checkpoint(options.model_path / "models" / block.name, 0, whole.select(block.members))
        cli.say(f"{block.name}: {int(block.members.sum()):,} Gaussians, {writer.training_views} views to train on")
    partition.write(options.model_path / "blocks.json")
    return partition


def _numbers(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]?)x([1-9][0-9]?)", text)
    if match is None:
        raise UserError(f"--blocks {text}: must be columns and rows, such as 2x2")
    return int(match[1]), int(match[2])


def main() -> None:
    options = tyro.cli(Options, use_underscores=True, config=(tyro.conf.OmitArgPrefixes,))
    with cli.progress_bar("split", "view") as progress:
        partition = split(options, progress)
    cli.say(f"wrote {len(partition.cells)} blocks to {options.model_path}")


if __name__ == "__main__":
    cli.run(main)
