"""The grid's arithmetic in tensors, for models that live on a GPU: nothing goes to the CPU and nothing waits for it.

The values are those of the kernels in :mod:`gsz.native.symbols` bit for bit, on whatever device, because
every step is an operation that has only one right result: comparisons, integer arithmetic, gathering from tables, and
additions, multiplications, divisions and square roots (see :func:`gsz.rounding.tensors.square_root`) that IEEE 754
rounds correctly. Each is a kernel of its own, so that no compiler can contract a product and a sum into one rounding,
and sums of three or four terms are written out in the order of the kernels. What takes a logarithm or an exponential
stands in tables that the CPU computes once. Nothing is divided by a Python number, which PyTorch on CUDA replaces by a
product with its reciprocal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsz.contract import ModelT
from gsz.native.price import Priced
from gsz.native.steps import (
    DC_LIMIT,
    LARGEST_EXPONENT,
    LARGEST_MEAN,
    LOGS_PER_OCTAVE,
    MEAN_LIMIT,
    POWER_OCTAVES,
    RECONSTRUCTED,
    ROTATION_LIMIT,
    SCALE_LIMIT,
    SH_LIMIT,
    SIZE_OF_NOTHING,
    SMALLEST_SCALE,
    Steps,
)
from gsz.native.symbols import (
    AXIS_ORDERS,
    FINENESS_RULES,
    FLIP_SIGNS,
    FLIPS,
    KINDS,
    POWERS,
    TURNS,
    FinenessRules,
)
from gsz.rounding.tensors import nearest_levels, square_root
from gsz.splats import Splats

ROWS_AT_ONCE = 1 << 18
"""Of so many Gaussians at a time there is what is computed on the way: several times as much as their parameters."""


def slices(count: int) -> list[slice]:
    """Rows ``0`` to ``count``, at most :data:`ROWS_AT_ONCE` in each."""
    return [slice(first, first + ROWS_AT_ONCE) for first in range(0, count, ROWS_AT_ONCE)]


def rows_of(splats: ModelT, rows: slice) -> ModelT:
    """Some of the Gaussians, in the same memory."""
    return splats.map(lambda tensor: tensor[rows])


class DeviceFrames(NamedTuple):
    """As :class:`gsz.native.symbols.Frames`, in tensors.

    Attributes:
        turn: ``(N,)`` uint8.
        order: ``(N, 3)`` uint8.
        sign: ``(N, 1)`` int8.
        norm: ``(N, 1)`` float32.
    """

    turn: Tensor
    order: Tensor
    sign: Tensor
    norm: Tensor


class ShOnGrid(NamedTuple):
    """The spherical harmonics of a model in steps.

    Attributes:
        dc_fineness: ``(N,)`` int64, rows of :attr:`gsz.native.steps.Steps.dc_steps`, which comes with the other.
        fineness: ``(N,)`` int64, rows of :attr:`gsz.native.steps.Steps.sh_steps`.
        in_steps: ``(N, K, 3)`` float32 Y, Co and Cg.
        symbols: ``(N, K, 3)`` float32, the whole numbers they are rounded to.
    """

    dc_fineness: Tensor
    fineness: Tensor
    in_steps: Tensor
    symbols: Tensor


class DeviceSteps:
    """The steps of a grid, and the tables made of them, on a device.

    Attributes:
        device: where the tables are, and the models that are passed must be.
        sh_per_unit: see :attr:`gsz.native.steps.Steps.sh_per_unit`.
    """

    def __init__(self, steps: Steps, device: torch.device):
        self.device = device

        def table(values: object, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.as_tensor(np.array(values), dtype=dtype).to(device)

        self._steps = steps
        self._center = table(steps.center)
        self._mean_limit = table(MEAN_LIMIT)
        self._powers = table(np.ldexp(1.0, np.arange(LARGEST_EXPONENT + 1)))
        self._opacity_thresholds = table(steps.opacity_thresholds, torch.float32)
        self._opacity_logits = table(steps.opacity_logits, torch.float32)
        self._covered = table(steps.covered, torch.int64)
        rules = FinenessRules.of(steps)
        self._rules = table(FINENESS_RULES, torch.int64)
        self._rule_pivots, self._rule_ranges = table(rules.pivots - 8, torch.int64), table(rules.ranges, torch.int64)
        # First at least second, second at least third, first at least third: these three bits name the order.
        self._compared = table([0, 1, 0], torch.int64), table([1, 2, 2], torch.int64)
        self._bits = table([4, 2, 1], torch.int64)
        self._kinds = table(KINDS, torch.int64)
        self._orders = table(AXIS_ORDERS, torch.int64)
        self._scale_steps = table(steps.scale_steps)
        self._per_power = table(1 / steps.scale_steps)
        self._power_scales = table(POWERS)
        self._dc_steps = table(steps.dc_steps)
        self._dc_per_unit = table(1 / steps.dc_steps)
        self._turns = table([_multiplications(turn) for turn in TURNS])
        self._turns_back = table([_multiplications(turn * [1, -1, -1, -1]) for turn in TURNS])
        self._identity = table([1, 0, 0, 0])
        self._flips, self._flip_signs = table(FLIPS, torch.int64), table(FLIP_SIGNS)
        self._rotation_steps = table(steps.rotation_steps)
        self._rotations_per_unit = table(1 / steps.rotation_steps)
        self.sh_per_unit = table(steps.sh_per_unit, torch.float32)
        self._sh_steps = table(steps.sh_steps)
        # Entry SH_LIMIT + symbol.
        magnitudes = np.arange(SH_LIMIT + 1.0)
        magnitudes[:RECONSTRUCTED] = steps.sh_values
        self._sh_values = table([*-magnitudes[:0:-1], *magnitudes])

    def snap(self, splats: Splats) -> tuple[Splats, DeviceFrames]:
        """What ``dequantize(quantize(splats))`` is on the CPU."""
        count, device = len(splats), self.device
        snapped = splats.map(torch.empty_like)
        frames = DeviceFrames(
            torch.empty(count, dtype=torch.uint8, device=device),
            torch.empty(count, 3, dtype=torch.uint8, device=device),
            torch.empty(count, 1, dtype=torch.int8, device=device),
            torch.empty(count, 1, device=device),
        )
        for rows in slices(count):
            part, part_frames = self._snap(rows_of(splats, rows))
            for (_, whole), (_, values) in zip(snapped.named_parameters(), part.named_parameters(), strict=True):
                whole[rows] = values
            for of_all, of_part in zip(frames, part_frames, strict=True):
                of_all[rows] = of_part
        return snapped, frames

    def _snap(self, splats: Splats) -> tuple[Splats, DeviceFrames]:
        kind, order, scales = self._scales(splats.log_scales)
        vectors, frames = self._canonical(splats.quaternions, kind, order)
        opacities = self._opacities(splats)
        rotation_fineness, dc_fineness, sh_fineness = self._finenesses(scales, opacities)
        harmonics = self._harmonics(splats.sh_rest, dc_fineness, sh_fineness)
        snapped = Splats(
            means=self._snap_means(splats.means),
            log_scales=self._log_scales(scales),
            quaternions=self._snap_rotations(vectors, rotation_fineness),
            opacity_logits=self._opacity_logits[opacities][:, None],
            sh_dc=self._snap_dc(splats.sh_dc, dc_fineness),
            sh_rest=self._sh_rest(harmonics),
        )
        return snapped, frames

    def harmonics(self, splats: Splats | Priced) -> ShOnGrid:
        """The spherical harmonics on their grid."""
        _, _, scales = self._scales(splats.log_scales)
        _, dc_fineness, fineness = self._finenesses(scales, self._opacities(splats))
        return self._harmonics(splats.sh_rest, dc_fineness, fineness)

    def shape_gradients(
        self, frames: DeviceFrames, original: Tensor, quaternion_gradient: Tensor, log_scale_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :func:`gsz.native.symbols.shape_gradients`."""
        quaternions, log_scales = torch.empty_like(quaternion_gradient), torch.empty_like(log_scale_gradient)
        for rows in slices(len(original)):
            part = DeviceFrames(*(tensor[rows] for tensor in frames))
            gradients = quaternion_gradient[rows], log_scale_gradient[rows]
            quaternions[rows], log_scales[rows] = self._shape_gradients(part, original[rows], *gradients)
        return quaternions, log_scales

    def _shape_gradients(
        self, frames: DeviceFrames, original: Tensor, quaternion_gradient: Tensor, log_scale_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_scales = torch.zeros_like(log_scale_gradient).scatter(1, frames.order.long(), log_scale_gradient)
        turned = _turned(quaternion_gradient.double(), self._turns_back[frames.turn.long()]) * frames.sign
        unit = original.double()
        length = frames.norm.double()
        along = _sum(turned * unit) / (length * length)
        quaternions = (turned - along * unit) / length
        return quaternions.masked_fill(length == 0, 0.0).float(), log_scales

    def _snap_means(self, means: Tensor) -> Tensor:
        steps = self._steps
        value = (means.double() - self._center) * (1 / steps.radius)
        size = value.abs()
        fraction, exponent = torch.frexp(size)
        size = torch.where(size > 1.0, exponent + (2.0 * fraction - 1.0), size)
        symbols = _clamped(torch.copysign(size, value) * 2.0**steps.mean_bits, self._mean_limit)
        size = symbols.abs() * 2.0**-steps.mean_bits
        # Within 1 the exponent is 0 and the size stays as it is.
        exponent = (size.floor() - 1.0).clamp(0, LARGEST_EXPONENT)
        size = (size - exponent) * self._powers[exponent.long()]
        value = torch.copysign(size, symbols) * steps.radius + self._center
        return value.clamp(-LARGEST_MEAN, LARGEST_MEAN).float()

    def _opacities(self, splats: Splats | Priced) -> Tensor:
        """``(N,)`` int64 levels."""
        return nearest_levels(splats.opacity_logits.reshape(-1), self._opacity_thresholds).long()

    def _scales(self, log_scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(N,)`` kinds of order, ``(N, 3)`` which axis comes first, second and third, and float64 symbols."""
        first, second = (log_scales.index_select(1, axes) for axes in self._compared)
        kind = self._kinds[((first >= second) * self._bits).sum(1)]
        order = self._orders[kind]
        octaves = (log_scales.gather(1, order).double() - self._steps.scale_pivot) * POWER_OCTAVES
        octaves = octaves.nan_to_num(-math.inf, math.inf, -math.inf).clamp(-60.0, 60.0)
        whole = octaves.floor()
        powers = (3.0 - square_root(4.0 - 3.0 * (octaves - whole))) * self._power_scales[whole.long() + 60]
        return kind, order, (powers * self._per_power).clamp(max=SCALE_LIMIT).round()

    def _log_scales(self, scales: Tensor) -> Tensor:
        fraction, exponent = torch.frexp(scales.clamp(min=SMALLEST_SCALE) * self._scale_steps)
        above = 2.0 * fraction - 1.0
        octaves = (exponent.double() - 1.0) + above * (4.0 - above) * (1 / 3)
        return (octaves * LOGS_PER_OCTAVE + self._steps.scale_pivot).float()

    def _canonical(self, quaternions: Tensor, kind: Tensor, order: Tensor) -> tuple[Tensor, DeviceFrames]:
        """``(N, 3)`` float64 vector parts of the canonical quaternions, and how they came about."""
        given = quaternions.double()
        length = square_root(_sum(given * given))
        usable = (length > 1e-30) & (length < 1e300)
        unit = torch.where(usable, given / length, self._identity)
        turned = _turned(unit, self._turns[4 * kind])
        largest = turned.abs().argmax(1)
        sign = (turned.gather(1, largest[:, None]) >= 0) * 2.0 - 1.0
        vectors = sign * self._flip_signs[largest] * turned.gather(1, self._flips[largest])
        norm = length.float().masked_fill(~usable, 0.0)
        return vectors, DeviceFrames(4 * kind + largest, order, sign, norm)

    def _finenesses(self, scales: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(N,)`` int64 each, of rotations, DC and harmonics; see :func:`gsz.native.symbols.fineness_of`."""
        fraction, exponent = torch.frexp(scales)
        above = (fraction * 512.0).long() - 256
        octaves = 256 * (exponent.long() - 1) + (above * (1024 - above) * 85 >> 16)
        sizes = (5 * octaves >> 4).masked_fill(scales == 0, SIZE_OF_NOTHING)
        measured = torch.cat([sizes, self._covered[opacities][:, None]], 1)[:, None] * self._rules
        halves = (measured.sum(2) >> 8) - self._rule_pivots >> 4
        rotations, dc, sh = (halves.clamp(-self._rule_ranges, self._rule_ranges) + self._rule_ranges).unbind(1)
        return rotations, dc, sh

    def _snap_dc(self, sh_dc: Tensor, fineness: Tensor) -> Tensor:
        symbols = _rounded(sh_dc.double() * self._dc_per_unit[fineness][:, None, None], DC_LIMIT)
        return (symbols * self._dc_steps[fineness][:, None, None]).float()

    def _snap_rotations(self, vectors: Tensor, fineness: Tensor) -> Tensor:
        symbols = _rounded(vectors * self._rotations_per_unit[fineness][:, None], ROTATION_LIMIT)
        vectors = symbols * self._rotation_steps[fineness][:, None]
        scalar = square_root((1.0 - _sum(vectors * vectors)).clamp(min=0.0))
        return torch.cat([scalar, vectors], 1).float()

    def _harmonics(self, sh_rest: Tensor, dc_fineness: Tensor, fineness: Tensor) -> ShOnGrid:
        red, green, blue = sh_rest.unbind(2)
        sums = torch.stack([red + green + blue, red - blue, red - 2.0 * green + blue], 2)
        in_steps = sums * self.sh_per_unit[fineness][:, None]
        symbols = _rounded(in_steps, SH_LIMIT, 1 - self._steps.sh_threshold)
        return ShOnGrid(dc_fineness, fineness, in_steps, symbols)

    def _sh_rest(self, harmonics: ShOnGrid) -> Tensor:
        values = self._sh_values[(harmonics.symbols + SH_LIMIT).long()]
        y, co, cg = (values * self._sh_steps[harmonics.fineness][:, None]).unbind(2)
        gray = y + cg
        return torch.stack([gray + co, y - 2.0 * cg, gray - co], 2).float()


def _multiplications(right: np.ndarray) -> np.ndarray:
    """``(4, 4)``: the product of a quaternion and ``right`` is the sum of these rows times its components."""
    a, b, c, d = right
    return np.array([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])


def _turned(left: Tensor, rows: Tensor) -> Tensor:
    """``(N, 4)`` products of quaternions and those whose :func:`_multiplications` are ``(N, 4, 4)`` rows."""
    w, x, y, z = (left[:, :, None] * rows).unbind(1)
    return w + x + y + z


def _sum(columns: Tensor) -> Tensor:
    """``(N, 1)`` sums of a few columns, from the first to the last."""
    first, *others = columns.split(1, 1)
    for other in others:
        first = first + other
    return first


def _clamped(values: Tensor, limit: Tensor) -> Tensor:
    """The nearest whole numbers within ``limit`` of zero, never -0; NaN becomes ``-limit``."""
    return values.nan_to_num(-math.inf, math.inf, -math.inf).clamp(-limit, limit).round() + 0.0


def _rounded(values: Tensor, limit: int, rounding: float = 0.5) -> Tensor:
    """Fractions of at least ``1 - rounding`` are rounded up in magnitude; the result is a whole number, never -0."""
    size = values.abs() + rounding
    size = size.floor().masked_fill(~(size < limit), limit)
    return size.copysign(values) + 0.0
