"""What came out of a batch: tables beside the published figures, and ``results.json``, ``.csv`` and ``.md``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch.datasets import Dataset
from gsz.files import write_text
from quality.summary import ModelSummary, mean_summary
from utils.tables import Style, cell, format_table

COLUMNS = ("PSNR", "SSIM", "LPIPS", "Gaussians", "MB", "B/G", "FPS")
_PATTERNS = (".2f", ".3f", ".3f", ",", ".2f", ".2f", ".1f")
_DIFFERENCES = ("+.2f", "+.3f", "+.3f", "+,", "+.2f", "+.2f", "+.1f")


@dataclass
class DatasetResults:
    """What became of a dataset's scenes under one recipe: a summary, or one line that says why there is none.

    Attributes:
        recipe: Its name; empty where the batch has only one.
    """

    dataset: Dataset
    recipe: str
    summaries: dict[str, ModelSummary] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def average(self) -> ModelSummary | None:
        return mean_summary(list(self.summaries.values())) if self.summaries else None

    @property
    def published_average(self) -> ModelSummary | None:
        """The published figures, averaged over the scenes that there are results of; all where there is none."""
        if not self.summaries or not self.dataset.published or len(self.summaries) == len(self.dataset.images):
            return self.dataset.published_average
        return mean_summary([self.dataset.published[scene] for scene in self.summaries])


def report(results: Sequence[DatasetResults], style: Style = "text") -> str:
    """The scenes and the averages beside the published ones, and what is missing."""
    scenes: list[list[str]] = []
    averages: list[list[str]] = []
    for each in results:
        title = each.dataset.title + (f", {each.recipe}" if each.recipe else "")
        for scene, summary in each.summaries.items():
            scenes += _beside(f"{title}: {scene}", summary, each.dataset.published.get(scene))
        if each.average is not None:
            share = f"{len(each.summaries)} of {len(each.dataset.images)} scenes"
            averages += _beside(f"{title} ({share})", each.average, each.published_average)
        elif each.dataset.published_average is not None:
            averages.append([f"{each.dataset.title}, published", *_cells(each.dataset.published_average)])
    parts = [format_table(["scene", *COLUMNS], scenes, style)] if scenes else []
    parts.append(format_table(["average", *COLUMNS], averages, style))
    gaps = [f"skipped: {_name(each, scene)}, {why}" for each in results for scene, why in each.skipped.items()]
    gaps += [f"FAILED: {_name(each, scene)}, {why}" for each in results for scene, why in each.failed.items()]
    return "\n\n".join([*parts, *(["\n".join(gaps)] if gaps else [])])


def write_report(results: Sequence[DatasetResults], folder: Path) -> None:
    """Write ``results.json``, ``results.csv`` and ``results.md``."""
    tree: dict[str, dict] = {}
    rows: list[list[str]] = []
    for each in results:
        published = _published(each.dataset)
        entry = tree.setdefault(
            each.dataset.key,
            {"published": {name: summary.to_json() for name, summary in published.items()}, "recipes": {}},
        )
        entry["recipes"][each.recipe or "default"] = {
            "scenes": {scene: summary.to_json() for scene, summary in each.summaries.items()},
            "average": None if each.average is None else each.average.to_json(),
            "skipped": each.skipped,
            "failed": each.failed,
        }
        ours = {**each.summaries, **({} if each.average is None else {"average": each.average})}
        rows += [[each.dataset.key, each.recipe, name, *_plain(summary)] for name, summary in ours.items()]
    for dataset in {each.dataset.key: each.dataset for each in results}.values():
        published = _published(dataset)
        rows += [[dataset.key, "published", name, *_plain(summary)] for name, summary in published.items()]
    write_text(folder / "results.json", json.dumps(tree, indent=2, allow_nan=False) + "\n")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["dataset", "recipe", "scene", *COLUMNS], *rows])
    write_text(folder / "results.csv", text.getvalue())
    write_text(folder / "results.md", report(results, "markdown") + "\n")


def _published(dataset: Dataset) -> dict[str, ModelSummary]:
    average = dataset.published_average
    return {**dataset.published, **({} if average is None else {"average": average})}


def _beside(name: str, ours: ModelSummary, published: ModelSummary | None) -> list[list[str]]:
    if published is None:
        return [[name, *_cells(ours)]]
    differences = [
        cell(None if mine is None or theirs is None else mine - theirs, pattern)
        for mine, theirs, pattern in zip(_values(ours), _values(published), _DIFFERENCES, strict=True)
    ]
    return [[name, *_cells(ours)], ["  published", *_cells(published)], ["  difference", *differences]]


def _name(results: DatasetResults, scene: str) -> str:
    return f"{scene} ({results.recipe})" if results.recipe else scene


def _values(summary: ModelSummary) -> tuple[float | None, ...]:
    metrics = summary.metrics
    size = (summary.gaussians, summary.megabytes, summary.bytes_per_gaussian)
    return (metrics.psnr, metrics.ssim, metrics.lpips, *size, summary.fps)


def _cells(summary: ModelSummary) -> list[str]:
    return [cell(value, pattern) for value, pattern in zip(_values(summary), _PATTERNS, strict=True)]


def _plain(summary: ModelSummary) -> list[str]:
    return ["" if value is None else str(value) for value in _values(summary)]
