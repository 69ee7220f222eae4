"""From parameters to integers and back: the part of the format that rounds.

:func:`quantise` and :func:`dequantise` are the whole of it. ``snap`` is one after the other, ``encode`` the first and
``decode`` the second, so the law holds by construction. Both use nothing but comparisons, additions, multiplications,
divisions and square roots, in a fixed order, and tables: every IEEE machine returns the same bits.
:mod:`gsz.native.device` has the same arithmetic for models on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numba import njit

from gsz.kernels import SERIAL
from gsz.rounding import elementary
from gsz.rounding.elementary import LN2
from gsz.splats import Splats

MEAN_LIMIT = (1 << 20) - 1
"""Largest absolute mean symbol: three of them interleave into 63 bits."""
SCALE_LIMIT = (1 << 17) - 1
ROTATION_LIMIT = (1 << 15) - 1
DC_LIMIT = 1 << 20
SH_LIMIT = (1 << 13) - 1
LARGEST_MEAN = 3.0e38
LARGEST_EXPONENT = 200
"""Binary exponents of positions, in radii, beyond which decoders do not go."""
ROWS_AT_ONCE = 1 << 12
"""Parameters of so many Gaussians stay in a processor's cache from one pass over them to the next."""
RECONSTRUCTED = 4
"""Magnitudes below this have a stored reconstruction value; larger ones are multiples of the step."""


@dataclass(frozen=True)
class Steps:
    """The numbers that turn symbols into parameters; all of them are stored in the file.

    Attributes:
        centre: ``(3,)`` float64, world units; where the contracted space is finest.
        radius: world units; within it positions are on a uniform grid.
        mean_bits: the grid step of positions is ``radius * 2**-mean_bits``.
        scale_step: step of the natural logarithm of the largest scale. The second has twice this step and the third
            four times: what they round off shows less.
        opacity_levels: number of opacities, 2 to 256.
        rotation_step: step of the vector part of a unit quaternion.
        dc_step: step of degree-0 harmonics.
        sh_step: step of the luma of the others, which is the mean of red, green and blue.
        sh_colours: ``(2,)`` float64; the steps of their orange and green, in units of ``sh_step``; see
            :func:`sh_colours`.
        sh_values: ``(RECONSTRUCTED,)`` float64; what magnitudes 0, 1, ... stand for, in steps. The first is 0.
        rotation_pivot: leverage, in 1/16 octaves, of the Gaussians whose rotations have exactly ``rotation_step``.
        rotation_range: by how many half octaves that step may be divided or multiplied, 0 to 8; see
            :func:`finenesses`.
        sh_pivot: the same for coverage and ``sh_step``.
        sh_range: the same for ``sh_step``.
        sh_threshold: fraction of a step beyond which a magnitude is rounded up; only encoders use it.
    """

    centre: np.ndarray
    radius: float
    mean_bits: int
    scale_step: float
    opacity_levels: int
    rotation_step: float
    dc_step: float
    sh_step: float
    sh_colours: np.ndarray
    sh_values: np.ndarray
    rotation_pivot: int = 0
    rotation_range: int = 0
    sh_pivot: int = 0
    sh_range: int = 0
    sh_threshold: float = 0.5

    @cached_property
    def rotation_steps(self) -> np.ndarray:
        """``(2 * rotation_range + 1,)`` float64: the steps of each fineness, coarsest first."""
        return _half_octaves(self.rotation_step, self.rotation_range)

    @cached_property
    def sh_steps(self) -> np.ndarray:
        """``(2 * sh_range + 1,)`` float64: the steps of each fineness, coarsest first."""
        return _half_octaves(self.sh_step, self.sh_range)

    def opacity_logits(self) -> np.ndarray:
        """``(opacity_levels,)`` float32: opacities ``(level + 1/2) / levels`` as logits.

        Rounded to 1/4096, so that a decoder with any good logarithm has the same.
        """
        opacity = (np.arange(self.opacity_levels) + 0.5) / self.opacity_levels
        return (np.rint(elementary.logit(opacity) * 4096) / 4096).astype(np.float32)

    def opacity_thresholds(self) -> np.ndarray:
        """``(opacity_levels - 1,)`` float32: the logits of opacities ``level / levels``, from which a level begins."""
        opacity = np.arange(1, self.opacity_levels) / self.opacity_levels
        return elementary.logit(opacity).astype(np.float32)

    def sh_per_unit(self) -> np.ndarray:
        """``(2 * sh_range + 1, 3)`` float32, by fineness: luma, orange and green, in steps, of a unit of the sums.

        The sums are red + green + blue, red - blue, and red - 2 green + blue.
        """
        return ((1 / self.sh_steps)[:, None] * (1 / np.array([3, 2, 6])) / [1, *self.sh_colours]).astype(np.float32)

    def coverage(self) -> tuple[np.ndarray, int]:
        """What :func:`finenesses` looks up, in 1/16 octaves.

        Returns:
            ``(opacity_levels,)`` int64, the logarithm of each opacity; and that of a step of scales, times ``2**16``.
        """
        levels = np.arange(self.opacity_levels)
        covered = np.rint(16 * elementary.log2((levels + 0.5) / self.opacity_levels)).astype(np.int64)
        return covered, round(self.scale_step / LN2 * (16 << 16))


@dataclass
class Symbols:
    """The integers of ``N`` Gaussians.

    Attributes:
        means: ``(N, 3)`` int32, contracted positions in grid steps.
        scales: ``(N, 3)`` int32, log-scales, largest first, in one, two and four steps.
        opacities: ``(N,)`` int32 levels.
        rotations: ``(N, 3)`` int32, the vector part of the canonical quaternion in steps.
        dc: ``(N, 3)`` int32 RGB in steps.
        sh: ``(N, K * 3)`` int16 in steps, coefficient by coefficient: luma, orange, green.
    """

    means: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    rotations: np.ndarray
    dc: np.ndarray
    sh: np.ndarray

    def __len__(self) -> int:
        return len(self.means)

    @staticmethod
    def zeros(count: int, coefficients: int) -> Symbols:
        """All-zero symbols of ``count`` Gaussians with ``coefficients`` harmonics above degree 0."""
        triple = (count, 3)
        return Symbols(
            means=np.zeros(triple, np.int32),
            scales=np.zeros(triple, np.int32),
            opacities=np.zeros(count, np.int32),
            rotations=np.zeros(triple, np.int32),
            dc=np.zeros(triple, np.int32),
            sh=np.zeros((count, 3 * coefficients), np.int16),
        )

    def take(self, index: np.ndarray) -> Symbols:
        """The Gaussians that ``index`` names."""
        return Symbols(**{field.name: np.take(getattr(self, field.name), index, axis=0) for field in fields(self)})


@dataclass
class Frames:
    """What canonicalisation did to each Gaussian, for the way back of gradients.

    Attributes:
        turn: ``(N,)`` uint8, row of :data:`TURNS` that the unit quaternion was multiplied by from the right.
        order: ``(N, 3)`` uint8, which original axis became the first, second and third.
        sign: ``(N,)`` int8, 1 or -1, by which the quaternion was multiplied.
        norm: ``(N,)`` float32 length of the original quaternion, 0 where it has none.
    """

    turn: np.ndarray
    order: np.ndarray
    sign: np.ndarray
    norm: np.ndarray


@dataclass
class Finenesses:
    """Rows of :attr:`Steps.rotation_steps` and :attr:`Steps.sh_steps`, each ``(N,)`` uint8."""

    rotations: np.ndarray
    sh: np.ndarray


AXIS_ORDERS = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]], np.uint8)
"""The orders of three axes; the last three are odd."""


def _half_octaves(step: float, span: int) -> np.ndarray:
    """``step`` times the square root of 2 to the powers ``span`` to ``-span``."""
    root = math.sqrt(0.5)
    return np.array([step * math.ldexp(root if half % 2 else 1.0, -(half // 2)) for half in range(-span, span + 1)])


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

FLIPS = np.array([[1, 2, 3], [0, 3, 2], [3, 0, 1], [2, 1, 0]])
FLIP_SIGNS = np.array([[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])
"""The vector part of a quaternion after the turn by pi about axis ``flip - 1``: which components, with which signs.

The scalar part becomes the component ``flip``.
"""


def quantise(model: Splats, steps: Steps) -> tuple[Symbols, Frames]:
    """The symbols of a model, in its order. NaN becomes some symbol or other; nothing is raised."""
    count = len(model)
    arrays = [array for _, array in model.numpy().named_parameters()]
    means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest = arrays
    symbols = Symbols.zeros(count, sh_rest.shape[1])
    frames = Frames(
        turn=np.zeros(count, np.uint8),
        order=np.zeros((count, 3), np.uint8),
        sign=np.ones(count, np.int8),
        norm=np.zeros(count, np.float32),
    )
    _quantise_means(means, steps.centre, 1 / steps.radius, float(1 << steps.mean_bits), symbols.means)
    thresholds = np.full(255, np.nan, np.float32)
    thresholds[: steps.opacity_levels - 1] = steps.opacity_thresholds()
    _quantise_opacities(opacity_logits.reshape(-1), thresholds, symbols.opacities)
    vectors = np.empty((count, 3))
    _quantise_shapes(
        log_scales,
        quaternions,
        1 / steps.scale_step,
        TURNS,
        symbols.scales,
        vectors,
        frames.turn,
        frames.order,
        frames.sign,
        frames.norm,
    )
    fineness = finenesses(symbols.scales, symbols.opacities, steps)
    _quantise_rows(vectors, fineness.rotations, 1 / steps.rotation_steps, 0.5, ROTATION_LIMIT, symbols.rotations)
    everywhere = np.zeros(count, np.uint8)
    _quantise_rows(sh_dc.reshape(count, 3), everywhere, np.array([1 / steps.dc_step]), 0.5, DC_LIMIT, symbols.dc)
    rounding = np.float32(1 - steps.sh_threshold)
    for begin in range(0, count, ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        in_steps = sh_in_steps(sh_rest[rows], fineness.sh[rows], steps)
        _quantise_rows(in_steps, everywhere[rows], np.ones(1, np.float32), rounding, SH_LIMIT, symbols.sh[rows])
    return symbols, frames


def dequantise(symbols: Symbols, steps: Steps) -> Splats:
    """The model that symbols stand for, in their order. Any symbols are allowed; all values are finite."""
    arrays = blank_arrays(len(symbols), symbols.sh.shape[1] // 3)
    fineness = finenesses(symbols.scales, symbols.opacities, steps)
    dequantise_into(arrays, symbols, fineness.rotations, steps)
    dequantise_sh(arrays["sh_rest"], symbols.sh, fineness.sh, steps)
    return Splats(**arrays)


def blank_arrays(count: int, coefficients: int) -> dict[str, np.ndarray]:
    """Uninitialised float32 arrays of a model's six parameters, by name."""
    shapes = {
        "means": (3,),
        "log_scales": (3,),
        "quaternions": (4,),
        "opacity_logits": (1,),
        "sh_dc": (1, 3),
        "sh_rest": (coefficients, 3),
    }
    return {name: np.empty((count, *shape), np.float32) for name, shape in shapes.items()}


def dequantise_into(arrays: dict[str, np.ndarray], symbols: Symbols, fineness: np.ndarray, steps: Steps) -> None:
    """As :func:`dequantise`, into the arrays of :func:`blank_arrays` or rows of them; all but the harmonics.

    Args:
        fineness: ``(N,)`` uint8, that of rotations.
    """
    _dequantise_means(symbols.means, steps.centre, steps.radius, 1.0 / (1 << steps.mean_bits), arrays["means"])
    _dequantise_shapes(
        symbols.scales,
        symbols.rotations,
        fineness,
        steps.scale_step,
        steps.rotation_steps,
        arrays["log_scales"],
        arrays["quaternions"],
    )
    _multiples(symbols.dc.reshape(-1), steps.dc_step, arrays["sh_dc"].reshape(-1))
    _looked_up(steps.opacity_logits(), symbols.opacities, arrays["opacity_logits"].reshape(-1))


def dequantise_sh(sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray, steps: Steps) -> None:
    """The ``(N, K, 3)`` harmonics of ``(N, 3 K)`` symbols and ``(N,)`` uint8 fineness."""
    _dequantise_sh(symbols, fineness, steps.sh_steps, steps.sh_colours, steps.sh_values, sh_rest.reshape(symbols.shape))


def sh_in_steps(sh_rest: np.ndarray, fineness: np.ndarray, steps: Steps) -> np.ndarray:
    """``(N, 3 K)`` float32: luma, orange and green of ``(N, K, 3)`` harmonics, each in its steps.

    Luma is the mean of red, green and blue, orange is half of red less blue, and green a sixth of red and blue less
    twice green. View-dependent light is nearly white, so that luma has nearly all there is.
    """
    values = np.empty((len(sh_rest), 3 * sh_rest.shape[1]), np.float32)
    _sh_in_steps(sh_rest.reshape(values.shape), fineness, steps.sh_per_unit(), values)
    return values


def sh_colours(chroma: float) -> np.ndarray:
    """The steps of orange and green in those of luma, ``chroma`` times those that make equal errors of colour."""
    return np.array([math.sqrt(1.5), math.sqrt(0.5)]) * chroma


def finenesses(scales: np.ndarray, opacities: np.ndarray, steps: Steps) -> Finenesses:
    """How finely each Gaussian's rotation and harmonics are stored, from its opacity and scales, all in integers.

    An error of colour shows in proportion to what a Gaussian covers, so where bits are scarce the step of harmonics
    should fall with the square root of it. Coverage is estimated as opacity times the product of the two largest
    scales. An error of rotation shows the more, the longer a Gaussian is besides: its leverage is its coverage times
    the square of the ratio of its two largest scales.
    """
    fineness = Finenesses(np.empty(len(scales), np.uint8), np.empty(len(scales), np.uint8))
    _fineness(
        scales,
        opacities,
        *steps.coverage(),
        steps.rotation_pivot,
        steps.rotation_range,
        steps.sh_pivot,
        steps.sh_range,
        fineness.rotations,
        fineness.sh,
    )
    return fineness


def pivots(log_scales: np.ndarray, opacity_logits: np.ndarray) -> tuple[int, int]:
    """The median leverage and coverage of Gaussians, in 1/16 octaves, as :func:`finenesses` estimates them."""
    scales = np.sort(log_scales.astype(np.float64), axis=1)
    opacity = elementary.log_sigmoid(opacity_logits.reshape(-1))
    coverage = scales[:, 1] + scales[:, 2] + opacity
    leverage = coverage + 2 * (scales[:, 2] - scales[:, 1])
    in_octaves = np.median([leverage, coverage], axis=1) * (16 / LN2)
    return int(np.clip(in_octaves[0], -32768, 32767)), int(np.clip(in_octaves[1], -32768, 32767))


def shape_gradients(
    frames: Frames, original: np.ndarray, quaternion_gradient: np.ndarray, log_scale_gradient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with respect to the original ``(N, 4)`` quaternions and ``(N, 3)`` log-scales.

    Rounding passes them straight through. The turn into the canonical frame is linear, its transpose is the turn
    back; normalizing a quaternion q takes out the component along q and divides by its length.

    Args:
        original: ``(N, 4)`` float32, the original quaternions (of any length).
    """
    quaternions, log_scales = np.empty(original.shape, np.float32), np.empty(log_scale_gradient.shape, np.float32)
    _turn_back(
        TURNS,
        frames.turn,
        frames.order,
        frames.sign,
        frames.norm,
        original,
        quaternion_gradient,
        log_scale_gradient,
        quaternions,
        log_scales,
    )
    return quaternions, log_scales


@njit(**SERIAL)
def _clamp(value, limit):
    """``value`` rounded to the nearest integer within ``limit`` of zero; NaN becomes ``-limit``."""
    if not value > -limit:
        return -limit
    if value > limit:
        return limit
    return int(np.rint(value))


@njit(**SERIAL)
def _quantise_means(means, centre, per_radius, per_unit, symbols):
    """Contract with a piecewise linear logarithm: y within 1, and beyond it ``2**e * (1 + f)`` becomes 1 + e + f."""
    for i in range(len(means)):
        for axis in range(3):
            value = (np.float64(means[i, axis]) - centre[axis]) * per_radius
            size = abs(value)
            if size > 1.0:
                fraction, exponent = math.frexp(size)  # size == fraction * 2**exponent, fraction in [1/2, 1)
                size = exponent + (2.0 * fraction - 1.0)
            symbols[i, axis] = _clamp(math.copysign(size, value) * per_unit, MEAN_LIMIT)


@njit(**SERIAL)
def _dequantise_means(symbols, centre, radius, step, means):
    for i in range(len(means)):
        for axis in range(3):
            size = abs(symbols[i, axis]) * step
            if size > 1.0:
                exponent = min(int(size) - 1, LARGEST_EXPONENT)
                size = math.ldexp(size - exponent, exponent)
            value = math.copysign(size, symbols[i, axis]) * radius + centre[axis]
            means[i, axis] = min(max(value, -LARGEST_MEAN), LARGEST_MEAN)


@njit(**SERIAL)
def _quantise_opacities(logits, thresholds, symbols):
    """How many of the 255 ascending thresholds are no larger. Those beyond the last are NaN, which nothing reaches."""
    for i in range(len(logits)):
        # A binary search whose only condition becomes a conditional move.
        level = 0
        for step in (128, 64, 32, 16, 8, 4, 2, 1):
            level += step if thresholds[level + step - 1] <= logits[i] else 0
        symbols[i] = level


@njit(**SERIAL)
def _looked_up(table, symbols, values):
    for i in range(len(symbols)):
        values[i] = table[symbols[i]]


@njit(**SERIAL)
def _multiples(symbols, step, values):
    for i in range(len(symbols)):
        values[i] = symbols[i] * step


@njit(**SERIAL)
def _quantise_shapes(log_scales, quaternions, per_scale, turns, scales, vectors, turn, order, sign, norm):
    turned = np.empty(4)
    for i in range(len(quaternions)):
        s0, s1, s2 = log_scales[i, 0], log_scales[i, 1], log_scales[i, 2]
        # Ties keep the axes' order, so that an already sorted Gaussian is not turned.
        if s0 >= s1:
            kind = 0 if s1 >= s2 else (3 if s0 >= s2 else 2)
        else:
            kind = 4 if s0 >= s2 else (1 if s1 >= s2 else 5)
        for axis in range(3):
            source = AXIS_ORDERS[kind, axis]
            order[i, axis] = source
            scales[i, axis] = _clamp(np.float64(log_scales[i, source]) * per_scale / (1 << axis), SCALE_LIMIT >> axis)
        # In Numba float() keeps single precision.
        w, x = np.float64(quaternions[i, 0]), np.float64(quaternions[i, 1])
        y, z = np.float64(quaternions[i, 2]), np.float64(quaternions[i, 3])
        length = math.sqrt(w * w + x * x + y * y + z * z)
        norm[i] = length
        if not (length > 1e-30 and length < 1e300):
            norm[i] = 0.0
            w, x, y, z, length = 1.0, 0.0, 0.0, 0.0, 1.0
        _times(w / length, x / length, y / length, z / length, turns[4 * kind], turned)
        largest = 0
        for k in range(1, 4):
            if abs(turned[k]) > abs(turned[largest]):
                largest = k
        turn[i] = 4 * kind + largest
        sign[i] = 1 if turned[largest] >= 0 else -1
        for k in range(3):
            vectors[i, k] = sign[i] * FLIP_SIGNS[largest, k] * turned[FLIPS[largest, k]]


@njit(**SERIAL)
def _times(w, x, y, z, right, product):
    """Hamilton product of (w, x, y, z) and ``right``."""
    a, b, c, d = right[0], right[1], right[2], right[3]
    product[0] = w * a - x * b - y * c - z * d
    product[1] = w * b + x * a + y * d - z * c
    product[2] = w * c - x * d + y * a + z * b
    product[3] = w * d + x * c - y * b + z * a


@njit(**SERIAL)
def _dequantise_shapes(scales, rotations, fineness, scale_step, rotation_steps, log_scales, quaternions):
    for i in range(len(scales)):
        for axis in range(3):
            log_scales[i, axis] = (scales[i, axis] << axis) * scale_step
        step = rotation_steps[fineness[i]]
        x, y, z = rotations[i, 0] * step, rotations[i, 1] * step, rotations[i, 2] * step
        # A strange file may hold a vector part longer than 1; it is then a quaternion without a scalar part.
        quaternions[i, 0] = math.sqrt(max(1.0 - (x * x + y * y + z * z), 0.0))
        quaternions[i, 1] = x
        quaternions[i, 2] = y
        quaternions[i, 3] = z


@njit(**SERIAL)
def _fineness(
    scales, opacities, covered, per_scale, rotation_pivot, rotation_range, sh_pivot, sh_range, rotations, harmonics
):
    for i in range(len(scales)):
        first, second = np.int64(scales[i, 0]), 2 * np.int64(scales[i, 1])
        coverage = (((first + second) * per_scale) >> 16) + covered[opacities[i]]
        leverage = coverage + ((2 * (first - second) * per_scale) >> 16)
        octaves = (leverage - rotation_pivot + 8) >> 4
        rotations[i] = min(max(octaves, -rotation_range), rotation_range) + rotation_range
        octaves = (coverage - sh_pivot + 8) >> 4
        harmonics[i] = min(max(octaves, -sh_range), sh_range) + sh_range


@njit(**SERIAL)
def _quantise_rows(values, kinds, per_unit, rounding, limit, symbols):
    """Row ``i`` has steps of ``1 / per_unit[kinds[i]]``; fractions of at least ``1 - rounding`` are rounded up."""
    for i in range(values.shape[0]):
        scale = per_unit[kinds[i]]
        for j in range(values.shape[1]):
            value = values[i, j] * scale
            size = abs(value) + rounding
            symbol = int(size) if size < limit else limit
            symbols[i, j] = -symbol if value < 0 else symbol


@njit(**SERIAL)
def _sh_in_steps(harmonics, kinds, per_unit, values):
    for i in range(harmonics.shape[0]):
        luma, orange, green = per_unit[kinds[i], 0], per_unit[kinds[i], 1], per_unit[kinds[i], 2]
        for j in range(0, harmonics.shape[1], 3):
            r, g, b = harmonics[i, j], harmonics[i, j + 1], harmonics[i, j + 2]
            values[i, j] = (r + g + b) * luma
            values[i, j + 1] = (r - b) * orange
            values[i, j + 2] = (r - np.float32(2) * g + b) * green


@njit(**SERIAL)
def _in_steps(symbol, stored):
    """Magnitudes below :data:`RECONSTRUCTED` stand for stored numbers of steps, the others for themselves."""
    size = abs(np.int64(symbol))
    kept = stored[min(size, RECONSTRUCTED - 1)]
    value = kept if size < RECONSTRUCTED else float(size)
    return -value if symbol < 0 else value


@njit(**SERIAL)
def _dequantise_sh(symbols, kinds, steps, colours, stored, values):
    for i in range(symbols.shape[0]):
        step = steps[kinds[i]]
        orange_step, green_step = step * colours[0], step * colours[1]
        values[i, :] = 0.0
        for j in range(0, symbols.shape[1], 3):
            if symbols[i, j] | symbols[i, j + 1] | symbols[i, j + 2]:
                luma = _in_steps(symbols[i, j], stored) * step
                orange = _in_steps(symbols[i, j + 1], stored) * orange_step
                green = _in_steps(symbols[i, j + 2], stored) * green_step
                values[i, j] = (luma + green) + orange
                values[i, j + 1] = luma - 2.0 * green
                values[i, j + 2] = (luma + green) - orange


@njit(**SERIAL)
def _turn_back(turns, turn, order, sign, norm, original, gradient, scale_gradient, quaternions, log_scales):
    conjugate = np.empty(4)
    product = np.empty(4)
    for i in range(len(gradient)):
        for axis in range(3):
            log_scales[i, order[i, axis]] = scale_gradient[i, axis]
        if norm[i] == 0.0:
            quaternions[i, :] = 0.0
            continue
        conjugate[0] = turns[turn[i], 0]
        for k in range(1, 4):
            conjugate[k] = -turns[turn[i], k]
        _times(gradient[i, 0], gradient[i, 1], gradient[i, 2], gradient[i, 3], conjugate, product)
        for k in range(4):
            product[k] *= sign[i]
        w, x, y, z = original[i, 0], original[i, 1], original[i, 2], original[i, 3]
        length = np.float64(norm[i])  # Its square would not be a float32.
        along = (product[0] * w + product[1] * x + product[2] * y + product[3] * z) / (length * length)
        for k in range(4):
            quaternions[i, k] = (product[k] - along * original[i, k]) / length
