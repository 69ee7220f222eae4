"""The tables of an entropy coder, which learn as they go, and the columns that use them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from gsz.coding.alphabet import LANES, MAX_TOKENS, PROBABILITY_BITS, Alphabet
from gsz.kernels import inline, kernel

ONE = 1 << PROBABILITY_BITS
"""What the frequencies of a context sum to."""
GUIDE_BITS = 9
"""Of a slot, so many high bits are looked up, and tell a decoder the first token that it may belong to."""
LOW = 1 << 16
"""Least value of a state between symbols; a state starts here in the encoder and must end here in the decoder."""

_PARENT_WEIGHT = 24
"""How many counted symbols the shared distribution weighs in that of a context."""
_MEMORY = 1 << 14
"""Counted symbols a context keeps when a new stream begins, so that it can follow a change of statistics."""
_RUN = 16
"""Pieces of a guide that are written at once."""
_NEVER = np.uint64(1 << 63)
"""The number of symbols at which a context that was never built was built."""

ANY = np.zeros(MAX_TOKENS, np.uint8)
"""The map of a column whose contexts do not look at the column itself: every token means the same."""
NO_GUIDE = np.empty(0, np.uint8)

at = np.uint64
"""Kernels index by unsigned numbers, because a signed index costs Numba a test for its being negative."""


class StreamError(ValueError):
    """The words of a stream do not end where their symbols do: the stream is damaged."""


class Tables:
    """The learning distributions of tokens below ``size`` in ``contexts`` contexts.

    Attributes:
        counts: how often each token occurred in each context.
        symbols: for each token of each context, ``start << 16 | frequency``.
    """

    def __init__(self, contexts: int, size: int):
        self.size = size
        self.counts = np.zeros((contexts, size), np.uint64)
        self.symbols = np.zeros((contexts, size), np.uint32)
        self._built_at = np.full((contexts, 3), _NEVER)
        self._scratch = np.empty(2 * size, np.uint64)
        self._line = np.empty((1 << GUIDE_BITS) + _RUN, np.uint8)
        # Kernels take these views, which compile and are passed faster.
        self.flat_counts, self.flat_symbols = self.counts.reshape(-1), self.symbols.reshape(-1)
        self.flat_guide = NO_GUIDE
        self.rebuild()

    def begin_decoding(self) -> None:
        """Have ``flat_guide``, for each context and each value of a slot's high bits the first token that has such
        slots, and keep it up to date.
        """
        self.flat_guide = np.empty(len(self.symbols) << GUIDE_BITS, np.uint8)
        self._built_at[:] = _NEVER
        self.rebuild()

    def rebuild(self) -> None:
        """Bring the distributions of those contexts up to the counts that have learnt enough since they were."""
        built_at = self._built_at.reshape(-1)
        _rebuild(self.flat_counts, built_at, self.flat_symbols, self.flat_guide, self._line, self._scratch, self.size)

    def fade(self) -> None:
        """Weaken old counts, at the start of a stream with statistics of its own."""
        own = self.counts.sum(axis=1)
        many = own > _MEMORY
        self.counts[many] = self.counts[many] * np.uint64(_MEMORY) // own[many, None]
        self._built_at[:, 1] = self.counts.sum(axis=1)


class Column:
    """One column of integers: its alphabet, its tables, and how the tables are chosen.

    The context of an item is a number that the caller has for it, below ``contexts``, plus what a map makes of this
    column's token :data:`LANES` items before.

    Args:
        size: tokens in use; by default all of the alphabet's.
        previous: ``(256,)`` uint8 map.
    """

    def __init__(self, alphabet: Alphabet, size: int | None = None, contexts: int = 1, previous: np.ndarray = ANY):
        self.alphabet = alphabet
        self.size = min(size or alphabet.size, alphabet.size)
        self.previous = previous
        self.history = np.zeros(LANES, np.uint8)
        self._contexts = contexts + int(previous.max())

    @cached_property
    def tables(self) -> Tables:
        return Tables(self._contexts, self.size)

    @property
    def constant(self) -> bool:
        """Whether all values are 0. The only symbol has all frequencies, so that coding it changes nothing."""
        return self.size == 1

    def begin(self) -> None:
        """Start a new stream."""
        self.history[:] = 0
        self.tables.fade()


@inline
def _share(scratch, begin, size):
    """Turn ``size`` weights into frequencies in proportion to them, that sum to :data:`ONE`."""
    total = most = at(0)
    for place in range(begin, begin + size):
        total += scratch[place]
        most = scratch[place] if scratch[place] > most else most
    heaviest = begin
    while scratch[heaviest] < most:
        heaviest += at(1)
    # A processor divides integers one by one and slowly. A product with the reciprocal, of at most ONE, is at most one
    # from the quotient, which the remainder tells.
    spare = at(ONE) - size
    rate = np.float64(spare) / np.float64(total)
    left = spare
    for place in range(begin, begin + size):
        weight = scratch[place]
        quotient = at(np.int64(np.int32(np.float64(weight) * rate)))
        remainder = np.int64(weight * spare - quotient * total)
        quotient += at(remainder >= np.int64(total)) - at(remainder < 0)
        scratch[place] = at(1) + quotient
        left -= quotient
    scratch[heaviest] += left


@inline
def _lay_guide(symbols, row, size, line):
    """Fill in, for each piece of a context's slots, the token that its first slot belongs to.

    ``line`` has room for :data:`_RUN` pieces more. Most tokens have so few that writing too many, which the next tokens
    write over, is faster than to see where to stop.
    """
    width = at(PROBABILITY_BITS - GUIDE_BITS)
    for symbol in range(size):
        cell = at(symbols[row + symbol])
        start = (cell >> at(16)) + (at(1) << width) - at(1)
        piece, end = start >> width, (start + (cell & at(0xFFFF))) >> width
        for place in range(piece, piece + at(_RUN)):
            line[place] = symbol
        for place in range(piece + at(_RUN), end):
            line[place] = symbol


@kernel
def _rebuild(counts, built_at, symbols, guide, line, scratch, size):
    """Bring ``symbols``, and ``guide`` where there are any, up to ``counts``. All arrays are flat.

    Of a context, ``built_at`` has its number of symbols, the same when it was last built, and that of all contexts
    then. ``scratch`` has room for ``2 * size`` numbers: the parent, and the context at hand; for ``line`` see
    :func:`_lay_guide`.
    """
    size = at(size)
    contexts = at(len(counts)) // size
    everything = place = at(0)
    for context in range(contexts):
        own = at(0)
        for _ in range(size):
            own += counts[place]
            place += at(1)
        built_at[at(3) * context] = own
        everything += own
    parent_is_known = False
    for context in range(contexts):
        mark = at(3) * context
        own, before = built_at[mark], built_at[mark + at(1)]
        if before != _NEVER and at(4) * own < at(5) * before + at(4) and everything < at(2) * built_at[mark + at(2)]:
            continue
        built_at[mark + at(1)], built_at[mark + at(2)] = own, (everything if everything > at(64) else at(64))
        row = context * size
        # The parent goes first, once, as if it were a context of its own: that of all symbols together.
        if not parent_is_known:
            for symbol in range(size):
                scratch[symbol] = at(0)
            for other in range(contexts):
                for symbol in range(size):
                    scratch[symbol] += counts[other * size + symbol]
            for symbol in range(size):
                scratch[symbol] = scratch[symbol] * at(256) + at(4096) // (symbol + at(2))
            _share(scratch, at(0), size)
            parent_is_known = True
        for symbol in range(size):
            scratch[size + symbol] = counts[row + symbol] * at(ONE) + scratch[symbol] * at(_PARENT_WEIGHT)
        _share(scratch, size, size)
        start = at(0)
        for symbol in range(size):
            frequency = scratch[size + symbol]
            symbols[row + symbol] = start << at(16) | frequency
            start += frequency
        if len(guide) > 0:
            _lay_guide(symbols, row, size, line)
            for piece in range(at(1) << at(GUIDE_BITS)):
                guide[(context << at(GUIDE_BITS)) | piece] = line[piece]
