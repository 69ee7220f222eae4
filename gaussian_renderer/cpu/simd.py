"""Vector values of eight and sixteen lanes for Numba, through its public extension interface.

The types map to LLVM's ``<8 x float>``, ``<8 x i32>`` and ``<8 x i1>``, which LLVM lowers to what the machine has:
one AVX register, two SSE registers or two NEON registers; and to the same of sixteen lanes, for the registers of
AVX-512. Only what the rasterizer needs is here; :mod:`gaussian_renderer.cpu.scalar` has the same for one lane.
Operations take vectors of either length. Those that make vectors are here for eight lanes, and for sixteen in
:mod:`gaussian_renderer.cpu.simd16`.
Arithmetic carries no fast-math flags (:mod:`gsz.kernels` says why), and the rasterizer's guards rely on
comparisons with NaN being false.
"""

from __future__ import annotations

import math
import operator
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from gaussian_renderer.cpu.compiled import njit
from utils.kernels import SERIAL

LANES = 8

_FLOAT, _INT, _BIT, _BYTE, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(1), ir.IntType(8), ir.IntType(64)


class _Vector(types.Type):
    """A Numba type that is one LLVM vector register."""

    element: ir.Type

    def __init__(self, name: str, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"{name}x{lanes}")

    @property
    def llvm(self) -> ir.Type:
        return ir.VectorType(self.element, self.lanes)


class _Floats(_Vector):
    element = _FLOAT


class _Ints(_Vector):
    element = _INT


class _Mask(_Vector):
    element = _BIT


_WIDTHS = (8, 16)
FLOATS, INTS, MASKS = (
    {lanes: kind(name, lanes) for lanes in _WIDTHS}
    for kind, name in ((_Floats, "f32"), (_Ints, "i32"), (_Mask, "mask"))
)
"""The types, by the number of lanes."""


def _register(numba_class: type) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, numba_type: Any) -> None:
            super().__init__(manager, numba_type, numba_type.llvm)

    register_model(numba_class)(Model)


for _class in (_Floats, _Ints, _Mask):
    _register(_class)


def _ints(lanes: int, values: int | list[int]) -> Any:
    """A constant vector of integers."""
    return ir.Constant(ir.VectorType(_INT, lanes), values if isinstance(values, list) else [values] * lanes)


def _broadcast(builder: Any, scalar: Any, vector_type: Any) -> Any:
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, _ints(vector_type.count, 0))


def splat_of(lanes: int) -> Callable[..., Any]:
    """See :data:`splat`."""
    floats = FLOATS[lanes]

    @intrinsic
    def splat(typing_context, value):
        if value != types.float32:
            return None
        return floats(types.float32), lambda context, builder, signature, args: _broadcast(
            builder, args[0], floats.llvm
        )

    return splat


def splat_int_of(lanes: int) -> Callable[..., Any]:
    """See :data:`splat_int`."""
    ints = INTS[lanes]

    @intrinsic
    def splat_int(typing_context, value):
        return ints(types.int32), lambda context, builder, signature, args: _broadcast(builder, args[0], ints.llvm)

    return splat_int


def constant(values: list[float]) -> Callable[..., Any]:
    """A function of a part of the lanes, of which there is one, that returns these."""
    floats = FLOATS[len(values)]

    @intrinsic
    def operation(typing_context, part):
        return floats(part), lambda context, builder, signature, args: ir.Constant(floats.llvm, values)

    return operation


def _address(context: Any, builder: Any, signature: Any, args: Any, vector_type: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), vector_type.as_pointer())


def _loader(vector_type: Any) -> Callable[..., Any]:
    def generate(context, builder, signature, args):
        value = builder.load(_address(context, builder, signature, args, vector_type))
        value.align = 4
        return value

    return generate


def _storer(vector_type: Any) -> Callable[..., Any]:
    def generate(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature, args, vector_type), align=4)
        return context.get_dummy_value()

    return generate


def load_of(vector: Any) -> Callable[..., Any]:
    """See :data:`load`."""

    @intrinsic
    def load(typing_context, array, start):
        return vector(array, types.intp), _loader(vector.llvm)

    return load


@intrinsic
def store(typing_context, array, start, value):
    """Write all lanes to a contiguous one-dimensional array. Bounds are the caller's duty."""
    return types.void(array, types.intp, value), _storer(value.llvm)


store_int = store


def _row_addresses(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Of element ``offset`` of rows of ``stride`` elements, lane by lane."""
    array, rows = (context.make_array(signature.args[i])(context, builder, args[i]) for i in range(2))
    numbers = [builder.load(builder.gep(rows.data, [ir.Constant(_INT64, lane)])) for lane in range(LANES)]
    return [builder.gep(array.data, [builder.add(builder.mul(row, args[2]), args[3])]) for row in numbers]


@intrinsic
def gather(typing_context, array, rows, stride, offset):
    """Element ``offset`` of eight rows of ``stride`` elements, in a flat float32 array. ``rows`` is an int64 array."""

    def generate(context, builder, signature, args):
        vector = ir.Constant(FLOATS[LANES].llvm, ir.Undefined)
        for lane, address in enumerate(_row_addresses(context, builder, signature, args)):
            vector = builder.insert_element(vector, builder.load(address), ir.Constant(_INT, lane))
        return vector

    return FLOATS[LANES](array, rows, types.intp, types.intp), generate


@intrinsic
def scatter(typing_context, array, rows, stride, offset, value):
    """Write what :func:`gather` reads, the first lane first."""

    def generate(context, builder, signature, args):
        for lane, address in enumerate(_row_addresses(context, builder, signature, args)):
            builder.store(builder.extract_element(args[4], ir.Constant(_INT, lane)), address)
        return context.get_dummy_value()

    return types.void(array, rows, types.intp, types.intp, FLOATS[LANES]), generate


@intrinsic
def prefetch(typing_context, array, start):
    """Ask for the cache line of element ``start``, of a contiguous float32 array, ahead of its use."""

    def generate(context, builder, signature, args):
        address = _address(context, builder, signature, args, _BYTE)
        hint = ir.FunctionType(ir.VoidType(), [address.type, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [address, ir.Constant(_INT, 0), ir.Constant(_INT, 3), ir.Constant(_INT, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _binary(results: dict[int, Any], build: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """An operation on two vectors of one type."""

    @intrinsic
    def operation(typing_context, left, right):
        result = results[left.lanes]
        return result(left, left), lambda context, builder, signature, args: build(builder, *args)

    return operation


def _operator(
    python_operator: Callable[..., Any], result: Any, operand: Any, build: Callable[[Any, Any, Any], Any]
) -> None:
    """Define an operator of two vectors; of floats, also that of a vector and a float32 scalar."""

    @type_callable(python_operator)
    def type_operator(context):
        def typer(left, right):
            return result if {left, right} in kinds else None

        return typer

    def generate(context, builder, signature, args):
        vectors = [
            _broadcast(builder, value, operand.llvm) if kind == types.float32 else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        return build(builder, *vectors)

    kinds = [{operand}, {operand, types.float32}] if isinstance(operand, _Floats) else [{operand}]
    for operands in ((operand, operand), (operand, types.float32), (types.float32, operand)):
        if set(operands) in kinds:
            lower_builtin(python_operator, *operands)(generate)


def _float_arithmetic(name: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, x, y: getattr(builder, name)(x, y)


def has_feature(name: str) -> bool:
    """Whether the processor that kernels are compiled for has one, in LLVM's words."""
    chosen = config.CPU_FEATURES
    if chosen is None:
        chosen = "" if config.CPU_NAME == "generic" else get_host_cpu_features().flatten()
    return f"+{name}" in chosen.split(",")


# All 64-bit ARMs have an instruction for a product and a sum.
_FUSED = platform.machine().lower() in ("aarch64", "arm64") or has_feature("fma")


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, rounded once where that is one instruction. Elsewhere it would be a call for every lane."""
    if not _FUSED:
        return builder.fadd(builder.fmul(x, y), z)
    signature = ir.FunctionType(x.type, [x.type] * 3)
    name = f"llvm.fma.v{x.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [x, y, z])


def _float_comparison(symbol: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, x, y: builder.fcmp_ordered(symbol, x, y)


for _lanes in _WIDTHS:
    for _symbol, _name in (
        (operator.add, "fadd"),
        (operator.iadd, "fadd"),
        (operator.sub, "fsub"),
        (operator.mul, "fmul"),
        (operator.truediv, "fdiv"),
    ):
        _operator(_symbol, FLOATS[_lanes], FLOATS[_lanes], _float_arithmetic(_name))
    for _symbol, _name in ((operator.ge, ">="), (operator.le, "<="), (operator.gt, ">"), (operator.lt, "<")):
        _operator(_symbol, MASKS[_lanes], FLOATS[_lanes], _float_comparison(_name))
    for _symbol in (operator.and_, operator.iand):
        _operator(_symbol, MASKS[_lanes], MASKS[_lanes], lambda builder, x, y: builder.and_(x, y))

less_int = _binary(MASKS, lambda builder, x, y: builder.icmp_signed("<", x, y))
any_of = _binary(MASKS, lambda builder, x, y: builder.or_(x, y))
and_not = _binary(MASKS, lambda builder, x, y: builder.and_(x, builder.not_(y)))


@intrinsic
def select(typing_context, mask, when_set, otherwise):
    """Lane by lane, ``when_set`` where the mask is set and ``otherwise`` elsewhere; floats or integers."""
    return when_set(mask, when_set, when_set), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def any_lane(typing_context, mask):
    """Whether any lane of a mask is set."""

    def generate(context, builder, signature, args):
        bits = ir.IntType(mask.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), generate


@intrinsic
def mask_bits(typing_context, mask):
    """A mask as an integer, lane 0 in the lowest bit."""

    def generate(context, builder, signature, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.lanes)), _INT64)

    return types.int64(mask), generate


def _unary(name: str) -> Callable[..., Any]:
    """One of LLVM's functions, lane by lane."""

    @intrinsic
    def operation(typing_context, value):
        return value(value), lambda context, builder, signature, args: _call(builder, name, args[0])

    return operation


def _call(builder: Any, name: str, value: Any) -> Any:
    signature, name = ir.FunctionType(value.type, [value.type]), f"llvm.{name}.v{value.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [value])


square_root, absolute, floor, ceil = _unary("sqrt"), _unary("fabs"), _unary("floor"), _unary("ceil")


@intrinsic
def multiply_add(typing_context, left, right, summand):
    """``left * right + summand``; rounded once where that is one instruction."""
    return left(left, left, left), lambda context, builder, signature, args: _multiply_add(builder, *args)


@intrinsic
def subtract_product(typing_context, minuend, left, right):
    """``minuend - left * right``; rounded once where that is one instruction."""

    def generate(context, builder, signature, args):
        return _multiply_add(builder, builder.fneg(args[1]), args[2], args[0])

    return left(left, left, left), generate


@intrinsic
def to_int(typing_context, value):
    """The whole number towards zero, for lanes within the range of int32."""
    ints = INTS[value.lanes]
    return ints(value), lambda context, builder, signature, args: builder.fptosi(args[0], ints.llvm)


@intrinsic
def trailing_zeros(typing_context, value):
    """Index of the lowest set bit of a nonzero int64."""

    def generate(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.cttz", [_INT64], ir.FunctionType(_INT64, [_INT64, _BIT]))
        return builder.call(function, [args[0], ir.Constant(_BIT, 1)])

    return types.int64(types.int64), generate


@intrinsic
def horizontal_sum(typing_context, value):
    """The sum of the lanes, always added in the same order (halves, quarters, pairs)."""

    def generate(context, builder, signature, args):
        return builder.extract_element(_sum_of_parts(builder, args[0], 1), ir.Constant(_INT, 0))

    return types.float32(value), generate


def _sum_of_parts(builder: Any, vector: Any, lanes: int) -> Any:
    """A vector is halved, and the halves are added, until it has no more than so many lanes."""
    while vector.type.count > lanes:
        width, undefined = vector.type.count // 2, ir.Constant(vector.type, ir.Undefined)
        halves = [
            builder.shuffle_vector(vector, undefined, _ints(width, list(range(start, start + width))))
            for start in (0, width)
        ]
        vector = builder.fadd(*halves)
    return vector


def _shuffled(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, _ints(LANES, lanes))


_TRANSPOSITION = (
    ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
    ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
)
"""Lanes of two vectors, for both vectors that come of them: single ones, pairs and halves are exchanged."""


@intrinsic
def store_sums(typing_context, array, start, a, b, c, d, e, f, g, h):
    """Write the sums of the lanes of eight vectors."""

    def generate(context, builder, signature, args):
        # Each round adds two vectors into one: of pairs, then of quarters, then of halves.
        vectors = [_sum_of_parts(builder, vector, LANES) for vector in args[2:]]
        for first, second in _TRANSPOSITION:
            vectors = [
                builder.fadd(_shuffled(builder, left, right, first), _shuffled(builder, left, right, second))
                for left, right in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return store_vector(context, builder, signature, [*args[:2], vectors[0]])

    store_vector = _storer(FLOATS[LANES].llvm)
    return types.void(array, types.intp, *[a] * 8), generate


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Lane i of vector j becomes lane j of vector i."""
    for distance, (first, second) in zip((1, 2, 4), _TRANSPOSITION, strict=True):
        exchanged = list(vectors)
        for low in range(LANES):
            if low & distance == 0:
                pair = vectors[low], vectors[low + distance]
                exchanged[low] = _shuffled(builder, *pair, first)
                exchanged[low + distance] = _shuffled(builder, *pair, second)
        vectors = exchanged
    return vectors


def _row_vectors(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    addresses = _row_addresses(context, builder, signature, args)
    return [builder.bitcast(address, FLOATS[LANES].llvm.as_pointer()) for address in addresses]


@intrinsic
def transpose_in(typing_context, array, rows, stride, offset, target, start):
    """Columns ``offset`` to ``offset + 7`` of eight rows, as :func:`gather` takes them, to vectors of ``target``."""

    def generate(context, builder, signature, args):
        vectors = []
        for address in _row_vectors(context, builder, signature, args):
            vectors.append(builder.load(address))
            vectors[-1].align = 4
        target = context.make_array(signature.args[4])(context, builder, args[4])
        for number, vector in enumerate(_transposed(builder, vectors)):
            place = builder.add(args[5], ir.Constant(_INT64, number * LANES))
            address = builder.bitcast(builder.gep(target.data, [place]), FLOATS[LANES].llvm.as_pointer())
            builder.store(vector, address, align=4)
        return context.get_dummy_value()

    return types.void(array, rows, types.intp, types.intp, target, types.intp), generate


@intrinsic
def transpose_out(typing_context, array, rows, stride, offset, source, start):
    """The way back: eight vectors of ``source`` to columns of rows, the first lane first."""

    def generate(context, builder, signature, args):
        source = context.make_array(signature.args[4])(context, builder, args[4])
        vectors = []
        for number in range(LANES):
            place = builder.add(args[5], ir.Constant(_INT64, number * LANES))
            address = builder.bitcast(builder.gep(source.data, [place]), FLOATS[LANES].llvm.as_pointer())
            vectors.append(builder.load(address))
            vectors[-1].align = 4
        rows = _row_vectors(context, builder, signature, args)
        for address, vector in zip(rows, _transposed(builder, vectors), strict=True):
            builder.store(vector, address, align=4)
        return context.get_dummy_value()

    return types.void(array, rows, types.intp, types.intp, source, types.intp), generate


# Minimax polynomial of 2**f on [-1/2, 1/2], highest power first; relative error below 8e-8 before rounding.
_EXP2_POLYNOMIAL = (
    1.327647199253e-03,
    9.675541334454e-03,
    5.550713273498e-02,
    2.402211972384e-01,
    6.931469670648e-01,
    1.000000071655e00,
)
_LOG2_E = float(np.float32(math.log2(math.e)))
_LOG2_E_REST = math.log2(math.e) - _LOG2_E
_SQRT_HALF_BITS = int(np.float32(math.sqrt(0.5)).view(np.int32))


def _like(vector: Any, number: float) -> Any:
    """As long a vector, of one constant."""
    return ir.Constant(vector.type, [number] * vector.type.count)


def _clamped(builder: Any, value: Any, low: float, high: float) -> Any:
    """Lanes that are not numbers become ``high``."""
    value = builder.select(builder.fcmp_ordered("<", value, _like(value, high)), value, _like(value, high))
    return builder.select(builder.fcmp_ordered(">", value, _like(value, low)), value, _like(value, low))


def _power_of_two(builder: Any, whole: Any, fraction: Any) -> Any:
    """2 to the sum: a polynomial, and the whole number added to the exponent's bits."""
    power = _like(fraction, _EXP2_POLYNOMIAL[0])
    for coefficient in _EXP2_POLYNOMIAL[1:]:
        power = _multiply_add(builder, power, fraction, _like(fraction, coefficient))
    lanes = fraction.type.count
    shifted = builder.shl(builder.fptosi(whole, INTS[lanes].llvm), _ints(lanes, 23))
    return builder.bitcast(builder.add(builder.bitcast(power, INTS[lanes].llvm), shifted), fraction.type)


@intrinsic
def exp2(typing_context, value):
    """``2**value`` for lanes in [-120, 120]."""

    def generate(context, builder, signature, args):
        # Adding and subtracting 1.5 * 2**23 would round as well, but Numba lets LLVM cancel the two.
        whole = _call(builder, "rint", args[0])
        return _power_of_two(builder, whole, builder.fsub(args[0], whole))

    return value(value), generate


@intrinsic
def exp(typing_context, value):
    """``e**value``, as if lanes below -87 were -87; those above 88, or no numbers, as if they were 88."""

    def generate(context, builder, signature, args):
        value = _clamped(builder, args[0], -87.0, 88.0)
        whole = _call(builder, "rint", builder.fmul(value, _like(value, _LOG2_E)))
        # The second part of log2(e) is what float32 leaves of it.
        fraction = _multiply_add(builder, value, _like(value, _LOG2_E), builder.fneg(whole))
        return _power_of_two(builder, whole, _multiply_add(builder, value, _like(value, _LOG2_E_REST), fraction))

    return value(value), generate


@intrinsic
def log2(typing_context, value):
    """The logarithm to base 2 of lanes that are positive, finite and not subnormal.

    With m from sqrt(1/2) to sqrt(2) and t = (m - 1) / (m + 1), log(m) is 2 (t + t**3 / 3 + t**5 / 5 + ...).
    """

    def generate(context, builder, signature, args):
        floats, ints, lanes = value.llvm, INTS[value.lanes].llvm, value.lanes
        bits = builder.bitcast(args[0], ints)
        exponent = builder.ashr(builder.sub(bits, _ints(lanes, _SQRT_HALF_BITS)), _ints(lanes, 23))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, _ints(lanes, 23))), floats)
        one = _like(mantissa, 1.0)
        t = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
        squared = builder.fmul(t, t)
        series = _like(t, 2 / math.log(2) / 9)
        for power in (7, 5, 3, 1):
            series = _multiply_add(builder, series, squared, _like(t, 2 / math.log(2) / power))
        return _multiply_add(builder, t, series, builder.sitofp(exponent, floats))

    return value(value), generate


splat = splat_of(LANES)
"""All lanes equal to a float32 scalar."""
splat_int = splat_int_of(LANES)
"""All lanes equal to an int32 scalar."""
load = load_of(FLOATS[LANES])
"""As many floats of a contiguous one-dimensional float32 array, from an index on. Bounds are the caller's duty."""
load_int = load_of(INTS[LANES])
"""The same of integers of an int32 array."""
lane_numbers = constant([float(lane) for lane in range(LANES)])
lane_columns = constant([float(lane % 4) for lane in range(LANES)])
"""Where the lanes lie in pixels that are four wide."""
lane_rows = constant([float(lane // 4) for lane in range(LANES)])


@njit(**SERIAL)
def double_in_place(values):
    """Double eight floats, in a way that shows whether the types can be built, loaded, computed with and stored."""
    value = load(values, 0)
    store(values, 0, select(value > splat(np.float32(0)), value * exp2(value / value), value))
