"""The decoder of interleaved range asymmetric numeral systems (rANS); see :mod:`gsz.coding`.

Decoding never reads or writes out of bounds, whatever the bytes: words beyond the end read as zero, symbols come
from tables that hold valid symbols only, and a stream that was not used up exactly is refused at the end. Kernels
decide by arithmetic where data would mislead a processor that guesses branches.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gsz.coding.alphabet import CHUNK, LANES, PROBABILITY_BITS
from gsz.coding.tables import LOW, NO_SLOTS, ONE, Column, StreamError, at
from gsz.kernels import kernel

STATE_BYTES = 4 * LANES

_GUARD = 2 * LANES
"""Zeros that a decoder puts behind the words, so that it has to look for their end every few symbols only."""
_POSITION, _LANE = LANES, LANES + 1
"""Where among the states of a decoder are the number of words read and the lane of the next symbol."""
_MOST_PIECES = 6
"""Of raw bits, in a value."""


class Decoder:
    """Reads one stream in the order it was written.

    Raises:
        StreamError: ``data`` is too short or too odd to be a stream.
    """

    def __init__(self, data: bytes | memoryview):
        if len(data) < STATE_BYTES or len(data) % 2:
            raise StreamError(f"a stream of {len(data)} bytes")
        self._length = (len(data) - STATE_BYTES) // 2
        self._words = np.zeros(self._length + _GUARD, np.uint16)
        self._words[: self._length] = np.frombuffer(data, "<u2", offset=STATE_BYTES)
        self._states = np.zeros(LANES + 2, np.uint64)
        self._states[:LANES] = np.frombuffer(data, "<u4", LANES)
        self._long = np.empty(0, np.uint32)

    def tokens(self, column: Column, count: int, contexts: np.ndarray | None = None) -> np.ndarray:
        """The next ``(count,)`` uint8 tokens of a column, which are its values where its alphabet is plain.

        ``contexts``: ``(count,)`` uint8, by default 0 for all.
        """
        if column.constant:
            self._states[_LANE] = (int(self._states[_LANE]) + count) % LANES
            return np.zeros(count, np.uint8)
        tables = column.tables
        if tables.flat_slots is NO_SLOTS:
            tables.begin_decoding()
        recent = np.empty(LANES + count, np.uint8)
        recent[:LANES] = column.history
        _decode_tokens(
            self._words,
            self._states,
            recent,
            np.zeros(count, np.uint8) if contexts is None else contexts,
            column.previous,
            tables.flat_counts,
            tables.flat_symbols,
            tables.flat_slots,
            tables.size,
        )
        tables.rebuild()
        column.history[:] = recent[count:]
        return recent[LANES:]

    def integers(self, column: Column, count: int, contexts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The next ``(count,)`` int64 values of a column, and their tokens."""
        tokens = self.tokens(column, count, contexts)
        alphabet = column.alphabet
        if count >= len(self._long):
            self._long = np.empty(max(count + 1, CHUNK + 1), np.uint32)
        values = np.empty(count, np.int64)
        _decode_values(
            self._words,
            self._states,
            tokens,
            values,
            self._long,
            alphabet.signed,
            alphabet.direct_bits,
            alphabet.leading_bits,
        )
        return values, tokens

    def finish(self) -> None:
        """Check that the stream was used up exactly.

        Raises:
            StreamError: words are left over or were missing, or a state is not where the encoder began.
        """
        if self._states[_POSITION] != self._length or (self._states[:LANES] != LOW).any():
            raise StreamError("the stream does not end where its symbols do")


@intrinsic
def _prefetch(typing_context, array, index):
    """Ask for the cache line of an element of a contiguous one-dimensional array, ahead of its use."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, *[ir.IntType(32)] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(ir.IntType(32), number) for number in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@kernel
def _decode_tokens(words, states, recent, contexts, previous, counts, symbols, slots, size):
    """Decode and count as many tokens as ``recent`` has room for behind the last eight."""
    count, size = at(len(contexts)), at(size)
    position, last, begin = states[_POSITION], at(len(words) - LANES), states[_LANE]
    # Other columns have driven this one's slots out of the cache; soon nearly every line of them will be needed.
    if count > at(len(slots) >> 6):
        for i in range(at(0), at(len(slots)), at(64)):
            _prefetch(slots, i)
    group = at(0)
    while group < count:
        # Beyond the end there are zeros enough for a turn of each lane.
        position = position if position < last else last
        turns = count - group if count - group < at(LANES) else at(LANES)
        for turn in range(at(LANES)):
            if turn >= turns:
                break
            i, lane = group + turn, (begin + turn) & at(LANES - 1)
            context = at(contexts[i]) + at(previous[at(recent[i])])
            state = states[lane]
            slot = state & at(ONE - 1)
            token = at(slots[(context << at(PROBABILITY_BITS)) | slot])
            cell = context * size + token
            symbol = at(symbols[cell])
            recent[i + at(LANES)] = token
            counts[cell] += at(1)
            state = (symbol & at(0xFFFF)) * (state >> at(PROBABILITY_BITS)) + slot - (symbol >> at(16))
            longer = (state << at(16)) | at(words[position])
            short = state < at(LOW)
            states[lane] = longer if short else state
            position += at(short)
        group += at(LANES)
    states[_POSITION] = position
    states[_LANE] = (begin + count) & at(LANES - 1)


@kernel
def _decode_values(words, states, tokens, values, long, signed, direct_bits, leading_bits):
    """The values of tokens, with the raw bits that some of them have. ``long`` has room for the indices of those."""
    direct = np.int64(1) << direct_bits
    largest = np.uint8(0)
    for i in range(at(len(tokens))):
        token = np.int64(tokens[i])
        values[i] = ((token >> 1) ^ -(token & 1)) if signed else token
        largest = tokens[i] if tokens[i] > largest else largest
    if largest < direct:
        return
    found = at(0)
    for i in range(at(len(tokens))):
        # Written always and kept if there is something: there is nothing to mispredict.
        long[found] = i
        found += at(tokens[i] >= direct)
    position, lane, last = states[_POSITION], states[_LANE], at(len(words) - LANES)
    for j in range(found):
        i = at(long[j])
        token = np.int64(tokens[i]) - direct
        left = (token >> leading_bits) + direct_bits - leading_bits
        value = at((token & ((1 << leading_bits) - 1)) | (1 << leading_bits)) << at(left)
        left, shift = at(left), at(0)
        position = position if position < last else last
        # A piece may have no bits and then changes nothing, so that there are nearly always as many.
        for _ in range(2 if left <= at(2 * PROBABILITY_BITS) else _MOST_PIECES):
            width = left - shift if left - shift < at(PROBABILITY_BITS) else at(PROBABILITY_BITS)
            rest = at(PROBABILITY_BITS) - width
            state = states[lane]
            slot = state & at(ONE - 1)
            value |= (slot >> rest) << shift
            state = ((state >> at(PROBABILITY_BITS)) << rest) | (slot & ((at(1) << rest) - at(1)))
            longer = (state << at(16)) | at(words[position])
            short = state < at(LOW)
            states[lane] = longer if short else state
            position += at(short)
            lane = (lane + at(width > at(0))) & at(LANES - 1)
            shift += width
        value = np.int64(value)
        values[i] = ((value >> 1) ^ -(value & 1)) if signed else value
    states[_POSITION], states[_LANE] = position, lane
