"""The gradient of the estimated rate by kernels, for models on the CPU; :mod:`gsz.native.gpu_kernels` has it for a GPU.

Everything is added to gradients in place, Gaussian by Gaussian, so that nothing as large as the model is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gsz.native.harmonics_price import FEW, MOST_BITS, SCRATCH, pay_harmonics
from gsz.native.shape_price import COLUMNS, ROWS, SCRATCH_ROWS, pay_shapes
from gsz.native.steps import Steps
from gsz.native.symbols import COEFFICIENTS, Finenesses, finenesses


class Priced(NamedTuple):
    """The parameters of a model that have a price, or gradients by them: attributes as of :class:`gsz.splats.Splats`.

    Positions and rotations have none. All are arrays, or all are tensors.
    """

    opacity_logits: Any
    log_scales: Any
    sh_dc: Any
    sh_rest: Any

    def rows(self, rows: slice) -> Priced:
        """Some of the Gaussians, in the same memory."""
        return Priced(*(array[rows] for array in self))


class Lines(NamedTuple):
    """What the symbols of ``C`` columns cost, in tables, one after the other: between two entries costs are a line.

    Attributes:
        bits, slopes: float32, what each entry costs, and how much more the next one does.
        begins: ``(C,)`` int64, where the tables of the columns begin.
        lows: ``(C,)`` float64, the symbols of the first entries.
        ends: ``(C,)`` float64, the largest places in the tables, just short of their last entries.
    """

    bits: np.ndarray
    slopes: np.ndarray
    begins: np.ndarray
    lows: np.ndarray
    ends: np.ndarray

    @staticmethod
    def of(tables: Sequence[np.ndarray], lows: Sequence[int]) -> Lines:
        lengths = np.array([len(table) for table in tables])
        slopes = [np.append(np.diff(table), np.float32(0)) for table in tables]
        begins = np.cumsum(lengths) - lengths
        return Lines(np.concatenate(tables), np.concatenate(slopes), begins, np.array(lows, float), lengths - 1.001)


class Prices:
    """What a model's Gaussians cost on a grid.

    Args:
        steps: the grid.
        lines: of the columns :data:`gsz.native.rate.COLUMNS`, in bits of the file.
        sh_costs: ``(kinds, 3, M)`` float32: what each magnitude of Y, Co and Cg costs in Gaussians of each class; the
            last kind stands for higher classes too, and magnitudes beyond the last cost what it does.

    Attributes:
        steps: as they were given.
        per_power: ``(3,)`` float32, the steps in a unit of the power of scales, by axis.
        dc_per_unit: float32, the steps in a unit of color, by fineness.
        lines: those of all columns: two float32 each in an int64, what an entry costs and how much more the next one
            does.
        lows: ``(C,)`` float32, the symbol before the first of each column: its cost is level.
        lasts: ``(C,)`` float32, the last place in the table of each column, which is level too.
        begins: ``(C,)`` int32, where in ``lines`` the tables of the columns begin.
        sh_lines: ``(kinds * 3 * sh_width,)``: what magnitude 0 would cost, and how much more the next one does.
        sh_width: how many lines a color of a class has.
        sh_kinds: int32, the classes of Gaussians, by the largest magnitude.
    """

    def __init__(self, steps: Steps, lines: Lines, sh_costs: np.ndarray):
        self.steps = steps
        self.per_power = (1 / steps.scale_steps).astype(np.float32)
        self.dc_per_unit = (1 / steps.dc_steps).astype(np.float32)
        # Below the first symbol of a table, as beyond the last, costs are level: that is an entry more.
        bits = np.insert(lines.bits, lines.begins, lines.bits[lines.begins])
        slopes = np.insert(lines.slopes, lines.begins, 0)
        begins = lines.begins + np.arange(len(lines.begins))
        self.lasts = (np.append(begins[1:], len(bits)) - begins - 1).astype(np.float32)
        self.lows, self.begins = (lines.lows - 1).astype(np.float32), begins.astype(np.int32)
        self.lines = _in_eight_bytes(bits, slopes)
        slopes = np.diff(sh_costs, axis=2, append=sh_costs[..., -1:])
        at_zero = sh_costs - slopes * np.arange(sh_costs.shape[2], dtype=np.float32)
        self.sh_lines = _in_eight_bytes(at_zero, slopes)
        self.sh_width = sh_costs.shape[2]
        first = np.minimum(np.arange(FEW), self.sh_width - 1)
        self._sh_few = self.sh_lines.reshape(*sh_costs.shape)[..., first].reshape(-1).view(np.float32)
        lengths = [int(magnitudes).bit_length() for magnitudes in range(1 << MOST_BITS)]
        self.sh_kinds = np.minimum(lengths, len(sh_costs) - 1).astype(np.int32)

    def pay(
        self,
        splats: Priced,
        weight: float,
        gradients: Priced,
        fineness: Finenesses | None = None,
        counted: bool = True,
    ) -> tuple[float, float]:
        """What harmonics cost, and what all else does, in bits; ``weight`` times their gradient is added to others.

        Args:
            fineness: of the Gaussians, where it is known.
            counted: whether bits are asked for; they are 0 otherwise.
        """
        if fineness is None:
            fineness = finenesses(splats.log_scales, splats.opacity_logits, self.steps)
        return self._pay_harmonics(splats, weight, gradients, fineness.sh, counted), self._pay_shapes(
            splats, weight, gradients, fineness.dc, counted
        )

    def _pay_shapes(
        self, splats: Priced, weight: float, gradients: Priced, fineness: np.ndarray, counted: bool
    ) -> float:
        found, sums = np.empty(COLUMNS * ROWS, np.int64), np.zeros(ROWS)
        pay_shapes(
            splats.opacity_logits.reshape(-1),
            splats.log_scales.reshape(-1),
            splats.sh_dc.reshape(-1),
            fineness,
            np.float32(self.steps.opacity_levels),
            np.float32(self.steps.scale_pivot),
            self.per_power,
            self.dc_per_unit,
            self.lows,
            self.lasts,
            self.begins,
            self.lines,
            np.float32(weight),
            np.empty(COLUMNS * ROWS, np.int32),
            np.empty(SCRATCH_ROWS * ROWS, np.float32),
            found,
            found.view(np.float32),
            counted,
            sums,
            gradients.opacity_logits.reshape(-1),
            gradients.log_scales.reshape(-1),
            gradients.sh_dc.reshape(-1),
        )
        return sum(sums.tolist())

    def _pay_harmonics(
        self, splats: Priced, weight: float, gradients: Priced, fineness: np.ndarray, counted: bool
    ) -> float:
        found = np.empty(COEFFICIENTS, np.int64)
        return pay_harmonics(
            splats.sh_rest.reshape(-1),
            fineness,
            self.steps.sh_per_unit,
            np.float32(1 - self.steps.sh_threshold),
            self._sh_few,
            self.sh_lines,
            self.sh_width,
            self.sh_kinds,
            splats.sh_rest.shape[1],
            np.float32(weight),
            np.zeros(SCRATCH, np.float32),
            np.empty(COEFFICIENTS, np.int32),
            found,
            found.view(np.float32),
            counted,
            gradients.sh_rest.reshape(-1),
        )


def _in_eight_bytes(bits: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Flat lines of two float32 each, which are one load."""
    return np.stack([bits, slopes], axis=-1).astype(np.float32).view(np.int64).reshape(-1)
