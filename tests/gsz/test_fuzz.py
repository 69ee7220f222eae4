"""Proves on a few thousand damaged files that decoders refuse damage with ``CodecError``, in bounded time and memory.

``scripts/fuzz_codecs.py`` does the same on as many as one likes.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gsz import registry
from gsz.registry import CodecError
from scene.gaussian_model import GaussianModel
from scripts import fuzz_codecs
from scripts.fuzz_codecs import Tally, attempt, fuzz, seed_files


@pytest.mark.parametrize("name", registry.names())
def test_the_seeds_are_valid_files(name: str) -> None:
    codec = registry.find(name).load()
    files = list(seed_files(codec))
    assert len(files) >= 3
    for item in files:
        count = len(codec().decode(item.data))
        if item.unpack is not None and item.pack is not None:
            assert len(codec().decode(item.pack(item.unpack(item.data)))) == count


def test_damaged_files_are_refused() -> None:
    tallies = fuzz(inputs=3000, seconds=20)
    for tally in tallies:
        assert tally.failures == []
        assert tally.refused > tally.inputs / 10
    assert sum(tally.decoded for tally in tallies) > 0


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [
        (lambda: [][1], "IndexError"),
        (lambda: (bytes(fuzz_codecs.FREE_BYTES + (1 << 22)), GaussianModel.empty())[1], "bytes were allocated"),
        (lambda: (_ for _ in ()).throw(CodecError("no name")), "not one line that begins with the file"),
        (lambda: (Path(os.devnull).write_bytes(b""), GaussianModel.empty())[1], "did more than read: open"),
        (lambda: (pickle.loads(pickle.dumps(Path)), GaussianModel.empty())[1], "did more than read: pickle.find_class"),
    ],
)
def test_misbehavior_is_noticed(monkeypatch: pytest.MonkeyPatch, misbehaviour: object, message: str) -> None:
    """The script would find what it looks for."""
    codec = registry.get("splat")
    monkeypatch.setattr(type(codec), "decode", lambda self, data, source="": misbehaviour())  # type: ignore[operator]
    problem = attempt(codec, b"", Tally("splat"))
    assert problem is not None and message in problem
