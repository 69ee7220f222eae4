"""From integers to streams and back: which symbol is coded in which order and context.

A layer is six streams, one an attribute, in the order of :data:`ATTRIBUTES`. A stream is coded chunk by chunk, and in
a chunk column by column. What the columns are and what their contexts look at is a table, :meth:`Layout.native` and
:meth:`Layout.fast3dgs`; the harmonics have code of their own (:mod:`compress.codecs.gsz.harmonics`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from compress.codecs.gsz.harmonics import Harmonics
from compress.codecs.rans import ANY, CHUNK, LANES, Alphabet, Column, Decoder, Encoder, StreamError, chunks

ATTRIBUTES = ("means", "opacities", "scales", "rotations", "dc", "sh")

Values = dict[str, np.ndarray]
"""``(N,)`` int64 columns by name, and under ``"sh"``, in encoders, the ``(N, 3 K)`` int16 harmonics."""

Hints = Callable[[str, Values], dict[str, np.ndarray]]
"""Given an attribute and the columns decoded so far, ``(N,)`` uint8 arrays that its contexts may look at, by name."""

Sink = Callable[[int, int, np.ndarray, np.ndarray | None], None]
"""Takes the ``(end - begin, 3 K)`` int16 harmonics of the Gaussians from ``begin`` to ``end``, and their fineness."""


@dataclass(frozen=True)
class ColumnPlan:
    """One column of a layout.

    Attributes:
        attribute: the stream it belongs to.
        alphabet: how its integers become tokens.
        first: name of the earlier column of the stream, or of the hint, that contexts look at; and its map.
        second: another one.
        previous: map of the column's own token eight Gaussians before.
    """

    attribute: str
    alphabet: Alphabet
    first: tuple[str, np.ndarray] = ("", ANY)
    second: tuple[str, np.ndarray] = ("", ANY)
    previous: np.ndarray = field(default_factory=lambda: ANY)


Layout = dict[str, ColumnPlan]


def signed_buckets(limits: list[int], stride: int = 1) -> np.ndarray:
    """As :func:`compress.codecs.rans.buckets`, for a column of signed values that are their own tokens."""
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
            self._code(attribute, coder, values, len(values["sh"]))
            if attribute == "sh" and self.coefficients:
                self._encode_sh(coder, values["sh"], self.hints(attribute, values).get("sh_fineness"))
            streams.append(coder.finish())
        return streams

    def decode_layer(self, streams: list[memoryview], count: int, sink: Sink) -> Values:
        """The columns of a layer of ``count`` Gaussians, without the harmonics.

        Those go to ``sink`` as they come, since nobody needs them all at once and they are the most of a model. The
        array that it gets is used again.

        Raises:
            StreamError: a stream does not end where its symbols do. The message begins with the attribute's name.
        """
        self._begin_layer()
        values: Values = {}
        for attribute, stream in zip(ATTRIBUTES, streams, strict=True):
            for name, plan in self.layout.items():
                if plan.attribute == attribute:
                    values[name] = np.empty(count, np.int64)
            try:
                coder = Decoder(stream)
                self._code(attribute, coder, values, count)
                if attribute == "sh" and self.coefficients:
                    self._decode_sh(coder, count, self.hints(attribute, values).get("sh_fineness"), sink)
                coder.finish()
            except StreamError as error:
                raise StreamError(f"{attribute}: {error}") from error
        return values

    def _code(self, attribute: str, coder: Encoder | Decoder, values: Values, count: int) -> None:
        """Append an attribute's columns to an encoder, or fill them in from a decoder. Harmonics are none."""
        names = [name for name, plan in self.layout.items() if plan.attribute == attribute]
        hints = self.hints(attribute, values) if names else {}
        for begin, end in chunks(count if names else 0):
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
            self.harmonics.code(coder, sh[begin:end], None if fineness is None else fineness[begin:end])

    def _decode_sh(self, coder: Decoder, count: int, fineness: np.ndarray | None, sink: Sink) -> None:
        room = np.empty((min(count, CHUNK), 3 * self.coefficients), np.int16)
        for begin, end in chunks(count):
            sh = room[: end - begin]
            sh[:] = 0
            part = None if fineness is None else fineness[begin:end]
            self.harmonics.code(coder, sh, part)
            sink(begin, end, sh, part)


def column_sizes(layout: Layout, layers: list[Values]) -> list[int]:
    """How many tokens each column of a layout needs, 1 to 256, and how many classes the harmonics have."""
    sizes = [
        1 + max(int(plan.alphabet.tokens(values[name]).max(initial=0)) for values in layers)
        for name, plan in layout.items()
    ]
    return [*sizes, 1 + max(Harmonics.largest_class(values["sh"]) for values in layers)]


def lane_differences(values: np.ndarray) -> np.ndarray:
    """What each item adds to the one eight before it."""
    differences = values.copy()
    differences[LANES:] -= values[:-LANES]
    return differences


def lane_sums(differences: np.ndarray) -> np.ndarray:
    """The inverse of :func:`lane_differences`, modulo 2**64."""
    count = len(differences)
    padded = np.zeros(-(-count // LANES) * LANES, np.int64)
    padded[:count] = differences
    return np.cumsum(padded.reshape(-1, LANES), axis=0, dtype=np.int64).reshape(-1)[:count]


def to_luma(rgb: np.ndarray) -> Values:
    """The reversible YCoCg transform (Malvar and Sullivan 2003) of ``(N, 3)`` integers: luma, green, orange."""
    red, green, blue = np.ascontiguousarray(rgb.T, dtype=np.int64)
    orange = red - blue
    middle = blue + (orange >> 1)
    excess = green - middle
    return {"luma": middle + (excess >> 1), "green": excess, "orange": orange}


def from_luma(values: Values) -> np.ndarray:
    """The inverse of :func:`to_luma`: ``(N, 3)`` int32."""
    middle = values["luma"] - (values["green"] >> 1)
    blue = middle - (values["orange"] >> 1)
    rgb = np.empty((len(blue), 3), np.int32)
    rgb[:, 0] = blue + values["orange"]
    rgb[:, 1] = values["green"] + middle
    rgb[:, 2] = blue
    return rgb
