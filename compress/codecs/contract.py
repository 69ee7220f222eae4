"""What a file format is to the rest of the program: a grid of values it can hold.

A codec has three operations and one law::

    grid  = codec.fit(splats)        # choose ranges, steps, codebooks
    g'    = grid.snap(splats)        # the values a decoder will return (differentiable: straight-through)
    bytes = grid.encode(splats)      # the file
    LAW:  codec.decode(grid.encode(splats)) == grid.snap(splats), bit for bit, up to the order of the Gaussians

Fine-tuning renders ``grid.snap(splats)``, so what is optimised is what is shipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from scene.gaussian_model import GaussianModel
from utils.errors import UserError


class CodecError(UserError):
    """A compressed file is truncated, corrupted, of an unknown version, or no such file at all.

    The message begins with the file's name and says what is wrong with it.
    """


class Grid(ABC):
    """The values one file can hold: ranges, steps and codebooks, fitted to a model.

    Attributes:
        importance: ``(N,)`` or ``None``. Where :attr:`uses_importance` is set, :meth:`encode` puts the Gaussians of
            high importance first; it may be set at any time, and a format has its own idea where it is ``None``.
    """

    uses_importance: ClassVar[bool] = False
    """Whether the order of a file's Gaussians says which of them matter most."""
    importance: Tensor | None = None

    def observe(self, splats: GaussianModel) -> None:  # noqa: B027
        """Let the grid follow the parameters; called once before every :meth:`snap` of fine-tuning.

        Grids whose ranges move with the model (the published one) override it. :meth:`snap` and :meth:`encode`
        themselves never change the grid.
        """

    @abstractmethod
    def snap(self, splats: GaussianModel) -> GaussianModel:
        """The values a decoder will return for ``splats``, in the order of ``splats``.

        Differentiable: gradients pass straight through the rounding to the six parameters.
        """

    @abstractmethod
    def encode(self, splats: GaussianModel) -> bytes:
        """The file. Gaussians may be reordered."""

    def estimated_bits(self, splats: GaussianModel) -> Tensor | None:
        """An estimate of the size of :meth:`encode`'s file in bits, for a rate term in a loss.

        Returns:
            A scalar with gradients, or ``None`` where the format has no estimate.
        """
        return None


class Codec(ABC):
    """One file format. Instances carry the format's settings and are otherwise stateless."""

    name: ClassVar[str]
    """What ``--codec`` calls it."""
    suffix: ClassVar[str]
    """File name ending, with the dot."""
    writable: ClassVar[bool] = True
    """False for formats that are only read."""

    @classmethod
    @abstractmethod
    def recognises(cls, head: bytes) -> bool:
        """Whether a file that begins with ``head`` (its first 512 bytes, or all of them) is of this format."""

    @abstractmethod
    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        """The model in a file's bytes. ``source`` is the file's name, for messages.

        Raises:
            CodecError: for anything wrong with the bytes, whatever it is. Nothing is executed, no length is
                believed before it is checked, and no allocation exceeds a bound computed from ``len(data)``.
        """

    def fit(self, splats: GaussianModel) -> Grid:
        """Choose the grid for a model. Read-only formats raise :class:`UserError`."""
        raise UserError(f"{self.name} files can be read but not written; choose another codec")

    def for_size(self, splats: GaussianModel, size: int) -> Codec | None:
        """The codec with the finest steps on which ``splats`` take at most ``size`` bytes.

        Returns:
            ``None`` where the format has no steps to choose, or not even the coarsest are coarse enough.
        """
        return None

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        """What the file's header says, without decoding: at least ``format``, ``version``, ``count``, ``sh_degree``.

        Formats that know it add ``bytes`` by attribute.
        """
        model = self.decode(data, source)
        return {"format": self.name, "version": None, "count": len(model), "sh_degree": model.sh_degree}
