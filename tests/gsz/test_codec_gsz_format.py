"""Proves that ``docs/formats.md`` describes ``.gsz`` completely: a second decoder, written from that page alone.

It is plain Python, slow, and shares no code with the program. It reads the golden files to the same bits.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gsz.native import GszCodec
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("gsz_*.gsz"))
STREAMS = ("means", "opacities", "scales", "rotations", "dc", "sh")
Map = list[int]
NOTHING: Map = [0] * 256


def bucket(limits: list[int], stride: int = 1) -> Map:
    return [stride * sum(limit <= token for limit in limits) for token in range(256)]


def signed(limits: list[int], stride: int = 1) -> Map:
    return [stride * sum(limit <= unfold(token) for limit in limits) for token in range(256)]


def unfold(token: int) -> int:
    return -(token >> 1) if token % 2 else token >> 1


def share(weights: list[int]) -> list[int]:
    total = sum(weights)
    shares = [1 + weight * (4096 - len(weights)) // total for weight in weights]
    shares[weights.index(max(weights))] += 4096 - sum(shares)
    return shares


class Tables:
    def __init__(self, contexts: int, tokens: int) -> None:
        self.counts = [[0] * tokens for _ in range(contexts)]
        self.shares: list[list[int]] = [[] for _ in range(contexts)]
        self.built: list[tuple[int, int] | None] = [None] * contexts
        self.rebuild()

    def rebuild(self) -> None:
        totals = [sum(column) for column in zip(*self.counts, strict=True)]
        everything = sum(totals)
        parent = share([total * 256 + 4096 // (value + 2) for value, total in enumerate(totals)])
        for context, counts in enumerate(self.counts):
            own, built = sum(counts), self.built[context]
            if built is None or 4 * own >= 5 * built[0] + 4 or everything >= 2 * built[1]:
                self.built[context] = (own, max(everything, 64))
                weights = [count * 4096 + 24 * share for count, share in zip(counts, parent, strict=True)]
                self.shares[context] = share(weights)

    def begin_layer(self) -> None:
        for context, counts in enumerate(self.counts):
            own = sum(counts)
            if own > 16384:
                self.counts[context] = [count * 16384 // own for count in counts]
            built = self.built[context]
            assert built is not None
            self.built[context] = (sum(self.counts[context]), built[1])


class Stream:
    def __init__(self, data: bytes) -> None:
        self.states = list(struct.unpack_from("<8I", data))
        self.words = list(struct.unpack_from(f"<{(len(data) - 32) // 2}H", data, 32))
        self.symbols = self.used = 0

    def _advance(self, frequency: int, start: int) -> None:
        lane = self.symbols % 8
        state = self.states[lane]
        state = frequency * (state >> 12) + state % 4096 - start
        if state < 65536:
            state = state << 16 | self.words[self.used]
            self.used += 1
        self.states[lane] = state
        self.symbols += 1

    def token(self, tables: Tables, context: int) -> int:
        slot, start = self.states[self.symbols % 8] % 4096, 0
        for token, frequency in enumerate(tables.shares[context]):
            if slot < start + frequency:
                self._advance(frequency, start)
                tables.counts[context][token] += 1
                return token
            start += frequency
        raise AssertionError("frequencies do not sum to 4096")

    def raw(self, bits: int) -> int:
        value, shift = 0, 0
        while bits > 0:
            width = min(bits, 12)
            field = (self.states[self.symbols % 8] % 4096) >> (12 - width)
            self._advance(1 << (12 - width), field << (12 - width))
            value |= field << shift
            shift, bits = shift + width, bits - width
        return value

    def rest(self, token: int, direct: int, leading: int) -> int:
        """The magnitude of a token, its raw bits read."""
        if token < 1 << direct:
            return token
        above = token - (1 << direct)
        left = (above >> leading) + direct - leading
        return ((1 << leading) + above % (1 << leading)) << left | self.raw(left)

    def check_end(self) -> None:
        assert self.used == len(self.words) and self.states == [65536] * 8


class Column:
    """A column; where there is a ``kind``, its contexts look at neighbors."""

    kind = ""

    def __init__(self, home: str, fold: bool, direct: int, leading: int, **maps: tuple[str, Map] | Map) -> None:
        self.home, self.fold, self.direct, self.leading = home, fold, direct, leading
        self.first = maps.get("first", ("", NOTHING))
        self.previous = maps.get("previous", NOTHING)
        self.tables: Tables

    def prepare(self, tokens: int) -> None:
        self.tables = Tables(1 + max(self.first[1]) + max(self.previous), tokens)  # type: ignore[call-overload, type-var, operator]

    def value(self, stream: Stream, token: int) -> int:
        if not self.fold:
            return stream.rest(token, self.direct, self.leading)
        size = stream.rest(token >> 1, self.direct, self.leading)
        return -size if token & 1 else size

    def level(self, token: int) -> int:
        """The value without its raw bits."""

        class Zeros:
            def raw(self, bits: int) -> int:
                return 0

            rest = Stream.rest

        return self.value(Zeros(), token)  # type: ignore[arg-type]


class Predicted(Column):
    def __init__(
        self,
        home: str,
        kind: str,
        coding: tuple[int, int, bool],
        parts: int,
        limits: list[int],
        base: Map = NOTHING,
        **maps: tuple[str, Map],
    ) -> None:
        super().__init__(home, coding[2], coding[0], coding[1], **maps)
        self.kind, self.parts, self.limits, self.base = kind, parts, limits, base

    def prepare(self, tokens: int) -> None:
        self.tables = Tables(1 + max(self.first[1]) + max(self.base) + len(self.limits), tokens)  # type: ignore[call-overload, operator]

    def context(self, near: list[tuple[float, float, float]], reference: float) -> tuple[int, int, float]:
        """The context without the first column's part, the whole number to be added, and the mean; ``near`` are
        weights, what is known of neighbors and by how much they were missed, from the nearest on."""
        mean = 0.0
        for weight, known, _ in reversed(near):
            mean += weight * known
        whole = 0
        if self.kind == "level":
            measure = mean / reference * self.parts
        elif self.kind == "below":
            measure = (reference - mean) * self.parts
        else:
            missed = 0.0
            for weight, _, miss in reversed(near):
                missed += weight * miss
            measure = missed / reference * self.parts
            whole = int(min(max(math.floor(mean / reference + 0.5), -1e9), 1e9))
        begin = self.base[min(max(int(reference), 0), 255)] if self.kind == "below" else 0
        return begin + sum(limit <= math.floor(measure) for limit in self.limits), whole, mean

    def known(self, token: int, whole: int, reference: float) -> float:
        level = self.level(token)
        return {"level": level, "below": reference - level, "residual": (level + whole) * reference}[self.kind]


EACH = bucket(list(range(1, 17)))
TENTHS = [3, 7, 10, 14, 20, 28, 40, 56, 80, 112]
DC = {
    "y": Predicted("dc", "residual", (6, 1, True), 10, TENTHS),
    "cg": Predicted("dc", "residual", (5, 1, True), 10, TENTHS),
    "co": Predicted("dc", "residual", (5, 1, True), 10, TENTHS, first=("cg", signed([-2, 0, 1, 3], 11))),
}


def native_columns() -> dict[str, Column]:
    halves = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    quarters = [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25, 30, 35, 42, 50, 59, 70, 83, 99, 118, 140, 166, 198, 235]
    gaps, thins = [-6, -3, -1, 0, 1, 2, 4, 6, 9, 13, 20], [-6, -2, -1, 0, 1, 2, 4, 8, 12, 18, 26, 40]
    return {
        "distance": Column("means", False, 2, 2, previous=bucket([36, 48, 60])),
        "opacity": Predicted("opacities", "level", (7, 4, False), 12, list(range(1, 12))),
        "scale": Predicted("scales", "level", (7, 3, False), 4, quarters),
        "gap": Predicted("scales", "below", (6, 2, False), 1, gaps, bucket(halves, 12)),
        "thin": Predicted("scales", "below", (6, 2, False), 2, thins, bucket(halves, 13)),
        **{f"rotation {axis}": Column("rotations", True, 5, 3, first=("turn", EACH)) for axis in "xyz"},
        **DC,
    }


def fast3dgs_columns() -> dict[str, Column]:
    coarse = bucket(list(range(8, 256, 8)))
    columns = {f"mean {axis}": Column("means", True, 3, 2) for axis in range(3)}
    for home, width in (("opacities", 1), ("scales", 3), ("rotations", 4)):
        for index in range(width):
            for byte in (3, 2, 1, 0):
                maps = {}
                if byte == 3 and index:
                    maps = {"first": (f"{home} {index - 1} 3", coarse)}
                elif byte == 2:
                    maps = {"first": (f"{home} {index} 3", coarse)}
                columns[f"{home} {index} {byte}"] = Column(home, False, 8, 0, **maps)
    return columns | DC


def decode(data: bytes) -> GaussianModel:
    """The model in a file."""
    magic, version, features, grid, degree, layers, columns_used, parameter_bytes, metadata_bytes, crc = (
        struct.unpack_from("<8sHHBBBBHHI", data)
    )
    assert (magic, version, features & ~1) == (b"\x89GSZ\r\n\x1a\n", 2, 0)
    coefficients = (degree + 1) ** 2 - 1
    begin = 48 + parameter_bytes + metadata_bytes
    end = begin + columns_used + 68 * layers
    assert zlib.crc32(data[:20] + data[24:end]) == crc
    parameters = data[48 : 48 + parameter_bytes]
    sizes = [1 + size for size in data[begin : begin + columns_used]]
    columns = fast3dgs_columns() if grid else native_columns()
    for column, size in zip(columns.values(), sizes, strict=False):
        column.prepare(size)
    harmonics = Harmonics(sizes[-1], coefficients)
    models, at = [], end
    for layer in range(layers):
        count, _, _, *numbers = struct.unpack_from("<Iff14I", data, begin + columns_used + 68 * layer)
        values: dict[str, list] = {}
        values["sh"] = [[0] * (3 * coefficients) for _ in range(count)]
        for column in columns.values():
            column.tables.begin_layer()
        harmonics.begin_layer()
        weights: list[list[tuple[float, int]]] = []
        for name, length, check in zip((*STREAMS, "padding"), numbers[::2], numbers[1::2], strict=True):
            section = data[at : at + length]
            assert zlib.crc32(section) == check
            at += length
            if name != "padding":
                hints = {} if grid else native_hints(parameters, values)
                decode_stream(Stream(section), name, columns, harmonics, values, hints, count, weights)
            if name == "means":
                weights = weights_of(
                    [published_place(values, i) if grid else native_place(values, i) for i in range(count)]
                )
        models.append((published_values if grid else native_values)(parameters, values, count, coefficients))
    return GaussianModel.concatenate(models)


def summed(values: dict[str, list], name: str, i: int) -> int:
    """A column of differences, added up in place."""
    sums = values.setdefault(f"sums of {name}", [])
    if i == len(sums):
        sums.append(values[name][i] + (sums[i - 8] if i >= 8 else 0))
    return sums[i]


def native_place(values: dict[str, list], i: int) -> list[int]:
    code = summed(values, "distance", i)
    return [sum((code >> (3 * bit + axis) & 1) << bit for bit in range(21)) - (2**20 - 1) for axis in range(3)]


def published_place(values: dict[str, list], i: int) -> list[int]:
    return [summed(values, f"mean {axis}", i) for axis in range(3)]


def weights_of(places: list[list[int]]) -> list[list[tuple[float, int]]]:
    """Of each Gaussian the weights and indices of its neighbors."""
    found = []
    for i, (x, y, z) in enumerate(places):
        near = []
        for j in range(i - 8, max(i - 65, -1), -8):
            dx, dy, dz = (float(a - b) for a, b in zip((x, y, z), places[j], strict=True))
            near.append((1 / max(dx * dx + dy * dy + dz * dz, 1.0), j))
        total = 0.0
        for weight, _ in near:
            total += weight
        found.append([(weight / total, j) for weight, j in near])
    return found


def reference(name: str, column: Column, values: dict[str, list], hints: dict[str, list], i: int) -> float:
    if name == "gap":
        return values["scale"][i]
    if name == "thin":
        return (values["scale"][i] - values["gap"][i] + 1) >> 1
    if column.home == "dc":
        return hints["dc steps"][i] if "dc steps" in hints else 1.0
    return hints["levels"][0] if name == "opacity" else 1.0


def decode_stream(
    stream: Stream,
    home: str,
    columns: dict[str, Column],
    harmonics: Harmonics,
    values: dict[str, list],
    hints: dict[str, list],
    count: int,
    weights: list[list[tuple[float, int]]],
) -> None:
    tokens: dict[str, list[int]] = {name: [] for name in columns} | hints
    known: dict[str, list[float]] = {name: [] for name in columns}
    misses: dict[str, list[float]] = {name: [] for name in columns}
    begin = 0
    while begin < count:
        end = min(count, begin + min(16384, max(128, 8 * (begin // 16))))
        for name, column in columns.items():
            if column.home != home:
                continue
            first, first_map = column.first
            wholes = []
            for i in range(begin, end):
                context = column.previous[tokens[name][i - 8] if i >= 8 else 0]
                context += first_map[tokens[first][i]] if first else 0
                whole = 0
                if isinstance(column, Predicted):
                    of = reference(name, column, values, hints, i)
                    near = [(weight, known[name][j], misses[name][j]) for weight, j in weights[i]]
                    more, whole, mean = column.context(near, of)
                    context += more
                tokens[name].append(stream.token(column.tables, context))
                if isinstance(column, Predicted):
                    known[name].append(column.known(tokens[name][i], whole, of))
                    misses[name].append(abs(known[name][i] - mean))
                wholes.append(whole)
            for i in range(begin, end):
                values.setdefault(name, []).append(column.value(stream, tokens[name][i]) + wholes[i - begin])
            column.tables.rebuild()
        if home == "sh" and values["sh"] and values["sh"][0]:
            harmonics.decode(stream, values["sh"], begin, end, hints.get("detail"), weights)
        begin = end
    stream.check_end()


class Harmonics:
    def __init__(self, classes: int, coefficients: int) -> None:
        self.groups = [group for group in ((0, 3), (3, 8), (8, 12), (12, 15)) if group[0] < coefficients]
        self.classes = Tables(1 + 4 * 16 + 3, classes)
        self.masks = [Tables(20, 1 << (end - begin)) for begin, end in self.groups]
        self.triples = Tables(28, 29)
        self.colors = [Tables(22, 48), Tables(35, 68), Tables(35, 68)]
        self.kinds: list[int] = []

    def tables(self) -> list[Tables]:
        return [self.classes, *self.masks, self.triples, *self.colors]

    def begin_layer(self) -> None:
        self.kinds = []
        for tables in self.tables():
            tables.begin_layer()

    def decode(
        self,
        stream: Stream,
        sh: list[list[int]],
        begin: int,
        end: int,
        detail: list[int] | None,
        weights: list[list[tuple[float, int]]],
    ) -> None:
        for i in range(begin, end):
            previous = self.kinds[i - 8] if i >= 8 else 0
            context = 4 * min(detail[i], 16) if detail else 0
            self.kinds.append(stream.token(self.classes, context + min(previous, 3)))
        some = [i for i in range(begin, end) if self.kinds[i]]
        ones: dict[int, list[int]] = {i: [] for i in some}
        for (first, last), tables in zip(self.groups, self.masks, strict=True):
            for i in some:
                density = min((8 * len(ones[i]) // max(first, 1)).bit_length(), 4)
                mask = stream.token(tables, 5 * min(self.kinds[i] - 1, 3) + density)
                ones[i] += [k for k in range(first, last) if mask >> (k - first) & 1]
        escapes = []
        for k in range(len(sh[0]) // 3):
            for i in some:
                if k in ones[i]:
                    mean = 0.0
                    for weight, j in reversed(weights[i]):
                        mean += weight * ((sh[j][3 * k] > 0) - (sh[j][3 * k] < 0))
                    part = sum(mean >= limit for limit in (-0.6, -0.3, -0.08, 0.08, 0.3, 0.6))
                    token = stream.token(self.triples, min(self.kinds[i] - 1, 3) + 4 * part)
                    digits = token + (token >= 13)
                    if token >= 26:
                        escapes.append((i, k))
                        sh[i][3 * k] = token - 27  # Its sign, for now.
                    else:
                        sh[i][3 * k : 3 * k + 3] = [digits // 9 - 1, digits // 3 % 3 - 1, digits % 3 - 1]
        crowd = Counter(i for i, _ in escapes)
        for colour, tables in enumerate(self.colors):
            tokens = []
            for i, k in escapes:
                kind = min(max(self.kinds[i] - 2, 0), 6)
                first = min(max(sh[i][3 * k] >> kind, -2), 2) + 2
                context = 5 * kind + first
                if not colour:
                    context = 3 * kind + (crowd[i] > 1) + (crowd[i] > 4) if sh[i][3 * k] else 21
                tokens.append(stream.token(tables, context))
            for (i, k), token in zip(escapes, tokens, strict=True):
                if colour:
                    size = stream.rest(token >> 1, 4, 1)
                    sh[i][3 * k + colour] = -size if token & 1 else size
                else:
                    sh[i][3 * k] *= stream.rest(token, 5, 1)
        for tables in self.tables():
            tables.rebuild()


def native_numbers(parameters: bytes) -> dict:
    numbers = struct.unpack("<3ddd4d2dd4dBBBBHhhh", parameters)
    names = ["scale", "rotation", "dc", "sh", "co", "cg", "threshold"]
    return {
        "centre": numbers[:3],
        "radius": numbers[3],
        "scale_pivot": numbers[4],
        **dict(zip(names, numbers[5:12], strict=True)),
        "stored": numbers[12:16],
        "mean_bits": numbers[16],
        "ranges": dict(zip(RULES, numbers[17:20], strict=True)),
        "levels": numbers[20],
        "pivots": dict(zip(RULES, numbers[21:], strict=True)),
    }


def scale_symbols(values: dict[str, list[int]], i: int) -> tuple[int, int, int]:
    first = values["scale"][i]
    second = first - values["gap"][i]
    return first, second, ((second + 1) >> 1) - values["thin"][i]


RULES = {"turn": (256, -38, -77, 97), "color": (64, 77, -26, 110), "detail": (128, 128, 0, 128)}


def size_of(symbol: int) -> int:
    if symbol <= 0:
        return -114
    n = symbol.bit_length()
    above = (symbol << 9 >> n) - 256
    return 5 * (256 * (n - 1) + (above * (1024 - above) * 85 >> 16)) >> 4


def native_hints(parameters: bytes, values: dict[str, list]) -> dict[str, list[int]]:
    grid = native_numbers(parameters)
    hints: dict[str, list] = {name: [] for name in RULES} | {"levels": [grid["levels"]]}
    if "opacity" in values:
        hints["level"] = values["opacity"]
    if "thin" not in values:
        return hints
    for i, level in enumerate(values["opacity"]):
        numbers = [size_of(symbol) for symbol in scale_symbols(values, i)]
        numbers.append(round(32 * math.log2(((level + 0.5) / grid["levels"]) ** 2)))
        for name, weights in RULES.items():
            amount = sum(weight * number for weight, number in zip(weights, numbers, strict=True)) >> 8
            span = grid["ranges"][name]
            hints[name].append(min(max((amount - grid["pivots"][name] + 8) >> 4, -span), span) + span)
    span = grid["ranges"]["color"]
    return hints | {"dc steps": [half_octaves(grid["dc"], fineness - span) for fineness in hints["color"]]}


def half_octaves(step: float, halves: int) -> float:
    return step * math.ldexp(math.sqrt(0.5) if halves % 2 else 1.0, -(halves // 2))


def native_values(parameters: bytes, values: dict[str, list], count: int, coefficients: int) -> GaussianModel:
    grid, hints, rows = native_numbers(parameters), native_hints(parameters, values), []
    for i in range(count):
        row = []
        for axis, symbol in enumerate(native_place(values, i)):
            size = abs(symbol) * 2.0 ** -grid["mean_bits"]
            if size > 1:
                exponent = min(int(size) - 1, 200)
                size = (size - exponent) * 2.0**exponent
            row.append(math.copysign(size, symbol) * grid["radius"] + grid["centre"][axis])
        for symbol, factor in zip(scale_symbols(values, i), (1, 1, 2), strict=True):
            fraction, exponent = math.frexp((symbol if symbol > 0 else 0.375) * (0.4 * grid["scale"] * factor))
            above = 2 * fraction - 1
            octaves = (exponent - 1) + above * (4 - above) * (1 / 3)
            row.append(octaves * 1.7328679513998633 + grid["scale_pivot"])
        step = half_octaves(grid["rotation"], hints["turn"][i] - grid["ranges"]["turn"])
        x, y, z = (values[f"rotation {axis}"][i] * step for axis in "xyz")
        row += [math.sqrt(max(1 - (x * x + y * y + z * z), 0.0)), x, y, z]
        opacity = ((values["opacity"][i] + 0.5) / grid["levels"]) ** 2
        row.append(round(math.log(opacity / (1 - opacity)) * 4096) / 4096)
        row += [symbol * hints["dc steps"][i] for symbol in rgb(values, i)]
        step = half_octaves(grid["sh"], hints["detail"][i] - grid["ranges"]["detail"])
        steps = (step, step * grid["co"], step * grid["cg"])
        for k in range(coefficients):
            parts = []
            for symbol, colour_step in zip(values["sh"][i][3 * k : 3 * k + 3], steps, strict=True):
                size = grid["stored"][abs(symbol)] if abs(symbol) < 4 else float(abs(symbol))
                parts.append(math.copysign(size, symbol) * colour_step)
            y, co, cg = parts
            row += [(y + cg) + co, y - 2 * cg, (y + cg) - co]
        rows.append(row)
    return model_of(rows, coefficients)


def rgb(values: dict[str, list], i: int) -> tuple[int, int, int]:
    middle = values["y"][i] - (values["cg"][i] >> 1)
    blue = middle - (values["co"][i] >> 1)
    return blue + values["co"][i], values["cg"][i] + middle, blue


def published_values(parameters: bytes, values: dict[str, list], count: int, coefficients: int) -> GaussianModel:
    dc_step, sh_step, flags = struct.unpack_from("<ffB", parameters)
    wide = {name: bool(flags >> bit & 1) for bit, name in enumerate(("means", "scales", "rotations", "opacities"))}

    def number(ordinal: int, single: bool) -> float:
        bits = ordinal if ordinal >= 0 else ~ordinal | (1 << 31 if single else 1 << 15)
        return struct.unpack("<f" if single else "<e", bits.to_bytes(4 if single else 2, "little"))[0]

    rows: list[list[float]] = []
    for i in range(count):
        row = [number(ordinal, wide["means"]) for ordinal in published_place(values, i)]
        for home, width in (("scales", 3), ("rotations", 4), ("opacities", 1)):
            for index in range(width):
                whole = sum(values[f"{home} {index} {byte}"][i] << 8 * byte for byte in range(4))
                ordinal = whole - 2**31 if wide[home] else (whole >> 16) - 2**15
                row.append(number(ordinal, wide[home]))
        row += [np.float32(symbol) * np.float32(dc_step) for symbol in rgb(values, i)]
        for k in range(0, len(values["sh"][i]), 3):
            y, co, cg = ([number] for number in values["sh"][i][k : k + 3])
            colors = rgb({"y": y, "co": co, "cg": cg}, 0)
            row += [np.float32(symbol) * np.float32(sh_step) for symbol in colors]
        rows.append(row)
    return model_of(rows, coefficients)


def model_of(rows: list[list[float]], coefficients: int) -> GaussianModel:
    table = np.array(rows, np.float64).astype(np.float32).reshape(len(rows), 14 + 3 * coefficients)
    parts = np.split(table, [3, 6, 10, 11, 14], axis=1)
    return GaussianModel.from_arrays(*parts[:5], parts[5].reshape(len(rows), coefficients, 3))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_decoder_written_from_the_documentation_reads_golden_files(path: Path) -> None:
    data = path.read_bytes()
    ours, theirs = GszCodec().decode(data), decode(data)
    # Zeros have no sign in the program's integers; take it from the second decoder's too.
    assert_same_up_to_order(ours.map(lambda tensor: tensor + 0.0), theirs.map(lambda tensor: tensor + 0.0))
