"""The entropy coding of spherical harmonics above degree 0.

Most Gaussians have few or none left after rounding. So each has a *class* first, the bit length of its largest
magnitude; class 0 has nothing more to code. Then, group by group of coefficients, a *mask* says which coefficients have
a color that is not zero. A coefficient in the mask is one *triple* if its three colors are within one step of
zero, and otherwise an escape and three values, of which Y goes first and the others look at it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from gsz.coding.alphabet import LANES, Alphabet, buckets
from gsz.coding.decoder import Decoder
from gsz.coding.encoder import Encoder
from gsz.coding.neighbors import LEANINGS, SIGNS_BEFORE, Leaning, lean
from gsz.coding.tables import Column, at
from gsz.kernels import kernel

GROUPS = ((0, 3), (3, 8), (8, 12), (12, 15))
"""Coefficients that share a mask; degrees 1, 2 and 3 end with the first, second and last group."""
KINDS = 4
"""Contexts tell the classes 1 to 4 apart; higher ones count as the last."""
DENSITIES = 5
"""Of a Gaussian's masks so far, see :data:`_DENSITY`."""
ESCAPE = 26
"""The first of three tokens of triples that hold a magnitude above 1, of which Y is negative, zero or positive; the
tokens of the others are below."""
TRIPLES = ESCAPE + 3
CROWDS = 3
"""Of a Gaussian's escapes: one, up to four, or more."""
VALUE_KINDS = 7
"""Contexts of values tell the classes 2 to 8 apart."""

_FINENESSES = 17
_MAGNITUDE = Alphabet(5, 1, 13)
_VALUE = Alphabet(4, 1, 13, signed=True)
_SIGNS = np.array([token // 9 - 1 for token in range(ESCAPE + 1) if token != ESCAPE // 2] + [-1, 0, 1], np.int8)
"""The sign of Y of each token of triples."""


_MASKS = np.arange(1 << GROUPS[-1][1])


def _densities(known: int) -> np.ndarray:
    """``(2**15,)`` uint8: of each mask of ``known`` bits, the bit length of how many eighths of them are ones."""
    eighths = 8 * np.bitwise_count(_MASKS)
    reached = np.array([eighths >= max(known, 1) << power for power in range(DENSITIES - 1)])
    return reached.sum(axis=0, dtype=np.uint8)


_DENSITY = {begin: _densities(begin) for begin, _ in GROUPS}


class Colors(Protocol):
    """Knows what the symbols of harmonics stand for."""

    @property
    def sh_finenesses(self) -> int:
        """How many finenesses there are."""

    def dequantize_sh(self, sh_rest: np.ndarray, symbols: np.ndarray, fineness: np.ndarray) -> None:
        """Fill in the ``(n, K, 3)`` float32 harmonics of ``(n, 3 K)`` int16 symbols and ``(n,)`` uint8 finenesses."""


class Palette:
    """The colors of all triples without escapes, so that decoders may look them up."""

    def __init__(self, colors: Colors):
        self._colors = colors
        digits = np.delete(np.arange(ESCAPE + 1), ESCAPE // 2)
        symbols = np.stack([digits // 9, digits // 3 % 3, digits % 3], axis=1) - 1
        fineness = np.repeat(np.arange(colors.sh_finenesses, dtype=np.uint8), ESCAPE)
        self._triples = self._of(np.tile(symbols, (colors.sh_finenesses, 1)).astype(np.int16), fineness)

    def extended(self, symbols: np.ndarray, fineness: np.ndarray) -> tuple[np.ndarray, int]:
        """``(finenesses * ESCAPE + n, 3)`` float32: those of the triples, and from the number that is returned on,
        those of ``(n, 3)`` int16 other symbols.
        """
        return np.concatenate([self._triples, self._of(symbols, fineness)]), len(self._triples)

    def _of(self, symbols: np.ndarray, fineness: np.ndarray) -> np.ndarray:
        colors = np.empty((len(symbols), 1, 3), np.float32)
        self._colors.dequantize_sh(colors, symbols, fineness)
        return colors[:, 0]


class ShCoding:
    """The columns of a file's harmonics.

    Args:
        classes: number of classes in use, 1 to 16.
        coefficients: harmonics above degree 0: 0, 3, 8 or 15.
    """

    def __init__(self, classes: int, coefficients: int):
        self._groups = [(begin, end) for begin, end in GROUPS if begin < coefficients]
        self._classes = Column(
            Alphabet(4, 0, 4), classes, contexts=KINDS * _FINENESSES - 3, previous=buckets([1, 2, 3])
        )
        self._masks = [
            Column(Alphabet(end - begin, 0, end - begin), contexts=KINDS * DENSITIES) for begin, end in self._groups
        ]
        self._triples = Column(Alphabet(5, 0, 5), TRIPLES, contexts=KINDS * (1 + len(LEANINGS)))
        self._values = [
            Column(_MAGNITUDE, contexts=VALUE_KINDS * CROWDS + 1),
            *(Column(_VALUE, contexts=5 * VALUE_KINDS) for _ in range(2)),
        ]
        self._signs = np.zeros((coefficients, LANES, SIGNS_BEFORE), np.int8)

    def begin(self) -> None:
        """Start a new stream."""
        for column in (self._classes, *self._masks, self._triples, *self._values):
            column.begin()
        self._signs[:] = 0

    def encode(self, coder: Encoder, sh: np.ndarray, fineness: np.ndarray, weights: np.ndarray) -> None:
        """Append a chunk of ``(n, 3 K)`` int16 harmonics of ``(n,)`` uint8 ``fineness``.

        ``weights``: of neighbors, see :func:`gsz.coding.neighbors.weights_of`.
        """
        classes, masks = survey(sh)
        coder.integers(self._classes, classes, fineness * np.uint8(KINDS))
        rows = np.flatnonzero(classes > 0).astype(np.uint16)
        kinds, masks = classes[rows], masks[rows]
        for (begin, end), column in zip(self._groups, self._masks, strict=True):
            known = masks & np.uint16((1 << begin) - 1)
            contexts = _contexts(kinds, DENSITIES, known, _DENSITY[begin])
            coder.integers(column, (masks >> begin) & ((1 << (end - begin)) - 1), contexts)
        members, contexts, bounds = self._members_of(kinds, masks)
        triples, values = np.empty(len(members), np.int64), np.empty((3, len(members)), np.int64)
        count = _triples_of(sh, rows, members, bounds, triples, values)
        near = Leaning.of(self._signs, len(sh), rows, weights)
        near.fill_in(np.sign(sh[:, ::3]))
        lean(members, bounds, *near.flat, KINDS, contexts)
        self._signs = near.signs[:, :, -SIGNS_BEFORE:]
        escapes = _Escapes.of(kinds, members, coder.integers(self._triples, triples, contexts))
        y, co, cg = values[:, :count]
        coder.integers(self._values[0], np.abs(y), escapes.contexts)
        beside = escapes.contexts_beside(y)
        coder.integers(self._values[1], co, beside)
        coder.integers(self._values[2], cg, beside)

    def decode(
        self, coder: Decoder, sh_rest: np.ndarray, fineness: np.ndarray, weights: np.ndarray, palette: Palette
    ) -> None:
        """Fill in a chunk of ``(n, K, 3)`` float32 harmonics, zeros till now, of ``(n,)`` uint8 ``fineness``."""
        classes = coder.tokens(self._classes, len(sh_rest), fineness * np.uint8(KINDS))
        rows = np.flatnonzero(classes > 0).astype(np.uint16)
        kinds, masks = classes[rows], np.zeros(len(rows), np.uint16)
        for (begin, _), column in zip(self._groups, self._masks, strict=True):
            contexts = _contexts(kinds, DENSITIES, masks, _DENSITY[begin])
            group = coder.tokens(column, len(rows), contexts)
            masks |= group.astype(np.uint16) << begin
        members, contexts, bounds = self._members_of(kinds, masks)
        near = Leaning.of(self._signs, len(sh_rest), rows, weights)
        tokens = coder.triples(self._triples, members, bounds, contexts, near, _SIGNS, KINDS)
        self._signs = near.signs[:, :, -SIGNS_BEFORE:]
        escapes = _Escapes.of(kinds, members, tokens)
        symbols = np.empty((len(escapes.contexts), 3), np.int16)
        symbols[:, 0], _ = coder.integers(self._values[0], len(symbols), escapes.contexts)
        symbols[:, 0] *= escapes.signs
        beside = escapes.contexts_beside(symbols[:, 0])
        for color, column in enumerate(self._values[1:], 1):
            symbols[:, color], _ = coder.integers(column, len(symbols), beside)
        colors, escapes_begin = palette.extended(symbols, fineness[rows[escapes.masks]])
        flat, width = sh_rest.reshape(-1), 3 * sh_rest.shape[1]
        _place(flat, width, rows, members, tokens, bounds, fineness, colors.reshape(-1), escapes_begin)

    def _members_of(self, kinds: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coefficients in masks, coefficient by coefficient.

        Returns:
            ``(m,)`` uint16 indices of their masks; ``(m,)`` uint8 contexts of their triples, as far as the class tells
            them; and ``(K + 1,)`` where the members of each coefficient begin.
        """
        count = int(np.bitwise_count(masks).sum(dtype=np.int64))
        members, contexts = np.empty(count + 1, np.uint16), np.empty(count + 1, np.uint8)
        bounds = np.zeros(self._groups[-1][1] + 1, np.int64)
        own = np.minimum(kinds - np.uint8(1), np.uint8(KINDS - 1))
        _members(masks, own, members, contexts, bounds)
        return members[:-1], contexts[:-1], bounds


def _contexts(kinds: np.ndarray, number: int, masks: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``(n,)`` uint8 contexts by the class, and in each by what ``table`` makes of the mask, below ``number``."""
    contexts = np.empty(len(kinds), np.uint8)
    _contexts_of(kinds, number, masks, table, contexts)
    return contexts


class _Escapes(NamedTuple):
    """The triples of a chunk that are escapes.

    Attributes:
        masks: ``(m,)`` uint16 indices of the masks that they belong to.
        kinds: ``(m,)`` uint8, the classes of their Gaussians from 2 on, as numbers below :data:`VALUE_KINDS`.
        contexts: ``(m,)`` uint8, those of the magnitude of Y: by the kind, and by how many escapes the Gaussian has;
            the last one where it is 0.
        signs: ``(m,)`` int8, those of Y.
    """

    masks: np.ndarray
    kinds: np.ndarray
    contexts: np.ndarray
    signs: np.ndarray

    @staticmethod
    def of(kinds: np.ndarray, members: np.ndarray, tokens: np.ndarray) -> _Escapes:
        escapes = _Escapes(*(np.empty(len(members) + 1, kind) for kind in (np.uint16, np.uint8, np.uint8, np.int8)))
        count = _find_escapes(kinds, members, tokens, np.zeros(len(kinds), np.uint8), *escapes)
        return _Escapes(*(array[:count] for array in escapes))

    def contexts_beside(self, y: np.ndarray) -> np.ndarray:
        """``(m,)`` uint8 contexts of Co and Cg: Y in steps that grow with the kind."""
        contexts = np.empty(len(y), np.uint8)
        _beside(self.kinds, y.astype(np.int16), contexts)
        return contexts


def survey(sh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of ``(n, 3 K)`` harmonics, uint8 from 0 to 15, and their masks, uint16."""
    classes, masks = np.empty(len(sh), np.uint8), np.empty(len(sh), np.uint16)
    _survey(sh, classes, masks)
    return classes, masks


@kernel
def _survey(sh, classes, masks):
    for i in range(len(sh)):
        union = mask = 0
        for k in range(sh.shape[1] // 3):
            one, two, three = np.int64(sh[i, 3 * k]), np.int64(sh[i, 3 * k + 1]), np.int64(sh[i, 3 * k + 2])
            magnitudes = abs(one) | abs(two) | abs(three)
            union |= magnitudes
            mask |= np.int64(magnitudes != 0) << k
        length = 0
        while union:
            union >>= 1
            length += 1
        classes[i], masks[i] = length, mask


@kernel
def _contexts_of(kinds, number, masks, table, contexts):
    for j in range(at(len(kinds))):
        kind = np.int64(kinds[j]) - 1
        contexts[j] = (kind if kind < KINDS else KINDS - 1) * number + table[at(masks[j])]


@kernel
def _members(masks, own, members, contexts, bounds):
    found = at(0)
    for k in range(len(bounds) - 1):
        for j in range(at(len(masks))):
            # Written always and kept if there is something: there is nothing to mispredict.
            members[found] = j
            contexts[found] = own[j]
            found += at((masks[j] >> k) & 1)
        bounds[k + 1] = found


@kernel
def _find_escapes(kinds, members, tokens, crowd, masks, own, contexts, signs):
    """Returns how many escapes there are. ``crowd`` is all zero, and is given how many each Gaussian has."""
    found = at(0)
    for j in range(at(len(members))):
        masks[found] = members[j]
        signs[found] = np.int64(tokens[j]) - (ESCAPE + 1)
        found += at(tokens[j] >= ESCAPE)
    for j in range(found):
        crowd[at(masks[j])] += 1
    for j in range(found):
        kind, escapes = np.int64(kinds[at(masks[j])]) - 2, crowd[at(masks[j])]
        kind = 0 if kind < 0 else (VALUE_KINDS - 1 if kind >= VALUE_KINDS else kind)
        own[j] = kind
        context = kind * CROWDS + (escapes > 1) + (escapes > 4)
        contexts[j] = context if signs[j] != 0 else VALUE_KINDS * CROWDS
    return found


@kernel
def _beside(kinds, y, contexts):
    for j in range(len(kinds)):
        steps = np.int64(y[j]) >> kinds[j]
        contexts[j] = 5 * np.int64(kinds[j]) + (0 if steps < -2 else (4 if steps > 2 else steps + 2))


@kernel
def _triples_of(sh, rows, members, bounds, tokens, escapes):
    """Tokens: the three colors plus 1 are the digits to base 3, and 13, which is nothing at all, is left out.

    Returns how many escapes there are.
    """
    found = 0
    for k in range(len(bounds) - 1):
        for j in range(bounds[k], bounds[k + 1]):
            row = rows[members[j]]
            one, two, three = np.int64(sh[row, 3 * k]), np.int64(sh[row, 3 * k + 1]), np.int64(sh[row, 3 * k + 2])
            if abs(one) <= 1 and abs(two) <= 1 and abs(three) <= 1:
                digits = 9 * (one + 1) + 3 * (two + 1) + three + 1
                tokens[j] = digits - (digits > 13)
            else:
                tokens[j] = ESCAPE + 1 + np.sign(one)
                escapes[0, found], escapes[1, found], escapes[2, found] = one, two, three
                found += 1
    return found


@kernel
def _place(flat, width, rows, members, tokens, bounds, fineness, colors, escapes_begin):
    """Write the harmonics that are not zero into flat rows of ``width`` numbers.

    ``colors`` has those of triples for each fineness, and from ``escapes_begin`` on those of the escapes in turn.
    """
    escape = at(escapes_begin)
    for k in range(at(len(bounds) - 1)):
        for j in range(at(bounds[k]), at(bounds[k + at(1)])):
            row = at(rows[at(members[j])])
            token = at(tokens[j])
            escaped = token >= at(ESCAPE)
            source = at(3) * (escape if escaped else at(fineness[row]) * at(ESCAPE) + token)
            escape += at(escaped)
            place = row * at(width) + at(3) * k
            flat[place] = colors[source]
            flat[place + at(1)] = colors[source + at(1)]
            flat[place + at(2)] = colors[source + at(2)]
