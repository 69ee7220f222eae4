"""The entropy coding of spherical harmonics above degree 0.

Most Gaussians have few or none left after rounding. So each has a *class* first, the bit length of its largest
magnitude; class 0 has nothing more to code. Then, group by group of coefficients, a *mask* says which coefficients have
a colour that is not zero. A coefficient in the mask is one *triple* if its three colours are within one step of
zero, and otherwise an escape and three values, of which luma goes first and the others look at it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from compress.codecs.rans import Alphabet, Column, Decoder, Encoder, bit_length, buckets

GROUPS = (3, 5, 4, 3)
"""Coefficients that share a mask; degrees 1, 2 and 3 end with the first, second and last group."""
KINDS = 4
"""Contexts tell the classes 1 to 4 apart; higher ones count as the last."""
DENSITIES = 5
"""Of a Gaussian's masks so far, see :func:`_mask_contexts`."""
COUNTS = 4
"""Of a Gaussian's coefficients that are not zero, see :func:`_triple_contexts`."""
ESCAPE = 26
"""The token of triples that hold a magnitude above 1; the others are below."""
CROWDS = 3
"""Of a Gaussian's escapes, see :func:`_escapes`."""
VALUE_KINDS = 7
"""Contexts of values tell the classes 2 to 8 apart."""

_EACH = buckets(list(range(1, 256)))
"""The map of a context that is given as a number."""
_VALUE = Alphabet(5, 1, 14, signed=True)


class Harmonics:
    """The columns of a file's harmonics.

    Args:
        classes: number of classes in use, 1 to 16.
        coefficients: harmonics above degree 0: 0, 3, 8 or 15.
    """

    def __init__(self, classes: int, coefficients: int):
        fineness = buckets(list(range(1, 17)), 4)
        self.classes = Column(Alphabet(4, 0, 4), classes, first=fineness, previous=buckets([1, 2, 3]))
        self.groups = [(begin, begin + size) for begin, size in _bounds() if begin < coefficients]
        self.masks = [_given(Alphabet(end - begin, 0, end - begin), KINDS * DENSITIES) for begin, end in self.groups]
        self.triples = _given(Alphabet(5, 0, 5), KINDS * COUNTS, ESCAPE + 1)
        self.luma = _given(_VALUE, VALUE_KINDS * CROWDS)
        self.others = [_given(_VALUE, VALUE_KINDS * 5) for _ in range(2)]

    def begin(self) -> None:
        """Start a new stream."""
        for column in (self.classes, *self.masks, self.triples, self.luma, *self.others):
            column.begin()

    def code(self, coder: Encoder | Decoder, sh: np.ndarray, fineness: np.ndarray | None) -> None:
        """Append a chunk of ``(n, 3 K)`` harmonics, or fill in a chunk of zeros."""
        encoding = isinstance(coder, Encoder)
        kinds = sh_classes(sh).astype(np.int64) if encoding else np.empty(len(sh), np.int64)
        coder.integers(self.classes, kinds, fineness)
        rows = np.flatnonzero(kinds)
        kinds = kinds[rows]
        masks = np.zeros(len(rows), np.int64)
        for (begin, end), column in zip(self.groups, self.masks, strict=True):
            group = _group_masks(sh, rows, begin, end) if encoding else np.empty(len(rows), np.int64)
            coder.integers(column, group, _mask_contexts(kinds, masks, begin))
            masks |= group << begin
        members, coefficients = _members(masks)
        triples = _triples(sh, rows, members, coefficients) if encoding else np.empty(len(members), np.int64)
        coder.integers(self.triples, triples, _triple_contexts(kinds, masks, members))
        if not encoding:
            _put_triples(sh, rows, members, coefficients, triples)
        places, kinds, crowds = _escapes(rows, kinds, members, coefficients, triples, sh.shape[1])
        flat = sh.reshape(-1)
        luma, *others = (flat[places + colour].astype(np.int64) for colour in range(3))
        coder.integers(self.luma, luma, crowds)
        beside = _beside(kinds, luma)
        for column, values in zip(self.others, others, strict=True):
            coder.integers(column, values, beside)
        if not encoding:
            _put_values(flat, places, luma, *others)

    @staticmethod
    def largest_class(sh: np.ndarray) -> int:
        return int(sh_classes(sh).max(initial=0))


def _bounds() -> list[tuple[int, int]]:
    return [(sum(GROUPS[:index]), size) for index, size in enumerate(GROUPS)]


def _given(alphabet: Alphabet, contexts: int, size: int | None = None) -> Column:
    """A column whose context is handed in as a number below ``contexts``."""
    return Column(alphabet, size, first=np.minimum(_EACH, contexts - 1).astype(np.uint16))


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


@njit(cache=True, nogil=True)
def _group_masks(sh, rows, begin, end):
    """``(n,)`` int64: bit ``k`` tells whether coefficient ``begin + k`` of a row has a colour that is not zero."""
    masks = np.empty(len(rows), np.int64)
    for j in range(len(rows)):
        row = rows[j]
        mask = 0
        for k in range(begin, end):
            some = sh[row, 3 * k] | sh[row, 3 * k + 1] | sh[row, 3 * k + 2]
            mask |= np.int64(some != 0) << (k - begin)
        masks[j] = mask
    return masks


@njit(cache=True, nogil=True, inline="always")
def _ones(mask):
    """How many of 15 bits are set."""
    mask = mask - ((mask >> 1) & 0x5555)
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
    return (((mask + (mask >> 4)) & 0x0F0F) * 0x0101 >> 8) & 0xF


@njit(cache=True, nogil=True)
def _mask_contexts(kinds, masks, known):
    """By the class and by the bit length of how many eighths of the first ``known`` bits of the mask are ones."""
    contexts = np.empty(len(kinds), np.uint8)
    for j in range(len(kinds)):
        density = min(bit_length(8 * _ones(masks[j]) // max(known, 1)), DENSITIES - 1)
        contexts[j] = min(kinds[j] - 1, KINDS - 1) * DENSITIES + density
    return contexts


@njit(cache=True, nogil=True)
def _members(masks):
    """The coefficients in the masks, coefficient by coefficient: index of the mask, and of the coefficient."""
    count = 0
    for j in range(len(masks)):
        count += _ones(masks[j])
    members = np.empty(count + 1, np.int64)
    coefficients = np.empty(count + 1, np.int64)
    found = 0
    for k in range(15):
        for j in range(len(masks)):
            # Written always and kept if the bit is set: there is nothing to mispredict.
            members[found] = j
            coefficients[found] = k
            found += (masks[j] >> k) & 1
    return members[:count], coefficients[:count]


@njit(cache=True, nogil=True)
def _triple_contexts(kinds, masks, members):
    """By the class and by how full the mask is."""
    contexts = np.empty(len(members), np.uint8)
    for j in range(len(members)):
        member = members[j]
        contexts[j] = min(kinds[member] - 1, KINDS - 1) * COUNTS + (_ones(masks[member]) >> 2)
    return contexts


@njit(cache=True, nogil=True)
def _triples(sh, rows, members, coefficients):
    """Tokens: the three colours plus 1 are the digits to base 3, and 13, which is nothing at all, is left out."""
    tokens = np.empty(len(members), np.int64)
    for j in range(len(members)):
        row, column = rows[members[j]], 3 * coefficients[j]
        one, two, three = np.int64(sh[row, column]), np.int64(sh[row, column + 1]), np.int64(sh[row, column + 2])
        if max(abs(one), abs(two), abs(three)) > 1:
            tokens[j] = ESCAPE
        else:
            digits = 9 * (one + 1) + 3 * (two + 1) + three + 1
            tokens[j] = digits - (digits > 13)
    return tokens


@njit(cache=True, nogil=True)
def _put_triples(sh, rows, members, coefficients, tokens):
    """The inverse of :func:`_triples`; zero where it was an escape."""
    for j in range(len(members)):
        if tokens[j] < ESCAPE:
            row, column = rows[members[j]], 3 * coefficients[j]
            digits = tokens[j] + (tokens[j] >= 13)
            sh[row, column] = digits // 9 - 1
            sh[row, column + 1] = digits // 3 % 3 - 1
            sh[row, column + 2] = digits % 3 - 1


@njit(cache=True, nogil=True)
def _escapes(rows, kinds, members, coefficients, triples, width):
    """Where the escapes are in flat harmonics, the kinds of their Gaussians, and the contexts of their luma.

    Those depend on whether the Gaussian has one escape, up to four, or more.
    """
    count = 0
    crowd = np.zeros(len(rows), np.uint8)
    for j in range(len(members)):
        escaped = triples[j] == ESCAPE
        count += escaped
        crowd[members[j]] += escaped
    places = np.empty(count, np.int64)
    own = np.empty(count, np.uint8)
    contexts = np.empty(count, np.uint8)
    found = 0
    for j in range(len(members)):
        if triples[j] == ESCAPE:
            member = members[j]
            places[found] = rows[member] * width + 3 * coefficients[j]
            own[found] = min(max(kinds[member] - 2, 0), VALUE_KINDS - 1)
            contexts[found] = own[found] * CROWDS + (crowd[member] > 1) + (crowd[member] > 4)
            found += 1
    return places, own, contexts


@njit(cache=True, nogil=True)
def _beside(kinds, luma):
    """The contexts of the other colours: luma in steps that grow with the kind."""
    contexts = np.empty(len(kinds), np.uint8)
    for j in range(len(kinds)):
        contexts[j] = 5 * kinds[j] + min(max(luma[j] >> kinds[j], -2), 2) + 2
    return contexts


@njit(cache=True, nogil=True)
def _put_values(flat, places, first, second, third):
    for j in range(len(places)):
        place = places[j]
        flat[place], flat[place + 1], flat[place + 2] = first[j], second[j], third[j]
