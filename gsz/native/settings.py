"""What can be chosen about a ``.gsz`` file, and presets along the rate axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gsz.errors import UserError
from gsz.rounding import elementary

GRIDS = ("native", "fast3dgs")

STEPS = ("means", "log_scales", "opacities", "rotations", "dc", "sh", "sh_chroma")
"""The steps that :meth:`GridSettings.coarser` moves, each by itself."""

_RANGES = {
    "mean_step": (1e-4, 10),
    "scale_step": (1e-3, 4),
    "opacity_levels": (2, 256),
    "rotation_step": (1e-4, 1),
    "rotation_range": (0, 8),
    "dc_step": (1e-4, 4),
    "dc_range": (0, 8),
    "sh_step": (1e-3, 4),
    "sh_chroma": (0.1, 10),
    "sh_threshold": (0.5, 1),
    "sh_range": (0, 8),
}


@dataclass(frozen=True)
class GridSettings:
    """The resolution of each attribute's grid.

    Attributes:
        mean_step: step of positions near the scene's center, as a fraction of the median of the second largest scale;
            it grows with the distance from the centre outside of the robust radius of the scene.
        scale_step: step of the two largest log-scales (natural logarithm) of a Gaussian of the median size; 1/20 is
            5 % in size. Larger ones have smaller steps, and the third scale has twice the step.
        opacity_levels: number of opacities, 2 to 256, evenly spaced in their square root.
        rotation_step: step of the quaternion's vector part, for the median Gaussian.
        rotation_range: by how many half octaves it follows how a Gaussian's rotation shows; 0 to 8.
        dc_step: step of degree-0 harmonics, for the median Gaussian; 0.0035 of them is one grey level of 255.
        dc_range: by how many half octaves it follows how a Gaussian's color shows; 0 to 8.
        sh_step: step of the Y of the other harmonics.
        sh_chroma: by how much coarser their Co and Cg are stored: times the steps at which errors of color are equal.
        sh_threshold: from which fraction of a step harmonics are rounded up; 0.5 is plain rounding, more widens the
            zone that becomes zero.
        sh_range: by how many half octaves the step of harmonics follows what a Gaussian covers; 0 to 8.
    """

    mean_step: float = 0.08
    scale_step: float = 0.13
    opacity_levels: int = 48
    rotation_step: float = 1 / 45
    rotation_range: int = 8
    dc_step: float = 0.107
    dc_range: int = 8
    sh_step: float = 0.06
    sh_chroma: float = 1.6
    sh_threshold: float = 0.6
    sh_range: int = 2

    def check(self) -> None:
        """Raise :class:`UserError` naming the first setting that is out of range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"gsz setting {name}={value} is out of range; choose {low} to {high}")

    def coarser(self, octaves: Sequence[float]) -> GridSettings:
        """The grid whose steps are 2 to so many powers of these, as far as they stay in range.

        Args:
            octaves: one for each of :data:`STEPS`; negative ones make steps finer.
        """
        mean, scale, opacity, rotation, dc, sh, chroma = (float(elementary.exp2(octave)) for octave in octaves)
        return replace(
            self,
            mean_step=_in_range("mean_step", self.mean_step * mean),
            scale_step=_in_range("scale_step", self.scale_step * scale),
            opacity_levels=round(_in_range("opacity_levels", self.opacity_levels / opacity)),
            rotation_step=_in_range("rotation_step", self.rotation_step * rotation),
            dc_step=_in_range("dc_step", self.dc_step * dc),
            sh_step=_in_range("sh_step", self.sh_step * sh),
            # In units of ``sh_step``.
            sh_chroma=_in_range("sh_chroma", self.sh_chroma * chroma / sh),
        )


def _in_range(name: str, value: float) -> float:
    low, high = _RANGES[name]
    return min(max(value, low), high)


QUALITIES: dict[str, GridSettings] = {
    "best": GridSettings(0.005, 0.04, 192, 1 / 820, dc_step=0.015, sh_step=0.006, sh_chroma=1.0, sh_threshold=0.5),
    "high": GridSettings(0.04, 0.13, 96, 1 / 64, dc_step=0.046, sh_step=0.023, sh_chroma=1.3, sh_threshold=0.55),
    "medium": GridSettings(),
    "low": GridSettings(0.12, 0.186, 36, 1 / 24, dc_step=0.138, sh_step=0.09),
    "tiny": GridSettings(0.2, 0.29, 24, 1 / 16, dc_step=0.185, sh_step=0.14),
}
"""Named grids, from the finest to the coarsest."""

DEFAULT_QUALITY = "medium"


def preset(quality: str) -> GridSettings:
    """The grid of that name.

    Raises:
        UserError: there is none.
    """
    if quality not in QUALITIES:
        raise UserError(f"gsz quality {quality!r} is unknown; choose one of {', '.join(QUALITIES)}")
    return QUALITIES[quality]
