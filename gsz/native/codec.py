"""The codec ``gsz``: its settings, and files back into models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gsz.coding.tables import StreamError
from gsz.contract import Codec, CodecError, Grid
from gsz.errors import UserError
from gsz.fast3dgs import Fast3dgsCodec
from gsz.kernels import announced
from gsz.native import container
from gsz.native.container import Header
from gsz.native.fit import fit_steps
from gsz.native.grid import GszFast3dgsGrid, GszGrid, LayeredGrid
from gsz.native.layer_coding import LayerCoding
from gsz.native.layers import MAX_LAYERS
from gsz.native.metadata import pack_metadata
from gsz.native.native_packing import NativePacking
from gsz.native.packings import packing_of
from gsz.native.settings import DEFAULT_QUALITY, GRIDS, GridSettings, preset
from gsz.native.steps import Steps
from gsz.native.target import settings_for_size
from gsz.splats import Splats, parameter_shapes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GszCodec(Codec):
    """The compact codec.

    Attributes:
        quality: one of :data:`gsz.native.settings.QUALITIES`; for the native grid.
        settings: an explicit native grid, which takes the place of ``quality``.
        grid: ``native``, or ``fast3dgs`` for exactly the values of the codec of that name in fewer bytes.
        layers: number of layers of falling importance that a file can be cut into, 1 to 16.
        octaves: by how much each of :data:`gsz.native.settings.STEPS` is coarser than these say, as was learned;
            nothing for all as they say.
    """

    quality: str = DEFAULT_QUALITY
    settings: GridSettings | None = None
    grid: Literal["native", "fast3dgs"] = "native"
    layers: int = 1
    octaves: tuple[float, ...] = ()

    name = "gsz"
    suffix = ".gsz"
    keeps = frozenset({"offset", "antialiased", "metadata"})

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        return head.startswith(container.MAGIC)

    def __post_init__(self) -> None:
        if self.grid not in GRIDS:
            raise UserError(f"gsz grid {self.grid!r} is unknown; choose one of {', '.join(GRIDS)}")
        if not 1 <= self.layers <= MAX_LAYERS:
            raise UserError(f"gsz setting layers={self.layers} is out of range; choose 1 to {MAX_LAYERS}")
        self.grid_settings()

    def grid_settings(self) -> GridSettings:
        """The native settings in force. Raises :class:`UserError` where they are unknown or out of range."""
        settings = self.settings or preset(self.quality)
        settings.check()
        return settings.coarser(self.octaves) if self.octaves else settings

    @property
    def learns_steps(self) -> bool:
        return self.grid == "native"

    def with_steps_of(self, grid: Grid) -> GszCodec:
        return replace(self, octaves=grid.octaves) if isinstance(grid, GszGrid) else self

    @announced("the encoder of .gsz files")
    def fit(self, splats: Splats) -> LayeredGrid:
        if self.grid == "fast3dgs":
            return GszFast3dgsGrid(Fast3dgsCodec().fit(splats), self.layers)
        return GszGrid(self.fit_steps(splats), self.layers, self)

    def fit_steps(self, splats: Splats) -> Steps:
        """The steps of the native grid for a model."""
        return fit_steps(splats, self.grid_settings())

    def for_size(
        self, splats: Splats, size: int, importance: npt.NDArray[np.floating] | None = None
    ) -> GszCodec | None:
        """See :class:`gsz.contract.Codec`. The grid ``fast3dgs`` has no steps to choose."""
        if self.grid == "fast3dgs":
            return None

        def bytes_of(settings: GridSettings) -> int:
            return len(replace(self, settings=settings).fit(splats).encode(splats, importance))

        settings = settings_for_size(size, bytes_of)
        return None if settings is None else replace(self, settings=settings)

    @announced("the decoder of .gsz files")
    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        """The model in a file's bytes.

        A file whose end is missing gives the layers that are whole, with a warning. A file of n bytes holds at most n
        Gaussians, so memory is bounded by about 800 bytes for each byte of the file.

        Raises:
            CodecError: the file is damaged, or not one layer is whole.
        """
        header = Header.parse(data, source)
        packing = packing_of(header, source)
        layers = _whole_layers(header, len(data), source)
        model = _model_of_zeros(sum(header.counts[:layers]), header.sh_degree)
        coding = LayerCoding(packing, header.coefficients, header.column_sizes)
        begin = 0
        for layer, count in enumerate(header.counts[:layers]):
            streams = container.layer_streams(data, header, layer, source)
            try:
                coding.decode_layer(streams, model.select(slice(begin, begin + count)))
            except StreamError as error:
                raise CodecError(f"{source}: layer {layer + 1}: {error}; the file is damaged, copy it again") from error
            begin += count
        _correct(model, header, layers)
        offset = np.array(header.offset) if any(header.offset) else None
        return model.replace(offset=offset, antialiased=header.antialiased, metadata=header.metadata)

    def cut(
        self,
        data: bytes,
        source: str = "<bytes>",
        level: int | None = None,
        max_bytes: int | None = None,
        keep: float | None = None,
    ) -> bytes:
        header = Header.parse(data, source)
        layers = len(header.counts)
        if level is not None:
            if level < 1:
                raise UserError(f"level {level} is too small; choose 1 or more")
            layers = min(level, layers)
        if max_bytes is not None:
            layers = min(layers, header.whole_layers(max_bytes))
            if not layers and len(header.counts) == 1:
                raise UserError(
                    f"{source}: is a single layer of {header.end_of(0)} bytes, which cannot be cut to {max_bytes}; "
                    "--target_size rounds it more coarsely, --codec gsz:layers=4 writes files that can be cut"
                )
            if not layers:
                raise UserError(
                    f"{source}: not even the first of {len(header.counts)} layers lies within {max_bytes} bytes; allow "
                    f"{header.end_of(0)} or more"
                )
        if keep is not None:
            layers = min(layers, _layers_to_keep(header, source, keep))
        return data[: header.end_of(layers - 1)]

    def labelled(self, data: bytes, metadata: Mapping[str, Any]) -> bytes:
        header = Header.parse(data, "<bytes>")
        streams = data[header.size :]
        header.label = pack_metadata(dict(metadata))
        return header.pack() + streams

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        """As the contract says; ``bytes`` by attribute, ``layers`` with count and bytes, and the rest of the header."""
        header = Header.parse(data, source)
        packing = packing_of(header, source)
        whole = header.whole_layers(len(data))
        said = {
            "format": self.name,
            "version": container.VERSION,
            "count": sum(header.counts[:whole]),
            "sh_degree": header.sh_degree,
            "grid": packing.name,
            "antialiased": header.antialiased,
            "bytes": {"header": header.size, **header.bytes_by_attribute()},
            "layers": [
                {"count": count, "bytes": header.layer_bytes(layer)} for layer, count in enumerate(header.counts)
            ],
        }
        if whole < len(header.counts):
            said["cut"] = f"the file ends after {whole} of its {len(header.counts)} layers; 'bytes' are those of all"
        if isinstance(packing, NativePacking):
            said["steps"] = packing.steps.described()
        if any(header.offset):
            said["offset"] = list(header.offset)
        if header.metadata:
            said["metadata"] = header.metadata
        return said


def _model_of_zeros(count: int, sh_degree: int) -> Splats:
    """A model to be filled in. Most harmonics are 0 and left so: the system hands out its memory that way."""
    return Splats(**{name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(count, sh_degree).items()})


def _correct(model: Splats, header: Header, layers: int) -> None:
    """Make up for the layers that are left out, as a file that ends with ``layers`` says."""
    correction = header.corrections[layers - 1]
    if layers < len(header.counts) and any(correction):
        model.log_scales += np.float32(correction.log_scales)
        model.opacity_logits += np.float32(correction.opacity_logits)


def _layers_to_keep(header: Header, source: str, keep: float) -> int:
    """How many layers hold at most a fraction of the Gaussians."""
    if not 0.0 < keep <= 1.0:
        raise UserError(f"keep {keep:g} is out of range; choose a fraction above 0, and at most 1")
    ends, total = list(accumulate(header.counts)), sum(header.counts)
    layers = sum(end <= keep * total for end in ends)
    if not layers:
        raise UserError(
            f"{source}: the first of {len(ends)} layers holds {ends[0] / total:.3g} of the Gaussians; keep as many, or "
            "write the file in more layers"
        )
    return layers


def _whole_layers(header: Header, size: int, source: str) -> int:
    """How many layers of a file are there, if ``size`` bytes of it are. Says so where it is not all of them."""
    layers, whole = len(header.counts), header.whole_layers(size)
    if not whole or (whole < layers and not sum(header.counts[:whole])):
        raise CodecError(f"{source}: not even the first of {layers} layers is whole; copy the file again")
    if whole < layers and size == header.end_of(whole - 1):
        _log.info(f"{source}: is a coarser model, the first {whole} of {layers} layers")
    elif whole < layers:
        _log.warning(f"{source}: the file's end is missing; decoded {whole} of {layers} layers")
    return whole
