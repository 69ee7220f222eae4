"""When to stop pruning."""

from __future__ import annotations

from dataclasses import dataclass

from utils.metrics import ViewMetrics


@dataclass(frozen=True)
class Budget:
    """How much quality may be lost against the uncompressed model.

    Attributes:
        max_psnr_drop: dB. Losing as much ends the loop.
    """

    max_psnr_drop: float

    def is_spent(self, now: ViewMetrics, uncompressed: ViewMetrics) -> bool:
        """Whether a round's quality has dropped by the budget or more."""
        return uncompressed.psnr - now.psnr >= self.max_psnr_drop
