"""``.glb``, binary glTF with ``KHR_gaussian_splatting``: float32 numbers after their activations, for interchange.

Read from the extension as it was ratified (github.com/KhronosGroup/glTF, extensions/2.0/Khronos/KHR_gaussian_splatting)
and glTF 2.0, and checked against files and readers of others. glTF's axes are left-up-front where INRIA's are
right-down-front. ``docs/formats.md`` has the layout.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.cleaning import FLAT_LOG_SCALE, OPAQUE_LOGIT
from gsz.contract import Codec, CodecError, Grid, ModelT
from gsz.rounding import elementary
from gsz.rounding.axes import LEFT_UP_FRONT, axes_of
from gsz.splats import MAX_SH_DEGREE, Splats

_log = logging.getLogger(__name__)

EXTENSION = "KHR_gaussian_splatting"
POINTS = 0
FLOAT = 5126
ARRAY_BUFFER = 34962

_HEADER = struct.Struct("<4sII")
"""Magic, version of glTF, length of the file."""
_CHUNK = struct.Struct("<I4s")
"""Length and kind of what follows."""
_MAGIC, _VERSION = b"glTF", 2
_JSON, _BINARY = b"JSON", b"BIN\0"

_COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5126: np.float32}
"""Types of numbers, by glTF's codes for them, that an attribute of the extension may have."""
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}

_LOG_SCALES = (-87.0, 88.0)
_LOGITS = (-87.0, 87.0)
"""What has an exponential or sigmoid that is a normal number of float32, or 1."""

Floats = npt.NDArray[np.float32]


# --- Values ----------------------------------------------------------------------------------------------------------


def _attribute_names(sh_degree: int) -> dict[str, str]:
    """The names of a primitive's attributes, and glTF's type of each, in the order of the file."""
    names = {
        "POSITION": "VEC3",
        f"{EXTENSION}:ROTATION": "VEC4",
        f"{EXTENSION}:SCALE": "VEC3",
        f"{EXTENSION}:OPACITY": "SCALAR",
    }
    for degree in range(sh_degree + 1):
        names |= {f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{number}": "VEC3" for number in range(2 * degree + 1)}
    return names


def _to_attributes(splats: Splats) -> list[Floats]:
    """``(N, width)`` numbers of each attribute of a file, in the order of :func:`_attribute_names`."""
    axes = axes_of(LEFT_UP_FRONT).here
    unit = _unit(splats.quaternions)
    scales = elementary.exp2(np.clip(splats.log_scales, *_LOG_SCALES).astype(np.float64) / elementary.LN2)
    odds = elementary.exp2(np.clip(splats.opacity_logits, *_LOGITS).astype(np.float64) / -elementary.LN2)
    rest = splats.sh_rest * axes.sh.reshape(-1, 3)[: splats.sh_rest.shape[1]]
    return [
        splats.means * axes.means,
        np.concatenate([unit[:, 1:] * axes.imaginary, unit[:, :1]], axis=1).astype(np.float32),
        scales.astype(np.float32),
        (1.0 / (1.0 + odds)).astype(np.float32),
        splats.sh_dc[:, 0],
        *(rest[:, number] for number in range(rest.shape[1])),
    ]


def _of_attributes(attributes: list[Floats]) -> Splats:
    """The model that the attributes of a file say, in the same order."""
    axes = axes_of(LEFT_UP_FRONT).here
    means, rotations, scales, opacities, sh_dc, *rest = attributes
    # An opacity of 0 or 1 has no logit, and a scale of 0 no logarithm; the logs of both are infinite.
    logs = elementary.log(np.abs(scales))
    exact = np.clip(opacities.astype(np.float64), 0.0, 1.0)
    logits = elementary.log(exact) - elementary.log(1.0 - exact)
    harmonics = np.stack(rest, axis=1) if rest else np.zeros((len(means), 0, 3), np.float32)
    return Splats.from_arrays(
        means=means * axes.means,
        log_scales=np.where(np.isneginf(logs), FLAT_LOG_SCALE, logs),
        quaternions=np.concatenate([rotations[:, 3:], rotations[:, :3] * axes.imaginary], axis=1),
        opacity_logits=np.where(np.isinf(logits), np.copysign(OPAQUE_LOGIT, logits), logits),
        sh_dc=sh_dc,
        sh_rest=harmonics * axes.sh.reshape(-1, 3)[: harmonics.shape[1]],
    )


def _unit(quaternions: Floats) -> npt.NDArray[np.float64]:
    """Quaternions of length 1; those of length 0 become the one that turns nothing."""
    wide = quaternions.astype(np.float64)
    a, b, c, d = (wide * wide).T
    lengths = np.sqrt(a + b + c + d)[:, None]
    return np.where(lengths == 0.0, [1.0, 0.0, 0.0, 0.0], wide / np.where(lengths == 0.0, 1.0, lengths))


# --- Writing ---------------------------------------------------------------------------------------------------------


class GltfGrid(Grid):
    """Scales and opacities of float32 in place of their logarithms and logits, and rotations of length 1."""

    def snap(self, splats: ModelT) -> ModelT:
        from gsz.rounding.tensors import on_device, straight_through, straight_through_rotation

        values = _of_attributes(_to_attributes(splats.numpy()))
        device = splats.means.device
        signs = on_device(np.ones(len(splats), np.float32), device)
        return splats.replace(
            log_scales=straight_through(splats.log_scales, on_device(values.log_scales, device), *_LOG_SCALES),
            quaternions=straight_through_rotation(splats.quaternions, on_device(values.quaternions, device), signs),
            opacity_logits=straight_through(splats.opacity_logits, on_device(values.opacity_logits, device), *_LOGITS),
        )

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        arrays = splats.numpy()
        attributes = _to_attributes(arrays)
        names = _attribute_names(splats.sh_degree)
        accessors: list[dict[str, Any]] = []
        views: list[dict[str, Any]] = []
        size = 0
        for kind, values in zip(names.values(), attributes, strict=True):
            accessors.append({"bufferView": len(views), "componentType": FLOAT, "count": len(values), "type": kind})
            views.append({"buffer": 0, "byteOffset": size, "byteLength": values.nbytes, "target": ARRAY_BUFFER})
            size += values.nbytes
        if len(splats):  # glTF demands the bounds of positions.
            accessors[0] |= {end: getattr(attributes[0], end)(axis=0).tolist() for end in ("min", "max")}
        primitive = {
            "attributes": {name: number for number, name in enumerate(names)},
            "mode": POINTS,
            "extensions": {
                EXTENSION: {
                    "kernel": "ellipse",
                    "colorSpace": "srgb_rec709_display",
                    "sortingMethod": "cameraDistance",
                    "projection": "perspective",
                }
            },
        }
        document = {
            "asset": {"version": "2.0", "generator": "gsz"},
            "extensionsUsed": [EXTENSION],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
            "accessors": accessors,
            "bufferViews": views,
            "buffers": [{"byteLength": size}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        binary = b"".join(np.ascontiguousarray(values, "<f4").tobytes() for values in attributes)
        length = _HEADER.size + 2 * _CHUNK.size + len(text) + len(binary)
        chunks = [_CHUNK.pack(len(text), _JSON), text, _CHUNK.pack(len(binary), _BINARY), binary]
        return b"".join([_HEADER.pack(_MAGIC, _VERSION, length), *chunks])


# --- Reading ---------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """What is wrong with a document, without the file's name."""


@dataclass(frozen=True)
class _Document:
    """A file, taken apart.

    Attributes:
        json: Its description.
        binary: Its numbers.
    """

    json: dict[str, Any]
    binary: memoryview

    @classmethod
    def of(cls, data: bytes) -> _Document:
        if len(data) < _HEADER.size + _CHUNK.size:
            raise _Wrong("truncated, there is no whole header")
        magic, version, length = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise _Wrong("no binary glTF of version 2")
        if length > len(data):
            raise _Wrong(f"truncated, it has {len(data)} of {length} bytes")
        chunks = list(_chunks(memoryview(data)[_HEADER.size : length]))
        if not chunks or chunks[0][0] != _JSON:
            raise _Wrong("corrupted, it does not begin with a description in JSON")
        try:
            described = json.loads(bytes(chunks[0][1]))
        except (ValueError, RecursionError) as error:
            raise _Wrong(f"corrupted, its description is no JSON ({error})") from error
        if not isinstance(described, dict):
            raise _Wrong("corrupted, its description is no JSON object")
        return cls(described, chunks[1][1] if len(chunks) > 1 and chunks[1][0] == _BINARY else memoryview(b""))

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """An object of one of the document's lists."""
        items = self.json.get(kind)
        if type(index) is not int or not isinstance(items, list) or not 0 <= index < len(items):
            raise _Wrong(f"corrupted, there is no number {str(index)[:20]} in {kind}")
        if not isinstance(items[index], dict):
            raise _Wrong(f"corrupted, number {index} in {kind} is no object")
        return items[index]

    def primitives(self) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.float64]]]:
        """The splats of the scene, each with where it stands."""
        roots = _list(self.item("scenes", self.json.get("scene", 0)), "nodes")
        waiting = [(node, np.zeros(3)) for node in reversed(roots)]
        seen = set()
        while waiting:
            index, origin = waiting.pop()
            node = self.item("nodes", index)
            if index in seen:
                raise _Wrong("corrupted, a node of it has two parents")
            seen.add(index)
            origin = origin + _translation(node)
            waiting += [(child, origin) for child in reversed(_list(node, "children"))]
            if "mesh" in node:
                for primitive in _list(self.item("meshes", node["mesh"]), "primitives"):
                    if isinstance(primitive, dict) and EXTENSION in _dict(primitive, "extensions"):
                        yield primitive, origin

    def numbers(self, index: Any, kind: str, count: int | None = None) -> Floats:
        """``(N, width)`` numbers of an accessor of that type, copied."""
        accessor = self.item("accessors", index)
        component = accessor.get("componentType")
        if accessor.get("type") != kind or component not in _COMPONENTS:
            raise _Wrong(
                f"an attribute is {accessor.get('type')} of type {component}, which the extension does not have"
            )
        if "sparse" in accessor or "bufferView" not in accessor:
            raise _Wrong("an attribute has no numbers of its own: it is sparse, or compressed by another extension")
        view = self.item("bufferViews", accessor["bufferView"])
        if "uri" in self.item("buffers", view.get("buffer", 0)) or view.get("buffer", 0) != 0:
            raise _Wrong("its numbers are in other files")
        dtype = np.dtype(_COMPONENTS[component]).newbyteorder("<")
        width = dtype.itemsize * _WIDTHS[kind]
        start, offset = _whole(view, "byteOffset", 0), _whole(accessor, "byteOffset", 0)
        length, number = _whole(view, "byteLength"), _whole(accessor, "count")
        stride = _whole(view, "byteStride", width)
        end = offset + stride * (number - 1) + width if number else 0
        if stride < width or start + length > len(self.binary) or end > length or count not in (None, number):
            raise _Wrong(f"corrupted, {number} values are not where an accessor says")
        rows = np.ndarray(
            (number, _WIDTHS[kind]), dtype, self.binary, start + offset if number else 0, (stride, dtype.itemsize)
        )
        values = rows.astype(np.float32)
        if accessor.get("normalized") is True and dtype.kind != "f":
            values = np.maximum(values / np.float32(np.iinfo(dtype).max), np.float32(-1.0))
        return values


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk."""
    while len(data) >= _CHUNK.size:
        length, kind = _CHUNK.unpack_from(data)
        if length > len(data) - _CHUNK.size:
            raise _Wrong("truncated within a chunk")
        yield kind, data[_CHUNK.size : _CHUNK.size + length]
        data = data[_CHUNK.size + length :]


def _list(owner: dict[str, Any], key: str) -> list[Any]:
    value = owner.get(key, [])
    if not isinstance(value, list):
        raise _Wrong(f"corrupted, {key} are no list")
    return value


def _dict(owner: dict[str, Any], key: str) -> dict[str, Any]:
    value = owner.get(key, {})
    if not isinstance(value, dict):
        raise _Wrong(f"corrupted, {key} are no object")
    return value


def _whole(owner: dict[str, Any], key: str, default: int | None = None) -> int:
    value = owner.get(key, default)
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise _Wrong(f"corrupted, {key} is {str(value)[:20]}")
    return value


def _translation(node: dict[str, Any]) -> npt.NDArray[np.float64]:
    """How far a node is moved; turned and scaled ones are refused."""
    if "matrix" in node and node["matrix"] != np.eye(4).ravel().tolist():
        raise _Wrong("its splats are moved by a matrix; apply the transform in an editor")
    if node.get("rotation", [0, 0, 0, 1]) != [0, 0, 0, 1] or node.get("scale", [1, 1, 1]) != [1, 1, 1]:
        raise _Wrong("its splats are turned or scaled by a node; apply the transform in an editor")
    try:
        origin = np.array(node.get("translation", [0, 0, 0]), np.float64).reshape(3)
    except (TypeError, ValueError, OverflowError) as error:
        raise _Wrong("corrupted, a translation is not three numbers") from error
    return origin


def _sh_degree(attributes: dict[str, Any]) -> int:
    """The highest degree of which there is a coefficient."""
    return max(
        (degree for degree in range(MAX_SH_DEGREE + 1) if f"{EXTENSION}:SH_DEGREE_{degree}_COEF_0" in attributes),
        default=0,
    )


@dataclass(frozen=True)
class GltfCodec(Codec):
    """Binary glTF. Files keep the order of Gaussians."""

    name = "glb"
    aliases = ("gltf",)
    suffix = ".glb"

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def fit(self, splats: Splats) -> Grid:
        return GltfGrid()

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        try:
            # What is NaN or too large in a file becomes so here as well, and is cleaned as in all formats.
            with np.errstate(invalid="ignore", over="ignore"):
                parts = _read(_Document.of(data), len(data), source)
        except _Wrong as problem:
            raise CodecError(f"{source}: {problem}; export or download it again") from problem
        return parts[0] if len(parts) == 1 else Splats.concatenate(parts)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        try:
            document = _Document.of(data)
            found = [_dict(primitive, "attributes") for primitive, _ in document.primitives()]
            counts = [_whole(document.item("accessors", names.get("POSITION")), "count") for names in found]
            sizes: dict[str, int] = {}
            for names in found:
                for name in names:
                    accessor = document.item("accessors", names[name])
                    view = document.item("bufferViews", accessor.get("bufferView"))
                    part = _PARTS.get(name, "sh_rest" if name.startswith(f"{EXTENSION}:SH_DEGREE_") else "other")
                    sizes[part] = sizes.get(part, 0) + _whole(view, "byteLength")
        except _Wrong as problem:
            raise CodecError(f"{source}: {problem}; export or download it again") from problem
        if not found:
            raise CodecError(f"{source}: holds no Gaussians of {EXTENSION}; give the file of a trained model")
        return {
            "format": self.name,
            "version": _VERSION,
            "count": sum(counts),
            "sh_degree": _sh_degree(found[0]),
            "bytes": sizes,
        }


_PARTS = {
    "POSITION": "means",
    f"{EXTENSION}:SCALE": "log_scales",
    f"{EXTENSION}:ROTATION": "quaternions",
    f"{EXTENSION}:OPACITY": "opacity_logits",
    f"{EXTENSION}:SH_DEGREE_0_COEF_0": "sh_dc",
}
"""Which parameter an attribute holds."""


def _read(document: _Document, size: int, source: str) -> list[Splats]:
    """The splats of each primitive."""
    parts: list[Splats] = []
    total = 0
    for primitive, origin in document.primitives():
        attributes, splatting = _dict(primitive, "attributes"), _dict(primitive["extensions"], EXTENSION)
        compression = [name for name in _dict(splatting, "extensions") if "compression" in name]
        if compression:
            raise _Wrong(f"its splats are compressed by {compression[0]}, which is not read")
        if primitive.get("mode") != POINTS:
            raise _Wrong("corrupted, its splats are no points")
        means = document.numbers(attributes.get("POSITION"), "VEC3")
        # Attributes may share their numbers, so that a small file could stand for many large primitives.
        total += len(means)
        if 12 * total > size:
            raise _Wrong(f"{size} bytes hold no {total} Gaussians")
        degree = _sh_degree(attributes)
        names = list(_attribute_names(degree).items())[1:]
        others = [document.numbers(attributes.get(name), kind, len(means)) for name, kind in names]
        if len(others[1]) and others[1].min() < 0:
            _log.warning(f"{source}: scales below 0 are logarithms, as in drafts of {EXTENSION}; they are read as such")
            others[1] = elementary.exp2(others[1].astype(np.float64) / elementary.LN2).astype(np.float32)
        if splatting.get("colorSpace") == "lin_rec709_display":
            _log.warning(f"{source}: its colors are linear, and are shown here as if they were sRGB")
        placed = (means + origin).astype(np.float32) if origin.any() else means  # A sum would lose the sign of -0.
        parts.append(_of_attributes([placed, *others]))
    if not parts:
        raise _Wrong(f"holds no Gaussians of {EXTENSION}")
    if len({part.sh_degree for part in parts}) > 1:
        raise _Wrong("holds splats of several SH degrees; export them one by one")
    return parts
