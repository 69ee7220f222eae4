"""The grids of ``.gsz`` files, native and ``fast3dgs``."""

from __future__ import annotations

import logging
from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gsz import nvidia_warp
from gsz.contract import Correction, Grid, ModelT
from gsz.errors import UserError
from gsz.fast3dgs import Fast3dgsGrid
from gsz.kernels import announced
from gsz.native import container
from gsz.native.container import Header
from gsz.native.fast3dgs_packing import PackedFast3dgs
from gsz.native.layer_coding import LayerCoding, prepare
from gsz.native.layers import layer_ends, split
from gsz.native.layout import Columns, column_sizes
from gsz.native.metadata import pack_metadata
from gsz.native.native_packing import PackedNative
from gsz.native.packing import Packed, Packing
from gsz.native.steps import Steps
from gsz.splats import Splats

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gsz.native.codec import GszCodec
    from gsz.native.gpu import GpuSteps
    from gsz.native.learning import LearnedSteps
    from gsz.native.rate import RateModel
    from gsz.native.snap import Snapped, Workspace

_log = logging.getLogger(__name__)

RATE_LIFE = 200
"""For how many iterations of fine-tuning the same statistics of the rate are used."""


@cache
def rounds_on_gpu() -> bool:
    """Whether a model on CUDA is rounded and priced there. Where it cannot be, a warning says what to install."""

    def compile_kernels(device: torch.device) -> None:
        from gsz.native import gpu

        gpu.compile_kernels(device)

    try:
        problem = nvidia_warp.obstacle(compile_kernels)
    except ImportError:
        problem = f"the package {nvidia_warp.PACKAGE} is not installed; install it with: {nvidia_warp.INSTALL}"
    if problem is not None:
        _log.warning("The GPU's model is rounded to its format on the CPU, many times slower: %s", problem)
    return problem is None


class LayeredGrid(Grid):
    """What both grids share: layers of falling importance.

    Attributes:
        layers: how many layers :meth:`encode` writes, at most; small models get fewer.
    """

    def __init__(self, layers: int = 1):
        self.layers = layers

    def layer_ends(self, count: int) -> list[int]:
        return layer_ends(count, self.layers)

    @abstractmethod
    def _pack(self, splats: Splats) -> Packed:
        """The model, of NumPy arrays, on the grid."""

    @announced("the encoder of .gsz files")
    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        """The file. Gaussians are reordered by layer and position.

        Args:
            importance: ``(N,)``; by default, a Gaussian's is its opacity times the area of its two largest axes.
        """
        if len(splats) >= 1 << 32:
            raise UserError(f"a .gsz file holds fewer than 2**32 Gaussians, not {len(splats)}; prune the model")
        splats = splats.numpy()
        packing, columns = self._columns(splats, importance)
        layers = [prepare(packing, columns.pop(0)) for _ in range(len(columns))]
        header = Header(
            grid=packing.number,
            sh_degree=splats.sh_degree,
            parameters=packing.pack(),
            column_sizes=column_sizes(packing.layout, [layer.columns for layer in layers]),
            counts=[len(layer.columns["sh"]) for layer in layers],
            corrections=[*self.corrections, *[Correction()] * len(layers)][: len(layers)],
            antialiased=splats.antialiased,
            offset=(0.0, 0.0, 0.0) if splats.offset is None else tuple(splats.offset.tolist()),
            label=pack_metadata(splats.metadata),
        )
        coding = LayerCoding(packing, header.coefficients, header.column_sizes)
        return container.assemble(header, [coding.encode_layer(layer) for layer in layers])

    def _columns(self, splats: Splats, importance: npt.NDArray[np.floating] | None) -> tuple[Packing, list[Columns]]:
        """The columns of each layer, without the symbols they are made of, which would take as much memory again."""
        packed = self._pack(splats)
        rows = split(splats, self.layers, importance, packed.curve)
        return packed.packing, [packed.columns(of_layer) for of_layer in rows]


class GszGrid(LayeredGrid):
    """The native grid. Its values are fixed when it is made, unless its steps are learned.

    Attributes:
        steps: its resolution.
    """

    has_estimate = True

    def __init__(self, steps: Steps, layers: int = 1, codec: GszCodec | None = None):
        """
        Args:
            codec: whose fit to a model the steps are; without one they cannot be learned.
        """
        super().__init__(layers)
        self.steps = steps
        self._codec = codec
        self._learned: LearnedSteps | None = None
        self._on_gpu: GpuSteps | None = None
        self._rate: RateModel | None = None
        self._rate_age = 0
        self._snapped: Snapped | None = None
        self._workspace: Workspace | None = None

    def observe(self, splats: Splats) -> None:
        """Keep the statistics behind :meth:`estimated_bits` up to date, once it has been asked for an estimate.

        They are taken anew every :data:`RATE_LIFE` iterations and when the number of Gaussians has changed. Only then
        does the CPU see a model that is on another device.
        """
        moved = self._learned is not None and self._learned.observe(splats)
        if moved:
            assert self._learned is not None
            self.steps, self._on_gpu, self._snapped = self._learned.codec.fit_steps(splats), None, None
        if self._rate is not None:
            self._rate_age += 1
            if moved or self._rate_age >= RATE_LIFE or not self._rate.fits(splats):
                self._take_statistics(splats)

    def estimated_bits(self, splats: Splats) -> Tensor:
        """An estimate of the size of :meth:`encode`'s file in bits: a scalar with gradients, for a rate term in a loss.

        See :mod:`gsz.native.rate`. The first estimate, and one of another number of Gaussians than were observed, is
        exact; the statistics behind it serve the later ones, until :meth:`observe` takes new ones.
        """
        if len(splats) == 0:
            return splats.means.sum() * 0
        if self._rate is None or not self._rate.fits(splats):
            self._take_statistics(splats)
        assert self._rate is not None
        bits = self._rate.bits(splats)
        return bits if self._learned is None else bits + self._learned.price(len(splats))

    def learn_steps(self, splats: Splats) -> Tensor | None:
        """See :class:`gsz.contract.Grid` and :mod:`gsz.native.learning`."""
        from gsz.native.learning import LearnedSteps

        if self._codec is None:
            return None
        self._learned = LearnedSteps(self._codec, splats.means.device)
        return self._learned.octaves

    @property
    def octaves(self) -> tuple[float, ...]:
        """By how much each of :data:`gsz.native.settings.STEPS` is coarser than was asked for, as was learned."""
        codec = self._codec if self._learned is None else self._learned.codec
        return () if codec is None else codec.octaves

    def pay(self, splats: Splats, weight: float, count: int | None = None, counted: bool = True) -> Tensor:
        """See :class:`gsz.contract.Grid`; at least one Gaussian."""
        if self._rate is None or not self._rate.fits(splats):
            self._take_statistics(splats)
        assert self._rate is not None
        count = len(splats) if count is None else count
        if self._learned is not None:
            self._learned.pay(weight, count)
        finenesses = None if self._snapped is None else self._snapped.finenesses(splats)
        return self._rate.pay(splats, weight, count, finenesses, counted)

    def _take_statistics(self, splats: Splats) -> None:
        from gsz.native.rate import RateModel

        steps = self.steps_on(splats.means.device)
        self._rate, self._rate_age = RateModel(self.steps, steps, splats, self.encode(splats)), 0

    def snap(self, splats: ModelT) -> ModelT:
        """See :class:`gsz.contract.Grid`.

        The axes of a snapped Gaussian are sorted by scale, largest first, and its quaternion is turned to match:
        the same Gaussian in other words. Gradients are turned back. A model on a CUDA device stays there and gets
        the same values bit for bit; see :mod:`gsz.native.gpu_kernels`.
        """
        from gsz.native.snap import Workspace, snap

        self._workspace = self._workspace or Workspace()
        snapped, self._snapped = snap(self.steps_on(splats.means.device), splats, self._workspace)
        return snapped if self._learned is None else self._learned.felt(splats, snapped)

    def steps_on(self, device: torch.device) -> Steps | GpuSteps:
        """The steps for models on a device: there on CUDA where Warp works, else as they are for kernels of the CPU."""
        if device.type != "cuda" or not rounds_on_gpu():
            return self.steps
        from gsz.native.gpu import GpuSteps

        if self._on_gpu is None or self._on_gpu.device != device:
            self._on_gpu = GpuSteps(self.steps, device)
        return self._on_gpu

    def _pack(self, splats: Splats) -> PackedNative:
        self._workspace = None  # What is computed next takes memory of its own.
        return PackedNative.of(splats, self.steps)


class GszFast3dgsGrid(LayeredGrid):
    """The values of the codec ``fast3dgs``, in a smaller file.

    Attributes:
        values: that codec's grid.
    """

    def __init__(self, values: Fast3dgsGrid, layers: int = 1):
        super().__init__(layers)
        self.values = values

    def observe(self, splats: Splats) -> None:
        self.values.observe(splats)

    def snap(self, splats: ModelT) -> ModelT:
        return self.values.snap(splats)

    def _pack(self, splats: Splats) -> PackedFast3dgs:
        return PackedFast3dgs.of(splats, self.values)
