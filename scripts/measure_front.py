"""Compare what the rounds of a run lost on the views that judged them with what they lost on the test views.

    python scripts/measure_front.py -m output/garden

The table tells how well a budget that is measured on the views that judge keeps its promise on all others.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

from collections.abc import Sequence

import _root  # noqa: F401
from experiment import parse

from compress.budget import Loss
from compress.front import rounds_of
from compress.judging import Judge
from compress.run_dir import RunDir
from compress.views import Views
from programs import compression
from programs.options import CompressOptions
from utils import cli
from utils.progress import Progress, counted, silent
from utils.tables import format_table


def measure_front(options: CompressOptions, progress: Progress = silent) -> str:
    """A row a round in Markdown.

    Raises:
        UserError: there is no finished run in the folder, or the scene or the original cannot be read.
    """
    folder = RunDir(options.model_path)
    journal = folder.finished_journal()
    suffix = options.recipe.make_codec().suffix
    original, original_path = compression.load_original(options)
    scene = compression.load_scene(options, original, original_path)
    test = Judge(Views.of(scene, scene.test, options.backend))
    before = test.evaluate(original)
    rows = []
    for row in counted(rounds_of(journal), progress):
        judged = Loss.between(journal[0].metrics, row.metrics)
        tested = Loss.between(before, test.evaluate(folder.read_front(row, suffix, finished=True)))
        rows.append(
            [
                row.stage,
                f"{row.gaussians:,}",
                f"{row.bytes / 1e6:.2f}",
                *(f"{judged.psnr_drop:.2f}", f"{judged.ssim_drop:.4f}"),
                *(f"{tested.psnr_drop:.2f}", f"{tested.ssim_drop:.4f}"),
            ]
        )
    header = ["", "Gaussians", "MB", "PSNR lost where judged", "SSIM", "PSNR lost on test views", "SSIM"]
    return format_table(header, rows, "markdown")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    with cli.progress_bar("test views", "models") as progress:
        # As train.py --resume, so that all options are those of the run.
        table = measure_front(parse(arguments, CompressOptions, "--resume"), progress)
    cli.say(table)


if __name__ == "__main__":
    cli.run(main)
