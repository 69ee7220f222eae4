"""Steps for a given number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gsz.native.settings import QUALITIES, GridSettings

_COARSE_TRIALS = 7
_FINE_TRIALS = 7
_CLOSE = 0.99
"""The search ends with a file of at least so much of the size asked for."""
_SMALLEST_FACTOR = 0.4
"""How far the real steps may shrink to use up what the jumps of opacity levels leave over."""


def settings_at(level: float) -> GridSettings:
    """The grid at a place along the quality axis: 0 is the finest preset, 1 the second, and so on, and between."""
    presets = list(QUALITIES.values())
    level = min(max(level, 0.0), len(presets) - 1.0)
    index = min(int(level), len(presets) - 2)
    share = level - index
    finer, coarser = presets[index], presets[index + 1]

    def between(name: str) -> float:
        """Geometric, as steps are ratios."""
        return float(getattr(finer, name) ** (1 - share) * getattr(coarser, name) ** share)

    return GridSettings(
        mean_step=between("mean_step"),
        scale_step=between("scale_step"),
        opacity_levels=round(between("opacity_levels")),
        rotation_step=between("rotation_step"),
        dc_step=between("dc_step"),
        sh_step=between("sh_step"),
        sh_chroma=between("sh_chroma"),
        sh_threshold=between("sh_threshold"),
    )


def scaled(settings: GridSettings, factor: float) -> GridSettings:
    """``settings`` with all steps that are real numbers multiplied by ``factor``."""
    names = ("mean_step", "scale_step", "rotation_step", "dc_step", "sh_step")
    return replace(settings, **{name: getattr(settings, name) * factor for name in names})


def settings_for_size(size: int, bytes_of: Callable[[GridSettings], int]) -> GridSettings | None:
    """The finest steps whose file takes at most ``size`` bytes, and within 2 % of it.

    Where even the finest preset takes less, that is the answer.

    Args:
        bytes_of: the size of the file with given steps. It is called up to 16 times.

    Returns:
        None where not even the coarsest preset is small enough.
    """
    presets = len(QUALITIES)
    if bytes_of(settings_at(0)) <= size:
        return settings_at(0)
    best = settings_at(presets - 1)
    taken = bytes_of(best)
    if taken > size:
        return None
    # Along the presets first; opacities change in jumps, so the real steps alone close the gap.
    fine, coarse = 0.0, presets - 1.0
    for _ in range(_COARSE_TRIALS):
        if taken >= _CLOSE * size:
            return best
        middle = (fine + coarse) / 2
        length = bytes_of(settings_at(middle))
        if length <= size:
            coarse, best, taken = middle, settings_at(middle), length
        else:
            fine = middle
    chosen, small, large = best, _SMALLEST_FACTOR, 1.0
    for _ in range(_FINE_TRIALS):
        if taken >= _CLOSE * size:
            return best
        middle = (small + large) / 2
        length = bytes_of(scaled(chosen, middle))
        if length <= size:
            large, best, taken = middle, scaled(chosen, middle), length
        else:
            small = middle
    return best
