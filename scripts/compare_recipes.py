"""Compare the recipes of ``configs/`` at equal iterations and counts, and the coarser models of their files.

    python scripts/compare_recipes.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        --json output/recipes.json [settings of train.py]

Every run is one of ``train.py`` that keeps ``--keep_ratio`` of the Gaussians whatever it costs; ``--iterations`` are
shared out among its rounds and its final stage. Models are measured on the test views, read back from their files, and
so is every coarser model that a file in layers can be cut to. A run whose result the JSON file already holds is not
done again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root
import tyro
from compare_schedules import KEEP_RATIO, at_equal_cost
from experiment import Experiment, parse_experiment

from compress.judging import Judge
from compress.recipe import Recipe
from compress.views import Views
from gsz import registry
from programs import compression
from quality.lpips import load_lpips
from quality.summary import ViewMetrics
from utils import cli
from utils.results import read_results, write_results
from utils.tables import cell, format_table

RECIPES = ("default", "fast3dgs", "progressive", "gode", "elmgs")


@dataclass
class Options(Experiment):
    """Compare the recipes of configs/ at equal cost. Options that are not of the comparison are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/recipes")
    """Nothing is written there."""
    json: Path = Path("output/recipes.json")
    """Results."""
    recipes: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = RECIPES
    """Recipes of configs/ to compare."""
    seeds: tuple[int, ...] = (0,)
    """A run each."""
    iterations: int = 3000
    """Iterations of each run. Of the Gaussians --keep_ratio are left, by default a quarter."""


def compare(run: Options) -> list[dict[str, Any]]:
    """The rows of all recipes and seeds: those that ``--json`` holds, and the others, added to it one at a time.

    Raises:
        UserError: the file holds results of another comparison.
    """
    original, original_path = compression.load_original(run)
    scene = compression.load_scene(run, original, original_path)
    views = Views.of(scene, scene.test, run.backend)
    test = Judge(views, load_lpips(run.lpips_weights) if run.lpips_weights is not None else None)
    kept = run.recipe.keep_ratio or KEEP_RATIO
    settings = {"iterations": run.iterations, "keep_ratio": kept, "gaussians": len(original)}
    rows = read_results(run.json, settings)
    done = {(row["recipe"], row["seed"]) for row in rows}
    wanted = [(name, seed) for seed in run.seeds for name in run.recipes if (name, seed) not in done]
    for number, (name, seed) in enumerate(wanted):
        cli.say(f"--- {name}, seed {seed} ({number + 1} of {len(wanted)})")
        recipe = Recipe.from_yaml(_root.ROOT / "configs" / f"{name}.yaml")
        recipe = replace(at_equal_cost(recipe, run.iterations, kept), seed=seed)
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            # LPIPS takes long, and rounds need not be measured by what does not end them.
            result = compression.run(replace(run, recipe=recipe, model_path=Path(out), lpips_weights=None))
            assert result is not None
            seconds = time.process_time() - began
            data = result.path.read_bytes()
        rows = [
            *rows,
            {
                "recipe": name,
                "seed": seed,
                "iterations": result.iterations,
                "gaussians": len(result.splats),
                "bytes": len(data),
                "cpu_seconds": seconds,
                "test": asdict(test.evaluate(result.splats)),
                "cuts": cuts(data, test),
            },
        ]
        write_results(run.json, settings, rows)
    return rows


def cuts(data: bytes, test: Judge) -> list[dict[str, Any]]:
    """Every coarser model that a file can be cut to, the coarsest first; none where it has no layers."""
    codec = registry.identify(data, "result")
    rows = []
    for level in range(1, len(codec.info(data).get("layers", []))):
        part = codec.cut(data, "result", level)
        splats = codec.decode(part, "result")
        row = {"gaussians": len(splats), "bytes": len(part), "test": asdict(test.evaluate(splats))}
        rows.append(row)
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a run in Markdown, and below each run the models that its file can be cut to."""
    header = ["", "seed", "Gaussians", "MB", "PSNR", "SSIM", "LPIPS", "CPU-s"]
    table = []
    for row in rows:
        names = [row["recipe"], *[f"{row['recipe']}, cut"] * len(row["cuts"])]
        for name, model in zip(names, [row, *reversed(row["cuts"])], strict=True):
            metrics = ViewMetrics(**model["test"])
            table.append(
                [
                    name,
                    str(row["seed"]),
                    f"{model['gaussians']:,}",
                    f"{model['bytes'] / 1e6:.3f}",
                    f"{metrics.psnr:.2f}",
                    f"{metrics.ssim:.4f}",
                    cell(metrics.lpips, ".3f"),
                    f"{row['cpu_seconds']:.0f}" if model is row else "",
                ]
            )
    return format_table(header, table, "markdown")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    cli.say(results_table(compare(parse_experiment(arguments, Options))))


if __name__ == "__main__":
    cli.run(main)
