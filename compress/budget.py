"""When to stop pruning: how much quality may go, and how small the result should be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quality.metrics import ViewMetrics

SIZE_TOLERANCE = 0.02
"""A file that was asked to have a size may be smaller by this fraction, and never larger."""


def quality_lost(now: ViewMetrics, uncompressed: ViewMetrics) -> ViewMetrics:
    """What is gone of each metric: the uncompressed model's less that of the model as it is now."""
    return ViewMetrics(
        # Against its own renders the uncompressed model's PSNR is infinite, and inf - inf is no number.
        psnr=0.0 if now.psnr == uncompressed.psnr else uncompressed.psnr - now.psnr,
        ssim=uncompressed.ssim - now.ssim,
        lpips=None if now.lpips is None or uncompressed.lpips is None else uncompressed.lpips - now.lpips,
    )


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

    def is_spent(self, now: ViewMetrics, uncompressed: ViewMetrics) -> bool:
        """Whether quality has dropped by the budget or more."""
        loss = quality_lost(now, uncompressed)
        return (
            loss.psnr >= self.max_psnr_drop
            or loss.ssim >= self.max_ssim_drop
            or (loss.lpips is not None and -loss.lpips >= self.max_lpips_rise)
        )

    def is_met(self, count: int, size: int) -> bool:
        """Whether every target is met; ``False`` where there is none, since then only quality ends the rounds."""
        count_met = self.target_count is None or count <= self.target_count
        size_met = self.target_bytes is None or size <= self.target_bytes
        return self.has_target and count_met and size_met

    def to_drop(self, fraction: float, count: int, size: int) -> int:
        """How many of ``count`` Gaussians, encoded in ``size`` bytes, go in a round that drops at most ``fraction``.

        Fewer than that go where fewer are enough for the targets: no more than the targets ask for is pruned.
        """
        dropped = min(max(int(fraction * count), 1), count - 1) if count > 1 else 0
        if not self.has_target:
            return dropped
        needed = 0
        if self.target_count is not None:
            needed = max(needed, count - self.target_count)
        if self.target_bytes is not None and size > self.target_bytes:
            needed = max(needed, count - count * self.target_bytes // size)
        return max(0, min(dropped, needed))
