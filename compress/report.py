"""What a run tells at its end: a table of the model before and after, and the journal as a picture."""

from __future__ import annotations

from pathlib import Path

from compress.run_dir import JournalRow
from gsz.files import atomic_path
from utils.cli import say


def print_journal_table(journal: list[JournalRow], judged_on: str) -> None:
    """Print the first and the last row of a journal beside each other."""
    before, after = journal[0], journal[-1]
    lines = [
        ("", "before", "after"),
        ("PSNR (dB)", f"{before.psnr:.2f}", f"{after.psnr:.2f}"),
        ("SSIM", f"{before.ssim:.4f}", f"{after.ssim:.4f}"),
        ("Gaussians", f"{before.gaussians:,}", f"{after.gaussians:,}"),
        ("MB", f"{before.bytes / 1e6:.2f}", f"{after.bytes / 1e6:.2f}"),
        ("bytes a Gaussian", *(f"{row.bytes / max(row.gaussians, 1):.1f}" for row in (before, after))),
    ]
    say(f"on the {judged_on} views:")
    for label, *values in lines:
        say(f"  {label:<18}" + "".join(f"{value:>12}" for value in values))


def write_journal_plot(journal: list[JournalRow], path: Path) -> None:
    """Draw PSNR and encoded size against the number of Gaussians, a point a round, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rounds = [row for row in journal if row.stage.startswith("round") or row.stage == "first"]
    figure, quality = plt.subplots(figsize=(7, 4), layout="constrained")
    size = quality.twinx()
    counts = [row.gaussians for row in rounds]
    quality.plot(counts, [row.psnr for row in rounds], "o-", markersize=3, color="tab:blue", label="rounds")
    quality.plot([journal[-1].gaussians], [journal[-1].psnr], "*", markersize=12, color="tab:blue", label="final")
    quality.axhline(journal[0].psnr, linestyle="--", linewidth=1, color="tab:gray", label="uncompressed")
    size.plot(counts, [row.bytes / 1e6 for row in rounds], "-", linewidth=1, color="tab:orange")
    quality.invert_xaxis()
    quality.set(xlabel="Gaussians", ylabel="PSNR (dB)")
    size.set_ylabel("file (MB)", color="tab:orange")
    quality.legend(loc="lower left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
