"""Niantic's ``.spz``: one byte or three a number, in planes, under gzip (versions 1 to 3) or zstd (version 4).

Read from the description in Niantic's public repository (github.com/nianticlabs/spz) and checked against files and
readers of others. The format's axes are right-up-back where INRIA's are right-down-front, so the second and third axis
change sign, and with them the rotations and some of the spherical harmonics. ``docs/formats.md`` has the layout.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.codecs.contract import Codec, CodecError, Grid
from compress.codecs.morton import morton_order
from compress.codecs.quantizers import (
    OPACITY_MIDPOINTS,
    Bytes,
    as_array,
    drop_largest,
    log2_prominence,
    logit,
    look_up_columns,
    nearest_levels,
    restore_largest,
    round_to_multiples,
    straight_through,
    straight_through_rotation,
)
from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel
from utils.cli import warn
from utils.errors import UserError

MAGIC = 0x5053474E
"""``NGSP`` in the order of the file."""

HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, count, SH degree, fractional bits, flags, and reserved (to version 3) or number of streams (4)."""

TAIL_V4 = struct.Struct("<I12x")
"""What follows :data:`HEADER` in version 4: where the table of streams begins."""

STREAM = struct.Struct("<QQ")
"""An entry of that table: compressed and uncompressed size."""

EXTENSION = struct.Struct("<II")
"""Type and length of an extension record."""

COORDINATE_SYSTEM = 0xADBE0003
"""The extension that says which axes the file has, by a number whose bits less one are the three directions."""

RIGHT_DOWN_FRONT = 6
RIGHT_UP_BACK = 4

FLAG_EXTENSIONS = 2
GZIP_MAGIC = b"\x1f\x8b"

INFLATION = 1032
"""Most bytes that a byte of file becomes under deflate. Files under zstd are held to it too."""

INFLATION_WRITTEN = 1000
"""Most that this writer lets a byte under zstd become, so that Niantic's reader (1024 for positions) takes it too."""

INFLATED_AT_ONCE = 1 << 16
"""Bytes read from a gzip stream, and bytes made of them, in a step that only counts."""

EXTENSION_BYTES = 1 << 20
"""Most bytes of extensions after the planes."""

MOST_FRACTIONAL_BITS = 23
LARGEST_FIXED = (1 << 23) - 1
MAGNITUDE_UNIT = 511 * math.sqrt(2)
"""Versions 3 and 4 store rotation components as a sign and 9 bits of magnitude, full scale being 1 / sqrt(2)."""

COLOR_STEPS = 0.15 * 255
SH_UNIT = 128
LEAST_SH_BITS = 2
GZIP_LEVEL = 5
"""Level 9 saves 3 % of the file and takes fifteen times as long."""

ZSTD_LEVEL = 12
SKIPPABLE_FRAME = 0x184D2A50


def sh_signs(y: float, z: float, x: float = 1.0) -> npt.NDArray[np.float32]:
    """``(15,)`` signs of the SH coefficients of degrees 1 to 3 when axes change sign: the parity of each polynomial."""
    one = 1.0
    parities = [y, z, x, x * y, y * z, one, x * z, one, y, x * y * z, y, z, x, z, x]
    return np.array(parities, np.float32)


class _Axes(NamedTuple):
    """Signs that turn INRIA's axes into the file's, and back."""

    means: npt.NDArray[np.float32]
    imaginary: npt.NDArray[np.float32]
    sh: npt.NDArray[np.float32]

    @staticmethod
    def of(system: int = RIGHT_UP_BACK) -> _Axes:
        different = (system - 1) ^ (RIGHT_DOWN_FRONT - 1)
        x, y, z = (-1.0 if different >> axis & 1 else 1.0 for axis in range(3))
        return _Axes(
            np.array([x, y, z], np.float32), np.array([y * z, x * z, x * y], np.float32), sh_signs(y=y, z=z, x=x)
        )


def _plane_widths(version: int, sh_degree: int) -> dict[str, int]:
    """Bytes a Gaussian of each plane, in the order of the file."""
    return {
        "means": 6 if version == 1 else 9,
        "opacity_logits": 1,
        "sh_dc": 3,
        "log_scales": 3,
        "quaternions": 4 if version >= 3 else 3,
        "sh_rest": 3 * ((sh_degree + 1) ** 2 - 1),
    }


Planes = dict[str, Bytes]
"""Per attribute ``(N, bytes a Gaussian)``."""


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    flags: int
    streams: int


@cache
def _byte_tables() -> dict[str, npt.NDArray[np.float32]]:
    """The value of each byte: of a colour, a log-scale, an opacity logit and an SH coefficient."""
    byte = np.arange(256, dtype=np.float64)
    values = {
        "sh_dc": (byte / 255 - 0.5) / 0.15,
        "log_scales": byte / 16 - 10,
        "opacity_logits": logit(np.clip(byte, 1, 254) / 255),
        "sh_rest": (byte - SH_UNIT) / SH_UNIT,
    }
    return {name: table.astype(np.float32) for name, table in values.items()}


def _values(planes: Planes, version: int, fractional_bits: int, axes: _Axes) -> dict[str, npt.NDArray[np.float32]]:
    """What the bytes stand for: the one path that both decoding and snapping take."""
    tables = _byte_tables()
    count, sh_columns = planes["sh_rest"].shape
    signs = np.repeat(axes.sh, 3)[:sh_columns, None]
    return {
        "means": _fixed_to_means(planes["means"], version, fractional_bits) * axes.means,
        "log_scales": tables["log_scales"][planes["log_scales"]],
        "quaternions": _bytes_to_quaternions(planes["quaternions"], axes),
        "opacity_logits": tables["opacity_logits"][planes["opacity_logits"]],
        "sh_dc": tables["sh_dc"][planes["sh_dc"]],
        "sh_rest": look_up_columns(signs * tables["sh_rest"], planes["sh_rest"]).reshape(count, sh_columns // 3, 3),
    }


def _fixed_to_means(plane: Bytes, version: int, fractional_bits: int) -> npt.NDArray[np.float32]:
    if version == 1:
        return plane.reshape(-1).view("<f2").astype(np.float32).reshape(len(plane), 3)
    parts = plane.reshape(len(plane), 3, 3).astype(np.int32)
    # The sign comes back by shifting the 24 bits to the top of the word and down again.
    fixed = (parts[..., 0] << 8 | parts[..., 1] << 16 | parts[..., 2] << 24) >> 8
    return fixed.astype(np.float32) * np.float32(2.0**-fractional_bits)


def _bytes_to_quaternions(plane: Bytes, axes: _Axes) -> npt.NDArray[np.float32]:
    """``(N, 4)`` w x y z in INRIA's axes from the file's bytes, three (to version 2) or four a rotation."""
    if plane.shape[1] == 3:
        largest = np.full(len(plane), 3, np.uint8)
        xyzw = restore_largest(largest, 2 * plane.astype(np.int16) - 255, 255.0)
    else:
        word = np.ascontiguousarray(plane).reshape(-1).view("<u4")
        fields = np.stack([word >> 20, word >> 10, word], axis=1)
        magnitudes = (fields & 511).astype(np.int16)
        others = np.where(fields & 512, -magnitudes, magnitudes)
        xyzw = restore_largest((word >> 30).astype(np.uint8), others, MAGNITUDE_UNIT)
    wxyz = np.empty_like(xyzw)
    wxyz[:, 0] = xyzw[:, 3]
    wxyz[:, 1:] = xyzw[:, :3] * axes.imaginary
    return wxyz


def _quaternions_to_bytes(
    quaternions: npt.NDArray[np.float32], version: int, axes: _Axes
) -> tuple[Bytes, npt.NDArray[np.float32]]:
    """The bytes of rotations, and the sign by which each stored quaternion differs from the given one."""
    xyzw = np.empty_like(quaternions)
    xyzw[:, :3] = quaternions[:, 1:] * axes.imaginary
    xyzw[:, 3] = quaternions[:, 0]
    if version == 2:
        length = np.sqrt(np.square(xyzw, dtype=np.float64).sum(axis=1, keepdims=True))
        signs = np.where(xyzw[:, 3] < 0, np.float32(-1), np.float32(1))
        unit = signs[:, None] * xyzw[:, :3] / np.where(length > 0, length, 1.0)
        return np.rint((unit + 1) * 127.5).astype(np.uint8), signs
    largest, signs, others = drop_largest(xyzw, identity=3)
    magnitudes = np.rint(np.abs(others) * MAGNITUDE_UNIT).astype(np.uint32)
    fields = np.minimum(magnitudes, 511) | np.where(others < 0, np.uint32(512), np.uint32(0))
    word = largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return word.astype("<u4").view(np.uint8).reshape(-1, 4), signs


@dataclass(eq=False)
class SpzGrid(Grid):
    """The values that a file of one version can hold.

    Attributes:
        version, fractional_bits: As the file's header says.
        sh_bits: Bits of SH coefficients of a Gaussian whose prominence is ``2 ** average_prominence``.
    """

    version: int
    fractional_bits: int
    sh_bits: float
    average_prominence: float

    def snap(self, splats: GaussianModel) -> GaussianModel:
        planes, signs = self._planes(splats)
        values = _values(planes, self.version, self.fractional_bits, _Axes.of())
        reach = LARGEST_FIXED * 2.0**-self.fractional_bits
        tables = _byte_tables()

        def ends(name: str) -> tuple[float, float]:
            return float(tables[name][0]), float(tables[name][-1])

        return GaussianModel(
            means=straight_through(splats.means, values["means"], -reach, reach),
            log_scales=straight_through(splats.log_scales, values["log_scales"], *ends("log_scales")),
            quaternions=straight_through_rotation(splats.quaternions, values["quaternions"], signs),
            opacity_logits=straight_through(splats.opacity_logits, values["opacity_logits"], *ends("opacity_logits")),
            sh_dc=straight_through(splats.sh_dc, values["sh_dc"], *ends("sh_dc")),
            sh_rest=straight_through(splats.sh_rest, values["sh_rest"], *ends("sh_rest")),
        )

    def encode(self, splats: GaussianModel) -> bytes:
        planes, _ = self._planes(splats)
        order = morton_order(as_array(splats.means))
        streams = [np.ascontiguousarray(plane[order]).tobytes() for plane in planes.values()]
        header = _Header(self.version, len(splats), splats.sh_degree, self.fractional_bits, flags=0, streams=0)
        return _write_v4(header, streams) if self.version == 4 else _write_gzip(header, streams)

    def _planes(self, splats: GaussianModel) -> tuple[Planes, npt.NDArray[np.float32]]:
        """The bytes of every attribute in the order of ``splats``, and the signs of the quaternions."""
        axes = _Axes.of()
        count = len(splats)
        quaternions, signs = _quaternions_to_bytes(as_array(splats.quaternions), self.version, axes)
        levels = nearest_levels(as_array(splats.opacity_logits), OPACITY_MIDPOINTS)
        planes = {
            "means": self._means_to_fixed(as_array(splats.means) * axes.means),
            # Readers disagree about what 0 and 255 are, so they are not written.
            "opacity_logits": np.clip(levels, 1, 254),
            "sh_dc": _round_evenly(as_array(splats.sh_dc).reshape(count, 3), COLOR_STEPS, 127.5),
            "log_scales": _round_evenly(as_array(splats.log_scales), 16.0, 160.0),
            "quaternions": quaternions,
            "sh_rest": self._sh_to_bytes(splats, axes),
        }
        return planes, signs

    def _means_to_fixed(self, means: npt.NDArray[np.float32]) -> Bytes:
        steps = np.rint(means.astype(np.float64) * 2.0**self.fractional_bits)
        fixed = np.clip(steps, -LARGEST_FIXED, LARGEST_FIXED).astype("<i4")
        return fixed.view(np.uint8).reshape(len(means), 3, 4)[..., :3].reshape(len(means), 9)

    def _sh_to_bytes(self, splats: GaussianModel, axes: _Axes) -> Bytes:
        """Bytes about 128, which stands for 0: multiples of 1 to 64 of them, the coarser the less a Gaussian shows."""
        count, coefficients, _ = splats.sh_rest.shape
        rows = as_array(splats.sh_rest).reshape(count, 3 * coefficients)
        prominence = log2_prominence(splats) - self.average_prominence
        bits = np.clip(np.rint(self.sh_bits + prominence / 2), LEAST_SH_BITS, 8)
        return round_to_multiples(rows, SH_UNIT * np.repeat(axes.sh[:coefficients], 3), 2.0 ** (8 - bits), SH_UNIT)


def _round_evenly(values: npt.NDArray[np.float32], scale: float, offset: float) -> Bytes:
    return np.clip(np.rint(values * np.float32(scale) + np.float32(offset)), 0, 255).astype(np.uint8)


def _write_gzip(header: _Header, streams: list[bytes]) -> bytes:
    deflate = zlib.compressobj(GZIP_LEVEL, wbits=31)
    parts = [HEADER.pack(MAGIC, *astuple(header)), *streams]
    return b"".join([deflate.compress(part) for part in parts]) + deflate.flush()


def _write_v4(header: _Header, streams: list[bytes]) -> bytes:
    zstd = _zstandard()
    kept = [stream for stream in streams if stream]
    packed = [zstd.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(stream) for stream in kept]
    table_end = HEADER.size + TAIL_V4.size + STREAM.size * len(kept)
    # Readers refuse files that grow too much, so those of very uniform models are padded with a frame they skip.
    missing = -(-sum(map(len, kept)) // INFLATION_WRITTEN) - table_end - sum(map(len, packed))
    if missing > 0:
        packed[-1] += struct.pack("<II", SKIPPABLE_FRAME, missing) + bytes(missing)
    table = b"".join(STREAM.pack(len(small), len(large)) for small, large in zip(packed, kept, strict=True))
    head = HEADER.pack(MAGIC, *astuple(replace(header, streams=len(kept)))) + TAIL_V4.pack(HEADER.size + TAIL_V4.size)
    return head + table + b"".join(packed)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise UserError("SPZ version 4 needs the package zstandard; run pip install zstandard") from error
    return zstandard


@dataclass(frozen=True)
class SpzCodec(Codec):
    """The settings of files written; those read say themselves what they are.

    Attributes:
        version: 3 (gzip), 4 (zstd), or 2, with coarser rotations, which glTF's ``KHR_gaussian_splatting`` extension for
            SPZ asks for.
        fractional_bits: Binary digits of positions after the point, 0 to 23; by default as the model needs.
        sh_bits: Bits of the SH coefficients of an average Gaussian, 2 to 16; those that show more get up to 8, and all
            of them at 16. Readers need not know it.
    """

    name = "spz"
    suffix = ".spz"

    version: Literal[2, 3, 4] = 3
    fractional_bits: int | None = None
    sh_bits: float = 5.0

    def __post_init__(self) -> None:
        if self.version not in (2, 3, 4):
            raise UserError(f"codec spz: version {self.version} cannot be written; choose 2, 3 or 4")
        if self.fractional_bits is not None and not 0 <= self.fractional_bits <= MOST_FRACTIONAL_BITS:
            raise UserError(f"codec spz: fractional_bits {self.fractional_bits} is not between 0 and 23")
        if not 2 <= self.sh_bits <= 16:
            raise UserError(f"codec spz: sh_bits {self.sh_bits} is not between 2 and 16")

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        if head[:2] == GZIP_MAGIC:
            try:
                head = zlib.decompressobj(wbits=31).decompress(head, HEADER.size)
            except zlib.error:
                return False
        return head[:4] == MAGIC.to_bytes(4, "little")

    def fit(self, splats: GaussianModel) -> SpzGrid:
        bits = self.fractional_bits
        if bits is None:
            bits = choose_fractional_bits(as_array(splats.means), as_array(splats.log_scales))
        average = float(log2_prominence(splats).mean()) if len(splats) else 0.0
        return SpzGrid(self.version, bits, self.sh_bits, average)

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        header, planes, system = _read(data, source)
        if not 1 <= system <= 8:
            raise CodecError(
                f"{source}: its axes are turned by a quarter (coordinate system {system}); convert it to RUB"
            )
        values = _values(planes, header.version, header.fractional_bits, _Axes.of(system))
        return GaussianModel.from_arrays(**values)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        if data[:2] == GZIP_MAGIC:
            header = _parse_header(_inflate(data, HEADER.size, source, whole=False), len(data), source)
            packed_sizes = _inflated_from(data, header, source)
        else:
            header = _parse_header(data, len(data), source)
            packed_sizes = {name: packed for name, packed, _ in _streams(data, header, source)[0]}
        return {
            "format": self.name,
            "version": header.version,
            "count": header.count,
            "sh_degree": header.sh_degree,
            "fractional_bits": header.fractional_bits,
            "antialiased": bool(header.flags & 1),
            "bytes": packed_sizes,
        }


def choose_fractional_bits(means: npt.NDArray[np.float32], log_scales: npt.NDArray[np.float32]) -> int:
    """Binary digits after the point that place a model's Gaussians well, as far as the 24 bits reach.

    A step is to be a small part of the largest axis of nearly all Gaussians; finer ones would only cost bytes.
    """
    if len(means) == 0:
        return 12
    extent = max(float(np.abs(means).max()), 2.0**-60)
    fitting = math.floor(math.log2(LARGEST_FIXED) - math.log2(extent))
    if fitting < 0:
        warn(f"spz: positions up to {extent:.3g} are beyond the format's 8388607; they are moved to its edge")
    smallest = float(np.quantile(log_scales.max(axis=1), 0.05)) / math.log(2)
    needed = math.ceil(STEPS_IN_A_SCALE - smallest)
    return max(0, min(max(needed, 12), fitting, MOST_FRACTIONAL_BITS))


STEPS_IN_A_SCALE = 4
"""Binary logarithm of how many position steps the largest axis of a small Gaussian has."""


def _read(data: bytes, source: str) -> tuple[_Header, Planes, int]:
    """Header, planes and coordinate system of a file of any version."""
    if data[:2] == GZIP_MAGIC:
        header = _parse_header(_inflate(data, HEADER.size, source, whole=False), len(data), source)
        size = HEADER.size + header.count * sum(_plane_widths(header.version, header.sh_degree).values())
        payload = _inflate(data, size, source, whole=True)
        planes, offset = {}, HEADER.size
        for name, width in _plane_widths(header.version, header.sh_degree).items():
            plane = np.frombuffer(payload, np.uint8, header.count * width, offset)
            planes[name] = plane.reshape(header.count, width)
            offset += plane.size
        extensions = payload[offset:] if header.flags & FLAG_EXTENSIONS else b""
        return header, planes, _coordinate_system(extensions)
    header = _parse_header(data, len(data), source)
    entries, begin, extensions = _streams(data, header, source)
    planes = {}
    for name, packed, size in entries:
        stream = _decompress_zstd(data[begin : begin + packed], size, name, source)
        planes[name] = np.frombuffer(stream, np.uint8).reshape(header.count, -1)
        begin += packed
    for name, width in _plane_widths(header.version, header.sh_degree).items():
        planes.setdefault(name, np.empty((header.count, width), np.uint8))
    return header, planes, _coordinate_system(extensions)


def _parse_header(head: bytes, file_bytes: int, source: str) -> _Header:
    """The header, with everything it claims held against the file's size."""
    if len(head) < HEADER.size:
        raise CodecError(f"{source}: truncated, {len(head)} bytes are no SPZ header; write or download it again")
    magic, *rest = HEADER.unpack_from(head)
    header = _Header(*rest)
    if magic != MAGIC:
        raise CodecError(f"{source}: not an SPZ file, its header begins otherwise; check the path")
    if not 1 <= header.version <= 4:
        raise CodecError(f"{source}: SPZ version {header.version} is unknown; versions 1 to 4 can be read")
    if header.sh_degree > MAX_SH_DEGREE:
        raise CodecError(f"{source}: SH degree {header.sh_degree} is beyond 3, the highest that can be rendered")
    if header.fractional_bits > MOST_FRACTIONAL_BITS:
        raise CodecError(f"{source}: corrupted, it claims {header.fractional_bits} fractional bits of 24")
    claimed = header.count * sum(_plane_widths(header.version, header.sh_degree).values())
    if claimed > INFLATION * file_bytes:
        raise CodecError(
            f"{source}: corrupted, {file_bytes} bytes cannot hold the {header.count} Gaussians its header claims"
        )
    return header


def _inflate(data: bytes, size: int, source: str, whole: bool) -> bytes:
    """The first ``size`` bytes under gzip; with ``whole``, also the extensions behind them, and the checksum holds."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        payload = inflate.decompress(data, size + EXTENSION_BYTES if whole else size)
    except zlib.error as error:
        raise CodecError(f"{source}: corrupted, gzip says {error}; write or download it again") from error
    if len(payload) < size:
        raise CodecError(
            f"{source}: truncated, it ends after {len(payload)} of {size} bytes; write or download it again"
        )
    if whole and not inflate.eof:
        raise CodecError(f"{source}: truncated or overlong, gzip does not end where it should; download it again")
    return payload


def _inflated_from(data: bytes, header: _Header, source: str) -> dict[str, int]:
    """How many bytes of the gzip stream each plane was inflated from, give or take what the inflater reads ahead."""
    inflate = zlib.decompressobj(wbits=31)
    taken, rest = 0, b""
    sizes = {}
    planes = {name: header.count * width for name, width in _plane_widths(header.version, header.sh_degree).items()}
    for name, missing in {"header": HEADER.size, **planes}.items():
        begin = taken - len(rest)
        while missing:
            if not rest:
                rest = data[taken : taken + INFLATED_AT_ONCE]
                taken += len(rest)
            try:
                made = len(inflate.decompress(rest, min(missing, INFLATED_AT_ONCE)))
            except zlib.error as error:
                raise CodecError(f"{source}: corrupted, gzip says {error}; write or download it again") from error
            rest = inflate.unconsumed_tail
            missing -= made
            if not made and not rest and taken == len(data):
                raise CodecError(f"{source}: truncated, it ends in {name}; write or download it again")
        sizes[name] = taken - len(rest) - begin
    return sizes


def _streams(data: bytes, header: _Header, source: str) -> tuple[list[tuple[str, int, int]], int, bytes]:
    """Name, packed and unpacked size of each stream of version 4, where the first begins, and the extensions."""
    if header.version != 4:
        raise CodecError(f"{source}: corrupted, SPZ version {header.version} must be under gzip")
    start = HEADER.size + TAIL_V4.size
    widths = _plane_widths(header.version, header.sh_degree)
    expected = {name: header.count * width for name, width in widths.items() if header.count * width}
    table = TAIL_V4.unpack_from(data, HEADER.size)[0] if len(data) >= start else 0
    begin = table + STREAM.size * len(expected)
    if header.streams != len(expected) or not start <= table <= len(data) or begin > len(data):
        raise CodecError(f"{source}: corrupted, its table of {header.streams} streams is not where it should be")
    sizes = list(STREAM.iter_unpack(data[table:begin]))
    if [large for _, large in sizes] != list(expected.values()) or sum(small for small, _ in sizes) > len(data) - begin:
        raise CodecError(f"{source}: truncated or corrupted, its streams are not of the sizes its header implies")
    entries = [(name, small, large) for name, (small, large) in zip(expected, sizes, strict=True)]
    return entries, begin, data[start:table] if header.flags & FLAG_EXTENSIONS else b""


def _decompress_zstd(packed: bytes, size: int, name: str, source: str) -> bytes:
    zstd = _zstandard()
    try:
        claimed = zstd.frame_content_size(packed)
        window = max(8 << 20, size)
        if claimed in (-1, size):
            stream = zstd.ZstdDecompressor(max_window_size=window).decompress(packed, max_output_size=size)
            if len(stream) == size:
                return stream
        problem = "its size is not what the header implies"
    except zstd.ZstdError as error:
        problem = f"zstd says {error}"
    raise CodecError(f"{source}: corrupted in {name}, {problem}; write or download it again")


def _coordinate_system(extensions: bytes) -> int:
    """The number of the file's axes: that of the extension for it, or right-up-back. Other extensions are skipped."""
    position = 0
    while position + EXTENSION.size <= len(extensions):
        kind, length = EXTENSION.unpack_from(extensions, position)
        position += EXTENSION.size
        if kind == COORDINATE_SYSTEM and length >= 4 and position + 4 <= len(extensions):
            return int.from_bytes(extensions[position : position + 4], "little") or RIGHT_UP_BACK
        position += length
    return RIGHT_UP_BACK
