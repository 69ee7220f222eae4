"""What a file format is to the rest of the program: a grid of values it can hold.

A codec has three operations and one law::

    grid  = codec.fit(splats)        # choose ranges, steps, codebooks
    g'    = grid.snap(splats)        # the values a decoder will return (differentiable: straight-through)
    bytes = grid.encode(splats)      # the file
    LAW:  codec.decode(grid.encode(splats)) == grid.snap(splats), bit for bit, up to the order of the Gaussians

Fine-tuning renders ``grid.snap(splats)``, so what is optimized is what is shipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.splats import Splats

if TYPE_CHECKING:
    from torch import Tensor


class CodecError(UserError):
    """A compressed file is truncated, corrupted, of an unknown version, or no such file at all.

    The message begins with the file's name and says what is wrong with it.
    """


ModelT = TypeVar("ModelT", bound=Splats)
"""A model of tensors; what rounds it returns one of the same class."""


LARGEST_CORRECTION = 100.0
"""How large both parts of a :class:`Correction` may be, either way."""


class Correction(NamedTuple):
    """What a model is given that ends with a certain layer, to make up for the Gaussians that it lacks.

    Attributes:
        log_scales: is added to all log-scales.
        opacity_logits: is added to all opacity logits.
    """

    log_scales: float = 0.0
    opacity_logits: float = 0.0


class Grid(ABC):
    """The values one file can hold: ranges, steps and codebooks, fitted to a model.

    :meth:`encode` computes in NumPy. :meth:`observe`, :meth:`settle`, :meth:`snap`, :meth:`estimated_bits` and
    :meth:`pay` are for fine-tuning: they take models of PyTorch tensors, on any device, and are the only methods that
    import PyTorch.

    Attributes:
        corrections: what a file in layers is given that ends with the first of them, the second, and so on.
    """

    corrections: Sequence[Correction] = ()
    has_estimate: ClassVar[bool] = False
    """Whether the bits of a file can be estimated: :meth:`estimated_bits` and :meth:`pay`."""

    def layer_ends(self, count: int) -> list[int]:
        """How many of a model's ``count`` Gaussians its file holds to the end of each layer: a file may be cut there.

        Layers are of falling importance. Files of a format without layers are one.
        """
        return [count]

    def observe(self, splats: Splats) -> None:  # noqa: B027
        """Let the grid follow the parameters; called once before every :meth:`snap` of fine-tuning.

        All that changes between iterations changes here, such as ranges that move with the model and the statistics
        behind :meth:`estimated_bits`. No other method but :meth:`settle` changes the grid.
        """

    def settle(self, splats: Splats) -> None:  # noqa: B027
        """Let the grid come to rest on the model that is to be encoded, which may never have been observed.

        Fine-tuning ends with the average of the models that it had, and calls this once. What holds parameters
        themselves, as SOG's palette does, takes those of ``splats``; ranges and steps stay as they were trained on.
        """

    def rebind(self, splats: Splats) -> Grid:
        """A grid of the same values for other Gaussians than those this was fitted to, or for these in another order.

        It is this grid itself where each Gaussian is rounded by itself. Where something is settled for each of them, as
        in SOG's palette, a model of another count than the grid is bound to is a :class:`ValueError`.
        """
        return self

    @abstractmethod
    def snap(self, splats: ModelT) -> ModelT:
        """The values a decoder will return for ``splats``, in the order of ``splats``.

        Differentiable: gradients pass straight through the rounding to the six parameters.
        """

    @abstractmethod
    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        """The file. Gaussians may be reordered.

        Args:
            importance: ``(N,)``. In a file in layers the Gaussians of high importance come first; a format has its
                own idea of it where it is ``None``. It is not looked at where there is a single layer.
        """

    def estimated_bits(self, splats: Splats) -> Tensor:
        """An estimate of the size of :meth:`encode`'s file in bits: a scalar with gradients, for a term in a loss.

        Raises:
            NotImplementedError: the format :attr:`has_estimate` of none.
        """
        raise NotImplementedError

    def pay(self, splats: Splats, weight: float, count: int | None = None, counted: bool = True) -> Tensor:
        """Add the gradient of ``weight * estimated_bits(splats)`` to the gradients that ``splats``, leaves, have.

        A term in the loss would do the same, with tensors as large as the model in between.

        Args:
            count: only the first ``count`` Gaussians are given gradients; all of them by default.
            counted: whether the bits are asked for; without them it is faster.

        Returns:
            The bits of all, a scalar without gradients; any number where they are not asked for.

        Raises:
            NotImplementedError: the format :attr:`has_estimate` of none.
        """
        raise NotImplementedError

    def learn_steps(self, splats: Splats) -> Tensor | None:
        """Make parameters of the grid's steps, to be moved by an optimizer while their gradients are asked for.

        From then on :meth:`snap` gives them the gradient of the loss, :meth:`estimated_bits` and :meth:`pay` that of
        the size, and :meth:`observe` moves the grid after them, now and then and in jumps.

        Args:
            splats: the model that is fine-tuned.

        Returns:
            By how many octaves each step is coarser than was asked for, a leaf; or ``None`` where the format has no
            steps to learn.
        """
        return None


class Codec(ABC):
    """One file format. Instances carry the format's settings and are otherwise stateless."""

    name: ClassVar[str]
    """What ``--codec`` calls it."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Names that it had before, which still work."""
    suffix: ClassVar[str]
    """File name ending, with the dot."""
    writable: ClassVar[bool] = True
    """False for formats that are only read."""
    layers: int = 1
    """How many layers its files have at most."""
    keeps: ClassVar[frozenset[str]] = frozenset()
    """Which of ``offset``, ``antialiased`` and ``metadata`` its files can say of a model."""

    @classmethod
    @abstractmethod
    def recognizes(cls, head: bytes) -> bool:
        """Whether a file that begins with ``head`` (its first 4096 bytes, or all of them) is of this format."""

    @abstractmethod
    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        """The model in a file's bytes. ``source`` is the file's name, for messages.

        Raises:
            CodecError: for anything wrong with the bytes, whatever it is. Nothing is executed, no length is
                believed before it is checked, and no allocation exceeds a bound computed from ``len(data)``.
        """

    def cut(
        self,
        data: bytes,
        source: str = "<bytes>",
        level: int | None = None,
        max_bytes: int | None = None,
        keep: float | None = None,
    ) -> bytes:
        """The first part of a file in layers of falling importance: the file of a coarser model.

        Args:
            level: the first ``level`` layers; more than there are means all.
            max_bytes: the layers that lie within the first ``max_bytes`` bytes.
            keep: the layers that hold at most this fraction of the Gaussians.

        Raises:
            UserError: files of this format have no layers, or not one of them is as small as that.
            CodecError: as :meth:`decode`.
        """
        raise UserError(f"{source}: {self.name} files have no layers; leave level, max_bytes and keep out")

    def labelled(self, data: bytes, metadata: Mapping[str, Any]) -> bytes:
        """A file that this codec wrote, with this metadata in place of what it has; as it is where there is no room."""
        return data

    @property
    def learns_steps(self) -> bool:
        """Whether the steps of its grids can be learned: see :meth:`Grid.learn_steps`."""
        return False

    def with_steps_of(self, grid: Grid) -> Codec:
        """This codec with the steps that one of its grids has learned."""
        return self

    def fit(self, splats: Splats) -> Grid:
        """Choose the grid for a model. Read-only formats raise :class:`UserError`."""
        raise UserError(f"{self.name} files can be read but not written; choose another codec")

    def for_size(self, splats: Splats, size: int, importance: npt.NDArray[np.floating] | None = None) -> Codec | None:
        """The codec with the finest steps on which ``splats`` take at most ``size`` bytes.

        Args:
            importance: as for :meth:`Grid.encode`; the order of Gaussians changes what a file takes.

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
