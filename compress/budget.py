"""When to stop pruning: how much quality may go, and how small the result should be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quality.summary import ViewMetrics

SIZE_TOLERANCE = 0.02
"""A file that was asked to have a size may be smaller by this fraction, and never larger."""

FINAL_SLACK = 1.08
"""The rounds count as having met a target size when they exceed it by up to this factor: the final stage makes files
smaller."""


@dataclass(frozen=True)
class Loss:
    """What a model has lost against the uncompressed one. Negative where it has become better.

    Attributes:
        psnr_drop: dB.
        ssim_drop: How much lower SSIM is.
        lpips_rise: How much higher LPIPS is, or ``None`` where it is not measured.
    """

    psnr_drop: float
    ssim_drop: float
    lpips_rise: float | None = None

    @staticmethod
    def between(uncompressed: ViewMetrics, now: ViewMetrics) -> Loss:
        """The loss from the uncompressed model to the model as it is now."""
        return Loss(
            # Two identical images have an infinite PSNR, and inf - inf is not a number.
            psnr_drop=0.0 if now.psnr == uncompressed.psnr else uncompressed.psnr - now.psnr,
            ssim_drop=uncompressed.ssim - now.ssim,
            lpips_rise=None if now.lpips is None or uncompressed.lpips is None else now.lpips - uncompressed.lpips,
        )

    def __str__(self) -> str:
        parts = [f"{self.psnr_drop:.2f} dB", f"{self.ssim_drop:.4f} SSIM"]
        if self.lpips_rise is not None:
            parts.append(f"{self.lpips_rise:.4f} LPIPS")
        return f"{', '.join(parts[:-1])} and {parts[-1]}"


def dropped_in_a_round(fraction: float, count: int) -> int:
    """How many of ``count`` Gaussians a round drops: the fraction of them, but at least one, and never the last."""
    return min(max(int(fraction * count), 1), count - 1) if count > 1 else 0


def fewest_left(count: int, fraction: float, rounds: int) -> int:
    """How many of ``count`` Gaussians are left after so many rounds."""
    for _ in range(rounds):
        count -= dropped_in_a_round(fraction, count)
    return count


def rounds_needed(count: int, target: int, fraction: float) -> int:
    """How many rounds lead from ``count`` Gaussians to at most ``target``, which is at least one."""
    rounds = 0
    while count > max(target, 1):
        count -= dropped_in_a_round(fraction, count)
        rounds += 1
    return rounds


@dataclass(frozen=True)
class Budget:
    """Limits of a run; the tightest rules.

    Attributes:
        max_psnr_drop: dB against the uncompressed model. Losing as much ends the rounds; infinite for no limit.
        max_ssim_drop: The same for SSIM.
        max_lpips_rise: The same for LPIPS, which grows as quality falls.
        target_count: Gaussians to end with; ``None`` for no target.
        target_bytes: Size of the file to end with; ``None`` for no target.
    """

    max_psnr_drop: float = math.inf
    max_ssim_drop: float = math.inf
    max_lpips_rise: float = math.inf
    target_count: int | None = None
    target_bytes: int | None = None

    @property
    def has_target(self) -> bool:
        return self.target_count is not None or self.target_bytes is not None

    def is_spent(self, loss: Loss) -> bool:
        """Whether a model has lost the budget or more."""
        return (
            loss.psnr_drop >= self.max_psnr_drop
            or loss.ssim_drop >= self.max_ssim_drop
            or (loss.lpips_rise is not None and loss.lpips_rise >= self.max_lpips_rise)
        )

    def is_met(self, count: int, size: int) -> bool:
        """Whether rounds that have come to ``count`` Gaussians in ``size`` bytes have met every target.

        ``False`` where there is no target, since then only quality ends the rounds.
        """
        count_met = self.target_count is None or count <= self.target_count
        size_met = self.target_bytes is None or size <= self.target_bytes * FINAL_SLACK
        return self.has_target and count_met and size_met

    def missed(self, count: int, size: int) -> str:
        """What a final file of so many Gaussians and bytes has more than a target says; empty for nothing."""
        if self.target_bytes is not None and size > self.target_bytes:
            return f"it has {size:,} bytes, where {self.target_bytes:,} were asked for"
        if self.target_count is not None and count > self.target_count:
            return f"it has {count:,} Gaussians, where {self.target_count:,} were asked for"
        return ""

    def to_drop(self, fraction: float, count: int, size: int) -> int:
        """How many of ``count`` Gaussians, encoded in ``size`` bytes, go in a round that drops at most ``fraction``.

        Fewer than that go where fewer are enough for the targets: no more than the targets ask for is pruned.
        """
        dropped = dropped_in_a_round(fraction, count)
        if not self.has_target:
            return dropped
        needed = 0
        if self.target_count is not None:
            needed = max(needed, count - self.target_count)
        if self.target_bytes is not None and size > self.target_bytes:
            needed = max(needed, count - count * self.target_bytes // size)
        return max(0, min(dropped, needed))
