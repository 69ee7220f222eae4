"""Measure what the coarser models of a file in layers are worth, beside models that are trained for their count alone.

    python train.py -s demo/snowmiku -i images_400 --eval --pretrained_dir demo/snowmiku/pretrained -m output/rounds \\
        --config configs/demo.yaml
    python scripts/compare_prefixes.py -m output/rounds --json output/prefixes.json

All variants go on from the last round of the finished run in ``-m``, by its recipe: with its final stage, or, for a
model of a fraction of the Gaussians, with more of its rounds first. Models are measured on the test views, read back
from their files. A variant whose result the JSON file already holds is not done again.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import _root  # noqa: F401
import tyro

from compress.front import rounds_of
from compress.judging import Judge, assign_roles
from compress.loop import compress
from compress.recipe import Recipe
from compress.run_dir import RunDir, RunState
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from programs import compression
from programs.options import CompressOptions, parse_compress
from quality.summary import ViewMetrics
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.results import read_results, write_results
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
        codec = f"{run.codec}{',' if ':' in run.codec else ':'}layers={self.layers}"
        return replace(
            run.with_settings({**self.settings, "codec": codec}, "variant"),
            target_count=max(1, int(self.share * count)),
            keep_ratio=None,
            target_size=None,
            max_rounds=sys.maxsize,
            max_psnr_drop=math.inf,
            max_ssim_drop=math.inf,
            max_lpips_rise=math.inf,
            end_with="last",
        )


GODE = {"layer_score": "gradient_sum", "progressive": True, "prefix_share": 0.75, "correction_lr": 0.0}
VARIANTS = {
    "whole, one layer": Variant({}),
    "whole": Variant({}, 4),
    "progressive": Variant({"progressive": True}, 4),
    "GoDe's scheme": Variant(GODE, 4),
    "50 % alone": Variant({}, share=0.5),
    "25 % alone": Variant({}, share=0.25),
    "12.5 % alone": Variant({}, share=0.125),
}


@dataclass
class Options(CompressOptions):
    """What the coarser models of a file are worth. Options that are not of the comparison are those of train.py."""

    json: Path = Path("output/prefixes.json")
    """Results."""
    variants: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = tuple(VARIANTS)
    """Runs to compare."""


def compare(run: Options) -> list[dict[str, Any]]:
    """A row for each model that the file of a variant can be cut to: those that ``--json`` holds, and new ones.

    Raises:
        UserError: there is no finished run in the folder, or the file holds results of another one.
    """
    folder = RunDir(run.model_path)
    journal = folder.finished_journal()
    last = rounds_of(journal)[-1]
    start = GaussianModel.of(folder.read_front(last, run.recipe.make_codec().suffix, finished=True))
    original, original_path = compression.load_original(run)
    scene = compression.load_scene(run, original, original_path)
    roles = assign_roles(Views.of(scene, scene.train, run.backend), scene.validation, original)
    test = Judge(Views.of(scene, scene.test, run.backend))
    training = Judge(roles.training)
    settings = {**asdict(run.recipe), "gaussians": len(start)}
    rows = read_results(run.json, settings)
    done = {row["variant"] for row in rows}
    for name in (name for name in run.variants if name not in done):
        cli.say(f"--- {name}")
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out, cli.progress_bar("train", "it") as progress:
            here = RunDir(Path(out))
            here.begin("")
            variant = VARIANTS[name]
            rows_before = journal[: journal.index(last) + 1]
            state = RunState({}, start, rows_before, rounds_ended=variant.share == 1.0)
            recipe = variant.recipe(run.recipe, len(start))
            result = compress(original, 0, roles, recipe, here, settings={}, state=state, progress=progress)
            data = result.path.read_bytes()
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


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # As train.py --resume, so that all options are those of the run.
    options = parse_compress([*given, "--eval", "--resume"], Options)
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        raise UserError(f"--variants {unknown[0]}: there is none of that name; choose among {', '.join(VARIANTS)}")
    cli.say(results_table(compare(options)))


if __name__ == "__main__":
    cli.run(main)
