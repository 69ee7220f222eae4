"""From integers to streams and back: which symbol is coded in which order and context.

A layer is six streams, one an attribute, in the order of :data:`ATTRIBUTES`. A stream is coded chunk by chunk, and in
a chunk column by column. What the columns are and what their contexts look at is a table, :meth:`Layout.native` and
:meth:`Layout.fast3dgs`; the harmonics have code of their own (:mod:`gsz.native.harmonics`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from gsz.coding.rans import ANY, CHUNK, LANES, Alphabet, Column, Decoder, Encoder, StreamError, chunks
from gsz.kernels import SERIAL
from gsz.native.harmonics import Harmonics, Palette

ATTRIBUTES = ("means", "opacities", "scales", "rotations", "dc", "sh")

BLOCK = CHUNK
"""Decoders hand out chunks together, up to so many Gaussians: little enough to stay in a processor's cache."""

Values = dict[str, np.ndarray]
"""``(N,)`` columns of integers by name; in encoders also, under ``"sh"``, the ``(N, 3 K)`` int16 harmonics."""

Hints = Callable[[str, Values], dict[str, np.ndarray]]
"""Given an attribute and the columns decoded so far, ``(N,)`` uint8 arrays that its contexts may look at, by name."""

Sink = Callable[[int, int, Values], None]
"""Takes the columns of the Gaussians from ``begin`` to ``end``."""


@dataclass(frozen=True)
class ColumnPlan:
    """One column of a layout.

    Attributes:
        attribute: the stream it belongs to.
        alphabet: how its integers become tokens.
        first: name of the earlier column of the stream, or of the hint, that contexts look at; and its map.
        second: another one.
        previous: map of the column's own token eight Gaussians before.
        summed: whether each item is a difference from the one eight before. Encoders are given differences, see
            :func:`lane_differences`; decoders return their sums.
    """

    attribute: str
    alphabet: Alphabet
    first: tuple[str, np.ndarray] = ("", ANY)
    second: tuple[str, np.ndarray] = ("", ANY)
    previous: np.ndarray = field(default_factory=lambda: ANY)
    summed: bool = False

    @property
    def dtype(self) -> type[np.integer]:
        """What a decoder's values are held in."""
        if self.alphabet.plain:
            return np.uint8
        return np.int32 if self.alphabet.value_bits < 32 else np.int64


Layout = dict[str, ColumnPlan]


def signed_buckets(limits: list[int], stride: int = 1) -> np.ndarray:
    """As :func:`gsz.coding.rans.buckets`, for a column of signed values that are their own tokens."""
    tokens = np.arange(256)
    values = (tokens >> 1) ^ -(tokens & 1)
    return (np.searchsorted(np.asarray(limits), values, side="right") * stride).astype(np.uint16)


COLOURS: Layout = {
    "luma": ColumnPlan(
        "dc", Alphabet(7, 2, 24, signed=True), previous=signed_buckets([-40, -25, -14, -6, 0, 7, 15, 26, 41])
    ),
    "green": ColumnPlan("dc", Alphabet(6, 2, 24, signed=True), previous=signed_buckets([-5, -1, 2, 6])),
    "orange": ColumnPlan(
        "dc",
        Alphabet(6, 2, 24, signed=True),
        first=("green", signed_buckets([-5, -1, 2, 6], 4)),
        previous=signed_buckets([-3, 0, 4]),
    ),
}
"""The columns of degree-0 harmonics, in every layout."""


class Coding:
    """The columns and tables of a file, which learn from layer to layer.

    Args:
        layout: the columns, stream by stream.
        coefficients: harmonics above degree 0, 0 to 15.
        sizes: tokens in use of each column, in the order of ``layout``, then of the harmonics' classes.
        hints: see :data:`Hints`.
    """

    def __init__(self, layout: Layout, coefficients: int, sizes: list[int], hints: Hints):
        self.layout = layout
        self.coefficients = coefficients
        self.hints = hints
        self.columns = {
            name: Column(plan.alphabet, size, plan.first[1], plan.second[1], plan.previous)
            for (name, plan), size in zip(layout.items(), sizes, strict=False)
        }
        self.names = {
            attribute: [name for name, plan in layout.items() if plan.attribute == attribute]
            for attribute in ATTRIBUTES
        }
        self.harmonics = Harmonics(sizes[len(layout)], coefficients)

    def _begin_layer(self) -> None:
        for column in self.columns.values():
            column.begin()
        self.harmonics.begin()

    def encode_layer(self, values: Values) -> list[bytes]:
        """The six streams of a layer. The order of Gaussians is kept.

        For positions to be cheap, each of the eight sequences of every eighth Gaussian should be in Morton order.
        """
        self._begin_layer()
        streams = []
        coder = Encoder()
        for attribute in ATTRIBUTES:
            self._code(attribute, coder, values, chunks(len(values["sh"])))
            if attribute == "sh" and self.coefficients:
                self._encode_sh(coder, values["sh"], self.hints(attribute, values).get("sh_fineness"))
            streams.append(coder.finish())
        return streams

    def decode_layer(self, streams: list[memoryview], sh_rest: np.ndarray, palette: Palette, sink: Sink) -> None:
        """Decode a layer, block by block: all streams advance together.

        Args:
            sh_rest: ``(N, K, 3)`` float32, of as many Gaussians as the layer has; is filled in.
            palette: what harmonics stand for.
            sink: is called for each block, in order, with all other columns.

        Raises:
            StreamError: a stream does not end where its symbols do. The message begins with the attribute's name.
        """
        self._begin_layer()
        coders: dict[str, Decoder] = {}
        last = {name: np.zeros(LANES, np.int64) for name, plan in self.layout.items() if plan.summed}
        attribute = ""
        try:
            for attribute, stream in zip(ATTRIBUTES, streams, strict=True):
                coders[attribute] = Decoder(stream)
            for block in _blocks(len(sh_rest)):
                begin, end = block[0][0], block[-1][1]
                values: Values = {}
                for attribute in ATTRIBUTES:
                    for name in self.names[attribute]:
                        values[name] = np.empty(end - begin, self.layout[name].dtype)
                    self._code(
                        attribute, coders[attribute], values, [(low - begin, high - begin) for low, high in block]
                    )
                    if attribute == "sh" and self.coefficients:
                        fineness = self.hints(attribute, values).get("sh_fineness", np.zeros(end - begin, np.uint8))
                        for low, high in block:
                            part = fineness[low - begin : high - begin]
                            self.harmonics.decode(coders[attribute], sh_rest[low:high], part, palette)
                for name, sums in last.items():
                    values[name] = lane_sums(values[name], sums)
                sink(begin, end, values)
            for attribute in ATTRIBUTES:
                coders[attribute].finish()
        except StreamError as error:
            raise StreamError(f"{attribute}: {error}") from error

    def _code(self, attribute: str, coder: Encoder | Decoder, values: Values, bounds: list[tuple[int, int]]) -> None:
        """Append chunks of an attribute's columns to an encoder, or fill them in from a decoder. Harmonics are none."""
        names = self.names[attribute]
        hints = self.hints(attribute, values) if names else {}
        for begin, end in bounds if names else []:
            tokens = {name: hint[begin:end] for name, hint in hints.items()}
            for name in names:
                plan = self.layout[name]
                tokens[name] = coder.integers(
                    self.columns[name],
                    values[name][begin:end],
                    tokens.get(plan.first[0]),
                    tokens.get(plan.second[0]),
                )

    def _encode_sh(self, coder: Encoder, sh: np.ndarray, fineness: np.ndarray | None) -> None:
        for begin, end in chunks(len(sh)):
            self.harmonics.encode(coder, sh[begin:end], None if fineness is None else fineness[begin:end])


def _blocks(count: int) -> list[list[tuple[int, int]]]:
    """The chunks of ``count`` Gaussians, those together that have at most :data:`BLOCK`."""
    blocks: list[list[tuple[int, int]]] = []
    for begin, end in chunks(count):
        if not blocks or end - blocks[-1][0][0] > BLOCK:
            blocks.append([])
        blocks[-1].append((begin, end))
    return blocks


def column_sizes(layout: Layout, layers: list[Values]) -> list[int]:
    """How many tokens each column of a layout needs, 1 to 256, and how many classes the harmonics have."""
    sizes = [
        1 + max(int(plan.alphabet.tokens(_ends(values[name])).max()) for values in layers)
        for name, plan in layout.items()
    ]
    largest = max(int(np.abs(_ends(values["sh"])).max()) for values in layers)
    return [*sizes, 1 + largest.bit_length()]


def _ends(values: np.ndarray) -> np.ndarray:
    """The least and the greatest of some integers, or 0: no value between has a larger token."""
    return np.array([values.min(initial=0), values.max(initial=0)], np.int64)


def lane_differences(values: np.ndarray) -> np.ndarray:
    """What each item adds to the one eight before it."""
    differences = values.copy()
    differences[LANES:] -= values[:-LANES]
    return differences


def lane_sums(differences: np.ndarray, last: np.ndarray | None = None) -> np.ndarray:
    """The inverse of :func:`lane_differences`, modulo 2**64.

    ``last`` has the eight sums before the first one, and is given the last eight; for blocks of multiples of eight.
    """
    return _lane_sums(differences, np.zeros(LANES, np.int64) if last is None else last)


@njit(**SERIAL)
def _lane_sums(differences, last):
    sums = np.empty(len(differences), np.int64)
    for begin in range(0, len(differences), LANES):
        for lane in range(min(LANES, len(differences) - begin)):
            last[lane] += differences[begin + lane]
            sums[begin + lane] = last[lane]
    return sums


def to_luma(rgb: np.ndarray) -> Values:
    """The reversible YCoCg transform (Malvar and Sullivan 2003) of ``(N, 3)`` integers: int32 luma, green, orange."""
    luma, green, orange = (np.empty(len(rgb), np.int32) for _ in range(3))
    luma_into(rgb, 0, luma, green, orange)
    return {"luma": luma, "green": green, "orange": orange}


@njit(**SERIAL)
def luma_into(rgb, zero, luma, green, orange):
    """:func:`to_luma` of ``rgb - zero``, into three ``(N,)`` arrays of integers."""
    for i in range(len(rgb)):
        blue = np.int64(rgb[i, 2]) - zero
        difference = np.int64(rgb[i, 0]) - zero - blue
        middle = blue + (difference >> 1)
        excess = np.int64(rgb[i, 1]) - zero - middle
        luma[i] = middle + (excess >> 1)
        green[i] = excess
        orange[i] = difference


def from_luma(values: Values) -> np.ndarray:
    """The inverse of :func:`to_luma`: ``(N, 3)`` int32."""
    return _from_luma(values["luma"], values["green"], values["orange"])


@njit(**SERIAL)
def _from_luma(luma, green, orange):
    rgb = np.empty((len(luma), 3), np.int32)
    for i in range(len(luma)):
        middle = luma[i] - (green[i] >> 1)
        blue = middle - (orange[i] >> 1)
        rgb[i, 0] = blue + orange[i]
        rgb[i, 1] = green[i] + middle
        rgb[i, 2] = blue
    return rgb
