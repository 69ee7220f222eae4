"""Rounding and pricing on a GPU, one thread a Gaussian, in NVIDIA Warp: the arithmetic of the kernels for the CPU.

Formulas, names and the order of operations are those of :mod:`gsz.native.symbols` and :mod:`gsz.native.price`. Sums and
products are not contracted (``fuse_fp``) and quotients and square roots are those of IEEE 754, as in all that Warp
compiles without ``fast_math``; so that values and gradients are the CPU's, bit for bit. Only the bits of a model are
added up in another order.

Warp takes a number in a kernel for float32 where nothing else is said, and mixes it with nothing else.
"""

from __future__ import annotations

import warp as wp

from gsz.native.shape_price import CG, CO, GAP, OPACITY, SCALE, THIN, Y
from gsz.native.steps import (
    DC_LIMIT,
    DC_RULE,
    LARGEST_EXPONENT,
    LARGEST_MEAN,
    LOGS_PER_OCTAVE,
    MEAN_LIMIT,
    POWER_OCTAVES,
    ROTATION_LIMIT,
    ROTATION_RULE,
    SCALE_LIMIT,
    SH_LIMIT,
    SH_RULE,
    SIZE_OF_NOTHING,
    SMALLEST_SCALE,
)
from gsz.rounding.elementary import LN2

wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})

_ZERO, _HALF, _ONE = wp.constant(wp.float64(0)), wp.constant(wp.float64(0.5)), wp.constant(wp.float64(1))
_TWO, _THREE, _FOUR = wp.constant(wp.float64(2)), wp.constant(wp.float64(3)), wp.constant(wp.float64(4))
_THIRD = wp.constant(wp.float64(1 / 3))
_INFINITY = wp.constant(wp.float64(float("inf")))
_POWER_OCTAVES = wp.constant(wp.float64(POWER_OCTAVES))
_LOGS_PER_OCTAVE = wp.constant(wp.float64(LOGS_PER_OCTAVE))
_MOST_OCTAVES = wp.constant(wp.float64(60))
_SMALLEST_SCALE = wp.constant(wp.float64(SMALLEST_SCALE))
_LARGEST_MEAN = wp.constant(wp.float64(LARGEST_MEAN))
_SHORTEST, _LONGEST = wp.constant(wp.float64(1e-30)), wp.constant(wp.float64(1e300))
# A float64: 52 bits of the fraction, then the exponent.
_MANTISSA, _BIAS = wp.constant(wp.int64(52)), wp.constant(wp.int64(1023))
_FRACTION, _BITS_OF_ONE = wp.constant(wp.int64((1 << 52) - 1)), wp.constant(wp.int64(1023 << 52))
_PER_OCTAVE, _POWER_SLOPE = wp.constant(POWER_OCTAVES), wp.constant(1.5 * POWER_OCTAVES)
_MINUS_LOG2_E = wp.constant(-1 / LN2)
_EXP2_1, _EXP2_2, _EXP2_3 = 6.931469670648e-01, 2.402211972384e-01, 5.550713273498e-02
_EXP2_4, _EXP2_5 = 9.675541334454e-03, 1.327647199253e-03
_OPACITY, _SCALE, _GAP, _THIN, _Y, _CG, _CO = OPACITY, SCALE, GAP, THIN, Y, CG, CO
_MEAN_LIMIT, _SCALE_LIMIT = wp.constant(MEAN_LIMIT), wp.constant(SCALE_LIMIT)
_ROTATION_LIMIT, _DC_LIMIT, _SH_LIMIT = wp.constant(ROTATION_LIMIT), wp.constant(DC_LIMIT), wp.constant(float(SH_LIMIT))
_LARGEST_EXPONENT, _SIZE_OF_NOTHING = wp.constant(LARGEST_EXPONENT), wp.constant(SIZE_OF_NOTHING)
_ROTATION_RULE, _DC_RULE, _SH_RULE = (wp.constant(wp.vec4i(*rule)) for rule in (ROTATION_RULE, DC_RULE, SH_RULE))


@wp.struct
class GridTables:
    """A grid: the attributes of :class:`gsz.native.steps.Steps` and what is made of them.

    Attributes:
        thresholds: ``(255,)``; see :attr:`gsz.native.steps.Steps.padded_thresholds`.
        pivots, ranges: of rotations, DC and harmonics.
        kinds, orders, turns: :data:`gsz.native.symbols.KINDS`, ``AXIS_ORDERS`` and ``TURNS``.
        sh_rounding: what is added to magnitudes before their fraction is cut off.
    """

    center: wp.vec3d
    radius: wp.float64
    per_radius: wp.float64
    mean_step: wp.float64
    per_mean_step: wp.float64
    thresholds: wp.array[wp.float32]
    opacity_logits: wp.array[wp.float32]
    covered: wp.array[wp.int32]
    scale_pivot: wp.float64
    scale_steps: wp.vec3d
    per_power: wp.vec3d
    pivots: wp.vec3i
    ranges: wp.vec3i
    kinds: wp.array[wp.int32]
    orders: wp.array[wp.vec3i]
    turns: wp.array[wp.vec4d]
    rotation_steps: wp.array[wp.float64]
    per_rotation: wp.array[wp.float64]
    dc_steps: wp.array[wp.float64]
    dc_per_unit: wp.array[wp.float64]
    sh_per_unit: wp.array[wp.vec3]
    sh_steps: wp.array[wp.vec3d]
    sh_values: wp.vec4d
    sh_rounding: wp.float32


@wp.struct
class PriceTables:
    """What symbols cost: the attributes of :class:`gsz.native.price.Prices`, lines being vectors of two numbers."""

    opacity_levels: wp.float32
    pivot: wp.float32
    per_power: wp.vec3
    dc_per_unit: wp.array[wp.float32]
    lines: wp.array[wp.vec2]
    lows: wp.array[wp.float32]
    lasts: wp.array[wp.float32]
    begins: wp.array[wp.int32]
    sh_lines: wp.array[wp.vec2]
    sh_width: wp.int32
    sh_kinds: wp.array[wp.int32]


@wp.func
def _away_from_zero(value: wp.float64, limit: int):
    size = wp.abs(value) + _HALF
    symbol = limit
    if size < wp.float64(limit):
        symbol = int(size)
    return wp.where(value < _ZERO, -symbol, symbol)


@wp.func
def _split(value: wp.float64):
    """The exponent and the fraction of a positive number ``2**exponent * (1 + fraction)``."""
    bits = wp.cast(value, wp.int64)
    return wp.float64((bits >> _MANTISSA) - _BIAS), wp.cast((bits & _FRACTION) | _BITS_OF_ONE, wp.float64) - _ONE


@wp.func
def _power_of_two(exponent: int):
    return wp.cast((wp.int64(exponent) + _BIAS) << _MANTISSA, wp.float64)


@wp.func
def _snapped_mean(value: wp.float32, center: wp.float64, grid: GridTables):
    place = (wp.float64(value) - center) * grid.per_radius
    size = wp.abs(place)
    if size > _ONE and size < _INFINITY:
        exponent, above = _split(size)
        size = exponent + _ONE + above
    place = wp.where(place < _ZERO, -size, size) * grid.per_mean_step
    # NaN is at the lower end.
    limit = wp.float64(_MEAN_LIMIT)
    symbol = -limit
    if place > limit:
        symbol = limit
    elif place > -limit:
        symbol = wp.rint(place)
    size = wp.abs(symbol) * grid.mean_step
    if size > _ONE:
        whole = wp.min(int(size) - 1, _LARGEST_EXPONENT)
        size = (size - wp.float64(whole)) * _power_of_two(whole)
    place = wp.where(symbol < _ZERO, -size, size) * grid.radius + center
    return wp.float32(wp.clamp(place, -_LARGEST_MEAN, _LARGEST_MEAN))


@wp.func
def _level_of(logit: wp.float32, thresholds: wp.array[wp.float32]):
    level = 0
    step = 128
    for _ in range(8):
        level = wp.where(thresholds[level + step - 1] <= logit, level + step, level)
        step = step >> 1
    return level


@wp.func
def _kind_of(log_scales: wp.array2d[wp.float32], i: int, grid: GridTables):
    first = log_scales[i, 0]
    second = log_scales[i, 1]
    third = log_scales[i, 2]
    bits = wp.where(first >= second, 4, 0) + wp.where(second >= third, 2, 0) + wp.where(first >= third, 1, 0)
    return grid.kinds[bits]


@wp.func
def _octaves_of(log_scale: wp.float32, pivot: wp.float64):
    octaves = (wp.float64(log_scale) - pivot) * _POWER_OCTAVES
    octaves = wp.where(octaves > -_MOST_OCTAVES, octaves, -_MOST_OCTAVES)
    return wp.where(octaves < _MOST_OCTAVES, octaves, _MOST_OCTAVES)


@wp.func
def _power_of(octaves: wp.float64):
    whole = wp.floor(octaves)
    return _THREE - wp.sqrt(_FOUR - _THREE * (octaves - whole)), _power_of_two(int(whole))


@wp.func
def _scale_in_steps(log_scale: wp.float32, pivot: wp.float64, per_power: wp.float64):
    fraction, whole = _power_of(_octaves_of(log_scale, pivot))
    return fraction * whole * per_power


@wp.func
def _scale_symbol(in_steps: wp.float64):
    symbol = _SCALE_LIMIT
    if in_steps < wp.float64(_SCALE_LIMIT):
        symbol = int(wp.rint(in_steps))
    return symbol


@wp.func
def _scale_symbols(log_scales: wp.array2d[wp.float32], i: int, order: wp.vec3i, grid: GridTables):
    return wp.vec3i(
        _scale_symbol(_scale_in_steps(log_scales[i, order[0]], grid.scale_pivot, grid.per_power[0])),
        _scale_symbol(_scale_in_steps(log_scales[i, order[1]], grid.scale_pivot, grid.per_power[1])),
        _scale_symbol(_scale_in_steps(log_scales[i, order[2]], grid.scale_pivot, grid.per_power[2])),
    )


@wp.func
def _log_scale(symbol: int, step: wp.float64, pivot: wp.float64):
    size = wp.where(symbol > 0, wp.float64(symbol), _SMALLEST_SCALE)
    exponent, above = _split(size * step)
    octaves = exponent + above * (_FOUR - above) * _THIRD
    return wp.float32(octaves * _LOGS_PER_OCTAVE + pivot)


@wp.func
def _size(symbol: int):
    """The logarithm of a scale in 1/32 octaves; see :func:`gsz.native.symbols._size_of`."""
    size = _SIZE_OF_NOTHING
    if symbol > 0:
        bits = wp.cast(float(symbol), wp.int32)
        above = (bits >> 15) & 255
        octaves = 256 * ((bits >> 23) - 127) + ((above * (1024 - above) * 85) >> 16)
        size = (5 * octaves) >> 4
    return size


@wp.func
def _fineness(rule: wp.vec4i, sizes: wp.vec3i, opacity: int, pivot: int, span: int):
    measure = (rule[0] * sizes[0] + rule[1] * sizes[1] + rule[2] * sizes[2] + rule[3] * opacity) >> 8
    return wp.clamp(((measure - pivot + 8) >> 4) + span, 0, 2 * span)


@wp.func
def _finenesses(scales: wp.vec3i, level: int, grid: GridTables):
    """Of rotations, DC and harmonics."""
    sizes = wp.vec3i(_size(scales[0]), _size(scales[1]), _size(scales[2]))
    opacity = grid.covered[level]
    return wp.vec3i(
        _fineness(_ROTATION_RULE, sizes, opacity, grid.pivots[0], grid.ranges[0]),
        _fineness(_DC_RULE, sizes, opacity, grid.pivots[1], grid.ranges[1]),
        _fineness(_SH_RULE, sizes, opacity, grid.pivots[2], grid.ranges[2]),
    )


@wp.func
def _times(left: wp.vec4d, right: wp.vec4d):
    """Hamilton product of quaternions, wxyz."""
    return wp.vec4d(
        left[0] * right[0] - left[1] * right[1] - left[2] * right[2] - left[3] * right[3],
        left[0] * right[1] + left[1] * right[0] + left[2] * right[3] - left[3] * right[2],
        left[0] * right[2] - left[1] * right[3] + left[2] * right[0] + left[3] * right[1],
        left[0] * right[3] + left[1] * right[2] - left[2] * right[1] + left[3] * right[0],
    )


@wp.struct
class Canonical:
    """A rotation in the frame that its Gaussian's sorted axes have, and how it came there.

    Attributes:
        vector: of the unit quaternion, whose scalar part is the largest and positive.
        turn: row of :data:`gsz.native.symbols.TURNS`.
        sign: 1 or -1, by which the turned quaternion was multiplied.
        length: of the original quaternion, 0 where it has none.
    """

    vector: wp.vec3d
    turn: wp.int32
    sign: wp.float64
    length: wp.float32


@wp.func
def _canonical(quaternion: wp.vec4, kind: int, grid: GridTables):
    given = wp.vec4d(
        wp.float64(quaternion[0]), wp.float64(quaternion[1]), wp.float64(quaternion[2]), wp.float64(quaternion[3])
    )
    length = wp.sqrt(given[0] * given[0] + given[1] * given[1] + given[2] * given[2] + given[3] * given[3])
    found = Canonical()
    found.length = wp.float32(length)
    if not (length > _SHORTEST and length < _LONGEST):
        found.length = 0.0
        given = wp.vec4d(_ONE, _ZERO, _ZERO, _ZERO)
        length = _ONE
    unit = wp.vec4d(given[0] / length, given[1] / length, given[2] / length, given[3] / length)
    q = _times(unit, grid.turns[4 * kind])
    flip = 0
    real = q[0]
    found.vector = wp.vec3d(q[1], q[2], q[3])
    # As FLIPS and FLIP_SIGNS in gsz.native.symbols have it.
    if wp.abs(q[1]) > wp.abs(real):
        flip = 1
        real = q[1]
        found.vector = wp.vec3d(-q[0], -q[3], q[2])
    if wp.abs(q[2]) > wp.abs(real):
        flip = 2
        real = q[2]
        found.vector = wp.vec3d(q[3], -q[0], -q[1])
    if wp.abs(q[3]) > wp.abs(real):
        flip = 3
        real = q[3]
        found.vector = wp.vec3d(-q[2], q[1], -q[0])
    found.turn = 4 * kind + flip
    found.sign = wp.where(real >= _ZERO, _ONE, -_ONE)
    found.vector = found.sign * found.vector
    return found


@wp.func
def _snapped_rotation(vector: wp.vec3d, per_step: wp.float64, step: wp.float64):
    x = wp.float64(_away_from_zero(vector[0] * per_step, _ROTATION_LIMIT)) * step
    y = wp.float64(_away_from_zero(vector[1] * per_step, _ROTATION_LIMIT)) * step
    z = wp.float64(_away_from_zero(vector[2] * per_step, _ROTATION_LIMIT)) * step
    square = _ONE - (x * x + y * y + z * z)
    scalar = wp.where(square > _ZERO, wp.sqrt(wp.max(square, _ZERO)), _ZERO)
    return wp.vec4(wp.float32(scalar), wp.float32(x), wp.float32(y), wp.float32(z))


@wp.func
def _snapped_color(value: wp.float32, per_step: wp.float64, step: wp.float64):
    return wp.float32(wp.float64(_away_from_zero(wp.float64(value) * per_step, _DC_LIMIT)) * step)


@wp.func
def _sums(rgb: wp.vec3):
    """Multiples of Y, Co and Cg of harmonics; see :func:`gsz.native.symbols.quantize_sh`."""
    return wp.vec3(rgb[0] + rgb[1] + rgb[2], rgb[0] - rgb[2], rgb[0] - 2.0 * rgb[1] + rgb[2])


@wp.func
def _rounded(in_steps: wp.float32, grid: GridTables):
    """What the symbol of a number of steps stands for, in steps; never -0."""
    size = wp.abs(in_steps) + grid.sh_rounding
    whole = int(wp.where(size < _SH_LIMIT, size, _SH_LIMIT))
    value = wp.float64(whole)
    if whole == 0:
        value = grid.sh_values[0]
    elif whole == 1:
        value = grid.sh_values[1]
    elif whole == 2:
        value = grid.sh_values[2]
    elif whole == 3:
        value = grid.sh_values[3]
    return wp.where(in_steps < 0.0, -value, value) + _ZERO


@wp.func
def _snapped_harmonic(rgb: wp.vec3, per_unit: wp.vec3, steps: wp.vec3d, grid: GridTables):
    sums = _sums(rgb)
    y = _rounded(sums[0] * per_unit[0], grid) * steps[0]
    co = _rounded(sums[1] * per_unit[1], grid) * steps[1]
    cg = _rounded(sums[2] * per_unit[2], grid) * steps[2]
    return wp.vec3(wp.float32((y + cg) + co), wp.float32(y - _TWO * cg), wp.float32((y + cg) - co))


@wp.kernel
def snap(
    grid: GridTables,
    means: wp.array[wp.vec3],
    log_scales: wp.array2d[wp.float32],
    quaternions: wp.array[wp.vec4],
    opacity_logits: wp.array[wp.float32],
    sh_dc: wp.array[wp.vec3],
    sh_rest: wp.array2d[wp.vec3],
    coefficients: int,
    snapped_means: wp.array[wp.vec3],
    snapped_log_scales: wp.array2d[wp.float32],
    snapped_quaternions: wp.array[wp.vec4],
    snapped_opacity_logits: wp.array[wp.float32],
    snapped_sh_dc: wp.array[wp.vec3],
    snapped_sh_rest: wp.array2d[wp.vec3],
):
    """Round a model to the grid, as ``dequantize(quantize(model))`` in :mod:`gsz.native.symbols` does."""
    i = wp.tid()
    mean = means[i]
    snapped_means[i] = wp.vec3(
        _snapped_mean(mean[0], grid.center[0], grid),
        _snapped_mean(mean[1], grid.center[1], grid),
        _snapped_mean(mean[2], grid.center[2], grid),
    )
    level = _level_of(opacity_logits[i], grid.thresholds)
    snapped_opacity_logits[i] = grid.opacity_logits[level]

    kind = _kind_of(log_scales, i, grid)
    scales = _scale_symbols(log_scales, i, grid.orders[kind], grid)
    for axis in range(3):
        snapped_log_scales[i, axis] = _log_scale(scales[axis], grid.scale_steps[axis], grid.scale_pivot)
    fineness = _finenesses(scales, level, grid)
    vector = _canonical(quaternions[i], kind, grid).vector
    snapped_quaternions[i] = _snapped_rotation(vector, grid.per_rotation[fineness[0]], grid.rotation_steps[fineness[0]])
    color = sh_dc[i]
    per_step = grid.dc_per_unit[fineness[1]]
    step = grid.dc_steps[fineness[1]]
    snapped_sh_dc[i] = wp.vec3(
        _snapped_color(color[0], per_step, step),
        _snapped_color(color[1], per_step, step),
        _snapped_color(color[2], per_step, step),
    )
    per_unit = grid.sh_per_unit[fineness[2]]
    steps = grid.sh_steps[fineness[2]]
    for k in range(coefficients):
        snapped_sh_rest[i, k] = _snapped_harmonic(sh_rest[i, k], per_unit, steps, grid)


@wp.kernel
def shape_gradients(
    grid: GridTables,
    log_scales: wp.array2d[wp.float32],
    quaternions: wp.array[wp.vec4],
    log_scale_gradients: wp.array2d[wp.float32],
    quaternion_gradients: wp.array[wp.vec4],
    d_log_scales: wp.array2d[wp.float32],
    d_quaternions: wp.array[wp.vec4],
):
    """As :func:`gsz.native.symbols.shape_gradients`. How axes were turned is found out once more rather than kept."""
    i = wp.tid()
    kind = _kind_of(log_scales, i, grid)
    order = grid.orders[kind]
    for axis in range(3):
        d_log_scales[i, order[axis]] = log_scale_gradients[i, axis]
    original = quaternions[i]
    frame = _canonical(original, kind, grid)
    if frame.length == 0.0:
        d_quaternions[i] = wp.vec4()
        return
    g = quaternion_gradients[i]
    turn = grid.turns[frame.turn]
    turned = frame.sign * _times(
        wp.vec4d(wp.float64(g[0]), wp.float64(g[1]), wp.float64(g[2]), wp.float64(g[3])),
        wp.vec4d(turn[0], -turn[1], -turn[2], -turn[3]),
    )
    length = wp.float64(frame.length)
    along = _ZERO
    for k in range(4):
        along += turned[k] * wp.float64(original[k])
    along = along / (length * length)
    back = wp.vec4()
    for k in range(4):
        back[k] = wp.float32((turned[k] - along * wp.float64(original[k])) / length)
    d_quaternions[i] = back


@wp.func
def _price(prices: PriceTables, column: int, value: wp.float32):
    """What a real number of steps costs, and how that changes."""
    place = value - prices.lows[column]
    place = wp.where(place > 0.0, place, 0.0)
    place = wp.where(place < prices.lasts[column], place, prices.lasts[column])
    below = int(place)
    line = prices.lines[prices.begins[column] + below]
    return line[0] + line[1] * (place - float(below)), line[1]


@wp.func
def _within(value: wp.float32, limit: wp.float32):
    value = wp.where(value > -limit, value, -limit)
    return wp.where(value < limit, value, limit)


@wp.func
def _small_power_of_two(whole: wp.float32):
    return wp.cast((int(whole) + 127) << 23, wp.float32)


@wp.func
def _exp2(value: wp.float32):
    """See :func:`gsz.native.shape_price._exp2`."""
    whole = wp.floor(value + 0.5)
    rest = value - whole
    power = _EXP2_5 * rest + _EXP2_4
    power = power * rest + _EXP2_3
    power = power * rest + _EXP2_2
    power = power * rest + _EXP2_1
    return (power * rest + 1.0) * _small_power_of_two(whole)


@wp.func
def _power(log_scale: wp.float32, pivot: wp.float32):
    """See :func:`gsz.native.shape_price._power`: of a scale the power, and its slope."""
    octaves = _within((log_scale - pivot) * _PER_OCTAVE, 60.0)
    whole = wp.floor(octaves)
    root = wp.sqrt(4.0 - 3.0 * (octaves - whole))
    power = _small_power_of_two(whole)
    slope = _POWER_SLOPE * power / root
    return (3.0 - root) * power, wp.where(wp.abs(octaves) < 60.0, slope, 0.0)


@wp.func
def _sh_price(prices: PriceTables, table: int, value: wp.float32, scale: wp.float32):
    """What Y, Co or Cg costs, and its pull."""
    size = wp.abs(value * scale)
    last = float(prices.sh_width - 1)
    line = prices.sh_lines[prices.sh_width * table + int(wp.where(size < last, size, last))]
    pull = line[1] * scale
    return line[0] + pull * wp.abs(value), wp.where(value > 0.0, pull, -pull)


@wp.kernel
def pay(
    grid: GridTables,
    prices: PriceTables,
    opacity_logits: wp.array[wp.float32],
    log_scales: wp.array2d[wp.float32],
    sh_dc: wp.array[wp.vec3],
    sh_rest: wp.array2d[wp.vec3],
    coefficients: int,
    weight: wp.float32,
    bits: wp.array[wp.float32],
    d_opacity_logits: wp.array[wp.float32],
    d_log_scales: wp.array2d[wp.float32],
    d_sh_dc: wp.array[wp.vec3],
    d_sh_rest: wp.array2d[wp.vec3],
):
    """What each Gaussian costs, as :meth:`gsz.native.price.Prices.pay`; ``weight`` times its gradient is added."""
    i = wp.tid()
    logit = opacity_logits[i]
    power = _exp2(_within(logit * _MINUS_LOG2_E, 80.0))
    opacity = 1.0 / (1.0 + power)
    root = wp.sqrt(opacity) * prices.opacity_levels
    opacity_bits, by_opacity = _price(prices, _OPACITY, root - 0.5)
    d_opacity_logits[i] = d_opacity_logits[i] + weight * by_opacity * (0.5 * root * power * opacity)

    order = grid.orders[_kind_of(log_scales, i, grid)]
    first, first_slope = _power(log_scales[i, order[0]], prices.pivot)
    second, second_slope = _power(log_scales[i, order[1]], prices.pivot)
    third, third_slope = _power(log_scales[i, order[2]], prices.pivot)
    # The order is that of the scales; here and there it is not quite that of rounded powers.
    high = wp.max(first, second)
    low = wp.min(first, second)
    middle = wp.min(high, third)
    size = wp.max(high, third) * prices.per_power[0]
    second = wp.max(low, middle) * prices.per_power[1]
    third = wp.min(low, middle) * prices.per_power[2]
    size_bits, by_size = _price(prices, _SCALE, size)
    gap_bits, by_gap = _price(prices, _GAP, size - second)
    thin_bits, by_thin = _price(prices, _THIN, (second + 0.5) * 0.5 - third)
    by_first = weight * (by_size + by_gap) * prices.per_power[0]
    by_second = weight * (0.5 * by_thin - by_gap) * prices.per_power[1]
    by_third = -weight * by_thin * prices.per_power[2]
    d_log_scales[i, order[0]] = d_log_scales[i, order[0]] + by_first * first_slope
    d_log_scales[i, order[1]] = d_log_scales[i, order[1]] + by_second * second_slope
    d_log_scales[i, order[2]] = d_log_scales[i, order[2]] + by_third * third_slope

    level = _level_of(logit, grid.thresholds)
    fineness = _finenesses(_scale_symbols(log_scales, i, order, grid), level, grid)
    per_unit = prices.dc_per_unit[fineness[1]]
    color = sh_dc[i]
    red = color[0] * per_unit
    green = color[1] * per_unit
    blue = color[2] * per_unit
    y_bits, by_y = _price(prices, _Y, (red + 2.0 * green + blue) * 0.25)
    cg_bits, by_cg = _price(prices, _CG, green - (red + blue) * 0.5)
    co_bits, by_co = _price(prices, _CO, red - blue)
    per_unit = weight * per_unit
    even = 0.5 * (0.5 * by_y - by_cg)
    d_color = d_sh_dc[i]
    d_sh_dc[i] = wp.vec3(
        d_color[0] + per_unit * (even + by_co),
        d_color[1] + per_unit * (0.5 * by_y + by_cg),
        d_color[2] + per_unit * (even - by_co),
    )
    total = opacity_bits + size_bits + gap_bits + thin_bits + y_bits + cg_bits + co_bits

    scale = grid.sh_per_unit[fineness[2]]
    largest = wp.float32(0.0)
    for k in range(coefficients):
        sums = _sums(sh_rest[i, k])
        for c in range(3):
            largest = wp.max(largest, wp.abs(sums[c] * scale[c]))
    kind = prices.sh_kinds[int(wp.min(largest + grid.sh_rounding, float(prices.sh_kinds.shape[0] - 1)))]
    if kind > 0:  # Those of class 0 have nothing to pay for and feel no pull.
        for k in range(coefficients):
            sums = _sums(sh_rest[i, k])
            y_cost, y = _sh_price(prices, 3 * kind, sums[0], scale[0])
            co_cost, co = _sh_price(prices, 3 * kind + 1, sums[1], scale[1])
            cg_cost, cg = _sh_price(prices, 3 * kind + 2, sums[2], scale[2])
            total += y_cost + co_cost + cg_cost
            pull = d_sh_rest[i, k]
            d_sh_rest[i, k] = wp.vec3(
                pull[0] + weight * (y + cg + co),
                pull[1] + weight * (y - 2.0 * cg),
                pull[2] + weight * (y + cg - co),
            )
    bits[i] = total
