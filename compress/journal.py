"""The journal of a run: what each stage came to."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gsz.errors import UserError
from gsz.files import read_bytes
from quality.summary import ViewMetrics

UNCOMPRESSED = "uncompressed"
FINAL = "final"
"""Stages that are not rounds: before the first and after the last."""

_DECIMALS = 6


@dataclass(frozen=True)
class Verdict:
    """How good a model is.

    Attributes:
        measured: Means over the views, against their targets.
        estimated: What they would be against photographs, where the targets are renders of the original.
    """

    measured: ViewMetrics
    estimated: ViewMetrics | None = None

    @property
    def counted(self) -> ViewMetrics:
        """What a budget is spent by."""
        return self.measured if self.estimated is None else self.estimated


@dataclass(frozen=True)
class JournalRow:
    """One row of ``journal.csv``: the model after a stage, measured on what was decoded from its bytes.

    Attributes:
        stage: "uncompressed", "first", "round 1", ..., "final".
        iteration: Iterations of fine-tuning so far.
        gaussians: How many there are.
        psnr, ssim, lpips: Means over the views the run stops on, against their targets; ``lpips`` is ``None`` where it
            is not measured.
        bytes: Size of the encoded model (of the checkpoint's file for "uncompressed").
        score_seconds, finetune_seconds, encode_seconds, evaluate_seconds: Time of the stage's phases.
        estimated_psnr, estimated_ssim: Where the targets are renders of the original: estimates against photographs.
    """

    stage: str
    iteration: int
    gaussians: int
    psnr: float
    ssim: float
    bytes: int
    score_seconds: float = 0.0
    finetune_seconds: float = 0.0
    encode_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    lpips: float | None = None
    estimated_psnr: float | None = None
    estimated_ssim: float | None = None

    def __post_init__(self) -> None:
        """Round to what the file holds, so that a run that is resumed from it decides as one that never stopped."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                object.__setattr__(self, field.name, round(value, 1 if field.name.endswith("_seconds") else _DECIMALS))

    @property
    def verdict(self) -> Verdict:
        """How good the model is."""
        measured = ViewMetrics(self.psnr, self.ssim, self.lpips)
        if self.estimated_psnr is None or self.estimated_ssim is None:
            return Verdict(measured)
        return Verdict(measured, ViewMetrics(self.estimated_psnr, self.estimated_ssim, self.lpips))

    @property
    def metrics(self) -> ViewMetrics:
        """What a budget is spent by."""
        return self.verdict.counted


Journal = list[JournalRow]


def read_journal(path: Path) -> Journal:
    """The rows of a ``journal.csv``, at least one.

    Raises:
        UserError: the file is missing or damaged.
    """
    text = read_bytes(path).decode(errors="replace")
    try:
        rows = [_row(row) for row in csv.DictReader(io.StringIO(text))]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a journal that train.py wrote ({error}); run it again") from error
    if not rows:
        raise UserError(f"{path}: is empty; run train.py again")
    return rows


def _row(cells: dict[str, str]) -> JournalRow:
    def number(name: str) -> float:
        return float(cells[name])

    def optional(name: str) -> float | None:
        return float(cells[name]) if cells.get(name) else None

    try:
        return JournalRow(
            stage=cells["stage"],
            iteration=int(cells["iteration"]),
            gaussians=int(cells["gaussians"]),
            psnr=number("psnr"),
            ssim=number("ssim"),
            bytes=int(cells["bytes"]),
            score_seconds=number("score_seconds"),
            finetune_seconds=number("finetune_seconds"),
            encode_seconds=number("encode_seconds"),
            evaluate_seconds=number("evaluate_seconds"),
            lpips=optional("lpips"),
            estimated_psnr=optional("estimated_psnr"),
            estimated_ssim=optional("estimated_ssim"),
        )
    except KeyError as error:
        raise ValueError(f"it has no column {error}") from error


def journal_csv(rows: Journal) -> str:
    """The journal as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(JournalRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in asdict(row).items()} for row in rows)
    return text.getvalue()
