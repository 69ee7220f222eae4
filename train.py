"""Compress a trained 3DGS model: score, prune, fine-tune on the grid of the file, write.

    python train.py -s data/garden --pretrained_dir models/garden -m output/garden --eval -i images_4

Writes to the model directory the compressed file (``compressed.*``), the model it decodes to
(``point_cloud/iteration_N/point_cloud.ply``, for any viewer), a page that shows all of it (``report.html``), a table of
the rounds (``journal.csv``), and ``recipe.yaml``, ``options.yaml``, ``made.yaml``, ``cameras.json`` and ``cfg_args``.
``render.py`` and ``metrics.py`` go on from there.

Without photographs (no ``-s``), the model's own renders are what the compressed model has to match, at the cameras of
its ``cameras.json`` or, for a lone ``.ply``, at cameras that are placed around or in it::

    python train.py --pretrained_ply garden.ply -m output/garden --eval
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gsz.errors import UserError
from programs.options import CompressOptions, ReportOptions
from programs.options import parse_compress as parse
from utils import cli, interrupts

if TYPE_CHECKING:
    from compress.loop import Result
    from utils.progress import Progress

__all__ = ["main", "parse", "train"]

SPARE_MEMORY = (
    "give a smaller -r or a smaller --cache_memory; on a GPU also --data_device cpu, or --backend cpu to leave it out"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    started = time.time()
    options = parse(arguments)
    interrupts.advise(lambda: command_to_go_on(options, started))
    cli.meet_others()
    model = options.pretrained_ply or options.pretrained_dir
    if model is not None:
        cli.say(f"{model}: is compressed with {options.recipe.codec} into {options.model_path}")
    with cli.progress_bar("compress", "it") as progress:
        result = train(options, progress)
    if result is not None and options.report:
        write_report(options)


def train(options: CompressOptions, progress: Progress | None = None) -> Result | None:
    """Compress a model as the options say; see :func:`programs.compression.run`."""
    from programs import compression
    from utils.progress import silent

    return compression.run(options, progress or silent)


def write_report(options: CompressOptions) -> None:
    """Write the page of the run, which is finished whatever becomes of its page."""
    from programs import reporting

    page = ReportOptions(options.model_path)
    interrupts.advise(lambda: shlex.join(["python", "report.py", "-m", str(options.model_path)]))
    with cli.progress_bar("report", "views") as progress:
        try:
            reporting.run(page, progress)
        except UserError as error:
            cli.warn(f"{error}; there is no page of the run, which is finished")


def command_to_go_on(options: CompressOptions, started: float) -> str:
    """The command that an interrupted run goes on with: it is resumed where it has come to a state to resume from."""
    from compress.run_dir import RunDir

    folder = RunDir(options.model_path)
    if folder.has_state() and (options.resume or folder.state_time() >= started):
        return interrupts.same_command("--resume", without=("--overwrite",))
    return interrupts.same_command()


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
