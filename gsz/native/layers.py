"""Layers of falling importance: which Gaussians are in which, and in what order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gsz.coding.alphabet import LANES
from gsz.coding.morton import stable_order
from gsz.errors import UserError
from gsz.rounding import elementary
from gsz.rounding.elementary import LN2
from gsz.splats import Splats

MAX_LAYERS = 16
SMALL_LAYER = 256
"""A model is cut into layers only where the first of them has about so many Gaussians or more."""


def layer_ends(count: int, layers: int) -> list[int]:
    """How many of ``count`` Gaussians there are to the end of each of at most so many layers: half of them to the end
    of the last but one, a quarter to the end of the one before, and so on."""
    layers = max(1, min(layers, math.frexp(max(1, count / SMALL_LAYER))[1]))
    return [count >> (layers - 1 - layer) for layer in range(layers)]


def split(
    splats: Splats, layers: int, importance: npt.NDArray[np.floating] | None, curve: np.ndarray
) -> list[np.ndarray]:
    """Indices of the Gaussians of each layer, in the order of a file.

    Args:
        layers: how many, at most.
        importance: ``(N,)``, or None for :func:`default_importance`.
        curve: ``(N,)`` int64 places along a curve.

    Raises:
        UserError: there are importances of another number of Gaussians.
    """
    count, ends = len(splats), layer_ends(len(splats), layers)
    if len(ends) == 1:
        return [in_lanes(stable_order(curve))]
    if importance is None:
        importance = default_importance(splats)
    elif len(importance) != count:
        raise UserError(f"importance of {len(importance)} Gaussians given for {count}; score the model again")
    unimportance = np.nan_to_num(-importance.astype(np.float64).reshape(-1), nan=np.inf)
    layer_of = np.full(count, len(ends) - 1, np.uint8)
    for layer in reversed(range(len(ends) - 1)):
        layer_of[smallest(unimportance, ends[layer])] = layer
    rows = [np.flatnonzero(layer_of == layer) for layer in range(len(ends))]
    return [of_layer[in_lanes(stable_order(curve[of_layer]))] for of_layer in rows]


def default_importance(splats: Splats) -> npt.NDArray[np.float64]:
    """``(N,)`` opacity times the product of the two largest scales: about what a Gaussian covers, in world units."""
    first, second, third = splats.log_scales.astype(np.float64).T
    largest = first + second + third - np.minimum(np.minimum(first, second), third)
    logarithm = np.minimum(largest, 80) + elementary.log_sigmoid(splats.opacity_logits[:, 0])
    return elementary.exp2(logarithm / LN2)


def smallest(values: np.ndarray, number: int) -> npt.NDArray[np.bool_]:
    """``(N,)``: the ``number`` smallest values, and among equals the first."""
    limit = np.partition(values, number - 1)[number - 1]
    chosen = values < limit
    chosen[np.flatnonzero(values == limit)[: number - int(chosen.sum())]] = True
    return chosen


def in_lanes(order: np.ndarray) -> np.ndarray:
    """Cut ``order`` into eight runs and take one of each in turn; the first runs are longer by one where need be."""
    count = len(order)
    begins = np.concatenate([[0], np.cumsum([(count - lane + LANES - 1) // LANES for lane in range(LANES)])[:-1]])
    item = np.arange(count)
    return order[begins[item % LANES] + item // LANES]
