"""What a packing is: how the numbers of a grid become columns of integers, and columns parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from gsz.native.layout import Columns, Hints, Layout
from gsz.splats import Splats


class Packing(ABC):
    """What the columns of one file mean."""

    number: ClassVar[int]
    """In a file's header."""
    name: ClassVar[str]
    """What the codec's setting ``grid`` calls it."""
    layout: ClassVar[Layout]

    @classmethod
    @abstractmethod
    def unpack(cls, parameters: bytes) -> Packing:
        """The packing of a file, by the parameters in its header. The inverse of :meth:`pack`.

        Raises:
            ValueError: a parameter is out of range.
        """

    @abstractmethod
    def pack(self) -> bytes:
        """The parameters for a file's header."""

    @abstractmethod
    def hints(self, attribute: str, columns: Columns, hints: Hints) -> Hints:
        """What the stream of ``attribute`` may look at: ``hints``, those of the stream before, and what is new.

        From ``opacities`` on there is a hint ``places``, ``(N, 3)`` integer positions in which near ones are near; for
        ``dc`` one ``dc_steps``, ``(N,)`` float64; and for ``sh`` one ``sh_fineness``, ``(N,)`` uint8.

        Args:
            columns: at least those of the streams before that of ``attribute``; those that hold differences summed up.

        Raises:
            StreamError: a column has a value that it cannot have.
        """

    @abstractmethod
    def finish(self, columns: Columns, hints: Hints, rows: Splats) -> None:
        """Fill in the parameters of some Gaussians, all but the harmonics.

        Numbers that are not finite are possible in a strange file.

        Args:
            columns: all of them, summed up likewise.
            hints: those of the last stream.
            rows: of a model; views that are written to.
        """

    @property
    @abstractmethod
    def sh_finenesses(self) -> int:
        """How many finenesses harmonics have."""

    @abstractmethod
    def dequantize_sh(self, sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray) -> None:
        """Fill in the ``(n, K, 3)`` float32 harmonics of ``(n, 3 K)`` int16 symbols and ``(n,)`` uint8 finenesses."""


class Packed(ABC):
    """A model on its grid, on the way into a file.

    Attributes:
        packing: of the file.
        curve: ``(N,)`` int64 places along a Morton curve; Gaussians of a layer are sorted by them.
    """

    packing: Packing
    curve: np.ndarray

    @abstractmethod
    def columns(self, rows: np.ndarray) -> Columns:
        """The columns of the Gaussians that indices name, in their order."""
