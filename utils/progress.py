"""How library code reports progress: it calls a function that it was given, and the program behind it draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[int, int, str], None]
"""Called after every step with the number of steps done, the number expected in all, which may change on the way, and
a few words on how things stand, which may be empty."""


def silent(done: int, total: int, note: str = "") -> None:
    """Report progress to nobody."""


def counted(items: Iterable[T], progress: Progress, total: int | None = None) -> Iterator[T]:
    """The items, one after the other, each counted as a step once it has been worked on."""
    expected = total if total is not None else len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items, start=1):
        yield item
        progress(done, max(expected, done), "")
