"""Proves the entropy coder: what goes in comes out, near the entropy, and no bytes make the decoder misbehave."""

from __future__ import annotations

import numpy as np
import pytest

from gsz.coding.alphabet import CHUNK, LANES, Alphabet, buckets, chunks
from gsz.coding.decoder import STATE_BYTES, Decoder
from gsz.coding.encoder import Encoder
from gsz.coding.tables import ONE, Column, StreamError


def column(alphabet: Alphabet) -> Column:
    return Column(alphabet, contexts=7, previous=buckets([1, 4]))


def encode(alphabet: Alphabet, values: np.ndarray, contexts: np.ndarray) -> bytes:
    coder, model = Encoder(), column(alphabet)
    for begin, end in chunks(len(values)):
        coder.integers(model, values[begin:end], contexts[begin:end])
    return coder.finish()


def decode(alphabet: Alphabet, data: bytes, contexts: np.ndarray) -> np.ndarray:
    coder, model = Decoder(data), column(alphabet)
    parts = [coder.integers(model, end - begin, contexts[begin:end])[0] for begin, end in chunks(len(contexts))]
    coder.finish()
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES, 129, 20_000])
@pytest.mark.parametrize(
    "alphabet", [Alphabet(1, 0, 40), Alphabet(5, 1, 20, signed=True), Alphabet(2, 2, 62), Alphabet(8, 0, 8)]
)
def test_integers_of_every_size_return(alphabet: Alphabet, count: int) -> None:
    rng = np.random.default_rng(count)
    limit = alphabet.value_bits - alphabet.signed
    values = rng.integers(0, 1 << rng.integers(0, limit + 1, count), dtype=np.int64)
    if alphabet.signed:
        values *= rng.choice([-1, 1], count)
    contexts = rng.integers(0, 7, count).astype(np.uint8)
    np.testing.assert_array_equal(decode(alphabet, encode(alphabet, values, contexts), contexts), values)
    tokens = Encoder().integers(Column(alphabet), values)
    assert tokens.tolist() == [alphabet.token(value) for value in values.tolist()]


def test_many_values_at_once_return() -> None:
    """As harmonics have them: up to 15 a Gaussian of a chunk."""
    values = np.random.default_rng(0).geometric(0.3, 15 * CHUNK).astype(np.int64)
    coder = Encoder()
    coder.integers(Column(Alphabet(4, 1, 10)), values)
    reader = Decoder(coder.finish())
    decoded, _ = reader.integers(Column(Alphabet(4, 1, 10)), len(values))
    reader.finish()
    np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("count", [8, 13])
def test_constant_columns_take_no_bytes_and_no_others_place(count: int) -> None:
    """A column of one token is passed over by coder and decoder, which must not move the lanes of its neighbours."""
    values = np.random.default_rng(count).integers(0, 200, (2, count))

    def columns() -> list[Column]:
        return [Column(Alphabet(8, 0, 8), size) for size in (None, 1, None)]

    streams = []
    for middle in ([], [np.zeros(count, np.int64)]):
        coder = Encoder()
        models = columns() if middle else columns()[::2]
        for model, column_values in zip(models, [values[0], *middle, values[1]], strict=True):
            coder.integers(model, column_values)
        streams.append(coder.finish())
    assert (streams[0] == streams[1]) == (count % LANES == 0)
    decoder = Decoder(streams[1])
    decoded = [decoder.integers(model, count)[0] for model in columns()]
    decoder.finish()
    np.testing.assert_array_equal(decoded, [values[0], np.zeros(count), values[1]])


def test_the_largest_values_return() -> None:
    alphabet = Alphabet(2, 2, 63)
    values = np.array([0, (1 << 63) - 1, 1 << 62, 3, 4], np.int64)
    first = np.zeros(len(values), np.uint8)
    np.testing.assert_array_equal(decode(alphabet, encode(alphabet, values, first), first), values)
    assert alphabet.size <= 256


def test_the_size_is_near_the_entropy_and_contexts_help() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 60_000)
    first = (3 * kind).astype(np.uint8)
    spread = np.array([0.3, 2.0, 9.0])[kind]
    values = np.rint(rng.laplace(0, spread)).astype(np.int64)
    alphabet = Alphabet(6, 1, 12, signed=True)
    entropy = 0.0
    for k in range(3):
        counts = np.unique(values[kind == k], return_counts=True)[1]
        entropy -= (counts * np.log2(counts / counts.sum())).sum() / 8
    length = len(encode(alphabet, values, first))
    assert entropy < length < 1.03 * entropy
    assert length < 0.9 * len(encode(alphabet, values, np.zeros_like(first)))


def test_tables_stay_complete_while_they_learn() -> None:
    model = column(Alphabet(4, 1, 10))
    for begin, end in chunks(5_000):
        Encoder().integers(model, np.arange(begin, end) % 700, np.zeros(end - begin, np.uint8))
        frequencies = (model.tables.symbols & 0xFFFF).sum(1)
        assert (frequencies == ONE).all()
        assert ((model.tables.symbols & 0xFFFF) > 0).all()


def test_chunks_cover_everything_once_and_are_whole_turns_of_the_lanes() -> None:
    for count in (0, 1, 127, 128, 1000, 100_000):
        bounds = chunks(count)
        assert [end for _, end in bounds[:-1]] == [begin for begin, _ in bounds[1:]]
        assert (bounds[0][0], bounds[-1][1]) == (0, count) if count else bounds == []
        assert all((end - begin) % LANES == 0 and end - begin <= CHUNK for begin, end in bounds[:-1])


def test_damaged_streams_are_refused_and_harmless() -> None:
    rng = np.random.default_rng(1)
    alphabet = Alphabet(3, 1, 30)
    values = rng.geometric(0.1, 3_000).astype(np.int64)
    first = np.zeros(len(values), np.uint8)
    data = encode(alphabet, values, first)
    refused = 0
    for trial in range(60):
        broken = bytearray(data)
        if trial % 3 == 0:
            del broken[int(rng.integers(0, len(broken))) :]
        elif trial % 3 == 1:
            broken[int(rng.integers(0, len(broken)))] ^= int(rng.integers(1, 256))
        else:
            broken = bytearray(rng.bytes(int(rng.integers(0, 4_000))))
        try:
            decoded = decode(alphabet, bytes(broken), first)
        except StreamError:
            refused += 1
        else:
            assert len(decoded) == len(values)
    assert refused >= 58


@pytest.mark.parametrize("length", [0, 1, STATE_BYTES - 2, STATE_BYTES + 1])
def test_odd_lengths_are_refused(length: int) -> None:
    with pytest.raises(StreamError, match="a stream of"):
        Decoder(bytes(length))
