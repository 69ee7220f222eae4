"""Compile all kernels that ``train.py`` runs on a CPU, so that its first run begins at once, as ``make demo`` does.

    python scripts/compile_kernels.py

The programs compile what is missing themselves, one kernel after the other; this does it on two cores. Where all is
compiled already, it takes a few seconds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _root import ROOT

import gsz
from gsz.errors import UserError
from utils import cli

SHORT = ["--first_iterations=1", "--round_iterations=1", "--final_iterations=1", "--max_rounds=1", "--keep_ratio=0.8"]


@dataclass
class Options:
    """Compile all kernels that train.py runs on a CPU, so that its first run begins at once."""


def main() -> None:
    tyro.cli(Options, use_underscores=True)
    cli.say("kernels that are not compiled yet are compiled; this takes a minute of both cores or more, once")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.ply"
        gsz.write(model, a_few_gaussians())
        convert = [ROOT / "decompress.py", model, Path(folder) / "model.gsz"]
        views = ["--views=orbit", "--view_count=8", "--view_size=64x48"]
        config = ["--config", ROOT / "configs" / "demo.yaml", "--codec=gsz:quality=low"]
        train = [ROOT / "train.py", "--pretrained_ply", model, "-m", Path(folder) / "run", *config, *views, *SHORT]
        processes = [
            subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for command in (train, convert)
        ]
        for process in processes:
            said, _ = process.communicate()
            if process.returncode:
                raise UserError(f"the kernels cannot be compiled; {' '.join(map(str, process.args))} said: {said}")
    cli.say("the kernels are compiled")


def a_few_gaussians(count: int = 200) -> gsz.Splats:
    """A ball of Gaussians with view-dependent colors."""
    random = np.random.default_rng(0)
    return gsz.Splats.from_arrays(
        means=random.normal(0, 0.4, (count, 3)),
        log_scales=random.normal(-2.2, 0.3, (count, 3)),
        quaternions=random.normal(0, 1, (count, 4)),
        opacity_logits=random.normal(1, 1.5, (count, 1)),
        sh_dc=random.normal(0, 1, (count, 1, 3)),
        sh_rest=random.normal(0, 0.05, (count, 15, 3)),
    )


if __name__ == "__main__":
    cli.run(main)
