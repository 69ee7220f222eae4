"""The state of a batch on the terminal: a line a job and a bar over all, or lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

_LOG_SECONDS = 30.0
"""Where standard error is no terminal, a running job is mentioned this often."""


class Display:
    """What every job is doing: queued, running, done or failed.

    Args:
        names: Of all jobs, in the order in which they are shown.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._terminal = sys.stderr.isatty()
        self._width = max((len(name) for name in names), default=0)
        self._mentioned: dict[str, float] = {}
        self._lines: dict[str, tqdm] = {}
        if self._terminal:
            for position, name in enumerate(names):
                line = tqdm(total=0, bar_format="{desc}", position=position + 1, leave=True)
                line.set_description_str(f"{name:<{self._width}}  queued")
                self._lines[name] = line
        self._bar = tqdm(total=len(names), desc="scenes", unit="scene", position=0, disable=not self._terminal)

    def running(self, name: str, words: str) -> None:
        """Say what a job is doing now."""
        if self._terminal:
            self._set(name, f"running: {words}")
            return
        now = time.monotonic()
        if now - self._mentioned.get(name, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._mentioned[name] = now
            print(f"{name}: {words}", flush=True)

    def ended(self, name: str, words: str) -> None:
        """Say how a job ended."""
        self._bar.update()
        if self._terminal:
            self._set(name, words)
        else:
            print(f"{name}: {words}", flush=True)

    def close(self) -> None:
        """Leave the terminal below the last line."""
        for line in self._lines.values():
            line.close()
        self._bar.close()

    def _set(self, name: str, words: str) -> None:
        self._lines[name].set_description_str(f"{name:<{self._width}}  {words}")
        self._bar.refresh()
