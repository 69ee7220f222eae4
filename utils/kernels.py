"""The Numba kernels of the renderer and of image quality: how they are compiled, and on how many threads they run.

Importing this module chooses Numba's threading layer for the process, where no program has. The package ``gsz``
leaves it alone, and Numba's other settings too; what :mod:`gsz.kernels` says of options and of compiled code holds here
as well.
"""

from __future__ import annotations

import os
from typing import Any

import numba
import torch

from gsz.kernels import INLINE, SERIAL, Kernels

__all__ = ["INLINE", "PARALLEL", "SERIAL", "Kernels", "match_torch_threads"]

if not {"NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"} & os.environ.keys():
    # The portable layer: unlike OpenMP's, it survives fork(), and its idle threads sleep.
    numba.config.THREADING_LAYER = "workqueue"


def _start_threads() -> None:
    """Start Numba's threads. PyTorch may use the same OpenMP, whose number of threads Numba then sets."""
    threads = torch.get_num_threads()
    numba.get_num_threads()
    torch.set_num_threads(threads)


if "NUMBA_THREADING_LAYER_PRIORITY" in os.environ:
    _start_threads()

PARALLEL: dict[str, Any] = {**SERIAL, "parallel": True}
"""Options of a kernel that runs on several threads."""


def match_torch_threads() -> int:
    """Let the kernels that follow use as many threads as PyTorch may, and return that number."""
    threads = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(threads)
    return threads
