"""``fit``, ``snap``, ``encode`` and ``decode`` of the compact codec."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gsz.coding.morton import interleave, morton_codes, stable_order
from gsz.coding.rans import LANES, StreamError
from gsz.contract import Codec, CodecError, Grid, ModelT
from gsz.errors import UserError
from gsz.fast3dgs import Fast3dgsCodec, Fast3dgsGrid
from gsz.native import container, fast3dgs, native, symbols
from gsz.native.container import Header
from gsz.native.harmonics import Palette
from gsz.native.settings import DEFAULT_QUALITY, GRIDS, GridSettings, preset
from gsz.native.streams import ATTRIBUTES, Coding, Hints, Layout, Sink, Values, column_sizes
from gsz.native.symbols import Steps
from gsz.native.target import settings_for_size
from gsz.rounding import elementary
from gsz.rounding.elementary import LN2
from gsz.splats import Splats

if TYPE_CHECKING:
    from torch import Tensor

    from gsz.native.device import DeviceSteps
    from gsz.native.rate import RateModel

_log = logging.getLogger(__name__)

MOST_MEAN_BITS = 16
"""Beyond, the grid of positions would end too near: at ``2**(2**20 / 2**bits)`` times the radius."""
RATE_LIFE = 200
"""How many estimates of the rate are made from the same statistics."""
SMALL_LAYER = 256
"""A model is cut into layers only where the first of them has about so many Gaussians or more."""

NATIVE, FAST3DGS = range(len(GRIDS))
"""The numbers of the grids in a file."""
_LAYOUTS: tuple[Layout, Layout] = (native.LAYOUT, fast3dgs.LAYOUT)


@dataclass(frozen=True)
class _Prepared:
    """A model on its grid, on the way into a file.

    Attributes:
        curve: ``(N,)`` places along a Morton curve; Gaussians of a layer are sorted by them.
        columns: the columns of the Gaussians that an index array names, in its order.
    """

    number: int
    parameters: bytes
    curve: np.ndarray
    columns: Callable[[np.ndarray], Values]
    hints: Hints


class LayeredGrid(Grid):
    """What both grids share: layers of falling importance.

    Attributes:
        layers: how many layers :meth:`encode` writes, at most; small models get fewer.
    """

    uses_importance = True

    def __init__(self, layers: int = 1):
        self.layers = layers

    @abstractmethod
    def _prepare(self, splats: Splats) -> _Prepared:
        """``splats`` holds NumPy arrays."""

    def encode(self, splats: Splats, importance: npt.NDArray[np.floating] | None = None) -> bytes:
        """The file. Gaussians are reordered by layer and position.

        Args:
            importance: ``(N,)``; by default, a Gaussian's is its opacity times the area of its two largest axes.
        """
        if len(splats) >= 1 << 32:
            raise UserError(f"a .gsz file holds fewer than 2**32 Gaussians, not {len(splats)}; prune the model")
        splats = splats.numpy()
        prepared = self._prepare(splats)
        layers = []
        for rows in self._layers(splats, importance):
            order = stable_order(prepared.curve[rows])
            layers.append(prepared.columns(rows[interleaved(order)]))
        layout = _LAYOUTS[prepared.number]
        sizes = column_sizes(layout, layers)
        header = Header(
            prepared.number, splats.sh_degree, prepared.parameters, sizes, [len(values["sh"]) for values in layers]
        )
        coding = Coding(layout, header.coefficients, sizes, prepared.hints)
        return container.assemble(header, [coding.encode_layer(values) for values in layers])

    def _layers(self, splats: Splats, importance: npt.NDArray[np.floating] | None) -> list[np.ndarray]:
        """Indices of the Gaussians of each layer; each but the first two is twice as large as the one before."""
        count = len(splats)
        layers = max(1, min(self.layers, math.frexp(max(1, count / SMALL_LAYER))[1]))
        if layers == 1:
            return [np.arange(count)]
        if importance is None:
            importance = default_importance(splats)
        elif len(importance) != count:
            raise UserError(f"importance of {len(importance)} Gaussians given for {count}; score the model again")
        unimportance = np.nan_to_num(-importance.astype(np.float64).reshape(-1), nan=np.inf)
        layer_of = np.full(count, layers - 1, np.uint8)
        for layer in reversed(range(layers - 1)):
            layer_of[_smallest(unimportance, count >> (layers - 1 - layer))] = layer
        return [np.flatnonzero(layer_of == layer) for layer in range(layers)]


class GszGrid(LayeredGrid):
    """The native grid. Its values are fixed when it is made.

    Attributes:
        steps: its resolution.
    """

    def __init__(self, steps: Steps, layers: int = 1):
        super().__init__(layers)
        self.steps = steps
        self._on_device: DeviceSteps | None = None
        self._rate: RateModel | None = None
        self._rate_uses = 0

    def estimated_bits(self, splats: Splats) -> Tensor:
        """An estimate of the size of :meth:`encode`'s file in bits: a scalar with gradients, for a rate term in a loss.

        See :mod:`gsz.native.rate`. The statistics behind it are taken at the first call, when the number of
        Gaussians has changed, and again every :data:`RATE_LIFE` calls; right after that the estimate is exact. Only
        then does the CPU see a model that is on another device.
        """
        if len(splats) == 0:
            return splats.means.sum() * 0
        from gsz.native.rate import RateModel

        if self._rate is None or not self._rate.fits(splats) or self._rate_uses >= RATE_LIFE:
            self._rate, self._rate_uses = RateModel(self, splats), 0
        self._rate_uses += 1
        return self._rate.bits(splats)

    def snap(self, splats: ModelT) -> ModelT:
        """See :class:`gsz.contract.Grid`.

        The axes of a snapped Gaussian are sorted by scale, largest first, and its quaternion is turned to match:
        the same Gaussian in other words. Gradients are turned back. A model on a CUDA device stays there and gets
        the same values bit for bit; see :mod:`gsz.native.device`.
        """
        from gsz.native.snap import snap

        return snap(self.steps_on(splats.means.device), splats)

    def steps_on(self, device: Any) -> Steps | DeviceSteps:
        """The steps for models on a device: as they are for the kernels of the CPU, and in tensors for any other."""
        from gsz.native.device import DeviceSteps

        if device.type == "cpu":
            return self.steps
        if self._on_device is None or self._on_device.device != device:
            self._on_device = DeviceSteps(self.steps, device)
        return self._on_device

    def _prepare(self, splats: Splats) -> _Prepared:
        quantised, _ = symbols.quantise(splats, self.steps)
        top = int(quantised.scales[:, 0].max(initial=-symbols.SCALE_LIMIT))
        curve = interleave(quantised.means, symbols.MEAN_LIMIT)
        return _Prepared(
            number=NATIVE,
            parameters=native.pack_parameters(self.steps, top),
            curve=curve,
            columns=lambda rows: native.to_columns(quantised.take(rows), curve[rows], top),
            hints=native.hints(self.steps, top),
        )


class PublishedGrid(LayeredGrid):
    """The values of the ``lzma`` codec, in a smaller file.

    Attributes:
        published: the ``lzma`` codec's grid.
    """

    def __init__(self, published: Fast3dgsGrid, layers: int = 1):
        super().__init__(layers)
        self.published = published

    def observe(self, splats: Splats) -> None:
        self.published.observe(splats)

    def snap(self, splats: ModelT) -> ModelT:
        return self.published.snap(splats)

    def _prepare(self, splats: Splats) -> _Prepared:
        return _Prepared(
            number=FAST3DGS,
            parameters=fast3dgs.pack_parameters(self.published),
            curve=morton_codes(splats.means),
            columns=lambda rows: fast3dgs.to_columns(self.published, splats, rows),
            hints=_no_hints,
        )


def _smallest(values: np.ndarray, number: int) -> np.ndarray:
    """``(N,)`` bool: the ``number`` smallest values, and among equals the first."""
    limit = np.partition(values, number - 1)[number - 1]
    chosen = values < limit
    chosen[np.flatnonzero(values == limit)[: number - int(chosen.sum())]] = True
    return chosen


def _no_hints(attribute: str, values: Values) -> dict[str, np.ndarray]:
    return {}


def default_importance(splats: Splats) -> np.ndarray:
    """``(N,)`` opacity times the product of the two largest scales: about what a Gaussian covers, in world units."""
    first, second, third = splats.log_scales.astype(np.float64).T
    largest = first + second + third - np.minimum(np.minimum(first, second), third)
    logarithm = np.minimum(largest, 80) + elementary.log_sigmoid(splats.opacity_logits[:, 0])
    return elementary.exp2(logarithm / LN2)


def interleaved(order: np.ndarray) -> np.ndarray:
    """Cut ``order`` into eight runs and take one of each in turn; the first runs are longer by one where need be."""
    count = len(order)
    begins = np.concatenate([[0], np.cumsum([(count - lane + LANES - 1) // LANES for lane in range(LANES)])[:-1]])
    item = np.arange(count)
    return order[begins[item % LANES] + item // LANES]


def fit_steps(splats: Splats, settings: GridSettings) -> Steps:
    """The steps of ``settings``, about the robust centre and radius of a model's positions."""
    splats = splats.numpy()
    means = splats.means.astype(np.float64)
    centre, radius, mean_bits = np.zeros(3), 1.0, 1
    rotation_pivot = sh_pivot = 0
    if len(means):
        centre = np.median(means, axis=0)
        radius = float(np.percentile(np.abs(means - centre), 90))
        # Any radius about as large as that will do, so it is chosen such that a whole number of bits gives the step.
        sizes = np.sort(np.median(splats.log_scales, axis=1))
        step = settings.mean_step * float(elementary.exp2(sizes[(len(sizes) - 1) // 2] / LN2))
        fraction, exponent = math.frexp(max(radius, 1e-30) / max(step, 1e-30))
        mean_bits = min(max(exponent - (fraction == 0.5), 1), MOST_MEAN_BITS)
        radius = max(radius, step * 2.0**mean_bits)
        rotation_pivot, sh_pivot = symbols.pivots(splats.log_scales, splats.opacity_logits)
    steps = Steps(
        centre=centre.astype(np.float32).astype(np.float64),
        radius=float(np.float32(min(max(radius, 1e-20), 1e30))),
        mean_bits=mean_bits,
        scale_step=settings.scale_step,
        opacity_levels=settings.opacity_levels,
        rotation_step=settings.rotation_step,
        dc_step=settings.dc_step,
        sh_step=settings.sh_step,
        sh_colours=symbols.sh_colours(settings.sh_chroma),
        sh_values=np.arange(symbols.RECONSTRUCTED, dtype=np.float64),
        rotation_pivot=rotation_pivot,
        rotation_range=settings.rotation_range,
        sh_pivot=sh_pivot,
        sh_range=settings.sh_range,
        sh_threshold=settings.sh_threshold,
    )
    if settings.sh_threshold > 0.5 and len(splats):
        return replace(steps, sh_values=_centroids(splats, steps))
    return steps


def _centroids(splats: Splats, steps: Steps) -> np.ndarray:
    """What each small magnitude should stand for: the mean of the values that are rounded to it, in steps."""
    quantised, _ = symbols.quantise(splats, steps)
    fineness = symbols.finenesses(quantised.scales, quantised.opacities, steps)
    sizes = np.abs(symbols.sh_in_steps(splats.sh_rest, fineness.sh, steps))
    rounded = np.abs(quantised.sh)
    values = steps.sh_values.copy()
    for magnitude in range(1, symbols.RECONSTRUCTED):
        chosen = sizes[rounded == magnitude]
        if len(chosen):
            values[magnitude] = np.float32(chosen.mean())
    return values


@dataclass(frozen=True)
class GszCodec(Codec):
    """The compact codec.

    Attributes:
        quality: one of :data:`gsz.native.settings.QUALITIES`; for the native grid.
        settings: an explicit native grid, which takes the place of ``quality``.
        grid: ``native``, or ``fast3dgs`` for exactly the values of the ``lzma`` codec in fewer bytes.
        layers: number of layers of falling importance that a file can be cut into, 1 to 16.
    """

    quality: str = DEFAULT_QUALITY
    settings: GridSettings | None = None
    grid: Literal["native", "fast3dgs"] = "native"
    layers: int = 3

    name = "gsz"
    suffix = ".gsz"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(container.MAGIC)

    def __post_init__(self) -> None:
        if self.grid not in GRIDS:
            raise UserError(f"gsz grid {self.grid!r} is unknown; choose one of {', '.join(GRIDS)}")
        if not 1 <= self.layers <= container.MAX_LAYERS:
            raise UserError(f"gsz setting layers={self.layers} is out of range; choose 1 to {container.MAX_LAYERS}")
        self.grid_settings()

    def grid_settings(self) -> GridSettings:
        """The native settings in force. Raises :class:`UserError` where they are unknown or out of range."""
        settings = self.settings or preset(self.quality)
        settings.check()
        return settings

    def fit(self, splats: Splats) -> LayeredGrid:
        if self.grid == "fast3dgs":
            return PublishedGrid(Fast3dgsCodec().fit(splats), self.layers)
        return GszGrid(fit_steps(splats, self.grid_settings()), self.layers)

    def for_size(self, splats: Splats, size: int) -> GszCodec | None:
        """See :class:`gsz.contract.Codec`. The grid ``fast3dgs`` has no steps to choose."""
        if self.grid == "fast3dgs":
            return None

        def bytes_of(settings: GridSettings) -> int:
            return len(replace(self, settings=settings).fit(splats).encode(splats))

        try:
            return replace(self, settings=settings_for_size(size, len(splats), bytes_of))
        except UserError:
            return None

    def decode(
        self, data: bytes, source: str = "<bytes>", level: int | None = None, max_bytes: int | None = None
    ) -> Splats:
        """The model in a file's bytes, or a coarser one.

        A file whose end is missing gives the layers that are whole, with a warning. A file of n bytes holds at most n
        Gaussians, so memory is bounded by about 800 bytes for each byte of the file.

        Args:
            level: use the first ``level`` layers only; more than there are means all.
            max_bytes: use the layers that lie wholly within so many first bytes.

        Raises:
            CodecError: the file is damaged, or not one layer is whole.
            UserError: ``level`` is below 1.
        """
        if level is not None and level < 1:
            raise UserError(f"level {level} is too small; choose 1 or more")
        header, filling, hints = _open(data, source)
        available = len(data) if max_bytes is None else min(max_bytes, len(data))
        wanted = len(header.counts) if level is None else min(level, len(header.counts))
        whole = _whole_layers(header, available)
        if not whole or (wanted > whole and not sum(header.counts[:whole])):
            raise CodecError(
                f"{source}: not even the first of {len(header.counts)} layers lies within {available} bytes; "
                "copy the file again or allow more bytes"
            )
        if whole < wanted:
            if max_bytes is None:
                _log.warning(f"{source}: the file's end is missing; decoded {whole} of {len(header.counts)} layers")
            wanted = whole
        coding = Coding(_LAYOUTS[header.grid], header.coefficients, header.column_sizes, hints)
        arrays = symbols.blank_arrays(sum(header.counts[:wanted]), header.coefficients)
        begin = 0
        for layer in range(wanted):
            views = container.layer_streams(data, header, layer, source)
            end = begin + header.counts[layer]
            try:
                coding.decode_layer(views, arrays["sh_rest"][begin:end], filling.palette, filling.sink(arrays, begin))
            except StreamError as error:
                raise CodecError(f"{source}: layer {layer + 1}: {error}; the file is damaged") from error
            begin = end
        return Splats(**arrays)

    def decode_part(
        self, data: bytes, source: str = "<bytes>", level: int | None = None, max_bytes: int | None = None
    ) -> Splats:
        return self.decode(data, source, level, max_bytes)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        """As the contract says; ``bytes`` by attribute, ``layers`` with count and bytes, and the native ``steps``."""
        header, _, _ = _open(data, source)
        by_attribute = {
            name: sum(sections[index][0] for sections in header.sections)
            for index, name in enumerate((*ATTRIBUTES, "padding"))
        }
        said = {
            "format": self.name,
            "version": container.VERSION,
            "count": sum(header.counts),
            "sh_degree": header.sh_degree,
            "grid": GRIDS[header.grid],
            "bytes": {"header": header.size, **by_attribute},
            "layers": [
                {"count": count, "bytes": header.layer_bytes(layer)} for layer, count in enumerate(header.counts)
            ],
        }
        if header.grid == NATIVE:
            steps, _ = native.unpack_parameters(header.parameters)
            said["steps"] = {
                "mean": steps.radius * 2.0**-steps.mean_bits,
                "log_scale": steps.scale_step,
                "opacity_levels": steps.opacity_levels,
                "rotation": steps.rotation_step,
                "dc": steps.dc_step,
                "sh": steps.sh_step,
            }
        return said


@dataclass(frozen=True)
class _Filling:
    """Makes parameters of columns.

    Attributes:
        fill: puts those of all columns into rows of a model's arrays.
        palette: what harmonics stand for.
    """

    fill: Callable[[dict[str, np.ndarray], Values], None]
    palette: Palette

    def sink(self, arrays: dict[str, np.ndarray], row: int) -> Sink:
        """Fills the rows of a layer that begins at ``row``."""
        return lambda begin, end, values: self.fill(
            {name: array[row + begin : row + end] for name, array in arrays.items()}, values
        )


def _open(data: bytes, source: str) -> tuple[Header, _Filling, Hints]:
    """A file's header, what makes parameters of its columns, and its hints."""
    header = Header.parse(data, source)
    if header.grid >= len(GRIDS) or len(header.column_sizes) != len(_LAYOUTS[header.grid]) + 1:
        raise CodecError(f"{source}: grid {header.grid} is unknown; update gsz")
    try:
        if header.grid == FAST3DGS:
            dc_step, sh_step, wide = fast3dgs.unpack_parameters(header.parameters)
            published = _Filling(
                lambda arrays, values: fast3dgs.fill(arrays, values, dc_step, wide),
                Palette(lambda sh_rest, sh, _: fast3dgs.fill_sh(sh_rest, sh, sh_step), 1),
            )
            return header, published, _no_hints
        steps, top = native.unpack_parameters(header.parameters)
    except ValueError as error:
        raise CodecError(f"{source}: {error}; the file was not written by gsz") from error

    def fill(arrays: dict[str, np.ndarray], values: Values) -> None:
        symbols.dequantise_into(arrays, native.to_symbols(values), values["rotation_fineness"], steps)

    palette = Palette(partial(symbols.dequantise_sh, steps=steps), len(steps.sh_steps))
    return header, _Filling(fill, palette), native.hints(steps, top)


def _whole_layers(header: Header, available: int) -> int:
    """How many layers lie wholly within the first ``available`` bytes."""
    end = header.size
    for layer in range(len(header.counts)):
        end += header.layer_bytes(layer)
        if end > available:
            return layer
    return len(header.counts)
