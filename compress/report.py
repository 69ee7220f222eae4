"""What a run tells at its end: a table of the model before and after."""

from __future__ import annotations

from compress.journal import Journal
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
