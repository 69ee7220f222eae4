"""Train a plain 3DGS model from photographs with poses: what INRIA's train.py does, on any renderer of this project.

    python pretrain.py -s data/garden -m models/garden --eval -i images_4

It writes the model directory that INRIA's program writes (``point_cloud/``, ``cameras.json``, ``cfg_args``,
``input.ply``); ``train.py --pretrained_dir`` compresses it.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

from collections.abc import Sequence

from pretraining.checkpoint_files import latest_checkpoint
from programs.options import PretrainOptions, parse_pretrain
from utils import cli, interrupts

SPARE_MEMORY = "give --max_gaussians or a smaller -r; on a GPU also --data_device cpu, or --backend cpu to leave it out"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_pretrain(arguments)
    interrupts.advise(lambda: command_to_go_on(options))
    cli.meet_others()
    cli.say(f"{options.scene.source_path}: a model of it is trained in {options.model_path}")
    from programs import training

    with cli.progress_bar("pretrain", "it") as progress:
        training.run(options, progress)


def command_to_go_on(options: PretrainOptions) -> str:
    """The command that an interrupted training goes on with: it is resumed where it has saved its state."""
    if latest_checkpoint(options.model_path) is None:
        return interrupts.same_command()
    return interrupts.same_command("--resume", without=("--overwrite",))


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
