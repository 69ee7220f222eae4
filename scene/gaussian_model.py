"""The model: six parameter tensors, their activations, and the PLY files INRIA's programs read and write."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from scene.ply import PlyHeader, abridged, columns, read_header, read_vertices, write_vertices
from utils.cli import say
from utils.errors import UserError
from utils.files import atomic_path

MAX_SH_DEGREE = 3


@dataclass(eq=False)
class GaussianModel:
    """A set of ``N`` 3D Gaussians, as pre-activation float32 tensors on one device.

    Attributes:
        means: ``(N, 3)`` centres, world units.
        log_scales: ``(N, 3)`` natural logarithms of the standard deviations along the axes, world units.
        quaternions: ``(N, 4)`` rotations, w x y z, of any length.
        opacity_logits: ``(N, 1)`` opacities before the sigmoid.
        sh_dc: ``(N, 1, 3)`` spherical harmonics of degree 0, RGB.
        sh_rest: ``(N, K, 3)`` spherical harmonics of degree 1 and up, ``K = (degree + 1)**2 - 1``, RGB.
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    opacity_logits: Tensor
    sh_dc: Tensor
    sh_rest: Tensor

    def __len__(self) -> int:
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def opacities(self) -> Tensor:
        """``(N, 1)`` in (0, 1)."""
        return torch.sigmoid(self.opacity_logits)

    @property
    def scales(self) -> Tensor:
        """``(N, 3)`` standard deviations, world units."""
        return torch.exp(self.log_scales)

    @property
    def rotations(self) -> Tensor:
        """``(N, 4)`` unit quaternions, w x y z."""
        return torch.nn.functional.normalize(self.quaternions, dim=1)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The six tensors with their names, always in the same order."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    def map(self, function: Callable[[Tensor], Tensor]) -> GaussianModel:
        """A model with ``function`` applied to each of the six tensors."""
        return GaussianModel(**{name: function(tensor) for name, tensor in self.named_parameters()})

    def select(self, index: Tensor) -> GaussianModel:
        """The Gaussians that a boolean mask or an index tensor names, detached from any graph."""
        return self.map(lambda tensor: tensor.detach()[index].contiguous())

    def detach(self) -> GaussianModel:
        return self.map(Tensor.detach)

    def clone(self) -> GaussianModel:
        """A copy that shares no memory and carries no gradients."""
        return self.map(lambda tensor: tensor.detach().clone())

    def to(self, device: torch.device | str) -> GaussianModel:
        return self.map(lambda tensor: tensor.to(device))

    def requires_grad_(self) -> GaussianModel:
        """Make the six tensors leaves that collect gradients. Returns the model itself."""
        for _, tensor in self.named_parameters():
            tensor.requires_grad_()
        return self

    @staticmethod
    def concatenate(models: Sequence[GaussianModel]) -> GaussianModel:
        """All Gaussians of several models with the same SH degree, detached."""
        parts = [dict(model.named_parameters()) for model in models]
        return GaussianModel(**{name: torch.cat([part[name].detach() for part in parts]) for name in parts[0]})

    @staticmethod
    def empty(sh_degree: int = MAX_SH_DEGREE) -> GaussianModel:
        """A model of no Gaussians."""
        return GaussianModel.from_arrays(
            means=np.zeros((0, 3)),
            log_scales=np.zeros((0, 3)),
            quaternions=np.zeros((0, 4)),
            opacity_logits=np.zeros((0, 1)),
            sh_dc=np.zeros((0, 1, 3)),
            sh_rest=np.zeros((0, (sh_degree + 1) ** 2 - 1, 3)),
        )

    @staticmethod
    def from_arrays(
        means: np.ndarray,
        log_scales: np.ndarray,
        quaternions: np.ndarray,
        opacity_logits: np.ndarray,
        sh_dc: np.ndarray,
        sh_rest: np.ndarray,
    ) -> GaussianModel:
        """A model from numpy arrays of matching sizes; ``opacity_logits`` and ``sh_dc`` may lack their unit axis."""
        count = len(means)

        def tensor(array: np.ndarray, *shape: int) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).reshape(count, *shape))

        return GaussianModel(
            means=tensor(means, 3),
            log_scales=tensor(log_scales, 3),
            quaternions=tensor(quaternions, 4),
            opacity_logits=tensor(opacity_logits, 1),
            sh_dc=tensor(sh_dc, 1, 3),
            sh_rest=tensor(sh_rest, sh_rest.shape[1], 3),
        )

    def check_finite(self, source: str) -> None:
        """Raise :class:`UserError` naming ``source`` where a parameter is NaN or infinite."""
        for name, tensor in self.named_parameters():
            bad = int((~torch.isfinite(tensor)).flatten(1).any(1).sum()) if tensor.numel() else 0
            if bad:
                raise UserError(
                    f"{source}: {name} is NaN or infinite for {bad} of {len(self)} Gaussians; "
                    "remove them in an editor or train the model again"
                )

    @staticmethod
    def load_ply(path: str | Path, sh_degree: int | None = None) -> GaussianModel:
        """Read a PLY file in INRIA's layout; see :func:`read_ply`.

        Args:
            sh_degree: The degree the file must have; ``None`` takes what is there.

        Raises:
            UserError: the file is missing or is no usable model.
        """
        try:
            with Path(path).open("rb") as stream:
                return read_ply(stream, str(path), sh_degree)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error

    def save_ply(self, path: str | Path) -> None:
        """Write a PLY file in INRIA's layout, atomically; see :func:`write_ply`.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            write_ply(self, stream)


_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_OPACITY = ("opacity",)
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_REQUIRED = _POSITION + _SH_DC + _OPACITY + _SCALE + _ROTATION


def read_ply(stream: BinaryIO, source: str, sh_degree: int | None = None) -> GaussianModel:
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
        say(f"{source}: properties that are not part of the model are left out: {abridged(extra)}")

    rows = read_vertices(stream, header, source)
    model = GaussianModel.from_arrays(
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
    count = dict(zip([element.name for element in header.layout.elements], header.counts, strict=True))["vertex"]
    if header.layout.text:
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


def write_ply(model: GaussianModel, stream: BinaryIO) -> None:
    """Write a model as INRIA's programs do: little-endian float32, their property order, normals of zero."""
    rest = model.sh_rest.transpose(1, 2).flatten(1)
    groups = [
        (_POSITION, model.means),
        (_NORMAL, torch.zeros_like(model.means)),
        (_SH_DC, model.sh_dc.flatten(1)),
        (tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest),
        (_OPACITY, model.opacity_logits),
        (_SCALE, model.log_scales),
        (_ROTATION, model.quaternions),
    ]
    names = [name for group, _ in groups for name in group]
    table = np.empty((len(model), len(names)), "<f4")
    start = 0
    for group, tensor in groups:
        table[:, start : start + len(group)] = tensor.detach().cpu().numpy()
        start += len(group)
    write_vertices(stream, table.view(np.dtype([(name, "<f4") for name in names])).reshape(len(model)))


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
