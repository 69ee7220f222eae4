"""From integers to streams and back: which symbol is coded in which order and context.

A layer is six streams, one an attribute, in the order of :data:`ATTRIBUTES`. Each of the functions ``_code_*``
describes one stream for both directions: the coder it is given either appends the values it is handed or ignores
them and returns the next ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from compress.codecs.gsz.symbols import MEAN_LIMIT, Finenesses, Steps, Symbols, finenesses
from compress.codecs.rans import (
    LANE_MASK,
    LANES,
    LOW,
    MAX_TOKENS,
    MASK,
    PROBABILITY_BITS,
    Alphabet,
    Column,
    Decoder,
    Encoder,
    StreamError,
    Tables,
    bit_length,
    buckets,
    chunks,
    next_word,
)

ATTRIBUTES = ("means", "opacities", "scales", "rotations", "dc", "sh")

LOW_CLASS = 1
"""Gaussians whose harmonics are all within this of zero have them coded as colour triples."""
TRIPLES = (2 * LOW_CLASS + 1) ** 3
HIGH_CLASSES = 5
"""Classes above LOW_CLASS that have contexts of their own; the last one holds all larger ones too."""
ENERGIES = 6
_SH_DIRECT = 5
_SH_LEADING = 1
"""Alphabet of large harmonics, see :class:`compress.codecs.rans.Alphabet`."""
_SH_BITS = 14

Coder = Encoder | Decoder


class Model:
    """The columns and tables of a file, which learn from layer to layer.

    Args:
        coefficients: harmonics above degree 0, 0 to 15.
        sizes: tokens in use of each column, in the order of :attr:`columns`; None for all of them.
    """

    def __init__(self, coefficients: int, sizes: list[int] | None = None):
        self.coefficients = coefficients
        alphabets = {
            "distance": Alphabet(2, 2, 63),
            "opacity": Alphabet(7, 4, 8),
            "scale": Alphabet(6, 2, 17, signed=True),
            "gap": Alphabet(6, 2, 17),
            "thin": Alphabet(6, 2, 17),
            "rotation_x": Alphabet(5, 4, 16, signed=True),
            "rotation_y": Alphabet(5, 4, 16, signed=True),
            "rotation_z": Alphabet(5, 4, 16, signed=True),
            "luma": Alphabet(6, 2, 24, signed=True),
            "green": Alphabet(5, 2, 24, signed=True),
            "orange": Alphabet(5, 2, 24, signed=True),
            "sh_class": Alphabet(4, 0, 4),
        }
        finest = buckets(list(range(1, 17)))
        maps = {
            "opacity": {"previous": buckets([8, 16, 32, 64, 96, 112])},
            "scale": {"previous": buckets([2, 4, 8, 16, 24, 32, 48])},
            "gap": {"first": buckets([4, 8, 16, 24, 32, 48])},
            "thin": {"first": buckets([1, 3, 6, 10, 16, 24])},
            "rotation_x": {"first": finest},
            "rotation_y": {"first": finest},
            "rotation_z": {"first": finest},
            "luma": {"previous": buckets([2, 6, 12, 20, 30])},
            "green": {"previous": buckets([1, 3, 6])},
            "orange": {"first": buckets([1, 3, 6]), "previous": buckets([1, 3, 6], 4)},
            "sh_class": {"first": 4 * finest, "previous": buckets([1, 2, 3])},
        }
        given = dict(zip(alphabets, sizes or [MAX_TOKENS] * len(alphabets), strict=True))
        self.columns = {name: Column(alphabets[name], given[name], **maps.get(name, {})) for name in alphabets}
        alphabet = Alphabet(_SH_DIRECT, _SH_LEADING, _SH_BITS, signed=True)
        self.triples = Tables(4 * 3, TRIPLES)
        self.harmonics = Tables(HIGH_CLASSES * ENERGIES * 11, alphabet.size)

    def begin_layer(self) -> None:
        """Start the streams of a layer."""
        for column in self.columns.values():
            column.begin()
        self.triples.forget()
        self.harmonics.forget()


def column_sizes(symbols: Symbols, model: Model) -> list[int]:
    """How many tokens each column needs, 1 to 256."""
    values = _column_values(symbols)
    return [
        1 + int(column.alphabet.tokens(values[name]).max(initial=0)) if name in values else column.alphabet.size
        for name, column in model.columns.items()
    ]


def _column_values(symbols: Symbols) -> dict[str, np.ndarray]:
    luma, green, orange = to_luma(symbols.dc.astype(np.int64))
    scales = symbols.scales.astype(np.int64)
    values = {
        "opacity": symbols.opacities.astype(np.int64),
        "scale": scales[:, 0],
        "gap": ((scales[:, 0] + 1) >> 1) - scales[:, 1],
        "thin": ((scales[:, 1] + 1) >> 1) - scales[:, 2],
        "luma": luma,
        "green": green,
        "orange": orange,
        "sh_class": sh_classes(symbols.sh).astype(np.int64),
    }
    for axis, name in enumerate(("rotation_x", "rotation_y", "rotation_z")):
        values[name] = symbols.rotations[:, axis].astype(np.int64)
    return {name: np.ascontiguousarray(column) for name, column in values.items()}


def encode_layer(symbols: Symbols, fineness: Finenesses, model: Model) -> list[tuple[bytes, float]]:
    """The six streams of a layer, each with its information content in bits. The order of Gaussians is kept.

    For positions to be cheap, each of the eight sequences of every eighth Gaussian should be in Morton order.
    """
    model.begin_layer()
    values = {**_column_values(symbols), "sh": symbols.sh}
    values |= {"rotation_fineness": fineness.rotations, "sh_fineness": fineness.sh}
    codes = morton(symbols.means)
    values["distance"] = codes - np.concatenate([np.zeros(min(LANES, len(codes)), np.int64), codes[:-LANES]])
    streams = []
    for attribute in ATTRIBUTES:
        coder = Encoder()
        for begin, end in chunks(len(symbols)):
            _CODE[attribute](coder, model, end - begin, {name: v[begin:end] for name, v in values.items()})
        streams.append((coder.finish(), coder.bits()))
    return streams


def decode_layer(streams: list[memoryview], count: int, model: Model, steps: Steps) -> Symbols:
    """The symbols of a layer of ``count`` Gaussians.

    Raises:
        StreamError: a stream does not end where its symbols do. The message begins with the attribute's name.
    """
    model.begin_layer()
    symbols = Symbols.zeros(count, model.coefficients)
    fineness = Finenesses(np.zeros(count, np.uint8), np.zeros(count, np.uint8))
    for attribute, stream in zip(ATTRIBUTES, streams, strict=True):
        try:
            coder = Decoder(stream)
            previous = np.zeros(LANES, np.int64)
            for begin, end in chunks(count):
                known = {
                    "sh": symbols.sh[begin:end],
                    "rotation_fineness": fineness.rotations[begin:end],
                    "sh_fineness": fineness.sh[begin:end],
                }
                columns = _CODE[attribute](coder, model, end - begin, known)
                _store(attribute, columns, symbols, begin, end, previous)
            coder.finish()
            if attribute == "opacities" and int(symbols.opacities.max(initial=0)) >= steps.opacity_levels:
                raise StreamError("a level is out of range")
        except StreamError as error:
            raise StreamError(f"{attribute}: {error}") from error
        if attribute == "scales":
            fineness = finenesses(symbols, steps)
    return symbols


def _store(
    attribute: str, columns: list[np.ndarray], symbols: Symbols, begin: int, end: int, previous: np.ndarray
) -> None:
    """Put a chunk's decoded columns where they belong. ``previous`` holds the last Morton codes of the eight lanes."""
    if attribute == "means":
        _follow(columns[0], previous, symbols.means[begin:end])
    elif attribute == "opacities":
        symbols.opacities[begin:end] = columns[0]
    elif attribute == "scales":
        _stack_scales(*columns, symbols.scales[begin:end])
    elif attribute == "rotations":
        for axis in range(3):
            symbols.rotations[begin:end, axis] = columns[axis]
    elif attribute == "dc":
        _from_luma(*columns, symbols.dc[begin:end])


Values = dict[str, np.ndarray]


def _code_means(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    return [coder.integers(model.columns["distance"], count, values.get("distance"))[0]]


def _code_opacities(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    return [coder.integers(model.columns["opacity"], count, values.get("opacity"))[0]]


def _code_scales(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    columns = model.columns
    scale, scale_tokens = coder.integers(columns["scale"], count, values.get("scale"))
    gap, gap_tokens = coder.integers(columns["gap"], count, values.get("gap"), scale_tokens)
    thin, _ = coder.integers(columns["thin"], count, values.get("thin"), gap_tokens)
    return [scale, gap, thin]


def _code_rotations(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    names = ("rotation_x", "rotation_y", "rotation_z")
    fineness = values["rotation_fineness"]
    return [coder.integers(model.columns[name], count, values.get(name), fineness)[0] for name in names]


def _code_dc(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    columns = model.columns
    luma, _ = coder.integers(columns["luma"], count, values.get("luma"))
    green, green_tokens = coder.integers(columns["green"], count, values.get("green"))
    orange, _ = coder.integers(columns["orange"], count, values.get("orange"), green_tokens)
    return [luma, green, orange]


def _code_sh(coder: Coder, model: Model, count: int, values: Values) -> list[np.ndarray]:
    """The class of each Gaussian, then the harmonics of those above class 0, which decoding writes into ``sh``."""
    if model.coefficients == 0:
        return []
    sh = values["sh"]
    _, classes = coder.integers(model.columns["sh_class"], count, values.get("sh_class"), values["sh_fineness"])
    low = np.flatnonzero(classes == LOW_CLASS)
    high = np.flatnonzero(classes > LOW_CLASS)
    triples, harmonics = model.triples, model.harmonics
    if isinstance(coder, Encoder):
        buffer, length = coder.room(model.coefficients * (len(low) + 6 * len(high)))
        length = _model_triples(buffer, length, sh, low, triples.counts, triples.symbols)
        length = _model_harmonics(buffer, length, sh, high, classes, harmonics.counts, harmonics.symbols)
        coder.advance(length)
    else:
        stream = (coder.words, coder.cursor, coder.states)
        _decode_triples(*stream, sh, low, triples.counts, triples.slots)
        _decode_harmonics(*stream, sh, high, classes, harmonics.counts, harmonics.slots)
    triples.learn()
    harmonics.learn()
    return []


_CODE: dict[str, Callable[[Coder, Model, int, Values], list[np.ndarray]]] = {
    "means": _code_means,
    "opacities": _code_opacities,
    "scales": _code_scales,
    "rotations": _code_rotations,
    "dc": _code_dc,
    "sh": _code_sh,
}


def to_luma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reversible YCoCg transform (Malvar and Sullivan 2003) of ``(N, 3)`` integers: luma, green, orange."""
    red, green, blue = rgb.T
    orange = red - blue
    middle = blue + (orange >> 1)
    excess = green - middle
    return middle + (excess >> 1), excess, orange


@njit(cache=True, nogil=True)
def _from_luma(luma, excess, orange, rgb):
    for i in range(len(luma)):
        middle = luma[i] - (excess[i] >> 1)
        blue = middle - (orange[i] >> 1)
        rgb[i, 0] = blue + orange[i]
        rgb[i, 1] = excess[i] + middle
        rgb[i, 2] = blue


@njit(cache=True, nogil=True)
def _stack_scales(scale, gap, thin, scales):
    for i in range(len(scale)):
        scales[i, 0] = scale[i]
        scales[i, 1] = ((scale[i] + 1) >> 1) - gap[i]
        scales[i, 2] = ((np.int64(scales[i, 1]) + 1) >> 1) - thin[i]


@njit(cache=True, nogil=True, inline="always")
def _spread(value):
    """The low 21 bits of ``value``, two zeros between each and the next."""
    value = (value | (value << 32)) & 0x1F00000000FFFF
    value = (value | (value << 16)) & 0x1F0000FF0000FF
    value = (value | (value << 8)) & 0x100F00F00F00F00F
    value = (value | (value << 4)) & 0x10C30C30C30C30C3
    return (value | (value << 2)) & 0x1249249249249249


@njit(cache=True, nogil=True, inline="always")
def _gather(value):
    """Every third bit of ``value``, from the lowest on: the inverse of :func:`_spread`."""
    value &= 0x1249249249249249
    value = (value ^ (value >> 2)) & 0x10C30C30C30C30C3
    value = (value ^ (value >> 4)) & 0x100F00F00F00F00F
    value = (value ^ (value >> 8)) & 0x1F0000FF0000FF
    value = (value ^ (value >> 16)) & 0x1F00000000FFFF
    return (value ^ (value >> 32)) & 0x1FFFFF


@njit(cache=True, nogil=True)
def morton(means):
    """``(N,)`` int64 Morton codes of ``(N, 3)`` mean symbols."""
    codes = np.empty(len(means), np.int64)
    for i in range(len(means)):
        x = _spread(int(means[i, 0]) + MEAN_LIMIT)
        y = _spread(int(means[i, 1]) + MEAN_LIMIT)
        codes[i] = x | (y << 1) | (_spread(int(means[i, 2]) + MEAN_LIMIT) << 2)
    return codes


@njit(cache=True, nogil=True)
def _follow(distances, previous, means):
    """Add up the distances along each of the eight sequences, and take the codes apart into mean symbols."""
    for i in range(len(distances)):
        code = (previous[i & LANE_MASK] + distances[i]) & 0x7FFFFFFFFFFFFFFF
        previous[i & LANE_MASK] = code
        means[i, 0] = _gather(code) - MEAN_LIMIT
        means[i, 1] = _gather(code >> 1) - MEAN_LIMIT
        means[i, 2] = _gather(code >> 2) - MEAN_LIMIT


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
def _decode_triples(words, cursor, states, sh, rows, counts, slots):
    seen = np.zeros(len(rows), np.int64)
    position, lane = cursor[0], cursor[1]
    for k in range(sh.shape[1] // 3):
        for j in range(len(rows)):
            context = 3 * min(seen[j], 3) + _band(k)
            state = states[lane]
            slot = np.int64(slots[context, state & MASK])
            state = (((slot >> 12) & MASK) + 1) * (state >> PROBABILITY_BITS) + (slot & MASK)
            word = next_word(words, position)
            short = np.int64(state < LOW)
            position += short
            states[lane] = (state << (short << 4)) | (word & -short)
            lane = (lane + 1) & LANE_MASK
            triple = slot >> 24
            counts[context, triple] += 1
            if triple != 0:
                seen[j] += 1
                triple = (triple + TRIPLES // 2) % TRIPLES
                sh[rows[j], 3 * k] = triple // 9 - 1
                sh[rows[j], 3 * k + 1] = triple // 3 % 3 - 1
                sh[rows[j], 3 * k + 2] = triple % 3 - 1
    cursor[0], cursor[1] = position, lane


@njit(cache=True, nogil=True, inline="always")
def _harmonic_context(kind, energy, coded, colour, green):
    """Context of a harmonic: the Gaussian's class, the mean magnitude so far, and the first colour of the same triple.

    ``energy`` is the sum of the ``coded`` magnitudes so far.
    """
    level = min(bit_length((4 * energy) // max(coded, 1)), ENERGIES - 1)
    place = 0 if colour == 0 else 5 * colour - 4 + min(max(green, -2), 2) + 2
    return ((min(kind - LOW_CLASS, HIGH_CLASSES) - 1) * ENERGIES + level) * 11 + place


@njit(cache=True, nogil=True)
def _model_harmonics(buffer, length, sh, rows, classes, counts, symbols):
    """Green first, then red and blue in the light of green."""
    energy = np.zeros(len(rows), np.int64)
    used = np.zeros(counts.shape, np.int64)
    direct = 1 << _SH_DIRECT
    for t in range(sh.shape[1]):
        k, colour = t // 3, t % 3
        column = 3 * k + (1 if colour == 0 else (0 if colour == 1 else 2))
        for j in range(len(rows)):
            row = rows[j]
            value = int(sh[row, column])
            folded = (value << 1) ^ (value >> 63)
            context = _harmonic_context(classes[row], energy[j], t, colour, int(sh[row, 3 * k + 1]))
            left = 0
            token = folded
            if folded >= direct:
                bits = bit_length(folded)
                left = bits - 1 - _SH_LEADING
                token = direct + ((bits - _SH_DIRECT - 1) << _SH_LEADING) + (folded >> left) - (1 << _SH_LEADING)
            buffer[length] = symbols[context, token]
            length += 1
            used[context, token] += 1
            if left > 0:
                rest = PROBABILITY_BITS - left
                buffer[length] = ((folded & ((1 << left) - 1)) << (rest + 16)) | (1 << rest)
                length += 1
            energy[j] += abs(value)
    counts += used
    return length


@njit(cache=True, nogil=True)
def _decode_harmonics(words, cursor, states, sh, rows, classes, counts, slots):
    energy = np.zeros(len(rows), np.int64)
    position, lane = cursor[0], cursor[1]
    direct = 1 << _SH_DIRECT
    for t in range(sh.shape[1]):
        k, colour = t // 3, t % 3
        column = 3 * k + (1 if colour == 0 else (0 if colour == 1 else 2))
        for j in range(len(rows)):
            row = rows[j]
            context = _harmonic_context(classes[row], energy[j], t, colour, int(sh[row, 3 * k + 1]))
            state = states[lane]
            slot = np.int64(slots[context, state & MASK])
            state = (((slot >> 12) & MASK) + 1) * (state >> PROBABILITY_BITS) + (slot & MASK)
            word = next_word(words, position)
            short = np.int64(state < LOW)
            position += short
            states[lane] = (state << (short << 4)) | (word & -short)
            lane = (lane + 1) & LANE_MASK
            token = slot >> 24
            counts[context, token] += 1
            folded = token
            if token >= direct:
                token -= direct
                left = (token >> _SH_LEADING) + _SH_DIRECT - _SH_LEADING
                folded = ((token & ((1 << _SH_LEADING) - 1)) | (1 << _SH_LEADING)) << left
                rest = PROBABILITY_BITS - left
                state = states[lane]
                folded |= (state & MASK) >> rest
                state = ((state >> PROBABILITY_BITS) << rest) | (state & ((1 << rest) - 1))
                if state < LOW:
                    state = (state << 16) | next_word(words, position)
                    position += 1
                states[lane] = state
                lane = (lane + 1) & LANE_MASK
            value = (folded >> 1) ^ -(folded & 1)
            sh[row, column] = value
            energy[j] += abs(value)
    cursor[0], cursor[1] = position, lane
