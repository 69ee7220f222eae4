"""The grid and its prices on a GPU: tables that are copied there once, and one kernel each of :mod:`.gpu_kernels`.

Nothing goes to the CPU and nothing waits for it. Imported only where :mod:`gsz.nvidia_warp` finds no obstacle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from gsz.native import gpu_kernels as kernels
from gsz.native.price import Priced, Prices
from gsz.native.steps import Steps
from gsz.native.symbols import AXIS_ORDERS, KINDS, TURNS
from gsz.splats import Splats
from gsz.warp_launch import array, on_stream_of


def compile_kernels(device: torch.device) -> None:
    """Compile and load all kernels for a device, if that has not been done."""
    wp.load_module(kernels, device=wp.device_from_torch(device))


class GpuSteps:
    """A grid on a device: one of CUDA, or in tests the CPU.

    Attributes:
        device: where the tables are, and the models that are passed must be.
        tables: as kernels take them.
    """

    def __init__(self, steps: Steps, device: torch.device):
        self.device = device
        self.tables = tables = kernels.GridTables()
        tables.center, tables.radius, tables.per_radius = wp.vec3d(*steps.center), steps.radius, 1 / steps.radius
        tables.mean_step, tables.per_mean_step = 2.0**-steps.mean_bits, 2.0**steps.mean_bits
        tables.thresholds = _table(steps.padded_thresholds, wp.float32, device)
        tables.opacity_logits = _table(steps.opacity_logits, wp.float32, device)
        tables.covered = _table(steps.covered, wp.int32, device)
        tables.scale_pivot = steps.scale_pivot
        tables.scale_steps, tables.per_power = wp.vec3d(*steps.scale_steps), wp.vec3d(*(1 / steps.scale_steps))
        tables.pivots = wp.vec3i(steps.rotation_pivot, steps.dc_pivot, steps.sh_pivot)
        tables.ranges = wp.vec3i(steps.rotation_range, steps.dc_range, steps.sh_range)
        tables.kinds = _table(KINDS, wp.int32, device)
        tables.orders = _table(AXIS_ORDERS, wp.vec3i, device)
        tables.turns = _table(TURNS, wp.vec4d, device)
        tables.rotation_steps = _table(steps.rotation_steps, wp.float64, device)
        tables.per_rotation = _table(1 / steps.rotation_steps, wp.float64, device)
        tables.dc_steps = _table(steps.dc_steps, wp.float64, device)
        tables.dc_per_unit = _table(1 / steps.dc_steps, wp.float64, device)
        tables.sh_per_unit = _table(steps.sh_per_unit, wp.vec3, device)
        tables.sh_steps = _table(steps.sh_steps, wp.vec3d, device)
        tables.sh_values = wp.vec4d(*steps.sh_values)
        tables.sh_rounding = 1 - steps.sh_threshold

    def snap(self, splats: Splats) -> Splats:
        """What ``dequantize(quantize(splats))`` of :mod:`gsz.native.symbols` is."""
        given = splats.map(Tensor.contiguous)
        snapped = given.map(torch.empty_like)
        inputs = [self.tables, *_arrays(given), given.sh_rest.shape[1]]
        _launch(kernels.snap, len(splats), inputs, _arrays(snapped), self.device)
        return snapped

    def shape_gradients(
        self, log_scales: Tensor, quaternions: Tensor, log_scale_gradient: Tensor, quaternion_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """By the original log-scales and quaternions; see :func:`gsz.native.symbols.shape_gradients`.

        Args:
            log_scales, quaternions: the original ones.
        """
        scales, turns = (tensor.detach().contiguous() for tensor in (log_scales, quaternions))
        found = torch.empty_like(scales), torch.empty_like(turns)
        pulls = log_scale_gradient.contiguous(), quaternion_gradient.contiguous()
        pairs = [[array(first), array(second, wp.vec4)] for first, second in ((scales, turns), pulls, found)]
        inputs = [self.tables, *pairs[0], *pairs[1]]
        _launch(kernels.shape_gradients, len(scales), inputs, pairs[2], self.device)
        return found


class GpuPrices:
    """What a model's Gaussians cost on a grid, on the grid's device."""

    def __init__(self, steps: GpuSteps, prices: Prices):
        self._steps, device = steps, steps.device
        self.tables = tables = kernels.PriceTables()
        tables.opacity_levels, tables.pivot = float(prices.steps.opacity_levels), prices.steps.scale_pivot
        tables.per_power = wp.vec3(*prices.per_power)
        tables.dc_per_unit = _table(prices.dc_per_unit, wp.float32, device)
        tables.lines = _table(prices.lines.view(np.float32).reshape(-1, 2), wp.vec2, device)
        tables.lows = _table(prices.lows, wp.float32, device)
        tables.lasts = _table(prices.lasts, wp.float32, device)
        tables.begins = _table(prices.begins, wp.int32, device)
        tables.sh_lines = _table(prices.sh_lines.view(np.float32).reshape(-1, 2), wp.vec2, device)
        tables.sh_width = prices.sh_width
        tables.sh_kinds = _table(prices.sh_kinds, wp.int32, device)

    def pay(self, splats: Priced, weight: float, gradients: Priced) -> Tensor:
        """``(N,)`` bits that each Gaussian costs; ``weight`` times their gradient is added to others, in place.

        Args:
            gradients: contiguous.
        """
        given = Priced(*(tensor.detach().contiguous() for tensor in splats))
        count, coefficients = given.sh_rest.shape[:2]
        bits = torch.empty(count, device=self._steps.device)
        inputs = [self._steps.tables, self.tables, *_priced_arrays(given), coefficients, weight]
        _launch(kernels.pay, count, inputs, [array(bits), *_priced_arrays(gradients)], self._steps.device)
        return bits


def _table(values: np.ndarray, dtype: Any, device: torch.device) -> wp.array:
    """A copy on the device, in numbers of ``dtype`` or in vectors of them along the last axis."""
    number = wp.dtype_to_numpy(getattr(dtype, "_wp_scalar_type_", dtype))
    return wp.from_torch(torch.from_numpy(values.astype(number)).to(device), dtype=dtype)


def _arrays(splats: Splats) -> list[Any]:
    """The six parameters as kernels take them."""
    logits, log_scales, dc, rest = _priced_arrays(
        Priced(splats.opacity_logits, splats.log_scales, splats.sh_dc, splats.sh_rest)
    )
    return [array(splats.means, wp.vec3), log_scales, array(splats.quaternions, wp.vec4), logits, dc, rest]


def _priced_arrays(priced: Priced) -> list[Any]:
    return [
        array(priced.opacity_logits.reshape(-1)),
        array(priced.log_scales),
        array(priced.sh_dc.reshape(-1, 3), wp.vec3),
        array(priced.sh_rest, wp.vec3),
    ]


def _launch(kernel: Any, count: int, inputs: list[Any], outputs: list[Any], device: torch.device) -> None:
    with on_stream_of(device) as there:
        wp.launch(kernel, count, inputs, outputs, device=there)
