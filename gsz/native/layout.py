"""The columns of a layer: which integers there are, in which stream they are, and what their contexts look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gsz.coding.alphabet import LANES, Alphabet, signed_buckets
from gsz.coding.neighbors import RESIDUAL
from gsz.coding.tables import ANY, Column

ATTRIBUTES = ("means", "opacities", "scales", "rotations", "dc", "sh")
"""The streams of a layer, in their order."""

Columns = dict[str, np.ndarray]
"""``(N,)`` integers by name; in encoders also, under ``"sh"``, the ``(N, 3 K)`` int16 harmonics."""

Hints = dict[str, np.ndarray]
"""What follows from columns of earlier streams, by name: ``(N,)`` uint8 arrays that contexts look at, and others that a
packing needs again."""


@dataclass(frozen=True)
class Prediction:
    """How the contexts of a column look at the Gaussians that are near; see :mod:`gsz.coding.neighbors`.

    Attributes:
        kind: what is coded.
        parts: of a unit, in the map.
        map: ``(256,)`` uint8, the context of what is measured.
        reference: makes the reference, ``(n,)`` numbers, of hints and of the columns of the stream so far.
        base: ``(256,)`` uint8, what contexts begin with, by the reference.
    """

    kind: int
    parts: float
    map: np.ndarray
    reference: Callable[[dict[str, np.ndarray]], np.ndarray]
    base: np.ndarray = field(default_factory=lambda: ANY)


def mapped(limits: list[int], middle: int = 0) -> np.ndarray:
    """The map of a prediction: how many limits are at or below what is measured, less ``middle``."""
    return (np.searchsorted(np.asarray(limits), np.arange(256) - middle, side="right")).astype(np.uint8)


AS_IT_IS = np.minimum(np.arange(256), 16).astype(np.uint8)
"""The map of a hint that is its own context."""


@dataclass(frozen=True)
class ColumnPlan:
    """One column of a layout.

    Attributes:
        attribute: the stream it belongs to.
        alphabet: how its integers become tokens.
        first: name of the earlier column of the stream, or of the hint, that contexts look at; and its map, which is
            :data:`AS_IT_IS` for a hint of at most 16.
        second: another one.
        previous: map of the column's own token eight Gaussians before.
        prediction: where there is one, contexts look at it, and at ``first``, but at nothing else.
        summed: whether each item is a difference from the one eight before. Encoders are given differences, see
            :func:`lane_differences`; decoders give their sums to the packing.
    """

    attribute: str
    alphabet: Alphabet
    first: tuple[str, np.ndarray] = ("", ANY)
    second: tuple[str, np.ndarray] = ("", ANY)
    previous: np.ndarray = field(default_factory=lambda: ANY)
    summed: bool = False
    prediction: Prediction | None = None

    def column(self, size: int) -> Column:
        """The column, of ``size`` tokens."""
        if self.prediction is not None:
            contexts = 1 + int(self.prediction.base.max()) + int(self.prediction.map.max()) + int(self.first[1].max())
            return Column(self.alphabet, size, contexts)
        contexts = 1 + int(self.first[1].max()) + int(self.second[1].max())
        return Column(self.alphabet, size, contexts, self.previous)

    def contexts(self, seen: dict[str, np.ndarray]) -> np.ndarray | None:
        """``(n,)`` uint8 contexts of items, by the hints and tokens so far; None where they look at none."""
        (first, first_map), (second, second_map) = self.first, self.second
        if not first:
            return None
        contexts = seen[first] if first_map is AS_IT_IS else np.take(first_map, seen[first])
        return contexts + np.take(second_map, seen[second]) if second else contexts


Layout = dict[str, ColumnPlan]

# Of how far the neighbors are from their mean, in tenths of a step.
_AGREEMENT = Prediction(RESIDUAL, 10.0, mapped([3, 7, 10, 14, 20, 28, 40, 56, 80, 112]), lambda seen: seen["dc_steps"])

DC_COLUMNS: Layout = {
    "y": ColumnPlan("dc", Alphabet(6, 1, 32, signed=True), prediction=_AGREEMENT),
    "cg": ColumnPlan("dc", Alphabet(5, 1, 32, signed=True), prediction=_AGREEMENT),
    "co": ColumnPlan(
        "dc", Alphabet(5, 1, 32, signed=True), first=("cg", signed_buckets([-2, 0, 1, 3], 11)), prediction=_AGREEMENT
    ),
}
"""The columns of degree-0 harmonics, in every layout. There is a hint ``dc_steps`` for them."""


def column_sizes(layout: Layout, layers: list[Columns]) -> list[int]:
    """How many tokens each column of a layout needs, 1 to 256, and how many classes the harmonics have."""
    sizes = [
        1 + max(plan.alphabet.token(end) for columns in layers for end in _ends(columns[name]))
        for name, plan in layout.items()
    ]
    largest = max(abs(end) for columns in layers for end in _ends(columns["sh"]))
    return [*sizes, 1 + largest.bit_length()]


def _ends(values: np.ndarray) -> tuple[int, int]:
    """The least and the greatest of some integers, or 0: no value between has a larger token."""
    return int(values.min(initial=0)), int(values.max(initial=0))


def to_ycocg(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, Co and Cg of integers: the reversible transform of Malvar and Sullivan (2003)."""
    co = red - blue
    middle = blue + (co >> 1)
    cg = green - middle
    return middle + (cg >> 1), co, cg


def from_ycocg(y: np.ndarray, co: np.ndarray, cg: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of :func:`to_ycocg`: red, green and blue."""
    middle = y - (cg >> 1)
    blue = middle - (co >> 1)
    return blue + co, cg + middle, blue


def lane_differences(values: np.ndarray) -> np.ndarray:
    """What each item adds to the one eight before it."""
    differences = values.copy()
    differences[LANES:] -= values[:-LANES]
    return differences


def lane_sums(differences: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The inverse of :func:`lane_differences` of int64, modulo 2**64.

    ``before`` has the eight sums before the first one, and is given the last eight. Its use from block to block needs
    blocks of multiples of eight.
    """
    turns = np.zeros((-(-len(differences) // LANES) + 1, LANES), np.int64)
    turns[0] = before
    turns.reshape(-1)[LANES : LANES + len(differences)] = differences
    sums = np.cumsum(turns, axis=0)
    before[:] = sums[-1]
    return sums.reshape(-1)[LANES : LANES + len(differences)]
