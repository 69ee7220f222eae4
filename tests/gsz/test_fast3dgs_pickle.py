"""Proves that checkpoints of Fast-3DGS are read to the value, and that no pickle can do anything else.

The checkpoints are written here with Python's own pickle and numpy, as Fast-3DGS writes them, in all
protocols and with the module names of numpy before and since version 2. The attacks are real pickles that would run a
program, or ask for memory, if a general unpickler read them.
"""

from __future__ import annotations

import lzma
import os
import struct
from pathlib import Path
from pickle import dumps, loads
from typing import Any

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.contract import CodecError
from gsz.fast3dgs_pickle import FREE_BYTES, MAX_EXPANSION, Fast3dgsPickleCodec
from tests.helpers import allocating_little, damaged, random_model


def checkpoint(count: int = 30, quantized: bool = True, sh_degree: int = 3, kind: type = np.uint8) -> dict[str, Any]:
    """What Fast-3DGS stores of a random model."""
    splats = random_model(count, sh_degree)
    stored: dict[str, Any] = {"quantization": quantized, "active_degree": sh_degree}
    for key, values in (("features_dc", splats.sh_dc), ("features_rest", splats.sh_rest)):
        if quantized:
            scale, zero_point = 0.0123, 100 if kind is np.uint8 else -7
            bounds = np.iinfo(kind)
            symbols = (values / scale).round().add(zero_point).clamp(int(bounds.min), int(bounds.max))
            stored |= {key: symbols.numpy().astype(kind), f"{key}_scale": scale, f"{key}_zero_point": zero_point}
        else:
            stored[key] = values.numpy()
    others = {
        "xyz": splats.means,
        "opacity": splats.opacity_logits,
        "scaling": splats.log_scales,
        "rotation": splats.quaternions,
    }
    return stored | {key: values.half().numpy() for key, values in others.items()}


def packed(value: Any, protocol: int = 4) -> bytes:
    return lzma.compress(value if isinstance(value, bytes) else dumps(value, protocol=protocol))


def refused(content: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message) as caught:
        Fast3dgsPickleCodec().decode(content, "file.xz")
    assert str(caught.value).startswith("file.xz: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_quantized_checkpoints(protocol: int, kind: type) -> None:
    stored = checkpoint(kind=kind)
    model = Fast3dgsPickleCodec().decode(packed(stored, protocol))
    for ours, theirs in (("means", "xyz"), ("log_scales", "scaling"), ("quaternions", "rotation")):
        np.testing.assert_array_equal(getattr(model, ours), stored[theirs].astype(np.float32))
    np.testing.assert_array_equal(model.opacity_logits, stored["opacity"].astype(np.float32))
    bounds = np.iinfo(kind)
    for ours, theirs in (("sh_dc", "features_dc"), ("sh_rest", "features_rest")):
        scale, zero_point = stored[f"{theirs}_scale"], stored[f"{theirs}_zero_point"]
        values = getattr(model, ours)
        np.testing.assert_allclose(values, (stored[theirs] - float(zero_point)) * scale, rtol=1e-6)
        tensor = torch.from_numpy(values)
        on_grid = torch.fake_quantize_per_tensor_affine(tensor, scale, zero_point, bounds.min, bounds.max)
        torch.testing.assert_close(tensor, on_grid, rtol=0, atol=0)


@pytest.mark.parametrize("sh_degree", range(4))
def test_checkpoints_without_quantization(sh_degree: int) -> None:
    stored = checkpoint(quantized=False, sh_degree=sh_degree)
    model = Fast3dgsPickleCodec().decode(packed(stored))
    assert model.sh_degree == sh_degree
    np.testing.assert_array_equal(model.sh_rest, stored["features_rest"])


def test_numbers_may_be_numpy_scalars_and_arrays() -> None:
    plain = checkpoint()
    wrapped = dict(plain)
    for key in ("features_dc", "features_rest"):
        wrapped[f"{key}_scale"] = np.float64(plain[f"{key}_scale"])
        wrapped[f"{key}_zero_point"] = np.array([plain[f"{key}_zero_point"]])
    wrapped["active_degree"] = np.int64(3)
    models = [Fast3dgsPickleCodec().decode(packed(stored)) for stored in (plain, wrapped)]
    np.testing.assert_array_equal(models[0].sh_rest, models[1].sh_rest)


def test_other_memory_orders() -> None:
    stored = checkpoint()
    stored["xyz"] = np.asfortranarray(stored["xyz"].astype(">f4"))
    stored["opacity"] = np.zeros((30, 2), np.float64)[:, :1]
    model = Fast3dgsPickleCodec().decode(packed(stored))
    np.testing.assert_array_equal(model.means, stored["xyz"].astype("<f4"))


def test_files_written_with_numpy_before_version_2() -> None:
    pickled = dumps(checkpoint(), protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert len(Fast3dgsPickleCodec().decode(packed(pickled))) == 30


def test_only_the_active_degree_is_kept() -> None:
    stored = checkpoint() | {"active_degree": 1}
    model = Fast3dgsPickleCodec().decode(packed(stored))
    assert model.sh_degree == 1
    full = Fast3dgsPickleCodec().decode(packed(checkpoint()))
    np.testing.assert_array_equal(model.sh_rest, full.sh_rest[:, :3])


def test_the_registry_reads_them_and_shows_their_header(tmp_path: Path) -> None:
    path = tmp_path / "point_cloud.lzma"
    path.write_bytes(packed(checkpoint()))
    assert len(registry.read(path)) == 30
    info = registry.info(path)
    assert (info["format"], info["count"], info["sh_degree"]) == ("fast3dgs-pickle", 30, 3)
    assert info["unpacked_bytes"]["means"] == 30 * 3 * np.dtype(info["types"]["means"]).itemsize
    path.write_bytes(packed(checkpoint(count=0)))
    assert len(registry.read(path)) == 0


class Calling:
    """Something whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def test_no_pickle_runs_a_program(tmp_path: Path) -> None:
    proof = tmp_path / "it ran"
    command = f"touch '{proof}'"
    attacks = {
        "system": Calling(os.system, command),
        "eval": Calling(eval, f"open({str(proof)!r}, 'w')"),
        "exec": Calling(exec, f"open({str(proof)!r}, 'w')"),
        "open": Calling(open, str(proof), "w"),
    }
    for name, attack in attacks.items():
        for where in (attack, [attack], checkpoint() | {"xyz": attack}, checkpoint() | {"extra": attack}):
            for protocol in (3, 4, 5):
                pickled = dumps(where, protocol=protocol)
                refused(packed(pickled), rf"asks for '\w+\.{name}'")
    assert not proof.exists()
    loads(dumps(attacks["system"]))  # The attack is real: Python's own unpickler falls for it.
    assert proof.exists()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for 'os.system'"),
        (b"\x80\x04cbuiltins\ngetattr\n.", "asks for 'builtins.getattr'"),
        (b"\x80\x04cnumpy\nload\n.", "asks for 'numpy.load'"),
        (b"\x80\x04cnumpy\nndarray\n)R.", "calls something that is no function"),
        (b"\x80\x04cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x04cnumpy\ndtype\n}b.", "builds something that is no array"),
        (b"\x80\x04cnumpy\ndtype\n\x8c\x01O\x85R.", "not made of numbers"),
        (b"\x80\x04(ios\nsystem\n.", "instruction INST"),
        (b"\x80\x04\x82\x01.", "instruction EXT1"),
        (b"\x80\x04Pname\n.", "instruction PERSID"),
        (b"\x80\x04.", "empty stack"),
        (b"\x80\x040.", "instruction POP"),
        (b"\x80\x04N", "cut short|does not end"),
        (b"\x80\x04h\x05.", "has not built"),
        (b"\x80\x04t.", "empty stack"),
        (b"\x80\x04N.N.", "something follows its end"),
        (b"\x80\x04}K\x01Ks.", "holds no dictionary"),
        (b"\x80\x04}K\x01K\x02s.", "no dictionary of names"),
        (b"\x80\x04Na.", "empty stack"),
        (b"\x80\x04NNa.", "no list"),
        (b"\x80\x04\x93.", "empty stack"),
        (b"\x80\x04NN\x93.", "without a name"),
        (b"\x80\x04N.", "holds no dictionary"),
        (b"\x80\x04}.", "lacks the array 'xyz'"),
        (b"", "does not end|cut short"),
    ],
)
def test_instructions_that_no_checkpoint_needs_are_refused(pickled: bytes, message: str) -> None:
    refused(packed(pickled), message)


def array_pickle(shape: bytes, data: bytes) -> bytes:
    """A float32 array as numpy pickles it, with a shape and data that need not fit."""
    reconstruct = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"\x80\x04" + reconstruct + b"(K\x01" + shape + kind + b"\x89" + data + b"tb."


def test_shapes_must_fit_their_data() -> None:
    good = array_pickle(b"K\x02\x85", b"C\x08" + bytes(8))
    assert loads(good).tolist() == [0.0, 0.0]
    refused(packed(good), "holds no dictionary")
    huge = b"\x8a\x08" + struct.pack("<q", 1 << 60)
    for shape in (
        huge + b"\x85",
        huge * 3 + b"\x87",
        b"J\xff\xff\xff\xff\x85",
        b"K\x03\x85",
        b"N",
        b"N\x85",
        b"\x88\x85",
    ):
        content = packed(array_pickle(shape, b"C\x08" + bytes(8)))
        with allocating_little():
            refused(content, "shape")
    refused(packed(array_pickle(b"K\x02\x85", b"\x8c\x08" + bytes(8))), "not made of numbers")


def test_lengths_and_indices_cost_no_memory() -> None:
    """Python's C unpickler would allocate 8 GB for the first and 64 GB for the second of these."""
    for pickled in (
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b".",
        b"\x80\x04Nr\xff\xff\xff\xff.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    ):
        content = packed(pickled)
        with allocating_little():
            refused(content, "cut short|holds no dictionary")


def test_tuples_that_grow_exponentially_are_never_hashed() -> None:
    doubling = b")" + b"\x94h\x00\x86" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(1, 100))
    refused(packed(b"\x80\x04}" + doubling + b"Ns."), "no dictionary of names")
    refused(packed(b"\x80\x04cnumpy\ndtype\n" + doubling + b"\x85R."), "not made of numbers")
    refused(packed(b"\x80\x04" + b"N" * 10_000 + b"."), "more than 4096 instructions")


def test_bombs_and_damaged_streams_are_refused() -> None:
    refused(packed(bytes(100_000_000)), f"more than {MAX_EXPANSION} times its size")
    good = packed(checkpoint())
    assert len(dumps(checkpoint())) < FREE_BYTES
    refused(good[:-10], "is truncated")
    refused(good[:100], "is truncated")
    refused(good + b"\0" * 4, "something follows its end")
    refused(good[:200] + b"\xff\xff" + good[202:], "does not decompress")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": np.zeros((30, 2), np.float16)}, r"'xyz' has the shape \(30, 2\)"),
        ({"scaling": np.zeros((29, 3), np.float16)}, "'scaling' has the shape"),
        ({"rotation": np.zeros((30, 4), np.int16)}, "stored as int16"),
        ({"features_dc": np.zeros((30, 3), np.uint8)}, "'features_dc' has the shape"),
        ({"features_rest": np.zeros((30, 7, 3), np.uint8)}, "7 coefficients"),
        ({"features_rest": np.zeros((30, 24, 3), np.uint8)}, "24 coefficients"),
        ({"features_dc_scale": None}, "lacks the number 'features_dc_scale'"),
        ({"features_dc_scale": np.nan}, "lacks the number 'features_dc_scale'"),
        ({"features_rest_zero_point": 10**400}, "lacks the number 'features_rest_zero_point'"),
        ({"active_degree": "3"}, "lacks the number 'active_degree'"),
        ({"opacity": None}, "lacks the array 'opacity'"),
        ({"xyz": np.float32(0)}, "lacks the array 'xyz'"),
    ],
)
def test_dictionaries_that_are_not_checkpoints_are_refused(change: dict[str, Any], message: str) -> None:
    refused(packed(checkpoint() | change), message)


def test_infinite_parameters_are_named(tmp_path: Path) -> None:
    path = tmp_path / "point_cloud.xz"
    path.write_bytes(packed(checkpoint() | {"scaling": np.full((30, 3), 1e300)}))
    with pytest.raises(
        CodecError, match=r"point_cloud\.xz: holds no Gaussian that can be used: 30 of 30 .*\(log_scales of 30\)"
    ):
        registry.read(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_damaged_pickles_raise_codec_errors_only(protocol: int) -> None:
    for inner in damaged(dumps(checkpoint(count=5, sh_degree=0), protocol=protocol), 400, seed=protocol):
        try:
            Fast3dgsPickleCodec().decode(lzma.compress(inner, preset=0), "file.xz")
        except CodecError as error:
            assert str(error).startswith("file.xz: ")
            assert "\n" not in str(error)


def test_damaged_streams_raise_codec_errors_only() -> None:
    for broken in damaged(packed(checkpoint(count=5)), 300):
        try:
            Fast3dgsPickleCodec().decode(broken, "file.xz")
        except CodecError as error:
            assert str(error).startswith("file.xz: ")
