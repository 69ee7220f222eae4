"""Codebooks: 256 numbers for a column of values, and palettes of vectors for rows of them. Our own k-means, seeded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from tqdm import tqdm

from gsz.kernels import SERIAL
from gsz.rounding.quantizers import on_cpu

Float32s = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CODEBOOK_SIZE = 256
DIGITS = 5
"""Significant decimal digits of a codebook's entries: enough for 8 bits, and short in a text file."""

LLOYD_1D = 200
QUANTILES = 1024


def fit_codebook(values: npt.NDArray[np.floating], weights: npt.NDArray[np.floating] | None = None) -> Float32s:
    """256 ascending numbers that stand for ``values`` with little squared error.

    Starts from the density of levels that is best for a fine quantizer, the cube root of the values' own (Panter and
    Dite 1951), and moves to a fixed point by Lloyd's iteration on the sorted values. Values of at most 256 kinds are
    kept to :data:`DIGITS` digits.

    Args:
        values: Any number of finite values, of any shape.
        weights: How much the error of each matters; non-negative, the same shape. By default all matter alike.
    """
    flat = values.reshape(-1).astype(np.float64)
    kinds = np.unique(flat) if flat.size else np.zeros(1)
    if kinds.size <= CODEBOOK_SIZE:
        return _short_decimals(np.pad(kinds, (0, CODEBOOK_SIZE - kinds.size), mode="edge"))
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    mass = np.ones_like(flat) if weights is None else weights.reshape(-1).astype(np.float64)[order]
    mass = mass + mass.mean() * 1e-6 + 1e-30  # no value is worthless, so every cell has a mean
    cumulative_mass = np.concatenate([[0.0], np.cumsum(mass)])
    cumulative = np.concatenate([[0.0], np.cumsum(mass * flat)])
    levels = _companded(flat, cumulative_mass)
    for _ in range(LLOYD_1D):
        cells = np.searchsorted(flat, (levels[1:] + levels[:-1]) / 2)
        bounds = np.concatenate([[0], cells, [flat.size]])
        masses = np.diff(cumulative_mass[bounds])
        means = np.diff(cumulative[bounds]) / np.where(masses > 0, masses, 1.0)
        moved = np.where(np.diff(bounds) > 0, means, levels)
        if np.array_equal(moved, levels):
            break
        levels = moved
    return _short_decimals(levels)


def _companded(ascending: npt.NDArray[np.float64], cumulative_mass: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Levels whose density is the cube root of the values', measured on :data:`QUANTILES` intervals of equal mass."""
    targets = np.linspace(0, cumulative_mass[-1], QUANTILES + 1)
    edges = ascending[np.minimum(np.searchsorted(cumulative_mass, targets), ascending.size - 1)]
    # An interval of width w and mass 1 has density 1 / w, and so a share of w * (1 / w) ** (1 / 3) of the levels.
    share = np.concatenate([[0.0], np.cumsum(np.diff(edges) ** (2 / 3))])
    return np.interp((np.arange(CODEBOOK_SIZE) + 0.5) / CODEBOOK_SIZE, share / share[-1], edges)


def _short_decimals(levels: npt.NDArray[np.float64]) -> Float32s:
    return np.sort(np.array([short_decimal(level) for level in levels], np.float32))


def short_decimal(value: float) -> float:
    """The number of :data:`DIGITS` digits nearest to ``value``; that of a codebook's entry is the entry itself."""
    return float(f"{float(value):.{DIGITS}g}")


@njit(**SERIAL)
def _add_rows(rows, weights, labels, sums, masses):
    for row in range(rows.shape[0]):
        label = labels[row]
        weight = weights[row]
        masses[label] += weight
        for column in range(rows.shape[1]):
            sums[label, column] += weight * rows[row, column]


def centroids_of(rows: Tensor, weights: Tensor, labels: Tensor, previous: Tensor) -> Tensor:
    """``(K, C)`` weighted means of the rows of each label; labels without rows keep their ``previous`` centroid.

    On a GPU the order of the sums, and with it the last bits of the means, is left to chance.
    """
    sums, masses = sums_of(rows, weights, labels, len(previous))
    filled = (masses > 0)[:, None]
    return torch.where(filled, (sums / masses[:, None]).float(), previous)


def sums_of(rows: Tensor, weights: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``(count, C)`` float64 sums of the weighted rows of each label, and ``(count,)`` of their weights."""
    sums = torch.zeros((count, rows.shape[1]), dtype=torch.float64, device=rows.device)
    masses = torch.zeros(count, dtype=torch.float64, device=rows.device)
    if on_cpu(rows):
        _add_rows(*(each.contiguous().numpy() for each in (rows, weights, labels, sums, masses)))
    else:
        sums.index_add_(0, labels, rows.double() * weights.double()[:, None])
        masses.index_add_(0, labels, weights.double())
    return sums, masses


SCORES_AT_ONCE = 1 << 24
"""Distances held in memory at a time."""


def nearest_centroids(rows: Float32s, centroids: Float32s) -> tuple[Labels, Float32s]:
    """For each of ``(N, C)`` rows the nearest of ``(K, C)`` centroids, and how far it is, squared (up to rounding)."""
    labels = np.empty(len(rows), np.int64)
    distances = np.empty(len(rows), np.float32)
    points = torch.from_numpy(centroids)
    squares = points.square().sum(1)
    chunk = max(1, SCORES_AT_ONCE // max(1, len(centroids)))
    for begin in range(0, len(rows), chunk):
        part = torch.from_numpy(rows[begin : begin + chunk])
        best = torch.addmm(squares, part, points.T, alpha=-2.0).min(dim=1)
        labels[begin : begin + chunk] = best.indices.numpy()
        distances[begin : begin + chunk] = (best.values + part.square().sum(1)).numpy()
    return labels, distances


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


@dataclass
class PaletteFitter:
    """K-means over rows, in two levels where there are many, so that even 65536 vectors take minutes and not days.

    Attributes:
        size: Most vectors.
        iterations: Of Lloyd's algorithm, on each level.
        seed: Of the choice of starting rows; the same seed gives the same palette.
    """

    size: int
    iterations: int = 12
    seed: int = 0
    _bar: tqdm | None = field(default=None, repr=False)

    def fit(self, rows: Float32s, weights: Float32s) -> Palette:
        """A palette for ``(N, C)`` finite rows whose errors matter by the ``(N,)`` positive weights."""
        kinds, kind_of = np.unique(rows, axis=0, return_inverse=True)
        if len(kinds) < len(rows):
            kind_of = kind_of.reshape(-1)
            mass = np.bincount(kind_of, weights, len(kinds)).astype(np.float32)
            palette = self.fit(kinds, mass)
            return Palette(palette.labels[kind_of], palette.centroids)
        rows = np.ascontiguousarray(rows)
        with tqdm(total=self.size, desc="palette", unit="vector", delay=2.0, mininterval=0.5, leave=False) as self._bar:
            return self._divide(rows, weights, self.size, np.random.default_rng(self.seed))

    def _divide(self, rows: Float32s, weights: Float32s, size: int, rng: np.random.Generator) -> Palette:
        assert self._bar is not None
        if len(rows) <= size:
            self._bar.update(size)
            return Palette(np.arange(len(rows)), rows.copy())
        if len(rows) * size <= SCORES_AN_ITERATION or size <= GROUPS:
            palette = self._lloyd(rows, weights, size, rng)
            self._bar.update(size)
            return palette
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
        def means() -> Float32s:
            tensors = (torch.from_numpy(each) for each in (rows, weights, labels, centroids))
            return centroids_of(*tensors).numpy()

        centroids = _starting_rows(rows, weights, size, rng)
        labels, distances = nearest_centroids(rows, centroids)
        for _ in range(self.iterations):
            unused = np.flatnonzero(np.bincount(labels, minlength=size) == 0)
            centroids = means()
            # A centroid that nobody chose moves to one of the rows that fare worst.
            worst = np.argsort(-distances * weights, kind="stable")[: len(unused)]
            centroids[unused] = rows[worst]
            labels, distances = nearest_centroids(rows, centroids)
        return Palette(labels, means())


def _starting_rows(rows: Float32s, weights: Float32s, size: int, rng: np.random.Generator) -> Float32s:
    """``size`` different rows, chosen in rounds of those that the ones before represent badly.

    The rounds of k-means|| (Bahmani et al. 2012): each draws with chances in proportion to the squared distance from
    what has been drawn. The draw without replacement is by the largest of the logarithms plus Gumbel noise.
    """
    distances = np.full(len(rows), 1e30, np.float32)
    taken = np.zeros(len(rows), bool)
    for batch in np.diff(np.linspace(0, size, STARTING_ROUNDS + 1).astype(int)):
        chances = np.log(np.maximum(distances, 1e-30) * np.maximum(weights, 1e-30)) + rng.gumbel(size=len(rows))
        chances[taken] = -np.inf
        drawn = np.sort(np.argsort(-chances, kind="stable")[:batch])
        taken[drawn] = True
        if batch:
            nearer = nearest_centroids(rows, rows[drawn])[1]
            distances = np.minimum(distances, np.maximum(nearer, 0))
    return rows[taken]


def _share_out(size: int, counts: list[int]) -> list[int]:
    """``size`` in whole parts proportional to ``counts``, each at least 1 and at most its count."""
    total = sum(counts)
    bounds = np.rint(np.cumsum(counts) * ((size - len(counts)) / total)).astype(int)
    return [min(count, 1 + int(part)) for count, part in zip(counts, np.diff(bounds, prepend=0), strict=True)]
