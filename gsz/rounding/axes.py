"""Coordinate systems that differ in the signs of their axes, and what a model is in each of them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from gsz.rounding.arrays import Array, Float32s, Placed

RIGHT_DOWN_FRONT = 6
RIGHT_UP_BACK = 4
LEFT_UP_FRONT = 7
"""Coordinate systems: numbers whose bits less one are the three directions. INRIA's programs use the first, most SPZ
files the second, glTF the third."""


def sh_signs(y: float, z: float, x: float = 1.0) -> Float32s:
    """``(15,)`` signs of the SH coefficients of degrees 1 to 3 when axes change sign: the parity of each polynomial."""
    one = 1.0
    parities = [y, z, x, x * y, y * z, one, x * z, one, y, x * y * z, y, z, x, z, x]
    return np.array(parities, np.float32)


class Axes(NamedTuple):
    """Signs that turn INRIA's axes into the file's, and back; float32.

    Attributes:
        means, imaginary: ``(3,)``.
        sh: ``(45,)``, the channels of a coefficient adjacent.
    """

    means: Array
    imaginary: Array
    sh: Array


@cache
def axes_of(system: int) -> Placed[Axes]:
    """Those of a coordinate system."""
    different = (system - 1) ^ (RIGHT_DOWN_FRONT - 1)
    x, y, z = (-1.0 if different >> axis & 1 else 1.0 for axis in range(3))
    signs = np.array([x, y, z], np.float32), np.array([y * z, x * z, x * y], np.float32)
    return Placed(Axes(*signs, np.repeat(sh_signs(y=y, z=z, x=x), 3)))
