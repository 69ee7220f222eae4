"""From parameters to symbols and back: the part of the format that rounds.

:func:`quantize` and :func:`dequantize` are the whole of it. ``snap`` is one after the other, ``encode`` the first and
``decode`` the second, so the law holds by construction. Both use nothing but comparisons, additions, multiplications,
divisions and square roots, in a fixed order, and tables: every IEEE machine returns the same bits.
:mod:`gsz.native.gpu_kernels` has the same arithmetic for models on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gsz.coding.tables import at
from gsz.kernels import inline, kernel
from gsz.native.steps import (
    DC_LIMIT,
    DC_RULE,
    LARGEST_EXPONENT,
    LARGEST_MEAN,
    LOGS_PER_OCTAVE,
    MEAN_LIMIT,
    POWER_OCTAVES,
    RECONSTRUCTED,
    ROTATION_LIMIT,
    ROTATION_RULE,
    SCALE_LIMIT,
    SH_LIMIT,
    SH_RULE,
    SIZE_OF_NOTHING,
    Steps,
)
from gsz.splats import Splats, parameter_shapes

ROWS_OF_ARITHMETIC = 256
"""So many Gaussians go through a loop together, where it leaves something behind for the next."""
ROWS_AT_ONCE = 1 << 12
"""Parameters of so many Gaussians stay in a processor's cache from one pass over them to the next."""


class Symbols(NamedTuple):
    """The integers of ``N`` Gaussians.

    Attributes:
        means: ``(N, 3)`` int32, contracted positions in grid steps.
        scales: ``(N, 3)`` int32, powers of scales, largest first, in the steps of :attr:`Steps.scale_steps`.
        opacities: ``(N,)`` int32 levels.
        rotations: ``(N, 3)`` int32, the vector part of the canonical quaternion in steps.
        dc: ``(N, 3)`` int32 RGB in steps of the Gaussian's fineness.
        sh: ``(N, K * 3)`` int16 in steps, coefficient by coefficient: Y, Co, Cg.
    """

    means: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    rotations: np.ndarray
    dc: np.ndarray
    sh: np.ndarray

    @staticmethod
    def blank(count: int, coefficients: int) -> Symbols:
        """To be filled in."""
        return Symbols(
            means=np.empty((count, 3), np.int32),
            scales=np.empty((count, 3), np.int32),
            opacities=np.empty(count, np.int32),
            rotations=np.empty((count, 3), np.int32),
            dc=np.empty((count, 3), np.int32),
            sh=np.empty((count, 3 * coefficients), np.int16),
        )

    def rows(self, rows: slice) -> Symbols:
        """Those of some Gaussians, in the same memory."""
        return Symbols(*(array[rows] for array in self))

    def take(self, index: np.ndarray) -> Symbols:
        """The Gaussians that ``index`` names."""
        return Symbols(*(np.take(array, index, axis=0) for array in self))


class Frames(NamedTuple):
    """What canonicalization did to each Gaussian, for the way back of gradients.

    Attributes:
        turn: ``(N,)`` uint8, row of :data:`TURNS` that the unit quaternion was multiplied by from the right; a quarter
            of it is the row of :data:`AXIS_ORDERS`.
        sign: ``(N,)`` int8, 1 or -1, by which the quaternion was multiplied.
        norm: ``(N,)`` float32 length of the original quaternion, 0 where it has none.
    """

    turn: np.ndarray
    sign: np.ndarray
    norm: np.ndarray

    @staticmethod
    def blank(count: int) -> Frames:
        """To be filled in."""
        return Frames(np.empty(count, np.uint8), np.empty(count, np.int8), np.empty(count, np.float32))

    def rows(self, rows: slice) -> Frames:
        """Those of some Gaussians, in the same memory."""
        return Frames(*(array[rows] for array in self))


class Finenesses(NamedTuple):
    """Rows of :attr:`Steps.rotation_steps`, :attr:`Steps.dc_steps` and :attr:`Steps.sh_steps`, each ``(N,)`` uint8."""

    rotations: np.ndarray
    dc: np.ndarray
    sh: np.ndarray

    @staticmethod
    def blank(count: int) -> Finenesses:
        """To be filled in."""
        return Finenesses(*(np.empty(count, np.uint8) for _ in Finenesses._fields))

    def rows(self, rows: slice) -> Finenesses:
        """Those of some Gaussians, in the same memory."""
        return Finenesses(*(array[rows] for array in self))


@dataclass(frozen=True)
class Quantized:
    """A model on a grid: its symbols, how fine they are, and how it was turned to get there."""

    symbols: Symbols
    finenesses: Finenesses
    frames: Frames


AXIS_ORDERS = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]], np.uint8)
"""The orders of three axes; the last three are odd."""
KINDS = np.array([5, 4, 1, 4, 2, 3, 0, 0], np.uint8)
"""Rows of them, by three bits: whether the first is at least the second, the second the third, the first the third."""
_FRACTION, _BITS_OF_ONE = (1 << 52) - 1, 1023 << 52
"""Of a float64: the bits of the fraction, and what its bits are without one from 1 to 2."""


def _turns() -> np.ndarray:
    """``(24, 4)`` float64 unit quaternions, wxyz: row ``4 * order + flip``.

    Multiplying a rotation by it from the right reorders its axes as ``AXIS_ORDERS[order]`` says (one of them reversed
    where the order is odd), and then turns it by pi about the axis ``flip - 1``, for a ``flip`` above 0. Neither
    changes a Gaussian whose scales are reordered alike.
    """
    half = math.sqrt(0.5)
    reorder = np.array(
        [
            [1, 0, 0, 0],
            [0.5, 0.5, 0.5, 0.5],
            [0.5, -0.5, -0.5, -0.5],
            [half, half, 0, 0],
            [half, 0, 0, half],
            [half, 0, half, 0],
        ]
    )
    conjugate_units = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]])
    return np.array([_multiply(turn, unit) for turn in reorder for unit in conjugate_units])


def _multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hamilton product of two quaternions, wxyz."""
    w, x, y, z = left
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]) @ right


TURNS = _turns()
_FLAT_ORDERS, _FLAT_TURNS = AXIS_ORDERS.reshape(-1), TURNS.reshape(-1)
_REORDERS = tuple(map(tuple, TURNS[::4].T.tolist()))
"""By component, of the turns that only reorder axes."""
_PACKED_KINDS = sum(int(kind) << (4 * place) for place, kind in enumerate(KINDS))

FLIPS = np.array([[1, 2, 3], [0, 3, 2], [3, 0, 1], [2, 1, 0]])
FLIP_SIGNS = np.array([[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])
"""The vector part of a quaternion after the turn by pi about axis ``flip - 1``: which components, with which signs.

The scalar part becomes the component ``flip``.
"""


def quantize(model: Splats, steps: Steps) -> Quantized:
    """The symbols of a model, in its order. NaN becomes some symbol or other; nothing is raised."""
    count, coefficients = model.sh_rest.shape[:2]
    quantized = Quantized(Symbols.blank(count, coefficients), Finenesses.blank(count), Frames.blank(count))
    quantize_into(quantized, model.numpy().map(_writable), steps)
    symbols, fineness = quantized.symbols, quantized.finenesses
    in_steps = np.empty((ROWS_AT_ONCE, 3 * coefficients), np.float32)
    for begin in range(0, count, ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        quantize_sh(model.sh_rest[rows], fineness.sh[rows], steps, symbols.sh[rows], in_steps)
    return quantized


def quantize_into(quantized: Quantized, model: Splats, steps: Steps) -> None:
    """As :func:`quantize`, of arrays that may be written, into memory for as many Gaussians; all but the harmonics."""
    count, symbols, fineness, frames = len(model), quantized.symbols, quantized.finenesses, quantized.frames
    per_unit = float(1 << steps.mean_bits)
    _quantize_means(model.means.reshape(-1), steps.center, 1 / steps.radius, per_unit, symbols.means.reshape(-1))
    _quantize_shapes(
        model.log_scales, model.opacity_logits, steps, symbols.scales, symbols.opacities, fineness, frames.turn
    )
    _quantize_rotations(
        model.quaternions.reshape(-1),
        fineness.rotations,
        steps.per_rotation,
        np.empty(5 * ROWS_OF_ARITHMETIC),
        symbols.rotations.reshape(-1),
        frames.turn,
        frames.sign,
        frames.norm,
    )
    _quantize_dc(model.sh_dc.reshape(count, 3), fineness.dc, steps.per_dc, symbols.dc)


def finenesses(log_scales: np.ndarray, opacity_logits: np.ndarray, steps: Steps) -> Finenesses:
    """What :func:`quantize` finds for ``(N, 3)`` log-scales and ``(N, 1)`` logits."""
    count = len(log_scales)
    fineness = Finenesses.blank(count)
    _quantize_shapes(
        _writable(log_scales),
        _writable(opacity_logits),
        steps,
        np.empty((count, 3), np.int32),
        np.empty(count, np.int32),
        fineness,
        np.empty(count, np.uint8),
    )
    return fineness


def _quantize_shapes(
    log_scales: np.ndarray,
    opacity_logits: np.ndarray,
    steps: Steps,
    scales: np.ndarray,
    levels: np.ndarray,
    fineness: Finenesses,
    turns: np.ndarray,
) -> None:
    """Fill in symbols of scales and levels of opacities, what follows from them, and the turns that reorder axes.

    Args:
        turns: are given the first of four each.
    """
    _quantize_scales(log_scales.reshape(-1), steps.scale_pivot, steps.per_scale, scales.reshape(-1), turns)
    opacities = np.empty(ROWS_OF_ARITHMETIC, np.int32)
    # To tell what kind of a named tuple it is given takes Numba longer than to round a thousand Gaussians.
    rules = FinenessRules.of(steps)
    _quantize_opacities(
        opacity_logits.reshape(-1), steps.padded_thresholds, scales.reshape(-1), *rules, opacities, levels, *fineness
    )


def quantize_sh(
    sh_rest: np.ndarray, fineness: np.ndarray, steps: Steps, symbols: np.ndarray, in_steps: np.ndarray
) -> None:
    """Round harmonics.

    Args:
        sh_rest: ``(N, K, 3)``.
        fineness: ``(N,)`` uint8.
        symbols: ``(N, 3 K)`` int16, are filled in.
        in_steps: ``(N or more, 3 K)`` float32, are filled in with Y, Co and Cg, each in its steps, before the rounding.
            Y is the mean of red, green and blue, Co half of red less blue, and Cg, whose sign is opposite to the usual,
            a sixth of red and blue less twice green. View-dependent light is nearly white, so that Y has nearly all
            there is.
    """
    rounding = np.float32(1 - steps.sh_threshold)
    _quantize_sh(_writable(sh_rest).reshape(symbols.shape), fineness, steps.sh_per_unit, rounding, symbols, in_steps)


def dequantize(quantized: Quantized, steps: Steps) -> Splats:
    """The model that symbols stand for, in their order. All values are finite."""
    symbols, fineness = quantized.symbols, quantized.finenesses
    model = blank_model(len(symbols.sh), math.isqrt(symbols.sh.shape[1] // 3 + 1) - 1)
    dequantize_into(model, symbols, fineness, steps)
    dequantize_sh(model.sh_rest, symbols.sh, fineness.sh, steps)
    return model


def blank_model(count: int, sh_degree: int) -> Splats:
    """A model whose values are yet to be filled in."""
    return Splats(**{name: np.empty(shape, np.float32) for name, shape in parameter_shapes(count, sh_degree).items()})


def dequantize_into(model: Splats, symbols: Symbols, fineness: Finenesses, steps: Steps) -> None:
    """As :func:`dequantize`, into a model or some rows of one; all but the harmonics. Any symbols are allowed."""
    step = 1.0 / (1 << steps.mean_bits)
    _dequantize_means(symbols.means.reshape(-1), steps.center, steps.radius, step, model.means.reshape(-1))
    _dequantize_shapes(
        symbols.scales,
        symbols.rotations,
        fineness.rotations,
        steps.small_scales,
        steps.scale_pivot,
        steps.scale_steps,
        steps.rotation_steps,
        model.log_scales,
        model.quaternions,
    )
    _dequantize_colors(symbols.dc, fineness.dc, steps.dc_steps, model.sh_dc)
    # All levels are in the table; to check that would take NumPy longer than to look them up.
    np.take(steps.opacity_logits, symbols.opacities, out=model.opacity_logits.reshape(-1), mode="clip")


def dequantize_sh(sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray, steps: Steps) -> None:
    """The ``(N, K, 3)`` harmonics of ``(N, 3 K)`` int16 symbols and ``(N,)`` uint8 fineness."""
    _dequantize_sh(symbols, fineness, steps.sh_steps, steps.sh_values, sh_rest.reshape(symbols.shape))


def pivots(symbols: Symbols, steps: Steps) -> tuple[int, int, int]:
    """What the rules of rotations, DC and harmonics make of the median Gaussian of at least one, in 1/32 octaves."""
    measured = np.empty((len(FINENESS_RULES), len(symbols.opacities)), np.int64)
    _measure(symbols.scales, symbols.opacities, steps.covered, measured)
    middle = (measured.shape[1] - 1) // 2
    rotations, dc, sh = np.partition(measured, middle, axis=1)[:, middle].clip(-32768, 32767).tolist()
    return rotations, dc, sh


def shape_gradients(
    frames: Frames,
    original: np.ndarray,
    quaternion_gradient: np.ndarray,
    log_scale_gradient: np.ndarray,
    quaternions: np.ndarray,
    log_scales: np.ndarray,
) -> None:
    """Fill in the gradients with respect to the original ``(N, 4)`` quaternions and ``(N, 3)`` log-scales.

    Rounding passes them straight through. The turn into the canonical frame is linear, its transpose is the turn
    back; normalizing a quaternion q takes out the component along q and divides by its length.

    Args:
        original: ``(N, 4)`` float32, the original quaternions (of any length).
    """
    arrays = original, quaternion_gradient, log_scale_gradient, quaternions, log_scales
    _turn_back(*frames, *(array.reshape(-1) for array in arrays))


FINENESS_RULES = np.array([ROTATION_RULE, DC_RULE, SH_RULE], np.int64)
_RULES = tuple(map(tuple, FINENESS_RULES.tolist()))


class FinenessRules(NamedTuple):
    """What finenesses are computed from, besides :data:`FINENESS_RULES`.

    Attributes:
        covered: see :attr:`Steps.covered`.
        pivots: ``(3,)`` int64.
        ranges: ``(3,)`` int64.
    """

    covered: np.ndarray
    pivots: np.ndarray
    ranges: np.ndarray

    @staticmethod
    def of(steps: Steps) -> FinenessRules:
        return FinenessRules(steps.covered, steps.pivots, steps.ranges)


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of one that may not be written: kernels are compiled for such as may."""
    return array if array.flags.writeable else array.copy()


@inline
def _away_from_zero(value, rounding, limit):
    """``value`` as an integer within ``limit`` of zero: fractions of at least ``1 - rounding`` are rounded up."""
    size = abs(value) + rounding
    symbol = int(size) if size < limit else limit
    return -symbol if value < 0 else symbol


@inline
def _level_of(logit, thresholds):
    """How many thresholds are no larger: a binary search whose only condition becomes a conditional move."""
    level = 0
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        level += step if thresholds[level + step - 1] <= logit else 0
    return level


@kernel
def _quantize_means(means, center, per_radius, per_unit, positions):
    for i in range(len(means) // 3):
        j = at(3) * at(i)
        positions[j] = _mean_symbol(means[j], center[0], per_radius, per_unit)
        positions[j + at(1)] = _mean_symbol(means[j + at(1)], center[1], per_radius, per_unit)
        positions[j + at(2)] = _mean_symbol(means[j + at(2)], center[2], per_radius, per_unit)


@inline
def _mean_symbol(mean, center, per_radius, per_unit):
    """A piecewise linear logarithm: y within 1, and beyond it 2**e * (1 + f) becomes 1 + e + f."""
    value = (np.float64(mean) - center) * per_radius
    size = abs(value)
    bits = np.float64(size).view(np.int64)  # 52 bits of the fraction, then the exponent.
    exponent = np.float64(np.int32(bits >> 52) - 1022)
    logarithm = exponent + (np.int64((bits & _FRACTION) | _BITS_OF_ONE).view(np.float64) - 1.0)
    size = logarithm if 1.0 < size < np.inf else size
    symbol = math.copysign(size, value) * per_unit
    symbol = symbol if symbol > -MEAN_LIMIT else np.float64(-MEAN_LIMIT)  # So does NaN become.
    return np.int32(np.rint(symbol if symbol < MEAN_LIMIT else np.float64(MEAN_LIMIT)))


@inline
def _power_of(octaves):
    """2 to the power of ``octaves``, nearly: the inverse of :func:`_octaves`. Of NaN it is that of -60."""
    octaves = octaves if octaves > -60.0 else -60.0
    octaves = octaves if octaves < 60.0 else 60.0
    whole = np.floor(octaves)
    power = np.int64((np.int64(np.int32(whole)) + 1023) << 52).view(np.float64)  # The bits of its exponent.
    return (3.0 - math.sqrt(4.0 - 3.0 * (octaves - whole))) * power


@inline
def _scale_symbol(in_steps):
    """The nearest whole number up to :data:`SCALE_LIMIT`."""
    return np.int32(np.rint(in_steps if in_steps < SCALE_LIMIT else np.float64(SCALE_LIMIT)))


@kernel
def _quantize_scales(log_scales, pivot, per_power, scales, turns):
    """All computed in vectors: there are selections, but no branches and no look-ups."""
    first_per_power, second_per_power, third_per_power = per_power[0], per_power[1], per_power[2]
    for i in range(len(turns)):
        u = at(i)
        j = at(3) * u
        x, y, z = log_scales[j], log_scales[j + at(1)], log_scales[j + at(2)]
        # In the order of :data:`KINDS`.
        x_y, y_z, x_z = x >= y, y >= z, x >= z
        kind = 4 * np.int32(x_y) + 2 * np.int32(y_z) + np.int32(x_z)
        turns[u] = 4 * ((_PACKED_KINDS >> (4 * kind)) & 15)
        x_power = _power_of((np.float64(x) - pivot) * POWER_OCTAVES)
        y_power = _power_of((np.float64(y) - pivot) * POWER_OCTAVES)
        z_power = _power_of((np.float64(z) - pivot) * POWER_OCTAVES)
        higher = x_power if x_y else y_power
        first = higher if y_z or x_z else z_power
        second = (
            (y_power if y_z else (z_power if x_z else x_power))
            if x_y
            else (x_power if x_z else (z_power if y_z else y_power))
        )
        third = (z_power if y_z else y_power) if x_y else (z_power if x_z else x_power)
        scales[j] = _scale_symbol(first * first_per_power)
        scales[j + at(1)] = _scale_symbol(second * second_per_power)
        scales[j + at(2)] = _scale_symbol(third * third_per_power)


@kernel
def _quantize_opacities(
    logits, thresholds, scales, covered, pivots, ranges, opacities, levels, of_rotations, of_dc, of_sh
):
    """Fill in levels and :class:`Finenesses`, which are computed in vectors.

    Args:
        covered, pivots, ranges: see :class:`FinenessRules`.
        opacities: ``(ROWS_OF_ARITHMETIC,)`` int32 scratch memory.
    """
    for begin in range(0, len(levels), ROWS_OF_ARITHMETIC):
        left = len(levels) - begin
        rows = left if left < ROWS_OF_ARITHMETIC else ROWS_OF_ARITHMETIC
        for t in range(rows):
            level = _level_of(logits[at(begin) + at(t)], thresholds)
            levels[at(begin) + at(t)] = level
            opacities[at(t)] = covered[level]
        find_fineness(0, at(begin), rows, scales, opacities, pivots, ranges, of_rotations)
        find_fineness(1, at(begin), rows, scales, opacities, pivots, ranges, of_dc)
        find_fineness(2, at(begin), rows, scales, opacities, pivots, ranges, of_sh)


@inline
def find_fineness(rule, begin, rows, scales, opacities, pivots, ranges, fineness):
    """Fill in :func:`fineness_of` ``rows`` Gaussians from ``begin`` on, in vectors.

    Args:
        scales: ``(3 N,)`` int32.
        opacities: ``(rows,)`` int32, what they cover.
        pivots, ranges: see :class:`FinenessRules`.
    """
    pivot, span = np.int32(pivots[rule]), np.int32(ranges[rule])
    for t in range(rows):
        i = begin + at(t)
        first, second = scales[at(3) * i], scales[at(3) * i + at(1)]
        fineness[i] = fineness_of(rule, first, second, scales[at(3) * i + at(2)], opacities[at(t)], pivot, span)


@kernel
def _quantize_rotations(quaternions, fineness, per_rotation, scratch, rotations, turns, signs, norms):
    """``scratch`` has five rows: of unit quaternions, whose first row then has signs, and how fine they are."""
    x_row, y_row, z_row, per_unit_row = (
        at(ROWS_OF_ARITHMETIC),
        at(2 * ROWS_OF_ARITHMETIC),
        at(3 * ROWS_OF_ARITHMETIC),
        at(4 * ROWS_OF_ARITHMETIC),
    )
    for begin in range(0, len(norms), ROWS_OF_ARITHMETIC):
        left = len(norms) - begin
        rows = left if left < ROWS_OF_ARITHMETIC else ROWS_OF_ARITHMETIC
        for t in range(rows):
            u = at(t)
            i = at(begin) + u
            # In Numba float() keeps single precision.
            w, x = np.float64(quaternions[at(4) * i]), np.float64(quaternions[at(4) * i + at(1)])
            y, z = np.float64(quaternions[at(4) * i + at(2)]), np.float64(quaternions[at(4) * i + at(3)])
            length = math.sqrt(w * w + x * x + y * y + z * z)
            usable = length > 1e-30 and length < 1e300
            norms[i] = np.float32(length) if usable else np.float32(0)
            length = length if usable else 1.0
            scratch[u] = (w if usable else 1.0) / length
            scratch[x_row + u] = (x if usable else 0.0) / length
            scratch[y_row + u] = (y if usable else 0.0) / length
            scratch[z_row + u] = (z if usable else 0.0) / length
        for t in range(rows):
            u = at(t)
            i = at(begin) + u
            turn = np.int32(turns[i])
            w, x, y, z = _turned(scratch[u], scratch[x_row + u], scratch[y_row + u], scratch[z_row + u], turn)
            # The largest component becomes the real one, as FLIPS and FLIP_SIGNS have it.
            largest, size = np.int32(0), abs(w)
            larger = abs(x) > size
            largest, size = np.int32(1) if larger else largest, abs(x) if larger else size
            larger = abs(y) > size
            largest, size = np.int32(2) if larger else largest, abs(y) if larger else size
            largest = np.int32(3) if abs(z) > size else largest
            real = w if largest == 0 else (x if largest == 1 else (y if largest == 2 else z))
            first = x if largest == 0 else (-w if largest == 1 else (z if largest == 2 else -y))
            second = y if largest == 0 else (-z if largest == 1 else (-w if largest == 2 else x))
            third = z if largest == 0 else (y if largest == 1 else (-x if largest == 2 else -w))
            turns[i] = turn + largest
            scratch[u] = 1.0 if real >= 0 else -1.0
            scratch[x_row + u], scratch[y_row + u], scratch[z_row + u] = first, second, third
        for t in range(rows):
            scratch[per_unit_row + at(t)] = per_rotation[fineness[at(begin) + at(t)]]
        for t in range(rows):
            signs[at(begin) + at(t)] = np.int32(scratch[at(t)])
        for t in range(rows):
            u = at(t)
            j = at(3) * (at(begin) + u)
            sign, per_unit = scratch[u], scratch[per_unit_row + u]
            rotations[j] = _to_rotation(sign * scratch[x_row + u] * per_unit)
            rotations[j + at(1)] = _to_rotation(sign * scratch[y_row + u] * per_unit)
            rotations[j + at(2)] = _to_rotation(sign * scratch[z_row + u] * per_unit)


@inline
def _to_rotation(in_steps):
    """As :func:`_away_from_zero`."""
    size = abs(in_steps) + 0.5
    symbol = np.int32(size if size < ROTATION_LIMIT else np.float64(ROTATION_LIMIT))
    return np.int32(-symbol if in_steps < 0 else symbol)


@inline
def _turned(w, x, y, z, turn):
    """The product with a row of :data:`TURNS` that only reorders axes."""
    return _times(w, x, y, z, _part(0, turn), _part(1, turn), _part(2, turn), _part(3, turn))


@inline
def _part(component, turn):
    """One number of that row, by selections instead of a look-up."""
    value = _REORDERS[component][0]
    value = _REORDERS[component][1] if turn == 4 else value
    value = _REORDERS[component][2] if turn == 8 else value
    value = _REORDERS[component][3] if turn == 12 else value
    value = _REORDERS[component][4] if turn == 16 else value
    return _REORDERS[component][5] if turn == 20 else value


@inline
def _octaves(power):
    """The binary logarithm of a positive number, to 0.01.

    Between powers of two it is a parabola, which has the slopes of the logarithm at both ends in the right ratio: no
    step is twice as large as the next.
    """
    fraction, exponent = math.frexp(power)
    above = 2.0 * fraction - 1.0
    return (exponent - 1.0) + above * (4.0 - above) * (1 / 3)


@inline
def _half_octaves(parts, span):
    """The nearest number of half octaves within ``span`` of zero, plus ``span``."""
    half = ((parts + 8) >> 4) + span
    return 0 if half < 0 else (half if half < 2 * span else 2 * span)


@inline
def _size(symbol):
    """The logarithm of a scale, in 1/32 octaves, up to a constant for each axis, all in integers.

    A symbol is below 2**24, so that it is a float32 number, whose bits are its exponent and what is above that power.
    """
    bits = np.float32(symbol).view(np.int32)
    above = np.int32(np.int32(bits >> 15) & 255)
    # As :func:`_octaves`, in 1/256 octaves of the power: 85 / 65536 is a little less than 1 / 768.
    part = np.int32(np.int32(np.int32(above * np.int32(1024 - above)) * 85) >> 16)
    octaves = np.int32(256 * np.int32(np.int32(bits >> 23) - 127) + part)
    return np.int32(np.int32(5 * octaves) >> 4) if symbol > 0 else np.int32(SIZE_OF_NOTHING)


@inline
def _fineness_measure(rule, first, second, third, opacity):
    """What the logarithm of a step is to fall with, in 1/32 octaves. ``rule`` is a row of :data:`FINENESS_RULES`."""
    weights = _RULES[rule]
    scales = np.int32(weights[0] * _size(first)) + np.int32(weights[1] * _size(second))
    return np.int32(np.int32(scales + np.int32(weights[2] * _size(third)) + np.int32(weights[3] * opacity)) >> 8)


@inline
def fineness_of(rule, first, second, third, opacity, pivot, span):
    """A fineness of a Gaussian, by the symbols of its scales and what it covers, and all in integers.

    An error shows in proportion to what a Gaussian covers, and one of rotation the more, the longer a Gaussian is
    besides. Where bits are scarce, the step should fall with the square root of that; how it does so best was
    measured, see ``docs/experiments/gsz-steps.md``. The nearest number of half octaves within ``span`` of zero, plus
    ``span``.
    """
    measure = _fineness_measure(rule, first, second, third, opacity)
    half = np.int32(np.int32(np.int32(measure - pivot + 8) >> 4) + span)
    half = half if half > 0 else np.int32(0)
    return half if half < np.int32(2 * span) else np.int32(2 * span)


@kernel
def _measure(scales, levels, covered, measured):
    for i in range(len(scales)):
        first, second, third = scales[i, 0], scales[i, 1], scales[i, 2]
        opacity = covered[levels[i]]
        measured[0, i] = _fineness_measure(0, first, second, third, opacity)
        measured[1, i] = _fineness_measure(1, first, second, third, opacity)
        measured[2, i] = _fineness_measure(2, first, second, third, opacity)


@kernel
def _quantize_dc(colors, fineness, per_unit, symbols):
    for i in range(len(colors)):
        for channel in range(3):
            symbols[i, channel] = _away_from_zero(colors[i, channel] * per_unit[fineness[i]], 0.5, DC_LIMIT)


@inline
def _color_sums(r, g, b):
    """Y, Co and Cg of harmonics, before they are divided by their steps. The order of the sums is a part of the law."""
    return r + g + b, r - b, r - np.float32(2) * g + b


@kernel
def _quantize_sh(harmonics, fineness, per_unit, rounding, symbols, in_steps):
    for i in range(len(harmonics)):
        per_y, per_co, per_cg = per_unit[fineness[i], 0], per_unit[fineness[i], 1], per_unit[fineness[i], 2]
        for j in range(0, harmonics.shape[1], 3):
            y, co, cg = _color_sums(harmonics[i, j], harmonics[i, j + 1], harmonics[i, j + 2])
            in_steps[i, j], in_steps[i, j + 1], in_steps[i, j + 2] = y * per_y, co * per_co, cg * per_cg
        for j in range(harmonics.shape[1]):
            symbols[i, j] = _away_from_zero(in_steps[i, j], rounding, SH_LIMIT)


@kernel
def _dequantize_means(symbols, center, radius, step, means):
    for i in range(len(symbols) // 3):
        j = at(3) * at(i)
        means[j] = _mean_of(symbols[j], center[0], radius, step)
        means[j + at(1)] = _mean_of(symbols[j + at(1)], center[1], radius, step)
        means[j + at(2)] = _mean_of(symbols[j + at(2)], center[2], radius, step)


@inline
def _mean_of(symbol, center, radius, step):
    """The inverse of :func:`_mean_symbol`."""
    size = abs(np.float64(symbol)) * step
    whole = np.int32(size if size < LARGEST_EXPONENT + 1.0 else LARGEST_EXPONENT + 1.0) - 1
    power = np.int64((np.int64(whole) + 1023) << 52).view(np.float64)
    size = (size - np.float64(whole)) * power if size > 1.0 else size
    value = (-size if symbol < 0 else size) * radius + center
    value = -LARGEST_MEAN if value < -LARGEST_MEAN else value
    return np.float32(value if value < LARGEST_MEAN else LARGEST_MEAN)


@kernel
def _dequantize_shapes(scales, rotations, fineness, small, pivot, scale_steps, rotation_steps, log_scales, quaternions):
    for i in range(len(scales)):
        for axis in range(3):
            symbol = scales[i, axis]
            if symbol < small.shape[1]:
                log_scales[i, axis] = small[axis, symbol if symbol > 0 else 0]
            else:
                log_scales[i, axis] = _octaves(symbol * scale_steps[axis]) * LOGS_PER_OCTAVE + pivot
        step = rotation_steps[fineness[i]]
        x, y, z = rotations[i, 0] * step, rotations[i, 1] * step, rotations[i, 2] * step
        # A strange file may hold a vector part longer than 1; it is then a quaternion without a scalar part.
        square = 1.0 - (x * x + y * y + z * z)
        quaternions[i, 0] = math.sqrt(square) if square > 0.0 else 0.0
        quaternions[i, 1] = x
        quaternions[i, 2] = y
        quaternions[i, 3] = z


ROWS_OF_VECTORS = 16
"""Harmonics of so many Gaussians make whole vectors, while memory still brings the next ones."""
COEFFICIENTS = 16
"""At least as many as a Gaussian has above degree 0. A loop of so many steps is one vector."""
SPACE_OF_VECTORS = (ROWS_OF_VECTORS + 1) * COEFFICIENTS
"""Memory for a number of each coefficient of those, and a vector more."""


@kernel
def _dequantize_colors(symbols, fineness, steps, colors):
    for i in range(len(symbols)):
        step = steps[fineness[i]]
        for channel in range(3):
            colors[i, 0, channel] = symbols[i, channel] * step


def snap_sh(sh_rest: np.ndarray, fineness: np.ndarray, steps: Steps, snapped: np.ndarray) -> None:
    """What :func:`dequantize_sh` makes of what :func:`quantize_sh` rounds to, without symbols in between.

    Args:
        sh_rest: ``(N, K, 3)``.
        fineness: ``(N,)`` uint8.
        snapped: ``(N, K, 3)``, is filled in.
    """
    _snap_sh(
        _writable(sh_rest).reshape(-1),
        fineness,
        steps.sh_per_unit,
        np.float32(1 - steps.sh_threshold),
        steps.sh_steps,
        steps.sh_values,
        sh_rest.shape[1],
        np.zeros(3 * SPACE_OF_VECTORS, np.float32),
        np.empty(3 * SPACE_OF_VECTORS),
        snapped.reshape(-1),
    )


@inline
def sum_colors(harmonics, begin, count, sums):
    """The sums of colors of ``count`` triples from ``begin`` on, each kind :data:`SPACE_OF_VECTORS` after the last."""
    for t in range(count):
        u = at(t)
        j = begin + at(3) * u
        y, co, cg = _color_sums(harmonics[j], harmonics[j + at(1)], harmonics[j + at(2)])
        sums[u], sums[at(SPACE_OF_VECTORS) + u], sums[at(2 * SPACE_OF_VECTORS) + u] = y, co, cg


@kernel
def _snap_sh(harmonics, fineness, per_unit, rounding, steps, stored, coefficients, sums, values, snapped):
    """Sums of colors are computed for all coefficients of some Gaussians at once, and what they are rounded to for a
    Gaussian at a time, in whole vectors: the next Gaussian overwrites what is too much.

    Args:
        sums, values: ``(3 * SPACE_OF_VECTORS,)`` float32 and float64 scratch memory.
    """
    co_row, cg_row = at(SPACE_OF_VECTORS), at(2 * SPACE_OF_VECTORS)
    for first in range(0, len(fineness), ROWS_OF_VECTORS):
        left = len(fineness) - first
        rows = left if left < ROWS_OF_VECTORS else ROWS_OF_VECTORS
        begin = at(3 * coefficients * first)
        sum_colors(harmonics, begin, rows * coefficients, sums)
        for i in range(rows):
            row = at(i * coefficients)
            scales, back = per_unit[fineness[at(first + i)]], steps[fineness[at(first + i)]]
            _snap_color(sums, values, row, scales[0], back[0], rounding, stored)
            _snap_color(sums, values, co_row + row, scales[1], back[1], rounding, stored)
            _snap_color(sums, values, cg_row + row, scales[2], back[2], rounding, stored)
        for t in range(rows * coefficients):
            u = at(t)
            j = begin + at(3) * u
            y, co, cg = values[u], values[co_row + u], values[cg_row + u]
            snapped[j], snapped[j + at(1)], snapped[j + at(2)] = (y + cg) + co, y - 2.0 * cg, (y + cg) - co


@inline
def _snap_color(sums, values, row, scale, step, rounding, stored):
    """What the symbols of a Gaussian's coefficients stand for, of one color."""
    none, one, two, three = stored[0], stored[1], stored[2], stored[3]
    for k in range(COEFFICIENTS):
        in_steps = sums[row + at(k)] * scale
        size = abs(in_steps) + rounding
        whole = np.int32(size if size < np.float32(SH_LIMIT) else np.float32(SH_LIMIT))
        value = np.float64(whole)
        value = none if whole == 0 else value
        value = one if whole == 1 else value
        value = two if whole == 2 else value
        value = three if whole == 3 else value
        values[row + at(k)] = ((-value if in_steps < 0 else value) + 0.0) * step  # Never -0.


@inline
def _in_steps(symbol, stored):
    """Magnitudes below :data:`RECONSTRUCTED` stand for stored numbers of steps, the others for themselves."""
    size = abs(np.int64(symbol))
    # Both are computed, so that there is nothing to mispredict.
    small = stored[size if size < RECONSTRUCTED else RECONSTRUCTED - 1]
    value = small if size < RECONSTRUCTED else np.float64(size)
    return -value if symbol < 0 else value


@kernel
def _dequantize_sh(symbols, fineness, steps, stored, values):
    for i in range(len(symbols)):
        y_step, co_step, cg_step = steps[fineness[i], 0], steps[fineness[i], 1], steps[fineness[i], 2]
        for j in range(0, symbols.shape[1], 3):
            red = green = blue = 0.0
            if symbols[i, j] | symbols[i, j + 1] | symbols[i, j + 2]:
                y = _in_steps(symbols[i, j], stored) * y_step
                co = _in_steps(symbols[i, j + 1], stored) * co_step
                cg = _in_steps(symbols[i, j + 2], stored) * cg_step
                red, green, blue = (y + cg) + co, y - 2.0 * cg, (y + cg) - co
            values[i, j], values[i, j + 1], values[i, j + 2] = red, green, blue


@kernel
def _turn_back(turns, signs, norms, original, gradient, scale_gradient, quaternions, log_scales):
    # In vectors it would take longer, since turns are looked up and nearly all numbers change their places.
    for i in range(len(norms)):
        u = at(i)
        order, row = at(3) * (at(turns[u]) >> at(2)), at(3) * u
        for axis in range(3):
            log_scales[row + at(_FLAT_ORDERS[order + at(axis)])] = scale_gradient[row + at(axis)]
        row, turn = at(4) * u, at(4) * at(turns[u])
        if norms[u] == 0.0:
            for k in range(4):
                quaternions[row + at(k)] = 0.0
            continue
        w, x, y, z = _times(
            gradient[row], gradient[row + at(1)], gradient[row + at(2)], gradient[row + at(3)],
            _FLAT_TURNS[turn], -_FLAT_TURNS[turn + at(1)], -_FLAT_TURNS[turn + at(2)], -_FLAT_TURNS[turn + at(3)],
        )  # fmt: skip
        sign, length = np.float64(signs[u]), np.float64(norms[u])  # The square of a length would not be a float32.
        w, x, y, z = w * sign, x * sign, y * sign, z * sign
        o_w, o_x, o_y, o_z = original[row], original[row + at(1)], original[row + at(2)], original[row + at(3)]
        along = (w * o_w + x * o_x + y * o_y + z * o_z) / (length * length)
        quaternions[row], quaternions[row + at(1)] = (w - along * o_w) / length, (x - along * o_x) / length
        quaternions[row + at(2)], quaternions[row + at(3)] = (y - along * o_y) / length, (z - along * o_z) / length


@inline
def _times(w, x, y, z, a, b, c, d):
    """Hamilton product of two quaternions."""
    return (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )
