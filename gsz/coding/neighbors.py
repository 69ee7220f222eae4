"""Predictions from the Gaussians that a decoder has seen already and that lie near.

Gaussians come in the order of a curve, cut into eight runs of which one is taken in turn, so that the eight Gaussians
that are 8, 16, ... 64 places before are the last ones of the same run. They are weighted by the inverse square of their
distance. Everything here is arithmetic in float64 in a fixed order, so that it is the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gsz.coding.alphabet import LANES
from gsz.kernels import inline, kernel

NEIGHBORS = 8
HISTORY = NEIGHBORS * LANES
"""How many Gaussians back predictions look."""

LEVEL, BELOW, RESIDUAL = range(3)
"""What is coded of a number, and what its context looks at: the number, by the prediction in parts of a reference; how
far it is below a reference, by how far the prediction is below it; or how far it is above the prediction, by how far
the neighbors are from it in units that the reference gives."""
FARTHEST = 1.0e9
"""Predictions in units are held within this, whatever a strange file says."""

Floats = npt.NDArray[np.float64]


def no_places() -> Floats:
    """``(3, HISTORY)``: those before the first Gaussian, infinitely far away."""
    return np.full((3, HISTORY), np.inf)


def weights_of(places: Floats) -> Floats:
    """``(n / 8, NEIGHBORS, LANES)`` weights of the neighbors of each Gaussian, the one eight before first.

    They add up to 1, or are 0 where there are none. Gaussians stand in groups of eight, so that a processor computes
    for all of a group at once.

    Args:
        places: ``(3, HISTORY + n)``, those of the Gaussians before and of these.
    """
    count = places.shape[1] - HISTORY
    groups = -(-count // LANES)
    padded = np.full((3, HISTORY + groups * LANES), np.inf)
    padded[:, : places.shape[1]] = places
    weights = np.empty((groups, NEIGHBORS, LANES))
    _weigh(padded[0], padded[1], padded[2], weights, np.empty(LANES))
    return weights


@kernel
def _weigh(x, y, z, weights, totals):
    for group in range(len(weights)):
        here = group * LANES + HISTORY
        for lane in range(LANES):
            totals[lane] = 0.0
        for k in range(NEIGHBORS):
            there = here - LANES * (k + 1)
            for lane in range(LANES):
                dx, dy, dz = (
                    x[here + lane] - x[there + lane],
                    y[here + lane] - y[there + lane],
                    z[here + lane] - z[there + lane],
                )
                square = dx * dx + dy * dy + dz * dz
                # Of two infinite places the difference is no number: there is nobody in either.
                weight = 1.0 / square if square > 1.0 else (1.0 if square <= 1.0 else 0.0)
                weights[group, k, lane] = weight
                totals[lane] += weight
        for k in range(NEIGHBORS):
            for lane in range(LANES):
                weights[group, k, lane] = weights[group, k, lane] / totals[lane] if totals[lane] > 0.0 else 0.0


@inline
def look_around(kind, group, weights, recent, means, deviations):
    """The means of the neighbors of a group of eight, and how far they are from them where that is looked at.

    ``recent`` has :data:`HISTORY` numbers before the first.
    """
    here = group * LANES + HISTORY
    for lane in range(LANES):
        mean = 0.0
        for k in range(NEIGHBORS):
            mean += weights[group, k, lane] * recent[here + lane - LANES * (k + 1)]
        means[lane] = mean
    if kind == RESIDUAL:
        for lane in range(LANES):
            mean, deviation = means[lane], 0.0
            for k in range(NEIGHBORS):
                deviation += weights[group, k, lane] * abs(recent[here + lane - LANES * (k + 1)] - mean)
            deviations[lane] = deviation


@inline
def measured(kind, parts, mean, deviation, reference):
    """What a context looks at, in parts of a unit, and the prediction in units where it is coded what is left of it."""
    if kind == LEVEL:
        return mean / reference * parts, 0.0
    if kind == BELOW:
        return (reference - mean) * parts + 128.0, 0.0
    whole = np.floor(mean / reference + 0.5)
    whole = -FARTHEST if whole < -FARTHEST else (FARTHEST if whole > FARTHEST else whole)
    return deviation / reference * parts, whole


@inline
def place_in_map(measure):
    """The entry of a map of 256."""
    return 0 if measure < 0.0 else (255 if measure >= 255.0 else int(measure))


@kernel
def predict(
    kind, parts, context_map, base, reference, weights, recent, values, levels, alphabet, around, contexts, coded
):
    """What an encoder does about a column: fill in ``contexts`` and the integers to be ``coded``.

    Args:
        base: ``(n,)`` uint8, what contexts begin with.
        reference: ``(n,)`` float64, see :data:`LEVEL`.
        recent: ``(HISTORY + n,)`` float64, filled in but for the history: as decoders know it when they need it,
            that is, without the raw bits of large integers.
        values: ``(n,)`` int64.
        levels: ``(256,)`` int64, the integer of each token without its raw bits.
        alphabet: direct bits, leading bits, and whether it is signed.
        around: ``(2, LANES)`` float64, room.
    """
    direct_bits, leading_bits, signed = alphabet
    means, deviations = around[0], around[1]
    for i in range(len(values)):
        if i & (LANES - 1) == 0:
            look_around(kind, i // LANES, weights, recent, means, deviations)
        measure, whole = measured(kind, parts, means[i & (LANES - 1)], deviations[i & (LANES - 1)], reference[i])
        contexts[i] = base[i] + context_map[place_in_map(measure)]
        value = values[i] - np.int64(whole)
        coded[i] = value
        negative = value < 0
        value = -value if negative else value
        if value >= np.int64(1) << direct_bits:
            length = direct_bits
            while value >> (length + 1):
                length += 1
            leading = (value >> (length - leading_bits)) - (1 << leading_bits)
            value = (1 << direct_bits) + ((length - direct_bits) << leading_bits) + leading
        value = (value << 1 | negative) if signed else value
        recent[i + HISTORY] = known(kind, levels[value], whole, reference[i])


@inline
def known(kind, level, whole, reference):
    """What later predictions are made of."""
    if kind == LEVEL:
        return np.float64(level)
    if kind == BELOW:
        return reference - level
    return (level + whole) * reference


@inline
def leaning(i, weights, signs, limits):
    """In which of the parts that ``limits`` make the mean of the neighbors' signs is."""
    mean = 0.0
    for k in range(NEIGHBORS):
        mean += weights[i // LANES, k, i & (LANES - 1)] * signs[i + HISTORY - LANES * (k + 1)]
    part = 0
    for limit in limits:
        part += 1 if mean >= limit else 0
    return part


@kernel
def lean(members, rows, bounds, weights, signs, limits, stride, contexts):
    """Add to the contexts of triples what their neighbors' signs tell; ``signs`` are ``(K, HISTORY + n)``."""
    for k in range(len(bounds) - 1):
        for j in range(bounds[k], bounds[k + 1]):
            contexts[j] += stride * leaning(rows[members[j]], weights, signs[k], limits)
