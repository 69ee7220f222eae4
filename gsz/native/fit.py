"""The steps of a native grid for a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gsz.native.settings import GridSettings
from gsz.native.steps import RECONSTRUCTED, Steps, chroma_steps
from gsz.native.symbols import pivots, quantize, quantize_sh
from gsz.rounding import elementary
from gsz.rounding.elementary import LN2
from gsz.splats import Splats

MOST_MEAN_BITS = 16
"""Beyond, the grid of positions would end too near: at ``2**(2**20 / 2**bits)`` times the radius."""


def fit_steps(splats: Splats, settings: GridSettings) -> Steps:
    """The steps of ``settings``, about the robust center and radius of a model's positions."""
    splats = splats.numpy()
    means = splats.means.astype(np.float64)
    center, radius, mean_bits, scale_pivot = np.zeros(3), 1.0, 1, 0.0
    if len(means):
        center = np.median(means, axis=0)
        radius = float(np.percentile(np.abs(means - center), 90))
        # Any radius about as large as that will do, so it is chosen such that a whole number of bits gives the step.
        middle_scales = np.median(splats.log_scales, axis=1)
        scale_pivot = float(np.partition(middle_scales, (len(means) - 1) // 2)[(len(means) - 1) // 2])
        step = settings.mean_step * float(elementary.exp2(scale_pivot / LN2))
        fraction, exponent = math.frexp(max(radius, 1e-30) / max(step, 1e-30))
        mean_bits = min(max(exponent - (fraction == 0.5), 1), MOST_MEAN_BITS)
        radius = max(radius, step * 2.0**mean_bits)
    steps = Steps(
        center=center.astype(np.float32).astype(np.float64),
        radius=float(np.float32(min(max(radius, 1e-20), 1e30))),
        mean_bits=mean_bits,
        scale_pivot=min(max(scale_pivot, -1e6), 1e6),
        scale_step=settings.scale_step,
        opacity_levels=settings.opacity_levels,
        rotation_step=settings.rotation_step,
        dc_step=settings.dc_step,
        sh_step=settings.sh_step,
        sh_chroma=chroma_steps(settings.sh_chroma),
        sh_values=np.arange(RECONSTRUCTED, dtype=np.float64),
        rotation_range=settings.rotation_range,
        dc_range=settings.dc_range,
        sh_range=settings.sh_range,
        sh_threshold=settings.sh_threshold,
    )
    if not len(splats):
        return steps
    # The finenesses, which the pivots are for, depend on scales and opacities, and nothing of these on the pivots.
    rotation_pivot, dc_pivot, sh_pivot = pivots(quantize(splats, steps).symbols, steps)
    steps = replace(steps, rotation_pivot=rotation_pivot, dc_pivot=dc_pivot, sh_pivot=sh_pivot)
    return replace(steps, sh_values=_centroids(splats, steps)) if settings.sh_threshold > 0.5 else steps


def _centroids(splats: Splats, steps: Steps) -> np.ndarray:
    """What each small magnitude should stand for: the mean of the values that are rounded to it, in steps."""
    quantized = quantize(splats, steps)
    symbols = quantized.symbols.sh
    sizes = np.empty(symbols.shape, np.float32)
    quantize_sh(splats.sh_rest, quantized.finenesses.sh, steps, symbols, sizes)
    np.abs(sizes, out=sizes)
    rounded = np.abs(symbols, out=symbols)  # A model's largest array: no copy of it.
    values = steps.sh_values.copy()
    for magnitude in range(1, RECONSTRUCTED):
        chosen = sizes[rounded == magnitude]
        if len(chosen):
            values[magnitude] = np.float32(elementary.mean(chosen))
    return values
