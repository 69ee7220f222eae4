"""Steps for a given number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gsz.errors import UserError
from gsz.native.settings import QUALITIES, GridSettings

_COARSE_TRIALS = 7
_FINE_TRIALS = 7
_CLOSE = 0.99
"""The search ends with a file of at least so much of the size asked for."""


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


def settings_for_size(size: int, count: int, bytes_of: Callable[[GridSettings], int]) -> GridSettings:
    """The finest steps on which a model takes at most ``size`` bytes, and within 2 % of it.

    Where even the finest preset takes less, that is the answer.

    Args:
        count: Gaussians of the model, for the message.
        bytes_of: How long the model's file is on a grid of such steps.

    Raises:
        UserError: not even the coarsest preset is small enough; the message says how small it is.
    """
    presets = len(QUALITIES)

    def attempt(settings: GridSettings) -> tuple[GridSettings, int]:
        return settings, bytes_of(settings)

    best, taken = attempt(settings_at(0))
    if taken <= size:
        return best
    best, taken = attempt(settings_at(presets - 1))
    if taken > size:
        raise UserError(
            f"{size} bytes are too few for {count} Gaussians, which take {taken} on the coarsest grid; "
            "prune the model or allow more"
        )
    # Along the presets first; opacities change in jumps, so the real steps alone close the gap.
    fine, coarse, chosen = 0.0, presets - 1.0, best
    for _ in range(_COARSE_TRIALS):
        if taken >= _CLOSE * size:
            return best
        middle = (fine + coarse) / 2
        settings, length = attempt(settings_at(middle))
        if length <= size:
            coarse, best, taken, chosen = middle, settings, length, settings
        else:
            fine = middle
    small, large = 0.4, 1.0
    for _ in range(_FINE_TRIALS):
        if taken >= _CLOSE * size:
            return best
        middle = (small + large) / 2
        settings, length = attempt(scaled(chosen, middle))
        if length <= size:
            large, best, taken = middle, settings, length
        else:
            small = middle
    return best
