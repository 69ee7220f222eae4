"""How Numba kernels are compiled, and where the compiled code is kept, without touching Numba's settings.

Numba keeps compiled code in one folder for all of a program. It notices a change of the file that holds a kernel, but
not of the files that the kernel calls into, nor does it help where that folder cannot be written. So each package of
kernels has a :class:`Kernels` of its own, and with it a folder that is named after the sources of the whole package:
such a folder can never serve stale code. It lies in the package's ``__pycache__``, or where that cannot be written (an
installation for all users, say) in the user's cache folder; in ``NUMBA_CACHE_DIR``, where that is set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numba
from numba.core import event

_log = logging.getLogger(__name__)

# No fast-math flags. What they allow depends on what a kernel is compiled together with, and the process that compiles
# runs kernels compiled one by one where later ones load them linked: with "contract" or "reassoc" the two compute
# other last bits. What is to be summed in vectors is written so.
SERIAL: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
"""Options of a kernel that runs on one thread."""
# Kernels say ``a if a < b else b``, since each use of min() takes 20 ms to compile.
INLINE: dict[str, Any] = {"error_model": "numpy", "nogil": True, "inline": "always"}
"""Options of a function that becomes a part of each kernel that calls it. It is compiled with each of them."""


class Kernels:
    """Declares the kernels of one package.

    Args:
        folder: the package: all sources whose kernels call each other.
        variant: what else the compiled code depends on, such as an environment variable that the sources read.
    """

    def __init__(self, folder: Path, variant: str = ""):
        self._folder = folder
        self._variant = variant

    def njit(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """As :func:`numba.njit` with these options, and with this package's cache."""

        def declare(function: Callable[..., Any]) -> Any:
            if self.cache is None or options.get("inline") == "always":
                return numba.njit(**options)(function)
            # Numba looks up its cache folder when a function is declared, and there is no argument for it.
            setting = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = str(self.cache)
            try:
                return numba.njit(cache=True, **options)(function)
            finally:
                numba.config.CACHE_DIR = setting

        return declare

    @cached_property
    def cache(self) -> Path | None:
        """The folder of the compiled code; None where no folder can be written, and every process compiles anew."""
        name = f"numba-{self._digest()}"
        if numba.config.CACHE_DIR:
            places = [Path(numba.config.CACHE_DIR)]
        else:
            places = [self._folder / "__pycache__", _user_cache() / "gsz"]
        return next((place / name for place in places if _can_write(place)), None)

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{numba.__version__} {self._variant}".encode())
        digest.update(Path(__file__).read_bytes())
        for path in sorted(self._folder.rglob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


@contextmanager
def announced(task: str, duration: str = "a few seconds") -> Iterator[None]:
    """Log a line before the first kernel that has to be compiled within the block, or within a decorated function.

    Args:
        task: what the kernels are for, as in "the decoder of .gsz files". A process says it once.
        duration: how long that takes.
    """
    with event.install_listener("numba:compile", _Announcer(task, duration)):
        yield


class _Announcer(event.Listener):
    said: ClassVar[set[str]] = set()

    def __init__(self, task: str, duration: str):
        self._task, self._duration = task, duration

    def on_start(self, event: event.Event) -> None:
        if self._task not in self.said:
            self.said.add(self._task)
            _log.info(f"compiling {self._task}; this takes {self._duration}, once")

    def on_end(self, event: event.Event) -> None:
        pass


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _user_cache() -> Path:
    """The folder for what a user's programs can compute again, by the custom of the operating system."""
    home = Path("~").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


_KERNELS = Kernels(Path(__file__).resolve().parent)
kernel = _KERNELS.njit(**SERIAL)
"""Decorator of this package's kernels."""
inline = _KERNELS.njit(**INLINE)
"""Decorator of functions that become a part of each kernel of this package that calls them."""
