"""What is done with the values of a model that no trained model should have, whichever file they come from.

Programs write such values: optimizers diverge, exporters take the logarithm of 0, files of fixed size are padded with
zeros. :func:`clean` repairs what has a meaning, drops what has none, and says how often. A value is only changed far
beyond the limit it is set to, so that a file written after cleaning, whose steps may round it past the limit, is read
without being cleaned again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.rounding.elementary import log, logit
from gsz.splats import Splats

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

OPAQUE_LOGIT = 20.0
"""What infinite opacity logits, and those beyond :data:`MOST_LOGIT`, are read as, with their sign. In float32 the
sigmoid of 20 is 1, and that of -20 is far below 1/255, under which nothing is drawn."""

MOST_LOGIT = 80.0
"""Beyond it the exponential in the sigmoid leaves float32."""

FLAT_LOG_SCALE = -30.0
"""What scales of 0 are read as: a standard deviation of 1e-13 world units."""

MOST_LOG_SCALE = 40.0
"""Beyond it, to either side, the square of a scale leaves float32."""

CUT_SH = 1000.0
"""What colors beyond :data:`MOST_SH` are cut to. At the least opacity that is drawn, 1/255, it still is white."""

MOST_SH = 2000.0

MOST_RADII = 1e6
"""A center that is further from the middle than so many times the median Gaussian is no part of the model."""

MOST_LENGTH = 1e10
"""Longer quaternions are made as long as this, before their squares leave float32."""

SAMPLE = 1 << 16
"""Gaussians whose spread is taken for the model's."""

MOST_OPACITY = 1.001
"""Activated opacities end at 1, but for rounding."""

MOST_TAIL = 4.0
"""How much further the largest hundredth of log-scales may lie from their median than the smallest: trained models have
0.3 to 1.1, and their scales 6 to 17."""

FEWEST = 8
"""Of fewer Gaussians nothing can be said about how their values are spread."""

_IDENTITY = np.array([1, 0, 0, 0], np.float32)

Activation = Literal["opacity", "scale"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


def clean(splats: Splats) -> tuple[Splats, list[str]]:
    """A model without values that renderers and formats cannot deal with, and a line for each kind of them.

    Gaussians with a value that is NaN or infinite, whose values are all 0, or that are absurdly large or far away are
    dropped. Infinite opacity logits become :data:`OPAQUE_LOGIT` with their sign, scales of 0 (log-scales of minus
    infinity) :data:`FLAT_LOG_SCALE`, and diverged colors :data:`CUT_SH`.

    Args:
        splats: A model in NumPy arrays; it is not changed.

    Returns:
        The model, which is ``splats`` itself where there is nothing to do, and the lines: no more than six, each with
        the number of Gaussians it is about.
    """
    notes: list[str] = []
    for step in (_without_broken, _without_blank, _without_lost, _opacities, _scales, _colors):
        splats, note = step(splats)
        notes += [note] if note else []
    return _rotations(splats), notes


def doubts(splats: Splats) -> list[str]:
    """Why a model as it was stored looks as if it were meant otherwise, with what to do about it.

    Parameters may have been written after their activations: then scales have the long tail that lengths have and
    logarithms have not. Positions may have been rounded to float32 far from the origin.

    Args:
        splats: A model in NumPy arrays, before it is cleaned; rows that are not finite, or blank, are passed over.
    """
    sound = np.isfinite(splats.opacity_logits[:, 0]) & np.isfinite(splats.log_scales).all(axis=1)
    sound &= np.isfinite(splats.means).all(axis=1) & splats.log_scales.any(axis=1)
    if np.count_nonzero(sound) < FEWEST:
        return []
    logits, logs, means = splats.opacity_logits[sound], splats.log_scales[sound], splats.means[sound]
    lines = []
    if logits.min() >= 0 and 0 < logits.max() <= MOST_OPACITY:
        lines.append(
            f"its opacities look activated: all {len(logits):,} lie in 0 to 1 (as logits, none would be fainter than "
            "0.5); if they are, read it with --activated opacity"
        )
    middle, radius = _spread(means)
    if logs.min() >= 0:
        low, median, high = np.quantile(logs.astype(np.float64), (0.01, 0.5, 0.99))
        wide = np.exp(median) > radius / 4 > median
        if wide or high - median > MOST_TAIL * (median - low):
            lines.append(
                f"its scales look activated: none is below 0, which makes the median Gaussian {np.exp(median):.3g} "
                f"wide in a model of radius {radius:.3g}; if they are, read it with --activated scale"
            )
    elif splats.offset is None:
        step = float(np.spacing(np.abs(middle).max(), dtype=np.float32))
        if step > np.exp(np.median(logs.astype(np.float64))):
            lines.append(
                f"its positions are so far from the origin that single precision has rounded them to steps of "
                f"{step:.3g}, which is more than the median Gaussian is wide; export it closer to the origin or in "
                "double precision"
            )
    return lines


def listed(activated: str | None) -> tuple[str, ...]:
    """The parameters of an option such as ``opacity,scale``."""
    return tuple(filter(None, (word.strip() for word in (activated or "").split(","))))


def deactivate(splats: Splats, activated: Collection[str], source: str) -> Splats:
    """The model of a file that holds opacities of 0 to 1 or standard deviations in the places of their logits and logs.

    Args:
        activated: ``opacity``, ``scale`` or both.
        source: The file's name, for messages.

    Raises:
        UserError: another name is given, or the values cannot be what they are said to be.
    """
    unknown = sorted(set(activated) - set(ACTIVATIONS))
    if unknown:
        raise UserError(f"activated: {unknown[0]!r} is neither {' nor '.join(ACTIVATIONS)}; give one or both of these")
    changes = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        if "opacity" in activated:
            opacities = splats.opacity_logits.astype(np.float64)
            if (opacities < 0).any() or (opacities > MOST_OPACITY).any():
                raise UserError(
                    f"{source}: its opacities run from {np.nanmin(opacities):.3g} to {np.nanmax(opacities):.3g}, "
                    "so that they are not activated; leave --activated opacity out"
                )
            changes["opacity_logits"] = logit(np.minimum(opacities, 1.0))
        if "scale" in activated:
            scales = splats.log_scales.astype(np.float64)
            if (scales < 0).any():
                raise UserError(
                    f"{source}: its scales begin at {np.nanmin(scales):.3g}, so that they are not activated; "
                    "leave --activated scale out"
                )
            changes["log_scales"] = log(scales)
    return splats.replace(**{name: array.astype(np.float32) for name, array in changes.items()})


def _without_broken(splats: Splats) -> tuple[Splats, str | None]:
    broken = {
        name: rows
        for name, array in splats.named_parameters()
        if (rows := _rows_of(array, _BROKEN.get(name, _not_finite))) is not None
    }
    if not broken:
        return splats, None
    fields = ", ".join(f"{name} of {_count(rows)}" for name, rows in broken.items())
    rows = np.logical_or.reduce(list(broken.values()))
    return _dropped(splats, rows, f"for values that are NaN, infinite or out of all bounds ({fields})")


def _without_blank(splats: Splats) -> tuple[Splats, str | None]:
    """Without the rows that pad a file: all values are 0, or, where there are several, all but an identity rotation."""
    blank = np.ones(len(splats), bool)
    for name, array in splats.named_parameters():
        # Hardly any is left after the centers, so that the large tables are not gone through.
        rows = np.flatnonzero(blank)
        values = array[rows]
        zero = ~values.any(axis=tuple(range(1, array.ndim)))
        blank[rows] = zero | (values == _IDENTITY).all(axis=1) if name == "quaternions" else zero
    turned = blank & splats.quaternions.any(axis=1)
    if _count(turned) == 1:
        blank &= ~turned
    return _dropped(splats, blank, "because all their values are 0") if blank.any() else (splats, None)


def _without_lost(splats: Splats) -> tuple[Splats, str | None]:
    if len(splats) < FEWEST:
        return splats, None
    means = splats.means.astype(np.float64)
    middle, radius = _spread(means)
    lost = np.abs(means - middle).max(axis=1) > MOST_RADII * radius
    if not radius or not lost.any():
        return splats, None
    return _dropped(splats, lost, f"because they lie more than {MOST_RADII:,.0f} radii of the model away from it")


def _opacities(splats: Splats) -> tuple[Splats, str | None]:
    logits = splats.opacity_logits
    rows = _rows_of(logits, lambda array: np.abs(array) > MOST_LOGIT)
    if rows is None:
        return splats, None
    beyond = np.abs(logits) > MOST_LOGIT
    opaque, gone = _count(beyond & (logits > 0)), _count(beyond & (logits < 0))
    clamped = np.where(beyond, np.copysign(np.float32(OPAQUE_LOGIT), logits), logits)
    note = (
        f"{gaussians(_count(rows))} with infinite opacity logits are read as {opaque:,} opaque and {gone:,} invisible "
        f"ones ({OPAQUE_LOGIT:g} and {-OPAQUE_LOGIT:g})"
    )
    return splats.replace(opacity_logits=clamped), note


def _scales(splats: Splats) -> tuple[Splats, str | None]:
    rows = _rows_of(splats.log_scales, lambda array: array < -MOST_LOG_SCALE)
    if rows is None:
        return splats, None
    flat = np.where(splats.log_scales < -MOST_LOG_SCALE, np.float32(FLAT_LOG_SCALE), splats.log_scales)
    note = f"{gaussians(_count(rows))} with a scale of 0 are read as flat (a log-scale of {FLAT_LOG_SCALE:g})"
    return splats.replace(log_scales=flat), note


def _colors(splats: Splats) -> tuple[Splats, str | None]:
    diverged = {
        name: rows
        for name in ("sh_dc", "sh_rest")
        if (rows := _rows_of(getattr(splats, name), lambda array: np.abs(array) > MOST_SH)) is not None
    }
    if not diverged:
        return splats, None
    count = _count(np.logical_or.reduce(list(diverged.values())))
    cut = {name: np.clip(getattr(splats, name), -CUT_SH, CUT_SH) for name in diverged}
    note = f"the colors of {gaussians(count)} are diverged: coefficients beyond {MOST_SH:g} are cut to {CUT_SH:g}"
    return splats.replace(**cut), note


def _rotations(splats: Splats) -> Splats:
    """Quaternions may be of any length, so that nothing is lost, nor said."""
    rows = _rows_of(splats.quaternions, lambda array: np.abs(array) > MOST_LENGTH)
    if rows is None:
        return splats
    quaternions = splats.quaternions.copy()
    quaternions[rows] *= np.float32(MOST_LENGTH) / np.abs(quaternions[rows]).max(axis=1, keepdims=True)
    return splats.replace(quaternions=quaternions)


def _not_finite(array: Floats) -> Mask:
    return ~np.isfinite(array)


_BROKEN: dict[str, Callable[[Floats], Mask]] = {
    "opacity_logits": np.isnan,
    "log_scales": lambda array: np.isnan(array) | (array > MOST_LOG_SCALE),
}
"""What makes a value of a parameter unusable, where infinity alone does not."""


def _rows_of(array: Floats, bad: Callable[[Floats], Mask]) -> Mask | None:
    """``(N,)`` whether a value of a row is bad, or None where none is.

    ``bad`` is asked about the extremes first: where they are good, so is what lies between, and NaN is its own extreme.
    """
    with np.errstate(invalid="ignore"):
        if not array.size or not bad(np.array([array.min(), array.max()])).any():
            return None
    return np.any(bad(array).reshape(len(array), -1), axis=1, keepdims=False)


def _dropped(splats: Splats, rows: Mask, why: str) -> tuple[Splats, str]:
    return splats.select(~rows), f"{_count(rows):,} of {gaussians(len(splats))} are dropped {why}"


def _spread(means: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], float]:
    """The median center, and the median distance from it along the axis where it is largest."""
    sample = means[:: max(1, len(means) // SAMPLE)]
    middle = np.median(sample, axis=0)
    return middle, float(np.median(np.abs(sample - middle).max(axis=1)))


def _count(rows: Mask) -> int:
    return int(np.count_nonzero(rows))


def gaussians(count: int) -> str:
    """``1 Gaussian``, ``2,000 Gaussians``."""
    return f"{count:,} Gaussian" + ("s" if count != 1 else "")
