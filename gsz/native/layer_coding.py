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
from gsz.coding.tables import StreamError
from gsz.native.layout import ATTRIBUTES, Columns, Hints, lane_sums
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

    def encode_layer(self, columns: Columns) -> list[bytes]:
        """The six streams of a layer. The order of Gaussians is kept.

        For positions to be cheap, each of the eight sequences of every eighth Gaussian should be in Morton order.
        """
        self._begin_layer()
        coder, streams = Encoder(), []
        hints: Hints = {}
        for attribute in ATTRIBUTES:
            hints = self._packing.hints(attribute, columns, hints)
            for begin, end in chunks(len(columns["sh"])):
                seen = _rows(hints, begin, end)
                for name, plan in self._plans[attribute].items():
                    values = columns[name][begin:end]
                    seen[name] = coder.integers(self._columns[name], values, plan.contexts(seen))
                if attribute == "sh" and self._sh:
                    self._sh.encode(coder, columns["sh"][begin:end], seen["sh_fineness"])
            streams.append(coder.finish())
        return streams

    def decode_layer(self, streams: list[memoryview], layer: Splats) -> None:
        """Fill in the Gaussians of a layer, block by block: all streams advance together.

        Args:
            layer: as many Gaussians as the layer has; NumPy arrays that are written to.

        Raises:
            StreamError: a stream does not end where its symbols do. The message begins with the attribute's name.
        """
        self._begin_layer()
        palette = Palette(self._packing)
        sums = {name: np.zeros(LANES, np.int64) for name, plan in self._packing.layout.items() if plan.summed}
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
                    columns = columns | self._decode_columns(attribute, coders[attribute], block, hints)
                if self._sh:
                    for begin, end in block.chunks:
                        fineness = hints["sh_fineness"][begin:end]
                        self._sh.decode(coders["sh"], rows.sh_rest[begin:end], fineness, palette)
                summed = {name: lane_sums(columns[name], before) for name, before in sums.items()}
                self._packing.finish(columns | summed, hints, rows)
            for attribute in ATTRIBUTES:
                coders[attribute].finish()
        except StreamError as error:
            raise StreamError(f"{attribute}: {error}") from error

    def _decode_columns(self, attribute: str, coder: Decoder, block: Block, hints: Hints) -> Columns:
        """The columns of an attribute for a block."""
        parts: list[Columns] = []
        for begin, end in block.chunks:
            seen, part = _rows(hints, begin, end), {}
            for name, plan in self._plans[attribute].items():
                column, contexts = self._columns[name], plan.contexts(seen)
                if plan.alphabet.plain:
                    part[name] = seen[name] = coder.tokens(column, end - begin, contexts)
                else:
                    part[name], seen[name] = coder.integers(column, end - begin, contexts)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
