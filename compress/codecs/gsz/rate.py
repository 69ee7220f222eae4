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
from numba import njit
from torch import Tensor

from compress.codecs.gsz import symbols
from compress.codecs.gsz.container import Header
from compress.codecs.gsz.harmonics import sh_classes
from compress.codecs.gsz.streams import ATTRIBUTES
from compress.codecs.gsz.symbols import Steps
from scene.gaussian_model import GaussianModel

if TYPE_CHECKING:
    from compress.codecs.gsz.codec import GszGrid

MOST_CLASSES = 8
"""Higher classes of harmonics share a table with this one."""
_REACH = 4
"""A table extends so many symbols beyond those that occur; further out the cost stays level."""


class CostTable:
    """What the symbols of one column cost.

    Attributes:
        low: the first symbol of the table.
        bits: ``(M,)`` float32, the cost of ``low``, ``low + 1``, ...
    """

    def __init__(self, occurring: np.ndarray):
        self.low = int(occurring.min(initial=0)) - _REACH
        high = int(occurring.max(initial=0)) + _REACH
        counts = np.bincount((occurring - self.low).astype(np.int64).reshape(-1), minlength=high - self.low + 1) + 0.25
        self.bits = torch.from_numpy(-np.log2(counts / counts.sum())).float()

    def cost(self, values: Tensor) -> Tensor:
        """The interpolated cost of real ``values``, in symbols; same shape."""
        bits = self.bits.to(values.device)
        place = (values - self.low).clamp(0, len(bits) - 1.001)
        below = place.detach().floor().long()
        return torch.lerp(bits[below], bits[below + 1], place - below)


class RateModel:
    """The costs of a model on a grid, as they were when this was made.

    Args:
        grid: a native grid.
        splats: at least one Gaussian.
    """

    def __init__(self, grid: GszGrid, splats: GaussianModel):
        self.steps: Steps = grid.steps
        self.count = len(splats)
        data = grid.encode(splats)
        header = Header.parse(data, "model")
        spent = {
            name: 8 * sum(sections[index][0] for sections in header.sections) for index, name in enumerate(ATTRIBUTES)
        }
        self.constant = float(8 * header.size + spent["means"] + spent["rotations"])
        quantised, _ = symbols.quantise(splats.detach(), self.steps)
        self.classes = np.minimum(sh_classes(quantised.sh), MOST_CLASSES)
        self.harmonics = _harmonic_tables(quantised.sh, self.classes)
        columns = {
            name: column.detach().round().long().numpy() for name, column in self._columns(splats.detach().to("cpu"))
        }
        self.tables = {name: CostTable(column) for name, column in columns.items()}
        self.scaling = dict.fromkeys(spent, 1.0)
        with torch.no_grad():
            estimated = self._by_attribute(splats.detach())
        self.scaling = {name: spent[name] / max(float(estimate), 1.0) for name, estimate in estimated.items()}

    def bits(self, splats: GaussianModel) -> Tensor:
        """The estimated size of the file in bits, a scalar with gradients to opacity, scales and harmonics."""
        return self.constant + torch.stack(list(self._by_attribute(splats).values())).sum()

    def _columns(self, splats: GaussianModel) -> list[tuple[str, Tensor]]:
        """The real numbers that are rounded to the symbols of each column."""
        steps = self.steps
        scales = splats.log_scales.sort(dim=1, descending=True).values / steps.scale_step
        red, green, blue = (splats.sh_dc[:, 0] / steps.dc_step).unbind(1)
        return [
            ("opacity", torch.sigmoid(splats.opacity_logits[:, 0]) * steps.opacity_levels - 0.5),
            ("scale", scales[:, 0]),
            ("gap", (scales[:, 0] - scales[:, 1]) / 2),
            ("thin", (scales[:, 1] - scales[:, 2]) / 4),
            ("luma", (red + 2 * green + blue) / 4),
            ("green", green - (red + blue) / 2),
            ("orange", red - blue),
        ]

    def _by_attribute(self, splats: GaussianModel) -> dict[str, Tensor]:
        sums = {name: torch.zeros((), device=splats.device) for name in ("opacities", "scales", "dc", "sh")}
        homes = {"opacity": "opacities", "scale": "scales", "gap": "scales", "thin": "scales"}
        for name, column in self._columns(splats):
            sums[homes.get(name, "dc")] = sums[homes.get(name, "dc")] + self.tables[name].cost(column).sum()
        sums["sh"] = sums["sh"] + self._harmonic_bits(splats)
        return {name: total * self.scaling[name] for name, total in sums.items()}

    def _harmonic_bits(self, splats: GaussianModel) -> Tensor:
        """Class by class. Gaussians of class 0 have no harmonics to pay for and feel no pull."""
        total = torch.zeros((), device=splats.device)
        if splats.sh_rest.shape[1] == 0:
            return total
        quantised, _ = symbols.quantise(splats.detach(), self.steps)
        fineness = symbols.finenesses(quantised.scales, quantised.opacities, self.steps)
        classes = np.minimum(sh_classes(quantised.sh), MOST_CLASSES)
        row_steps = self.steps.sh_steps[fineness.sh]
        return total + _HarmonicBits.apply(splats.sh_rest, row_steps, self.steps.sh_colours, classes, self.harmonics)


def _harmonic_tables(sh: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """``(MOST_CLASSES + 1, 3, M)`` float32: what each magnitude costs in Gaussians of each class and each colour."""
    magnitudes = np.abs(sh.astype(np.int64)).reshape(len(sh), -1, 3)
    width = int(magnitudes.max(initial=0)) + 2
    tables = np.zeros((MOST_CLASSES + 1, 3, width), np.float32)
    for kind in np.unique(classes[classes > 0]).tolist():
        for colour in range(3):
            table = CostTable(magnitudes[classes == kind][..., colour])
            tables[kind, colour] = table.cost(torch.arange(float(width))).numpy()
    return tables


class _HarmonicBits(torch.autograd.Function):
    """The sum of what harmonics cost, interpolated, on the CPU. The gradient is found on the way."""

    @staticmethod
    def forward(
        ctx: Any, sh_rest: Tensor, steps: np.ndarray, colours: np.ndarray, classes: np.ndarray, tables: np.ndarray
    ) -> Tensor:
        values = sh_rest.detach().cpu().contiguous().numpy()
        gradient = np.zeros_like(values)
        flat = (len(values), 3 * values.shape[1])
        bits = _harmonic_bits(values.reshape(flat), steps, 1 / colours, classes, tables, gradient.reshape(flat))
        ctx.save_for_backward(torch.from_numpy(gradient).to(sh_rest.device))
        return torch.tensor(bits, dtype=torch.float32, device=sh_rest.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * gradients[0], None, None, None, None)


@njit(cache=True, nogil=True, error_model="numpy")
def _harmonic_bits(values, steps, per_colour, classes, tables, gradient):
    bits = 0.0
    last = tables.shape[2] - 1
    for i in range(values.shape[0]):
        if classes[i] == 0:
            continue
        luma_scale = 1 / (3 * steps[i])
        orange_scale = per_colour[0] / (2 * steps[i])
        green_scale = per_colour[1] / (6 * steps[i])
        costs = tables[classes[i]]
        for j in range(0, values.shape[1], 3):
            red, green, blue = values[i, j], values[i, j + 1], values[i, j + 2]
            luma, luma_slope = _interpolated(costs[0], last, (red + green + blue) * luma_scale)
            orange, orange_slope = _interpolated(costs[1], last, (red - blue) * orange_scale)
            verdure, green_slope = _interpolated(costs[2], last, (red - 2 * green + blue) * green_scale)
            bits += luma + orange + verdure
            even = luma_slope * luma_scale + green_slope * green_scale
            gradient[i, j] = even + orange_slope * orange_scale
            gradient[i, j + 1] = luma_slope * luma_scale - 2 * green_slope * green_scale
            gradient[i, j + 2] = even - orange_slope * orange_scale
    return bits


@njit(cache=True, nogil=True, inline="always")
def _interpolated(costs, last, value):
    """What a real number of steps costs, and the slope there."""
    size = abs(value)
    if not size < last:
        return np.float64(costs[last]), 0.0
    below = int(size)
    slope = np.float64(costs[below + 1]) - np.float64(costs[below])
    return costs[below] + slope * (size - below), (-slope if value < 0 else slope)
