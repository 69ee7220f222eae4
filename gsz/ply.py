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

from gsz.contract import Codec, CodecError, Grid, ModelT
from gsz.errors import UserError
from gsz.files import atomic_path
from gsz.ply_header import PlyHeader, abridged, columns, read_header, read_vertices, write_vertices
from gsz.splats import MAX_SH_DEGREE, Splats

_log = logging.getLogger(__name__)

_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_OPACITY = ("opacity",)
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_REQUIRED = _POSITION + _SH_DC + _OPACITY + _SCALE + _ROTATION


def read_ply(stream: BinaryIO, source: str, sh_degree: int | None = None) -> Splats:
    """The model in an INRIA PLY file: binary of either byte order or ASCII, SH degree 0 to 3.

    Properties are found by name, in whatever order and numeric type they are stored. Those that are not part of the
    model are left out with a line that names them; the normals, which INRIA's files carry unused, without one.
    ``f_rest_*`` runs through all coefficients of red, then of green, then of blue.

    Args:
        stream: A seekable binary stream at its beginning: a file, or an ``io.BytesIO`` over bytes.
        source: The file's name, for messages.
        sh_degree: The degree the file must have; ``None`` takes what is there.

    Raises:
        UserError: the stream is no PLY, is truncated, lacks properties, has SH of another degree or another number
            of coefficients, or holds NaN or infinity. Nothing is allocated before the header's counts have been
            compared with the stream's length.
    """
    header, rest_names, degree = _read_model_header(stream, source)
    if sh_degree is not None and degree != sh_degree:
        raise UserError(
            f"{source}: holds spherical harmonics of degree {degree}, not {sh_degree}; use --sh_degree {degree}"
        )
    extra = [name for name in header.names if name not in {*_REQUIRED, *_NORMAL, *rest_names}]
    if extra:
        _log.info(f"{source}: properties that are not part of the model are left out: {abridged(extra)}")

    rows = read_vertices(stream, header, source)
    model: Splats = Splats.from_arrays(
        means=columns(rows, _POSITION),
        log_scales=columns(rows, _SCALE),
        quaternions=columns(rows, _ROTATION),
        opacity_logits=columns(rows, _OPACITY),
        sh_dc=columns(rows, _SH_DC),
        sh_rest=columns(rows, rest_names).reshape(len(rows), 3, len(rest_names) // 3).transpose(0, 2, 1),
    )
    model.check_finite(source)
    return model


def describe_ply(stream: BinaryIO, source: str) -> tuple[int, int, dict[str, int]]:
    """What the header of an INRIA PLY file says, and nothing but the header is read.

    Returns:
        The number of Gaussians, the SH degree, and how many bytes a Gaussian each parameter takes, what is not of the
        model under ``unused``; no bytes for ASCII files, whose numbers are of any length.

    Raises:
        UserError: as :func:`read_ply`, for what the header tells.
    """
    header, rest_names, degree = _read_model_header(stream, source)
    count = header.vertex.count
    if header.order is None:
        return count, degree, {}
    groups = {
        "means": _POSITION,
        "log_scales": _SCALE,
        "quaternions": _ROTATION,
        "opacity_logits": _OPACITY,
        "sh_dc": _SH_DC,
        "sh_rest": rest_names,
    }
    sizes = header.vertex_bytes()
    widths = {attribute: sum(sizes.pop(name) for name in names) for attribute, names in groups.items()}
    return count, degree, {**widths, "unused": sum(sizes.values())}


def _read_model_header(stream: BinaryIO, source: str) -> tuple[PlyHeader, tuple[str, ...], int]:
    """The header of a model's PLY, the names of its SH coefficients above degree 0, and their degree."""
    header = read_header(stream, source)
    rest_names = _rest_names(header.names, source)
    header.require((*_REQUIRED, *rest_names), source, "give the point_cloud.ply of a trained 3DGS model")
    return header, rest_names, math.isqrt(len(rest_names) // 3 + 1) - 1


def write_ply(model: Splats, stream: BinaryIO) -> None:
    """Write a model as INRIA's programs do: little-endian float32, their property order, normals of zero."""
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
    write_vertices(stream, table.view(np.dtype([(name, "<f4") for name in names])).reshape(count))


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

    @classmethod
    def recognises(cls, head: bytes) -> bool:
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
