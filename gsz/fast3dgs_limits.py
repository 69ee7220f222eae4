"""The numbers that bound the values of :mod:`gsz.fast3dgs`, in NumPy and in tensors."""

from __future__ import annotations

import numpy as np

LEVELS = 255
"""Steps of the 8-bit grids: symbols are 0 to 255."""

SMALLEST_SCALE = float(np.finfo(np.float32).eps)
"""The least step of an 8-bit grid, as PyTorch's observers have it; it matters for all-zero SH only."""

LARGEST_SCALE = float(np.finfo(np.float32).max) / (LEVELS + 1)
"""The greatest step: 255 of them stay within float32."""

HALF_MAX = float(np.finfo(np.float16).max)
"""The greatest number in half precision."""
