"""The model as it is trained and rendered: the six parameters as PyTorch tensors, with their activations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import Self

from gsz import registry
from gsz.errors import UserError
from gsz.ply import save_ply
from gsz.splats import MAX_SH_DEGREE, Splats

__all__ = ["MAX_SH_DEGREE", "GaussianModel"]


class GaussianModel(Splats[Tensor]):
    """A set of ``N`` 3D Gaussians, as pre-activation float32 tensors on one device; see :class:`gsz.splats.Splats`."""

    @classmethod
    def of(cls, splats: Splats) -> GaussianModel:
        """The same Gaussians in tensors: of NumPy arrays on the CPU, sharing their memory; tensors as they are."""
        tensors = {
            name: array if isinstance(array, Tensor) else cls._array(array) for name, array in splats.named_parameters()
        }
        return cls(**tensors).replace(offset=splats.offset, antialiased=splats.antialiased, metadata=splats.metadata)

    @classmethod
    def _array(cls, array: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array if array.flags.writeable else array.copy())

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

    def select(self, index: Tensor) -> Self:
        """The Gaussians that a boolean mask or an index tensor names, detached from any graph."""
        return self.map(lambda tensor: tensor.detach()[index].contiguous())

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """A copy that shares no memory and carries no gradients."""
        return self.map(lambda tensor: tensor.detach().clone())

    def to(self, device: torch.device | str) -> Self:
        return self.map(lambda tensor: tensor.to(device))

    def requires_grad_(self) -> Self:
        """Make the six tensors leaves that collect gradients. Returns the model itself."""
        for _, tensor in self.named_parameters():
            tensor.requires_grad_()
        return self

    @classmethod
    def concatenate(cls, models: Sequence[Splats]) -> Self:
        """All Gaussians of several models with the same SH degree, detached."""
        parts = [dict(cls.of(model).named_parameters()) for model in models]
        return cls(**{name: torch.cat([part[name].detach() for part in parts]) for name in parts[0]})

    def check_finite(self, source: str) -> None:
        """Raise :class:`UserError` naming ``source`` where a parameter is NaN or infinite."""
        if not all(bool(torch.isfinite(tensor).all()) for _, tensor in self.named_parameters()):
            super().check_finite(source)

    @staticmethod
    def load_ply(
        path: str | Path, sh_degree: int | None = None, *, strict: bool = False, activated: Collection[str] = ()
    ) -> GaussianModel:
        """Read a model of any format; see :func:`gsz.read`.

        Args:
            sh_degree: The degree the file must have; ``None`` takes what is there.
            strict, activated: How to read what is not as it should be.

        Raises:
            UserError: the file is missing or is no usable model.
        """
        splats = GaussianModel.of(registry.read(path, strict=strict, activated=activated))
        if sh_degree is not None and splats.sh_degree != sh_degree:
            raise UserError(
                f"{path}: holds spherical harmonics of degree {splats.sh_degree}, not {sh_degree}; "
                f"use --sh_degree {splats.sh_degree}"
            )
        return splats

    def save_ply(self, path: str | Path) -> None:
        """Write a PLY file in INRIA's layout, atomically; see :func:`gsz.ply.write_ply`.

        Raises:
            UserError: the file cannot be written.
        """
        save_ply(self, path)
