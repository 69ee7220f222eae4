"""Logarithms and exponentials that are the same to the last bit on every machine.

A mathematical library's own differ between processors and versions in their last bits, and so would what a file holds
or a decoder returns. These are made of operations that IEEE 754 rounds in one way only, in a fixed order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gsz.rounding.arrays import Float64s

LN2 = 0.6931471805599453
LN2_HIGH = float.fromhex("0x1.62e42fefa0000p-1")
"""The first 36 bits of the logarithm of 2: its products with whole numbers of up to 17 bits are exact."""
LN2_LOW = float.fromhex("0x1.cf79abc9e3b3ap-40")

ROOT_HALF = 0.7071067811865476
SERIES = tuple(2.0 / odd for odd in range(17, 0, -2))
"""Of ``log(1 + a) = 2 (r + r**3 / 3 + r**5 / 5 + ...)`` with ``r = a / (2 + a)`` the factors, the last one first."""
_FACTORIALS = tuple(1.0 / math.factorial(number) for number in range(14, 1, -1))


def log(values: npt.ArrayLike) -> Float64s:
    """The natural logarithm, to 2e-15 of it; of 0 minus infinity, of less NaN."""
    exact = np.asarray(values, np.float64)
    ordinary = (exact > 0.0) & (exact < np.inf)
    fraction, exponent = np.frexp(np.where(ordinary, exact, 1.0))
    small = fraction < ROOT_HALF
    fraction = np.where(small, 2.0 * fraction, fraction)
    ratio = (fraction - 1.0) / (fraction + 1.0)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    for factor in SERIES:
        total *= square
        total += factor
    logs = (exponent - small) * LN2 + total * ratio
    if ordinary.all():
        return logs
    return np.where(ordinary, logs, np.where(exact == 0.0, -np.inf, np.where(exact == np.inf, np.inf, np.nan)))


def log2(values: npt.ArrayLike) -> Float64s:
    """The binary logarithm of positive numbers, to 2e-15 of it."""
    return log(values) / LN2


def logit(probabilities: npt.ArrayLike) -> Float64s:
    """The inverse of the sigmoid, for probabilities strictly between 0 and 1."""
    exact = np.asarray(probabilities, np.float64)
    return log(exact / (1.0 - exact))


def log_sigmoid(logits: npt.ArrayLike) -> Float64s:
    """The logarithm of the sigmoid, ``-log(1 + exp(-x))``, to 2e-15 of it or 1e-16, whichever is more."""
    exact = np.asarray(logits, np.float64)
    return np.minimum(exact, 0.0) - log(1.0 + exp2(np.abs(exact) / -LN2))


def exp2(values: npt.ArrayLike) -> Float64s:
    """2 to the power of numbers, to 2e-15 of it; of NaN NaN."""
    exact = np.clip(np.asarray(values, np.float64), -1100.0, 1100.0)  # Beyond are 0 and infinity.
    exponent = np.rint(exact)
    return np.ldexp(1.0 + _expm1((exact - exponent) * LN2), np.nan_to_num(exponent).astype(np.int32))


def signed_exp(logs: Float64s) -> Float64s:
    """``sign(x) (exp(abs(x)) - 1)``, to 2e-15 of it: the inverse of :func:`gsz.rounding.levels.signed_log`."""
    sizes = np.abs(logs)
    exponent = np.rint(sizes / LN2)
    rest = (sizes - exponent * LN2_HIGH) - exponent * LN2_LOW
    power = np.ldexp(1.0, exponent.astype(np.int32))
    return np.copysign((power - 1.0) + power * _expm1(rest), logs)


def _expm1(values: Float64s) -> Float64s:
    """``exp(x) - 1`` of numbers within ``log(2) / 2`` of zero."""
    total = np.zeros_like(values)
    for factor in _FACTORIALS:
        total += factor
        total *= values
    total += 1.0
    return total * values


def mean(values: npt.NDArray[np.floating]) -> float:
    """The mean of at least one number, added from the first to the last."""
    return float(np.add.accumulate(values.reshape(-1), dtype=np.float64)[-1]) / values.size
