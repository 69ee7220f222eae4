"""The published file: 8-bit spherical harmonics, half-precision everything else, Morton order, LZMA.

The values are those of the published program: SH of degree 0 and of degree 1 and up on one affine 8-bit grid each,
whose range follows the model's with a moving average while fine-tuning, and the other parameters as float16. The
container is ours (``docs/formats.md`` has its layout): no pickle, every length checked before it is believed.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gsz.coding.morton import morton_order
from gsz.contract import Codec, CodecError, Grid
from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel

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

LEVELS = 255
"""Steps of the 8-bit grids: symbols are 0 to 255."""

AVERAGING = 0.01
"""How far a grid's range moves towards the model's in one iteration, as in the published program."""

SMALLEST_SCALE = float(np.finfo(np.float32).eps)
"""The least step of an 8-bit grid, as PyTorch's observers have it; it matters for all-zero SH only."""

HALF_MAX = float(np.finfo(np.float16).max)
HALF_FINE = 2.0**-12
"""Half-precision numbers at least this large have 12 significant bits, subnormal ones included."""

FLOAT_WIDTHS = {"means": 3, "log_scales": 3, "quaternions": 4, "opacity_logits": 1}
"""The parameters stored as floats, with their numbers of columns, in the order of the file and of its float32 flags."""


@dataclass
class AffineGrid:
    """256 equidistant values around an exact zero: ``(symbol - zero_point) * scale`` for symbols 0 to 255.

    The formulas are those of PyTorch's per-tensor affine quantization with its moving-average min-max observer.

    Attributes:
        low: The range's lower end, at most 0; a float64 scalar on the device of the values. Following a model's range
            and snapping to it thus never wait for a GPU; only ``scale``, ``zero_point`` and ``symbols`` read it back.
        high: The range's upper end, at least 0; likewise.
    """

    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        self.low, self.high = (torch.as_tensor(end, dtype=torch.float64) for end in (self.low, self.high))

    @staticmethod
    def fit(values: Tensor) -> AffineGrid:
        return AffineGrid(*_range(values))

    def observe(self, values: Tensor) -> None:
        """Move the range a hundredth of the way towards that of ``values``."""
        low, high = _range(values)
        self.low = self.low + AVERAGING * (low - self.low)
        self.high = self.high + AVERAGING * (high - self.high)

    @property
    def scale(self) -> float:
        """The step. A float32 number, so that every machine multiplies by the same one."""
        return float(self._step())

    @property
    def zero_point(self) -> int:
        """The symbol that stands for 0."""
        return int(self._zero())

    def _step(self) -> Tensor:
        # The cap keeps 255 steps within float32.
        cap = float(np.finfo(np.float32).max) / (LEVELS + 1)
        return ((self.high - self.low) / LEVELS).clamp(SMALLEST_SCALE, cap).float()

    def _zero(self) -> Tensor:
        return (-self.low / self._step().double()).round().clamp(0, LEVELS)

    def snap(self, values: Tensor) -> Tensor:
        """The nearest grid values; gradients pass straight through, except where the range cuts a value off."""
        return _AffineSnap.apply(values, self._step(), self._zero())

    def symbols(self, values: Tensor) -> np.ndarray:
        """The uint8 symbols that stand for ``snap(values)``, in the shape of ``values``."""
        offsets = _offsets(values.detach(), self._step(), self._zero())
        return offsets.add_(self._zero()).to(torch.uint8).cpu().numpy()


def _range(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value, widened to contain 0."""
    if values.numel() == 0:
        return values.new_zeros((), dtype=torch.float64), values.new_zeros((), dtype=torch.float64)
    low, high = torch.aminmax(values.detach())
    return low.double().clamp(max=0.0), high.double().clamp(min=0.0)


def _offsets(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The 8-bit symbols of ``values``, less the zero point, as float32."""
    offsets = torch.mul(values, (1.0 / scale.double()).float()).round_()
    if values.device.type != "cpu":
        return offsets.clamp_(-zero_point.float(), LEVELS - zero_point.float())
    # With numbers for bounds it is faster; on the CPU reading them waits for nothing.
    zero = float(zero_point)
    return offsets.clamp_(-zero, LEVELS - zero)


class _AffineSnap(torch.autograd.Function):
    """Rounding to an affine grid with the gradient of the clamp alone.

    It runs on all SH in every fine-tuning iteration, so it makes few passes over memory and stores no mask.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        ctx.save_for_backward(values, scale, zero_point)
        # Adding zero turns -0 into the +0 that a decoder computes.
        return _offsets(values, scale, zero_point).mul_(scale).add_(0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, scale, zero_point = ctx.saved_tensors
        low, high = -(zero_point + 0.5) * scale, (LEVELS - zero_point + 0.5) * scale
        if values.device.type != "cpu":
            return torch.where((values > low) & (values < high), gradient, 0.0), None, None
        # The same in one fused pass, which takes the bounds as numbers.
        return torch.ops.aten.hardtanh_backward(gradient, values, float(low), float(high)), None, None


def to_half(values: Tensor) -> Tensor:
    """The nearest finite float16."""
    return values.clamp(-HALF_MAX, HALF_MAX).half()


class _HalfSnap(torch.autograd.Function):
    """Rounding to float16, to the nearest finite number, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return to_half(values).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@dataclass
class LzmaGrid(Grid):
    """The values of one file.

    Attributes:
        dc: Of ``sh_dc``.
        rest: Of ``sh_rest``.
        wide: Names of the parameters that are stored as float32, because float16 cannot hold them; usually empty.
    """

    dc: AffineGrid
    rest: AffineGrid
    wide: frozenset[str]

    def observe(self, splats: GaussianModel) -> None:
        self.dc.observe(splats.sh_dc)
        self.rest.observe(splats.sh_rest)

    def snap(self, splats: GaussianModel) -> GaussianModel:
        floats = {
            name: values if name in self.wide else _HalfSnap.apply(values)
            for name, values in splats.named_parameters()
            if name in FLOAT_WIDTHS
        }
        return GaussianModel(**floats, sh_dc=self.dc.snap(splats.sh_dc), sh_rest=self.rest.snap(splats.sh_rest))

    def encode(self, splats: GaussianModel) -> bytes:
        snapped = self.snap(splats.detach()).to("cpu")
        order = torch.from_numpy(morton_order(snapped.means.numpy()))
        floats = dict(snapped.select(order).named_parameters())
        streams = [
            _pack(floats[name].numpy().T.astype("<f4" if name in self.wide else "<f2"), _FLOAT_FILTERS)
            for name in FLOAT_WIDTHS
        ]
        ordered = splats.select(order.to(splats.device))
        streams += [_pack(self.dc.symbols(ordered.sh_dc), _SYMBOL_FILTERS)]
        streams += [_pack(self.rest.symbols(ordered.sh_rest), _SYMBOL_FILTERS)]
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
            raise CodecError(f"{source}: is not a {LzmaCodec.name} file; check the path")
        if len(data) < HEADER.size + CHECKSUM.size:
            raise _truncated(source, len(data), HEADER.size + CHECKSUM.size)
        _, version, degree, flags, count, *rest = HEADER.unpack_from(data)
        scales, zero_points, reserved, lengths = tuple(rest[:2]), tuple(rest[2:4]), rest[4], tuple(rest[5:])
        if version != VERSION:
            raise CodecError(
                f"{source}: is of version {version} of the {LzmaCodec.name} format and this program reads "
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
class LzmaCodec(Codec):
    """The published file in a container of ours.

    Attributes:
        positions: ``float16`` as published, or ``float32`` for scenes so wide that half precision moves Gaussians
            visibly (its step is a thousandth of the distance from the origin); ``float16`` gives way to ``float32``
            where it would overflow.
    """

    positions: Literal["float16", "float32"] = "float16"

    name = "lzma"
    suffix = ".gslzma"

    def __post_init__(self) -> None:
        if self.positions not in ("float16", "float32"):
            raise CodecError(f"codec {self.name!r}: positions are float16 or float32, not {self.positions!r}")

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def fit(self, splats: GaussianModel) -> LzmaGrid:
        wide = {name for name, values in splats.named_parameters() if name in FLOAT_WIDTHS and _overflows(values)}
        if self.positions == "float32":
            wide.add("means")
        if _has_tiny_rows(splats.quaternions):
            wide.add("quaternions")
        return LzmaGrid(AffineGrid.fit(splats.sh_dc), AffineGrid.fit(splats.sh_rest), frozenset(wide))

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        header = Header.unpack(data, source)
        ends = np.cumsum([HEADER.size, *header.stream_bytes]).tolist()
        streams = iter([data[start:end] for start, end in pairwise(ends)])
        floats = {
            name: _unpack(next(streams), "<f4" if name in header.wide else "<f2", (width, header.count), source).T
            for name, width in FLOAT_WIDTHS.items()
        }
        coefficients = (1, (header.sh_degree + 1) ** 2 - 1)
        harmonics = [
            (_unpack(next(streams), "u1", (header.count, number, 3), source).astype(np.float32) - zero)
            * np.float32(scale)
            for number, scale, zero in zip(coefficients, header.scales, header.zero_points, strict=True)
        ]
        return GaussianModel.from_arrays(**floats, sh_dc=harmonics[0], sh_rest=harmonics[1])

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


def _overflows(values: Tensor) -> bool:
    return bool((values.detach().abs() > HALF_MAX).any())


def _has_tiny_rows(quaternions: Tensor) -> bool:
    """Whether a quaternion is so short, zero excepted, that half precision would change its direction."""
    largest = quaternions.detach().abs().amax(dim=1)
    return bool(((largest > 0) & (largest < HALF_FINE)).any())
