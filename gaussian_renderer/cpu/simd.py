"""Eight-lane vector values for Numba, through its public extension interface.

The types map to LLVM's ``<8 x float>``, ``<8 x i32>`` and ``<8 x i1>``, which LLVM lowers to what the machine has:
one AVX register, two SSE registers or two NEON registers. Only what the rasterizer needs is here;
:mod:`gaussian_renderer.cpu.scalar` has the same for one lane.
Arithmetic carries no fast-math flags (:mod:`gsz.kernels` says why), and the rasterizer's guards rely on
comparisons with NaN being false.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

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


def _overload(python_operator: Callable[..., Any], operand: types.Type, operation: Callable[..., Any]) -> None:
    def implementation(left, right):
        if isinstance(left, type(operand)) and isinstance(right, type(operand)):
            return lambda left, right: operation(left, right)
        return None

    overload(python_operator, inline="always")(implementation)


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


for _operator, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload(_operator, f32x8, _binary(f32x8, f32x8, _float_arithmetic(_name)))
for _operator, _name in ((operator.ge, ">="), (operator.le, "<="), (operator.gt, ">"), (operator.lt, "<")):
    _overload(_operator, f32x8, _binary(mask8, f32x8, _float_comparison(_name)))
_overload(operator.and_, mask8, _binary(mask8, mask8, lambda builder, x, y: builder.and_(x, y)))

less_int = _binary(mask8, i32x8, lambda builder, x, y: builder.icmp_signed("<", x, y))
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


@intrinsic
def square_root(typing_context, value):
    """Lane by lane square root."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), "llvm.sqrt.v8f32"
        )
        return builder.call(function, [args[0]])

    return f32x8(f32x8), generate


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


@intrinsic
def store_sums(typing_context, array, start, a, b, c, d, e, f, g, h):
    """Write the sums of the lanes of eight vectors."""

    def generate(context, builder, signature, args):
        def shuffled(left, right, lanes):
            return builder.shuffle_vector(left, right, ir.Constant(_INTS, lanes))

        # Each round adds two vectors into one: of pairs, then of quarters, then of halves.
        vectors = list(args[2:])
        for first, second in (
            ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
            ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
            ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
        ):
            vectors = [
                builder.fadd(shuffled(left, right, first), shuffled(left, right, second))
                for left, right in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return store_vector(context, builder, signature, [*args[:2], vectors[0]])

    store_vector = _storer(_FLOATS)
    return types.void(array, types.intp, *[f32x8] * 8), generate


# Minimax polynomial of 2**f on [-1/2, 1/2], highest power first; relative error below 8e-8 before rounding.
_EXP2_POLYNOMIAL = (
    1.327647199253e-03,
    9.675541334454e-03,
    5.550713273498e-02,
    2.402211972384e-01,
    6.931469670648e-01,
    1.000000071655e00,
)


@intrinsic
def exp2(typing_context, value):
    """``2**value`` for lanes in [-120, 120]: round to the nearest integer, polynomial, exponent by integer addition."""

    def generate(context, builder, signature, args):
        def constant(number: float) -> Any:
            return ir.Constant(_FLOATS, [number] * LANES)

        exponent = args[0]
        # Adding and subtracting 1.5 * 2**23 would round as well, but Numba lets LLVM cancel the two.
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), "llvm.rint.v8f32")
        whole = builder.call(rint, [exponent])
        fraction = builder.fsub(exponent, whole)
        power = constant(_EXP2_POLYNOMIAL[0])
        for coefficient in _EXP2_POLYNOMIAL[1:]:
            power = _multiply_add(builder, power, fraction, constant(coefficient))
        shifted = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, _INTS), shifted), _FLOATS)

    return f32x8(f32x8), generate


@njit(**SERIAL)
def double_in_place(values):
    """Double eight floats, in a way that shows whether the types can be built, loaded, computed with and stored."""
    value = load(values, 0)
    store(values, 0, select(value > splat(np.float32(0)), value * exp2(value / value), value))
