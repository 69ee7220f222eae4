"""Code that computes with NumPy arrays and with PyTorch tensors alike, without importing PyTorch for the former."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = Any
"""A NumPy array, or a PyTorch tensor. One call is given arrays of one kind, on one device."""

Bytes = npt.NDArray[np.uint8]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def with_tensor_form(form: FunctionT) -> FunctionT:
    """Let a function of NumPy arrays take tensors: :mod:`gsz.rounding.tensors` has one of the same name for these."""

    @wraps(form)
    def either(array: Array, *others: Any) -> Any:
        if isinstance(array, np.ndarray):
            return form(array, *others)
        from gsz.rounding import tensors

        return getattr(tensors, form.__name__)(array, *others)

    return either  # type: ignore[return-value]


def library_of(array: Array) -> Any:
    """NumPy or PyTorch, whichever an array is of. What their functions share is called by this."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def as_float64(array: Array) -> Array:
    """The same numbers in double precision."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def as_numpy(array: Array) -> npt.NDArray[Any]:
    """An array on the CPU. That of a GPU waits for it."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


TablesT = TypeVar("TablesT", bound=tuple[Any, ...])


class Placed(Generic[TablesT]):
    """A named tuple of arrays that is copied to wherever it is needed, once to each place."""

    def __init__(self, tables: TablesT) -> None:
        self._copies: dict[Any, TablesT] = {_place_of(tables[0]): tables}

    @property
    def here(self) -> TablesT:
        """The tables in NumPy."""
        return self._at(None)

    def beside(self, array: Array) -> TablesT:
        """The tables where ``array`` is. The first time on a GPU makes it wait."""
        return self._at(_place_of(array))

    def _at(self, place: Any) -> TablesT:
        if place not in self._copies:
            original = next(iter(self._copies.values()))
            self._copies[place] = type(original)(*(_moved(table, place) for table in original))
        return self._copies[place]


def _place_of(array: Array) -> Any:
    """The device of a tensor; None of a NumPy array."""
    return None if isinstance(array, np.ndarray) else array.device


def _moved(table: Array, place: Any) -> Array:
    if place is None:
        return as_numpy(table)
    from gsz.rounding import tensors

    return tensors.on_device(table, place)
