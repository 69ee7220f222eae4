"""The palette of spherical harmonics: vectors that Gaussians share, and the 256 numbers that these are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gsz.coding.morton import morton_order
from gsz.rounding import elementary
from gsz.rounding.arrays import Array, Float32s, Placed
from gsz.rounding.codebooks import CODEBOOK_SIZE, short_decimal
from gsz.rounding.levels import midpoints_of, nearest_levels, round_to_multiples
from gsz.rounding.palettes import Labels, Palette, PaletteFitter, centroids_of, nearest_centroids
from gsz.rounding.sh_bits import MOST_BITS, SH_UNIT, bits_of, log2_prominence
from gsz.sog.levels import LARGEST_FLOAT, PaletteLevels
from gsz.splats import Splats

FOLLOW_EVERY = 4
"""Iterations after which the palette moves to where its Gaussians have gone: it costs as much as a snap."""

EVEN_LEVELS = 96
"""Entries of the codebook of SH coefficients to either side of 0 that are evenly spaced."""


class _Fixed(NamedTuple):
    """What stays as it was fitted.

    Attributes:
        labels: ``(N,)`` int64 number of each Gaussian's vector.
        weights: ``(N,)`` float32, at most 1 in each vector.
        steps: ``(vectors,)`` float32 steps of their numbers, in units of ``1 / SH_UNIT``.
        units: ``(3 K,)`` float32, :data:`SH_UNIT` each.
        codebook, thresholds: 256 numbers, and those at which the nearest one changes.
    """

    labels: Array
    weights: Array
    steps: Array
    units: Array
    codebook: Array
    thresholds: Array


class _Vectors(NamedTuple):
    """Where the vectors are.

    Attributes:
        centroids: ``(vectors, 3 K)`` float32, unrounded.
        entries: ``(vectors, 3 K)`` indices into the codebook.
    """

    centroids: Array
    entries: Array


class ShPalette:
    """The palette of one model: which vector each of its Gaussians has, and where the vectors are.

    Which vector a Gaussian has is settled when this is made, since searching among thousands of vectors anew in every
    iteration would take seconds. Where the vectors are follows their Gaussians. A vector's numbers are multiples of
    its own step before they become entries of the codebook: an image of few different bytes is small.
    """

    def __init__(self, palette: Palette, weights: Float32s, steps: Float32s, codebook: Float32s) -> None:
        units = np.full(palette.centroids.shape[1], SH_UNIT, np.float32)
        weights = _within_one(weights, palette.labels, len(palette.centroids))
        self._fixed = Placed(_Fixed(palette.labels, weights, steps, units, codebook, midpoints_of(codebook)))
        self._vectors = self._rounded(palette.centroids)
        self._observed = 0

    def observe(self, sh_rest: Array) -> None:
        """Now and then move the vectors as :meth:`follow` does."""
        self._observed += 1
        if self._observed % FOLLOW_EVERY == 1:
            self.follow(sh_rest)

    def follow(self, sh_rest: Array) -> None:
        """Move the vectors to the means of the ``(N, K, 3)`` coefficients of their Gaussians."""
        fixed = self._of(sh_rest)
        previous = self._vectors.beside(sh_rest).centroids
        self._vectors = self._rounded(centroids_of(rows_of(sh_rest), fixed.weights, fixed.labels, previous))

    def rebound(self, splats: Splats[Float32s]) -> ShPalette:
        """The same vectors for other Gaussians: each has the nearest, unrounded, to its coefficients."""
        steps, codebook, centroids = self._fixed.here.steps, self._fixed.here.codebook, self._vectors.here.centroids
        labels, _ = nearest_centroids(rows_of(splats.sh_rest), centroids)
        return ShPalette(Palette(labels, centroids), weights_of(splats), steps, codebook)

    def levels(self, sh_rest: Array) -> PaletteLevels:
        """The integers of the palette, in the place of ``sh_rest``."""
        fixed = self._of(sh_rest)
        return PaletteLevels(fixed.codebook, self._vectors.beside(sh_rest).entries, fixed.labels)

    def _of(self, sh_rest: Array) -> _Fixed:
        """The tables beside the coefficients, which must be of as many Gaussians as have labels."""
        fixed = self._fixed.beside(sh_rest)
        if len(sh_rest) != len(fixed.labels):
            raise ValueError(
                f"this grid belongs to the {len(fixed.labels)} Gaussians it was fitted to and is given {len(sh_rest)}; "
                "fit a grid to these, or bind this one to them with rebind"
            )
        return fixed

    def _rounded(self, centroids: Array) -> Placed[_Vectors]:
        fixed = self._fixed.beside(centroids)
        multiples = round_to_multiples(centroids, fixed.units, fixed.steps, -LARGEST_FLOAT, LARGEST_FLOAT)
        return Placed(_Vectors(centroids, nearest_levels(multiples / SH_UNIT, fixed.thresholds)))


def rows_of(sh_rest: Array) -> Array:
    """``(N, 3 K)`` coefficients of ``(N, K, 3)``, the channels of one adjacent."""
    return sh_rest.reshape(len(sh_rest), 3 * sh_rest.shape[1])


def weights_of(splats: Splats[Float32s], power: float = 1.0) -> Float32s:
    """``(N,)`` powers of the prominence of Gaussians, 1 on average.

    As weights in the palette they halve what an unweighted one loses on the demo's model.
    """
    if len(splats) == 0:
        return np.zeros(0, np.float32)
    logs = log2_prominence(splats)
    prominence = elementary.exp2(power * (logs - logs.max()))
    return (prominence / elementary.mean(prominence) + 1e-6).astype(np.float32)


def _within_one(weights: Float32s, labels: Labels, count: int) -> Float32s:
    """The weights of each label divided by a power of two, so that its largest is from a half up to 1: means stay as
    they are."""
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, labels, weights)
    return np.ldexp(weights, -np.frexp(largest)[1][labels])


def fit_palette(splats: Splats[Float32s], fitter: PaletteFitter, bits: float) -> ShPalette | None:
    """The palette of a model; None for one without harmonics above degree 0.

    Args:
        bits: Bits of the numbers of a vector that one average Gaussian has, before they are held within 2 and 8.
    """
    if splats.sh_degree == 0:
        return None
    rows, weights = rows_of(splats.sh_rest), weights_of(splats)
    palette = _fitted(rows, weights, fitter)
    vector_bits = _bits_of_vectors(palette, splats, bits)
    # Neighbors in the image are vectors of like steps, and among these neighbors in space.
    first = np.full(len(vector_bits), len(rows))
    np.minimum.at(first, palette.labels[morton_order(splats.means)], np.arange(len(rows)))
    order = np.lexsort((first, -vector_bits))
    palette = Palette(np.argsort(order)[palette.labels], palette.centroids[order])
    steps = np.ldexp(np.float32(1.0), MOST_BITS - vector_bits[order])
    return ShPalette(palette, weights, steps, _codebook(rows))


def _fitted(rows: Float32s, weights: Float32s, fitter: PaletteFitter) -> Palette:
    """A palette in which rows of zeros have the first vector for themselves.

    In the cell of another vector the view dependence that was pruned from them would come back.
    """
    colored = np.flatnonzero(rows.any(axis=1))
    if len(rows) and (len(colored) == len(rows) or fitter.size == 1):
        return fitter.fit(rows, weights)
    fitted = replace(fitter, size=fitter.size - 1).fit(rows[colored], weights[colored])
    labels = np.zeros(len(rows), np.int64)
    labels[colored] = 1 + fitted.labels
    return Palette(labels, np.concatenate([np.zeros((1, rows.shape[1]), np.float32), fitted.centroids]))


def _bits_of_vectors(palette: Palette, splats: Splats[Float32s], bits: float) -> npt.NDArray[np.int32]:
    """Bits of each vector's numbers. Squares of what its Gaussians show add up, as those of their errors do."""
    logs = log2_prominence(splats)
    average = elementary.mean(logs) if len(logs) else 0.0
    squares = np.bincount(palette.labels, elementary.exp2(2 * (logs - average)), len(palette.centroids))
    together = 0.5 * elementary.log2(np.maximum(squares, np.finfo(np.float64).tiny))
    return bits_of(together, 0.0, bits)


def _codebook(rows: Float32s) -> Float32s:
    """256 ascending numbers: multiples of ``1 / SH_UNIT`` up to :data:`EVEN_LEVELS` of them to either side of 0, then
    growing steps up to the largest coefficient, or to 1."""
    reach = max(float(np.abs(rows).max(initial=0.0)), 1.0)
    low, high = elementary.log2([EVEN_LEVELS / SH_UNIT, reach]).tolist()
    tail = elementary.exp2(np.linspace(low, high, CODEBOOK_SIZE // 2 - EVEN_LEVELS + 1))[1:]
    positive = np.concatenate([np.arange(1, EVEN_LEVELS + 1) / SH_UNIT, tail])
    levels = np.concatenate([-positive[::-1], [0.0], positive[:-1]])
    return np.array([short_decimal(level) for level in levels], np.float32)
