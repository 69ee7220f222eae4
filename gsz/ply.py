"""INRIA's ``.ply``: six float32 parameters before their activations. Every model is on its grid as it is."""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gsz.cleaning import FLAT_LOG_SCALE, Floats
from gsz.contract import Codec, CodecError, Grid, ModelT
from gsz.errors import UserError
from gsz.files import atomic_path
from gsz.ply_header import PlyHeader, Records, abridged, columns, read_header, read_vertices, write_vertices
from gsz.rounding.elementary import logit
from gsz.splats import MAX_SH_DEGREE, SH_C0, Splats

_log = logging.getLogger(__name__)

_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_RGB = ("red", "green", "blue")
_OPACITY = ("opacity",)
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_FILTER = "filter_3D"

_ANTIALIASED = ("splatrendermode: mip", "antialiased 1")
"""Comments, in small letters, with which Brush and splat-transform, and Postshot, mark models trained so."""

_COLOR_RANGES = (1, 0xFF, 0xFFFF)
_OVEREXPOSED = 2.0
"""How far beyond their range colors may go that are made of harmonics."""

WORTH_AN_OFFSET = 0.01
"""Positions in float64 get an offset where float32 would move one by more than this part of the median scale."""


@dataclass(frozen=True)
class _Layout:
    """Which properties of a file hold the model.

    Attributes:
        rest: The SH coefficients above degree 0, all of red, then of green, then of blue.
        flat: Whether there are two scales, as in 2DGS.
        rgb: Whether there are colors of red, green and blue in place of SH of degree 0.
        filtered: Whether there is the 3D filter of Mip-Splatting.
    """

    rest: tuple[str, ...]
    flat: bool
    rgb: bool
    filtered: bool

    @classmethod
    def of(cls, names: Sequence[str], source: str) -> _Layout:
        flat = "scale_2" not in names and {*_SCALE[:2]} <= {*names}
        rgb = not {*_SH_DC} & {*names} and {*_RGB} <= {*names}
        return cls(_rest_names(names, source), flat, rgb, _FILTER in names)

    @property
    def scales(self) -> tuple[str, ...]:
        return _SCALE[:2] if self.flat else _SCALE

    @property
    def colors(self) -> tuple[str, ...]:
        return _RGB if self.rgb else _SH_DC

    @property
    def sh_degree(self) -> int:
        return math.isqrt(len(self.rest) // 3 + 1) - 1

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The properties of each parameter."""
        return {
            "means": _POSITION,
            "log_scales": self.scales,
            "quaternions": _ROTATION,
            "opacity_logits": _OPACITY,
            "sh_dc": self.colors,
            "sh_rest": self.rest,
        }

    @property
    def names(self) -> list[str]:
        """All properties that hold the model, in the order of INRIA's files."""
        return [*_POSITION, *self.colors, *self.rest, *_OPACITY, *self.scales, *_ROTATION] + [_FILTER] * self.filtered


def read_ply(stream: BinaryIO, source: str) -> Splats:
    """The model in an INRIA PLY file: binary of either byte order or ASCII, SH degree 0 to 3.

    Properties are found by name, in whatever order and numeric type they are stored. Those that are not part of the
    model are left out with a line that names them; the normals, which INRIA's files carry unused, without one.
    ``f_rest_*`` runs through all coefficients of red, then of green, then of blue.

    What other programs write is read as well, each with a line in the log: two scales in place of three (2DGS), colors
    ``red``, ``green`` and ``blue`` in place of ``f_dc_*``, Mip-Splatting's ``filter_3D``, which is folded into scales
    and opacities, and positions in float64 far from the origin, which get an offset.

    Args:
        stream: A seekable binary stream at its beginning: a file, or an ``io.BytesIO`` over bytes.
        source: The file's name, for messages.

    Returns:
        The model as it stands in the file; see :mod:`gsz.cleaning` for what NaN and infinity in it become.

    Raises:
        UserError: the stream is no PLY, is truncated, lacks properties, or has another number of SH coefficients than
            a degree of 0 to 3 has. Nothing is allocated before the header's counts have been compared with the
            stream's length.
    """
    header, layout = _read_model_header(stream, source)
    extra = [name for name in header.names if name not in {*layout.names, *_NORMAL}]
    if extra:
        _log.info(f"{source}: properties that are not part of the model are left out: {abridged(extra)}")

    rows = read_vertices(stream, header, source)
    log_scales, logits = columns(rows, layout.scales), _logits(rows, header, source)
    if layout.filtered:
        _log.info(f"{source}: Mip-Splatting's filter_3D is folded into the scales and opacities")
        log_scales, logits = with_filter_3d(log_scales, logits, columns(rows, [_FILTER]))
    if layout.flat:
        _log.info(
            f"{source}: has two scales, as 2DGS writes; the third axis is read as flat, {FLAT_LOG_SCALE:g} in logs"
        )
        log_scales = np.pad(log_scales, ((0, 0), (0, 1)), constant_values=FLAT_LOG_SCALE)
    means, offset = _positions(rows, log_scales)
    if offset is not None:
        _log.info(
            f"{source}: its positions are too far from the origin for single precision; they are kept relative to the "
            f"offset {offset.tolist()}, which .ply files written from it add again"
        )
    if layout.rgb:
        _log.info(
            f"{source}: its colors are red, green and blue without f_dc_*; they are read as harmonics of degree 0. "
            "Export it with spherical harmonics to have what depends on the view"
        )
    model: Splats = Splats.from_arrays(
        means=means,
        log_scales=log_scales,
        quaternions=columns(rows, _ROTATION),
        opacity_logits=logits,
        sh_dc=_harmonics_of(rows, header) if layout.rgb else columns(rows, _SH_DC),
        sh_rest=columns(rows, layout.rest).reshape(len(rows), 3, len(layout.rest) // 3).transpose(0, 2, 1),
    )
    antialiased = any(comment.strip().lower() in _ANTIALIASED for comment in header.comments)
    return model.replace(offset=offset, antialiased=antialiased)


def with_filter_3d(log_scales: Floats, logits: Floats, filters: Floats) -> tuple[Floats, Floats]:
    """Log-scales and opacity logits of Gaussians that are widened by Mip-Splatting's 3D smoothing filter.

    The filter adds its variance to those along the axes, and makes the Gaussian fainter by the ratio of the roots of
    the determinants (Yu et al., Mip-Splatting, CVPR 2024, equation 9; ``save_fused_ply`` of their program).

    Args:
        log_scales: ``(N, axes)``.
        logits: ``(N, 1)``.
        filters: ``(N, 1)`` standard deviations of the filter, world units.
    """
    logs, wide_logits, deviations = (array.astype(np.float64) for array in (log_scales, logits, filters))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wider = np.logaddexp(2 * logs, 2 * np.log(np.abs(deviations))) / 2
        fainter = np.where(np.isneginf(wider), 0.0, logs - wider).sum(axis=1, keepdims=True)
        # With p = sigmoid(logit) exp(fainter) is p / (1 - p) = exp(fainter) / (exp(-logit) + 1 - exp(fainter)).
        faint_logits = fainter - np.logaddexp(-wide_logits, np.log(-np.expm1(fainter)))
    return wider.astype(np.float32), faint_logits.astype(np.float32)


def _positions(rows: Records, log_scales: Floats) -> tuple[Floats, npt.NDArray[np.float64] | None]:
    """``(N, 3)`` positions, relative to the offset, and the offset, which is None where they need none."""
    if all(rows.dtype[name].itemsize < 8 for name in _POSITION):
        return columns(rows, _POSITION), None
    means = columns(rows, _POSITION, np.float64)
    usable = np.isfinite(means).all(axis=1) & np.isfinite(log_scales).all(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        single = means.astype(np.float32)
        errors = np.abs(means - single).max(axis=1)[usable]
        if not len(errors) or np.median(errors) <= WORTH_AN_OFFSET * np.median(np.exp(log_scales[usable])):
            return single, None
        offset = np.round(np.median(means[usable], axis=0)) + 0.0  # Of zeros none is negative.
        return (means - offset).astype(np.float32), offset


def _logits(rows: Records, header: PlyHeader, source: str) -> Floats:
    """``(N, 1)`` logits; whole numbers from 0 up are opacities over their range, which logits cannot be."""
    kind = header.kind("opacity")
    if kind.kind != "u":
        return columns(rows, _OPACITY)
    most = np.iinfo(kind).max
    _log.info(f"{source}: its opacities are whole numbers, so they are read as shares of {most}, not as logits")
    with np.errstate(divide="ignore"):
        return logit(columns(rows, _OPACITY, np.float64) / most).astype(np.float32)


def _harmonics_of(rows: Records, header: PlyHeader) -> npt.NDArray[np.float64]:
    """``(N, 3)`` SH of degree 0 from colors, whose range is the least of the usual ones that nearly all lie in."""
    colors = columns(rows, _RGB, np.float64)
    kind = header.kind(_RGB[0])
    usual = _COLOR_RANGES[1:] if kind.kind in "iu" else _COLOR_RANGES
    bright = np.nanquantile(colors, 0.99) if len(colors) else 0.0
    most = next((each for each in usual if bright <= _OVEREXPOSED * each), _COLOR_RANGES[-1])
    return (colors / most - 0.5) / SH_C0


def describe_ply(stream: BinaryIO, source: str) -> tuple[int, int, dict[str, int]]:
    """What the header of an INRIA PLY file says, and nothing but the header is read.

    Returns:
        The number of Gaussians, the SH degree, and how many bytes a Gaussian each parameter takes, what is not of the
        model under ``unused``; no bytes for ASCII files, whose numbers are of any length.

    Raises:
        UserError: as :func:`read_ply`, for what the header tells.
    """
    header, layout = _read_model_header(stream, source)
    if header.order is None:
        return header.vertex.count, layout.sh_degree, {}
    sizes = header.vertex_bytes()
    groups = {**layout.groups, **({_FILTER: (_FILTER,)} if layout.filtered else {})}
    widths = {attribute: sum(sizes.pop(name) for name in names) for attribute, names in groups.items()}
    return header.vertex.count, layout.sh_degree, {**widths, "unused": sum(sizes.values())}


def _read_model_header(stream: BinaryIO, source: str) -> tuple[PlyHeader, _Layout]:
    """The header of a model's PLY, and which of its properties hold the model."""
    header = read_header(stream, source)
    layout = _Layout.of(header.names, source)
    remedy = "give the point_cloud.ply of a trained 3DGS model"
    if layout.rgb:
        remedy = f"red, green and blue alone make a point cloud, {remedy}"
    header.require(layout.names, source, remedy)
    return header, layout


def write_ply(model: Splats, stream: BinaryIO) -> None:
    """Write a model as INRIA's programs do: little-endian float32, their property order, normals of zero.

    With an offset, positions are float64. Antialiased models get the comment that Brush and splat-transform read.
    """
    model = model.numpy()
    count = len(model)
    rest = model.sh_rest.transpose(0, 2, 1).reshape(count, 3 * model.sh_rest.shape[1])
    groups = [
        (_POSITION, model.means),
        (_NORMAL, np.zeros_like(model.means)),
        (_SH_DC, model.sh_dc.reshape(count, 3)),
        (tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest),
        (_OPACITY, model.opacity_logits),
        (_SCALE, model.log_scales),
        (_ROTATION, model.quaternions),
    ]
    names = [name for group, _ in groups for name in group]
    table = np.empty((count, len(names)), "<f4")
    start = 0
    for group, values in groups:
        table[:, start : start + len(group)] = values
        start += len(group)
    rows = table.view(np.dtype([(name, "<f4") for name in names])).reshape(count)
    if model.offset is not None:
        rows = rows.astype([(name, "<f8" if name in _POSITION else "<f4") for name in names])
        for axis, name in enumerate(_POSITION):
            rows[name] += model.offset[axis]
    write_vertices(stream, rows, ["SplatRenderMode: mip"] if model.antialiased else [])


def save_ply(model: Splats, path: str | Path) -> None:
    """Write :func:`write_ply`'s file atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        write_ply(model, stream)


def _rest_names(names: Sequence[str], source: str) -> tuple[str, ...]:
    """The names that the SH coefficients above degree 0 must have, by how many of them there are."""
    count = sum(re.fullmatch(r"f_rest_[0-9]+", name) is not None for name in names)
    allowed = [3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_SH_DEGREE + 1)]
    if count not in allowed:
        raise UserError(
            f"{source}: has {count} f_rest_* properties; spherical harmonics of degree 0 to 3 have "
            f"{', '.join(map(str, allowed))}; export the model again"
        )
    return tuple(f"f_rest_{i}" for i in range(count))


class PlyGrid(Grid):
    """All of float32."""

    def snap(self, splats: ModelT) -> ModelT:
        return splats

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        stream = io.BytesIO()
        write_ply(splats, stream)
        return stream.getvalue()


@dataclass(frozen=True)
class PlyCodec(Codec):
    """INRIA's checkpoint layout. Files keep the order of Gaussians."""

    name = "ply"
    suffix = ".ply"
    keeps = frozenset({"offset", "antialiased"})

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith((b"ply\n", b"ply\r"))

    def fit(self, splats: Splats) -> Grid:
        return PlyGrid()

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        try:
            return read_ply(io.BytesIO(data), source)
        except UserError as error:
            raise CodecError(str(error)) from error

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        try:
            count, sh_degree, widths = describe_ply(io.BytesIO(data), source)
        except UserError as error:
            raise CodecError(str(error)) from error
        sizes = {name: count * width for name, width in widths.items()}
        return {"format": self.name, "version": None, "count": count, "sh_degree": sh_degree, "bytes": sizes}
