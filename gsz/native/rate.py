"""An estimate of a file's size that has a gradient, so that fine-tuning can pay for bits.

The coder's own statistics are taken once, from the model as it is: how many bits each symbol of each column costs,
without context, and how many the coder really spent on each attribute. Between two symbols the cost is interpolated,
and each attribute's sum is scaled to what was spent. Positions and rotations are constants: their cost hardly depends
on where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsz.kernels import inline, kernel
from gsz.native.container import Header
from gsz.native.device import DeviceSteps, ShOnGrid, rows_of, slices
from gsz.native.sh_coding import survey
from gsz.native.snap import in_threads
from gsz.native.steps import POWER_OCTAVES, Steps
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


class _OnGrid(NamedTuple):
    """What rounding a model tells about its rate.

    Attributes:
        dc_fineness: ``(N,)`` int64.
        sh_bits: scalar, what harmonics cost, before scaling.
        sh_gradient: ``(N, K, 3)``, of these bits.
    """

    dc_fineness: Tensor
    sh_bits: Tensor
    sh_gradient: Tensor


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
        self._sh_costs = _sh_costs(quantize(splats, steps).symbols.sh)
        self._sh_costs_there = torch.from_numpy(self._sh_costs).to(device)
        parts = [rows_of(splats, rows) for rows in slices(len(splats))]
        on_grid = [self._on_grid(part) for part in parts]
        columns = torch.cat([self._columns(part, each.dc_fineness) for part, each in zip(parts, on_grid, strict=True)])
        self._tables = ColumnCosts(columns.round().long().cpu().numpy().T, device)
        estimated = dict.fromkeys(COLUMNS.values(), 0.0)
        for attribute, bits in zip(COLUMNS.values(), self._tables.sums(columns).tolist(), strict=True):
            estimated[attribute] += bits
        scaling = [spent[attribute] / max(estimated[attribute], 1.0) for attribute in COLUMNS.values()]
        self._scaling = torch.tensor(scaling).to(device)
        self._sh_scaling = spent["sh"] / max(sum(float(each.sh_bits) for each in on_grid), 1.0)

    def fits(self, splats: Splats) -> bool:
        """Whether these may be the Gaussians whose statistics were taken: as many, on the same device."""
        return len(splats) == self._count and splats.means.device == self._device

    def bits(self, splats: Splats) -> Tensor:
        """The estimated size of the file in bits, a scalar with gradients to opacity, scales, colors and harmonics."""
        bits, gradients = self._priced(splats.map(Tensor.detach))
        return _WithGradient.apply(bits + self._constant, gradients, *_priced_tensors(splats))

    def _priced(self, splats: Splats) -> tuple[Tensor, list[Tensor]]:
        """Bits and their gradients. What is computed on the way takes several times a model: so it goes by rows."""
        bits, gradients = torch.zeros((), device=self._device), list(map(torch.empty_like, _priced_tensors(splats)))
        for rows in slices(len(splats)):
            cost, slopes = self._priced_at_once(rows_of(splats, rows))
            bits += cost
            for gradient, slope in zip(gradients, slopes, strict=True):
                gradient[rows] = slope
        return bits, gradients

    def _priced_at_once(self, splats: Splats) -> tuple[Tensor, tuple[Tensor, ...]]:
        on_grid = self._on_grid(splats)
        leaves = splats.map(lambda tensor: tensor.detach().requires_grad_())
        with torch.enable_grad():
            cost = (self._tables.sums(self._columns(leaves, on_grid.dc_fineness)) * self._scaling).sum()
            slopes = torch.autograd.grad(cost, _priced_tensors(leaves)[:3])
        return cost.detach() + on_grid.sh_bits * self._sh_scaling, (*slopes, on_grid.sh_gradient * self._sh_scaling)

    def _columns(self, splats: Splats, dc_fineness: Tensor) -> Tensor:
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

    def _on_grid(self, splats: Splats) -> _OnGrid:
        """What harmonics cost, class by class: Gaussians of class 0 have none to pay for and feel no pull."""
        splats = splats.map(Tensor.detach)
        if isinstance(self._steps_there, Steps):
            return self._on_grid_on_cpu(splats)
        harmonics = self._steps_there.harmonics(splats)
        bits, gradient = _sh_bits_on_device(self._steps_there, harmonics, self._sh_costs_there)
        return _OnGrid(harmonics.dc_fineness, bits, gradient)

    def _on_grid_on_cpu(self, splats: Splats) -> _OnGrid:
        values = splats.sh_rest.contiguous()
        gradient, dc_fineness = torch.zeros_like(values), torch.empty(len(splats), dtype=torch.long)
        flat = len(splats), 3 * values.shape[1]

        def of_rows(rows: slice) -> float:
            quantized = quantize(rows_of(splats, rows), self._steps)
            dc_fineness[rows] = torch.from_numpy(quantized.finenesses.dc)
            return _sh_bits_and_gradient(
                values.numpy().reshape(flat)[rows],
                quantized.finenesses.sh,
                self._steps.sh_per_unit,
                np.minimum(survey(quantized.symbols.sh)[0], MOST_CLASSES),
                self._sh_costs,
                gradient.numpy().reshape(flat)[rows],
            )

        bits = sum(in_threads(of_rows, len(splats)))
        return _OnGrid(dc_fineness, torch.tensor(bits, dtype=torch.float32), gradient)


def _priced_tensors(splats: Splats) -> tuple[Tensor, ...]:
    """Those that the estimate has gradients by."""
    return splats.opacity_logits, splats.log_scales, splats.sh_dc, splats.sh_rest


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


@kernel
def _sh_bits_and_gradient(values, fineness, per_unit, classes, costs, gradient):
    bits = 0.0
    last = costs.shape[2] - 1
    for i in range(values.shape[0]):
        if classes[i] == 0:
            continue
        per_y, per_co, per_cg = per_unit[fineness[i], 0], per_unit[fineness[i], 1], per_unit[fineness[i], 2]
        of_class = costs[classes[i]]
        for j in range(0, values.shape[1], 3):
            red, green, blue = values[i, j], values[i, j + 1], values[i, j + 2]
            y, y_slope = _interpolated(of_class[0], last, (red + green + blue) * per_y)
            co, co_slope = _interpolated(of_class[1], last, (red - blue) * per_co)
            cg, cg_slope = _interpolated(of_class[2], last, (red - 2 * green + blue) * per_cg)
            bits += y + co + cg
            even = y_slope * per_y + cg_slope * per_cg
            gradient[i, j] = even + co_slope * per_co
            gradient[i, j + 1] = y_slope * per_y - 2 * cg_slope * per_cg
            gradient[i, j + 2] = even - co_slope * per_co
    return bits


@inline
def _interpolated(costs, last, value):
    """What a real number of steps costs, and the slope there, without a branch that nobody could foresee."""
    size = abs(value)
    size = size if size < last else np.float32(last)
    below = int(size)
    above = below + 1 if below < last else last
    slope = costs[above] - costs[below]
    sign = np.float32(value > 0) - np.float32(value < 0)
    return costs[below] + slope * (size - np.float32(below)), slope * sign
