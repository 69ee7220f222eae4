"""The model: six parameter tensors, their activations, and the PLY files INRIA's programs read and write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyElementParseError, PlyHeaderParseError
from torch import Tensor

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
            *(np.zeros((0, width), np.float32) for width in (3, 3, 4, 1, 3)),
            np.zeros((0, (sh_degree + 1) ** 2 - 1, 3), np.float32),
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
        raise NotImplementedError

    def save_ply(self, path: str | Path) -> None:
        raise NotImplementedError
