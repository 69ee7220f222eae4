"""Compare all scores from the same checkpoint, with the same schedule and the same seed: which Gaussians should go?

    python scripts/compare_scores.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        --json output/scores.json --plot output/scores.png [settings of train.py]

Every score prunes the checkpoint to the same counts twice: once in one step, and once in rounds of scoring, pruning and
fine-tuning. Both are measured on the views that judge a run (validation) and on the test views. The models are not
quantized (codec ``ply``), so that it is the scores that are compared. A score whose results the JSON file already
holds is not computed again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import _root  # noqa: F401
import tyro
from experiment import parse

from compress import importance
from compress.finetune import finetune
from compress.judging import Judge, Roles, assign_roles
from compress.prune import prune
from compress.recipe import Recipe, ScoreName
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from gsz.files import atomic_path
from programs import compression
from programs.options import CompressOptions
from quality.lpips import load_lpips
from quality.summary import ViewMetrics
from scene import GaussianModel
from utils import cli
from utils.progress import Progress, silent
from utils.results import read_results, write_results
from utils.tables import cell, format_table

PRUNED = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Fractions of the Gaussians that are gone where the models are measured."""


@dataclass(frozen=True)
class Study:
    """What all scores have in common.

    Attributes:
        original: The checkpoint.
        views: The views that train and those that judge.
        test: The test views.
        lpips: Measures LPIPS on some of them, since it takes long on a CPU, and only of models that were fine-tuned.
            ``None`` to leave it out.
        recipe: Settings of fine-tuning; ``prune_fraction`` bounds what goes in one round.
        pruned: Fractions at which to measure, ascending.
    """

    original: GaussianModel
    views: Roles
    test: Judge
    lpips: Judge | None
    recipe: Recipe
    pruned: tuple[float, ...]

    def counts(self) -> list[int]:
        """How many Gaussians are left where the models are measured."""
        return [max(1, round((1.0 - fraction) * len(self.original))) for fraction in self.pruned]

    def rounds(self) -> list[int]:
        """How many are left after each round: equal ratios, and each of :meth:`counts` is met exactly."""
        left, before = [], len(self.original)
        for count in self.counts():
            steps = math.ceil(math.log(count / before) / math.log(1.0 - self.recipe.prune_fraction) - 1e-9)
            left += [round(before * (count / before) ** (step / steps)) for step in range(1, steps + 1)]
            before = count
        return left

    def row(self, score: str, iterations: int, splats: GaussianModel) -> dict[str, Any]:
        """What the results say of a model after so many iterations; none of them means that it was only pruned."""
        test, validation = self.test.evaluate(splats), self.views.judge.evaluate(splats)
        if self.lpips is not None and (iterations > 0 or splats is self.original):
            test = replace(test, lpips=self.lpips.evaluate(splats).lpips)
        return {
            "score": score,
            "iterations": iterations,
            "gaussians": len(splats),
            "validation": asdict(validation),
            "test": asdict(test),
        }


def prune_only(study: Study, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a score that prunes the checkpoint in one step."""
    scores = importance.SCORES[name](study.original, study.views.training, (study.recipe.seed, 0)).gaussians
    for count in study.counts():
        pruned = prune(study.original, scores, len(study.original) - count)
        yield study.row(name, 0, pruned)


def prune_and_finetune(study: Study, name: str, step: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Rows of a score that prunes in rounds, with fine-tuning after each."""
    recipe, codec = study.recipe, registry.get(study.recipe.codec)
    splats, counts = study.original, set(study.counts())
    for number, count in enumerate(study.rounds()):
        seed = (recipe.seed, number + 1)
        scores = importance.SCORES[name](splats, study.views.training, seed).gaussians
        splats = prune(splats, scores, len(splats) - count)
        iterations = recipe.round_iterations
        splats, _ = finetune(splats, codec, study.views.training, recipe, iterations, seed, lambda _: step())
        if count in counts:
            yield study.row(name, (number + 1) * iterations, splats)


def tell(progress: Progress, steps: Iterator[int], total: int, name: str) -> None:
    progress(next(steps), total, name)


def compare(study: Study, names: Sequence[str], path: Path, progress: Progress = silent) -> list[dict[str, Any]]:
    """The rows of all scores: those that ``path`` holds, and the others, which are added to it one score at a time.

    Raises:
        UserError: ``path`` holds results of other settings.
    """
    settings = {
        **asdict(study.recipe),
        "pruned": study.pruned,
        "gaussians": len(study.original),
        "lpips": [] if study.lpips is None else [camera.name for camera in study.lpips.views.cameras],
    }
    rows = read_results(path, settings)
    if not rows:
        rows = [study.row("uncompressed", 0, study.original)]
    missing = [name for name in names if all(row["score"] != name for row in rows)]
    total = len(missing) * len(study.rounds()) * study.recipe.round_iterations
    steps = itertools.count(1)
    for name in missing:
        step = partial(tell, progress, steps, total, name)
        rows = [*rows, *prune_only(study, name), *prune_and_finetune(study, name, step)]
        write_results(path, settings, rows)
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a model in Markdown: first those that were only pruned, then those that were fine-tuned as well."""
    header = ["score", "iterations", "Gaussians", "PSNR", "SSIM", "LPIPS", "validation PSNR", "SSIM"]
    ordered = sorted(rows, key=lambda row: (row["iterations"], -row["gaussians"], -row["test"]["psnr"]))
    table = []
    for row in ordered:
        test, validation = ViewMetrics(**row["test"]), ViewMetrics(**row["validation"])
        table.append(
            [
                row["score"],
                str(row["iterations"]),
                f"{row['gaussians']:,}",
                cell(test.psnr, ".2f"),
                cell(test.ssim, ".4f"),
                cell(test.lpips, ".4f"),
                cell(validation.psnr, ".2f"),
                cell(validation.ssim, ".4f"),
            ]
        )
    return format_table(header, table, "markdown")


def write_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw test PSNR against the number of Gaussians, one line a score, without and with fine-tuning, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    whole, others = rows[0], rows[1:]
    for panel, title, tuned in zip(panels, ("pruned", "pruned and fine-tuned in rounds"), (False, True), strict=True):
        for name in dict.fromkeys(row["score"] for row in others):
            points = [row for row in others if row["score"] == name and (row["iterations"] > 0) == tuned]
            panel.plot(
                [row["gaussians"] for row in points],
                [row["test"]["psnr"] for row in points],
                "o-",
                markersize=3,
                label=name,
            )
        panel.axhline(whole["test"]["psnr"], linestyle="--", linewidth=1, color="0.6")
        counts = sorted({row["gaussians"] for row in others})
        panel.set(title=title, xlabel="Gaussians", ylabel="PSNR on the test views (dB)", xscale="log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.set_xticks([], minor=True)
        panel.invert_xaxis()
    panels[1].legend(loc="lower left", fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def with_lpips(test: Judge, weights: Path | None, count: int) -> Judge | None:
    """Measures LPIPS on so many of the test views, spread evenly; ``None`` without weights."""
    if weights is None or count < 1:
        return None
    views = test.views
    cameras = views.cameras[:: max(1, len(views) // count)][:count]
    return Judge(views.at(cameras), load_lpips(weights))


@dataclass
class Options(CompressOptions):
    """What the scores are worth at equal counts. Options that are not of the comparison are those of train.py."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = Path("output/scores")
    """Nothing is written there."""
    json: Path = Path("output/scores.json")
    """Results."""
    plot: Path | None = None
    """Also draw the results, as a PNG."""
    scores: tuple[ScoreName, ...] = get_args(ScoreName)
    """Scores to compare."""
    pruned: tuple[float, ...] = PRUNED
    """Fractions of the Gaussians that are gone where the models are measured."""
    lpips_views: int = 3
    """Measure LPIPS on so many test views, where --lpips_weights are given."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse(arguments, Options)
    if not all(0.0 < fraction < 1.0 for fraction in options.pruned):
        raise UserError("--pruned: fractions must lie between 0 and 1, such as 0.5 0.8")
    recipe = replace(options.recipe, codec="ply")
    recipe.check()
    original, _ = compression.load_original(options)
    scene = compression.load_scene(options, original, Path())
    training = Views.of(scene, scene.train, options.backend)
    test = Judge(training.at(scene.test))
    study = Study(
        original,
        assign_roles(training, scene.validation, original),
        test,
        with_lpips(test, options.lpips_weights, options.lpips_views),
        recipe,
        tuple(sorted(set(options.pruned))),
    )
    with cli.progress_bar("scores", "it") as progress:
        rows = compare(study, options.scores, options.json, progress)
    cli.say(results_table(rows))
    if options.plot is not None:
        write_plot(rows, options.plot)


if __name__ == "__main__":
    cli.run(main)
