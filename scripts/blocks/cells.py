"""Where a model is cut into blocks: cells of a plane, each with as many Gaussians as the others.

The plane is the one that the cameras move in, the ground of a flight over a city or of a walk around a thing. A cell is
a rectangle of it, without an end where no other cell follows, so that every Gaussian is in exactly one.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import read_json, write_text
from gsz.splats import Splats

Array = npt.NDArray[np.float64]

_CORE = (0.05, 0.95)
"""The quantiles that a cell's size is taken between: single Gaussians lie far out."""


@dataclass(frozen=True)
class Cell:
    """A rectangle of the plane; infinite where no other cell follows.

    Attributes:
        name: Column and row, such as ``0_1``.
        low, high: Corners in the plane's two coordinates; ``low`` belongs to the cell, ``high`` does not.
    """

    name: str
    low: tuple[float, float]
    high: tuple[float, float]

    def contains(self, points: Array, margin: tuple[float, float] = (0.0, 0.0)) -> npt.NDArray[np.bool_]:
        """``(N,)``: which ``(N, 2)`` points lie in the cell, made wider by a margin on either side."""
        low, high = np.array(self.low) - margin, np.array(self.high) + margin
        return ((points >= low) & (points < high)).all(1)

    def margin(self, points: Array, overlap: float) -> tuple[float, float]:
        """``overlap`` times the size of what lies in the cell, in both coordinates."""
        inside = points[self.contains(points)]
        if len(inside) == 0:
            return (0.0, 0.0)
        first, last = np.quantile(inside, _CORE, axis=0)
        return (float(overlap * (last - first)[0]), float(overlap * (last - first)[1]))


@dataclass(frozen=True, eq=False)
class Partition:
    """The cells of a model.

    Attributes:
        axes: ``(2, 3)`` orthonormal axes of the plane in the world.
        cells: They cover the plane without overlap.
    """

    axes: Array
    cells: tuple[Cell, ...]

    @staticmethod
    def of(splats: Splats, camera_centers: Array, columns: int, rows: int) -> Partition:
        """Cut a model into columns of as many Gaussians each, and each column into such rows."""
        axes = plane_of(camera_centers)
        points = _on_plane(splats, axes)
        cells = []
        across = _cuts(points[:, 0], columns)
        for column, (left, right) in enumerate(itertools.pairwise(across)):
            inside = points[(points[:, 0] >= left) & (points[:, 0] < right)]
            along = _cuts(inside[:, 1], rows)
            for row, (near, far) in enumerate(itertools.pairwise(along)):
                cells.append(Cell(f"{column}_{row}", (left, near), (right, far)))
        return Partition(axes, tuple(cells))

    def points(self, splats: Splats) -> Array:
        """``(N, 2)`` places of Gaussians on the plane."""
        return _on_plane(splats, self.axes)

    def write(self, path: Path) -> None:
        """Write the partition as JSON; infinity is ``null``."""

        def plain(corner: tuple[float, float]) -> list[float | None]:
            return [value if np.isfinite(value) else None for value in corner]

        cells = [{"name": cell.name, "low": plain(cell.low), "high": plain(cell.high)} for cell in self.cells]
        write_text(path, json.dumps({"axes": self.axes.tolist(), "cells": cells}, indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> Partition:
        """The inverse of :meth:`write`.

        Raises:
            UserError: the file is missing or damaged.
        """
        document = read_json(path)
        try:
            axes = np.array(document["axes"], np.float64)
            if axes.shape != (2, 3) or not np.isfinite(axes).all():
                raise ValueError("its axes are no plane")
            return Partition(axes, tuple(_cell(entry) for entry in document["cells"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: is not what split_model.py wrote ({error}); split the model again") from error


def plane_of(points: Array) -> Array:
    """``(2, 3)`` orthonormal axes of the plane that ``(N, 3)`` points spread most in, signs fixed."""
    _, _, axes = np.linalg.svd(points - points.mean(0), full_matrices=False)
    largest = np.abs(axes[:2]).argmax(1)
    return axes[:2] * np.sign(axes[[0, 1], largest])[:, None]


def _on_plane(splats: Splats, axes: Array) -> Array:
    return np.asarray(splats.numpy().means, np.float64) @ axes.T


def _cuts(values: Array, parts: int) -> list[float]:
    between = np.quantile(values, np.arange(1, parts) / parts) if len(values) else np.zeros(parts - 1)
    return [-np.inf, *map(float, between), np.inf]


def _cell(entry: dict[str, Any]) -> Cell:
    def corner(values: list[float | None], end: float) -> tuple[float, float]:
        first, second = (end if value is None else float(value) for value in values)
        return (first, second)

    name = str(entry["name"])
    if not name or Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a block")
    return Cell(name, corner(entry["low"], -np.inf), corner(entry["high"], np.inf))
