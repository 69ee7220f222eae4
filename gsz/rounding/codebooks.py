"""Codebooks: 256 numbers that stand for a column of values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gsz.rounding import elementary
from gsz.rounding.arrays import Float32s, Float64s

CODEBOOK_SIZE = 256
DIGITS = 5
"""Significant decimal digits of a codebook's entries: enough for 8 bits, and short in a text file."""

LLOYD_ITERATIONS = 200
QUANTILES = 1024


def fit_codebook(values: npt.NDArray[np.floating], weights: npt.NDArray[np.floating] | None = None) -> Float32s:
    """256 ascending numbers that stand for ``values`` with little squared error.

    Starts from the density of levels that is best for a fine quantizer, the cube root of the values' own (Panter and
    Dite 1951), and moves to a fixed point by Lloyd's iteration on the sorted values. Values of at most 256 kinds are
    kept to :data:`DIGITS` digits.

    Args:
        values: Any number of finite values, of any shape.
        weights: How much the error of each matters; non-negative, the same shape. By default all matter alike.
    """
    flat = values.reshape(-1).astype(np.float64)
    kinds = np.unique(flat) if flat.size else np.zeros(1)
    if kinds.size <= CODEBOOK_SIZE:
        return _short_decimals(np.pad(kinds, (0, CODEBOOK_SIZE - kinds.size), mode="edge"))
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    mass = np.ones_like(flat) if weights is None else weights.reshape(-1).astype(np.float64)[order]
    mass = mass + elementary.mean(mass) * 1e-6 + 1e-30  # no value is worthless, so every cell has a mean
    cumulative_mass = np.concatenate([[0.0], np.cumsum(mass)])
    cumulative = np.concatenate([[0.0], np.cumsum(mass * flat)])
    levels = _companded(flat, cumulative_mass)
    for _ in range(LLOYD_ITERATIONS):
        cells = np.searchsorted(flat, (levels[1:] + levels[:-1]) / 2)
        bounds = np.concatenate([[0], cells, [flat.size]])
        masses = np.diff(cumulative_mass[bounds])
        means = np.diff(cumulative[bounds]) / np.where(masses > 0, masses, 1.0)
        moved = np.where(np.diff(bounds) > 0, means, levels)
        if np.array_equal(moved, levels):
            break
        levels = moved
    return _short_decimals(levels)


def _companded(ascending: Float64s, cumulative_mass: Float64s) -> Float64s:
    """Levels whose density is the cube root of the values', measured on :data:`QUANTILES` intervals of equal mass."""
    targets = np.linspace(0, cumulative_mass[-1], QUANTILES + 1)
    edges = ascending[np.minimum(np.searchsorted(cumulative_mass, targets), ascending.size - 1)]
    # An interval of width w and mass 1 has density 1 / w, and so a share of w * (1 / w) ** (1 / 3) of the levels.
    widths = np.diff(edges)
    parts = np.where(widths > 0, elementary.exp2(elementary.log2(np.where(widths > 0, widths, 1.0)) * (2 / 3)), 0.0)
    share = np.concatenate([[0.0], np.cumsum(parts)])
    return _interpolated((np.arange(CODEBOOK_SIZE) + 0.5) / CODEBOOK_SIZE, share / share[-1], edges)


def _interpolated(places: Float64s, ascending: Float64s, values: Float64s) -> Float64s:
    """The piecewise linear function that is ``values`` at ``ascending``, at places between the first and the last.

    As :func:`numpy.interp`, of which a compiler may contract a product and a sum into one rounding.
    """
    right = np.searchsorted(ascending, places, side="right").clip(1, len(ascending) - 1)
    left = right - 1
    slopes = (values[right] - values[left]) / (ascending[right] - ascending[left])
    return values[left] + (places - ascending[left]) * slopes


def _short_decimals(levels: Float64s) -> Float32s:
    return np.sort(np.array([short_decimal(level) for level in levels], np.float32))


def short_decimal(value: float) -> float:
    """The number of :data:`DIGITS` digits nearest to ``value``; that of a codebook's entry is the entry itself."""
    return float(f"{float(value):.{DIGITS}g}")
