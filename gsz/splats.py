"""The model: six arrays of Gaussian parameters, as every format reads and writes them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_SH_DEGREE = 3

SH_C0 = 0.28209479177387814
"""The spherical harmonic of degree 0: a color of 0 to 1 is ``0.5 + SH_C0 * sh_dc``."""

ArrayT = TypeVar("ArrayT", bound=Any)


def sh_coefficients(degree: int) -> int:
    """The number ``K`` of spherical harmonics of degree 1 and up: 0, 3, 8 or 15."""
    return (degree + 1) ** 2 - 1


def parameter_shapes(count: int, sh_degree: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the six arrays of ``count`` Gaussians, by name and in the order of :class:`Splats`."""
    return {
        "means": (count, 3),
        "log_scales": (count, 3),
        "quaternions": (count, 4),
        "opacity_logits": (count, 1),
        "sh_dc": (count, 1, 3),
        "sh_rest": (count, sh_coefficients(sh_degree), 3),
    }


@dataclass(eq=False)
class Splats(Generic[ArrayT]):
    """A set of ``N`` 3D Gaussians: six float32 arrays of values before their activations, as in 3DGS checkpoints.

    Functions of this package return NumPy arrays. Programs that train subclass it with tensors; whatever takes a
    model takes those as well, and converts them by :meth:`numpy` where it computes in NumPy.

    Attributes:
        means: ``(N, 3)`` centers, world units, in the axes of the training program (COLMAP's: right, down, front).
        log_scales: ``(N, 3)`` natural logarithms of the standard deviations along the axes, world units.
        quaternions: ``(N, 4)`` rotations, w x y z, of any length.
        opacity_logits: ``(N, 1)`` opacities before the sigmoid.
        sh_dc: ``(N, 1, 3)`` spherical harmonics of degree 0, RGB; a color of 0 to 1 is ``0.5 + SH_C0 * sh_dc``.
        sh_rest: ``(N, K, 3)`` spherical harmonics of degree 1 and up, ``K = (degree + 1)**2 - 1``, RGB.
        offset: ``(3,)`` float64 to be added to the centers, world units, where they are too far from the origin for
            float32 (in UTM coordinates, say); None for no offset.
        antialiased: whether it was trained to be rendered with Mip-Splatting's 2D filter: a Gaussian that the filter
            widens on the screen is to become fainter by as much.
        metadata: what is known about the model, as JSON has it: numbers, texts, lists, objects.
    """

    means: ArrayT
    log_scales: ArrayT
    quaternions: ArrayT
    opacity_logits: ArrayT
    sh_dc: ArrayT
    sh_rest: ArrayT
    offset: npt.NDArray[np.float64] | None = field(default=None, init=False)
    antialiased: bool = field(default=False, init=False)
    metadata: dict[str, Any] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    def named_parameters(self) -> Iterator[tuple[str, ArrayT]]:
        """The six arrays with their names, always in the same order."""
        for name in PARAMETERS:
            yield name, getattr(self, name)

    def map(self, function: Callable[[ArrayT], ArrayT]) -> Self:
        """A model with ``function`` applied to each of the six arrays."""
        return self.replace(**{name: function(array) for name, array in self.named_parameters()})

    def replace(self, **changes: Any) -> Self:
        """A model with some of the attributes replaced, and the others shared."""
        model = copy.copy(self)
        for name, value in changes.items():
            setattr(model, name, value)
        return model

    def select(self, index: Any) -> Self:
        """The Gaussians that a boolean mask or an array of indices names, copied."""
        return self.map(lambda array: array[index])

    def numpy(self) -> Splats[npt.NDArray[np.float32]]:
        """The same Gaussians as C-contiguous float32 NumPy arrays; without a copy where they are that already."""
        model: Splats = Splats(**{name: _as_numpy(array) for name, array in self.named_parameters()})
        return model.replace(offset=self.offset, antialiased=self.antialiased, metadata=self.metadata)

    @classmethod
    def from_arrays(
        cls,
        means: npt.ArrayLike,
        log_scales: npt.ArrayLike,
        quaternions: npt.ArrayLike,
        opacity_logits: npt.ArrayLike,
        sh_dc: npt.ArrayLike,
        sh_rest: npt.ArrayLike | None = None,
    ) -> Self:
        """A model from arrays of matching sizes and any numeric type.

        Args:
            opacity_logits: may lack its unit axis, and so may ``sh_dc``.
            sh_rest: ``(N, K, 3)`` with K of 0, 3, 8 or 15; ``None`` stands for no harmonics above degree 0.

        Raises:
            ValueError: an array has another shape than the number of means implies.
        """
        count = len(np.asarray(means))
        rest = np.zeros((count, 0, 3)) if sh_rest is None else np.asarray(sh_rest)
        degree = math.isqrt(rest.shape[1] + 1) - 1 if rest.ndim == 3 else 0
        given = (means, log_scales, quaternions, opacity_logits, sh_dc, rest)
        shapes = parameter_shapes(count, degree)
        return cls(
            **{
                name: cls._array(np.ascontiguousarray(array, dtype=np.float32).reshape(shape))
                for (name, shape), array in zip(shapes.items(), given, strict=True)
            }
        )

    @classmethod
    def empty(cls, sh_degree: int = MAX_SH_DEGREE) -> Self:
        """A model of no Gaussians."""
        return cls.from_arrays(**{name: np.zeros(shape) for name, shape in parameter_shapes(0, sh_degree).items()})

    @classmethod
    def concatenate(cls, models: Sequence[Splats]) -> Self:
        """All Gaussians of several models with the same SH degree, as one model of NumPy arrays."""
        parts = [dict(model.numpy().named_parameters()) for model in models]
        return cls.from_arrays(**{name: np.concatenate([part[name] for part in parts]) for name in PARAMETERS})

    @classmethod
    def _array(cls, array: npt.NDArray[np.float32]) -> Any:
        """A NumPy array in the form that this class holds its parameters in."""
        return array

    def check_finite(self, source: str) -> None:
        """Raise :class:`UserError` naming ``source`` where a parameter is NaN or infinite."""
        for name, array in self.numpy().named_parameters():
            # A sum is NaN or infinite if a summand is, and needs no array of truth values.
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(array.sum(dtype=np.float64)):
                    continue
            bad = int((~np.isfinite(array)).any(axis=tuple(range(1, array.ndim))).sum())
            if bad:
                raise UserError(
                    f"{source}: {name} is NaN or infinite for {bad} of {len(self)} Gaussians; "
                    "remove them in an editor or train the model again"
                )


PARAMETERS = tuple(parameter_shapes(0, 0))
"""The names of the six arrays, in the order of :class:`Splats`."""


def _as_numpy(array: Any) -> npt.NDArray[np.float32]:
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu().numpy()
    return np.ascontiguousarray(array, dtype=np.float32)
