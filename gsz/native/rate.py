"""An estimate of a file's size that has a gradient, so that fine-tuning can pay for bits.

The coder's own statistics are taken once, from the model as it is: how many bits each symbol of each column costs,
without context, and how many the coder really spent on each attribute. Between two symbols the cost is interpolated,
and each attribute's sum is scaled to what was spent. Positions and rotations are constants: their cost hardly depends
on where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsz.native import price
from gsz.native.container import Header
from gsz.native.device import DeviceSteps, slices
from gsz.native.sh_coding import survey
from gsz.native.snap import in_threads
from gsz.native.steps import Steps
from gsz.native.symbols import quantize
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

    Attributes:
        bits: float32, the tables one after the other.
        begins: ``(C,)`` where in them the table of each column begins.
        lows: ``(C,)`` the symbols of the first entries.
        ends: ``(C,)`` the largest places in the tables, just short of their last entries.
    """

    def __init__(self, columns: Iterable[np.ndarray], device: torch.device):
        lows, tables = zip(*map(symbol_costs, columns), strict=True)
        lengths = torch.tensor([len(table) for table in tables])
        self.bits = torch.from_numpy(np.concatenate(tables)).to(device)
        self.begins = (lengths.cumsum(0) - lengths).to(device)
        self.lows = torch.tensor(lows, dtype=torch.float32).to(device)
        self.ends = (lengths - 1.001).to(device)

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
        self._sh_costs = _sh_costs(quantize(splats, steps).symbols.sh)
        self._sh_costs_there = torch.from_numpy(self._sh_costs).to(device)
        columns = self._columns(splats)
        self._tables = ColumnCosts(columns.round().long().cpu().numpy().T, device)
        estimated = dict.fromkeys(COLUMNS.values(), 0.0)
        for attribute, bits in zip(COLUMNS.values(), self._tables.sums(columns).tolist(), strict=True):
            estimated[attribute] += bits
        scaling = [spent[attribute] / max(estimated[attribute], 1.0) for attribute in COLUMNS.values()]
        self._scaling = torch.tensor(scaling).to(device)
        self._sh_scaling = 1.0
        self._prices = self._tables_of_prices()
        self._sh_scaling = spent["sh"] / max(float(self._priced(splats)[1]), 1.0)
        self._prices = self._tables_of_prices()

    def fits(self, splats: Splats) -> bool:
        """Whether these may be the Gaussians whose statistics were taken: as many, on the same device."""
        return len(splats) == self._count and splats.means.device == self._device

    def bits(self, splats: Splats) -> Tensor:
        """The estimated size of the file in bits, a scalar with gradients to opacity, scales and harmonics."""
        bits, sh_bits, gradients = self._priced(splats.map(Tensor.detach))
        tensors = splats.opacity_logits, splats.log_scales, splats.sh_dc, splats.sh_rest
        return _WithGradient.apply(bits + sh_bits + self._constant, gradients, *tensors)

    def _priced(self, splats: Splats) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Bits of all but the harmonics, and of the harmonics; and the gradients of their sum."""
        steps = self._steps_there
        if isinstance(steps, Steps):
            return self._priced_on_cpu(steps, splats)
        bits, gradients = self._columns_bits(splats)
        sh_bits, gradient = self._sh_bits_on_device(steps, splats)
        return bits, sh_bits, [*gradients, gradient]

    def _tables_of_prices(self) -> price.Tables:
        """The tables as :mod:`gsz.native.price` takes them."""
        begins = self._tables.begins.cpu().numpy()
        bits, scaling = self._tables.bits.cpu().numpy(), self._scaling.cpu().numpy()
        columns = [
            price.with_slopes(costs * factor) for costs, factor in zip(np.split(bits, begins[1:]), scaling, strict=True)
        ]
        return price.Tables(
            np.concatenate(columns),
            begins,
            self._tables.lows.cpu().numpy().astype(np.float64),
            self._tables.ends.cpu().numpy().astype(np.float64),
            price.with_slopes(self._sh_costs * np.float32(self._sh_scaling)),
        )

    def _priced_on_cpu(self, steps: Steps, splats: Splats) -> tuple[Tensor, Tensor, list[Tensor]]:
        model = splats.map(Tensor.contiguous).numpy()
        gradients = [np.empty_like(getattr(model, name)) for name in price.Gradients._fields]

        def of_rows(rows: slice) -> tuple[float, float]:
            into = price.Gradients(*(gradient[rows] for gradient in gradients))
            return price.price(model.map(lambda array: array[rows]), steps, self._prices, into)

        sums = np.array(in_threads(of_rows, len(splats))).sum(0)
        bits, sh_bits = torch.tensor(sums, dtype=torch.float32)
        return bits, sh_bits, list(map(torch.from_numpy, gradients))

    def _columns_bits(self, splats: Splats) -> tuple[Tensor, list[Tensor]]:
        """What opacities, scales and ``sh_dc`` cost, and the gradients by these three."""
        tensors = splats.opacity_logits, splats.log_scales, splats.sh_dc
        bits, gradients = torch.zeros((), device=self._device), [torch.empty_like(tensor) for tensor in tensors]
        for rows in slices(len(splats)):
            part = splats.map(lambda tensor, rows=rows: tensor[rows].detach().requires_grad_())
            with torch.enable_grad():
                cost = (self._tables.sums(self._columns(part)) * self._scaling).sum()
                slopes = torch.autograd.grad(cost, (part.opacity_logits, part.log_scales, part.sh_dc))
            for gradient, slope in zip(gradients, slopes, strict=True):
                gradient[rows] = slope
            bits += cost.detach()
        return bits, gradients

    def _columns(self, splats: Splats) -> Tensor:
        """``(N, C)`` real numbers that are rounded to the symbols of each of :data:`COLUMNS`."""
        steps = self._steps
        scales = splats.log_scales.sort(dim=1, descending=True).values / steps.scale_step
        red, green, blue = (splats.sh_dc[:, 0] / steps.dc_step).unbind(1)
        columns = [
            torch.sigmoid(splats.opacity_logits[:, 0]) * steps.opacity_levels - 0.5,
            scales[:, 0],
            (scales[:, 0] - scales[:, 1]) / 2,
            (scales[:, 1] - scales[:, 2]) / 4,
            (red + 2 * green + blue) / 4,
            green - (red + blue) / 2,
            red - blue,
        ]
        return torch.stack(columns, 1)

    def _sh_bits_on_device(self, steps: DeviceSteps, splats: Splats) -> tuple[Tensor, Tensor]:
        bits, gradient = torch.zeros((), device=self._device), torch.empty_like(splats.sh_rest)
        for rows in slices(len(splats) if gradient.numel() else 0):
            part = splats.map(lambda tensor, rows=rows: tensor[rows])
            cost, slope = _sh_bits_on_device(steps, part, self._sh_costs_there)
            gradient[rows] = slope * self._sh_scaling
            bits += cost * self._sh_scaling
        return bits, gradient


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
    def forward(ctx: Any, scalar: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return scalar.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # In place, which PyTorch notices should the way back be gone twice.
        return None, None, *(gradient.mul_(gradients[0]) for gradient in ctx.saved_tensors)


def _sh_bits_on_device(steps: DeviceSteps, splats: Splats, costs: Tensor) -> tuple[Tensor, Tensor]:
    """What harmonics cost, interpolated, and the ``(N, K, 3)`` gradient."""
    harmonics = steps.harmonics(splats)
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
