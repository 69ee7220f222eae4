"""The native layout: how the symbols of :mod:`gsz.native.symbols` become columns, and back."""

from __future__ import annotations

import math
import struct

import numpy as np
from numba import njit

from gsz.coding.morton import deinterleave
from gsz.coding.rans import Alphabet, StreamError, buckets
from gsz.kernels import SERIAL
from gsz.native.streams import (
    COLOURS,
    ColumnPlan,
    Hints,
    Layout,
    Values,
    from_luma,
    lane_differences,
    to_luma,
)
from gsz.native.symbols import MEAN_LIMIT, RECONSTRUCTED, SCALE_LIMIT, Steps, Symbols, finenesses

_EACH = buckets(list(range(1, 17)))
"""A context for each fineness."""
_OPACITY = buckets([4, 12, 32], 10)
_ROTATION = ColumnPlan("rotations", Alphabet(5, 4, 16, signed=True), first=("rotation_fineness", _EACH))

LAYOUT: Layout = {
    "distance": ColumnPlan("means", Alphabet(2, 2, 63), previous=buckets([36, 48, 60]), summed=True),
    "opacity": ColumnPlan("opacities", Alphabet(7, 4, 8), previous=buckets([4, 8, 16, 32, 64, 96])),
    "scale": ColumnPlan(
        "scales",
        Alphabet(7, 3, 19),
        first=("opacity_level", _OPACITY),
        previous=buckets([12, 18, 24, 30, 36, 42, 50, 60, 80]),
    ),
    "gap": ColumnPlan("scales", Alphabet(6, 2, 19), first=("scale", buckets([12, 18, 24, 30, 36, 42, 50, 60, 80]))),
    "thin": ColumnPlan(
        "scales",
        Alphabet(6, 2, 19),
        first=("gap", buckets([1, 2, 4, 7, 12])),
        second=("scale", buckets([16, 24, 32, 40, 50], 6)),
    ),
    "rotation_x": _ROTATION,
    "rotation_y": _ROTATION,
    "rotation_z": _ROTATION,
    **COLOURS,
}
"""``distance``: Morton code less that of the Gaussian eight before. ``scale``: the file's largest less this one.
``gap`` and ``thin``: half the last scale, rounded up, less the next."""


_PARAMETERS = struct.Struct("<3dd7d4dBBHhhi")
"""Centre, radius; steps of scales, rotations, DC, SH and its colours, SH threshold; SH values; mean bits, ranges of
rotations and SH packed in a byte, opacity levels, pivots of rotations and SH, largest scale."""


def pack_parameters(steps: Steps, top: int) -> bytes:
    """The numbers of a grid, and the largest scale symbol of a file."""
    return _PARAMETERS.pack(
        *steps.centre,
        steps.radius,
        steps.scale_step,
        steps.rotation_step,
        steps.dc_step,
        steps.sh_step,
        *steps.sh_colours,
        steps.sh_threshold,
        *steps.sh_values,
        steps.mean_bits,
        steps.rotation_range << 4 | steps.sh_range,
        steps.opacity_levels,
        steps.rotation_pivot,
        steps.sh_pivot,
        top,
    )


def unpack_parameters(data: bytes) -> tuple[Steps, int]:
    """The inverse of :func:`pack_parameters`.

    Raises:
        ValueError: a number is out of range.
    """
    if len(data) != _PARAMETERS.size:
        raise ValueError("the grid has a wrong length")
    numbers = _PARAMETERS.unpack(data)
    floats, (mean_bits, ranges, opacity_levels, rotation_pivot, sh_pivot, top) = numbers[:15], numbers[15:]
    limits_kept = (
        all(math.isfinite(number) and abs(number) < 1e38 for number in floats)
        and floats[3] > 1e-30
        and all(1e-30 < number < 1e6 for number in floats[4:10])
        and all(0 <= number <= 64 for number in floats[10:])
        and mean_bits <= 16
        and 2 <= opacity_levels <= 256
        and max(ranges >> 4, ranges & 15) <= 8
    )
    if not limits_kept:
        raise ValueError("the grid is out of range")
    steps = Steps(
        centre=np.array(floats[:3]),
        radius=floats[3],
        mean_bits=mean_bits,
        scale_step=floats[4],
        opacity_levels=opacity_levels,
        rotation_step=floats[5],
        dc_step=floats[6],
        sh_step=floats[7],
        sh_colours=np.array(floats[8:10]),
        sh_values=np.array(floats[11 : 11 + RECONSTRUCTED]),
        rotation_pivot=rotation_pivot,
        rotation_range=ranges >> 4,
        sh_pivot=sh_pivot,
        sh_range=ranges & 15,
        sh_threshold=floats[10],
    )
    return steps, top


def to_columns(symbols: Symbols, curve: np.ndarray, top: int) -> Values:
    """The columns of symbols, in their order. ``curve`` has their Morton codes, ``top`` is the file's largest scale."""
    scales = np.ascontiguousarray(symbols.scales.T)
    rotations = np.ascontiguousarray(symbols.rotations.T)
    return {
        "distance": lane_differences(curve),
        "opacity": symbols.opacities,
        "scale": top - scales[0],
        "gap": ((scales[0] + 1) >> 1) - scales[1],
        "thin": ((scales[1] + 1) >> 1) - scales[2],
        "rotation_x": rotations[0],
        "rotation_y": rotations[1],
        "rotation_z": rotations[2],
        **to_luma(symbols.dc),
        "sh": symbols.sh,
    }


def to_symbols(values: Values) -> Symbols:
    """The inverse of :func:`to_columns`, without harmonics, after :func:`hints`. Distances come as their sums."""
    count = len(values["opacity"])
    rotations = np.empty((count, 3), np.int32)
    for axis, name in enumerate(("rotation_x", "rotation_y", "rotation_z")):
        rotations[:, axis] = values[name]
    return Symbols(
        means=deinterleave(values["distance"], MEAN_LIMIT),
        scales=values["scales"],
        opacities=values["opacity"],
        rotations=rotations,
        dc=from_luma(values).reshape(count, 3),
        sh=np.empty((count, 0), np.int16),
    )


def hints(steps: Steps, top: int) -> Hints:
    """What contexts may look at beyond their own stream; see :data:`gsz.native.streams.Hints`.

    Finenesses and ``(N, 3)`` scales are kept among the columns, for those who need them later.

    Raises, when called:
        StreamError: an opacity is out of range.
    """

    def of(attribute: str, values: Values) -> dict[str, np.ndarray]:
        if attribute == "scales":
            if int(values["opacity"].max(initial=0)) >= steps.opacity_levels:
                raise StreamError("a level is out of range")
            return {"opacity_level": values["opacity"].astype(np.uint8)}
        if attribute == "rotations":
            values["scales"] = _scales(values["scale"], values["gap"], values["thin"], top)
            fineness = finenesses(values["scales"], values["opacity"], steps)
            values["rotation_fineness"], values["sh_fineness"] = fineness.rotations, fineness.sh
        return {name: values[name] for name in ("rotation_fineness", "sh_fineness") if name in values}

    return of


@njit(**SERIAL)
def _scales(scale, gap, thin, top):
    """``(N, 3)`` int32 scale symbols."""
    scales = np.empty((len(scale), 3), np.int32)
    limit = 4 * SCALE_LIMIT
    for i in range(len(scale)):
        first = top - scale[i]
        second = ((first + 1) >> 1) - gap[i]
        scales[i, 0] = min(max(first, -limit), limit)
        scales[i, 1] = min(max(second, -limit), limit)
        scales[i, 2] = min(max(((second + 1) >> 1) - thin[i], -limit), limit)
    return scales
