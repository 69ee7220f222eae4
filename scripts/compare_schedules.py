"""Measure what each setting of the schedule is worth, by runs that differ in one, at equal iterations and counts.

    python scripts/compare_schedules.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        --json output/schedules.json [settings of train.py]

Every run is one of ``train.py`` that keeps ``--keep_ratio`` of the Gaussians whatever it costs; ``--iterations`` are
shared out among its rounds and its final stage. Models are measured on the test views, read back from their files.
A run whose result the JSON file already holds is not done again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root  # noqa: F401
import tyro
from experiment import Experiment, parse_experiment, without_budget

from compress.judging import Judge
from compress.recipe import Recipe
from compress.views import Views
from programs import compression
from quality.summary import ViewMetrics
from utils import cli
from utils.results import read_results, write_results
from utils.tables import format_table

KEEP_RATIO = 0.25
"""Of the Gaussians, what is left where --keep_ratio does not say."""

FINAL_SHARE = 0.4
"""Of the iterations, what the final stage has; the rest is for the rounds."""


@dataclass(frozen=True)
class Variant:
    """A run that differs from the others in one respect.

    Attributes:
        settings: Settings of the recipe in place of the baseline's.
        final_share: Share of the iterations that the final stage has.
    """

    settings: dict[str, Any]
    final_share: float = FINAL_SHARE

    def recipe(self, baseline: Recipe, iterations: int, keep_ratio: float) -> Recipe:
        """The recipe that spends so many iterations on so many Gaussians."""
        recipe = baseline.with_settings(self.settings, "variant")
        return at_equal_cost(recipe, iterations, keep_ratio, self.final_share)


def at_equal_cost(recipe: Recipe, iterations: int, keep_ratio: float, final_share: float = FINAL_SHARE) -> Recipe:
    """The recipe with so many iterations, as evenly as whole rounds allow, that keeps so many Gaussians at any loss."""
    rounds = math.ceil(math.log(keep_ratio) / math.log(1.0 - recipe.prune_fraction) - 1e-9)
    each = round((1.0 - final_share) * iterations) // (rounds + 1)
    return replace(
        without_budget(recipe),
        first_iterations=each,
        round_iterations=each,
        final_iterations=iterations - (rounds + 1) * each,
        # Fractions are of whole Gaussians, so that a round more may be needed for the last few.
        max_rounds=rounds + 1,
        keep_ratio=keep_ratio,
    )


VARIANTS = {
    "baseline": Variant({}),
    "2 % a round": Variant({"prune_fraction": 0.02}),
    "5 % a round": Variant({"prune_fraction": 0.05}),
    "20 % a round": Variant({"prune_fraction": 0.2}),
    "40 % a round": Variant({"prune_fraction": 0.4}),
    "more iterations in the rounds": Variant({}, final_share=0.15),
    "more iterations at the end": Variant({}, final_share=0.7),
    "no regrowth": Variant({"regrow_fraction": 0.0}),
    "regrowth of at most 5 % a round": Variant({"regrow_fraction": 0.05}),
    "rates of the final stage as in the rounds": Variant({"final_lr_factor": 1.0}),
    "rates of the final stage twice those of the rounds": Variant({"final_lr_factor": 2.0}),
    "rates that decay, no average": Variant({"lr_decay": 0.01, "average": 0.0, "final_lr_factor": 1.0}),
    "rates that decay, no average, no regrowth": Variant(
        {"lr_decay": 0.01, "average": 0.0, "final_lr_factor": 1.0, "regrow_fraction": 0.0}
    ),
    "no penalty on sh_rest": Variant({"sh_rest_penalty": 0.0}),
    "penalty 0.01": Variant({"sh_rest_penalty": 0.01}),
    "sh_rest of 10 % a round": Variant({"sh_prune_fraction": 0.1}),
    "sh_rest of 20 % a round": Variant({"sh_prune_fraction": 0.2}),
}


@dataclass
class Options(Experiment):
    """What each setting of the schedule is worth. Options that are not of the comparison are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/schedules")
    """Nothing is written there."""
    json: Path = Path("output/schedules.json")
    """Results."""
    variants: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = tuple(VARIANTS)
    """Runs to compare."""
    iterations: int = 3000
    """Iterations of each run. Of the Gaussians --keep_ratio are left, by default a quarter."""


def compare(run: Options) -> list[dict[str, Any]]:
    """The rows of the variants: those that ``--json`` holds, and the others, which are added to it one at a time.

    Raises:
        UserError: the file holds results of another baseline.
    """
    original, original_path = compression.load_original(run)
    scene = compression.load_scene(run, original, original_path)
    test = Judge(Views.of(scene, scene.test, run.backend))
    kept = run.recipe.keep_ratio or KEEP_RATIO
    settings = {**asdict(run.recipe), "iterations": run.iterations, "keep_ratio": kept, "gaussians": len(original)}
    rows = read_results(run.json, settings)
    done = {row["variant"] for row in rows}
    for number, name in enumerate(name for name in run.variants if name not in done):
        cli.say(f"--- {name} ({number + 1} of {len(set(run.variants) - done)})")
        recipe = VARIANTS[name].recipe(run.recipe, run.iterations, kept)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            result = compression.run(replace(run, recipe=recipe, model_path=Path(out)))
        assert result is not None
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
        write_results(run.json, settings, rows)
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
    cli.say(results_table(compare(parse_experiment(arguments, Options))))


if __name__ == "__main__":
    cli.run(main)
