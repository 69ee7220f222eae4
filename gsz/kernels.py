"""How Numba kernels are compiled, and where the compiled code is kept.

Import the options from here before the first kernel is declared: importing this module chooses Numba's cache folder and
threading layer for the process.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

_ROOT = Path(__file__).resolve().parent.parent
_KERNEL_FOLDERS = ("gaussian_renderer/cpu", "gsz")
"""Folders whose kernels call kernels of other files."""


def _source_digest() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {os.environ.get('GSZ_NO_SIMD')}".encode())
    digest.update(Path(__file__).read_bytes())
    for folder in _KERNEL_FOLDERS:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if "NUMBA_CACHE_DIR" not in os.environ and os.access(_ROOT, os.W_OK):
    # Numba notices a change of the file that holds a kernel, but not of the files that kernel inlines from.
    # A folder named after all the sources can never serve stale code.
    numba.config.CACHE_DIR = str(_ROOT / "__pycache__" / f"numba-{_source_digest()}")
if "NUMBA_THREADING_LAYER" not in os.environ:
    # The portable layer: unlike OpenMP's, it survives fork(), and its idle threads sleep.
    numba.config.THREADING_LAYER = "workqueue"

# No fast-math flags. What they allow depends on what a kernel is compiled together with, and the process that compiles
# runs kernels compiled one by one where later ones load them linked: with "contract" or "reassoc" the two compute
# other last bits. What is to be summed in vectors is written so.
SERIAL: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
PARALLEL: dict[str, Any] = {**SERIAL, "parallel": True}
INLINE: dict[str, Any] = {"error_model": "numpy", "nogil": True, "inline": "always"}


def match_torch_threads() -> int:
    """Let the kernels that follow use as many threads as PyTorch may, and return that number."""
    import torch

    threads = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(threads)
    return threads
