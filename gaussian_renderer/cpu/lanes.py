"""Which lanes the kernels compute with: vectors of eight where Numba can build them, else one at a time.

Pixels are taken sixteen at a time where the machine has registers for as many; everywhere else that would take longer
than eight. Blending works on ``BLOCK`` pixels at once, in ``PARTS`` steps of as many lanes as there are.
"""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from gaussian_renderer.cpu import scalar

__all__ = ["BLOCK", "CHUNK", "DESCRIPTION", "PARTS", "lanes", "pixels"]

CHUNK = 8
"""Pixels of a chunk, 4 x 2."""


def _choose() -> tuple[ModuleType, str]:
    """The operations to compile the kernels with, and what to call them in a log."""
    if os.environ.get("GSZ_NO_SIMD", "0") != "0":
        return scalar, "scalar loops: GSZ_NO_SIMD is set"
    try:
        from gaussian_renderer.cpu import simd

        values = np.arange(simd.LANES, dtype=np.float32)
        simd.double_in_place(values)
        if not np.allclose(values, 2 * np.arange(simd.LANES), rtol=1e-5):
            return scalar, "scalar loops: this Numba's vector types compute nonsense"
    # Numba's interface for new types has no list of what it may raise where it differs.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return scalar, f"scalar loops: this Numba cannot build vector types ({reason})"
    return simd, f"{simd.LANES}-lane vectors"


def _choose_for_pixels(chosen: ModuleType) -> ModuleType:
    """The operations on pixels, where those on Gaussians are these."""
    if chosen is scalar or not chosen.has_feature("avx512f"):
        return chosen
    from gaussian_renderer.cpu import simd16

    return simd16


lanes, DESCRIPTION = _choose()
pixels = _choose_for_pixels(lanes)
if pixels is not lanes and pixels is not scalar:
    DESCRIPTION += f", {pixels.LANES}-lane ones of pixels"
BLOCK = max(CHUNK, pixels.LANES)
"""Pixels that are blended together: a chunk, or two that lie below each other."""
PARTS = BLOCK // pixels.LANES
