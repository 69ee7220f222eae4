"""The front of a run: size against quality of its rounds, and the choice among them.

Every round's encoded model is kept as an ordinary compressed file under ``front/``, and the journal says what each is
worth. Any of them is a finished model, which the final stage can still improve.
"""

from __future__ import annotations

from compress.budget import Budget, Loss
from compress.journal import FINAL, UNCOMPRESSED, Journal, JournalRow
from utils.tables import format_table


def rounds_of(journal: Journal) -> Journal:
    """The rows whose models are in ``front/``: all but the uncompressed model and the final file."""
    return [row for row in journal if row.stage not in (UNCOMPRESSED, FINAL)]


def best(journal: Journal, budget: Budget) -> JournalRow | None:
    """The round with the smallest model whose quality is within the budget, or ``None`` where there is none."""
    uncompressed = journal[0].metrics
    within = [row for row in rounds_of(journal) if not budget.is_spent(Loss.between(uncompressed, row.metrics))]
    return min(within, key=lambda row: row.bytes, default=None)


def smallest_first(journal: Journal) -> Journal:
    """The rounds that no other one beats in both size and PSNR, smallest first."""
    kept: Journal = []
    for row in sorted(rounds_of(journal), key=lambda row: (row.bytes, -row.psnr)):
        if not kept or row.psnr > kept[-1].psnr:
            kept.append(row)
    return kept


def front_table(journal: Journal) -> str:
    """Size against quality, smallest first."""
    rows = [
        [row.stage, f"{row.bytes / 1e6:.2f}", f"{row.psnr:.2f}", f"{row.ssim:.4f}", f"{row.gaussians:,}"]
        for row in smallest_first(journal)
    ]
    return format_table(["stage", "MB", "PSNR", "SSIM", "Gaussians"], rows)
