"""Predictions from the Gaussians that a decoder has seen already and that lie near.

Gaussians come in the order of a curve, cut into eight runs of which one is taken in turn, so that the eight Gaussians
that are 8, 16, ... 64 places before are the last ones of the same run. They are weighted by the inverse square of their
distance. Everything here is arithmetic in float64 in a fixed order, so that it is the same on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gsz.coding.alphabet import LANES
from gsz.coding.tables import at
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
    """Weights of the neighbors of each Gaussian. They add up to 1, or are 0 where there are none.

    Gaussians stand in groups of eight, so that a processor computes for all of a group at once: ``(n / 8, NEIGHBORS,
    LANES)`` numbers in a row, of the neighbors eight before first.

    Args:
        places: ``(3, HISTORY + n)``, those of the Gaussians before and of these.
    """
    count = places.shape[1] - HISTORY
    groups = -(-count // LANES)
    padded = np.full((3, HISTORY + groups * LANES), np.inf)
    padded[:, : places.shape[1]] = places
    weights = np.empty((groups, NEIGHBORS, LANES))
    _weigh(padded[0], padded[1], padded[2], weights, np.empty(LANES))
    return weights.reshape(-1)


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


@intrinsic
def _sum_up(typing_context, weights, first_weight, numbers, first_number, sums, row):
    """Fill in a row of ``sums`` for a group of eight: of the weights of all neighbors but the nearest times their
    numbers, the farthest first. Eight sums at once, which compilers do not see for themselves.
    """

    def generate(context, builder, signature, args):
        def vector_at(number, index):
            data = context.make_array(signature.args[number])(context, builder, args[number]).data
            return builder.bitcast(builder.gep(data, [index]), eight.as_pointer())

        def load(number, index, offset):
            shifted = builder.add(index, ir.Constant(index.type, offset))
            return builder.load(vector_at(number, shifted), align=8)

        eight = ir.VectorType(ir.DoubleType(), LANES)
        total = ir.Constant(eight, [0.0] * LANES)
        for behind in range(NEIGHBORS - 1):
            weight = load(0, args[1], LANES * (NEIGHBORS - 1 - behind))
            total = builder.fadd(total, builder.fmul(weight, load(2, args[3], LANES * behind)))
        builder.store(total, vector_at(4, builder.mul(args[5], ir.Constant(args[5].type, LANES))), align=8)
        return context.get_dummy_value()

    return types.void(weights, types.uint64, numbers, types.uint64, sums, types.uint64), generate


@inline
def look_back(kind, first, weights, recent, misses, farther):
    """Sum up all neighbors but the nearest, of a group of eight whose first Gaussian is ``first``.

    The nearest were decoded just now: what depends on them comes last, symbol by symbol, so that nothing waits for the
    whole group. The two rows of ``farther`` are given sums of ``recent`` and, where ``kind`` asks for them, of
    ``misses``, which both have :data:`HISTORY` numbers before the first.
    """
    _sum_up(weights, first * at(NEIGHBORS), recent, first, farther, at(0))
    if kind == RESIDUAL:
        _sum_up(weights, first * at(NEIGHBORS), misses, first, farther, at(1))


@inline
def look_around(kind, parts, i, lane, weights, recent, misses, farther, unit):
    """The mean of the neighbors, what a context looks at, in parts of a unit, and the prediction in units where it is
    coded what is left of it.
    """
    nearest = weights[(i - lane) * at(NEIGHBORS) + lane]
    mean = farther[lane] + nearest * recent[i + at(HISTORY - LANES)]
    if kind == LEVEL:
        return mean, mean / unit * parts, 0.0
    if kind == BELOW:
        return mean, (unit - mean) * parts + 128.0, 0.0
    missed = farther[at(LANES) + lane] + nearest * misses[i + at(HISTORY - LANES)]
    whole = np.floor(mean / unit + 0.5)
    whole = -FARTHEST if whole < -FARTHEST else (FARTHEST if whole > FARTHEST else whole)
    return mean, missed / unit * parts, whole


@inline
def place_in_map(measure):
    """The entry of a map of 256."""
    return 0 if measure < 0.0 else (255 if measure >= 255.0 else int(measure))


@kernel
def predict(
    kind,
    parts,
    context_map,
    base,
    reference,
    weights,
    recent,
    misses,
    values,
    levels,
    alphabet,
    farther,
    contexts,
    coded,
):
    """What an encoder does about a column: fill in ``contexts`` and the integers to be ``coded``.

    Args:
        kind, parts, context_map: the prediction; ``context_map`` is ``(256,)`` uint8.
        base: ``(n,)`` uint8, what contexts begin with.
        reference: ``(n,)`` float64, see :data:`LEVEL`.
        weights: see :func:`weights_of`.
        recent, misses: ``(HISTORY + n,)`` float64, filled in but for the history: as decoders know it when they need
            it, that is, without the raw bits of large integers, and how far that was from the prediction.
        values: ``(n,)`` int64.
        levels: ``(256,)`` float64, the integer of each token without its raw bits.
        alphabet: direct bits, leading bits, and whether it is signed.
        farther: ``(2, LANES)`` float64, room.
    """
    direct_bits, leading_bits, signed = alphabet
    for i in range(at(len(values))):
        lane = i & at(LANES - 1)
        if lane == at(0):
            look_back(kind, i, weights, recent, misses, farther)
        mean, measure, whole = look_around(kind, parts, i, lane, weights, recent, misses, farther, reference[i])
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
        number = known(kind, levels[value], whole, reference[i])
        recent[i + at(HISTORY)], misses[i + at(HISTORY)] = number, abs(number - mean)


@inline
def known(kind, level, whole, unit):
    """What later predictions are made of."""
    if kind == LEVEL:
        return level
    if kind == BELOW:
        return unit - level
    return (level + whole) * unit


LEANINGS = (-0.6, -0.3, -0.08, 0.08, 0.3, 0.6)
"""Limits of the mean of neighbors' signs."""
SIGNS_BEFORE = NEIGHBORS + 1
"""Signs of a lane that stand before the first of a chunk: those of the neighbors, and one so that eight may be read."""


class Leaning(NamedTuple):
    """What the mean of neighbors' signs is made of, for some Gaussians of a chunk.

    Attributes:
        signs: ``(K, LANES, SIGNS_BEFORE + n / LANES)`` int8 of ``K`` coefficients: -1, 0 or 1. Those of a lane stand
            side by side, and so do those of a Gaussian's neighbors.
        weights: ``(m, NEIGHBORS)`` float64 in a row, of the neighbors of each: the nearest, then the others from the
            farthest on.
        places: ``(m,)`` uint32, where the signs of a coefficient have the one before the farthest neighbor's.
    """

    signs: npt.NDArray[np.int8]
    weights: Floats
    places: npt.NDArray[np.uint32]

    @staticmethod
    def of(before: npt.NDArray[np.int8], count: int, rows: npt.NDArray[np.uint16], weights: Floats) -> Leaning:
        """That of ``rows`` of a chunk of ``count``, whose ``weights`` are those of :func:`weights_of`.

        ``before`` are the last :data:`SIGNS_BEFORE` of each lane; the signs of the chunk are 0 and to be filled in.
        """
        signs = np.zeros((*before.shape[:2], SIGNS_BEFORE + -(-count // LANES)), np.int8)
        signs[:, :, :SIGNS_BEFORE] = before
        own, places = np.empty(len(rows) * NEIGHBORS), np.empty(len(rows), np.uint32)
        _gather(rows, weights, signs.shape[2], own, places)
        return Leaning(signs, own, places)

    def fill_in(self, signs: np.ndarray) -> None:
        """Take the ``(n, K)`` signs of the chunk."""
        whole = np.zeros((self.signs.shape[2] - SIGNS_BEFORE, LANES, signs.shape[1]), np.int8)
        whole.reshape(-1, signs.shape[1])[: len(signs)] = signs
        self.signs[:, :, SIGNS_BEFORE:] = whole.transpose(2, 1, 0)

    @property
    def flat(self) -> tuple[npt.NDArray[np.int8], int, Floats, npt.NDArray[np.uint32]]:
        """The signs in a row and how many a coefficient has, the weights and the places."""
        return self.signs.reshape(-1), self.signs.shape[1] * self.signs.shape[2], self.weights, self.places


@kernel
def _gather(rows, weights, width, own, places):
    for j in range(at(len(rows))):
        row = at(rows[j])
        lane = row & at(LANES - 1)
        first = (row - lane) * at(NEIGHBORS) + lane
        place = j * at(NEIGHBORS)
        own[place] = weights[first]
        for behind in range(at(1), at(NEIGHBORS)):
            own[place + behind] = weights[first + at(LANES) * (at(NEIGHBORS) - behind)]
        places[j] = lane * at(width) + row // at(LANES)


@inline
def leaning(signs, place, weights, first):
    """In which of the parts that :data:`LEANINGS` make the mean of the neighbors' signs is.

    ``place`` and ``first`` are where those of the Gaussian begin, see :class:`Leaning`.
    """
    mean = 0.0
    for behind in range(at(1), at(NEIGHBORS)):
        mean += weights[first + behind] * signs[place + behind]
    mean += weights[first] * signs[place + at(NEIGHBORS)]
    part = at(0)
    for limit in LEANINGS:
        part += at(mean >= limit)
    return part


@kernel
def lean(members, bounds, signs, length, weights, places, stride, contexts):
    """Add to the contexts of triples what their neighbors' signs tell; for these see :attr:`Leaning.flat`."""
    for k in range(at(len(bounds) - 1)):
        for j in range(at(bounds[k]), at(bounds[k + at(1)])):
            member = at(members[j])
            place = k * at(length) + at(places[member])
            contexts[j] += at(stride) * leaning(signs, place, weights, member * at(NEIGHBORS))
