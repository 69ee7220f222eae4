"""Put a model before and after compression side by side: a picture of one view, and the table of both.

    python scripts/comparison.py models/garden output/garden --view 3 -o comparison.png

Both directories have been through ``render.py``; where ``metrics.py`` has measured both, the table is printed too.
The picture shows, from left to right, the photograph, the original, the compressed model, and ten times the difference
of the latter two.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import _root  # noqa: F401
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gsz.errors import UserError
from gsz.files import atomic_path
from programs.measuring import RenderedMethod, find_methods, read_image
from quality.metrics import psnr
from quality.summary import ModelSummary, read_summary
from utils import cli
from utils.tables import Style, cell, format_table

DIFFERENCE_GAIN = 10
_GAP = 4
_BACKGROUND = (255, 255, 255)
_INK = (30, 30, 30)


@dataclass
class Options:
    """Put a model before and after compression side by side."""

    before: tyro.conf.Positional[Path]
    """Rendered model directory of the original."""
    after: tyro.conf.Positional[Path]
    """Rendered model directory of the compressed model."""
    view: int = 0
    """Number of the test view, from 0."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("comparison.png")
    """The picture to write."""
    markdown: bool = False
    """Print the table as Markdown."""


def comparison_picture(panels: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Images of one size in a row, each under its label.

    Args:
        panels: Label and ``(H, W, 3)`` image in [0, 1]; at least one.
    """
    height, width = panels[0][1].shape[:2]
    # A label is as large as the narrowest picture lets it be, and never larger than a caption should.
    font_size = max(9, min(28, width // 26))
    font = ImageFont.load_default(font_size)
    top = 2 * font_size
    picture = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, top + height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for column, (label, image) in enumerate(panels):
        if image.shape != panels[0][1].shape:
            raise ValueError(f"{label}: expected {tuple(panels[0][1].shape)}, got {tuple(image.shape)}")
        left = column * (width + _GAP)
        draw.text((left + width / 2, top / 2), label, fill=_INK, font=font, anchor="mm")
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        picture.paste(Image.fromarray(pixels), (left, top))
    return picture


def write_comparison(path: Path, original: Tensor, compressed: Tensor, photograph: Tensor | None = None) -> None:
    """Write a PNG: photograph (if given) | original | compressed | 10 x difference, all ``(H, W, 3)`` in [0, 1].

    Where there is a photograph, the labels give the PSNR of each render against it.
    """

    def label(name: str, image: Tensor) -> str:
        return name if photograph is None else f"{name} ({psnr(image.clamp(0, 1), photograph):.2f} dB)"

    difference = (original.clamp(0, 1) - compressed.clamp(0, 1)).abs() * DIFFERENCE_GAIN
    panels = [] if photograph is None else [("photograph", photograph)]
    panels += [
        (label("original", original), original),
        (label("compressed", compressed), compressed),
        (f"{DIFFERENCE_GAIN} x difference", difference),
    ]
    with atomic_path(path) as temporary:
        comparison_picture(panels).save(temporary)


def before_after_table(before: ModelSummary, after: ModelSummary, style: Style = "text") -> str:
    """PSNR, SSIM, LPIPS, Gaussians, MB (10^6 bytes) and ratio of file sizes, before and after compression."""

    def row(name: str, summary: ModelSummary, ratio: float | None) -> list[str]:
        return [
            name,
            cell(summary.metrics.psnr, ".2f"),
            cell(summary.metrics.ssim, ".4f"),
            cell(summary.metrics.lpips, ".4f"),
            cell(summary.gaussians, ","),
            cell(summary.megabytes, ".2f"),
            "n/a" if ratio is None else f"{ratio:.1f}x",
        ]

    ratio = before.bytes / after.bytes if before.bytes is not None and after.bytes else None
    header = ["", "PSNR", "SSIM", "LPIPS", "Gaussians", "MB", "ratio"]
    return format_table(header, [row("original", before, 1.0), row("compressed", after, ratio)], style)


def read_view(model_dir: Path, view: int) -> tuple[Tensor, Tensor]:
    """Render and photograph of the ``view``-th test view, of the method with the highest iteration."""

    method = latest_method(model_dir)
    if not 0 <= view < len(method.pairs):
        raise UserError(f"{model_dir}: has no test view {view}; choose --view 0 to {len(method.pairs) - 1}")
    render, photograph = method.pairs[view]
    return read_image(render), read_image(photograph)


def worst_view(model_dir: Path) -> int:
    """Number of the test view that a model shows worst, by PSNR against its photograph."""

    def quality(view: int) -> float:
        render, photograph = read_view(model_dir, view)
        return psnr(render, photograph)

    return min(range(len(latest_method(model_dir).pairs)), key=quality)


def latest_method(model_dir: Path) -> RenderedMethod:
    """What was rendered of the highest iteration."""

    def iteration(method: RenderedMethod) -> int:
        digits = method.name.rpartition("_")[2]
        return int(digits) if digits.isdecimal() else -1

    return max(find_methods(model_dir), key=iteration)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = tyro.cli(Options, args=arguments, use_underscores=True)
    original, photograph = read_view(options.before, options.view)
    compressed, _ = read_view(options.after, options.view)
    if original.shape != compressed.shape:
        raise UserError(
            f"{options.after}: was rendered at another size than {options.before}; render both with the same -r"
        )
    output = options.output if options.output.suffix else options.output.with_suffix(".png")
    write_comparison(output, original, compressed, photograph)
    cli.say(f"wrote {output}")
    if all((model_dir / "results.json").exists() for model_dir in (options.before, options.after)):
        style: Style = "markdown" if options.markdown else "text"
        cli.say(before_after_table(read_summary(options.before), read_summary(options.after), style))


if __name__ == "__main__":
    cli.run(main)
