"""What each setting of the schedule is worth: runs that differ in one of them, at equal iterations and equal counts.

    python scripts/compare_schedules.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        --json output/schedules.json [settings of train.py]

Every run is one of ``train.py`` that keeps ``--keep_ratio`` of the Gaussians whatever it costs; ``--iterations`` are
shared out among its rounds and its final stage. Models are measured on the test views, read back from their files.
A run whose result the JSON file already holds is not done again.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import _root  # noqa: F401

import train
from compress.recipe import Recipe
from compress.views import Views
from quality.metrics import ViewMetrics
from utils import cli
from utils.results import read_results, write_results
from utils.tables import format_table

FINAL_SHARE = 0.4
"""Of the iterations, what the final stage has; the rest is for the rounds."""


@dataclass(frozen=True)
class Variant:
    """A run that differs from the others in one respect.

    Attributes:
        settings: Of the recipe, in place of the baseline's.
        final_share: Of the iterations, what the final stage has.
    """

    settings: dict[str, Any]
    final_share: float = FINAL_SHARE

    def recipe(self, baseline: Recipe, iterations: int, keep_ratio: float) -> Recipe:
        """The recipe that spends so many iterations, as evenly as whole rounds allow, on so many Gaussians."""
        recipe = baseline.with_settings(self.settings, "variant")
        rounds = math.ceil(math.log(keep_ratio) / math.log(1.0 - recipe.prune_fraction) - 1e-9)
        each = round((1.0 - self.final_share) * iterations) // (rounds + 1)
        return replace(
            recipe,
            first_iterations=each,
            round_iterations=each,
            final_iterations=iterations - (rounds + 1) * each,
            # Fractions are of whole Gaussians, so that a round more may be needed for the last few.
            max_rounds=rounds + 1,
            keep_ratio=keep_ratio,
            target_count=0,
            target_size="",
            max_psnr_drop=math.inf,
            max_ssim_drop=math.inf,
            max_lpips_rise=math.inf,
            end_with="last",
        )


VARIANTS = {
    "baseline": Variant({}),
    "2 % a round": Variant({"prune_fraction": 0.02}),
    "5 % a round": Variant({"prune_fraction": 0.05}),
    "20 % a round": Variant({"prune_fraction": 0.2}),
    "40 % a round": Variant({"prune_fraction": 0.4}),
    "more iterations in the rounds": Variant({}, final_share=0.15),
    "more iterations at the end": Variant({}, final_share=0.7),
    "constant rates": Variant({"lr_decay": 1.0}),
    "Adam's moments kept": Variant({"keep_optimizer": True}),
    "no penalty on sh_rest": Variant({"sh_rest_penalty": 0.0}),
    "penalty 0.01": Variant({"sh_rest_penalty": 0.01}),
    "sh_rest of 10 % a round": Variant({"sh_prune_fraction": 0.1}),
    "sh_rest of 20 % a round": Variant({"sh_prune_fraction": 0.2}),
}


def compare(run: train.Options, names: Sequence[str], path: Path, iterations: int, keep_ratio: float) -> list[dict]:
    """The rows of the variants: those that ``path`` holds, and the others, which are added to it one at a time.

    Raises:
        UserError: ``path`` holds results of another baseline.
    """
    original, original_path = train.load_original(run)
    scene = train.load_scene(run, original, original_path)
    test = Views(scene.test, scene.images.load, scene.background, scene.extent, run.backend)
    settings = {**asdict(run.recipe), "iterations": iterations, "keep_ratio": keep_ratio, "gaussians": len(original)}
    rows = read_results(path, settings)
    done = {row["variant"] for row in rows}
    for number, name in enumerate(name for name in names if name not in done):
        cli.say(f"--- {name} ({number + 1} of {len(set(names) - done)})")
        recipe = VARIANTS[name].recipe(run.recipe, iterations, keep_ratio)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            result = train.train(replace(run, recipe=recipe, model_path=Path(out)))
        seconds = time.process_time() - began
        rows = [
            *rows,
            {
                "variant": name,
                "iterations": result.iterations,
                "gaussians": len(result.splats),
                "bytes": result.journal[-1].bytes,
                "cpu_seconds": seconds,
                "validation": asdict(result.journal[-1].metrics),
                "test": asdict(test.evaluate(result.splats)),
            },
        ]
        write_results(path, settings, rows)
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a variant in Markdown."""
    header = ["", "Gaussians", "MB", "PSNR", "SSIM", "validation PSNR", "CPU-s"]
    table = []
    for row in rows:
        test, validation = ViewMetrics(**row["test"]), ViewMetrics(**row["validation"])
        table.append(
            [
                row["variant"],
                f"{row['gaussians']:,}",
                f"{row['bytes'] / 1e6:.3f}",
                f"{test.psnr:.2f}",
                f"{test.ssim:.4f}",
                f"{validation.psnr:.2f}",
                f"{row['cpu_seconds']:.0f}",
            ]
        )
    return format_table(header, table, "markdown")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="All other options are those of train.py.", allow_abbrev=False
    )
    parser.add_argument("--json", type=Path, default=Path("output/schedules.json"), help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--iterations", type=int, default=3000, help="of each run (default: %(default)s)")
    parser.add_argument("--keep_ratio", type=float, default=0.25, help="of the Gaussians (default: %(default)s)")
    options, settings = parser.parse_known_args(arguments)
    if options.iterations < 1 or not 0.0 < options.keep_ratio < 1.0:
        parser.error("--iterations must be positive and --keep_ratio between 0 and 1")
    run = train.parse([*settings, "--eval", "-m", str(options.json.parent)])
    cli.say(results_table(compare(run, options.variants, options.json, options.iterations, options.keep_ratio)))


if __name__ == "__main__":
    cli.run(main)
