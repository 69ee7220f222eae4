"""What one process tells another, as bytes: JSON that describes a value, and its arrays. Nothing in it can be executed.

A message is the length of the JSON in 8 bytes, the JSON, and the bytes of all arrays one after the other. In the JSON,
``null``, numbers, strings and booleans stand for themselves; everything else is a list that begins with its kind. An
object is rebuilt from its attributes, without a call of its own, and only if its class is one of this program.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

_OURS = frozenset({"compress", "gsz", "pretraining", "programs", "quality", "scene", "utils"})
"""The packages whose classes are sent."""
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_LENGTH = 8


def pack(value: Any) -> bytes:
    """The message that :func:`unpack` makes an equal value of.

    Args:
        value: of JSON's types, bytes, paths, NumPy's and PyTorch's arrays of numbers, the collections of Python, and
            objects of this program's classes that keep what they hold in attributes, in any nesting.

    Raises:
        TypeError: there is something else in it.
    """
    arrays: list[bytes] = []
    text = json.dumps(_described(value, arrays)).encode()
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *arrays])


def unpack(message: bytes) -> Any:
    """The value of a message. Its tensors are on a device of the same kind as they were.

    Raises:
        ValueError: it is no such message, or holds a class that is not of this program.
    """
    end = _LENGTH + int.from_bytes(message[:_LENGTH], "little")
    try:
        reader = _Reader(message, end)
        value = reader.value(json.loads(message[_LENGTH:end]))
    except (KeyError, TypeError, IndexError, AttributeError, ImportError, RuntimeError) as error:
        raise ValueError(f"this is no message of this program ({error})") from error
    if reader.position != len(message):
        raise ValueError("the message is longer than it says")
    return value


def _described(value: Any, arrays: list[bytes]) -> Any:
    """What stands in the JSON for a value; the bytes of its arrays are appended to ``arrays``."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is bytes:
        arrays.append(value)
        return ["bytes", len(value)]
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf":
        arrays.append(value.tobytes())
        return ["scalar" if isinstance(value, np.generic) else "array", value.dtype.str, list(value.shape)]
    if kind is torch.Tensor:
        return ["tensor", value.device.type, _described(value.detach().cpu().numpy(), arrays)]
    if isinstance(value, Path):
        return ["path", str(value)]
    if kind is dict:
        return ["dict", *([_described(key, arrays), _described(held, arrays)] for key, held in value.items())]
    if kind.__name__ in _SEQUENCES and kind.__module__ == "builtins":
        return [kind.__name__, *(_described(item, arrays) for item in value)]
    if kind.__module__.partition(".")[0] not in _OURS:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} is nothing that processes send each other")
    held = list(value) if isinstance(value, tuple) else vars(value)
    return ["object", kind.__module__, kind.__qualname__, _described(held, arrays)]


class _Reader:
    """Makes values of descriptions, and takes their arrays one after the other."""

    def __init__(self, message: bytes, start: int) -> None:
        self._message = message
        self.position = start

    def value(self, described: Any) -> Any:
        match described:
            case [("list" | "tuple" | "set" | "frozenset") as kind, *items]:
                return _SEQUENCES[kind]([self.value(item) for item in items])
            case ["dict", *items]:
                return {self.value(key): self.value(held) for key, held in items}
            case ["bytes", length]:
                return self._bytes(length)
            case ["array", dtype, shape]:
                return self._array(dtype, shape)
            case ["scalar", dtype, shape]:
                return self._array(dtype, shape)[()]
            case ["tensor", device, array]:
                return torch.from_numpy(self.value(array)).to(device)
            case ["path", path]:
                return Path(path)
            case ["object", module, name, held]:
                return _rebuilt(_class_of(module, name), self.value(held))
            case None | bool() | int() | float() | str():
                return described
        raise ValueError(f"{str(described)[:60]} stands for nothing")

    def _bytes(self, length: int) -> bytes:
        data = self._message[self.position : self.position + length]
        if length < 0 or len(data) != length:
            raise ValueError("the message is cut off")
        self.position += length
        return data

    def _array(self, dtype: str, shape: list[int]) -> Any:
        kind = np.dtype(dtype)
        if kind.kind not in "biuf":
            raise ValueError(f"{dtype} is no type of numbers")
        return np.frombuffer(bytearray(self._bytes(math.prod(shape) * kind.itemsize)), kind).reshape(shape)


def _class_of(module: str, name: str) -> type:
    """A class of this program, by its name."""
    found: Any = importlib.import_module(module) if module.partition(".")[0] in _OURS else None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"{module}.{name} is no class of this program")
    return found


def _rebuilt(kind: type, held: Any) -> Any:
    """An object of what it holds, which its class has checked in another process."""
    if issubclass(kind, tuple):
        return tuple.__new__(kind, held)
    made: Any = object.__new__(kind)
    made.__dict__.update(held)
    return made
