"""Memory that serves again, where the same arrays are filled in at every step."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import numpy as np


class ReusedArrays:
    """Arrays of float32, lent out again when nobody has them any more.

    The system clears new memory before it hands it out, page by page. That can take longer than filling it in, the more
    so on several threads.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def blank(self, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Arrays of these shapes whose values are yet to be filled in, in the memory of the last ones if it is free."""
        with self._lock:
            # A tensor or a view of an array keeps a reference to it; one is the list's, and one that of the argument.
            in_use = any(sys.getrefcount(self._arrays[place]) > 2 for place in range(len(self._arrays)))
            if in_use or [array.shape for array in self._arrays] != list(shapes):
                self._arrays = []  # So that there is room for the new ones.
                self._arrays = [np.empty(shape, np.float32) for shape in shapes]
            return list(self._arrays)
