"""Measure what the coarser models of a file in layers are worth, beside models that are trained for their count alone.

    python train.py -s demo/snowmiku -i images_400 --eval --pretrained_dir demo/snowmiku/pretrained -m output/rounds \\
        --config configs/demo.yaml
    python scripts/compare_prefixes.py -m output/rounds --json output/prefixes.json

All variants begin with the last round of the finished run in ``-m``. It is cut as it is, or it goes on by the run's
recipe: with its final stage, or, for a model of a fraction of the Gaussians, with more of its rounds first. Models are
measured on the test views, read back from their files. A variant whose result the JSON file already holds is not done
again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root  # noqa: F401
import tyro
from experiment import parse, without_budget
from torch import Tensor

from compress.front import rounds_of
from compress.importance import removal_error
from compress.journal import Journal
from compress.judging import Judge, Roles, assign_roles
from compress.layers import iterative_importance
from compress.loop import compress
from compress.recipe import Recipe
from compress.run_dir import RunDir, RunState
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from gsz.files import atomic_path
from gsz.spec import with_settings
from programs import compression
from programs.options import CompressOptions
from quality.summary import ViewMetrics
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.results import read_results, read_rows, write_results
from utils.tables import format_table


@dataclass(frozen=True)
class Variant:
    """A final stage.

    Attributes:
        settings: Settings of the recipe in place of the run's.
        layers: The most layers of its file; the settings of the codec are kept.
        share: Fraction of the last round's Gaussians that further rounds leave first.
    """

    settings: dict[str, Any]
    layers: int = 1
    share: float = 1.0

    def recipe(self, run: Recipe, count: int) -> Recipe:
        """The recipe of the run with this variant's final stage, for so many Gaussians of the last round."""
        codec = in_layers(run.codec, self.layers)
        return replace(
            without_budget(run.with_settings({"progressive": False, **self.settings, "codec": codec}, "variant")),
            target_count=max(1, int(self.share * count)),
            max_rounds=sys.maxsize,
        )


GODE = {"layer_score": "gradient_sum", "progressive": True, "prefix_share": 0.75, "correction_lr": 0.0}
VARIANTS = {
    "whole, one layer": Variant({}),
    "whole": Variant({}, 4),
    "progressive": Variant({"progressive": True}, 4),
    "progressive, a quarter of the iterations": Variant({"progressive": True, "prefix_share": 0.25}, 4),
    "progressive, up to four fifths": Variant({"progressive": True, "prefix_end": 0.8}, 4),
    "progressive, up to a half": Variant({"progressive": True, "prefix_end": 0.5}, 4),
    "GoDe's scheme": Variant(GODE, 4),
    "50 % alone": Variant({}, share=0.5),
    "25 % alone": Variant({}, share=0.25),
    "12.5 % alone": Variant({}, share=0.125),
}


ORDERS: dict[str, Callable[[GaussianModel, Views], Tensor | None]] = {
    "untrained, by what Gaussians cover": lambda splats, views: None,
    "untrained, by removal error": lambda splats, views: removal_error(splats, views).gaussians,
    "untrained, by removal error again and again": lambda splats, views: iterative_importance(
        splats, views, (0,), "removal_error", len(splats) // 8
    ),
}
"""Orders of the last round's Gaussians, which nothing is done to."""


@dataclass
class Options(CompressOptions):
    """What the coarser models of a file are worth. Options that are not of the comparison are those of train.py."""

    json: Path = Path("output/prefixes.json")
    """Results."""
    beside: tuple[Path, ...] = ()
    """Results of this script at other settings, to be listed and drawn along."""
    plot: Path | None = None
    """Where to draw PSNR on the test views against bytes, as a PNG."""
    variants: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = (*ORDERS, *VARIANTS)
    """Runs to compare."""


def compare(run: Options) -> list[dict[str, Any]]:
    """A row for each model that the file of a variant can be cut to: those that ``--json`` holds, and new ones.

    Raises:
        UserError: there is no finished run in the folder, or the file holds results of another one.
    """
    folder = RunDir(run.model_path)
    journal = folder.finished_journal()
    last = rounds_of(journal)[-1]
    original, original_path = compression.load_original(run)
    scene = compression.load_scene(run, original, original_path)
    roles = assign_roles(Views.of(scene, scene.train, run.backend), scene.validation, original)
    front = folder.read_front(last, run.recipe.make_codec().suffix, finished=True)
    start = GaussianModel.of(front).to(roles.training.background.device)
    test = Judge(Views.of(scene, scene.test, run.backend))
    training = Judge(roles.training)
    settings = {**asdict(run.recipe), "gaussians": len(start)}
    rows = read_results(run.json, settings)
    done = {row["variant"] for row in rows}
    for name in (name for name in run.variants if name not in done):
        cli.say(f"--- {name}")
        began = time.process_time()
        if name in ORDERS:
            data = laid_in_layers(start, run.recipe, roles.training, name)
        else:
            data = trained(original, start, journal[: journal.index(last) + 1], roles, run.recipe, VARIANTS[name])
        seconds = time.process_time() - began
        codec = registry.identify(data, name)
        for level in range(1, len(codec.info(data)["layers"]) + 1):
            part = codec.cut(data, name, level)
            splats = codec.decode(part, name)
            rows = [
                *rows,
                {
                    "variant": name,
                    "gaussians": len(splats),
                    "share": len(splats) / len(start),
                    "bytes": len(part),
                    "cpu_seconds": seconds,
                    "test": asdict(test.evaluate(splats)),
                    "training": asdict(training.evaluate(splats)),
                },
            ]
        write_results(run.json, settings, rows)
    return rows


def trained(
    original: GaussianModel, start: GaussianModel, journal: Journal, roles: Roles, recipe: Recipe, variant: Variant
) -> bytes:
    """The file of a variant, whose rounds go on from the model ``start`` of the last row of ``journal``."""
    recipe = variant.recipe(recipe, len(start))
    state = RunState({}, start, journal, rounds_ended=variant.share == 1.0)
    with tempfile.TemporaryDirectory() as out, cli.progress_bar("train", "it") as progress:
        folder = RunDir(Path(out))
        folder.begin(recipe.to_yaml())
        result = compress(original, 0, roles, recipe, folder, settings={}, state=state, progress=progress)
        return result.path.read_bytes()


def laid_in_layers(splats: GaussianModel, recipe: Recipe, views: Views, order: str) -> bytes:
    """The file of a model as it is, in four layers of one of :data:`ORDERS`."""
    grid = registry.codec(in_layers(recipe.codec, 4)).fit(splats)
    importance = ORDERS[order](grid.snap(splats).detach(), views)
    return grid.encode(splats, None if importance is None else importance.cpu().numpy())


def in_layers(codec: str, layers: int) -> str:
    """A codec and its settings, with so many layers."""
    return with_settings(codec, {"layers": layers})


def results_table(rows: list[dict[str, Any]]) -> str:
    """A row a model in Markdown."""
    header = ["", "Gaussians", "share", "bytes", "PSNR", "SSIM", "training PSNR", "CPU-s"]
    table = []
    for row in rows:
        test, training = ViewMetrics(**row["test"]), ViewMetrics(**row["training"])
        cells = [row["variant"], f"{row['gaussians']:,}", f"{100 * row['share']:.1f} %", f"{row['bytes']:,}"]
        cells += [f"{test.psnr:.2f}", f"{test.ssim:.4f}", f"{training.psnr:.2f}", f"{row['cpu_seconds']:.0f}"]
        table.append(cells)
    return format_table(header, table, "markdown")


def write_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw PSNR on the test views against bytes: a line a file that is cut, and one through models of their own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    variants = dict.fromkeys(row["variant"] for row in rows)
    single = [name for name in variants if VARIANTS.get(name, Variant({}, 4)).layers == 1]
    files = {name: [name] for name in variants if name not in single} | {"a file for each size": single}
    for label, names in files.items():
        points = sorted((row["bytes"] / 1e3, row["test"]["psnr"]) for row in rows if row["variant"] in names)
        if points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=label)
    axes.set(xlabel="kB", ylabel="test PSNR (dB)")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    # As train.py --resume, so that all options are those of the run.
    options = parse(arguments, Options, "--resume")
    unknown = [name for name in options.variants if name not in VARIANTS and name not in ORDERS]
    if unknown:
        names = ", ".join([*ORDERS, *VARIANTS])
        raise UserError(f"--variants {unknown[0]}: there is none of that name; choose among {names}")
    rows = [*(row for path in options.beside for row in read_rows(path)), *compare(options)]
    cli.say(results_table(rows))
    if options.plot is not None:
        write_plot(rows, options.plot)


if __name__ == "__main__":
    cli.run(main)
