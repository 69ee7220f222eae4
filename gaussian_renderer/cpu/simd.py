"""Eight-lane vector values for Numba, through its public extension interface.

The types map to LLVM's ``<8 x float>``, ``<8 x i32>`` and ``<8 x i1>``, which LLVM lowers to what the machine has:
one AVX register, two SSE registers or two NEON registers. Only what the rasterizer needs is here;
:mod:`gaussian_renderer.cpu.scalar` has the same for one lane.
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
_FLOATS, _INTS, _BITS = (ir.VectorType(element, LANES) for element in (_FLOAT, _INT, _BIT))


class _Vector(types.Type):
    """A Numba type that is one LLVM vector register."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)


class _Floats(_Vector):
    pass


class _Ints(_Vector):
    pass


class _Mask(_Vector):
    pass


f32x8, i32x8, mask8 = _Floats("f32x8"), _Ints("i32x8"), _Mask("mask8")


def _register(numba_class: type, llvm_type: ir.Type) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, numba_type: Any) -> None:
            super().__init__(manager, numba_type, llvm_type)

    register_model(numba_class)(Model)


_register(_Floats, _FLOATS)
_register(_Ints, _INTS)
_register(_Mask, _BITS)


def _broadcast(builder: Any, scalar: Any, vector_type: Any) -> Any:
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


@intrinsic
def splat(typing_context, value):
    """All eight lanes equal to a float32 scalar."""
    if value != types.float32:
        return None
    return f32x8(types.float32), lambda context, builder, signature, args: _broadcast(builder, args[0], _FLOATS)


@intrinsic
def splat_int(typing_context, value):
    """All eight lanes equal to an int32 scalar."""
    return i32x8(types.int32), lambda context, builder, signature, args: _broadcast(builder, args[0], _INTS)


def _constant(values: list[float]) -> Callable[..., Any]:
    @intrinsic
    def operation(typing_context, part):
        # All lanes are in part 0.
        return f32x8(part), lambda context, builder, signature, args: ir.Constant(_FLOATS, values)

    return operation


lane_numbers = _constant([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
# Where the lanes of a chunk lie in its 4 x 2 pixels.
lane_columns = _constant([0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0])
lane_rows = _constant([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])


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


@intrinsic
def load(typing_context, array, start):
    """Eight floats of a contiguous one-dimensional float32 array, from ``start`` on. Bounds are the caller's duty."""
    return f32x8(array, types.intp), _loader(_FLOATS)


@intrinsic
def load_int(typing_context, array, start):
    """Eight integers of a contiguous one-dimensional int32 array."""
    return i32x8(array, types.intp), _loader(_INTS)


@intrinsic
def store(typing_context, array, start, value):
    """Write eight floats."""
    return types.void(array, types.intp, f32x8), _storer(_FLOATS)


@intrinsic
def store_int(typing_context, array, start, value):
    """Write eight integers."""
    return types.void(array, types.intp, i32x8), _storer(_INTS)


def _row_addresses(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Of element ``offset`` of rows of ``stride`` elements, lane by lane."""
    array, rows = (context.make_array(signature.args[i])(context, builder, args[i]) for i in range(2))
    numbers = [builder.load(builder.gep(rows.data, [ir.Constant(_INT64, lane)])) for lane in range(LANES)]
    return [builder.gep(array.data, [builder.add(builder.mul(row, args[2]), args[3])]) for row in numbers]


@intrinsic
def gather(typing_context, array, rows, stride, offset):
    """Element ``offset`` of eight rows of ``stride`` elements, in a flat float32 array. ``rows`` is an int64 array."""

    def generate(context, builder, signature, args):
        vector = ir.Constant(_FLOATS, ir.Undefined)
        for lane, address in enumerate(_row_addresses(context, builder, signature, args)):
            vector = builder.insert_element(vector, builder.load(address), ir.Constant(_INT, lane))
        return vector

    return f32x8(array, rows, types.intp, types.intp), generate


@intrinsic
def scatter(typing_context, array, rows, stride, offset, value):
    """Write what :func:`gather` reads, the first lane first."""

    def generate(context, builder, signature, args):
        for lane, address in enumerate(_row_addresses(context, builder, signature, args)):
            builder.store(builder.extract_element(args[4], ir.Constant(_INT, lane)), address)
        return context.get_dummy_value()

    return types.void(array, rows, types.intp, types.intp, f32x8), generate


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


def _binary(result: types.Type, operand: types.Type, build: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    @intrinsic
    def operation(typing_context, left, right):
        return result(operand, operand), lambda context, builder, signature, args: build(builder, *args)

    return operation


def _operator(
    python_operator: Callable[..., Any], result: types.Type, operand: types.Type, build: Callable[[Any, Any, Any], Any]
) -> None:
    """Define an operator of two vectors; of floats, also that of a vector and a float32 scalar."""

    @type_callable(python_operator)
    def type_operator(context):
        def typer(left, right):
            return result if {left, right} in kinds else None

        return typer

    def generate(context, builder, signature, args):
        vectors = [
            _broadcast(builder, value, _FLOATS) if kind == types.float32 else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        return build(builder, *vectors)

    kinds = [{operand}, {operand, types.float32}] if operand is f32x8 else [{operand}]
    for operands in ((operand, operand), (operand, types.float32), (types.float32, operand)):
        if set(operands) in kinds:
            lower_builtin(python_operator, *operands)(generate)


def _float_arithmetic(name: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, x, y: getattr(builder, name)(x, y)


def _multiplies_and_adds_at_once() -> bool:
    """Whether the processor that kernels are compiled for has an instruction for it; all 64-bit ARMs have."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    chosen = config.CPU_FEATURES
    if chosen is None:
        chosen = "" if config.CPU_NAME == "generic" else get_host_cpu_features().flatten()
    return "+fma" in chosen.split(",")


_FUSED = _multiplies_and_adds_at_once()


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, rounded once where that is one instruction. Elsewhere it would be a call for every lane."""
    if not _FUSED:
        return builder.fadd(builder.fmul(x, y), z)
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, "llvm.fma.v8f32"), [x, y, z])


def _float_comparison(symbol: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, x, y: builder.fcmp_ordered(symbol, x, y)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, f32x8, f32x8, _float_arithmetic(_name))
for _symbol, _name in ((operator.ge, ">="), (operator.le, "<="), (operator.gt, ">"), (operator.lt, "<")):
    _operator(_symbol, mask8, f32x8, _float_comparison(_name))
for _symbol in (operator.and_, operator.iand):
    _operator(_symbol, mask8, mask8, lambda builder, x, y: builder.and_(x, y))

less_int = _binary(mask8, i32x8, lambda builder, x, y: builder.icmp_signed("<", x, y))
any_of = _binary(mask8, mask8, lambda builder, x, y: builder.or_(x, y))
and_not = _binary(mask8, mask8, lambda builder, x, y: builder.and_(x, builder.not_(y)))


@intrinsic
def select(typing_context, mask, when_set, otherwise):
    """Lane by lane, ``when_set`` where the mask is set and ``otherwise`` elsewhere; floats or integers."""
    kind = f32x8 if isinstance(when_set, _Floats) else i32x8
    return kind(mask8, kind, kind), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def any_lane(typing_context, mask):
    """Whether any lane of a mask is set."""

    def generate(context, builder, signature, args):
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], _BYTE), ir.Constant(_BYTE, 0))

    return types.boolean(mask8), generate


@intrinsic
def mask_bits(typing_context, mask):
    """A mask as an integer, lane 0 in the lowest bit."""

    def generate(context, builder, signature, args):
        return builder.zext(builder.bitcast(args[0], _BYTE), _INT64)

    return types.int64(mask8), generate


def _unary(name: str) -> Callable[..., Any]:
    """One of LLVM's functions, lane by lane."""

    @intrinsic
    def operation(typing_context, value):
        return f32x8(f32x8), lambda context, builder, signature, args: _call(builder, name, args[0])

    return operation


def _call(builder: Any, name: str, value: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v8f32"), [value])


square_root, absolute, floor, ceil = _unary("sqrt"), _unary("fabs"), _unary("floor"), _unary("ceil")


@intrinsic
def multiply_add(typing_context, left, right, summand):
    """``left * right + summand``; rounded once where that is one instruction."""
    return f32x8(f32x8, f32x8, f32x8), lambda context, builder, signature, args: _multiply_add(builder, *args)


@intrinsic
def subtract_product(typing_context, minuend, left, right):
    """``minuend - left * right``; rounded once where that is one instruction."""

    def generate(context, builder, signature, args):
        return _multiply_add(builder, builder.fneg(args[1]), args[2], args[0])

    return f32x8(f32x8, f32x8, f32x8), generate


@intrinsic
def to_int(typing_context, value):
    """The whole number towards zero, for lanes within the range of int32."""
    return i32x8(f32x8), lambda context, builder, signature, args: builder.fptosi(args[0], _INTS)


@intrinsic
def trailing_zeros(typing_context, value):
    """Index of the lowest set bit of a nonzero int64."""

    def generate(context, builder, signature, args):
        function = builder.module.declare_intrinsic("llvm.cttz", [_INT64], ir.FunctionType(_INT64, [_INT64, _BIT]))
        return builder.call(function, [args[0], ir.Constant(_BIT, 1)])

    return types.int64(types.int64), generate


@intrinsic
def horizontal_sum(typing_context, value):
    """The sum of the eight lanes, always added in the same order (halves, quarters, pairs)."""

    def generate(context, builder, signature, args):
        vector, width = args[0], LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    vector, undefined, ir.Constant(ir.VectorType(_INT, width), list(range(start, start + width)))
                )
                for start in (0, width)
            ]
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, ir.Constant(_INT, 0))

    return types.float32(f32x8), generate


def _shuffled(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(_INTS, lanes))


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
        vectors = list(args[2:])
        for first, second in _TRANSPOSITION:
            vectors = [
                builder.fadd(_shuffled(builder, left, right, first), _shuffled(builder, left, right, second))
                for left, right in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return store_vector(context, builder, signature, [*args[:2], vectors[0]])

    store_vector = _storer(_FLOATS)
    return types.void(array, types.intp, *[f32x8] * 8), generate


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
    return [builder.bitcast(address, _FLOATS.as_pointer()) for address in addresses]


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
            address = builder.bitcast(builder.gep(target.data, [place]), _FLOATS.as_pointer())
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
            address = builder.bitcast(builder.gep(source.data, [place]), _FLOATS.as_pointer())
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


def _constants(number: float) -> Any:
    return ir.Constant(_FLOATS, [number] * LANES)


def _clamped(builder: Any, value: Any, low: float, high: float) -> Any:
    """Lanes that are not numbers become ``high``."""
    value = builder.select(builder.fcmp_ordered("<", value, _constants(high)), value, _constants(high))
    return builder.select(builder.fcmp_ordered(">", value, _constants(low)), value, _constants(low))


def _power_of_two(builder: Any, whole: Any, fraction: Any) -> Any:
    """2 to the sum: a polynomial, and the whole number added to the exponent's bits."""
    power = _constants(_EXP2_POLYNOMIAL[0])
    for coefficient in _EXP2_POLYNOMIAL[1:]:
        power = _multiply_add(builder, power, fraction, _constants(coefficient))
    shifted = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(power, _INTS), shifted), _FLOATS)


@intrinsic
def exp2(typing_context, value):
    """``2**value`` for lanes in [-120, 120]."""

    def generate(context, builder, signature, args):
        # Adding and subtracting 1.5 * 2**23 would round as well, but Numba lets LLVM cancel the two.
        whole = _call(builder, "rint", args[0])
        return _power_of_two(builder, whole, builder.fsub(args[0], whole))

    return f32x8(f32x8), generate


@intrinsic
def exp(typing_context, value):
    """``e**value``, as if lanes below -87 were -87; those above 88, or no numbers, as if they were 88."""

    def generate(context, builder, signature, args):
        value = _clamped(builder, args[0], -87.0, 88.0)
        whole = _call(builder, "rint", builder.fmul(value, _constants(_LOG2_E)))
        # The second part of log2(e) is what float32 leaves of it.
        fraction = _multiply_add(builder, value, _constants(_LOG2_E), builder.fneg(whole))
        return _power_of_two(builder, whole, _multiply_add(builder, value, _constants(_LOG2_E_REST), fraction))

    return f32x8(f32x8), generate


@intrinsic
def log2(typing_context, value):
    """The logarithm to base 2 of lanes that are positive, finite and not subnormal.

    With m from sqrt(1/2) to sqrt(2) and t = (m - 1) / (m + 1), log(m) is 2 (t + t**3 / 3 + t**5 / 5 + ...).
    """

    def generate(context, builder, signature, args):
        bits = builder.bitcast(args[0], _INTS)
        exponent = builder.ashr(
            builder.sub(bits, ir.Constant(_INTS, [_SQRT_HALF_BITS] * LANES)), ir.Constant(_INTS, [23] * LANES)
        )
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))), _FLOATS)
        t = builder.fdiv(builder.fsub(mantissa, _constants(1.0)), builder.fadd(mantissa, _constants(1.0)))
        squared = builder.fmul(t, t)
        series = _constants(2 / math.log(2) / 9)
        for power in (7, 5, 3, 1):
            series = _multiply_add(builder, series, squared, _constants(2 / math.log(2) / power))
        return _multiply_add(builder, t, series, builder.sitofp(exponent, _FLOATS))

    return f32x8(f32x8), generate


@njit(**SERIAL)
def double_in_place(values):
    """Double eight floats, in a way that shows whether the types can be built, loaded, computed with and stored."""
    value = load(values, 0)
    store(values, 0, select(value > splat(np.float32(0)), value * exp2(value / value), value))
