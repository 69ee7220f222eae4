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
import torch
from numba import njit
from torch import Tensor

from gsz.coding.morton import morton_order
from gsz.contract import Codec, CodecError, Grid
from gsz.errors import UserError
from gsz.kernels import SERIAL
from gsz.rounding.quantizers import (
    LEAST_SH_BITS,
    MORE_SH_BITS,
    MOST_SH_BITS,
    OPACITY_MIDPOINTS,
    SH_UNIT,
    Bytes,
    as_array,
    bits_of_sh,
    check_viewer_settings,
    constant,
    drop_largest,
    log2_prominence,
    logit,
    look_up,
    multiples,
    nearest_levels,
    restore_largest,
    round_to_multiples,
    straight_through,
    straight_through_rotation,
    whole,
)
from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel
from utils.cli import warn

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
    """Signs that turn INRIA's axes into the file's, and back; float32, on one device.

    Attributes:
        means, imaginary: ``(3,)``.
        sh: ``(45,)``, the channels of a coefficient adjacent.
    """

    means: Tensor
    imaginary: Tensor
    sh: Tensor


@cache
def _axes(device: torch.device, system: int = RIGHT_UP_BACK) -> _Axes:
    different = (system - 1) ^ (RIGHT_DOWN_FRONT - 1)
    x, y, z = (-1.0 if different >> axis & 1 else 1.0 for axis in range(3))
    signs = [x, y, z], [y * z, x * z, x * y], np.repeat(sh_signs(y=y, z=z, x=x), 3)
    return _Axes(*(constant(values, device) for values in signs))


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
def _byte_tables(device: torch.device) -> dict[str, Tensor]:
    """The float32 value of each byte: of a colour, a log-scale and an opacity logit; and the thresholds of the last."""
    byte = np.arange(256, dtype=np.float64)
    values = {
        "sh_dc": (byte / 255 - 0.5) / 0.15,
        "log_scales": byte / 16 - 10,
        "opacity_logits": logit(np.clip(byte, 1, 254) / 255),
        "opacity_thresholds": OPACITY_MIDPOINTS,
    }
    return {name: constant(table, device) for name, table in values.items()}


ENDS = {
    "log_scales": (-10.0, 5.9375),
    "opacity_logits": (-math.log(254), math.log(254)),
    "sh_dc": (-10 / 3, 10 / 3),
    "sh_rest": (-1.0, 127 / 128),
}
"""The least and the greatest value that bytes stand for."""


@dataclass(eq=False)
class _Levels:
    """The integers of a file, a row a Gaussian.

    Attributes:
        means: ``(N, 3)`` int32 in steps of the fractional bits, or float32 half-precision values (version 1).
        opacities: ``(N,)`` bytes, as uint8 or int32.
        colors, scales: ``(N, 3)`` bytes, likewise.
        largest: ``(N,)`` int64 index of the largest component of the rotation, x y z w.
        others: ``(N, 3)`` int32, the other components.
        rotation_unit: what these stand for 1 as.
        sh_rest: ``(N, 3 K)`` whole numbers, the bytes less 128, as int8 or float32.
    """

    means: Tensor
    opacities: Tensor
    colors: Tensor
    scales: Tensor
    largest: Tensor
    others: Tensor
    rotation_unit: float
    sh_rest: Tensor

    def values(self, fractional_bits: int, axes: _Axes) -> GaussianModel:
        """What the integers stand for: the one path that both decoding and snapping take."""
        tables = _byte_tables(self.means.device)
        count, sh_columns = self.sh_rest.shape
        xyzw = restore_largest(self.largest, self.others, self.rotation_unit)
        step = 1.0 if self.means.is_floating_point() else 2.0**-fractional_bits
        return GaussianModel(
            means=multiples(self.means, step * axes.means),
            log_scales=look_up(tables["log_scales"], self.scales),
            quaternions=torch.cat([xyzw[:, 3:], xyzw[:, :3] * axes.imaginary], 1),
            opacity_logits=look_up(tables["opacity_logits"], self.opacities)[:, None],
            sh_dc=look_up(tables["sh_dc"], self.colors)[:, None],
            sh_rest=multiples(self.sh_rest, axes.sh[:sh_columns] * (1 / SH_UNIT)).reshape(count, sh_columns // 3, 3),
        )

    @staticmethod
    def of(planes: Planes, version: int) -> _Levels:
        """The integers in a file's planes, the bytes among them as they are: this is how files are read fast."""
        bytes_of = {name: torch.from_numpy(planes[name].copy()) for name in ("opacity_logits", "sh_dc", "log_scales")}
        largest, others = _rotation_fields(planes["quaternions"])
        return _Levels(
            means=torch.from_numpy(_fixed_means(planes["means"], version)),
            opacities=bytes_of["opacity_logits"].reshape(-1),
            colors=bytes_of["sh_dc"],
            scales=bytes_of["log_scales"],
            largest=torch.from_numpy(largest),
            others=torch.from_numpy(others),
            rotation_unit=MAGNITUDE_UNIT if version >= 3 else 255.0,
            sh_rest=torch.from_numpy((planes["sh_rest"] ^ np.uint8(SH_UNIT)).view(np.int8)),
        )

    def planes(self, version: int) -> Planes:
        """The bytes of each attribute, in the order of the file."""
        fixed = self.means.cpu().numpy().astype("<i4").view(np.uint8).reshape(-1, 3, 4)
        return {
            "means": fixed[..., :3].reshape(-1, 9),
            "opacity_logits": _bytes(self.opacities)[:, None],
            "sh_dc": _bytes(self.colors),
            "log_scales": _bytes(self.scales),
            "quaternions": _rotation_bytes(self.largest.cpu().numpy(), self.others.cpu().numpy(), version),
            "sh_rest": _bytes(self.sh_rest + SH_UNIT),
        }


def _bytes(levels: Tensor) -> Bytes:
    return levels.to(torch.uint8).cpu().numpy()


def _fixed_means(plane: Bytes, version: int) -> npt.NDArray[Any]:
    """``(N, 3)`` int32 in steps of the fractional bits; of version 1 float32 positions."""
    if version == 1:
        return plane.reshape(-1).view("<f2").astype(np.float32).reshape(len(plane), 3)
    fixed = np.empty((len(plane), 3), np.int32)
    _signed_24_bits(plane.reshape(-1, 3), fixed.reshape(-1))
    return fixed


@njit(**SERIAL)
def _signed_24_bits(plane, numbers):
    for i in range(len(numbers)):
        # The sign comes back by shifting the 24 bits to the top of the word and down again.
        word = np.uint32(plane[i, 0]) << 8 | np.uint32(plane[i, 1]) << 16 | np.uint32(plane[i, 2]) << 24
        numbers[i] = np.int32(word) >> 8


def _rotation_fields(plane: Bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Index of the largest component and the others, from the file's bytes: three (to version 2) or four a rotation."""
    if plane.shape[1] == 3:
        return np.full(len(plane), 3), 2 * plane.astype(np.int32) - 255
    largest, others = np.empty(len(plane), np.int64), np.empty((len(plane), 3), np.int32)
    _unpack_rotations(np.ascontiguousarray(plane).reshape(-1).view("<u4"), largest, others)
    return largest, others


@njit(**SERIAL)
def _unpack_rotations(words, largest, others):
    for i in range(len(words)):
        word = np.int64(words[i])
        largest[i] = word >> 30
        for component in range(3):
            field = word >> (20 - 10 * component)
            others[i, component] = -(field & 511) if field & 512 else field & 511


def _rotation_bytes(largest: npt.NDArray[np.int64], others: npt.NDArray[np.int32], version: int) -> Bytes:
    """The inverse of :func:`_rotation_fields`."""
    if version == 2:
        return ((others + 255) // 2).astype(np.uint8)
    fields = np.abs(others) | np.where(others < 0, 512, 0)
    word = largest << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)


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
        levels, signs = self._levels(splats.detach())
        values = levels.values(self.fractional_bits, _axes(splats.device))
        reach = LARGEST_FIXED * 2.0**-self.fractional_bits
        return GaussianModel(
            means=straight_through(splats.means, values.means, -reach, reach),
            log_scales=straight_through(splats.log_scales, values.log_scales, *ENDS["log_scales"]),
            quaternions=straight_through_rotation(splats.quaternions, values.quaternions, signs),
            opacity_logits=straight_through(splats.opacity_logits, values.opacity_logits, *ENDS["opacity_logits"]),
            sh_dc=straight_through(splats.sh_dc, values.sh_dc, *ENDS["sh_dc"]),
            sh_rest=straight_through(splats.sh_rest, values.sh_rest, *ENDS["sh_rest"]),
        )

    def encode(self, splats: GaussianModel) -> bytes:
        levels, _ = self._levels(splats.detach())
        order = morton_order(as_array(splats.means))
        if splats.sh_degree > 0:
            # Neighbours of like steps pack better: a tenth of the coefficients' bytes for a hundredth of the means'.
            order = order[np.argsort(-self._sh_bits(splats).cpu().numpy()[order], kind="stable")]
        streams = [np.ascontiguousarray(plane[order]).tobytes() for plane in levels.planes(self.version).values()]
        header = _Header(self.version, len(splats), splats.sh_degree, self.fractional_bits, flags=0, streams=0)
        return _write_v4(header, streams) if self.version == 4 else _write_gzip(header, streams)

    def _levels(self, splats: GaussianModel) -> tuple[_Levels, Tensor]:
        """The integers of every Gaussian in the order of ``splats``, and the signs of the stored quaternions."""
        axes, tables = _axes(splats.device), _byte_tables(splats.device)
        largest, others, signs = self._rotations(splats.quaternions, axes)
        opacities = nearest_levels(splats.opacity_logits.reshape(-1), tables["opacity_thresholds"])
        levels = _Levels(
            means=self._fixed(splats.means, axes),
            # Readers disagree about what 0 and 255 are, so they are not written.
            opacities=opacities.clamp(1, 254),
            colors=_round_evenly(splats.sh_dc.reshape(-1, 3), COLOR_STEPS, 127.5),
            scales=_round_evenly(splats.log_scales, 16.0, 160.0),
            largest=largest,
            others=others,
            rotation_unit=MAGNITUDE_UNIT if self.version >= 3 else 255.0,
            sh_rest=self._sh_levels(splats, axes),
        )
        return levels, signs

    def _fixed(self, means: Tensor, axes: _Axes) -> Tensor:
        steps = (means * axes.means).double() * 2.0**self.fractional_bits
        return whole(steps, -LARGEST_FIXED, LARGEST_FIXED)

    def _rotations(self, quaternions: Tensor, axes: _Axes) -> tuple[Tensor, Tensor, Tensor]:
        """Index of the largest component, the others, and the sign by which the stored quaternion differs."""
        xyzw = torch.cat([quaternions[:, 1:] * axes.imaginary, quaternions[:, :1]], 1)
        if self.version == 2:
            wide = xyzw.double()
            x, y, z, w = (wide * wide).unbind(1)
            length = (x + y + z + w).sqrt()
            signs = 1.0 - 2.0 * (xyzw[:, 3] < 0)
            unit = signs[:, None] * wide[:, :3] / length.masked_fill(length == 0, 1.0)[:, None]
            return torch.full_like(length, 3, dtype=torch.int64), 2 * whole((unit + 1.0) * 127.5, 0, 255) - 255, signs
        largest, signs, others = drop_largest(xyzw, identity=3)
        return largest, whole(others * MAGNITUDE_UNIT, -511, 511), signs

    def _sh_bits(self, splats: GaussianModel) -> Tensor:
        """``(N,)`` bits of the coefficients of each Gaussian."""
        return bits_of_sh(log2_prominence(splats), self.average_prominence, self.sh_bits)

    def _sh_levels(self, splats: GaussianModel, axes: _Axes) -> Tensor:
        """Bytes less 128, which stands for 0: multiples of 1 to 64, the coarser the less a Gaussian shows."""
        count, coefficients, _ = splats.sh_rest.shape
        rows = splats.sh_rest.reshape(count, 3 * coefficients)
        steps = look_up(_powers(splats.device), MOST_SH_BITS - self._sh_bits(splats))
        return round_to_multiples(rows, axes.sh[: 3 * coefficients] * SH_UNIT, steps, -SH_UNIT, SH_UNIT - 1)


@cache
def _powers(device: torch.device) -> Tensor:
    """1, 2, 4, ... 64."""
    return constant(2.0 ** np.arange(MOST_SH_BITS - LEAST_SH_BITS + 1), device)


def _round_evenly(values: Tensor, scale: float, offset: float) -> Tensor:
    """``(N, 3)`` bytes, as int32."""
    return whole(values * scale + offset, 0, 255)


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
        quality: best, high, medium, low or tiny: these bits (medium), one more or less, two less, or all 8 (best).
    """

    name = "spz"
    suffix = ".spz"

    version: Literal[2, 3, 4] = 3
    fractional_bits: int | None = None
    sh_bits: float = 6.0
    quality: str = "medium"

    def __post_init__(self) -> None:
        if self.version not in (2, 3, 4):
            raise UserError(f"codec spz: version {self.version} cannot be written; choose 2, 3 or 4")
        if self.fractional_bits is not None and not 0 <= self.fractional_bits <= MOST_FRACTIONAL_BITS:
            raise UserError(f"codec spz: fractional_bits {self.fractional_bits} is not between 0 and 23")
        check_viewer_settings(self.name, self.sh_bits, self.quality)

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
        return SpzGrid(self.version, bits, self.sh_bits + MORE_SH_BITS[self.quality], average)

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        header, planes, system = _read(data, source)
        if not 1 <= system <= 8:
            raise CodecError(
                f"{source}: its axes are turned by a quarter (coordinate system {system}); convert it to RUB"
            )
        axes = _axes(torch.device("cpu"), system)
        return _Levels.of(planes, header.version).values(header.fractional_bits, axes)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        if data[:2] == GZIP_MAGIC:
            header = _parse_header(_inflate(data, HEADER.size, source, whole=False).tobytes(), len(data), source)
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
        header = _parse_header(_inflate(data, HEADER.size, source, whole=False).tobytes(), len(data), source)
        size = HEADER.size + header.count * sum(_plane_widths(header.version, header.sh_degree).values())
        payload = _inflate(data, size, source, whole=True)
        planes, offset = {}, HEADER.size
        for name, width in _plane_widths(header.version, header.sh_degree).items():
            planes[name] = payload[offset : offset + header.count * width].reshape(header.count, width)
            offset += header.count * width
        extensions = payload[offset:].tobytes() if header.flags & FLAG_EXTENSIONS else b""
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


def _inflate(data: bytes, size: int, source: str, whole: bool) -> Bytes:
    """The first ``size`` bytes under gzip; with ``whole``, also the extensions behind them, and the checksum holds."""
    inflate = zlib.decompressobj(wbits=31)
    # Piece by piece, since an inflater that makes all at once moves it whenever its memory runs out.
    payload = np.empty(size + EXTENSION_BYTES if whole else size, np.uint8)
    made = 0
    try:
        for begin in range(0, len(data), INFLATED_AT_ONCE):
            if made == len(payload) or inflate.eof:
                break
            piece = inflate.decompress(data[begin : begin + INFLATED_AT_ONCE], len(payload) - made)
            payload[made : made + len(piece)] = np.frombuffer(piece, np.uint8)
            made += len(piece)
    except zlib.error as error:
        raise CodecError(f"{source}: corrupted, gzip says {error}; write or download it again") from error
    if made < size:
        raise CodecError(f"{source}: truncated, it ends after {made} of {size} bytes; write or download it again")
    if whole and not inflate.eof:
        raise CodecError(f"{source}: truncated or overlong, gzip does not end where it should; download it again")
    return payload[:made]


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
