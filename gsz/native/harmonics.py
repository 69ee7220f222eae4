"""The entropy coding of spherical harmonics above degree 0.

Most Gaussians have few or none left after rounding. So each has a *class* first, the bit length of its largest
magnitude; class 0 has nothing more to code. Then, group by group of coefficients, a *mask* says which coefficients have
a colour that is not zero. A coefficient in the mask is one *triple* if its three colours are within one step of
zero, and otherwise an escape and three values, of which luma goes first and the others look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from gsz.coding.rans import Alphabet, Column, Decoder, Encoder, at, bit_length, buckets
from gsz.kernels import INLINE, SERIAL

GROUPS = (3, 5, 4, 3)
"""Coefficients that share a mask; degrees 1, 2 and 3 end with the first, second and last group."""
COEFFICIENTS = sum(GROUPS)
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


@dataclass(frozen=True)
class Palette:
    """What the symbols of harmonics stand for.

    Attributes:
        fill: puts the colours of ``(n, 3)`` int16 symbols of ``(n,)`` uint8 fineness into ``(n, 1, 3)`` float32.
        finenesses: how many finenesses there are.
    """

    fill: Callable[[np.ndarray, np.ndarray, np.ndarray], None]
    finenesses: int

    @cached_property
    def triples(self) -> np.ndarray:
        """``(finenesses * ESCAPE, 3)`` float32, the colours of triples without escapes."""
        digits = np.delete(np.arange(ESCAPE + 1), ESCAPE // 2)
        symbols = np.stack([digits // 9, digits // 3 % 3, digits % 3], axis=1).astype(np.int16) - np.int16(1)
        fineness = np.repeat(np.arange(self.finenesses, dtype=np.uint8), ESCAPE)
        return self.colours(np.tile(symbols, (self.finenesses, 1)), fineness)

    def colours(self, symbols: np.ndarray, fineness: np.ndarray) -> np.ndarray:
        """The ``(n, 3)`` float32 that ``(n, 3)`` symbols stand for."""
        colours = np.empty((len(symbols), 1, 3), np.float32)
        self.fill(colours, symbols, fineness)
        return colours[:, 0]


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

    def encode(self, coder: Encoder, sh: np.ndarray, fineness: np.ndarray | None) -> None:
        """Append a chunk of ``(n, 3 K)`` int16 harmonics."""
        classes = sh_classes(sh)
        coder.integers(self.classes, classes, fineness)
        rows, kinds = _present(classes)
        masks = np.zeros(len(rows), np.uint16)
        for (begin, end), column in zip(self.groups, self.masks, strict=True):
            group = _group_masks(sh, rows, begin, end)
            coder.integers(column, group, _mask_contexts(kinds, masks, begin))
            _add_group(masks, group, begin)
        members, contexts, bounds = _members(kinds, masks)
        triples = coder.integers(self.triples, _triples(sh, rows, members, bounds), contexts)
        escaped, kinds, crowds = _escapes(kinds, members, triples)
        luma, *others = _escaped_values(sh, rows, members, triples, bounds, len(escaped))
        coder.integers(self.luma, luma, crowds)
        beside = _beside(kinds, luma)
        for column, values in zip(self.others, others, strict=True):
            coder.integers(column, values, beside)

    def decode(self, coder: Decoder, sh_rest: np.ndarray, fineness: np.ndarray, palette: Palette) -> None:
        """Fill in a chunk of ``(n, K, 3)`` float32 harmonics of ``(n,)`` uint8 ``fineness``."""
        rows, kinds = _present(coder.tokens(self.classes, len(sh_rest), fineness))
        masks = np.zeros(len(rows), np.uint16)
        for (begin, _), column in zip(self.groups, self.masks, strict=True):
            _add_group(masks, coder.tokens(column, len(rows), _mask_contexts(kinds, masks, begin)), begin)
        members, contexts, bounds = _members(kinds, masks)
        triples = coder.tokens(self.triples, len(members), contexts)
        escaped, kinds, crowds = _escapes(kinds, members, triples)
        values = np.empty((3, len(escaped)), np.int32)
        coder.integers(self.luma, values[0], crowds)
        beside = _beside(kinds, values[0])
        for column, others in zip(self.others, values[1:], strict=True):
            coder.integers(column, others, beside)
        symbols, finest = _gathered(values, rows, escaped, fineness)
        colours = np.concatenate([palette.triples, palette.colours(symbols, finest)])
        flat = sh_rest.reshape(len(sh_rest), -1)
        _place(flat, rows, members, triples, bounds, fineness, colours, len(palette.triples))


def _bounds() -> list[tuple[int, int]]:
    return [(sum(GROUPS[:index]), size) for index, size in enumerate(GROUPS)]


def _given(alphabet: Alphabet, contexts: int, size: int | None = None) -> Column:
    """A column whose context is handed in as a number below ``contexts``."""
    return Column(alphabet, size, first=np.minimum(_EACH, contexts - 1).astype(np.uint16))


@njit(**SERIAL)
def sh_classes(sh):
    """``(N,)`` bit lengths of the largest magnitude of each row, 0 to 15."""
    classes = np.empty(len(sh), np.uint8)
    for i in range(len(sh)):
        union = 0
        for j in range(sh.shape[1]):
            union |= abs(int(sh[i, j]))
        classes[i] = bit_length(union)
    return classes


@njit(**SERIAL)
def _present(classes):
    """The rows that have harmonics at all, uint16, and their classes."""
    rows = np.empty(len(classes) + 1, np.uint16)
    kinds = np.empty(len(classes) + 1, np.uint8)
    found = at(0)
    for i in range(len(classes)):
        # Written always and kept if there is something: there is nothing to mispredict.
        rows[found] = i
        kinds[found] = classes[i]
        found += at(classes[i] > 0)
    return rows[:found], kinds[:found]


@njit(**SERIAL)
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


@njit(**INLINE)
def _ones(mask):
    """How many of 15 bits are set."""
    mask = mask - ((mask >> 1) & 0x5555)
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
    return (((mask + (mask >> 4)) & 0x0F0F) * 0x0101 >> 8) & 0xF


@njit(**SERIAL)
def _add_group(masks, group, begin):
    """Put the masks of a group, which begins at coefficient ``begin``, into those of all."""
    for j in range(len(masks)):
        masks[j] |= np.uint16(group[j]) << np.uint16(begin)


@njit(**SERIAL)
def _mask_contexts(kinds, masks, known):
    """By the class and by the bit length of how many eighths of the first ``known`` bits of the mask are ones."""
    contexts = np.empty(len(kinds), np.uint8)
    known = np.int32(max(known, 1))
    for j in range(len(kinds)):
        eighths = np.int32(8) * np.int32(_ones(np.int32(masks[j])))
        density = 0
        for power in range(DENSITIES - 1):
            density += np.int32(eighths >= known << power)
        contexts[j] = min(kinds[j] - 1, KINDS - 1) * DENSITIES + density
    return contexts


@njit(**SERIAL)
def _members(kinds, masks):
    """The coefficients in the masks, coefficient by coefficient.

    Returns:
        Index of each one's mask, uint16; the contexts of their triples, which are by the class and by how full the
        mask is; and ``(16,)`` where the members of each coefficient begin.
    """
    count = 0
    own = np.empty(len(masks), np.uint8)
    for j in range(len(masks)):
        ones = _ones(np.int64(masks[j]))
        own[j] = min(kinds[j] - 1, KINDS - 1) * COUNTS + (ones >> 2)
        count += ones
    members = np.empty(count + 1, np.uint16)
    contexts = np.empty(count + 1, np.uint8)
    bounds = np.zeros(COEFFICIENTS + 1, np.int64)
    found = at(0)
    for k in range(COEFFICIENTS):
        for j in range(len(masks)):
            members[found] = j
            contexts[found] = own[j]
            found += at((masks[j] >> k) & 1)
        bounds[k + 1] = found
    return members[:count], contexts[:count], bounds


@njit(**SERIAL)
def _triples(sh, rows, members, bounds):
    """Tokens: the three colours plus 1 are the digits to base 3, and 13, which is nothing at all, is left out."""
    tokens = np.empty(len(members), np.int64)
    for k in range(COEFFICIENTS):
        for j in range(bounds[k], bounds[k + 1]):
            row = rows[members[j]]
            one, two, three = np.int64(sh[row, 3 * k]), np.int64(sh[row, 3 * k + 1]), np.int64(sh[row, 3 * k + 2])
            if max(abs(one), abs(two), abs(three)) > 1:
                tokens[j] = ESCAPE
            else:
                digits = 9 * (one + 1) + 3 * (two + 1) + three + 1
                tokens[j] = digits - (digits > 13)
    return tokens


@njit(**SERIAL)
def _escapes(kinds, members, triples):
    """Which masks the escapes belong to, the kinds of their Gaussians, and the contexts of their luma.

    Those depend on whether the Gaussian has one escape, up to four, or more.
    """
    escaped = np.empty(len(members) + 1, np.uint16)
    found = at(0)
    for j in range(len(members)):
        escaped[found] = members[j]
        found += at(triples[j] == ESCAPE)
    escaped = escaped[:found]
    crowd = np.zeros(len(kinds), np.uint8)
    for j in range(len(escaped)):
        crowd[escaped[j]] += 1
    own = np.empty(len(escaped), np.uint8)
    contexts = np.empty(len(escaped), np.uint8)
    for j in range(len(escaped)):
        own[j] = min(max(kinds[escaped[j]] - 2, 0), VALUE_KINDS - 1)
        contexts[j] = own[j] * CROWDS + (crowd[escaped[j]] > 1) + (crowd[escaped[j]] > 4)
    return escaped, own, contexts


@njit(**SERIAL)
def _gathered(values, rows, escaped, fineness):
    """``(n, 3)`` int16 symbols of ``(3, n)`` values, and the fineness of their Gaussians."""
    symbols = np.empty((values.shape[1], 3), np.int16)
    own = np.empty(values.shape[1], np.uint8)
    for j in range(values.shape[1]):
        own[j] = fineness[rows[escaped[j]]]
        for colour in range(3):
            symbols[j, colour] = values[colour, j]
    return symbols, own


@njit(**SERIAL)
def _escaped_values(sh, rows, members, triples, bounds, count):
    """``(3, count)`` int64, the colours of the escapes."""
    values = np.empty((3, count), np.int64)
    found = 0
    for k in range(COEFFICIENTS):
        for j in range(bounds[k], bounds[k + 1]):
            if triples[j] == ESCAPE:
                for colour in range(3):
                    values[colour, found] = sh[rows[members[j]], 3 * k + colour]
                found += 1
    return values


@njit(**SERIAL)
def _beside(kinds, luma):
    """The contexts of the other colours: luma in steps that grow with the kind."""
    contexts = np.empty(len(kinds), np.uint8)
    for j in range(len(kinds)):
        contexts[j] = 5 * kinds[j] + min(max(luma[j] >> kinds[j], -2), 2) + 2
    return contexts


@njit(**SERIAL)
def _place(harmonics, rows, members, triples, bounds, fineness, colours, escapes_begin):
    """Write the ``(n, 3 K)`` harmonics.

    ``colours`` has those of triples for each fineness, and from ``escapes_begin`` on those of the escapes in turn.
    """
    width = at(harmonics.shape[1])
    flat, colours = harmonics.reshape(-1), colours.reshape(-1)
    for i in range(at(len(flat))):
        flat[i] = np.float32(0)
    escape = at(escapes_begin)
    for k in range(at(COEFFICIENTS)):
        for j in range(at(bounds[k]), at(bounds[k + at(1)])):
            row = at(rows[at(members[j])])
            token = at(triples[j])
            escaped = token == at(ESCAPE)
            source = at(3) * (escape if escaped else at(fineness[row]) * at(ESCAPE) + token)
            escape += at(escaped)
            place = row * width + at(3) * k
            flat[place] = colours[source]
            flat[place + at(1)] = colours[source + at(1)]
            flat[place + at(2)] = colours[source + at(2)]
