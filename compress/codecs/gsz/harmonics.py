"""The entropy coding of spherical harmonics above degree 0.

Most Gaussians have few or none left after rounding. So each has a *class* first, the bit length of its largest
magnitude. Class 0 has nothing to code. In class 1 the three colours of a coefficient are one symbol of 27. In the
others each harmonic is a symbol of its own, in the context of the class, of the magnitudes so far, and of the green
one of the same coefficient, which goes first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from compress.codecs.rans import (
    LANE_MASK,
    LOW,
    MASK,
    PROBABILITY_BITS,
    Alphabet,
    Column,
    Decoder,
    Encoder,
    Tables,
    bit_length,
    buckets,
    find_symbol,
    next_word,
)

LOW_CLASS = 1
"""The class whose coefficients are coded as colour triples."""
TRIPLES = 27
HIGH_CLASSES = 3
"""Classes above LOW_CLASS that have contexts of their own; the last one holds all larger ones too."""
ENERGIES = 12
PLACES = 11
"""One for green, and five for red and for blue, by green."""

_DIRECT, _LEADING, _BITS = 5, 1, 14
_ALPHABET = Alphabet(_DIRECT, _LEADING, _BITS, signed=True)


class Harmonics:
    """The tables of a file's harmonics.

    Args:
        classes: number of classes in use, 1 to 16.
    """

    def __init__(self, classes: int):
        fineness = buckets(list(range(1, 17)), 4)
        self.classes = Column(Alphabet(4, 0, 4), classes, first=fineness, previous=buckets([1, 2, 3]))
        self.triples = Tables(4 * 3, TRIPLES)
        self.values = Tables(HIGH_CLASSES * ENERGIES * PLACES, _ALPHABET.size)

    def begin(self) -> None:
        """Start a new stream."""
        self.classes.begin()
        self.triples.forget()
        self.values.forget()

    def code(self, coder: Encoder | Decoder, sh: np.ndarray, fineness: np.ndarray | None) -> None:
        """Append a chunk of ``(n, 3 K)`` harmonics, or fill in a chunk of zeros."""
        encoding = isinstance(coder, Encoder)
        kinds = sh_classes(sh).astype(np.int64) if encoding else np.empty(len(sh), np.int64)
        classes = coder.integers(self.classes, kinds, fineness)
        low = np.flatnonzero(classes == LOW_CLASS)
        high = np.flatnonzero(classes > LOW_CLASS)
        if isinstance(coder, Encoder):
            buffer, length = coder.room(sh.shape[1] * (len(low) + 2 * len(high)))
            length = _model_triples(buffer, length, sh, low, self.triples.counts, self.triples.symbols)
            length = _model_values(buffer, length, sh, high, classes, self.values.counts, self.values.symbols)
            coder.advance(length)
        else:
            stream = (coder.words, coder.cursor, coder.states)
            _decode_triples(*stream, sh, low, self.triples.counts, self.triples.symbols, self.triples.guide)
            _decode_values(*stream, sh, high, classes, self.values.counts, self.values.symbols, self.values.guide)
        self.triples.learn()
        self.values.learn()

    @staticmethod
    def largest_class(sh: np.ndarray) -> int:
        return int(sh_classes(sh).max(initial=0))


@njit(cache=True, nogil=True)
def sh_classes(sh):
    """``(N,)`` bit lengths of the largest magnitude of each row, 0 to 15."""
    classes = np.empty(len(sh), np.uint8)
    for i in range(len(sh)):
        union = 0
        for j in range(sh.shape[1]):
            union |= abs(int(sh[i, j]))
        classes[i] = bit_length(union)
    return classes


@njit(cache=True, nogil=True, inline="always")
def _band(coefficient):
    return 0 if coefficient < 3 else (1 if coefficient < 8 else 2)


@njit(cache=True, nogil=True)
def _model_triples(buffer, length, sh, rows, counts, symbols):
    seen = np.zeros(len(rows), np.int64)
    used = np.zeros(counts.shape, np.int64)
    for k in range(sh.shape[1] // 3):
        for j in range(len(rows)):
            row = rows[j]
            triple = 9 * (sh[row, 3 * k] + 1) + 3 * (sh[row, 3 * k + 1] + 1) + sh[row, 3 * k + 2] + 1
            triple = (triple + TRIPLES - TRIPLES // 2) % TRIPLES  # Zero comes first.
            context = 3 * min(seen[j], 3) + _band(k)
            buffer[length] = symbols[context, triple]
            length += 1
            used[context, triple] += 1
            seen[j] += triple != 0
    counts += used
    return length


@njit(cache=True, nogil=True)
def _decode_triples(words, cursor, states, sh, rows, counts, symbols, guide):
    seen = np.zeros(len(rows), np.int64)
    position, lane = cursor[0], cursor[1]
    for k in range(sh.shape[1] // 3):
        for j in range(len(rows)):
            context = 3 * min(seen[j], 3) + _band(k)
            state = states[lane]
            triple, start, frequency = find_symbol(symbols, guide, context, state & MASK)
            state = frequency * (state >> PROBABILITY_BITS) + (state & MASK) - start
            word = next_word(words, position)
            short = np.int64(state < LOW)
            position += short
            states[lane] = (state << (short << 4)) | (word & -short)
            lane = (lane + 1) & LANE_MASK
            counts[context, triple] += 1
            if triple != 0:
                seen[j] += 1
                triple = (triple + TRIPLES // 2) % TRIPLES
                sh[rows[j], 3 * k] = triple // 9 - 1
                sh[rows[j], 3 * k + 1] = triple // 3 % 3 - 1
                sh[rows[j], 3 * k + 2] = triple % 3 - 1
    cursor[0], cursor[1] = position, lane


_SEEN = 512
"""Sums of magnitudes below this have their level in a table."""


def _levels() -> np.ndarray:
    """``(46, _SEEN)`` uint8: the level of the mean of so many magnitudes that sum up to so much; see :func:`_level`."""
    coded, energy = np.arange(46)[:, None], np.arange(_SEEN)[None]
    levels = np.minimum(np.ceil(np.log2(8 * energy // np.maximum(coded, 1) + 1)), ENERGIES - 2)
    return np.where(coded == 0, ENERGIES - 1, levels).astype(np.uint8)


_LEVELS = _levels()


@njit(cache=True, nogil=True, inline="always")
def _context(kind, energy, coded, colour, green):
    """Context of a harmonic: the Gaussian's class, the mean magnitude so far, and the green one of the coefficient.

    ``energy`` is the sum of the ``coded`` magnitudes so far. Green is seen in steps that grow with the magnitude.
    """
    if energy < _SEEN:
        level = np.int64(_LEVELS[coded, energy])
    else:
        level = min(bit_length((8 * energy) // coded), ENERGIES - 2)
    place = 0
    if colour > 0:
        place = 5 * colour - 4 + min(max(green >> max(level - 4, 0), -2), 2) + 2
    return ((min(kind - LOW_CLASS, HIGH_CLASSES) - 1) * ENERGIES + level) * PLACES + place


@njit(cache=True, nogil=True)
def _model_values(buffer, length, sh, rows, classes, counts, symbols):
    """Green first, then red and blue in the light of green."""
    energy = np.zeros(len(rows), np.int64)
    direct = 1 << _DIRECT
    used = np.empty((sh.shape[1] * len(rows), 2), np.uint16)
    coded = 0
    for t in range(sh.shape[1]):
        k, colour = t // 3, t % 3
        column = 3 * k + (1 if colour == 0 else (0 if colour == 1 else 2))
        for j in range(len(rows)):
            row = rows[j]
            value = np.int64(sh[row, column])
            folded = (value << 1) ^ (value >> 63)
            context = _context(np.int64(classes[row]), energy[j], t, colour, np.int64(sh[row, 3 * k + 1]))
            left = 0
            token = folded
            if folded >= direct:
                bits = bit_length(folded)
                left = bits - 1 - _LEADING
                token = direct + ((bits - _DIRECT - 1) << _LEADING) + (folded >> left) - (1 << _LEADING)
            buffer[length] = symbols[context, token]
            length += 1
            used[coded, 0], used[coded, 1] = context, token
            coded += 1
            if left > 0:
                rest = PROBABILITY_BITS - left
                buffer[length] = ((folded & ((1 << left) - 1)) << (rest + 16)) | (1 << rest)
                length += 1
            energy[j] += abs(value)
    for i in range(coded):
        counts[used[i, 0], used[i, 1]] += 1
    return length


@njit(cache=True, nogil=True)
def _decode_values(words, cursor, states, sh, rows, classes, counts, symbols, guide):
    energy = np.zeros(len(rows), np.int64)
    greens = np.zeros(len(rows), np.int64)
    kinds = np.empty(len(rows), np.int64)
    for j in range(len(rows)):
        kinds[j] = classes[rows[j]]
    position, lane = cursor[0], cursor[1]
    direct = 1 << _DIRECT
    for t in range(sh.shape[1]):
        k, colour = t // 3, t % 3
        column = 3 * k + (1 if colour == 0 else (0 if colour == 1 else 2))
        for j in range(len(rows)):
            context = _context(kinds[j], energy[j], t, colour, greens[j])
            state = states[lane]
            token, start, frequency = find_symbol(symbols, guide, context, state & MASK)
            state = frequency * (state >> PROBABILITY_BITS) + (state & MASK) - start
            word = next_word(words, position)
            short = np.int64(state < LOW)
            position += short
            states[lane] = (state << (short << 4)) | (word & -short)
            lane = (lane + 1) & LANE_MASK
            counts[context, token] += 1
            folded = token
            if token >= direct:
                token -= direct
                left = (token >> _LEADING) + _DIRECT - _LEADING
                folded = ((token & ((1 << _LEADING) - 1)) | (1 << _LEADING)) << left
                rest = PROBABILITY_BITS - left
                state = states[lane]
                folded |= (state & MASK) >> rest
                state = ((state >> PROBABILITY_BITS) << rest) | (state & ((1 << rest) - 1))
                if state < LOW:
                    state = (state << 16) | next_word(words, position)
                    position += 1
                states[lane] = state
                lane = (lane + 1) & LANE_MASK
            if colour == 0:
                greens[j] = 0
            if folded != 0:
                value = (folded >> 1) ^ -(folded & 1)
                sh[rows[j], column] = value
                energy[j] += abs(value)
                if colour == 0:
                    greens[j] = value
    cursor[0], cursor[1] = position, lane
