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
    """``(HISTORY, 3)``: those before the first Gaussian, infinitely far away."""
    return np.full((HISTORY, 3), np.inf)


def weights_of(places: Floats) -> Floats:
    """``(n, NEIGHBORS)`` weights of the neighbors of each Gaussian, the one eight before first.

    They add up to 1, or are 0 where there are none.

    Args:
        places: ``(HISTORY + n, 3)``, those of the Gaussians before and of these.
    """
    weights = np.empty((len(places) - HISTORY, NEIGHBORS))
    _weigh(places, weights)
    return weights


@kernel
def _weigh(places, weights):
    for i in range(len(weights)):
        x, y, z = places[i + HISTORY, 0], places[i + HISTORY, 1], places[i + HISTORY, 2]
        total = 0.0
        for k in range(NEIGHBORS):
            j = i + HISTORY - LANES * (k + 1)
            dx, dy, dz = x - places[j, 0], y - places[j, 1], z - places[j, 2]
            square = dx * dx + dy * dy + dz * dz
            weight = 1.0 / (square if square > 1.0 else 1.0)
            weights[i, k] = weight
            total += weight
        if total > 0.0:
            for k in range(NEIGHBORS):
                weights[i, k] /= total


@inline
def prediction(i, weights, recent):
    """The mean of the neighbors of number ``i``; ``recent`` has :data:`HISTORY` numbers before the first."""
    total = 0.0
    for k in range(NEIGHBORS):
        total += weights[i, k] * recent[i + HISTORY - LANES * (k + 1)]
    return total


@inline
def measured(kind, parts, i, weights, recent, reference):
    """What a context looks at, in parts of a unit, and the prediction in units where it is coded what is left of it."""
    mean = prediction(i, weights, recent)
    if kind == LEVEL:
        return mean / reference[i] * parts, 0.0
    if kind == BELOW:
        return (reference[i] - mean) * parts + 128.0, 0.0
    deviation = 0.0
    for k in range(NEIGHBORS):
        deviation += weights[i, k] * abs(recent[i + HISTORY - LANES * (k + 1)] - mean)
    whole = np.floor(mean / reference[i] + 0.5)
    whole = -FARTHEST if whole < -FARTHEST else (FARTHEST if whole > FARTHEST else whole)
    return deviation / reference[i] * parts, whole


@inline
def place_in_map(measure):
    """The entry of a map of 256."""
    return 0 if measure < 0.0 else (255 if measure >= 255.0 else int(measure))


@kernel
def predict(kind, parts, context_map, base, reference, weights, recent, values, levels, alphabet, contexts, coded):
    """What an encoder does about a column: fill in ``contexts`` and the integers to be ``coded``.

    Args:
        base: ``(n,)`` uint8, what contexts begin with.
        reference: ``(n,)`` float64, see :data:`LEVEL`.
        recent: ``(HISTORY + n,)`` float64, filled in but for the history. As decoders know it when they need it, that
            is, without the raw bits of large integers.
        values: ``(n,)`` int64.
        levels: ``(256,)`` int64, the integer of each token without its raw bits.
        alphabet: direct bits, leading bits, and whether it is signed.
    """
    direct_bits, leading_bits, signed = alphabet
    for i in range(len(values)):
        measure, whole = measured(kind, parts, i, weights, recent, reference)
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
    mean = prediction(i, weights, signs)
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
