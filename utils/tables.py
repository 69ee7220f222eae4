"""Tables in plain text and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Style = Literal["text", "markdown"]
NOT_AVAILABLE = "n/a"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], style: Style = "text") -> str:
    """Columns padded to their widest cell; the first one left-aligned, the others, which hold numbers, to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |" if style == "markdown" else "  ".join(padded).rstrip()

    if style == "markdown":
        rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    else:
        rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def cell(value: float | None, pattern: str) -> str:
    """``value`` formatted by ``pattern`` (such as ``".2f"``), or "n/a"."""
    return NOT_AVAILABLE if value is None else format(value, pattern)
