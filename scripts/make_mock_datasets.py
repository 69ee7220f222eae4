"""Make a mock of the three datasets out of the demo scene: same names and layout, small models, a schedule of seconds.

    python scripts/make_mock_datasets.py output/mock
    python scripts/run_datasets.py --mipnerf360 output/mock/360 --tanksandtemples output/mock/tandt \
        --deepblending output/mock/db --checkpoints output/mock/models --config output/mock/tiny.yaml -m output/mock/out

All thirteen scenes have the photographs of ``demo/snowmiku`` and each a random part of its checkpoint. What batches do
with many scenes, machines and failures can be tried on them in minutes; their figures mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _root import ROOT
from batch.datasets import DATASETS

from gsz.files import write_text
from scene import model_dir
from scene.gaussian_model import GaussianModel
from utils import cli

DEMO = ROOT / "demo" / "snowmiku"
FOLDERS = {"mipnerf360": "360", "tanksandtemples": "tandt", "deepblending": "db"}

RECIPE = """\
# A schedule of seconds, for trying batches.
codec: gsz
score: removal_error
prune_fraction: 0.3
first_iterations: 5
round_iterations: 5
final_iterations: 10
max_rounds: 2
max_psnr_drop: .inf
"""


@dataclass
class Options:
    """Make a mock of the three datasets out of the demo scene."""

    folder: tyro.conf.Positional[Path]
    """Folder to write to."""
    gaussians: int = 2000
    """Gaussians in each checkpoint."""


def make(options: Options) -> None:
    """Write the folders ``360``, ``tandt``, ``db`` and ``models`` and the recipe ``tiny.yaml``."""
    checkpoint = DEMO / "pretrained"
    whole = GaussianModel.load_ply(model_dir.checkpoint_path(checkpoint, model_dir.latest_iteration(checkpoint)))
    for dataset in DATASETS:
        for scene, images in dataset.images.items():
            source = options.folder / FOLDERS[dataset.key] / scene
            source.mkdir(parents=True, exist_ok=True)
            for name, target in ((images, DEMO / "images_400"), ("sparse", DEMO / "sparse")):
                if not (source / name).exists():
                    (source / name).symlink_to(target.resolve(), target_is_directory=True)
            random = np.random.default_rng(sorted(dataset.images).index(scene))
            chosen = np.sort(random.choice(len(whole), options.gaussians, replace=False))
            part = GaussianModel.of(whole.numpy().select(chosen))
            model_dir.save_checkpoint(options.folder / "models" / scene, 30_000, part)
    write_text(options.folder / "tiny.yaml", RECIPE)


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    make(options)
    cli.say(f"wrote {sum(len(dataset.images) for dataset in DATASETS)} scenes to {options.folder}")


if __name__ == "__main__":
    cli.run(main)
