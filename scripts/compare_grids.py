"""Measure what fine-tuning on the grids of formats loses against float32, at a fixed number of Gaussians.

    python scripts/compare_grids.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        -m output/grids --json output/grids.json [settings of train.py]

A checkpoint is pruned to ``--keep_ratio`` without any grid, in ``-m``. From there on, each format has a run of
``--iterations`` on as many Gaussians, with all settings of the recipe's final stage; that of ``ply`` has no rounding.
Models are measured on the test views, read back from their files. A run whose result the JSON file already holds is
not done again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root  # noqa: F401
import tyro
from experiment import Experiment, parse_experiment, without_budget

from compress.judging import Judge
from compress.recipe import Recipe
from compress.run_dir import RunDir
from compress.views import Views
from programs import compression
from quality.summary import ViewMetrics
from utils import cli
from utils.results import read_results, write_results
from utils.tables import format_table

FLOAT = "ply"
"""The format that rounds nothing."""
KEEP_RATIO = 0.4
"""Of the Gaussians, what is left where --keep_ratio does not say."""
PRUNE_FRACTION = 0.3
"""Of the Gaussians, what goes in a round of the pruning before."""


@dataclass
class Options(Experiment):
    """What fine-tuning on grids loses. Options that are not of the comparison are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/grids")
    """Folder for the pruned model that all runs begin with. A finished one there is taken as it is."""
    json: Path = Path("output/grids.json")
    """Results."""
    formats: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = (FLOAT, "gsz", "gsz:quality=low")
    """Formats to compare, with their settings."""
    iterations: int = 1000
    """Iterations of each run."""
    pruning_iterations: int = 300
    """Iterations before the first round of the pruning, and after each."""


def pruning_recipe(options: Options) -> Recipe:
    """How the checkpoint is brought to the number of Gaussians that all runs have."""
    return replace(
        without_budget(options.recipe),
        codec=FLOAT,
        prune_fraction=PRUNE_FRACTION,
        sh_rest_penalty=0.0,
        first_iterations=options.pruning_iterations,
        round_iterations=options.pruning_iterations,
        final_iterations=0,
        keep_ratio=options.recipe.keep_ratio or KEEP_RATIO,
    )


def tuning_recipe(options: Options, codec: str) -> Recipe:
    """How a format's run fine-tunes what it begins with. Nothing pulls harmonics to zero but the rate, where known."""
    return replace(
        without_budget(options.recipe),
        codec=codec,
        sh_rest_penalty=0.0,
        first_iterations=0,
        max_rounds=0,
        final_iterations=options.iterations,
    )


def pruned_model(options: Options) -> Path:
    """The model that all runs begin with, which is made where it is not there yet."""
    folder = RunDir(options.model_path)
    if not folder.is_finished():
        cli.say("--- pruning without a grid")
        compression.run(replace(options, recipe=pruning_recipe(options), overwrite=True))
    return options.model_path / "compressed.ply"


def compare(options: Options) -> list[dict[str, Any]]:
    """The rows of the formats: those that ``--json`` holds, and the others, which are added to it one at a time.

    Raises:
        UserError: the file holds results of other settings.
    """
    settings = {
        "pruning": asdict(pruning_recipe(options)),
        "tuning": asdict(tuning_recipe(options, FLOAT)),
        "original": str(options.pretrained_dir or options.pretrained_ply),
    }
    rows = read_results(options.json, settings)
    done = {row["format"] for row in rows}
    pruned = replace(options, pretrained_dir=None, pretrained_ply=pruned_model(options), iteration=None, activated=None)
    original, path = compression.load_original(pruned)
    scene = compression.load_scene(pruned, original, path)
    judges = {
        "test": Judge(Views.of(scene, scene.test, options.backend)),
        "training": Judge(Views.of(scene, scene.train, options.backend)),
    }
    for codec in options.formats:
        if codec in done:
            continue
        cli.say(f"--- {codec}")
        with tempfile.TemporaryDirectory() as out:
            result = compression.run(
                replace(pruned, recipe=tuning_recipe(options, codec), model_path=Path(out), overwrite=True)
            )
        assert result is not None
        row = {"format": codec, "gaussians": len(result.splats), "bytes": result.journal[-1].bytes}
        rows = [*rows, row | {name: asdict(judge.evaluate(result.splats)) for name, judge in judges.items()}]
        write_results(options.json, settings, rows)
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a format in Markdown, with what it loses against float where that was run."""
    floats = [row for row in rows if row["format"] == FLOAT]
    table = []
    for row in rows:
        test, training = ViewMetrics(**row["test"]), ViewMetrics(**row["training"])
        lost = [
            f"{floats[0][views]['psnr'] - row[views]['psnr']:.2f}" if floats else "" for views in ("test", "training")
        ]
        cells = [row["format"], f"{row['gaussians']:,}", f"{row['bytes'] / row['gaussians']:.2f}", f"{test.psnr:.2f}"]
        table.append([*cells, f"{test.ssim:.4f}", lost[0], f"{training.psnr:.2f}", lost[1]])
    header = ["", "Gaussians", "B/G", "PSNR", "SSIM", "lost, dB", "training PSNR", "lost, dB"]
    return format_table(header, table, "markdown")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    cli.say(results_table(compare(parse_experiment(arguments, Options))))


if __name__ == "__main__":
    cli.run(main)
