"""Pages of HTML that are one file each: pictures, models, the viewer and all else are in them, and nothing is fetched.

Everything that comes from a file's name or content is escaped. Without scripts a page still shows all pictures and
tables; so it does printed.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gsz.viewer_script import viewer_script

ASSETS = Path(__file__).parent / "assets"
MOST_BYTES = 5_000_000
"""Largest page."""

PICTURE_WIDTH = 1000
"""Wider pictures are scaled down to this many pixels."""
PICTURE_QUALITY = 88
DIFFERENCE_GAIN = 10

escape = html.escape


def tiles(items: Sequence[tuple[str, str, str]]) -> str:
    """Figures side by side: what it is, its value, and what it was measured on."""
    cells = [
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(where)}</small></dd></div>"
        for what, value, where in items
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and what it is sorted by."""

    text: str
    value: float | None = None


def number(value: float | None, pattern: str) -> Cell:
    """A cell with a number, or with "n/a"."""
    if value is None:
        return Cell("n/a", -math.inf)
    return Cell("equal" if math.isinf(value) else format(value, pattern), value)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    sortable: bool = False,
    marked: Sequence[int] = (),
) -> str:
    """A table, the first column of which names its rows.

    Args:
        marked: Numbers of the rows that stand out.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = []
    for index, row in enumerate(rows):
        cells = [_cell(cell, "th" if column == 0 else "td") for column, cell in enumerate(row)]
        lines.append(f"<tr{' class=marked' if index in marked else ''}>{''.join(cells)}</tr>")
    return _scrolling(caption, head, lines, " data-sortable" if sortable else "")


def _scrolling(caption: str, head: str, lines: Sequence[str], attributes: str = "") -> str:
    """A table, which scrolls sideways where it is too wide, below its caption, which does not."""
    return (
        f"<p class=caption>{escape(caption)}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table{attributes}>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(cell: Cell | str, tag: str) -> str:
    scope = ' scope="row"' if tag == "th" else ""
    if isinstance(cell, str):
        return f"<{tag}{scope}>{escape(cell)}</{tag}>"
    value = "" if cell.value is None else f' data-value="{cell.value:.9g}"'
    return f"<{tag}{scope}{value}>{escape(cell.text)}</{tag}>"


def byte_bars(caption: str, before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Bytes by attribute of two files, each bar relative to the largest attribute of its own file."""
    names = [*before, *(name for name in after if name not in before)]
    rows = []
    for name in names:
        cells = []
        for sizes, style in ((before, "bar"), (after, "bar after")):
            share = 100 * sizes.get(name, 0) / max(max(sizes.values(), default=0), 1)
            cells.append((sizes.get(name, 0), f'<span class="{style}" style="width:{share:.1f}%"></span>'))
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>'
            f'<td>{cells[0][0]:,}</td><td>{cells[1][0]:,}</td><td class="bars">{cells[0][1]}{cells[1][1]}</td></tr>'
        )
    head = '<th scope="col">attribute</th><th scope="col">before</th><th scope="col">after</th><td></td>'
    return _scrolling(caption, head, rows)


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """Names and what they are."""
    pairs = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items]
    return f'<dl class="made">{"".join(pairs)}</dl>'


# --- Pictures --------------------------------------------------------------------------------------------------------


def picture(image: Tensor) -> str:
    """An ``(H, W, 3)`` image in [0, 1] as the address of a JPEG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    shown = Image.fromarray(pixels)
    if shown.width > PICTURE_WIDTH:
        shown = shown.resize((PICTURE_WIDTH, max(1, round(shown.height * PICTURE_WIDTH / shown.width))))
    packed = io.BytesIO()
    shown.save(packed, "JPEG", quality=PICTURE_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def difference(one: Tensor, other: Tensor) -> Tensor:
    """Ten times the absolute difference of two images."""
    return ((one.clamp(0, 1) - other.clamp(0, 1)).abs() * DIFFERENCE_GAIN).clamp(0, 1)


def pictures(view: str, images: Mapping[str, tuple[str, Tensor]]) -> str:
    """Pictures of one view by name, each with a caption."""
    figures = [
        f'<figure><img src="{picture(image)}" data-name="{escape(name)}" width="{image.shape[1]}" '
        f'height="{image.shape[0]}" alt="{escape(f"{name} of view {view}")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for name, (caption, image) in images.items()
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'


# --- Size against quality --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A model in a plot of quality over size."""

    name: str
    bytes: int
    psnr: float
    kind: str


LEAST_SPAN = 3.0
"""dB from the bottom of a plot to its top, at least: so a tenth of a dB does not look like a cliff."""


def front_plot(title: str, points: Sequence[Point]) -> str:
    """PSNR over the size of files, on a logarithmic axis.

    Kinds of points are "original", "final", "on" (the front) and "round".
    """
    width, height, left, bottom = 720, 340, 52, 44
    sizes = [point.bytes for point in points]
    low, high = math.log(min(sizes) * 0.8), math.log(max(sizes) * 1.25)
    middle = (min(point.psnr for point in points) + max(point.psnr for point in points)) / 2
    span = max(LEAST_SPAN, 1.2 * (max(point.psnr for point in points) - min(point.psnr for point in points)))

    def x(size: float) -> float:
        return left + (width - left - 20) * (math.log(size) - low) / max(high - low, 1e-9)

    def y(psnr: float) -> float:
        return 16 + (height - bottom - 16) * (middle + span / 2 - psnr) / span

    parts = []
    for tick in _ticks(middle - span / 2, middle + span / 2):
        parts.append(f'<path class="axis" d="M{left} {y(tick):.1f}H{width - 20}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for size in _decades(math.exp(low), math.exp(high)):
        parts.append(f'<path class="axis" d="M{x(size):.1f} 16V{height - bottom}"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{height - bottom + 16}" text-anchor="middle">{size / 1e6:g}</text>')
    line = sorted((point for point in points if point.kind == "on"), key=lambda point: point.bytes)
    if len(line) > 1:
        path = "L".join(f"{x(point.bytes):.1f} {y(point.psnr):.1f}" for point in line)
        parts.append(f'<path class="front" d="M{path}"/>')
    for point in points:
        radius = 7 if point.kind in ("final", "original") else 4
        parts.append(
            f'<circle class="{point.kind}" cx="{x(point.bytes):.1f}" cy="{y(point.psnr):.1f}" r="{radius}">'
            f"<title>{escape(point.name)}: {point.bytes / 1e6:.3f} MB, {point.psnr:.2f} dB</title></circle>"
        )
        if point.kind in ("final", "original"):
            anchor = "end" if x(point.bytes) > width / 2 else "start"
            parts.append(
                f'<text class="name" x="{x(point.bytes):.1f}" y="{y(point.psnr) - 12:.1f}" '
                f'text-anchor="{anchor}">{escape(point.name)}</text>'
            )
    parts.append(f'<text x="{width - 20}" y="{height - 8}" text-anchor="end">file, MB (logarithmic)</text>')
    parts.append(f'<text x="{left}" y="11">PSNR, dB</text>')
    described = "; ".join(f"{point.name}: {point.bytes / 1e6:.3f} MB, {point.psnr:.2f} dB" for point in points)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{title}. {described}")}">'
        f"{''.join(parts)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range, four to nine of them."""
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= 8)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten in a range."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [size for power in exponents for digit in (1, 2, 5) if low <= (size := digit * 10.0**power) <= high]


# --- The whole -------------------------------------------------------------------------------------------------------


@dataclass
class Scene3D:
    """What the viewer of a page shows.

    Attributes:
        models: One or two files that the viewer reads, by name.
        cameras: Entries of a cameras.json.
        background: ``#rrggbb``.
        notes: What has to be said of the models.
        starts: Whether they are shown at once, or when a button asks for them.
    """

    models: dict[str, bytes]
    cameras: list[dict[str, Any]]
    background: str = "#000000"
    notes: list[str] = field(default_factory=list)
    starts: bool = False

    def html(self) -> tuple[str, str]:
        """Where the viewer stands, and the data behind the page."""
        names = "|".join(name.replace("|", " ") for name in self.models)
        look = "split" if len(self.models) == 2 else "first"
        notes = "".join(f"<p class=dim>{escape(note)}</p>" for note in self.notes)
        stage = (
            '<p class="dim screen">Drag to turn, Shift-drag or two fingers to move, wheel or pinch to come nearer; '
            "Page Up and Page Down go through the views, Space exchanges the models.</p>"
            f'<div id="three" class="screen" data-names="{escape(names)}" data-look="{look}" '
            f'data-background="{escape(self.background)}"{" data-starts" if self.starts else ""}>'
            '<button data-camera="0" hidden>Show the models in 3D</button></div>' + notes
        )
        data = f'<script type="application/json" id="cameras">{_json(self.cameras)}</script>'
        for index, model in enumerate(self.models.values()):
            data += f'<script type="text/plain" id="model-{index}">{base64.b64encode(model).decode()}</script>'
        return stage, data + viewer_element()


def viewer_element() -> str:
    """The script that makes ``<gsz-viewer>`` known."""
    return f"<script>{_script(viewer_script())}</script>"


def whole_page(title: str, body: str, data: str = "", *, extra_style: str = "", script: str | None = None) -> str:
    """A page of that title, of sections and the data behind them, with the usual script or another one."""
    style, usual = ((ASSETS / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    script = usual if script is None else script
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'  # Browsers ask for one otherwise.
        f"<style>{style}{extra_style}</style></head>\n"
        f"<body><main>{body}</main>\n{data}<script>{_script(script)}</script></body></html>\n"
    )


def _json(value: Any) -> str:
    """JSON that may stand in a script."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _script(code: str) -> str:
    """A program that may stand in a script: nothing in it ends the element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
