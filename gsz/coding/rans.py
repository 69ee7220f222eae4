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

Kernels index by unsigned numbers (``at``), because a signed index costs Numba a test for its being negative, and
decide by arithmetic where data would mislead a processor that guesses branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from gsz.kernels import INLINE, SERIAL

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
MASK = ONE - 1
LANE_MASK = LANES - 1
LOW = 1 << 16
"""Least value of a state between symbols; a state starts here in the encoder and must end here in the decoder."""
_PARENT_WEIGHT = 24
"""How many counted symbols the shared distribution weighs in that of a context."""
_MEMORY = 1 << 14
"""Counted symbols a context keeps when a new stream begins, so that it can follow a change of statistics."""

BUFFER = 1 << 18
"""Symbols that an encoder makes room for at a time."""
MOST_AT_ONCE = 15 * CHUNK
"""Most values that a column takes at a time: where items have 15 values each, a chunk of items has so many."""
NO_TOKENS = np.zeros(MOST_AT_ONCE, np.uint8)
"""Stands for a column that a context does not look at."""
NO_VALUES = np.empty(0, np.int64)
ANY = np.zeros(256, np.uint16)
"""The context map of a column that is not looked at: every token means the same."""
MOST_PIECES = 6
"""Of raw bits, in a value."""
GUARD = 2 * LANES
"""Zeros that a decoder puts behind the words, so that it has to look for their end every few symbols only."""
at = np.uint64


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

    @cached_property
    def size(self) -> int:
        """Number of tokens."""
        return (1 << self.direct_bits) + ((self.value_bits - self.direct_bits) << self.leading_bits)

    @cached_property
    def plain(self) -> bool:
        """Whether every value is its own token, so that there are no raw bits."""
        return self.size == 1 << self.direct_bits and not self.signed

    def tokens(self, values: np.ndarray) -> np.ndarray:
        """The ``(n,)`` uint8 tokens of integers."""
        tokens = np.empty(len(values), np.uint8)
        wide = values.astype(np.int64, copy=False)
        _tokenise(wide, self.signed, self.direct_bits, self.leading_bits, tokens)
        return tokens


class Tables:
    """The learning distributions of symbols below ``size``, one row a context."""

    def __init__(self, contexts: int, size: int):
        self.counts = np.zeros((contexts, size), np.int64)
        self.symbols = np.zeros((contexts, size), np.uint32)  # Start << 16 | frequency.
        self.built_at = np.full((contexts, 2), -1, np.int64)
        self._slots: np.ndarray | None = None
        _rebuild(self.counts, self.built_at, self.symbols, None)

    @property
    def slots(self) -> np.ndarray:
        """``(contexts, 4096)`` uint8, the symbol of each slot; what decoders need, and keep up to date."""
        if self._slots is None:
            self._slots = np.empty((len(self.symbols), ONE), np.uint8)
            _fill_slots(self.symbols, self._slots)
        return self._slots

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
        self.used_maps = tuple(None if values is ANY else values for values in self.maps)
        self.size = min(size or alphabet.size, alphabet.size)
        self.tables = Tables(1 + sum(int(values.max()) for values in self.maps), self.size)
        self.history = np.zeros(LANES, np.uint8)

    @property
    def constant(self) -> bool:
        """Whether all values are 0. The only symbol has all frequencies, so that coding it changes nothing."""
        return self.size == 1

    def begin(self) -> None:
        """Start a new stream."""
        self.history[:] = 0
        self.tables.forget()


class Encoder:
    """Collects the symbols of a stream and codes them, last to first, when it is finished; then of the next one."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, int]] = []  # Of ``start << 16 | frequency``, and the lane of the first.
        self._buffer = np.empty(0, np.uint32)
        self._begin = self._end = 0  # Of the part at the end of what is used of the buffer.
        self._lane = 0

    def integers(
        self, column: Column, values: np.ndarray, first: np.ndarray | None = None, second: np.ndarray | None = None
    ) -> np.ndarray:
        """Append the ``(n,)`` integers of a column. Returns their tokens.

        ``first`` and ``second`` are the ``(n,)`` uint8 tokens that the column's contexts look at; at most
        :data:`MOST_AT_ONCE` values go at a time.
        """
        tokens = np.empty(len(values), np.uint8)
        if column.constant:
            self._pass_over(len(values))
            tokens[:] = 0
            return tokens
        alphabet, tables = column.alphabet, column.tables
        pieces = 1 if alphabet.plain else 1 + -(-alphabet.value_bits // PROBABILITY_BITS)
        self._make_room(len(values) * pieces)
        self._end = _model(
            self._buffer,
            self._end,
            tokens,
            values.astype(np.int64, copy=False),
            tables.counts,
            tables.built_at,
            tables.symbols,
            NO_TOKENS if first is None else first,
            NO_TOKENS if second is None else second,
            *column.maps,
            column.history,
            alphabet.signed,
            alphabet.direct_bits,
            alphabet.leading_bits,
        )
        return tokens

    def _make_room(self, count: int) -> None:
        """Let the buffer take so many more symbols; if need be a new one, since a larger one would mean a copy."""
        if self._end + count > len(self._buffer):
            self._end_part()
            self._buffer = np.empty(max(count, BUFFER), np.uint32)
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
        states = np.full(LANES, LOW, np.int64)
        words = [_encode(*self._parts.pop(), states).astype("<u2").tobytes() for _ in range(len(self._parts))]
        return b"".join([states.astype("<u4").tobytes(), *reversed(words)])


class Decoder:
    """Reads one stream in the order it was written.

    Raises:
        StreamError: ``data`` is too short or too odd to be a stream.
    """

    def __init__(self, data: bytes | memoryview):
        if len(data) < STATE_BYTES or len(data) % 2:
            raise StreamError(f"a stream of {len(data)} bytes")
        self.states = np.frombuffer(data, "<u4", LANES).astype(np.uint64)
        self.length = (len(data) - STATE_BYTES) // 2
        self.words = np.zeros(self.length + GUARD, np.uint16)
        self.words[: self.length] = np.frombuffer(data, "<u2", offset=STATE_BYTES)
        self.cursor = np.zeros(2, np.uint64)  # Words read, lane of the next symbol.

    def tokens(
        self, column: Column, count: int, first: np.ndarray | None = None, second: np.ndarray | None = None
    ) -> np.ndarray:
        """The next ``(count,)`` uint8 tokens of a column that has no raw bits."""
        return self._decode(column, count, NO_VALUES, first, second)

    def integers(
        self, column: Column, values: np.ndarray, first: np.ndarray | None = None, second: np.ndarray | None = None
    ) -> np.ndarray:
        """Fill in the next ``(n,)`` values of a column, int64 or of as many bits as they need. Returns their tokens."""
        return self._decode(column, len(values), values, first, second)

    def _decode(
        self, column: Column, count: int, values: np.ndarray, first: np.ndarray | None, second: np.ndarray | None
    ) -> np.ndarray:
        if column.constant:
            values[:] = 0
            self.cursor[1] = (int(self.cursor[1]) + count) % LANES
            return np.zeros(count, np.uint8)
        alphabet, tables = column.alphabet, column.tables
        recent = np.empty(LANES + count, np.uint8)
        recent[:LANES] = column.history
        _decode(
            self.words,
            self.cursor,
            self.states,
            recent,
            NO_VALUES if alphabet.plain else values,
            tables.counts,
            tables.built_at,
            tables.symbols,
            tables.slots,
            first,
            second,
            *column.used_maps,
            alphabet.signed,
            alphabet.direct_bits,
            alphabet.leading_bits,
        )
        column.history[:] = recent[count:]
        tokens = recent[LANES:]
        if alphabet.plain and len(values):
            values[:] = tokens
        return tokens

    def finish(self) -> None:
        """Check that the stream was used up exactly.

        Raises:
            StreamError: words are left over or were missing, or a state is not where the encoder began.
        """
        if self.cursor[0] != self.length or (self.states != LOW).any():
            raise StreamError("the stream does not end where its symbols do")


@njit(**INLINE)
def bit_length(value):
    """Binary digits of a non-negative int64, 0 for 0."""
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if value >> step:
            value >>= step
            length += step
    return length + (1 if value else 0)


@njit(**SERIAL)
def _fold(value, signed):
    return ((value << 1) ^ (value >> 63)) if signed else value


@njit(**SERIAL)
def _tokenise(values, signed, direct_bits, leading_bits, tokens):
    direct = 1 << direct_bits
    for i in range(len(values)):
        value = _fold(values[i], signed)
        if value < direct:
            tokens[i] = value
        else:
            length = bit_length(value)
            leading = (value >> (length - 1 - leading_bits)) - (1 << leading_bits)
            tokens[i] = direct + ((length - direct_bits - 1) << leading_bits) + leading


@njit(**SERIAL)
def _model(
    buffer,
    length,
    tokens,
    values,
    counts,
    built_at,
    symbols,
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
    """Append a column's symbols to those in ``buffer``, and learn from them. Returns their new number.

    In one call, since entering compiled code takes microseconds.
    """
    _tokenise(values, signed, direct_bits, leading_bits, tokens)
    _model_tokens(buffer[length:], tokens, counts, symbols, first, second, first_map, second_map, previous_map, history)
    _rebuild(counts, built_at, symbols, None)
    return _model_raw(buffer, length + len(tokens), tokens, values, signed, direct_bits, leading_bits)


@njit(**SERIAL)
def _model_tokens(modelled, tokens, counts, symbols, first, second, first_map, second_map, previous_map, history):
    """Fill in the tokens' symbols, and count them."""
    for i in range(len(tokens)):
        previous = tokens[i - LANES] if i >= LANES else history[i]
        context = np.int64(first_map[first[i]]) + second_map[second[i]] + previous_map[previous]
        modelled[i] = symbols[context, tokens[i]]
    # Counting is a loop of its own so that it never changes what the loop above reads.
    for i in range(len(tokens)):
        previous = tokens[i - LANES] if i >= LANES else history[i]
        context = np.int64(first_map[first[i]]) + second_map[second[i]] + previous_map[previous]
        counts[context, tokens[i]] += 1
    _remember(tokens, history)


@njit(**SERIAL)
def _remember(tokens, history):
    """Keep a column's last tokens, so that item ``i`` of the next chunk finds its predecessor at ``history[i]``."""
    if len(tokens) >= LANES:
        history[:] = tokens[len(tokens) - LANES :]
    else:
        kept = LANES - len(tokens)
        for lane in range(kept):
            history[lane] = history[lane + len(tokens)]
        history[kept:] = tokens


@njit(**SERIAL)
def _model_raw(buffer, length, tokens, values, signed, direct_bits, leading_bits):
    """Append the symbols of the tokens' raw bits. Returns the new number of symbols."""
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


@njit(**SERIAL)
def _encode(symbols, lane, states):
    """The words of symbols, coded last to first so that they decode first to last; ``lane`` is that of the first."""
    words = np.empty(len(symbols), np.uint16)
    position = len(words)
    for i in range(len(symbols) - 1, -1, -1):
        symbol = np.int64(symbols[i])
        start, frequency = symbol >> 16, symbol & 0xFFFF
        turn = (lane + i) & LANE_MASK
        state = states[turn]
        if state >= frequency << (32 - PROBABILITY_BITS):
            position -= 1
            words[position] = state & 0xFFFF
            state >>= 16
        quotient = np.uint32(state) // np.uint32(frequency)
        states[turn] = (np.int64(quotient) << PROBABILITY_BITS) + state - np.int64(quotient) * frequency + start
    return words[position:].copy()


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


@njit(**SERIAL)
def _decode_tokens(
    words, cursor, states, recent, counts, symbols, slots, first, second, first_map, second_map, previous_map
):
    """Decode as many tokens as ``recent`` has room for behind the last eight. Maps that are None are not looked at."""
    count = at(len(recent) - LANES)
    size = at(counts.shape[1])
    flat_counts, flat_symbols, flat_slots = counts.reshape(-1), symbols.reshape(-1), slots.reshape(-1)
    position, last = cursor[0], at(len(words) - LANES)
    # Other columns have driven this one's slots out of the cache; soon nearly every line of them will be needed.
    if count > at(len(flat_slots) >> 6):
        for i in range(at(0), at(len(flat_slots)), at(64)):
            _prefetch(flat_slots, i)
    # The lane whose turn it is comes first here, so that the inner loop below has a fixed number of turns.
    turned = np.empty(LANES, np.uint64)
    for lane in range(LANES):
        turned[lane] = states[(cursor[1] + at(lane)) & at(LANE_MASK)]
    begin = at(0)
    while begin < count:
        # Beyond the end there are zeros enough for a turn of each lane.
        position = min(position, last)
        turns = min(at(LANES), count - begin)
        for lane in range(at(LANES)):
            if lane >= turns:
                break
            item = begin + lane
            context = at(0)
            if first_map is not None:
                context += at(first_map[at(first[item])])
            if second_map is not None:
                context += at(second_map[at(second[item])])
            if previous_map is not None:
                context += at(previous_map[at(recent[item])])
            state = turned[lane]
            slot = state & at(MASK)
            token = at(flat_slots[(context << at(PROBABILITY_BITS)) | slot])
            cell = context * size + token
            symbol = at(flat_symbols[cell])
            recent[item + at(LANES)] = token
            flat_counts[cell] += 1
            state = (symbol & at(0xFFFF)) * (state >> at(PROBABILITY_BITS)) + slot - (symbol >> at(16))
            longer = (state << at(16)) | at(words[position])
            short = state < at(LOW)
            turned[lane] = longer if short else state
            position += at(short)
        begin += at(LANES)
    for lane in range(LANES):
        states[(cursor[1] + at(lane)) & at(LANE_MASK)] = turned[lane]
    cursor[0], cursor[1] = position, (cursor[1] + count) & at(LANE_MASK)


@njit(**SERIAL)
def _decode_raw(words, cursor, states, tokens, values, signed, direct_bits, leading_bits):
    """The values of tokens, with the raw bits that some of them have."""
    direct = 1 << direct_bits
    largest = np.uint8(0)
    for i in range(len(tokens)):
        token = np.int32(tokens[i])
        values[i] = ((token >> 1) ^ -(token & 1)) if signed else token
        largest = max(largest, tokens[i])
    if largest < direct:
        return
    long = np.empty(len(tokens) + 1, np.uint32)
    found = at(0)
    for i in range(at(len(tokens))):
        long[found] = i
        found += at(tokens[i] >= direct)
    position, lane, last = cursor[0], cursor[1], at(len(words) - LANES)
    for j in range(found):
        i = at(long[j])
        token = np.int64(tokens[i]) - direct
        left = (token >> leading_bits) + direct_bits - leading_bits
        value = at((token & ((1 << leading_bits) - 1)) | (1 << leading_bits)) << at(left)
        left, shift = at(left), at(0)
        position = min(position, last)
        # A piece may have no bits and then changes nothing, so that there are nearly always as many.
        for _ in range(2 if left <= at(2 * PROBABILITY_BITS) else MOST_PIECES):
            width = min(left - shift, at(PROBABILITY_BITS))
            rest = at(PROBABILITY_BITS) - width
            state = states[lane]
            slot = state & at(MASK)
            value |= (slot >> rest) << shift
            state = ((state >> at(PROBABILITY_BITS)) << rest) | (slot & ((at(1) << rest) - at(1)))
            longer = (state << at(16)) | at(words[position])
            short = state < at(LOW)
            states[lane] = longer if short else state
            position += at(short)
            lane = (lane + at(width > at(0))) & at(LANE_MASK)
            shift += width
        value = np.int64(value)
        values[i] = ((value >> 1) ^ -(value & 1)) if signed else value
    cursor[0], cursor[1] = position, lane


@njit(**SERIAL)
def _decode(
    words,
    cursor,
    states,
    recent,
    values,
    counts,
    built_at,
    symbols,
    slots,
    first,
    second,
    first_map,
    second_map,
    previous_map,
    signed,
    direct_bits,
    leading_bits,
):
    """All there is to do for a column's values. In one call, since entering compiled code takes microseconds."""
    _decode_tokens(
        words,
        cursor,
        states,
        recent,
        counts,
        symbols,
        slots,
        first,
        second,
        first_map,
        second_map,
        previous_map,
    )
    if len(values):
        _decode_raw(words, cursor, states, recent[LANES:], values, signed, direct_bits, leading_bits)
    _rebuild(counts, built_at, symbols, slots)


@njit(**SERIAL)
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


@njit(**SERIAL)
def _rebuild(counts, built_at, symbols, slots):
    """Bring the tables up to the counts; ``slots`` too unless it is None."""
    contexts, size = counts.shape
    own = np.empty(contexts, np.int64)
    for context in range(contexts):
        total = 0
        for symbol in range(size):
            total += counts[context, symbol]
        own[context] = total
    everything = own.sum()
    shared = np.zeros(size, np.int64)
    parent = np.empty(size, np.int64)
    weights = np.empty(size, np.int64)
    frequencies = np.empty(size, np.int64)
    idle = True
    for context in range(contexts):
        grown = own[context] * 4 >= built_at[context, 0] * 5 + 4
        if not grown and everything < 2 * built_at[context, 1] and built_at[context, 0] >= 0:
            continue
        if idle:
            idle = False
            for row in range(contexts):
                for symbol in range(size):
                    shared[symbol] += counts[row, symbol]
            for symbol in range(size):
                shared[symbol] = shared[symbol] * 256 + 4096 // (symbol + 2)
            _distribute(shared, parent)
        built_at[context, 0] = own[context]
        built_at[context, 1] = max(everything, 64)
        for symbol in range(size):
            weights[symbol] = counts[context, symbol] * ONE + parent[symbol] * _PARENT_WEIGHT
        _distribute(weights, frequencies)
        start = 0
        for symbol in range(size):
            symbols[context, symbol] = (start << 16) | frequencies[symbol]
            start += frequencies[symbol]
        if slots is not None:
            _fill_slots(symbols[context : context + 1], slots[context : context + 1])


@njit(**SERIAL)
def _fill_slots(symbols, slots):
    """The symbol of each slot, from where each symbol starts and how many slots it has."""
    for context in range(len(symbols)):
        for symbol in range(symbols.shape[1]):
            start = np.int64(symbols[context, symbol] >> 16)
            slots[context, start : start + np.int64(symbols[context, symbol] & 0xFFFF)] = symbol


@njit(**SERIAL)
def _fade(counts, built_at):
    for context in range(len(counts)):
        own = counts[context].sum()
        if own > _MEMORY:
            for symbol in range(counts.shape[1]):
                counts[context, symbol] = counts[context, symbol] * _MEMORY // own
            own = counts[context].sum()
        built_at[context, 0] = own
