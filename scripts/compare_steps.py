"""Measure what learned quantization steps are worth, beside those that a quality names, at one count of Gaussians.

    python train.py -s demo/snowmiku -i images_400 --eval --pretrained_dir demo/snowmiku/pretrained -m output/rounds \\
        --config configs/demo.yaml
    python scripts/compare_steps.py -s demo/snowmiku -i images_400 --pretrained_ply output/rounds/front/round_6.gsz \\
        --final_iterations 1000 --json output/steps.json

Every run is the final stage of ``train.py`` alone, from the same model. Models are measured on the test views, read
back from their files. The last columns say how many bytes more or less a file has than one of fixed steps with the same
PSNR would have, on test and on training views, by the straight lines between those (in logarithms of bytes). A run
whose result the JSON file already holds is not done again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import math
import tempfile
import time
from bisect import bisect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root  # noqa: F401
import tyro
from experiment import parse

from compress.judging import Judge
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from programs import compression
from programs.options import CompressOptions
from quality.summary import ViewMetrics
from utils import cli
from utils.results import read_results, write_results
from utils.tables import NOT_AVAILABLE, format_table

VARIANTS: dict[str, dict[str, Any]] = {
    "fixed, high, 0.00002": {"codec": "gsz:quality=high", "rate_weight": 0.00002},
    "fixed, medium, 0.00005": {"codec": "gsz:quality=medium", "rate_weight": 0.00005},
    "fixed, low, 0.0001": {"codec": "gsz:quality=low", "rate_weight": 0.0001},
    "fixed, low, 0.0002": {"codec": "gsz:quality=low", "rate_weight": 0.0002},
    "fixed, tiny, 0.0002": {"codec": "gsz:quality=tiny", "rate_weight": 0.0002},
    "learned, from medium, 0.00005": {"codec": "gsz", "rate_weight": 0.00005, "learn_steps": True},
    "learned, from medium, 0.0001": {"codec": "gsz", "rate_weight": 0.0001, "learn_steps": True},
    "learned, from low, 0.0001": {"codec": "gsz:quality=low", "rate_weight": 0.0001, "learn_steps": True},
    "learned, from low, 0.0002": {"codec": "gsz:quality=low", "rate_weight": 0.0002, "learn_steps": True},
}
"""Settings of the recipe, by name: which steps, those of which quality, and the rate_weight."""

ONLY_THE_END = {"first_iterations": 0, "max_rounds": 0, "end_with": "last", "max_psnr_drop": math.inf}
ONLY_THE_END |= {
    "progressive": False,
    "learn_steps": False,
    "max_ssim_drop": math.inf,
    "target_size": None,
    "target_count": None,
    "keep_ratio": None,
}


@dataclass
class Options(CompressOptions):
    """What learned steps are worth. Options that are not of the comparison are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/steps")
    """Nothing is written there."""
    json: Path = Path("output/steps.json")
    """Results."""
    variants: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = tuple(VARIANTS)
    """Runs to compare."""


def compare(run: Options) -> list[dict[str, Any]]:
    """The rows of the variants: those that ``--json`` holds, and the others, which are added to it one at a time.

    Raises:
        UserError: the file holds results of another baseline.
    """
    original, original_path = compression.load_original(run)
    scene = compression.load_scene(run, original, original_path)
    test, training = (Judge(Views.of(scene, views, run.backend)) for views in (scene.test, scene.train))
    baseline = run.recipe.with_settings(ONLY_THE_END, "the comparison")
    settings = {**asdict(baseline), "gaussians": len(original)}
    rows = read_results(run.json, settings)
    done = {row["variant"] for row in rows}
    for name in (name for name in run.variants if name not in done):
        cli.say(f"--- {name}")
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out, cli.progress_bar("train", "it") as progress:
            recipe = baseline.with_settings(VARIANTS[name], name)
            result = compression.run(replace(run, recipe=recipe, model_path=Path(out)), progress)
            assert result is not None
            steps = registry.info(result.path)["steps"]
        row = {
            "variant": name,
            "gaussians": len(result.splats),
            "bytes": result.journal[-1].bytes,
            "cpu_seconds": time.process_time() - began,
            "steps": steps,
            "test": asdict(test.evaluate(result.splats)),
            "training": asdict(training.evaluate(result.splats)),
        }
        rows = [*rows, row]
        write_results(run.json, settings, rows)
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a variant in Markdown."""
    steps = list(dict.fromkeys(name for row in rows for name in row["steps"]))
    header = [
        "",
        "bytes",
        "B/G",
        "PSNR",
        "SSIM",
        "training PSNR",
        *steps,
        "CPU-s",
        "at equal PSNR",
        "on training views",
    ]
    table = []
    for row in rows:
        test, trained = ViewMetrics(**row["test"]), ViewMetrics(**row["training"])
        cells = [row["variant"], f"{row['bytes']:,}", f"{row['bytes'] / row['gaussians']:.2f}"]
        cells += [
            f"{test.psnr:.2f}",
            f"{test.ssim:.4f}",
            f"{trained.psnr:.2f}",
            *(f"{row['steps'][name]:.3g}" for name in steps),
        ]
        fixed = [other for other in rows if other["variant"].startswith("fixed")]
        cells.append(f"{row['cpu_seconds']:.0f}")
        for views in ("test", "training"):
            saved = bytes_saved(row, fixed, views)
            cells.append(NOT_AVAILABLE if saved is None else f"{-100 * saved:+.1f} %")
        table.append(cells)
    return format_table(header, table, "markdown")


def bytes_saved(row: dict[str, Any], fixed: list[dict[str, Any]], views: str) -> float | None:
    """The fraction of the bytes that fixed steps need for the same PSNR, by the lines between their best files.

    The lines at both ends go on.

    Args:
        views: whose PSNR, ``test`` or ``training``.

    Returns:
        None for fixed steps themselves, and where these have no line.
    """
    points = [(one[views]["psnr"], math.log(one["bytes"])) for one in fixed]
    front = sorted(one for one in points if not any(other[1] < one[1] and other[0] >= one[0] for other in points))
    if row in fixed or len(front) < 2:
        return None
    psnr = row[views]["psnr"]
    above = min(max(bisect(front, (psnr,)), 1), len(front) - 1)
    (low, fewer), (high, more) = front[above - 1 : above + 1]
    return 1.0 - row["bytes"] / math.exp(more + (more - fewer) / (high - low) * (psnr - high))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse(arguments, Options)
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        raise UserError(f"--variants {unknown[0]}: there is none of that name; choose among {', '.join(VARIANTS)}")
    cli.say(results_table(compare(options)))


if __name__ == "__main__":
    cli.run(main)
