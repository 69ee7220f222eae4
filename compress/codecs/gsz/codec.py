"""``fit``, ``snap``, ``encode`` and ``decode`` of the compact codec."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.codecs.contract import Codec, CodecError, Grid
from compress.codecs.gsz import container, streams, symbols
from compress.codecs.gsz.container import Header
from compress.codecs.gsz.settings import DEFAULT_QUALITY, GridSettings, preset
from compress.codecs.gsz.streams import ATTRIBUTES, Model
from compress.codecs.gsz.symbols import Frames, Steps, Symbols
from compress.codecs.rans import LANES, StreamError
from scene.gaussian_model import GaussianModel
from utils.cli import warn
from utils.errors import UserError

SMALL_LAYER = 256
"""A model is cut into layers only where each of them has about so many Gaussians or more."""


class GszGrid(Grid):
    """The values one ``.gsz`` file can hold. Fixed when it is made: :meth:`observe` does nothing.

    Attributes:
        steps: the grid.
        layers: how many layers :meth:`encode` writes.
        importance: ``(N,)`` tensor or None. Gaussians of high importance come in the first layers. None: opacity
            times the area of the two largest axes. It may be set at any time and matters to :meth:`encode` only.
    """

    def __init__(self, steps: Steps, layers: int = 1):
        self.steps = steps
        self.layers = layers
        self.importance: Tensor | None = None

    def snap(self, splats: GaussianModel) -> GaussianModel:
        """See :class:`compress.codecs.contract.Grid`.

        The axes of a snapped Gaussian are sorted by scale, largest first, and its quaternion is turned to match:
        the same Gaussian in other words. Gradients are turned back. On a CUDA device the values go through the CPU,
        where a decoder computes them too; that is what makes the law hold bit for bit.
        """
        tensors = [tensor for _, tensor in splats.named_parameters()]
        return GaussianModel(*_Snap.apply(self.steps, *tensors))

    def encode(self, splats: GaussianModel) -> bytes:
        """The file. Gaussians are reordered by layer and position."""
        if len(splats) >= 1 << 32:
            raise UserError(f"a .gsz file holds fewer than 2**32 Gaussians, not {len(splats)}; prune the model")
        quantised, _ = symbols.quantise(splats, self.steps)
        sizes = streams.column_sizes(quantised, Model(splats.sh_rest.shape[1]))
        model = Model(splats.sh_rest.shape[1], sizes)
        counts, coded = [], []
        for rows in self._layers(splats):
            rows = rows[interleaved(np.argsort(streams.morton(quantised.means[rows]), kind="stable"))]
            counts.append(len(rows))
            fineness = symbols.finenesses(layer := quantised.take(rows), self.steps)
            coded.append([stream for stream, _ in streams.encode_layer(layer, fineness, model)])
        header = Header(container.NATIVE, splats.sh_degree, self.steps, sizes, counts, [])
        return container.assemble(header, coded)

    def _layers(self, splats: GaussianModel) -> list[np.ndarray]:
        """Indices of the Gaussians of each layer; each but the first two is twice as large as the one before."""
        count = len(splats)
        layers = max(1, min(self.layers, int(np.log2(max(1, count / SMALL_LAYER))) + 1))
        if layers == 1:
            return [np.arange(count)]
        if self.importance is not None and len(self.importance) != count:
            raise UserError(f"importance of {len(self.importance)} Gaussians given for {count}; fit the grid again")
        importance = default_importance(splats) if self.importance is None else self.importance
        falling = np.argsort(-importance.detach().cpu().double().numpy().reshape(-1), kind="stable")
        bounds = [0] + [count >> (layers - 1 - layer) for layer in range(layers)]
        return [np.sort(falling[begin:end]) for begin, end in itertools.pairwise(bounds)]


def default_importance(splats: GaussianModel) -> Tensor:
    """``(N,)`` opacity times the product of the two largest scales: about what a Gaussian covers, in world units."""
    largest = splats.log_scales.detach().double().topk(2, dim=1).values.sum(1)
    return torch.exp(largest.clamp(max=80)) * torch.sigmoid(splats.opacity_logits.detach().double()[:, 0])


def interleaved(order: np.ndarray) -> np.ndarray:
    """Cut ``order`` into eight runs and take one of each in turn; the first runs are longer by one where need be."""
    count = len(order)
    begins = np.concatenate([[0], np.cumsum([(count - lane + LANES - 1) // LANES for lane in range(LANES)])[:-1]])
    item = np.arange(count)
    return order[begins[item % LANES] + item // LANES]


class _Snap(torch.autograd.Function):
    """Round to the grid; in the backward pass, straight through the rounding."""

    @staticmethod
    def forward(ctx: Any, steps: Steps, *tensors: Tensor) -> tuple[Tensor, ...]:
        model = GaussianModel(*tensors)
        quantised, frames = symbols.quantise(model, steps)
        ctx.frames = frames
        ctx.save_for_backward(tensors[2])
        snapped = symbols.dequantise(quantised, steps)
        return tuple(tensor.to(model.device) for _, tensor in snapped.named_parameters())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, log_scales, quaternions, *others = gradients
        frames: Frames = ctx.frames
        (original,) = ctx.saved_tensors
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in (original, quaternions, log_scales)]
        back = symbols.shape_gradients(frames, *arrays)
        quaternions, log_scales = (torch.from_numpy(array).to(means.device) for array in back)
        return (None, means, log_scales, quaternions, *others)


def fit_steps(splats: GaussianModel, settings: GridSettings) -> Steps:
    """The steps of ``settings``, about the robust centre and radius of a model's positions."""
    means = splats.means.detach().cpu().double().numpy()
    centre, radius = np.zeros(3), 1.0
    if len(means):
        centre = np.median(means, axis=0)
        radius = float(np.percentile(np.abs(means - centre), 90))
    # Twelve bits of mantissa do, and make the same numbers from nearly the same model.
    radius = float(np.float32(min(max(radius, 1e-20), 1e30)))
    rotation_pivot = sh_pivot = 0
    if len(splats):
        rotation_pivot, sh_pivot = symbols.pivots(
            splats.log_scales.detach().cpu().numpy(), splats.opacity_logits.detach().cpu().numpy()
        )
    steps = Steps(
        centre=centre.astype(np.float32).astype(np.float64),
        radius=radius,
        mean_bits=settings.mean_bits,
        scale_step=settings.scale_step,
        opacity_levels=settings.opacity_levels,
        rotation_step=settings.rotation_step,
        dc_step=settings.dc_step,
        sh_step=settings.sh_step,
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


def _centroids(splats: GaussianModel, steps: Steps) -> np.ndarray:
    """What each small magnitude should stand for: the mean of the values that are rounded to it, in steps."""
    quantised, _ = symbols.quantise(splats, steps)
    row_steps = steps.sh_steps[symbols.finenesses(quantised, steps).sh]
    sizes = np.abs(splats.sh_rest.detach().cpu().numpy().reshape(len(splats), -1)) / row_steps[:, None]
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
        quality: one of :data:`compress.codecs.gsz.settings.QUALITIES`.
        settings: an explicit grid, which takes the place of ``quality``.
    """

    quality: str = DEFAULT_QUALITY
    settings: GridSettings | None = None

    name = "gsz"
    suffix = ".gsz"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(container.MAGIC)

    def grid_settings(self) -> GridSettings:
        """The settings in force. Raises :class:`UserError` where they are unknown or out of range."""
        settings = self.settings or preset(self.quality)
        settings.check()
        return settings

    def fit(self, splats: GaussianModel) -> GszGrid:
        settings = self.grid_settings()
        return GszGrid(fit_steps(splats, settings), settings.layers)

    def decode(
        self, data: bytes, source: str = "<bytes>", level: int | None = None, max_bytes: int | None = None
    ) -> GaussianModel:
        """The model in a file's bytes, or a coarser one.

        A file whose end is missing gives the layers that are whole, with a warning. Memory is bounded by about 500
        bytes for each byte of the file.

        Args:
            level: use the first ``level`` layers only; more than there are means all.
            max_bytes: use the layers that lie wholly within so many first bytes.

        Raises:
            CodecError: the file is damaged, or not one layer is whole.
            UserError: ``level`` is below 1.
        """
        if level is not None and level < 1:
            raise UserError(f"level {level} is too small; choose 1 or more")
        header = Header.parse(data, source)
        available = len(data) if max_bytes is None else min(max_bytes, len(data))
        wanted = len(header.counts) if level is None else min(level, len(header.counts))
        whole = _whole_layers(header, available)
        if not whole:
            raise CodecError(f"{source}: not even the first of {len(header.counts)} layers is within {available} bytes")
        if whole < wanted:
            if max_bytes is None:
                warn(f"{source}: the file's end is missing; decoded {whole} of {len(header.counts)} layers")
            wanted = whole
        model = Model(header.coefficients, header.column_sizes)
        decoded = [_decode_layer(data, header, model, layer, source) for layer in range(wanted)]
        if len(decoded) == 1:
            return symbols.dequantise(decoded[0], header.steps)
        return GaussianModel.concatenate([symbols.dequantise(layer, header.steps) for layer in decoded])

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        """As the contract says; ``bytes`` by attribute, ``layers`` with count and bytes, and the grid's ``steps``."""
        header = Header.parse(data, source)
        by_attribute = {
            name: sum(sections[index][0] for sections in header.sections)
            for index, name in enumerate((*ATTRIBUTES, "padding"))
        }
        steps = header.steps
        return {
            "format": self.name,
            "version": container.VERSION,
            "count": sum(header.counts),
            "sh_degree": header.sh_degree,
            "grid": "fast3dgs" if header.grid == container.FAST3DGS else "native",
            "bytes": {"header": header.size, **by_attribute},
            "layers": [
                {"count": count, "bytes": header.layer_bytes(layer)} for layer, count in enumerate(header.counts)
            ],
            "steps": {
                "mean": steps.radius * 2.0**-steps.mean_bits,
                "log_scale": steps.scale_step,
                "opacity_levels": steps.opacity_levels,
                "rotation": steps.rotation_step,
                "dc": steps.dc_step,
                "sh": steps.sh_step,
            },
        }


def _whole_layers(header: Header, available: int) -> int:
    """How many layers lie wholly within the first ``available`` bytes."""
    end = header.size
    for layer in range(len(header.counts)):
        end += header.layer_bytes(layer)
        if end > available:
            return layer
    return len(header.counts)


def _decode_layer(data: bytes, header: Header, model: Model, layer: int, source: str) -> Symbols:
    views = container.layer_streams(data, header, layer, source)
    try:
        return streams.decode_layer(views, header.counts[layer], model, header.steps)
    except StreamError as error:
        raise CodecError(f"{source}: layer {layer + 1}: {error}; the file is damaged") from error
