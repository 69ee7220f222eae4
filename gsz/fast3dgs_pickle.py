"""Checkpoints of Fast-3DGS' own program: a dictionary of NumPy arrays, pickled, in an ``.xz`` stream. Read only.

:mod:`gsz.fast3dgs` says what Fast-3DGS is. A pickle is a program, and Python's interpreter of it can be made to run
anything. This module does not use it. It interprets the few instructions that build numbers, containers and NumPy
arrays, and refuses all others; nothing in it can import or call what a file names. ``pickletools``, which only splits a
file into instructions, is all of Python's pickle machinery that sees the file.
"""

from __future__ import annotations

import lzma
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickletools import genops
from typing import Any

import numpy as np

from gsz.contract import Codec, CodecError
from gsz.splats import MAX_SH_DEGREE, Splats

MAGIC = b"\xfd7zXZ\x00"

MAX_EXPANSION = 64
"""Bytes of pickle that a byte of file may hold. Models reach 2 to 6, since half of them is float noise."""

FREE_BYTES = 1 << 16
"""Bytes of pickle that any file may hold, so that tiny models are not refused."""

DECOMPRESSOR_BYTES = 1 << 27
"""Working memory of the decompressor, whatever the stream asks for. Twice what the strongest preset needs."""

MAX_INSTRUCTIONS = 4096
"""Instructions of one pickle; a checkpoint has about 300."""

ARRAY_TYPES = frozenset(["b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
"""Numbers of fixed size, and no objects."""

FLOATS = {
    "means": ("xyz", 3),
    "log_scales": ("scaling", 3),
    "quaternions": ("rotation", 4),
    "opacity_logits": ("opacity", 1),
}
"""Our name for a parameter, theirs and the number of columns."""

HARMONICS = {"sh_dc": "features_dc", "sh_rest": "features_rest"}
"""Our name for harmonics and theirs."""


class _Refused(Exception):
    """The file asks for something that no checkpoint needs, or contradicts itself."""


@dataclass(frozen=True)
class Fast3dgsPickleCodec(Codec):
    """What Fast-3DGS saves: SH as 8-bit integers on an affine grid each, or as floats; all else as floats."""

    name = "fast3dgs-pickle"
    aliases = ("published",)
    suffix = ".xz"
    writable = False

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        with _named(source):
            return _model(_interpret(_decompress(data)))

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        """As the contract says; ``unpacked_bytes`` are those of the arrays before the one LZMA2 stream of them all."""
        with _named(source):
            checkpoint = _interpret(_decompress(data))
            model = _model(checkpoint)
            names = {ours: theirs for ours, (theirs, _) in FLOATS.items()} | HARMONICS
            arrays = {ours: _entry(checkpoint, theirs) for ours, theirs in names.items()}
        return {
            "format": self.name,
            "version": None,
            "count": len(model),
            "sh_degree": model.sh_degree,
            "types": {name: str(array.dtype) for name, array in arrays.items()},
            "unpacked_bytes": {name: array.nbytes for name, array in arrays.items()},
        }


@contextmanager
def _named(source: str) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise CodecError(f"{source}: is damaged or no checkpoint of Fast-3DGS ({error}); copy it again") from error


def _decompress(data: bytes) -> bytes:
    """The content of an ``.xz`` stream, whose own checksum it has passed."""
    limit = FREE_BYTES + MAX_EXPANSION * len(data)
    try:
        decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=DECOMPRESSOR_BYTES)
        content = decompressor.decompress(data, max_length=limit)
    except lzma.LZMAError as error:
        raise _Refused(f"it does not decompress: {error}") from error
    if len(content) == limit:
        raise _Refused(f"it decompresses to more than {MAX_EXPANSION} times its size")
    if not decompressor.eof:
        raise _Refused("it is truncated")
    if decompressor.unused_data:
        raise _Refused("something follows its end")
    return content


def _model(checkpoint: Any) -> Splats:
    """The model in the dictionary of a checkpoint."""
    if not isinstance(checkpoint, dict):
        raise _Refused("it holds no dictionary")
    count = len(_entry(checkpoint, "xyz"))
    with np.errstate(over="ignore"):  # What overflows float32 becomes infinite, and whoever reads the model says so.
        floats = {ours: _floats(_entry(checkpoint, theirs, (count, n))) for ours, (theirs, n) in FLOATS.items()}
        sh_dc = _harmonics(checkpoint, HARMONICS["sh_dc"], (count, 1, 3))
        sh_rest = _harmonics(checkpoint, HARMONICS["sh_rest"], (count, None, 3))
    degree = math.isqrt(sh_rest.shape[1] + 1) - 1
    if degree > MAX_SH_DEGREE or (degree + 1) ** 2 - 1 != sh_rest.shape[1]:
        raise _Refused(f"features_rest has {sh_rest.shape[1]} coefficients, which no SH degree up to 3 has")
    # Fast-3DGS' renderer ignores what lies above the active degree.
    active = int(min(max(_number(checkpoint, "active_degree"), 0), degree))
    return Splats.from_arrays(**floats, sh_dc=sh_dc, sh_rest=sh_rest[:, : (active + 1) ** 2 - 1])


def _entry(checkpoint: dict[str, Any], key: str, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """An array of the checkpoint with at least one axis, of ``shape`` where that is given; None fits any length."""
    value = checkpoint.get(key)
    if not isinstance(value, _Array) or value.values is None or value.values.ndim == 0:
        raise _Refused(f"it lacks the array {key!r}")
    values = value.values
    if shape is not None and not (
        values.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, values.shape, strict=True))
    ):
        raise _Refused(f"the array {key!r} has the shape {values.shape}")
    return values


def _number(checkpoint: dict[str, Any], key: str) -> float:
    """A finite number of the checkpoint, or the only element of an array."""
    value = checkpoint.get(key)
    if isinstance(value, _Array) and value.values is not None and value.values.size == 1:
        value = value.values.item()
    if not isinstance(value, int | float) or not abs(value) <= float(np.finfo(np.float32).max):
        raise _Refused(f"it lacks the number {key!r}")
    return float(value)


def _floats(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        raise _Refused(f"a parameter is stored as {values.dtype}")
    return values.astype(np.float32)


def _harmonics(checkpoint: dict[str, Any], key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """SH as float32; integers lie on an affine grid whose float32 arithmetic is that of PyTorch's ``dequantize``."""
    values = _entry(checkpoint, key, shape)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    zero_point, scale = _number(checkpoint, f"{key}_zero_point"), _number(checkpoint, f"{key}_scale")
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle mentions: its name and nothing more."""

    name: str


@dataclass
class _Type:
    """A numpy type. ``order`` is its byte order, in numpy's letters."""

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|", "=")):
            raise _Refused("a numpy type has an odd state")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """A numpy array, empty until the instruction BUILD gives it its state."""

    values: np.ndarray | None = None

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise _Refused("an array has an odd state")
        _, shape, kind, fortran, data = state
        self.values = _view(data, kind, shape, "F" if fortran is True else "C")


def _view(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """An array over bytes of the pickle, which must be as many as its shape needs. Copies nothing."""
    if not (isinstance(kind, _Type) and isinstance(data, bytes | bytearray) and order in ("C", "F")):
        raise _Refused("an array is not made of numbers")
    if not (isinstance(shape, tuple) and len(shape) <= 3 and all(type(n) is int and n >= 0 for n in shape)):
        raise _Refused("an array has an odd shape")
    if math.prod(shape) * kind.dtype.itemsize != len(data):
        raise _Refused("an array's shape does not fit its data")
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _numpy_dtype(code: Any, *_: Any) -> _Type:
    if not isinstance(code, str) or code not in ARRAY_TYPES:
        raise _Refused("an array is not made of numbers")
    return _Type(code)


def _numpy_reconstruct(*_: Any) -> _Array:
    return _Array()


def _numpy_scalar(kind: Any, data: Any) -> _Array:
    return _Array(_view(data, kind, (), "C"))


def _numpy_frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array(_view(data, kind, shape, order))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy dtype": _numpy_dtype,
    **{f"numpy.{core}.multiarray _reconstruct": _numpy_reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _numpy_frombuffer for core in ("core", "_core")},
}
"""What a pickled array calls, before and since numpy 2, and what stands in for it here."""

_NAMES = frozenset([*_FUNCTIONS, "numpy ndarray"])

_IGNORED = frozenset(["PROTO", "FRAME"])
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_LITERALS = frozenset([*_NUMBERS, *_STRINGS])
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpret(pickled: bytes) -> Any:
    """What a pickle of protocol 3 to 5 builds: containers, numbers, strings, and arrays as :class:`_Array`."""
    machine = _Machine()
    try:
        for number, (instruction, argument, position) in enumerate(genops(pickled)):
            if number == MAX_INSTRUCTIONS:
                raise _Refused(f"it has more than {MAX_INSTRUCTIONS} instructions")
            if instruction.name == "STOP":
                if position != len(pickled) - 1:
                    raise _Refused("something follows its end")
                return machine.pop()
            machine.step(instruction.name, argument)
    except (ValueError, struct.error) as error:  # From genops, which checks each argument's length.
        raise _Refused("an instruction is cut short") from error
    raise _Refused("it does not end")


class _Machine:
    """The stack machine that a pickle is written for, less everything that could act on the world."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _TUPLES:
            self.stack.append(tuple(self.pop() for _ in range(_TUPLES[name]))[::-1])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if argument is None else argument] = self.top()
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise _Refused("it refers to something it has not built")
            self.stack.append(self.memo[argument])
        else:
            instruction = _INSTRUCTIONS.get(name)
            if instruction is None:
                raise _Refused(f"it contains the instruction {name}, which may run programs")
            instruction(self, argument)

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _Refused("it takes from an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        top = self.top()
        self.stack.pop()
        return top

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise _Refused("it takes from an empty stack")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def empty_list(self, _: Any) -> None:
        self.stack.append([])

    def make_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.fill_dict([key, value])

    def set_items(self, _: Any) -> None:
        self.fill_dict(self.pop_to_mark())

    def fill_dict(self, items: list[Any]) -> None:
        target = self.top()
        # Hashing a tuple that holds itself many times over would take for ever, so keys are strings.
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise _Refused("it fills something that is no dictionary of names")
        target.update(zip(items[::2], items[1::2], strict=True))

    def append(self, _: Any) -> None:
        self.fill_list([self.pop()])

    def appends(self, _: Any) -> None:
        self.fill_list(self.pop_to_mark())

    def fill_list(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _Refused("it appends to something that is no list")
        target.extend(items)

    def look_up(self, argument: str) -> None:
        """``argument`` is a module and a name, with a space between."""
        if argument not in _NAMES:
            raise _Refused(f"it asks for {argument[:80].replace(' ', '.')!r}, which no checkpoint needs")
        self.stack.append(_Name(argument))

    def look_up_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise _Refused("it asks for something without a name")
        self.look_up(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, _Name) and function.name in _FUNCTIONS and isinstance(arguments, tuple)):
            raise _Refused("it calls something that is no function")
        try:
            self.stack.append(_FUNCTIONS[function.name](*arguments))
        except TypeError as error:
            raise _Refused("it builds an array in an odd way") from error

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, _Array | _Type):
            raise _Refused("it builds something that is no array")
        target.build(state)


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_LIST": _Machine.empty_list,
    "TUPLE": _Machine.make_tuple,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "GLOBAL": _Machine.look_up,
    "STACK_GLOBAL": _Machine.look_up_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
