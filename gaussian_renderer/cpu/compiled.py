"""The decorator of this package's kernels, which keeps their compiled code; see :mod:`gsz.kernels`."""

from __future__ import annotations

import os
from pathlib import Path

from utils.kernels import Kernels

njit = Kernels(Path(__file__).resolve().parent, variant=os.environ.get("GSZ_NO_SIMD", "")).njit
