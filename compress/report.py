"""What a run tells at its end: a table of the model before and after, and the journal as a picture."""

from __future__ import annotations

from pathlib import Path

from compress.front import rounds_of
from compress.journal import Journal
from gsz.files import atomic_path
from utils.tables import format_table


def journal_table(journal: Journal) -> str:
    """The first and the last row of a journal beside each other."""
    before, after = journal[0], journal[-1]
    rows = []
    if after.estimated_psnr is None:
        rows += [
            ["PSNR (dB)", f"{before.psnr:.2f}", f"{after.psnr:.2f}"],
            ["SSIM", f"{before.ssim:.4f}", f"{after.ssim:.4f}"],
        ]
    else:
        rows += [
            ["PSNR to the original's renders (dB)", "", f"{after.psnr:.2f}"],
            ["SSIM to the original's renders", "", f"{after.ssim:.4f}"],
            ["estimated PSNR to photographs (dB)", f"{before.estimated_psnr:.2f}", f"{after.estimated_psnr:.2f}"],
            ["estimated SSIM to photographs", f"{before.estimated_ssim:.4f}", f"{after.estimated_ssim:.4f}"],
        ]
    rows += [
        ["Gaussians", f"{before.gaussians:,}", f"{after.gaussians:,}"],
        ["MB", f"{before.bytes / 1e6:.2f}", f"{after.bytes / 1e6:.2f}"],
        ["bytes a Gaussian", *(f"{row.bytes / max(row.gaussians, 1):.1f}" for row in (before, after))],
    ]
    return format_table(["", "before", "after"], rows)


def write_journal_plot(journal: Journal, path: Path) -> None:
    """Draw PSNR and encoded size against the number of Gaussians, a point a round, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rounds, (before, *_, after) = rounds_of(journal), journal
    figure, quality = plt.subplots(figsize=(7, 4), layout="constrained")
    size = quality.twinx()
    counts = [row.gaussians for row in rounds]
    quality.plot(counts, [row.psnr for row in rounds], "o-", markersize=3, color="tab:blue", label="rounds")
    quality.plot([after.gaussians], [after.psnr], "*", markersize=12, color="tab:blue", label="final")
    if before.estimated_psnr is None:
        quality.axhline(before.psnr, linestyle="--", linewidth=1, color="tab:gray", label="uncompressed")
    size.plot(counts, [row.bytes / 1e6 for row in rounds], "-", linewidth=1, color="tab:orange")
    quality.invert_xaxis()
    quality.set(xlabel="Gaussians", ylabel="PSNR (dB)")
    size.set_ylabel("file (MB)", color="tab:orange")
    quality.legend(loc="lower left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
