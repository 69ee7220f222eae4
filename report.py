"""Write the page of a finished run, ``report.html``: one file that opens in any browser, without a network.

    python report.py -m output/garden [--lpips_weights lpips_vgg16.npz]

It shows the worst view first, then the median and the best one, photograph, original and compressed model beside each
other and in 3D; every view's figures, the rounds, where the bytes are, and how the run was made. ``train.py`` writes
the same page at its end.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

from collections.abc import Sequence

from programs.options import parse_report
from utils import cli

SPARE_MEMORY = "use --backend cpu to leave the GPU out"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_report(arguments)
    cli.say(f"{options.model_path}: its page is written")
    from programs import reporting

    with cli.progress_bar("report", "views") as progress:
        reporting.run(options, progress)


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
