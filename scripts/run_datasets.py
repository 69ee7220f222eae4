"""Compress, render and measure every scene of the three datasets that 3DGS papers report, and average.

    python scripts/run_datasets.py --mipnerf360 data/360 --tanksandtemples data/tandt --deepblending data/db \
        --checkpoints models --config configs/fast3dgs.yaml -m output/all [-- further arguments of train.py]

``--checkpoints`` holds one INRIA model directory a scene, by the scene's name, as in INRIA's download of pretrained
models. A scene whose photographs or checkpoint are missing is skipped; one that fails does not stop the others. After
every scene ``results.json`` and ``results.csv`` in the output folder are brought up to date; at the end the averages
are printed beside the published ones. Exit code 1 says that a scene failed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _root import ROOT

from gsz.errors import UserError
from gsz.files import write_text
from quality.metrics import ModelSummary, ViewMetrics, mean_summary, read_summary
from utils import cli
from utils.tables import cell, format_table


@dataclass(frozen=True)
class Dataset:
    """Scenes that are reported as one average.

    Attributes:
        key: The command-line option that names its folder.
        title: Its name in tables.
        scenes: Folder of photographs by scene; the resolution the literature reports is that of the folder.
        published: The averages of the method in ``configs/fast3dgs.yaml``, as its paper gives them.
    """

    key: str
    title: str
    scenes: dict[str, str]
    published: ModelSummary


DATASETS = (
    Dataset(
        "mipnerf360",
        "Mip-NeRF360",
        # Outdoor scenes at a quarter, indoor ones at half of the photographs' size.
        dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), "images_4")
        | dict.fromkeys(("room", "counter", "kitchen", "bonsai"), "images_2"),
        ModelSummary(ViewMetrics(27.39, 0.805, 0.254), gaussians=394_753, bytes=15_280_000),
    ),
    Dataset(
        "tanksandtemples",
        "Tanks and Temples",
        dict.fromkeys(("truck", "train"), "images"),
        ModelSummary(ViewMetrics(23.42, 0.818, 0.230), gaussians=224_698, bytes=8_010_000),
    ),
    Dataset(
        "deepblending",
        "Deep Blending",
        dict.fromkeys(("drjohnson", "playroom"), "images"),
        ModelSummary(ViewMetrics(29.61, 0.903, 0.264), gaussians=273_394, bytes=10_050_000),
    ),
)


@dataclass
class DatasetRun:
    """What became of a dataset's scenes: a summary, or one line that says why there is none."""

    dataset: Dataset
    summaries: dict[str, ModelSummary] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def average(self) -> ModelSummary | None:
        return mean_summary(list(self.summaries.values())) if self.summaries else None


def scene_commands(
    images: str, source: Path, checkpoint: Path, output: Path, options: argparse.Namespace
) -> list[list[str]]:
    """The command lines of one scene, in order, without the steps that ``options`` leaves out."""
    python = [sys.executable]
    commands = []
    if not options.skip_training and not (options.resume and is_compressed(output)):
        train = [str(ROOT / "train.py"), "-s", str(source), "-i", images, "--pretrained_dir", str(checkpoint)]
        train += ["-m", str(output), "--eval"]
        train += ["--config", str(options.config)] if options.config is not None else []
        train += ["--resume"] if options.resume else []
        commands.append(python + train + options.train_arguments)
    if not options.skip_rendering:
        commands.append([*python, str(ROOT / "render.py"), "-m", str(output), "--skip_train"])
    if not options.skip_metrics:
        weights = ["--lpips_weights", str(options.lpips_weights)] if options.lpips_weights is not None else []
        commands.append([*python, str(ROOT / "metrics.py"), "-m", str(output), *weights])
    return commands


def is_compressed(output: Path) -> bool:
    """Whether train.py has ended there: it removes the state to resume from when all else is written."""
    return any(output.glob("compressed.*")) and not (output / "resume").exists()


def run_scene(run: DatasetRun, scene: str, folder: Path, options: argparse.Namespace) -> None:
    """Run one scene and enter what became of it into ``run``."""
    source, checkpoint, output = folder / scene, options.checkpoints / scene, options.model_path / scene
    images = run.dataset.scenes[scene]
    missing = [path for path in (source / images, checkpoint) if not path.is_dir()] if not options.skip_training else []
    if missing:
        run.skipped[scene] = f"{missing[0]} is missing"
        cli.warn(f"{scene}: skipped, {run.skipped[scene]}")
        return
    for command in scene_commands(images, source, checkpoint, output, options):
        cli.say(f"$ {shlex.join(command)}")
        if options.dry_run:
            continue
        exit_code = subprocess.run(command).returncode
        if exit_code != 0:
            run.failed[scene] = f"{Path(command[1]).name} ended with exit code {exit_code}"
            cli.warn(f"{scene}: {run.failed[scene]}; going on with the next scene")
            return
    if options.dry_run:
        return
    try:
        run.summaries[scene] = read_summary(output)
    except UserError as error:
        run.failed[scene] = str(error)
        cli.warn(f"{scene}: {error}")


COLUMNS = ("PSNR", "SSIM", "LPIPS", "Gaussians", "MB", "B/G", "FPS")
_PATTERNS = (".2f", ".3f", ".3f", ",", ".2f", ".2f", ".1f")


def _values(summary: ModelSummary) -> tuple[float | None, ...]:
    metrics = summary.metrics
    size = (summary.gaussians, summary.megabytes, summary.bytes_per_gaussian)
    return (metrics.psnr, metrics.ssim, metrics.lpips, *size, summary.fps)


def _cells(summary: ModelSummary) -> list[str]:
    return [cell(value, pattern) for value, pattern in zip(_values(summary), _PATTERNS, strict=True)]


def report_text(runs: Sequence[DatasetRun]) -> str:
    """Three parts: the scenes, the averages beside the published ones, and what is missing from them."""
    scenes = [
        [f"{run.dataset.title}: {scene}", *_cells(summary)] for run in runs for scene, summary in run.summaries.items()
    ]
    averages = []
    for run in runs:
        if run.average is not None:
            share = f"{len(run.summaries)} of {len(run.dataset.scenes)} scenes"
            averages.append([f"{run.dataset.title}, ours ({share})", *_cells(run.average)])
        averages.append([f"{run.dataset.title}, published", *_cells(run.dataset.published)])
    parts = [format_table(["scene", *COLUMNS], scenes)] if scenes else []
    parts.append(format_table(["average", *COLUMNS], averages))
    gaps = [f"skipped: {scene}, {why}" for run in runs for scene, why in run.skipped.items()]
    gaps += [f"FAILED: {scene}, {why}" for run in runs for scene, why in run.failed.items()]
    return "\n\n".join([*parts, *(["\n".join(gaps)] if gaps else [])])


def write_report(runs: Sequence[DatasetRun], folder: Path) -> None:
    """Write ``results.json`` and ``results.csv``, with one entry a scene, average and published average."""
    tree = {
        run.dataset.key: {
            "scenes": {scene: summary.to_json() for scene, summary in run.summaries.items()},
            "average": None if run.average is None else run.average.to_json(),
            "published": run.dataset.published.to_json(),
            "skipped": run.skipped,
            "failed": run.failed,
        }
        for run in runs
    }
    write_text(folder / "results.json", json.dumps(tree, indent=2, allow_nan=False) + "\n")

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "scene", *COLUMNS])
    for run in runs:
        rows = {**run.summaries, "average": run.average, "published": run.dataset.published}
        for name, summary in rows.items():
            if summary is not None:
                cells = ["" if value is None else value for value in _values(summary)]
                writer.writerow([run.dataset.key, name, *cells])
    write_text(folder / "results.csv", text.getvalue())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for dataset in DATASETS:
        parser.add_argument(f"--{dataset.key}", type=Path, metavar="DIR", help=f"{dataset.title}, one folder a scene")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", required=True, help="one model directory a scene")
    parser.add_argument(
        "-m", "--model_path", type=Path, metavar="OUT", required=True, help="one folder a scene is made here"
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="recipe for train.py")
    parser.add_argument("--lpips_weights", type=Path, metavar="FILE.npz", help="passed on to metrics.py")
    parser.add_argument(
        "--resume", action="store_true", help="go on where a killed batch stopped, with the same options"
    )
    parser.add_argument("--skip_training", action="store_true", help="use the compressed files that are there")
    parser.add_argument("--skip_rendering", action="store_true", help="use the renders that are there")
    parser.add_argument("--skip_metrics", action="store_true", help="use the measurements that are there")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, run and write nothing")
    parser.add_argument("train_arguments", nargs="*", metavar="-- ARGUMENTS", help="passed on to train.py")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse(arguments)
    folders = {dataset.key: getattr(options, dataset.key) for dataset in DATASETS}
    runs = [DatasetRun(dataset) for dataset in DATASETS if folders[dataset.key] is not None]
    if not runs:
        raise UserError(f"no dataset is given; name at least one of {', '.join('--' + key for key in folders)}")
    for run in runs:
        if not folders[run.dataset.key].is_dir():
            raise UserError(f"{folders[run.dataset.key]}: no such folder; check --{run.dataset.key}")

    for run in runs:
        for scene in run.dataset.scenes:
            run_scene(run, scene, folders[run.dataset.key], options)
            if not options.dry_run:
                write_report(runs, options.model_path)
    if options.dry_run:
        return
    cli.say("\n" + report_text(runs))
    cli.say(f"\nwrote {options.model_path / 'results.json'} and results.csv")
    if any(run.failed for run in runs):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
