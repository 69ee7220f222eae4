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
from gsz.coding.neighbors import (
    HISTORY,
    NEIGHBORS,
    SIGNS_BEFORE,
    Leaning,
    known,
    leaning,
    look_around,
    look_back,
    place_in_map,
)
from gsz.coding.tables import GUIDE_BITS, LOW, NO_GUIDE, ONE, Column, StreamError, at
from gsz.kernels import inline, kernel

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
        self._words = np.empty(self._length + _GUARD, np.uint16)
        self._words[self._length :] = 0
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
        if tables.flat_guide is NO_GUIDE:
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
            tables.flat_guide,
            tables.size,
        )
        tables.rebuild()
        column.history[:] = recent[count:]
        return recent[LANES:]

    def predicted(
        self,
        column: Column,
        prediction: tuple[int, float, np.ndarray],
        base: np.ndarray,
        reference: np.ndarray,
        weights: np.ndarray,
        recent: np.ndarray,
        misses: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next values of a column, int64, and their tokens, whose contexts look at neighbors.

        Args:
            prediction: what is coded, parts of a unit in the map of contexts, and this map.
            base, reference, recent, misses: see :func:`gsz.coding.neighbors.predict`. The last two are filled in.
        """
        alphabet, count = column.alphabet, len(base)
        tables = column.tables
        if tables.flat_guide is NO_GUIDE:
            tables.begin_decoding()
        tokens, wholes = np.empty(count, np.uint8), np.empty(count, np.int64)
        _decode_predicted(
            self._words,
            self._states,
            *prediction,
            base,
            reference,
            weights,
            recent,
            misses,
            alphabet.levels,
            np.empty(2 * LANES),
            tokens,
            wholes,
            tables.flat_counts,
            tables.flat_symbols,
            tables.flat_guide,
            tables.size,
        )
        tables.rebuild()
        values = self._values(column, tokens)
        values += wholes
        return values, tokens

    def integers(self, column: Column, count: int, contexts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The next ``(count,)`` int64 values of a column, and their tokens."""
        tokens = self.tokens(column, count, contexts)
        return self._values(column, tokens), tokens

    def _values(self, column: Column, tokens: np.ndarray) -> np.ndarray:
        """The int64 values of tokens, their raw bits read."""
        alphabet, count = column.alphabet, len(tokens)
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
        return values

    def triples(
        self,
        column: Column,
        members: np.ndarray,
        bounds: np.ndarray,
        contexts: np.ndarray,
        near: Leaning,
        signs_of_tokens: np.ndarray,
        stride: int,
    ) -> np.ndarray:
        """The next ``(m,)`` uint8 tokens of triples, see :mod:`gsz.native.sh_coding`; fills in the signs."""
        tokens = np.empty(len(members), np.uint8)
        tables = column.tables
        if tables.flat_guide is NO_GUIDE:
            tables.begin_decoding()
        _decode_triples(
            self._words,
            self._states,
            members,
            bounds,
            contexts,
            *near.flat,
            signs_of_tokens,
            stride,
            tokens,
            tables.flat_counts,
            tables.flat_symbols,
            tables.flat_guide,
            tables.size,
        )
        tables.rebuild()
        return tokens

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


@inline
def _cell_of(slot, guide, symbols, context, size):
    """Where in ``symbols`` the token is that a slot belongs to, which the guide tells but for a few."""
    cell = context * size + at(guide[(context << at(GUIDE_BITS)) | (slot >> at(PROBABILITY_BITS - GUIDE_BITS))])
    while slot >= (at(symbols[cell]) >> at(16)) + (at(symbols[cell]) & at(0xFFFF)):
        cell += at(1)
    return cell


@inline
def _refilled(state, word):
    """A state that takes a word where it is low. Both are computed, so that there is nothing to mispredict."""
    longer = (state << at(16)) | at(word)
    return longer if state < at(LOW) else state


@inline
def _next_token(words, position, states, lane, context, counts, symbols, guide, size):
    """Decode and count a token of a context. Returns it, and how many words have been read after it."""
    state = states[lane]
    slot = state & at(ONE - 1)
    cell = _cell_of(slot, guide, symbols, context, size)
    symbol = at(symbols[cell])
    counts[cell] += at(1)
    state = (symbol & at(0xFFFF)) * (state >> at(PROBABILITY_BITS)) + slot - (symbol >> at(16))
    states[lane] = _refilled(state, words[position])
    return cell - context * size, position + at(state < at(LOW))


@kernel
def _decode_tokens(words, states, recent, contexts, previous, counts, symbols, guide, size):
    """Decode and count as many tokens as ``recent`` has room for behind the last eight."""
    count, size = at(len(contexts)), at(size)
    position, last, begin = states[_POSITION], at(len(words) - LANES), states[_LANE]
    # Other columns have driven this one's guide out of the cache; soon nearly every line of them will be needed.
    if count > at(len(guide) >> 6):
        for i in range(at(0), at(len(guide)), at(64)):
            _prefetch(guide, i)
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
            token, position = _next_token(words, position, states, lane, context, counts, symbols, guide, size)
            recent[i + at(LANES)] = token
        group += at(LANES)
    states[_POSITION] = position
    states[_LANE] = (begin + count) & at(LANES - 1)


@kernel
def _decode_predicted(
    words,
    states,
    kind,
    parts,
    context_map,
    base,
    reference,
    weights,
    recent,
    misses,
    levels,
    farther,
    tokens,
    wholes,
    counts,
    symbols,
    guide,
    size,
):
    """As :func:`_decode_tokens`, each context by what the neighbors are, which the tokens before have told."""
    count, size = at(len(tokens)), at(size)
    position, last, begin = states[_POSITION], at(len(words) - LANES), states[_LANE]
    group = at(0)
    while group < count:
        position = position if position < last else last
        look_back(kind, group, weights, recent, misses, farther)
        turns = count - group if count - group < at(LANES) else at(LANES)
        for turn in range(at(LANES)):
            if turn >= turns:
                break
            i, lane = group + turn, (begin + turn) & at(LANES - 1)
            unit = reference[i]
            mean, measure, whole = look_around(kind, parts, i, turn, weights, recent, misses, farther, unit)
            context = at(base[i]) + at(context_map[place_in_map(measure)])
            token, position = _next_token(words, position, states, lane, context, counts, symbols, guide, size)
            tokens[i] = token
            wholes[i] = np.int64(whole)
            number = known(kind, levels[token], whole, unit)
            recent[i + at(HISTORY)], misses[i + at(HISTORY)] = number, abs(number - mean)
        group += at(LANES)
    states[_POSITION], states[_LANE] = position, (begin + count) & at(LANES - 1)


@kernel
def _decode_triples(
    words,
    states,
    members,
    bounds,
    contexts,
    signs,
    length,
    weights,
    places,
    signs_of_tokens,
    stride,
    tokens,
    counts,
    symbols,
    guide,
    size,
):
    size = at(size)
    position, last, lane = states[_POSITION], at(len(words) - LANES), states[_LANE]
    for k in range(at(len(bounds) - 1)):
        for j in range(at(bounds[k]), at(bounds[k + at(1)])):
            if j & at(LANES - 1) == at(0):
                position = position if position < last else last
            member = at(members[j])
            place = k * at(length) + at(places[member])
            context = at(contexts[j]) + at(stride) * leaning(signs, place, weights, member * at(NEIGHBORS))
            token, position = _next_token(words, position, states, lane, context, counts, symbols, guide, size)
            lane = (lane + at(1)) & at(LANES - 1)
            tokens[j] = token
            signs[place + at(SIGNS_BEFORE)] = signs_of_tokens[token]
    states[_POSITION], states[_LANE] = position, lane


@kernel
def _decode_values(words, states, tokens, values, long, signed, direct_bits, leading_bits):
    """The values of tokens, with the raw bits that some of them have. ``long`` has room for the indices of those."""
    direct, escape = np.int64(1) << direct_bits, np.int64(1) << (direct_bits + signed)
    largest = np.uint8(0)
    for i in range(at(len(tokens))):
        token = np.int64(tokens[i])
        negative = token & signed
        values[i] = ((token >> signed) ^ -negative) + negative
        largest = tokens[i] if tokens[i] > largest else largest
    if largest < escape:
        return
    found = at(0)
    for i in range(at(len(tokens))):
        # Written always and kept if there is something: there is nothing to mispredict.
        long[found] = i
        found += at(tokens[i] >= escape)
    position, lane, last = states[_POSITION], states[_LANE], at(len(words) - LANES)
    for j in range(found):
        i = at(long[j])
        negative = np.int64(tokens[i]) & signed
        token = (np.int64(tokens[i]) >> signed) - direct
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
            states[lane] = _refilled(state, words[position])
            position += at(state < at(LOW))
            lane = (lane + at(width > at(0))) & at(LANES - 1)
            shift += width
        value = np.int64(value)
        values[i] = (value ^ -negative) + negative
    states[_POSITION], states[_LANE] = position, lane
