"""How integers become symbols: tokens below 256 and raw bits, in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PROBABILITY_BITS = 12
"""Binary digits of a frequency: those of a context sum to ``2**12``."""
LANES = 8
"""Interleaved states in a stream."""
MAX_TOKENS = 256
"""An alphabet has no more."""
CHUNK = 1 << 14
"""Most items coded between two updates of the tables."""


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
    return (np.searchsorted(np.asarray(limits), np.arange(MAX_TOKENS), side="right") * stride).astype(np.uint8)


def signed_buckets(limits: list[int], stride: int = 1) -> np.ndarray:
    """As :func:`buckets`, for a column of signed values that are their own tokens."""
    tokens = np.arange(MAX_TOKENS)
    values = np.where(tokens & 1, -(tokens >> 1), tokens >> 1)
    return (np.searchsorted(np.asarray(limits), values, side="right") * stride).astype(np.uint8)


@dataclass(frozen=True)
class Alphabet:
    """How integers become tokens and raw bits.

    A value below ``2**direct_bits`` is its own token; a larger one has a token for its bit length and the
    ``leading_bits`` bits after its leading one, and the remaining bits are raw, written in pieces of at most 12, lowest
    first. The token of a signed value is twice that of its magnitude, plus 1 for negative ones.

    Attributes:
        direct_bits: 1 to 8.
        leading_bits: at most ``direct_bits``.
        value_bits: the longest magnitude, at most 63 bits. At most 256 tokens may result.
        signed: whether values may be negative.
    """

    direct_bits: int
    leading_bits: int
    value_bits: int
    signed: bool = False

    @cached_property
    def size(self) -> int:
        """Number of tokens."""
        magnitudes = (1 << self.direct_bits) + ((self.value_bits - self.direct_bits) << self.leading_bits)
        return magnitudes << self.signed

    @cached_property
    def plain(self) -> bool:
        """Whether every value is its own token, so that there are no raw bits."""
        return self.size == 1 << self.direct_bits and not self.signed

    @cached_property
    def levels(self) -> np.ndarray:
        """``(256,)`` float64: the integer of each token whose raw bits are all 0."""
        levels = np.zeros(MAX_TOKENS)
        for token in range(self.size):
            level = token >> self.signed
            above = level - (1 << self.direct_bits)
            if above >= 0:
                leading = (1 << self.leading_bits) + above % (1 << self.leading_bits)
                level = leading << ((above >> self.leading_bits) + self.direct_bits - self.leading_bits)
            levels[token] = -level if self.signed and token & 1 else level
        return levels

    def token(self, value: int) -> int:
        """The token of one integer."""
        if self.signed:
            return self._magnitude(abs(value)) << 1 | (value < 0)
        return self._magnitude(value)

    def _magnitude(self, value: int) -> int:
        if value < 1 << self.direct_bits:
            return value
        below = value.bit_length() - 1 - self.leading_bits
        leading = (value >> below) - (1 << self.leading_bits)
        return (1 << self.direct_bits) + ((value.bit_length() - self.direct_bits - 1) << self.leading_bits) + leading
