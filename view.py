"""Show one or two models, or all that a run has written, in the browser.

    python view.py garden.gsz                           # any format
    python view.py garden.ply garden.spz -s data/garden # A/B and difference, from the cameras of the photographs
    python view.py output/garden                        # a run: original, every round, result; while it runs too
    python view.py garden.gsz --export garden.html      # one file, which opens from disk without a network

The page is served to this machine alone, at an address that is printed. ``gsz view`` is the same.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

from collections.abc import Sequence

from programs.options import parse_view
from utils import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_view(arguments)
    from programs import viewing

    viewing.run(options, cli.say)


if __name__ == "__main__":
    cli.run(main)
