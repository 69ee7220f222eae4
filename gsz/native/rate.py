"""An estimate of a file's size that has a gradient, so that fine-tuning can pay for bits.

The coder's own statistics are taken once, from the model as it is: how many bits each symbol of each column costs,
without context, and how many the coder really spent on each attribute. Between two symbols the cost is interpolated,
and each attribute's sum is scaled to what was spent. Positions and rotations are constants: their cost hardly depends
on where they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsz.native.container import Header
from gsz.native.device import DeviceSteps, ShOnGrid, rows_of, slices
from gsz.native.price import Lines, Priced, Prices
from gsz.native.sh_coding import survey
from gsz.native.snap import in_threads
from gsz.native.steps import POWER_OCTAVES, Steps
from gsz.native.symbols import Finenesses, quantize
from gsz.splats import Splats

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


class ColumnCosts:
    """What the symbols of ``C`` columns cost, in tables on one device.

    Args:
        lines: the tables.

    Attributes:
        bits: float32, the tables one after the other.
        begins: ``(C,)`` where in them the table of each column begins.
        lows: ``(C,)`` the symbols of the first entries.
        ends: ``(C,)`` the largest places in the tables, just short of their last entries.
    """

    def __init__(self, lines: Lines, device: torch.device):
        self.bits, self.begins = (torch.from_numpy(array).to(device) for array in (lines.bits, lines.begins))
        self.lows, self.ends = (torch.from_numpy(array).float().to(device) for array in (lines.lows, lines.ends))

    def sums(self, values: Tensor) -> Tensor:
        """``(C,)`` bits that real ``(N, C)`` values cost, in symbols, interpolated between those."""
        place = (values - self.lows).clamp(torch.zeros_like(self.ends), self.ends)
        below = place.detach().floor()
        index = below.long() + self.begins
        return torch.lerp(self.bits[index], self.bits[index + 1], place - below).sum(0)


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
        steps_there: the same for models on the device of ``splats``: ``steps`` for the CPU, tensors for any other.
        splats: at least one Gaussian.
        encoded: their file.
    """

    def __init__(self, steps: Steps, steps_there: Steps | DeviceSteps, splats: Splats, encoded: bytes):
        splats = splats.map(Tensor.detach)
        device = splats.means.device
        self._steps, self._steps_there = steps, steps_there
        self._count, self._device = len(splats), device
        header = Header.parse(encoded, "model")
        spent = {name: 8 * size for name, size in header.bytes_by_attribute().items()}
        self._constant = float(8 * header.size + spent["means"] + spent["rotations"])
        self._dc_per_unit = torch.from_numpy(1 / steps.dc_steps).float().to(device)
        self._scale_steps = torch.from_numpy(steps.scale_steps).float().to(device)
        here = splats.numpy()
        quantized = quantize(here, steps)
        dc_fineness = torch.from_numpy(quantized.finenesses.dc).long().to(device)
        parts = [self._columns(rows_of(splats, rows), dc_fineness[rows]) for rows in slices(len(splats))]
        columns = torch.cat(parts)
        lows, tables = zip(*map(symbol_costs, columns.round().long().cpu().numpy().T), strict=True)
        estimated = dict.fromkeys(COLUMNS.values(), 0.0)
        sums = ColumnCosts(Lines.of(tables, lows), device).sums(columns).tolist()
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
        self._tables = ColumnCosts(lines, device)
        self._sh_costs_there = torch.from_numpy(sh_costs).to(device)

    def fits(self, splats: Splats) -> bool:
        """Whether these may be the Gaussians whose statistics were taken: as many, on the same device."""
        return len(splats) == self._count and splats.means.device == self._device

    def bits(self, splats: Splats) -> Tensor:
        """The estimated size of the file in bits, a scalar with gradients to opacity, scales, colors and harmonics."""
        gradients = Priced(*map(torch.zeros_like, _priced(splats)))
        bits = self._pay(_priced(splats.map(Tensor.detach)), 1.0, gradients)
        return _WithGradient.apply(bits + self._constant, gradients, *_priced(splats))

    def pay(self, splats: Splats, weight: float, count: int, finenesses: Finenesses | None = None) -> Tensor:
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
        bits = self._pay(values.rows(first), weight, gradients.rows(first), _rows(finenesses, first))
        others_bits = self._pay(values.rows(others), 0.0, gradients.rows(others), _rows(finenesses, others))
        return bits + others_bits + self._constant

    def _pay(self, values: Priced, weight: float, gradients: Priced, finenesses: Finenesses | None = None) -> Tensor:
        """What a model of tensors costs; ``weight`` times the gradient is added to others."""
        count = len(values.log_scales)
        if isinstance(self._steps_there, Steps):
            here, into = (Priced(*(tensor.contiguous().numpy() for tensor in each)) for each in (values, gradients))

            def of_rows(rows: slice) -> float:
                return sum(self._prices.pay(here.rows(rows), weight, into.rows(rows), _rows(finenesses, rows)))

            return torch.tensor(sum(in_threads(of_rows, count)))
        bits = torch.zeros((), device=self._device)
        # What is computed on the way takes several times a model.
        for rows in slices(count):
            cost, slopes = self._priced_in_tensors(values.rows(rows), self._steps_there)
            bits += cost
            for gradient, slope in zip(gradients.rows(rows), slopes, strict=True):
                gradient.add_(slope, alpha=weight)
        return bits

    def _priced_in_tensors(self, values: Priced, steps: DeviceSteps) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Bits and their gradients: the law that :class:`gsz.native.price.Prices` computes in kernels."""
        harmonics = steps.harmonics(values)
        leaves = Priced(*(tensor.detach().requires_grad_() for tensor in values))
        with torch.enable_grad():
            cost = self._tables.sums(self._columns(leaves, harmonics.dc_fineness)).sum()
            slopes = torch.autograd.grad(cost, leaves[:3])
        sh_cost, sh_slopes = _sh_bits_on_device(steps, harmonics, self._sh_costs_there)
        return cost.detach() + sh_cost, (*slopes, sh_slopes)

    def _columns(self, splats: Splats | Priced, dc_fineness: Tensor) -> Tensor:
        """``(N, C)`` real numbers that are rounded to the symbols of each of :data:`COLUMNS`."""
        steps = self._steps
        logs = splats.log_scales.sort(dim=1, descending=True).values
        octaves = ((logs - steps.scale_pivot) * POWER_OCTAVES).clamp(-60.0, 60.0)
        whole = octaves.detach().floor()
        # Not a power function, but what the grid has in its place: see :func:`gsz.native.symbols._power`.
        powers = (3.0 - torch.sqrt(4.0 - 3.0 * (octaves - whole))) * torch.exp2(whole)
        first, second, third = (powers / self._scale_steps).unbind(1)
        red, green, blue = (splats.sh_dc[:, 0] * self._dc_per_unit[dc_fineness][:, None]).unbind(1)
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
    return None if finenesses is None else Finenesses(*(array[rows] for array in finenesses))


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


def _sh_bits_on_device(steps: DeviceSteps, harmonics: ShOnGrid, costs: Tensor) -> tuple[Tensor, Tensor]:
    """What harmonics cost, interpolated, and the ``(N, K, 3)`` gradient."""
    if harmonics.symbols.shape[1] == 0:
        return harmonics.symbols.sum(), harmonics.symbols
    # The exponent of a whole number is its bit length.
    _, kinds = torch.frexp(harmonics.symbols.abs().amax((1, 2)))
    table = kinds.clamp(max=MOST_CLASSES)[:, None, None] * 3 + torch.arange(3, device=steps.device)
    width = costs.shape[2]
    size = harmonics.in_steps.abs().clamp(max=width - 1)
    # At the end of a table the cost is that of its last entry, and level.
    below = size.floor().clamp(max=width - 2)
    place = table * width + below.long()
    costs = costs.reshape(-1)
    slope = costs[place + 1] - costs[place]
    bits = (costs[place] + slope * (size - below)).sum(dtype=torch.float64).float()
    slope = slope.masked_fill(size >= width - 1, 0.0) * harmonics.in_steps.sign()
    y, co, cg = (slope * steps.sh_per_unit[harmonics.fineness][:, None]).unbind(2)
    even = y + cg
    return bits, torch.stack([even + co, y - 2.0 * cg, even - co], 2)
