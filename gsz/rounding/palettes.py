"""Palettes: vectors that stand for rows of numbers. Our own k-means, seeded, the same on every machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsz.kernels import kernel
from gsz.rounding import elementary
from gsz.rounding.arrays import Array, Float32s, Float64s, with_tensor_form

logger = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]

ROWS_AT_ONCE = 1 << 12
"""Rows that are compared with all centroids at a time."""

SCORES_AN_ITERATION = 1 << 26
"""Distances an iteration of k-means may compute before the rows are first divided into groups."""

GROUPS = 64
STARTING_ROUNDS = 5


@dataclass
class Palette:
    """Vectors that stand for rows.

    Attributes:
        labels: ``(N,)`` which vector stands for each row.
        centroids: ``(K, C)`` the vectors.
    """

    labels: Labels
    centroids: Float32s


@with_tensor_form
def centroids_of(rows: Float32s, weights: Float32s, labels: Labels, previous: Float32s) -> Array:
    """``(K, C)`` float32 weighted means of the rows of each label; labels without rows keep their ``previous`` one.

    Args:
        rows: ``(N, C)``.
        weights: ``(N,)``, positive.
        labels: ``(N,)``.
        previous: ``(K, C)``.
    """
    sums, masses = sums_of(rows, weights, labels, len(previous))
    filled = masses > 0
    return np.where(filled[:, None], sums / np.where(filled, masses, 1.0)[:, None], previous).astype(np.float32)


def sums_of(rows: Float32s, weights: Float32s, labels: Labels, count: int) -> tuple[Float64s, Float64s]:
    """``(count, C)`` sums of the weighted rows of each label and ``(count,)`` of their weights, row after row."""
    sums, masses = np.zeros((count, rows.shape[1])), np.zeros(count)
    _add_rows(np.ascontiguousarray(rows), weights, labels, sums, masses)
    return sums, masses


@kernel
def _add_rows(rows, weights, labels, sums, masses):
    for row in range(rows.shape[0]):
        label = labels[row]
        weight = weights[row]
        masses[label] += weight
        for column in range(rows.shape[1]):
            sums[label, column] += weight * rows[row, column]


def nearest_centroids(rows: Float32s, centroids: Float32s) -> tuple[Labels, Float32s]:
    """For each of ``(N, C)`` rows the nearest of ``(K, C)`` centroids, and how far it is, squared (up to rounding).

    A matrix product would do most of it, but those of libraries add in an order that depends on the processor.
    """
    labels, distances = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    columns = _in_fours(centroids).T.copy()
    squares = _squares_of(columns)
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = _in_fours(rows[begin : begin + ROWS_AT_ONCE])
        end = begin + len(part)
        _nearest(part, -2 * columns, squares, labels[begin:end], distances[begin:end])
        distances[begin:end] += _squares_of(part.T)
    return labels, np.maximum(distances, 0)


def _in_fours(rows: Float32s) -> Float32s:
    """The rows with zeros added to make the number of columns a multiple of four."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))


def _squares_of(columns: Float32s) -> Float32s:
    """The sums of the squares of columns, from the first to the last."""
    squares = np.zeros(columns.shape[1], np.float32)
    for column in columns:
        squares += column * column
    return squares


@kernel
def _nearest(rows, columns, squares, labels, scores):
    """Labels of the centroids with the smallest sums of ``squares`` and the products of rows and columns.

    Two rows at a time, because what is read of the columns then serves two of them, and four columns, because the sums
    so far are read and written as often as that.
    """
    first, second = np.empty_like(squares), np.empty_like(squares)
    last = len(rows) - 1
    for row in range(0, len(rows), 2):
        other = min(row + 1, last)
        first[:] = squares
        second[:] = squares
        for j in range(0, rows.shape[1], 4):
            a, b, c, d = rows[row, j], rows[row, j + 1], rows[row, j + 2], rows[row, j + 3]
            e, f, g, h = rows[other, j], rows[other, j + 1], rows[other, j + 2], rows[other, j + 3]
            for k in range(squares.size):
                p, q, r, s = columns[j, k], columns[j + 1, k], columns[j + 2, k], columns[j + 3, k]
                first[k] += a * p + b * q + c * r + d * s
                second[k] += e * p + f * q + g * r + h * s
        nearest, nearest_other = 0, 0
        for k in range(1, squares.size):
            nearest = k if first[k] < first[nearest] else nearest
            nearest_other = k if second[k] < second[nearest_other] else nearest_other
        labels[row], scores[row] = nearest, first[nearest]
        labels[other], scores[other] = nearest_other, second[nearest_other]


@dataclass(frozen=True)
class PaletteFitter:
    """K-means over rows, in two levels where there are many, so that even 65536 vectors take minutes and not days.

    Attributes:
        size: Most vectors.
        iterations: Iterations of Lloyd's algorithm, on each level.
        seed: Seed of the choice of starting rows; the same seed gives the same palette.
    """

    size: int
    iterations: int = 12
    seed: int = 0

    def fit(self, rows: Float32s, weights: Float32s) -> Palette:
        """A palette for ``(N, C)`` finite rows whose errors matter by the ``(N,)`` positive weights."""
        kinds, kind_of = np.unique(rows, axis=0, return_inverse=True)
        if len(kinds) < len(rows):
            kind_of = kind_of.reshape(-1)
            mass = np.bincount(kind_of, weights, len(kinds)).astype(np.float32)
            palette = self.fit(kinds, mass)
            return Palette(palette.labels[kind_of], palette.centroids)
        if len(rows) > self.size:
            logger.info("fitting a palette of %d vectors to %d rows", self.size, len(rows))
        return self._divide(np.ascontiguousarray(rows), weights, self.size, np.random.default_rng(self.seed))

    def _divide(self, rows: Float32s, weights: Float32s, size: int, rng: np.random.Generator) -> Palette:
        if len(rows) <= size:
            return Palette(np.arange(len(rows)), rows.copy())
        if len(rows) * size <= SCORES_AN_ITERATION or size <= GROUPS:
            return self._lloyd(rows, weights, size, rng)
        groups = self._lloyd(rows, weights, GROUPS, rng)
        members = [np.flatnonzero(groups.labels == group) for group in range(GROUPS)]
        members = [index for index in members if index.size]
        if len(members) == 1:  # Rows that rounding cannot tell apart would be divided for ever.
            return Palette(groups.labels, groups.centroids)
        shares = _share_out(size, [len(index) for index in members])
        labels = np.empty(len(rows), np.int64)
        parts: list[Float32s] = []
        offset = 0
        for index, share in zip(members, shares, strict=True):
            part = self._divide(np.ascontiguousarray(rows[index]), weights[index], share, rng)
            labels[index] = part.labels + offset
            parts.append(part.centroids)
            offset += len(part.centroids)
        return Palette(labels, np.concatenate(parts))

    def _lloyd(self, rows: Float32s, weights: Float32s, size: int, rng: np.random.Generator) -> Palette:
        centroids = _starting_rows(rows, weights, size, rng)
        labels, distances = nearest_centroids(rows, centroids)
        for _ in range(self.iterations):
            unused = np.flatnonzero(np.bincount(labels, minlength=size) == 0)
            centroids = centroids_of(rows, weights, labels, centroids)
            # A centroid that nobody chose moves to one of the rows that fare worst.
            worst = np.argsort(-distances * weights, kind="stable")[: len(unused)]
            centroids[unused] = rows[worst]
            labels, distances = nearest_centroids(rows, centroids)
        return Palette(labels, centroids_of(rows, weights, labels, centroids))


def _starting_rows(rows: Float32s, weights: Float32s, size: int, rng: np.random.Generator) -> Float32s:
    """``size`` different rows, chosen in rounds of those that the ones before represent badly.

    The rounds of k-means|| (Bahmani et al. 2012): each draws with chances in proportion to the squared distance from
    what has been drawn. The draw without replacement is by the smallest of exponentially distributed numbers, each
    divided by its chance (Efraimidis and Spirakis 2006).
    """
    distances = np.full(len(rows), 1e30, np.float32)
    taken = np.zeros(len(rows), bool)
    for batch in np.diff(np.linspace(0, size, STARTING_ROUNDS + 1).astype(int)):
        chances = np.maximum(distances, 1e-30).astype(np.float64) * np.maximum(weights, 1e-30)
        arrivals = -elementary.log(1.0 - rng.random(len(rows))) / chances
        arrivals[taken] = np.inf
        drawn = np.sort(np.argsort(arrivals, kind="stable")[:batch])
        taken[drawn] = True
        if batch:
            distances = np.minimum(distances, nearest_centroids(rows, rows[drawn])[1])
    return rows[taken]


def _share_out(size: int, counts: list[int]) -> list[int]:
    """``size`` in whole parts proportional to ``counts``, each at least 1 and at most its count."""
    total = sum(counts)
    bounds = np.rint(np.cumsum(counts) * ((size - len(counts)) / total)).astype(int)
    return [min(count, 1 + int(part)) for count, part in zip(counts, np.diff(bounds, prepend=0), strict=True)]
