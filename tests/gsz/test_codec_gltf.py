"""Proves that ``.glb`` files are what KHR_gaussian_splatting describes, keep a model as far as float32 can, and that
what is wrong with a stranger's file is said."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gsz import registry
from gsz.contract import CodecError
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, random_model

KHR = "KHR_gaussian_splatting"


def encode(splats: GaussianModel) -> bytes:
    return registry.get("glb").fit(splats).encode(splats)


def decode(data: bytes) -> GaussianModel:
    return GaussianModel.of(registry.get("glb").decode(data, "their.glb"))


def take_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """By the description of binary glTF: header, a chunk of JSON, a chunk of numbers."""
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(data), b"JSON", 0)
    numbers, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert (kind, numbers) == (b"BIN\0", len(data) - 28 - size)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def put_together(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def test_a_file_is_as_described() -> None:
    """One Gaussian, number by number, from the description alone."""
    splats = GaussianModel.from_arrays(
        means=[[1.0, -2.0, 0.5]],
        log_scales=np.log([[0.5, 2.0, 0.25]]),
        quaternions=[[2.0, 0.0, -2.0, 0.0]],
        opacity_logits=[0.0],
        sh_dc=[[0.25, 0.5, -0.5]],
        sh_rest=[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]],
    )
    document, binary = take_apart(encode(splats))
    (primitive,) = document["meshes"][document["nodes"][document["scenes"][0]["nodes"][0]]["mesh"]]["primitives"]
    assert (document["extensionsUsed"], primitive["mode"]) == ([KHR], 0)
    assert primitive["extensions"][KHR]["kernel"] == "ellipse"
    assert primitive["extensions"][KHR]["colorSpace"] == "srgb_rec709_display"
    found = {}
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert (accessor["componentType"], accessor["count"]) == (5126, 1)
        found[name] = np.frombuffer(binary, "<f4", view["byteLength"] // 4, view["byteOffset"]).tolist()
    half = float(np.float32(0.5**0.5))
    # Left, up, front: x and y change sign, and with them what turns around them and is odd in one of them.
    assert found == {
        "POSITION": [-1.0, 2.0, 0.5],
        f"{KHR}:ROTATION": [0.0, half, 0.0, half],
        f"{KHR}:SCALE": [0.5, 2.0, 0.25],
        f"{KHR}:OPACITY": [0.5],
        f"{KHR}:SH_DEGREE_0_COEF_0": [0.25, 0.5, -0.5],
        f"{KHR}:SH_DEGREE_1_COEF_0": [-1.0, -2.0, -3.0],
        f"{KHR}:SH_DEGREE_1_COEF_1": [4.0, 5.0, 6.0],
        f"{KHR}:SH_DEGREE_1_COEF_2": [-7.0, -8.0, -9.0],
    }
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    assert accessor["min"] == accessor["max"] == [-1.0, 2.0, 0.5]


@pytest.mark.parametrize("degree", range(4))
def test_what_float32_can_keep_is_kept(degree: int) -> None:
    splats = random_model(400, degree)
    back = decode(encode(splats))
    for name in ("means", "sh_dc", "sh_rest"):
        np.testing.assert_array_equal(getattr(back, name), getattr(splats, name), err_msg=name)
    # An exponential's relative error is the logarithm's absolute one; nearer to 0 the logarithm has finer numbers.
    exact = np.abs(splats.log_scales.numpy()) >= 1.0
    np.testing.assert_array_equal(back.log_scales.numpy()[exact], splats.log_scales.numpy()[exact])
    np.testing.assert_allclose(back.log_scales, splats.log_scales, atol=1e-7)
    np.testing.assert_allclose(back.opacities, splats.opacities, atol=1e-7)
    np.testing.assert_allclose(back.rotations, splats.rotations, atol=2e-7)


def test_opacities_and_scales_without_a_logarithm_are_read_as_other_formats_read_them() -> None:
    splats = random_model(3, 0)
    splats.opacity_logits[:] = np.log(0.25 / 0.75)
    splats.log_scales[:] = 0.0
    document, binary = take_apart(encode(splats))
    numbers = bytearray(binary)
    views = document["bufferViews"]
    struct.pack_into("<3f", numbers, views[3]["byteOffset"], 0.0, 0.25, 1.0)
    struct.pack_into("<f", numbers, views[2]["byteOffset"], 0.0)
    back = decode(put_together(document, bytes(numbers)))
    assert back.opacity_logits[:, 0].tolist() == [-20.0, splats.opacity_logits[1, 0], 20.0]
    assert back.log_scales[0].tolist() == [-30.0, 0.0, 0.0]


def test_scales_of_the_draft_are_read_as_logarithms(caplog: pytest.LogCaptureFixture) -> None:
    splats = random_model(20, 0)
    document, binary = take_apart(encode(splats))
    numbers = bytearray(binary)
    start = document["bufferViews"][2]["byteOffset"]
    numbers[start : start + splats.log_scales.numel() * 4] = splats.log_scales.numpy().tobytes()
    np.testing.assert_allclose(decode(put_together(document, bytes(numbers))).log_scales, splats.log_scales, atol=1e-6)
    assert "drafts" in caplog.text


def test_normalized_integers_interleaved_numbers_and_moved_nodes_are_read() -> None:
    """What other exporters may write: opacities as bytes, two attributes in turn, a node that is moved."""
    splats = random_model(2, 0)
    document, _ = take_apart(encode(splats))
    rows = b"".join(struct.pack("<3f4h4x", *position, 0, 0, 0, 32767) for position in ((1, 2, 3), (4, 5, 6)))
    rest = struct.pack("<6f2B2x6f", *[1.0] * 6, 51, 255, *[0.5] * 6)
    document["bufferViews"] = [
        {"buffer": 0, "byteLength": len(rows), "byteStride": 24},
        {"buffer": 0, "byteOffset": len(rows), "byteLength": len(rest)},
    ]
    document["accessors"] = [
        {"bufferView": 0, "componentType": 5126, "count": 2, "type": "VEC3"},
        {"bufferView": 0, "byteOffset": 12, "componentType": 5122, "normalized": True, "count": 2, "type": "VEC4"},
        {"bufferView": 1, "componentType": 5126, "count": 2, "type": "VEC3"},
        {"bufferView": 1, "byteOffset": 24, "componentType": 5121, "normalized": True, "count": 2, "type": "SCALAR"},
        {"bufferView": 1, "byteOffset": 28, "componentType": 5126, "count": 2, "type": "VEC3"},
    ]
    document["nodes"][0]["translation"] = [10, 0, 0]
    document["nodes"].append({"children": [0], "translation": [0, 0, 1]})
    document["scenes"] = [{"nodes": [1]}]
    document["buffers"] = [{"byteLength": len(rows) + len(rest)}]
    back = decode(put_together(document, rows + rest))
    assert back.means.tolist() == [[-11, -2, 4], [-14, -5, 7]]
    assert back.quaternions.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_allclose(back.opacities[0], 0.2, rtol=1e-6)
    assert back.sh_dc[0, 0].tolist() == [0.5, 0.5, 0.5]


def test_several_primitives_are_one_model() -> None:
    splats = random_model(30, 1)
    document, binary = take_apart(encode(splats))
    document["meshes"][0]["primitives"].append({"attributes": {"POSITION": 0}, "mode": 0})  # Points without splats.
    assert_same_up_to_order(decode(put_together(document, binary)), decode(encode(splats)))
    document["meshes"].append({"primitives": document["meshes"][0]["primitives"][:1]})
    document["nodes"].append({"mesh": 1})
    document["scenes"][0]["nodes"] = [0, 1]
    assert len(decode(put_together(document, binary))) == 60


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(changes)


def in_primitive(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["meshes"][0]["primitives"][0].update(changes)


def in_first(kind: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[kind][0].update(changes)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no splats": (in_primitive(extensions={}), f"holds no Gaussians of {KHR}"),
    "compressed": (in_primitive(extensions={KHR: {"extensions": {"KHR_x_compression_spz_2": {}}}}), "is not read"),
    "triangles": (in_primitive(mode=4), "no points"),
    "a loop": (in_first("nodes", children=[0]), "two parents"),
    "turned": (in_first("nodes", rotation=[1, 0, 0, 0]), "apply the transform"),
    "a matrix": (in_first("nodes", matrix=[2] * 16), "apply the transform"),
    "other files": (in_first("buffers", uri="x.bin"), "other files"),
    "too many": (in_first("accessors", count=1 << 40), "not where an accessor says"),
    "a negative offset": (in_first("bufferViews", byteOffset=-4), "byteOffset is -4"),
    "a stride of 1": (in_first("bufferViews", byteStride=1), "not where an accessor says"),
    "sparse": (in_first("accessors", sparse={}), "sparse"),
    "a wrong type": (in_first("accessors", type="MAT4"), "does not have"),
    "no scene": (change(scenes=[]), "no number 0 in scenes"),
    "text for a list": (change(accessors="all"), "no number 0 in accessors"),
    "many for few": (change(nodes=[{"children": [*range(1, 1001)]}, *[{"mesh": 0}] * 1000]), "hold no"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_with_a_file_is_said(damage: str) -> None:
    change_document, said = DAMAGE[damage]
    document, binary = take_apart(encode(random_model(5, 1)))
    change_document(document)
    with pytest.raises(CodecError, match=said) as refused:
        decode(put_together(document, binary))
    assert str(refused.value).startswith("their.glb")
    assert "\n" not in str(refused.value)


def test_missing_coefficients_are_named() -> None:
    document, binary = take_apart(encode(random_model(5, 2)))
    del document["meshes"][0]["primitives"][0]["attributes"][f"{KHR}:SH_DEGREE_1_COEF_2"]
    with pytest.raises(CodecError, match="no number None in accessors"):
        decode(put_together(document, binary))
