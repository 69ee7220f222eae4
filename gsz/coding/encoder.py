"""The encoder of interleaved range asymmetric numeral systems (rANS); see :mod:`gsz.coding`."""

from __future__ import annotations

import numpy as np

from gsz.coding.alphabet import LANES, PROBABILITY_BITS
from gsz.coding.tables import LOW, Column, at
from gsz.kernels import kernel

_BUFFER = 1 << 18
"""Symbols that an encoder makes room for at a time."""


class Encoder:
    """Collects the symbols of a stream and codes them, last to first, when it is finished; then of the next one."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, int]] = []  # Of ``start << 16 | frequency``, and the lane of the first.
        self._buffer = np.empty(0, np.uint32)
        self._begin = self._end = 0  # Of the part at the end of what is used of the buffer.
        self._lane = 0

    def integers(self, column: Column, values: np.ndarray, contexts: np.ndarray | None = None) -> np.ndarray:
        """Append the ``(n,)`` integers of a column. Returns their ``(n,)`` uint8 tokens.

        ``contexts``: ``(n,)`` uint8, by default 0 for all.
        """
        if column.constant:
            self._pass_over(len(values))
            return np.zeros(len(values), np.uint8)
        alphabet, tables = column.alphabet, column.tables
        pieces = 1 if alphabet.plain else 1 + -(-alphabet.value_bits // PROBABILITY_BITS)
        self._make_room(len(values) * pieces)
        recent = np.empty(LANES + len(values), np.uint8)
        recent[:LANES] = column.history
        self._end = _model(
            self._buffer,
            self._end,
            values.astype(np.int64, copy=False),
            recent,
            np.zeros(len(values), np.uint8) if contexts is None else contexts,
            column.previous,
            tables.flat_counts,
            tables.flat_symbols,
            tables.size,
            alphabet.signed,
            alphabet.direct_bits,
            alphabet.leading_bits,
        )
        tables.rebuild()
        column.history[:] = recent[len(values) :]
        return recent[LANES:]

    def _make_room(self, count: int) -> None:
        """Let the buffer take so many more symbols; if need be a new one, since a larger one would mean a copy."""
        if self._end + count > len(self._buffer):
            self._end_part()
            self._buffer = np.empty(max(count, _BUFFER), np.uint32)
            self._begin = self._end = 0

    def _end_part(self) -> None:
        part = self._buffer[self._begin : self._end]
        self._parts.append((part, self._lane))
        self._begin, self._lane = self._end, (self._lane + len(part)) % LANES

    def _pass_over(self, count: int) -> None:
        """Let ``count`` symbols have their turns that change nothing."""
        if count % LANES:
            self._end_part()
            self._lane = (self._lane + count) % LANES

    def finish(self) -> bytes:
        """The stream: eight little-endian uint32 states, then little-endian uint16 words."""
        self._end_part()
        self._lane = 0
        states = np.full(LANES, LOW, np.uint64)
        parts = []
        while self._parts:
            symbols, lane = self._parts.pop()
            words = np.empty(len(symbols), np.uint16)
            parts.append(words[_code(symbols, lane, states, words) :].astype("<u2").tobytes())
        return b"".join([states.astype("<u4").tobytes(), *reversed(parts)])


@kernel
def _model(buffer, end, values, recent, contexts, previous, counts, symbols, size, signed, direct_bits, leading_bits):
    """Append a column to the ``end`` symbols that are in ``buffer``: its tokens, which are counted, then its raw bits.

    ``recent`` has the column's last eight tokens and takes the tokens behind them. Returns the new end.
    """
    direct = 1 << direct_bits
    for i in range(len(values)):
        value = abs(values[i])
        if value >= direct:
            length = 0
            rest = value
            for step in (32, 16, 8, 4, 2, 1):
                if rest >> step:
                    rest >>= step
                    length += step
            leading = (value >> (length - leading_bits)) - (1 << leading_bits)
            value = direct + ((length - direct_bits) << leading_bits) + leading
        recent[at(i) + at(LANES)] = (value << 1 | (values[i] < 0)) if signed else value
    first = at(end)
    count = at(len(values))
    for i in range(count):
        context = at(contexts[i]) + at(previous[recent[i]])
        buffer[first + i] = symbols[context * at(size) + at(recent[i + at(LANES)])]
    # Counting is a loop of its own so that it never changes what the loop above reads.
    for i in range(count):
        context = at(contexts[i]) + at(previous[recent[i]])
        counts[context * at(size) + at(recent[i + at(LANES)])] += at(1)
    place = first + count
    for i in range(count):
        token = np.int64(recent[i + at(LANES)]) >> signed
        if token < direct:
            continue
        left = ((token - direct) >> leading_bits) + direct_bits - leading_bits
        value = abs(values[i])
        while left > 0:
            width = left if left < PROBABILITY_BITS else PROBABILITY_BITS
            start = (value & ((1 << width) - 1)) << (PROBABILITY_BITS - width)
            buffer[place] = (start << 16) | (1 << (PROBABILITY_BITS - width))
            place += at(1)
            value >>= width
            left -= width
    return place


@kernel
def _code(symbols, lane, states, words):
    """Code symbols, last to first so that they decode first to last; ``lane`` is that of the first.

    Returns where the words that they take begin; these end where ``words`` does.
    """
    position = at(len(words))
    for behind in range(at(len(symbols))):
        i = at(len(symbols)) - at(1) - behind
        symbol = symbols[i]
        frequency = at(symbol & np.uint32(0xFFFF))
        turn = (at(lane) + i) & at(LANES - 1)
        state = states[turn]
        if state >= frequency << at(32 - PROBABILITY_BITS):
            position -= at(1)
            words[position] = state
            state >>= at(16)
        quotient = at(np.uint32(state) // np.uint32(frequency))
        states[turn] = (quotient << at(PROBABILITY_BITS)) + state - quotient * frequency + at(symbol >> np.uint32(16))
    return position
