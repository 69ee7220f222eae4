"""How good renders are, in numbers: those of views, their means, and how a model directory records them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsz.errors import UserError
from gsz.files import read_bytes


@dataclass(frozen=True)
class ViewMetrics:
    """The three metrics of one view, or their means over several.

    Attributes:
        psnr: dB; infinite for identical images.
        ssim: At most 1.
        lpips: At least 0, or ``None`` where LPIPS is not available.
    """

    psnr: float
    ssim: float
    lpips: float | None = None


def mean_metrics(views: Sequence[ViewMetrics]) -> ViewMetrics:
    """The mean of each metric over at least one view. LPIPS is ``None`` unless every view has it."""
    if not views:
        raise ValueError("no views to average")
    distances = [view.lpips for view in views if view.lpips is not None]
    return ViewMetrics(
        psnr=math.fsum(view.psnr for view in views) / len(views),
        ssim=math.fsum(view.ssim for view in views) / len(views),
        lpips=math.fsum(distances) / len(views) if len(distances) == len(views) else None,
    )


@dataclass(frozen=True)
class ModelSummary:
    """One row of every table: how good a model is, how big, how fast. ``None`` stands for a value that is not known.

    Attributes:
        metrics: Means over the test views.
        gaussians: Number of Gaussians.
        bytes: Size of the file that was rendered.
        fps: Views a second, rendering alone.
        backend: The renderer that ``fps`` belongs to.
    """

    metrics: ViewMetrics
    gaussians: int | None = None
    bytes: int | None = None
    fps: float | None = None
    backend: str | None = None

    @property
    def megabytes(self) -> float | None:
        """Units of 10^6 bytes."""
        return None if self.bytes is None else self.bytes / 1e6

    @property
    def bytes_per_gaussian(self) -> float | None:
        return None if self.bytes is None or not self.gaussians else self.bytes / self.gaussians

    def to_json(self) -> dict[str, Any]:
        """The value of one method in ``results.json``: INRIA's three keys, and others that INRIA's tools ignore."""
        return {
            "SSIM": self.metrics.ssim,
            "PSNR": finite_or_none(self.metrics.psnr),
            "LPIPS": self.metrics.lpips,
            "Gaussians": self.gaussians,
            "Bytes": self.bytes,
            "BytesPerGaussian": self.bytes_per_gaussian,
            "FPS": self.fps,
            "Backend": self.backend,
        }

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> ModelSummary:
        """The inverse of :meth:`to_json`, which also reads what INRIA's ``metrics.py`` wrote.

        Raises:
            ValueError: PSNR or SSIM is missing, or a value is of the wrong type.
        """

        def number(key: str) -> float | None:
            value = entry.get(key)
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{key} is not a number")
            return float(value)

        def count(key: str) -> int | None:
            value = number(key)
            return None if value is None else int(value)

        ssim_value, psnr_value = number("SSIM"), number("PSNR")
        if ssim_value is None or "PSNR" not in entry:
            raise ValueError("PSNR or SSIM is missing")
        return ModelSummary(
            # JSON has no infinity; a PSNR of null is that of identical images.
            metrics=ViewMetrics(math.inf if psnr_value is None else psnr_value, ssim_value, number("LPIPS")),
            gaussians=count("Gaussians"),
            bytes=count("Bytes"),
            fps=number("FPS"),
            backend=None if entry.get("Backend") is None else str(entry["Backend"]),
        )


def mean_summary(summaries: Sequence[ModelSummary]) -> ModelSummary:
    """The mean over at least one model, as datasets are reported. A value that one model lacks is ``None``."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(values) else None

    def rounded(value: float | None) -> int | None:
        return None if value is None else round(value)

    backends = {summary.backend for summary in summaries}
    return ModelSummary(
        metrics=mean_metrics([summary.metrics for summary in summaries]),
        gaussians=rounded(mean([summary.gaussians for summary in summaries])),
        bytes=rounded(mean([summary.bytes for summary in summaries])),
        fps=mean([summary.fps for summary in summaries]),
        backend=backends.pop() if len(backends) == 1 else None,
    )


def read_summary(model_dir: Path, method: str | None = None) -> ModelSummary:
    """What ``metrics.py`` wrote into a model directory.

    Args:
        method: Such as "ours_30000"; by default the one of the highest iteration.

    Raises:
        UserError: there is no ``results.json``, or it is damaged.
    """
    path = model_dir / "results.json"
    try:
        results = json.loads(read_bytes(path))
        name = method if method is not None else max(results, key=_iteration)
        return ModelSummary.from_json(results[name])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: is damaged or lacks the method ({error}); run metrics.py again") from error


def _iteration(method: str) -> tuple[int, str]:
    digits = method.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else -1, method)


def finite_or_none(value: float) -> float | None:
    """``value`` for a JSON file, which cannot hold infinity."""
    return value if math.isfinite(value) else None
