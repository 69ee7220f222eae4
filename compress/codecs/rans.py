"""Interleaved range asymmetric numeral systems (rANS) over integers, with tables that learn as they go.

The coder is Duda's rANS (arXiv:1311.2540) with Giesen's interleaving (arXiv:1402.3392): eight 32-bit states take
turns, so that a processor works on eight symbols at once, and states are renormalised by 16-bit words. Symbol
``i`` of a stream belongs to state ``i mod 8``. Frequencies sum to 4096.

No tables are stored. Symbols come in chunks; after each chunk encoder and decoder count what passed and rebuild the
tables of those contexts that have learnt enough since. A context's distribution is its own counts plus a little of
the distribution of all contexts together, which makes contexts cheap in small files. Everything is integer
arithmetic, so every machine decodes the same symbols.

Integers of any size become *tokens* below 256 and raw bits: values below a power of two are their own token,
larger ones are named by bit length and leading bits, and the rest of their bits is stored as it is.

Decoding never reads or writes out of bounds, whatever the bytes: words beyond the end read as zero, symbols come
from tables that hold valid symbols only, and a stream that was not used up exactly is refused at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

PROBABILITY_BITS = 12
"""Binary digits of a frequency: those of a context sum to ``2**12``."""
LANES = 8
"""Interleaved states in a stream."""
STATE_BYTES = 4 * LANES
MAX_TOKENS = 256
"""An alphabet has no more."""
CHUNK = 1 << 14
"""Most items coded between two updates of the tables."""

ONE = 1 << PROBABILITY_BITS
GUIDE_SHIFT = 4
MASK = ONE - 1
LANE_MASK = LANES - 1
LOW = 1 << 16
"""Least value of a state between symbols; a state starts here in the encoder and must end here in the decoder."""
_PARENT_WEIGHT = 24
"""How many counted symbols the shared distribution weighs in that of a context."""
_MEMORY = 1 << 14
"""Counted symbols a context keeps when a new stream begins, so that it can follow a change of statistics."""

MOST_AT_ONCE = 15 * CHUNK
"""Most values that a column takes at a time: where items have 15 values each, a chunk of items has so many."""
NO_TOKENS = np.zeros(MOST_AT_ONCE, np.uint8)
"""Stands for a column that a context does not look at."""
ANY = np.zeros(256, np.uint16)
"""The context map of a column that is not looked at: every token means the same."""


class StreamError(ValueError):
    """The words of a stream do not end where their symbols do: the stream is damaged."""


def chunks(count: int) -> list[tuple[int, int]]:
    """How ``count`` items are cut into ``(begin, end)`` chunks: short ones first, while the tables know little.

    All but the last are multiples of :data:`LANES` long.
    """
    bounds = []
    begin = 0
    while begin < count:
        end = min(count, begin + min(CHUNK, max(128, begin // 2 // LANES * LANES)))
        bounds.append((begin, end))
        begin = end
    return bounds


def buckets(limits: list[int], stride: int = 1) -> np.ndarray:
    """A context map: token ``t`` belongs to as many classes below as there are ``limits`` at or below ``t``."""
    return (np.searchsorted(np.asarray(limits), np.arange(256), side="right") * stride).astype(np.uint16)


@dataclass(frozen=True)
class Alphabet:
    """How integers become tokens and raw bits.

    Signed values are first folded to non-negative ones, 0 -1 1 -2 2 to 0 1 2 3 4. Then a value below
    ``2**direct_bits`` is its own token; a larger one has a token for its bit length and the ``leading_bits`` bits
    after its leading one, and the remaining bits are raw, written in pieces of at most 12, lowest first.

    Attributes:
        direct_bits: 1 to 7.
        leading_bits: at most ``direct_bits``.
        value_bits: the longest folded value, at most 62 bits. At most 256 tokens may result.
        signed: whether values may be negative.
    """

    direct_bits: int
    leading_bits: int
    value_bits: int
    signed: bool = False

    @property
    def size(self) -> int:
        """Number of tokens."""
        return (1 << self.direct_bits) + ((self.value_bits - self.direct_bits) << self.leading_bits)

    def tokens(self, values: np.ndarray) -> np.ndarray:
        """The ``(n,)`` uint8 tokens of int64 ``values``."""
        return _tokenise(values, self.signed, self.direct_bits, self.leading_bits)


class Tables:
    """The learning distributions of symbols below ``size``, one row a context."""

    def __init__(self, contexts: int, size: int):
        self.counts = np.zeros((contexts, size), np.int64)
        self.symbols = np.zeros((contexts, size), np.uint32)  # Start << 16 | frequency.
        self.guide = np.zeros((contexts, ONE >> GUIDE_SHIFT), np.uint8)  # For the decoder, see find_symbol.
        self.built_at = np.full((contexts, 2), -1, np.int64)
        self.learn()

    def learn(self) -> None:
        """Rebuild the tables of the contexts whose counts have grown by a quarter since they were built."""
        _rebuild(self.counts, self.built_at, self.symbols, self.guide)

    def forget(self) -> None:
        """Weaken old counts, at the start of a stream with statistics of its own."""
        _fade(self.counts, self.built_at)


class Column:
    """One column of integers: its alphabet, its tables, and how the tables are chosen.

    The context of an item is the sum of what three maps of 256 uint16 make of a token of one other column, of a
    token of a second one, and of this column's token :data:`LANES` items before.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        size: int | None = None,
        first: np.ndarray = ANY,
        second: np.ndarray = ANY,
        previous: np.ndarray = ANY,
    ):
        self.alphabet = alphabet
        self.maps = (first, second, previous)
        self.size = min(size or alphabet.size, alphabet.size)
        self.tables = Tables(1 + sum(int(values.max()) for values in self.maps), self.size)
        self.history = np.zeros(LANES, np.uint8)

    def begin(self) -> None:
        """Start a new stream."""
        self.history[:] = 0
        self.tables.forget()


class Encoder:
    """Collects the symbols of a stream and codes them, last to first, when it is finished; then of the next one."""

    def __init__(self) -> None:
        self._symbols = np.empty(1 << 12, np.uint32)
        self._length = 0

    def room(self, count: int) -> tuple[np.ndarray, int]:
        """The buffer of ``start << 16 | frequency`` with space for ``count`` more, and how many it holds."""
        needed = self._length + count
        if needed > len(self._symbols):
            grown = np.empty(max(needed, 2 * len(self._symbols)), np.uint32)
            grown[: self._length] = self._symbols[: self._length]
            self._symbols = grown
        return self._symbols, self._length

    def advance(self, length: int) -> None:
        """Say how many symbols the buffer holds now."""
        self._length = length

    def integers(
        self, column: Column, values: np.ndarray, first: np.ndarray | None = None, second: np.ndarray | None = None
    ) -> np.ndarray:
        """Append the ``(n,)`` int64 ``values`` of a column. Returns their tokens.

        ``first`` and ``second`` are the ``(n,)`` uint8 tokens that the column's contexts look at; at most
        :data:`MOST_AT_ONCE` values go at a time.
        """
        alphabet = column.alphabet
        tokens = alphabet.tokens(values)
        pieces = 1 + -(-alphabet.value_bits // PROBABILITY_BITS)
        buffer, length = self.room(len(values) * pieces)
        length = _model_tokens(
            buffer,
            length,
            tokens,
            column.tables.counts,
            column.tables.symbols,
            NO_TOKENS if first is None else first,
            NO_TOKENS if second is None else second,
            *column.maps,
            column.history,
        )
        self._length = _model_raw(
            buffer, length, tokens, values, alphabet.signed, alphabet.direct_bits, alphabet.leading_bits
        )
        column.tables.learn()
        return tokens

    def finish(self) -> bytes:
        """The stream: eight little-endian uint32 states, then little-endian uint16 words."""
        states, words = _encode(self._symbols[: self._length])
        self._length = 0
        return states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


class Decoder:
    """Reads one stream in the order it was written.

    Raises:
        StreamError: ``data`` is too short or too odd to be a stream.
    """

    def __init__(self, data: bytes | memoryview):
        if len(data) < STATE_BYTES or len(data) % 2:
            raise StreamError(f"a stream of {len(data)} bytes")
        self.states = np.frombuffer(data, "<u4", LANES).astype(np.int64)
        self.words = np.frombuffer(data, "<u2", offset=STATE_BYTES)
        self.cursor = np.zeros(2, np.int64)  # Words read, lane of the next symbol.

    def integers(
        self, column: Column, values: np.ndarray, first: np.ndarray | None = None, second: np.ndarray | None = None
    ) -> np.ndarray:
        """Fill in the next ``(n,)`` int64 ``values`` of a column. Returns their tokens."""
        alphabet, tables = column.alphabet, column.tables
        tokens = np.empty(len(values), np.uint8)
        _decode(
            self.words,
            self.cursor,
            self.states,
            tokens,
            values,
            tables.counts,
            tables.built_at,
            tables.symbols,
            tables.guide,
            NO_TOKENS if first is None else first,
            NO_TOKENS if second is None else second,
            *column.maps,
            column.history,
            alphabet.signed,
            alphabet.direct_bits,
            alphabet.leading_bits,
        )
        return tokens

    def finish(self) -> None:
        """Check that the stream was used up exactly.

        Raises:
            StreamError: words are left over or were missing, or a state is not where the encoder began.
        """
        if self.cursor[0] != len(self.words) or (self.states != LOW).any():
            raise StreamError("the stream does not end where its symbols do")


@njit(cache=True, nogil=True, inline="always")
def bit_length(value):
    """Binary digits of a non-negative int64, 0 for 0."""
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> step:
            value >>= step
            length += step
    return length + (1 if value else 0)


@njit(cache=True, nogil=True)
def _fold(value, signed):
    return ((value << 1) ^ (value >> 63)) if signed else value


@njit(cache=True, nogil=True)
def _tokenise(values, signed, direct_bits, leading_bits):
    tokens = np.empty(len(values), np.uint8)
    direct = 1 << direct_bits
    for i in range(len(values)):
        value = _fold(values[i], signed)
        if value < direct:
            tokens[i] = value
        else:
            length = bit_length(value)
            leading = (value >> (length - 1 - leading_bits)) - (1 << leading_bits)
            tokens[i] = direct + ((length - direct_bits - 1) << leading_bits) + leading
    return tokens


@njit(cache=True, nogil=True)
def _model_tokens(buffer, length, tokens, counts, symbols, first, second, first_map, second_map, previous_map, history):
    """Append the tokens' symbols to ``buffer`` and count them. Returns the new length."""
    for i in range(len(tokens)):
        previous = tokens[i - LANES] if i >= LANES else history[i]
        context = np.int64(first_map[first[i]]) + second_map[second[i]] + previous_map[previous]
        buffer[length + i] = symbols[context, tokens[i]]
    # Counting is a loop of its own so that it never changes what the loop above reads.
    for i in range(len(tokens)):
        previous = tokens[i - LANES] if i >= LANES else history[i]
        context = np.int64(first_map[first[i]]) + second_map[second[i]] + previous_map[previous]
        counts[context, tokens[i]] += 1
    _remember(tokens, history)
    return length + len(tokens)


@njit(cache=True, nogil=True)
def _remember(tokens, history):
    """Keep a column's last tokens, so that item ``i`` of the next chunk finds its predecessor at ``history[i]``."""
    if len(tokens) >= LANES:
        history[:] = tokens[len(tokens) - LANES :]
    else:
        kept = LANES - len(tokens)
        for lane in range(kept):
            history[lane] = history[lane + len(tokens)]
        history[kept:] = tokens


@njit(cache=True, nogil=True)
def _model_raw(buffer, length, tokens, values, signed, direct_bits, leading_bits):
    direct = 1 << direct_bits
    for i in range(len(tokens)):
        if tokens[i] < direct:
            continue
        left = ((tokens[i] - direct) >> leading_bits) + direct_bits - leading_bits
        value = _fold(values[i], signed)
        while left > 0:
            width = min(left, PROBABILITY_BITS)
            frequency = 1 << (PROBABILITY_BITS - width)
            start = (value & ((1 << width) - 1)) << (PROBABILITY_BITS - width)
            buffer[length] = (start << 16) | frequency
            length += 1
            value >>= width
            left -= width
    return length


@njit(cache=True, nogil=True)
def _encode(buffer):
    """States and words of the symbols in ``buffer``, coded last to first so that they decode first to last."""
    states = np.full(LANES, LOW, np.int64)
    words = np.empty(len(buffer) + 1, np.uint16)
    position = len(words)
    for i in range(len(buffer) - 1, -1, -1):
        symbol = np.int64(buffer[i])
        start, frequency = symbol >> 16, symbol & 0xFFFF
        state = states[i & LANE_MASK]
        if state >= frequency << (32 - PROBABILITY_BITS):
            position -= 1
            words[position] = state & 0xFFFF
            state >>= 16
        quotient = np.uint32(state) // np.uint32(frequency)
        states[i & LANE_MASK] = (
            (np.int64(quotient) << PROBABILITY_BITS) + state - np.int64(quotient) * frequency + start
        )
    return states, words[position:]


@njit(cache=True, nogil=True, inline="always")
def next_word(words, position):
    """The word at ``position``, zero beyond the end."""
    return np.int64(words[position]) if position < len(words) else 0


@njit(cache=True, nogil=True, inline="always")
def find_symbol(symbols, guide, context, slot):
    """The token of a slot below 4096, its start and its frequency.

    The guide has the token of every sixteenth slot, from which it is a step or two. A table of all slots would need
    none, but hundreds of those do not fit in a processor's cache.
    """
    token = np.int64(guide[context, slot >> GUIDE_SHIFT])
    symbol = np.int64(symbols[context, token])
    while slot >= (symbol >> 16) + (symbol & 0xFFFF):
        token += 1
        symbol = np.int64(symbols[context, token])
    return token, symbol >> 16, symbol & 0xFFFF


@njit(cache=True, nogil=True)
def _decode_tokens(
    words, cursor, states, tokens, counts, symbols, guide, first, second, first_map, second_map, previous_map, history
):
    position, lane = cursor[0], cursor[1]
    for i in range(len(tokens)):
        previous = tokens[i - LANES] if i >= LANES else history[i]
        context = np.int64(first_map[first[i]]) + second_map[second[i]] + previous_map[previous]
        state = states[lane]
        token, start, frequency = find_symbol(symbols, guide, context, state & MASK)
        state = frequency * (state >> PROBABILITY_BITS) + (state & MASK) - start
        tokens[i] = token
        counts[context, token] += 1
        word = next_word(words, position)
        short = np.int64(state < LOW)
        position += short
        states[lane] = (state << (short << 4)) | (word & -short)
        lane = (lane + 1) & LANE_MASK
    cursor[0], cursor[1] = position, lane
    _remember(tokens, history)


@njit(cache=True, nogil=True)
def _decode_raw(words, cursor, states, tokens, values, signed, direct_bits, leading_bits):
    position, lane = cursor[0], cursor[1]
    direct = 1 << direct_bits
    for i in range(len(tokens)):
        value = np.int64(tokens[i])
        if value >= direct:
            value -= direct
            left = (value >> leading_bits) + direct_bits - leading_bits
            value = ((value & ((1 << leading_bits) - 1)) | (1 << leading_bits)) << left
            shift = 0
            while left > 0:
                width = min(left, PROBABILITY_BITS)
                rest = PROBABILITY_BITS - width
                state = states[lane]
                slot = state & MASK
                value |= (slot >> rest) << shift
                state = ((state >> PROBABILITY_BITS) << rest) | (slot & ((1 << rest) - 1))
                if state < LOW:
                    state = (state << 16) | next_word(words, position)
                    position += 1
                states[lane] = state
                lane = (lane + 1) & LANE_MASK
                shift += width
                left -= width
        values[i] = ((value >> 1) ^ -(value & 1)) if signed else value
    cursor[0], cursor[1] = position, lane


@njit(cache=True, nogil=True)
def _decode(
    words,
    cursor,
    states,
    tokens,
    values,
    counts,
    built_at,
    symbols,
    guide,
    first,
    second,
    first_map,
    second_map,
    previous_map,
    history,
    signed,
    direct_bits,
    leading_bits,
):
    """All there is to do for a column's values. In one call, since entering compiled code takes microseconds."""
    _decode_tokens(
        words,
        cursor,
        states,
        tokens,
        counts,
        symbols,
        guide,
        first,
        second,
        first_map,
        second_map,
        previous_map,
        history,
    )
    _decode_raw(words, cursor, states, tokens, values, signed, direct_bits, leading_bits)
    _rebuild(counts, built_at, symbols, guide)


@njit(cache=True, nogil=True)
def _distribute(weights, frequencies):
    """Share out 4096 in proportion to int64 ``weights``, at least 1 to each; what is left goes to the heaviest."""
    size = len(weights)
    total = weights.sum()
    left = ONE
    heaviest = 0
    for symbol in range(size):
        frequencies[symbol] = 1 + weights[symbol] * (ONE - size) // total
        left -= frequencies[symbol]
        if weights[symbol] > weights[heaviest]:
            heaviest = symbol
    frequencies[heaviest] += left


@njit(cache=True, nogil=True)
def _rebuild(counts, built_at, symbols, guide):
    """Bring the tables up to the counts."""
    contexts, size = counts.shape
    shared = np.zeros(size, np.int64)
    for context in range(contexts):
        for symbol in range(size):
            shared[symbol] += counts[context, symbol]
    everything = shared.sum()
    parent = np.empty(size, np.int64)
    for symbol in range(size):
        shared[symbol] = shared[symbol] * 256 + 4096 // (symbol + 2)
    _distribute(shared, parent)
    weights = np.empty(size, np.int64)
    frequencies = np.empty(size, np.int64)
    for context in range(contexts):
        own = counts[context].sum()
        grown = own * 4 >= built_at[context, 0] * 5 + 4
        if not grown and everything < 2 * built_at[context, 1] and built_at[context, 0] >= 0:
            continue
        built_at[context, 0] = own
        built_at[context, 1] = max(everything, 64)
        for symbol in range(size):
            weights[symbol] = counts[context, symbol] * ONE + parent[symbol] * _PARENT_WEIGHT
        _distribute(weights, frequencies)
        start = 0
        for symbol in range(size):
            frequency = frequencies[symbol]
            symbols[context, symbol] = (start << 16) | frequency
            first = (start + (1 << GUIDE_SHIFT) - 1) >> GUIDE_SHIFT
            start += frequency
            for place in range(first, (start - 1 >> GUIDE_SHIFT) + 1):
                guide[context, place] = symbol


@njit(cache=True, nogil=True)
def _fade(counts, built_at):
    for context in range(len(counts)):
        own = counts[context].sum()
        if own > _MEMORY:
            for symbol in range(counts.shape[1]):
                counts[context, symbol] = counts[context, symbol] * _MEMORY // own
            own = counts[context].sum()
        built_at[context, 0] = own
