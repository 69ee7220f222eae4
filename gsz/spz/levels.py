"""The integers of a file, and what they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gsz.kernels import kernel
from gsz.rounding.arrays import Array, Bytes, Placed, library_of
from gsz.rounding.axes import Axes
from gsz.rounding.elementary import logit
from gsz.rounding.levels import OPACITY_MIDPOINTS, look_up, multiples
from gsz.rounding.rotations import restore_dropped
from gsz.rounding.sh_bits import LEAST_BITS, MOST_BITS, SH_UNIT
from gsz.splats import Splats
from gsz.spz.layout import Planes

MAGNITUDE_UNIT = 511 * math.sqrt(2)
"""Versions 3 and 4 store rotation components as a sign and 9 bits of magnitude, full scale being 1 / sqrt(2)."""


class Tables(NamedTuple):
    """What integers stand for, in float32.

    Attributes:
        log_scales, opacity_logits, sh_dc: ``(256,)`` values of bytes.
        opacity_thresholds: ``(255,)`` logits at which the nearest opacity changes.
        sh_steps: 1, 2, 4, ... 64, by the bits that coefficients have less than 8.
    """

    log_scales: Array
    opacity_logits: Array
    sh_dc: Array
    opacity_thresholds: Array
    sh_steps: Array


def _tables() -> Placed[Tables]:
    byte = np.arange(256, dtype=np.float64)
    tables = Tables(
        log_scales=byte / 16 - 10,
        opacity_logits=logit(np.clip(byte, 1, 254) / 255),
        sh_dc=(byte / 255 - 0.5) / 0.15,
        opacity_thresholds=OPACITY_MIDPOINTS,
        sh_steps=np.ldexp(1.0, np.arange(MOST_BITS - LEAST_BITS + 1)),
    )
    return Placed(Tables(*(table.astype(np.float32) for table in tables)))


TABLES = _tables()


@dataclass(eq=False)
class Levels:
    """The integers of a file, a row a Gaussian.

    Attributes:
        means: ``(N, 3)`` int32 in steps of the fractional bits, or float32 half-precision values (version 1).
        opacities: ``(N,)`` bytes, as uint8 or int32.
        colors, scales: ``(N, 3)`` bytes, likewise.
        dropped: ``(N,)`` int64 index of the component of the rotation that is not stored, x y z w: from version 3 the
            largest, before it the real one.
        others: ``(N, 3)`` int32, the other components.
        rotation_unit: What these stand for 1 as.
        sh_rest: ``(N, 3 K)`` whole numbers, the bytes less 128, as int8 or float32.
    """

    means: Array
    opacities: Array
    colors: Array
    scales: Array
    dropped: Array
    others: Array
    rotation_unit: float
    sh_rest: Array

    def values(self, fractional_bits: int, axes: Axes) -> Splats:
        """What the integers stand for: the one path that both decoding and snapping take."""
        tables = TABLES.beside(self.means)
        count, sh_columns = self.sh_rest.shape
        library = library_of(self.means)
        xyzw = restore_dropped(self.dropped, self.others, self.rotation_unit)
        step = 1.0 if self.means.dtype == library.float32 else 2.0**-fractional_bits
        return Splats(
            means=multiples(self.means, axes.means * step),
            log_scales=look_up(tables.log_scales, self.scales),
            quaternions=library.concatenate([xyzw[:, 3:], xyzw[:, :3] * axes.imaginary], 1),
            opacity_logits=look_up(tables.opacity_logits, self.opacities)[:, None],
            sh_dc=look_up(tables.sh_dc, self.colors)[:, None],
            sh_rest=multiples(self.sh_rest, axes.sh[:sh_columns] * (1 / SH_UNIT)).reshape(count, sh_columns // 3, 3),
        )

    @staticmethod
    def of(planes: Planes, version: int) -> Levels:
        """The integers in a file's planes, the bytes among them as they are: this is how files are read fast."""
        dropped, others = _rotation_fields(planes["quaternions"])
        return Levels(
            means=_fixed_means(planes["means"], version),
            opacities=planes["opacity_logits"].reshape(-1),
            colors=planes["sh_dc"],
            scales=planes["log_scales"],
            dropped=dropped,
            others=others,
            rotation_unit=rotation_unit(version),
            sh_rest=(planes["sh_rest"] ^ np.uint8(SH_UNIT)).view(np.int8),
        )

    def planes(self, version: int) -> Planes:
        """The bytes of each attribute, in the order of the file; of integers in NumPy."""
        fixed = self.means.astype("<i4").view(np.uint8).reshape(-1, 3, 4)
        return {
            "means": fixed[..., :3].reshape(-1, 9),
            "opacity_logits": self.opacities.astype(np.uint8)[:, None],
            "sh_dc": self.colors.astype(np.uint8),
            "log_scales": self.scales.astype(np.uint8),
            "quaternions": _rotation_bytes(self.dropped, self.others, version),
            "sh_rest": (self.sh_rest + SH_UNIT).astype(np.uint8),
        }


def rotation_unit(version: int) -> float:
    """What the components of rotations stand for 1 as."""
    return MAGNITUDE_UNIT if version >= 3 else 255.0


def _fixed_means(plane: Bytes, version: int) -> npt.NDArray[Any]:
    """``(N, 3)`` int32 in steps of the fractional bits; of version 1 float32 positions."""
    if version == 1:
        return plane.reshape(-1).view("<f2").astype(np.float32).reshape(len(plane), 3)
    fixed = np.empty((len(plane), 3), np.int32)
    _signed_24_bits(plane.reshape(-1, 3), fixed.reshape(-1))
    return fixed


@kernel
def _signed_24_bits(plane, numbers):
    for i in range(len(numbers)):
        # The sign comes back by shifting the 24 bits to the top of the word and down again.
        word = np.uint32(plane[i, 0]) << 8 | np.uint32(plane[i, 1]) << 16 | np.uint32(plane[i, 2]) << 24
        numbers[i] = np.int32(word) >> 8


def _rotation_fields(plane: Bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Index of the component that is missing and the others, from three (to version 2) or four bytes a rotation."""
    if plane.shape[1] == 3:
        return np.full(len(plane), 3), 2 * plane.astype(np.int32) - 255
    largest, others = np.empty(len(plane), np.int64), np.empty((len(plane), 3), np.int32)
    _unpack_rotations(np.ascontiguousarray(plane).reshape(-1).view("<u4"), largest, others)
    return largest, others


@kernel
def _unpack_rotations(words, largest, others):
    for i in range(len(words)):
        word = np.int64(words[i])
        largest[i] = word >> 30
        for component in range(3):
            field = word >> (20 - 10 * component)
            others[i, component] = -(field & 511) if field & 512 else field & 511


def _rotation_bytes(dropped: npt.NDArray[np.int64], others: npt.NDArray[np.int32], version: int) -> Bytes:
    """The inverse of :func:`_rotation_fields`."""
    if version == 2:
        return ((others + 255) // 2).astype(np.uint8)
    fields = np.abs(others) | np.where(others < 0, 512, 0)
    word = dropped << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)
