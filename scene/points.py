"""The points that training starts from, and the PLY files that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import atomic_path
from gsz.ply_header import columns, read_header, read_vertices, write_vertices

_AXES = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points to start training from.

    Attributes:
        positions: ``(P, 3)`` float32, world units.
        colors: ``(P, 3)`` uint8, RGB.
    """

    positions: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.positions)


def write_points(path: Path, points: PointCloud) -> None:
    """Write a PLY as INRIA's program does: positions, normals of zero, and 8-bit colors."""
    layout = [*((name, "<f4") for name in _AXES + _NORMALS), *((name, "u1") for name in _CHANNELS)]
    rows = np.zeros(len(points), layout)
    for axis, (position, channel) in enumerate(zip(_AXES, _CHANNELS, strict=True)):
        rows[position] = points.positions[:, axis]
        rows[channel] = points.colors[:, axis]
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        write_vertices(stream, rows)


def read_points(path: Path) -> PointCloud:
    """The points of a PLY, with colors of 0 to 255, or of 0 to 1 where they are floating point numbers.

    Raises:
        UserError: the file is missing or damaged, lacks properties, or holds NaN or infinity.
    """
    source = str(path)
    try:
        with path.open("rb") as stream:
            header = read_header(stream, source)
            header.require((*_AXES, *_CHANNELS), source, "export the points with their colors")
            rows = read_vertices(stream, header, source)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    positions, colors = columns(rows, _AXES), columns(rows, _CHANNELS)
    if rows.dtype[_CHANNELS[0]].kind == "f" and colors.max(initial=0.0) <= 1.0:
        colors = (colors * 255.0).round()
    if not np.isfinite(positions).all() or not ((colors >= 0) & (colors <= 255)).all():
        raise UserError(f"{path}: holds points that are NaN, infinite or of no 8-bit color; export it again")
    return PointCloud(positions, colors.astype(np.uint8))
