"""The front of a run: the encoded model of every round with its quality, and the choice among them.

The files are ordinary compressed files under ``front/``; ``front.json`` lists them. Any of them is a finished model,
which the final stage can still improve.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.budget import Budget
from compress.run_dir import JournalRow
from gsz.errors import UserError
from gsz.files import atomic_path, read_bytes, write_bytes, write_text
from quality.metrics import ViewMetrics
from utils.cli import say

_LIST_NAME = "front.json"


@dataclass(frozen=True)
class FrontEntry:
    """One model of the front, measured on what was decoded from its file.

    Attributes:
        file: Name of the file in ``front/``.
        stage: The stage it is from, as in the journal.
        gaussians, bytes: How many and how large.
        psnr, ssim, lpips: Means over the views that judge; ``lpips`` is ``None`` where it is not measured.
    """

    file: str
    stage: str
    gaussians: int
    bytes: int
    psnr: float
    ssim: float
    lpips: float | None = None

    @property
    def metrics(self) -> ViewMetrics:
        return ViewMetrics(self.psnr, self.ssim, self.lpips)


def front_entry(row: JournalRow, suffix: str) -> FrontEntry:
    """The entry of a stage's model, whose file ends in ``suffix``."""
    name = row.stage.replace(" ", "_") + suffix
    return FrontEntry(name, row.stage, row.gaussians, row.bytes, row.psnr, row.ssim, row.lpips)


class Front:
    """The folder ``front/`` of a run.

    Args:
        folder: Where the files are.
        entries: What is known to be there, in the order of the rounds.
    """

    def __init__(self, folder: Path, entries: list[FrontEntry]) -> None:
        self.folder = folder
        self.entries = entries

    def clear(self) -> None:
        """Forget an earlier run's front."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.entries = []

    def path(self, entry: FrontEntry) -> Path:
        return self.folder / entry.file

    def add(self, entry: FrontEntry, data: bytes) -> None:
        """Keep a model: its file first, then the list that names it."""
        write_bytes(self.path(entry), data)
        self.entries = [*self.entries, entry]
        write_text(self.folder / _LIST_NAME, json.dumps([asdict(each) for each in self.entries], indent=1))

    def best(self, budget: Budget, uncompressed: ViewMetrics) -> FrontEntry | None:
        """The smallest model whose quality is within the budget, or ``None`` where none is."""
        within = [entry for entry in self.entries if not budget.is_spent(entry.metrics, uncompressed)]
        return min(within, key=lambda entry: entry.bytes, default=None)

    def smallest_first(self) -> list[FrontEntry]:
        """The models that no other one beats in both size and PSNR, smallest first."""
        kept: list[FrontEntry] = []
        for entry in sorted(self.entries, key=lambda entry: (entry.bytes, -entry.psnr)):
            if not kept or entry.psnr > kept[-1].psnr:
                kept.append(entry)
        return kept

    def print_table(self) -> None:
        """Print size against quality, smallest first."""
        say("front (before the final stage):")
        say(f"  {'MB':>8}{'PSNR':>8}{'SSIM':>8}{'Gaussians':>12}  stage")
        for entry in self.smallest_first():
            say(f"  {entry.bytes / 1e6:>8.2f}{entry.psnr:>8.2f}{entry.ssim:>8.4f}{entry.gaussians:>12,}  {entry.stage}")

    def write_plot(self, path: Path) -> None:
        """Draw PSNR against size, as a PNG."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        front = self.smallest_first()
        axes.plot(
            [entry.bytes / 1e6 for entry in self.entries], [entry.psnr for entry in self.entries], ".", color="0.6"
        )
        axes.plot([entry.bytes / 1e6 for entry in front], [entry.psnr for entry in front], "o-", markersize=4)
        axes.set(xlabel="file (MB)", ylabel="PSNR (dB)")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
        plt.close(figure)


def read_front(folder: Path) -> Front:
    """The front that a run wrote to a folder.

    Raises:
        UserError: there is none, or its list is damaged.
    """
    path = folder / _LIST_NAME
    try:
        entries = [FrontEntry(**entry) for entry in json.loads(read_bytes(path))]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is not a front that train.py wrote ({error}); run it again") from error
    if any(Path(entry.file).name != entry.file for entry in entries):
        raise UserError(f"{path}: names a file outside its folder; run train.py again")
    return Front(folder, entries)
