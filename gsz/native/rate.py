"""An estimate of a file's size that has a gradient, so that fine-tuning can pay for bits.

The coder's own statistics are taken once, from the model as it is: how many bits each symbol of each column costs,
without context, and how many the coder really spent on each attribute. Between two symbols the cost is interpolated,
and each attribute's sum is scaled to what was spent. Positions and rotations are constants: their cost hardly depends
on where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gsz.native.container import Header
from gsz.native.price import Lines, Priced, Prices
from gsz.native.sh_coding import survey
from gsz.native.snap import in_threads, rows_of
from gsz.native.steps import POWER_OCTAVES, Steps
from gsz.native.symbols import Finenesses, quantize
from gsz.splats import Splats

if TYPE_CHECKING:
    from gsz.native.gpu import GpuPrices, GpuSteps

MOST_CLASSES = 8
"""Higher classes of harmonics share a table with this one."""
_REACH = 4
"""A table extends so many symbols beyond those that occur; further out the cost stays level."""

_MOST_SYMBOLS = 1 << 16
"""A table has no more symbols than these about the median, whatever a single value is."""


def symbol_costs(occurring: np.ndarray) -> tuple[int, np.ndarray]:
    """The first symbol of a table, and the float32 bits that it and those after it cost; further out cost is level."""
    middle = int(np.median(occurring)) if occurring.size else 0
    least, most = middle - _MOST_SYMBOLS // 2, middle + _MOST_SYMBOLS // 2
    # One symbol far out, of a value that has diverged, counts as if it were at the end of the table.
    occurring = np.clip(occurring, least, most)
    low, high = max(least, int(occurring.min(initial=0))) - _REACH, min(most, int(occurring.max(initial=0))) + _REACH
    counts = np.bincount((occurring - low).astype(np.int64).reshape(-1), minlength=high - low + 1) + 0.25
    return low, -np.log2(counts / counts.sum()).astype(np.float32)


def line_sums(lines: Lines, values: Tensor) -> list[float]:
    """The bits that real ``(N, C)`` values cost, in symbols of ``C`` columns, interpolated between those."""
    lows, ends = (torch.from_numpy(array).float() for array in (lines.lows, lines.ends))
    place = (values - lows).clamp(torch.zeros_like(ends), ends)
    below = place.floor()
    index = below.long() + torch.from_numpy(lines.begins)
    bits = torch.from_numpy(lines.bits)
    return torch.lerp(bits[index], bits[index + 1], place - below).sum(0).tolist()


COLUMNS = {
    "opacity": "opacities",
    "scale": "scales",
    "gap": "scales",
    "thin": "scales",
    "y": "dc",
    "cg": "dc",
    "co": "dc",
}
"""The columns whose symbols are priced, and the attribute that each belongs to."""


class RateModel:
    """The costs of a model on a grid, as they were when this was made.

    Args:
        steps: the grid.
        steps_there: the same on the device of ``splats``, or ``steps`` for what is priced on the CPU.
        splats: at least one Gaussian.
        encoded: their file.
    """

    def __init__(self, steps: Steps, steps_there: Steps | GpuSteps, splats: Splats, encoded: bytes):
        self._count, self._device = len(splats), splats.means.device
        header = Header.parse(encoded, "model")
        spent = {name: 8 * size for name, size in header.bytes_by_attribute().items()}
        self._constant = float(8 * header.size + spent["means"] + spent["rotations"])
        here = splats.numpy()
        quantized = quantize(here, steps)
        fineness = quantized.finenesses.dc
        parts = in_threads(lambda rows: _columns(steps, rows_of(here, rows), fineness[rows]), len(here))
        columns = torch.cat(parts)
        lows, tables = zip(*map(symbol_costs, columns.round().long().numpy().T), strict=True)
        estimated = dict.fromkeys(COLUMNS.values(), 0.0)
        sums = line_sums(Lines.of(tables, lows), columns)
        for attribute, bits in zip(COLUMNS.values(), sums, strict=True):
            estimated[attribute] += bits
        scaling = [np.float32(spent[attribute] / max(estimated[attribute], 1.0)) for attribute in COLUMNS.values()]
        lines = Lines.of([factor * table for factor, table in zip(scaling, tables, strict=True)], lows)
        sh_costs = _sh_costs(quantized.symbols.sh)
        of_here = Priced(here.opacity_logits, here.log_scales, here.sh_dc, here.sh_rest)
        blank = Priced(*map(np.zeros_like, of_here))
        sh_bits, _ = Prices(steps, lines, sh_costs).pay(of_here, 0.0, blank)
        sh_costs *= np.float32(spent["sh"] / max(sh_bits, 1.0))
        self._prices = Prices(steps, lines, sh_costs)
        self._prices_there: GpuPrices | None = None
        if not isinstance(steps_there, Steps):
            from gsz.native.gpu import GpuPrices

            self._prices_there = GpuPrices(steps_there, self._prices)

    def fits(self, splats: Splats) -> bool:
        """Whether these may be the Gaussians whose statistics were taken: as many, on the same device."""
        return len(splats) == self._count and splats.means.device == self._device

    def bits(self, splats: Splats) -> Tensor:
        """The estimated size of the file in bits, a scalar with gradients to opacity, scales, colors and harmonics."""
        gradients = Priced(*map(torch.zeros_like, _priced(splats)))
        bits = self._pay(_priced(splats.map(Tensor.detach)), 1.0, gradients)
        return _WithGradient.apply(bits + self._constant, gradients, *_priced(splats))

    def pay(
        self, splats: Splats, weight: float, count: int, finenesses: Finenesses | None = None, counted: bool = True
    ) -> Tensor:
        """See :meth:`gsz.contract.Grid.pay`.

        Args:
            finenesses: of the Gaussians, where they are known already.
        """
        leaves = _priced(splats)
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.contiguous()
        gradients = Priced(*(leaf.grad for leaf in leaves))
        values = Priced(*(leaf.detach() for leaf in leaves))
        first, others = slice(0, count), slice(count, len(splats))
        bits = self._pay(values.rows(first), weight, gradients.rows(first), _rows(finenesses, first), counted)
        if counted and count < len(splats):
            bits += self._pay(values.rows(others), 0.0, gradients.rows(others), _rows(finenesses, others))
        return bits + self._constant

    def _pay(
        self,
        values: Priced,
        weight: float,
        gradients: Priced,
        finenesses: Finenesses | None = None,
        counted: bool = True,
    ) -> Tensor:
        """What a model of tensors costs, if that is ``counted``; ``weight`` times the gradient is added to others."""
        count = len(values.log_scales)
        if self._prices_there is not None:
            return self._prices_there.pay(values, weight, gradients).sum(dtype=torch.float64).float()
        here, sums = (Priced(*(tensor.cpu().contiguous() for tensor in each)) for each in (values, gradients))
        arrays, into = (Priced(*(tensor.numpy() for tensor in each)) for each in (here, sums))

        def of_rows(rows: slice) -> float:
            known = _rows(finenesses, rows)
            return sum(self._prices.pay(arrays.rows(rows), weight, into.rows(rows), known, counted))

        bits = sum(in_threads(of_rows, count))
        for gradient, tensor in zip(gradients, sums, strict=True):
            gradient.copy_(tensor)  # Which does nothing on the CPU, where both are the same memory.
        return torch.tensor(bits, device=self._device)


def _columns(steps: Steps, model: Splats, dc_fineness: np.ndarray) -> Tensor:
    """``(N, C)`` real numbers that are rounded to the symbols of each of :data:`COLUMNS`.

    Args:
        model: of NumPy arrays.
    """
    splats = model.map(torch.from_numpy)
    logs = splats.log_scales.sort(dim=1, descending=True).values
    octaves = ((logs - steps.scale_pivot) * POWER_OCTAVES).clamp(-60.0, 60.0)
    whole = octaves.floor()
    # Not a power function, but what the grid has in its place: see :func:`gsz.native.symbols._power`.
    powers = (3.0 - torch.sqrt(4.0 - 3.0 * (octaves - whole))) * torch.exp2(whole)
    first, second, third = (powers / torch.from_numpy(steps.scale_steps).float()).unbind(1)
    dc_per_unit = torch.from_numpy(1 / steps.dc_steps).float()[torch.from_numpy(dc_fineness).long()]
    red, green, blue = (splats.sh_dc[:, 0] * dc_per_unit[:, None]).unbind(1)
    columns = [
        torch.sigmoid(splats.opacity_logits[:, 0]).clamp(min=1e-12).sqrt() * steps.opacity_levels - 0.5,
        first,
        first - second,
        (second + 0.5) / 2 - third,
        (red + 2 * green + blue) / 4,
        green - (red + blue) / 2,
        red - blue,
    ]
    return torch.stack(columns, 1)


def _rows(finenesses: Finenesses | None, rows: slice) -> Finenesses | None:
    return None if finenesses is None else finenesses.rows(rows)


def _priced(splats: Splats) -> Priced:
    """Those that the estimate has gradients by."""
    return Priced(splats.opacity_logits, splats.log_scales, splats.sh_dc, splats.sh_rest)


def _sh_costs(sh: np.ndarray) -> np.ndarray:
    """``(MOST_CLASSES + 1, 3, M)`` float32: what each magnitude of Y, Co and Cg costs in Gaussians of each class."""
    classes = np.minimum(survey(sh)[0], MOST_CLASSES)
    magnitudes = np.abs(sh.astype(np.int64)).reshape(len(sh), -1, 3)
    width = int(magnitudes.max(initial=0)) + 2
    tables = np.zeros((MOST_CLASSES + 1, 3, width), np.float32)
    for kind in np.unique(classes[classes > 0]).tolist():
        for color in range(3):
            low, bits = symbol_costs(magnitudes[classes == kind][..., color])
            tables[kind, color] = bits[np.clip(np.arange(width) - low, 0, len(bits) - 1)]
    return tables


class _WithGradient(torch.autograd.Function):
    """A scalar that was computed together with its gradients by some tensors."""

    @staticmethod
    def forward(ctx: Any, scalar: Tensor, gradients: Priced, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return scalar.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # In place, which PyTorch notices should the way back be gone twice.
        return None, None, *(gradient.mul_(gradients[0]) for gradient in ctx.saved_tensors)
