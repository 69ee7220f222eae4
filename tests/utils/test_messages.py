"""Proves that what processes send each other comes back as it was, and that nothing else is made of a message."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.journal import JournalRow
from gsz import registry
from pretraining.densify import ScreenStatistics
from pretraining.optimizer import Moments
from tests.helpers import assert_same_up_to_order, random_model
from utils.messages import pack, unpack


def test_plain_values_come_back_as_they_were():
    value = {
        "plain": [None, True, -3, 2**70, 0.1, math.inf, "é\ud800"],
        "kinds": ((), [], {}, frozenset({"a", 1}), {2}, b"\0\xff", Path("a/b"), np.float32(0.1)),
        3: {("a", 1): []},
    }
    again = unpack(pack(value))
    assert again == value and math.isnan(unpack(pack(math.nan)))
    assert [type(one) for one in again["kinds"]] == [type(one) for one in value["kinds"]]


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.zeros((0, 3), "<f4"), np.array(7), np.array([True])]
)
def test_arrays_and_tensors_keep_type_and_shape_and_may_be_written_to(array):
    for value in (array, torch.from_numpy(np.ascontiguousarray(array))):
        again = unpack(pack([value]))[0]
        assert (type(again), again.dtype, again.shape) == (type(value), value.dtype, value.shape)
        assert (again == value).all()
        again[...] = 0


@pytest.mark.parametrize("name", registry.names(writable_only=True))
def test_a_grid_rounds_and_writes_elsewhere_as_where_it_was_fitted(name: str):
    splats = random_model(300)
    grid = registry.get(name).fit(splats)
    again = unpack(pack(grid))
    for each in (grid, again):
        each.observe(splats)
    assert again.encode(splats) == grid.encode(splats)
    assert_same_up_to_order(again.snap(splats), grid.snap(splats))


def test_what_a_run_tells_comes_back():
    row = JournalRow("round 1", 5, 300, 30.0, 0.9, 100)
    assert unpack(pack([row])) == [row]
    splats = random_model(20)
    moments, statistics = unpack(pack((Moments.zero(splats), ScreenStatistics(20, "cpu"))))
    assert torch.equal(moments.first.means, torch.zeros(20, 3)) and moments.steps["means"] == 0
    assert_same_up_to_order(unpack(pack(splats)), splats)
    assert all(len(getattr(statistics, field)) == 20 for field in ScreenStatistics.FIELDS)


@pytest.mark.parametrize("value", [object(), len, np.array([object()]), subprocess.Popen, {1: [Ellipsis]}])
def test_other_objects_are_not_sent(value):
    with pytest.raises(TypeError):
        pack(value)


def message(described: object, arrays: bytes = b"") -> bytes:
    text = json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text + arrays


@pytest.mark.parametrize(
    "described",
    [
        ["object", "subprocess", "Popen", ["dict"]],
        ["object", "utils.messages", "np.ndarray", ["dict"]],
        ["object", "utils.messages", "importlib", ["dict"]],
        ["object", "utils.absent", "Class", ["dict"]],
        ["object", "gsz.splats", "Splats", 3],
        ["array", "|O", [1]],
        ["array", "<f4", [2]],
        ["array", "<f4", [-1]],
        ["array", "<f4", [1 << 62, 0]],
        ["bytes", 1 << 62],
        ["bytes", 3],
        ["tensor", "abacus", ["array", "<f4", [1]]],
        ["__init__", "", 0],
        {"a": 1},
        ["dict", 1],
    ],
)
def test_nothing_is_made_of_what_is_no_message(described):
    with pytest.raises(ValueError):
        unpack(message(described, b"1234"))
    for damaged in (b"", b"\xff" * 20, message([])[:-1]):
        with pytest.raises(ValueError):
            unpack(damaged)
