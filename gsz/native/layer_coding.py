"""From columns to streams and back, layer by layer: which symbol is coded in which order and context.

A layer is six streams, one an attribute. A stream is coded chunk by chunk, and in a chunk column by column. What the
columns are and what their contexts look at is the layout of a packing; harmonics have code of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gsz.coding.alphabet import CHUNK, LANES, chunks
from gsz.coding.decoder import Decoder
from gsz.coding.encoder import Encoder
from gsz.coding.neighbors import HISTORY, NEIGHBORS, no_places, predict, weights_of
from gsz.coding.tables import ANY, StreamError
from gsz.native.layout import ATTRIBUTES, ColumnPlan, Columns, Hints, Prediction, lane_sums
from gsz.native.packing import Packing
from gsz.native.sh_coding import Palette, ShCoding
from gsz.splats import Splats

_BLOCK = CHUNK
"""Decoders hand out chunks together, up to so many Gaussians: little enough to stay in a processor's cache."""


class Block(NamedTuple):
    """Chunks of a layer that are decoded together.

    Attributes:
        begin: index of its first Gaussian in the layer.
        end: behind its last.
        chunks: ``(begin, end)`` of each chunk, within the block.
    """

    begin: int
    end: int
    chunks: list[tuple[int, int]]


class PreparedLayer(NamedTuple):
    """A layer whose contexts are settled as far as they do not depend on how it is coded.

    Attributes:
        columns: what is coded of each column.
        contexts: of the columns that are predicted, ``(N,)`` uint8.
        hints: all of them.
    """

    columns: Columns
    contexts: dict[str, np.ndarray]
    hints: Hints


def prepare(packing: Packing, columns: Columns) -> PreparedLayer:
    """Predict what is to be predicted of a layer's columns.

    For positions to be cheap and predictions good, each of the eight sequences of every eighth Gaussian should be in
    Morton order.
    """
    summed = {
        name: lane_sums(columns[name], np.zeros(LANES, np.int64))
        for name, plan in packing.layout.items()
        if plan.summed
    }
    hints: Hints = {}
    for attribute in ATTRIBUTES:
        hints = packing.hints(attribute, columns | summed, hints)
    plans = {name: plan for name, plan in packing.layout.items() if plan.prediction is not None}
    count = len(columns["sh"])
    coded = {name: np.empty(count, np.int32) for name in plans}
    contexts = {name: np.empty(count, np.uint8) for name in plans}
    near = _Near(plans)
    for begin in range(0, count, _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        near.move_to(hints["places"][rows])
        seen = _rows(hints | columns, begin, begin + _BLOCK)
        for name, plan in plans.items():
            assert plan.prediction is not None
            reference, base = _reference_and_base(plan.prediction, seen)
            alphabet = plan.alphabet
            predict(
                plan.prediction.kind,
                plan.prediction.parts,
                plan.prediction.map,
                base,
                reference,
                near.weights,
                near.recent[name],
                near.misses[name],
                seen[name].astype(np.int64, copy=False),
                alphabet.levels,
                (alphabet.direct_bits, alphabet.leading_bits, alphabet.signed),
                np.empty(2 * LANES),
                contexts[name][rows],
                coded[name][rows],
            )
    return PreparedLayer(columns | coded, contexts, hints)


class LayerCoding:
    """The columns and tables of a file, which learn from layer to layer.

    Args:
        coefficients: harmonics above degree 0, 0 to 15.
        sizes: tokens in use of each column, in the order of the packing's layout, then of the harmonics' classes.
    """

    def __init__(self, packing: Packing, coefficients: int, sizes: list[int]):
        *column_sizes, classes = sizes
        self._packing = packing
        self._plans = {
            attribute: {name: plan for name, plan in packing.layout.items() if plan.attribute == attribute}
            for attribute in ATTRIBUTES
        }
        self._columns = {
            name: plan.column(size) for (name, plan), size in zip(packing.layout.items(), column_sizes, strict=True)
        }
        self._sh = ShCoding(classes, coefficients) if coefficients else None

    def _begin_layer(self) -> None:
        for column in self._columns.values():
            column.begin()
        if self._sh:
            self._sh.begin()

    def encode_layer(self, layer: PreparedLayer) -> list[bytes]:
        """The six streams of a layer. The order of Gaussians is kept."""
        self._begin_layer()
        coder, streams = Encoder(), []
        columns = layer.columns
        places = layer.hints["places"]
        for attribute in ATTRIBUTES:
            for begin, end in chunks(len(columns["sh"])):
                seen = _rows(layer.hints, begin, end)
                for name, plan in self._plans[attribute].items():
                    contexts = plan.contexts(seen)
                    if name in layer.contexts:
                        contexts = layer.contexts[name][begin:end] + (0 if contexts is None else contexts)
                    seen[name] = coder.integers(self._columns[name], columns[name][begin:end], contexts)
                if attribute == "sh" and self._sh:
                    before = no_places() if begin == 0 else places[begin - HISTORY : begin].T
                    weights = weights_of(np.concatenate([before, places[begin:end].T], axis=1))
                    self._sh.encode(coder, columns["sh"][begin:end], seen["sh_fineness"], weights)
            streams.append(coder.finish())
        return streams

    def decode_layer(self, streams: list[memoryview], layer: Splats) -> None:
        """Fill in the Gaussians of a layer, block by block: all streams advance together.

        Args:
            layer: as many Gaussians as the layer has; NumPy arrays that are written to. Its harmonics are 0.

        Raises:
            StreamError: a stream does not end where its symbols do. The message begins with the attribute's name.
        """
        self._begin_layer()
        palette = Palette(self._packing)
        sums = {name: np.zeros(LANES, np.int64) for name, plan in self._packing.layout.items() if plan.summed}
        near = _Near({name: plan for name, plan in self._packing.layout.items() if plan.prediction is not None})
        attribute = ""
        try:
            coders: dict[str, Decoder] = {}
            for attribute, stream in zip(ATTRIBUTES, streams, strict=True):
                coders[attribute] = Decoder(stream)
            for block in _blocks(len(layer)):
                rows = layer.select(slice(block.begin, block.end))
                columns: Columns = {}
                hints: Hints = {}
                for attribute in ATTRIBUTES:
                    hints = self._packing.hints(attribute, columns, hints)
                    if attribute == "opacities":
                        near.move_to(hints["places"])
                    columns = columns | self._decode_columns(attribute, coders[attribute], block, hints, near)
                    if attribute == "means":
                        columns = columns | {name: lane_sums(columns[name], before) for name, before in sums.items()}
                if self._sh:
                    for begin, end in block.chunks:
                        fineness, weights = hints["sh_fineness"][begin:end], near.of(begin, end)
                        self._sh.decode(coders["sh"], rows.sh_rest[begin:end], fineness, weights, palette)
                self._packing.finish(columns, hints, rows)
            for attribute in ATTRIBUTES:
                coders[attribute].finish()
        except StreamError as error:
            raise StreamError(f"{attribute}: {error}") from error

    def _decode_columns(self, attribute: str, coder: Decoder, block: Block, hints: Hints, near: _Near) -> Columns:
        """The columns of an attribute for a block."""
        parts: list[Columns] = []
        for begin, end in block.chunks:
            seen = _rows(hints, begin, end)
            part: Columns = {}
            for name, plan in self._plans[attribute].items():
                column = self._columns[name]
                contexts = plan.contexts(seen)
                if plan.prediction is not None:
                    tokens = self._decode_predicted(coder, name, plan, seen | part, contexts, near, begin, end)
                    part[name], seen[name] = tokens
                elif plan.alphabet.plain:
                    part[name] = seen[name] = coder.tokens(column, end - begin, contexts)
                else:
                    part[name], seen[name] = coder.integers(column, end - begin, contexts)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _decode_predicted(
        self,
        coder: Decoder,
        name: str,
        plan: ColumnPlan,
        seen: dict[str, np.ndarray],
        contexts: np.ndarray | None,
        near: _Near,
        begin: int,
        end: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The values and tokens of a predicted column for a chunk."""
        assert plan.prediction is not None
        prediction = plan.prediction
        reference, base = _reference_and_base(prediction, seen)
        if contexts is not None:
            base = base + contexts
        return coder.predicted(
            self._columns[name],
            (prediction.kind, prediction.parts, prediction.map),
            base,
            reference,
            near.of(begin, end),
            near.recent[name][begin : end + HISTORY],
            near.misses[name][begin : end + HISTORY],
        )


class _Near:
    """What predictions look at: the weights of neighbors, and what is known of them, block by block.

    Attributes:
        weights: of the block at hand, see :func:`gsz.coding.neighbors.weights_of`.
        recent: by column ``(HISTORY + n,)`` float64, what is known of the Gaussians before and of these.
        misses: the same of how far that was from what was predicted.
    """

    def __init__(self, plans: dict[str, ColumnPlan]):
        self._places = no_places()
        self.weights = np.empty(0)
        self.recent = {name: np.zeros(HISTORY) for name in plans}
        self.misses = {name: np.zeros(HISTORY) for name in plans}

    def move_to(self, places: np.ndarray) -> None:
        """Go to the next block, whose places are ``(n, 3)``."""
        self._places = np.concatenate([self._places[:, -HISTORY:], places.T], axis=1)
        self.weights = weights_of(self._places)
        for known in (self.recent, self.misses):
            for name, before in known.items():
                known[name] = np.empty(HISTORY + len(places))
                known[name][:HISTORY] = before[-HISTORY:]

    def of(self, begin: int, end: int) -> np.ndarray:
        """The weights of Gaussians of the block; ``begin`` is a multiple of eight."""
        return self.weights[begin * NEIGHBORS : -(-end // LANES) * LANES * NEIGHBORS]


def _reference_and_base(prediction: Prediction, seen: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` float64 references of a predicted column, and uint8 beginnings of its contexts."""
    reference = prediction.reference(seen)
    if prediction.base is ANY:
        base = np.zeros(len(reference), np.uint8)
    else:
        base = np.take(prediction.base, reference, mode="clip")
    return np.ascontiguousarray(reference, np.float64), base


def _rows(hints: Hints, begin: int, end: int) -> dict[str, np.ndarray]:
    return {name: hint[begin:end] for name, hint in hints.items()}


def _blocks(count: int) -> list[Block]:
    """The chunks of ``count`` Gaussians, those together that have at most :data:`_BLOCK`."""
    blocks: list[Block] = []
    for begin, end in chunks(count):
        if not blocks or end - blocks[-1].begin > _BLOCK:
            blocks.append(Block(begin, begin, []))
        first, _, bounds = blocks[-1]
        blocks[-1] = Block(first, end, [*bounds, (begin - first, end - first)])
    return blocks
