"""The values of Fast-3DGS, in a container of ours: 8-bit spherical harmonics, half-precision everything else.

Fast-3DGS is the method that became runner-up of the COGS'25 workshop at ICCV 2025. It prunes, fine-tunes and quantizes
a trained model: SH of degree 0 and of degree 1 and up lie on one affine 8-bit grid
each, whose range follows the model's with a moving average while fine-tuning, and the other parameters are float16. Its
program pickles them (:mod:`gsz.fast3dgs_pickle` reads that); the container here (``docs/formats.md`` has its layout)
holds them in Morton order behind LZMA2, without a pickle, and every length in it is checked before it is believed.
``fast3dgs`` names these values wherever they occur: as a codec, as a grid of ``gsz``, and as a recipe.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gsz.coding.morton import morton_order
from gsz.contract import Codec, CodecError, Grid, ModelT
from gsz.fast3dgs_limits import HALF_MAX, LARGEST_SCALE, LEVELS, SMALLEST_SCALE
from gsz.splats import MAX_SH_DEGREE, Splats, sh_coefficients

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"GSLZMA\r\n"
VERSION = 1

HEADER = struct.Struct("<8sHBBIffBBH6Q")
"""Magic, version, SH degree, float32 flags, count, two scales, two zero points, reserved, six stream lengths."""

CHECKSUM = struct.Struct("<I")
"""CRC-32 of everything before it, at the end of the file."""

GAUSSIANS_PER_BYTE = 4
"""A file has at least a byte for this many Gaussians, if need be by zeros before the checksum.

Real models take a hundred times more. It bounds what a decoder allocates: 944 bytes of model for a byte of file.
"""

AVERAGING = 0.01
"""How far a grid's range moves towards the model's in one iteration, as in Fast-3DGS' program."""

HALF_FINE = 2.0**-12
"""Half-precision numbers at least this large have 12 significant bits, subnormal ones included."""

FLOAT_WIDTHS = {"means": 3, "log_scales": 3, "quaternions": 4, "opacity_logits": 1}
"""The parameters stored as floats, with their numbers of columns, in the order of the file and of its float32 flags."""


@dataclass
class AffineGrid:
    """256 equidistant values around an exact zero: ``(symbol - zero_point) * scale`` for symbols 0 to 255.

    The formulas are those of PyTorch's per-tensor affine quantization with its moving-average min-max observer.

    Attributes:
        low: the range's lower end, at most 0. A number; or, once the grid has followed tensors, a float64 scalar on
            their device. Following a model's range and snapping to it thus never wait for a GPU; only ``scale``,
            ``zero_point`` and ``symbols`` read it back.
        high: the range's upper end, at least 0; likewise.
    """

    low: float | Tensor
    high: float | Tensor

    @staticmethod
    def fit(values: npt.NDArray[np.float32]) -> AffineGrid:
        """The grid whose range is that of ``values``, widened to contain 0."""
        return AffineGrid(float(values.min(initial=0.0)), float(values.max(initial=0.0)))

    def observe(self, values: Tensor) -> None:
        """Move the range a hundredth of the way towards that of ``values``."""
        from gsz.fast3dgs_snap import range_of

        low, high = range_of(values)
        self.low = self.low + AVERAGING * (low - self.low)
        self.high = self.high + AVERAGING * (high - self.high)

    @property
    def scale(self) -> float:
        """The step. A float32 number, so that every machine multiplies by the same one."""
        return float(np.float32(min(max((float(self.high) - float(self.low)) / LEVELS, SMALLEST_SCALE), LARGEST_SCALE)))

    @property
    def zero_point(self) -> int:
        """The symbol that stands for 0."""
        return min(max(round(-float(self.low) / self.scale), 0), LEVELS)

    def snap(self, values: Tensor) -> Tensor:
        """The nearest grid values; gradients pass straight through, except where the range cuts a value off."""
        from gsz.fast3dgs_snap import snap_affine

        return snap_affine(values, self.low, self.high)

    def symbols(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """The symbols that stand for ``snap(values)``, in the shape of ``values``."""
        zero = self.zero_point
        offsets = values * np.float32(1.0 / self.scale)
        np.rint(offsets, out=offsets)
        np.clip(offsets, -zero, LEVELS - zero, out=offsets)
        offsets += zero
        return offsets.astype(np.uint8)


def to_half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """The nearest finite half-precision numbers."""
    return np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)


@dataclass
class Fast3dgsGrid(Grid):
    """The values of one file.

    Attributes:
        dc: of ``sh_dc``.
        rest: of ``sh_rest``.
        wide: names of the parameters that are stored as float32, because float16 cannot hold them; usually empty.
    """

    dc: AffineGrid
    rest: AffineGrid
    wide: frozenset[str]

    def observe(self, splats: Splats) -> None:
        self.dc.observe(splats.sh_dc)
        self.rest.observe(splats.sh_rest)

    def snap(self, splats: ModelT) -> ModelT:
        from gsz.fast3dgs_snap import snap_half

        floats = {
            name: values if name in self.wide else snap_half(values)
            for name, values in splats.named_parameters()
            if name in FLOAT_WIDTHS
        }
        return type(splats)(**floats, sh_dc=self.dc.snap(splats.sh_dc), sh_rest=self.rest.snap(splats.sh_rest))

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        splats = splats.numpy()
        floats = {name: self._stored(name, getattr(splats, name)) for name in FLOAT_WIDTHS}
        order = morton_order(floats["means"].astype(np.float32))
        streams = [_pack(values[order].T, _FLOAT_FILTERS) for values in floats.values()]
        streams += [
            _pack(grid.symbols(values[order]), _SYMBOL_FILTERS)
            for grid, values in ((self.dc, splats.sh_dc), (self.rest, splats.sh_rest))
        ]
        header = Header(
            count=len(splats),
            sh_degree=splats.sh_degree,
            wide=self.wide,
            scales=(self.dc.scale, self.rest.scale),
            zero_points=(self.dc.zero_point, self.rest.zero_point),
            stream_bytes=tuple(len(stream) for stream in streams),
        )
        body = b"".join([header.pack(), *streams, bytes(header.padding)])
        return body + CHECKSUM.pack(zlib.crc32(body))

    def _stored(self, name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """A parameter's little-endian numbers as the file has them."""
        return values.astype("<f4") if name in self.wide else to_half(values).astype("<f2")


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its streams.

    Attributes:
        scales: Steps of the grids of ``sh_dc`` and ``sh_rest``.
        zero_points: Their symbols for 0.
        stream_bytes: Lengths of the six compressed streams, in the order of the file.
    """

    count: int
    sh_degree: int
    wide: frozenset[str]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    stream_bytes: tuple[int, ...]

    @property
    def padding(self) -> int:
        """Zeros between the streams and the checksum."""
        return max(0, -(-self.count // GAUSSIANS_PER_BYTE) - sum(self.stream_bytes))

    @property
    def file_bytes(self) -> int:
        """Length of the whole file."""
        return HEADER.size + sum(self.stream_bytes) + self.padding + CHECKSUM.size

    def pack(self) -> bytes:
        flags = sum(1 << bit for bit, name in enumerate(FLOAT_WIDTHS) if name in self.wide)
        fixed = (MAGIC, VERSION, self.sh_degree, flags, self.count)
        return HEADER.pack(*fixed, *self.scales, *self.zero_points, 0, *self.stream_bytes)

    @staticmethod
    def unpack(data: bytes, source: str) -> Header:
        """The header of a file, checked against the file's length and its checksum."""
        if not data.startswith(MAGIC):
            raise CodecError(f"{source}: is not a {Fast3dgsCodec.name} file; check the path")
        if len(data) < HEADER.size + CHECKSUM.size:
            raise _truncated(source, len(data), HEADER.size + CHECKSUM.size)
        _, version, degree, flags, count, *rest = HEADER.unpack_from(data)
        scales, zero_points, reserved, lengths = tuple(rest[:2]), tuple(rest[2:4]), rest[4], tuple(rest[5:])
        if version != VERSION:
            raise CodecError(
                f"{source}: is of version {version} of the {Fast3dgsCodec.name} format and this program reads "
                f"version {VERSION}; update the program"
            )
        wide = frozenset(name for bit, name in enumerate(FLOAT_WIDTHS) if flags >> bit & 1)
        header = Header(count, degree, wide, scales, zero_points, lengths)
        if len(data) < header.file_bytes:
            raise _truncated(source, len(data), header.file_bytes)
        (checksum,) = CHECKSUM.unpack_from(data, len(data) - CHECKSUM.size)
        if len(data) > header.file_bytes or zlib.crc32(memoryview(data)[: -CHECKSUM.size]) != checksum:
            raise _damaged(source, "its checksum or its length is wrong")
        if degree > MAX_SH_DEGREE or flags >> len(FLOAT_WIDTHS) or reserved:
            raise _damaged(source, "its header holds an impossible value")
        if not all(math.isfinite(scale) and scale > 0 for scale in scales):
            raise _damaged(source, "its header holds an impossible step")
        return header


def _truncated(source: str, length: int, expected: int) -> CodecError:
    return CodecError(f"{source}: is truncated, {length} of {expected} bytes are there; copy or download it again")


def _damaged(source: str, what: str) -> CodecError:
    return CodecError(f"{source}: is damaged, {what}; copy or download it again")


# A raw LZMA2 stream has no header of its own from which a decoder would allocate a dictionary. Floats are stored
# column by column, whose 16-bit period lp and pb tell the coder; symbols Gaussian by Gaussian, where lc=4 is best.
_FLOAT_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23, "lc": 0, "lp": 1, "pb": 1}]
_SYMBOL_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23, "lc": 4, "lp": 0, "pb": 0}]


def _pack(array: np.ndarray, filters: list[dict[str, int]]) -> bytes:
    raw = array.tobytes()
    return lzma.compress(raw, format=lzma.FORMAT_RAW, filters=filters) if raw else b""


def _unpack(stream: bytes, dtype: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    """The array in a stream, which must hold exactly one of that size."""
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if expected == 0 and not stream:
        return np.zeros(shape, dtype)
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_SYMBOL_FILTERS)
    try:
        raw = decompressor.decompress(stream, max_length=expected + 1)
    except lzma.LZMAError as error:
        raise _damaged(source, "a stream does not decompress") from error
    if len(raw) != expected or not decompressor.eof or decompressor.unused_data:
        raise _damaged(source, "a stream has another length than the header says")
    return np.frombuffer(raw, dtype).reshape(shape)


@dataclass(frozen=True)
class Fast3dgsCodec(Codec):
    """The values of Fast-3DGS in a container of ours.

    Attributes:
        positions: ``float16`` as in Fast-3DGS, or ``float32`` for scenes so wide that half precision moves Gaussians
            visibly (its step is a thousandth of the distance from the origin); ``float16`` gives way to ``float32``
            where it would overflow.
    """

    positions: Literal["float16", "float32"] = "float16"

    name = "fast3dgs"
    aliases = ("lzma",)
    suffix = ".gslzma"

    def __post_init__(self) -> None:
        if self.positions not in ("float16", "float32"):
            raise CodecError(f"codec {self.name!r}: positions are float16 or float32, not {self.positions!r}")

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def fit(self, splats: Splats) -> Fast3dgsGrid:
        splats = splats.numpy()
        wide = {name for name, values in splats.named_parameters() if name in FLOAT_WIDTHS and _overflows(values)}
        if self.positions == "float32":
            wide.add("means")
        if _has_tiny_rows(splats.quaternions):
            wide.add("quaternions")
        return Fast3dgsGrid(AffineGrid.fit(splats.sh_dc), AffineGrid.fit(splats.sh_rest), frozenset(wide))

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        header = Header.unpack(data, source)
        ends = np.cumsum([HEADER.size, *header.stream_bytes]).tolist()
        streams = iter([data[start:end] for start, end in pairwise(ends)])
        floats = {
            name: _unpack(next(streams), "<f4" if name in header.wide else "<f2", (width, header.count), source).T
            for name, width in FLOAT_WIDTHS.items()
        }
        coefficients = (1, sh_coefficients(header.sh_degree))
        harmonics = [
            (_unpack(next(streams), "u1", (header.count, number, 3), source).astype(np.float32) - zero)
            * np.float32(scale)
            for number, scale, zero in zip(coefficients, header.scales, header.zero_points, strict=True)
        ]
        return Splats.from_arrays(**floats, sh_dc=harmonics[0], sh_rest=harmonics[1])

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        header = Header.unpack(data, source)
        return {
            "format": self.name,
            "version": VERSION,
            "count": header.count,
            "sh_degree": header.sh_degree,
            "float32": sorted(header.wide),
            "scales": dict(zip(("sh_dc", "sh_rest"), header.scales, strict=True)),
            "zero_points": dict(zip(("sh_dc", "sh_rest"), header.zero_points, strict=True)),
            "bytes": dict(zip((*FLOAT_WIDTHS, "sh_dc", "sh_rest"), header.stream_bytes, strict=True)),
        }


def _overflows(values: npt.NDArray[np.float32]) -> bool:
    return bool((np.abs(values) > HALF_MAX).any())


def _has_tiny_rows(quaternions: npt.NDArray[np.float32]) -> bool:
    """Whether a quaternion is so short, zero excepted, that half precision would change its direction."""
    largest = np.abs(quaternions).max(axis=1, initial=0.0)
    return bool(((largest > 0) & (largest < HALF_FINE)).any())
