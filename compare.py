"""Measure how far two models are apart, or a model and its scene: PSNR, SSIM and LPIPS of renders, and sizes.

    python compare.py garden.ply garden.spz                             # what does this conversion cost?
    python compare.py garden.ply --formats spz,sog,gsz:quality=low      # which format is best for this model?
    python compare.py sent.gsz received.gsz                             # is this the model that was sent?
    python compare.py garden.gsz -s data/garden                         # how close is it to its photographs?

Models are files of any format. They are looked at from a scene's test views (``-s``), else from the cameras of a
``cameras.json`` (``--cameras``, or one in a model's folder), else from cameras that are placed around or in the first
model. With ``--min_psnr`` the exit code is 1 where the mean PSNR is lower.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from utils import interrupts

    interrupts.watch()

import sys
from collections.abc import Sequence

from gsz.files import write_text
from programs.options import parse_compare
from utils import cli

SPARE_MEMORY = "give a smaller --view_size or -r, or --backend cpu to leave the GPU out"
EXIT_BELOW_MINIMUM = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse_compare(arguments)
    if not options.brief:
        cli.say(f"{', '.join(map(str, options.models))}: compared")
    from programs import comparing

    with cli.progress_bar("compare", "views") as progress:
        comparison = comparing.run(options, progress)
    if options.brief:
        cli.say(comparing.brief(comparison))
    else:
        cli.say(comparing.report(comparison) if options.formats is None else comparing.formats_table(comparison))
    if options.json is not None:
        comparing.write_json(options.json, comparison)
        cli.say(f"wrote {options.json}")
    if options.html is not None:
        from programs import reporting

        write_text(options.html, reporting.comparison_page(comparison))
        cli.say(f"wrote {options.html}: {options.html.stat().st_size / 1e6:.1f} MB, opens in any browser")
    if options.min_psnr is not None and comparison.psnr < options.min_psnr:
        cli.warn(f"the mean PSNR is {comparison.psnr:.2f} dB, below --min_psnr {options.min_psnr:g}")
        sys.exit(EXIT_BELOW_MINIMUM)


if __name__ == "__main__":
    cli.run(main, SPARE_MEMORY)
