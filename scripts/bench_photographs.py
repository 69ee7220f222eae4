"""Time what photographs cost an epoch of training: reading them, and what SSIM needs of each.

    python scripts/bench_photographs.py --json output/bench_photographs.json

A scene of random photographs is written to a temporary folder. Each epoch asks for every view once, in random order, as
training does, with a cache that holds all of them, half of them, or none. CPU time hardly depends on who else uses the
machine; wall time does.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from _root import ROOT  # noqa: F401
from PIL import Image

from gsz.files import write_text
from quality.ssim import SSIMTarget
from scene.cache import ImageCache
from scene.cameras import Camera
from scene.images import Photographs
from utils import cli
from utils.cli import say
from utils.tables import format_table

JPEG_QUALITY = 92
KEPT_SHARES = (1.0, 0.5, 0.0)


@dataclass
class Options:
    """Time what photographs cost an epoch of training."""

    json: Path | None = None
    """Write the figures to this file as well."""
    views: int = 250
    """Number of photographs."""
    width: int = 1600
    """Of a photograph, in pixels."""
    height: int = 1064
    """Of a photograph, in pixels."""
    epochs: int = 3
    """Passes over all views, the first of which reads every photograph."""
    threads: int = 1
    """CPU threads."""


def write_photographs(folder: Path, options: Options) -> list[Camera]:
    """JPEGs of a random landscape with grain, each another part of it, and cameras that took them."""
    random = np.random.default_rng(0)
    width, height = options.width, options.height
    size = (2 * width, 2 * height)
    hills = Image.fromarray(random.integers(0, 200, (size[1] // 40, size[0] // 40, 3), dtype=np.uint8)).resize(size)
    grain = random.integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
    landscape = Image.fromarray(np.asarray(hills) // 2 + grain)
    cameras = []
    for index in range(options.views):
        left, top = int(random.integers(width)), int(random.integers(height))
        path = folder / f"{index:04d}.jpg"
        landscape.crop((left, top, left + width, top + height)).save(path, quality=JPEG_QUALITY)
        cameras.append(Camera(path.stem, width, height, width, width, width / 2, height / 2, np.eye(4), path))
    return cameras


def time_epochs(cameras: list[Camera], share: float, epochs: int) -> list[dict[str, Any]]:
    """CPU and wall seconds of each epoch with a cache that holds a share of the photographs, and what it holds then."""
    one = 3 * cameras[0].width * cameras[0].height
    cache = ImageCache(int(share * len(cameras)) * one)
    photographs = Photographs(cache)
    random = np.random.default_rng(1)
    rows = []
    for epoch in range(epochs):
        cpu, wall = time.process_time(), time.perf_counter()
        for index in random.permutation(len(cameras)):
            SSIMTarget.of(photographs.load(cameras[index]))
        seconds = time.process_time() - cpu, time.perf_counter() - wall
        rows.append(
            {
                "kept_share": share,
                "epoch": epoch + 1,
                "cpu_seconds": seconds[0],
                "wall_seconds": seconds[1],
                "held_bytes": cache.held_bytes,
            }
        )
    return rows


def bench(options: Options) -> dict[str, Any]:
    """All figures; the peak memory is that of this process, with the cache that holds all photographs."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        cameras = write_photographs(Path(folder), options)
        file_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
        SSIMTarget.of(torch.zeros(16, 16, 3))  # Compiles what is not to be timed.
        rows = [row for share in KEPT_SHARES for row in time_epochs(cameras, share, options.epochs)]
    settings = {name: value for name, value in asdict(options).items() if name != "json"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"settings": settings, "file_bytes": file_bytes, "peak_bytes": peak, "rows": rows}


def table(found: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['kept_share']:.0%}",
            str(row["epoch"]),
            f"{row['cpu_seconds']:.2f}",
            f"{row['wall_seconds']:.2f}",
            f"{row['held_bytes'] / 1e6:.0f}",
        ]
        for row in found["rows"]
    ]
    return format_table(["kept", "epoch", "CPU s", "wall s", "MB held"], rows)


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    found = bench(options)
    say(
        f"{options.views} photographs of {options.width}x{options.height}, {found['file_bytes'] / 1e6:.0f} MB of JPEG; "
        f"{options.threads} threads; at most {found['peak_bytes'] / 1e6:.0f} MB of memory"
    )
    say(table(found))
    if options.json is not None:
        write_text(options.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    cli.run(main)
