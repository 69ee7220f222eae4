"""Compress, render and measure every scene of the three datasets that 3DGS papers report, and average.

    python scripts/run_datasets.py --mipnerf360 data/360 --tanksandtemples data/tandt --deepblending data/db \
        --checkpoints models --config configs/fast3dgs.yaml -m output/all [-- further arguments of train.py]
    python scripts/run_datasets.py --check ...            # only say what is missing or misnamed
    python scripts/run_datasets.py --ray auto ...         # over the machines of a Ray cluster

``--checkpoints`` holds one INRIA model directory a scene, by the scene's name, as in INRIA's download of pretrained
models. With several recipes (``--config a.yaml b.yaml``) every scene is run with each. A scene whose photographs or
checkpoint are missing is skipped; one that fails does not stop the others. What the programs print goes to
``batch.log`` in the scene's folder. After every scene ``results.json``, ``results.csv`` and ``results.md`` in the
output folder are brought up to date; at the end the figures are printed beside the published ones. Exit code 1 says
that a scene failed.
"""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from _root import ROOT
from batch.check import check_dataset
from batch.datasets import DATASETS, OTHER, Dataset
from batch.display import Display
from batch.job import SceneJob, versions
from batch.on_ray import RayBatch
from batch.report import DatasetResults, report, write_report
from batch.serial import run_serially

from compress.run_dir import RunDir
from gsz.errors import UserError
from quality.summary import read_summary
from utils import cli

HERE = "here"
"""What ``--ray`` without an address stands for: a cluster of this machine alone."""


@dataclass
class Options:
    """Compress, render and measure every scene of the three datasets that 3DGS papers report."""

    mipnerf360: Path | None = None
    """Folder of Mip-NeRF 360, with one folder a scene."""
    tanksandtemples: Path | None = None
    """Folder of Tanks and Temples."""
    deepblending: Path | None = None
    """Folder of Deep Blending."""
    scenes: Path | None = None
    """Folder of other scenes, each with its photographs in "images"; no figures were published of these."""
    checkpoints: Path | None = None
    """Folder of the trained models, with one model directory a scene."""
    model_path: Annotated[Path | None, tyro.conf.arg(aliases=["-m"])] = None
    """Folder to write to; one folder a scene is made in it, and where there are several recipes one a recipe above."""
    config: tuple[Path, ...] = ()
    """Recipes for train.py; its own default where none is given."""
    only: tuple[str, ...] = ()
    """Run only these scenes."""
    lpips_weights: Path | None = None
    """Weights of LPIPS, passed on to metrics.py."""
    resume: bool = False
    """Go on where a killed batch stopped, with the same options."""
    overwrite: bool = False
    """Replace what another batch left in the scenes' folders."""
    skip_done: bool = False
    """Leave scenes alone that have been measured already, and report what was measured."""
    skip_training: bool = False
    """Use the compressed files that are there."""
    skip_rendering: bool = False
    """Use the renders that are there."""
    skip_metrics: bool = False
    """Use the measurements that are there."""
    dry_run: bool = False
    """Print the commands; run and write nothing."""
    check: bool = False
    """Say what is missing or misnamed in the folders; run and write nothing. Exit code 1 says that something is."""
    ray: str | None = None
    """Run over a Ray cluster: its address, "auto" for the one that this machine belongs to, or "here" for this machine
    alone."""
    gpus_per_scene: float | None = None
    """With --ray: GPUs a scene takes. The default is 1 where there are GPUs, else 0."""
    cpus_per_scene: int | None = None
    """With --ray: CPU cores a scene takes. The default is 4, or all of the largest machine where it has fewer."""
    retries: int = 2
    """With --ray: how often a scene is resumed on another machine when its machine has died."""
    train_arguments: tyro.conf.Positional[tuple[str, ...]] = ()
    """Further arguments of train.py, after a --."""


@dataclass(frozen=True)
class Scene:
    """A scene of a dataset under a recipe, with its job."""

    results: DatasetResults
    name: str
    job: SceneJob


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line. What follows a ``--`` is for train.py."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    further: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, further = arguments[:at], arguments[at + 1 :]
    if "--ray" in arguments:
        at = arguments.index("--ray") + 1
        if at == len(arguments) or arguments[at].startswith("-"):
            arguments.insert(at, HERE)
    options = tyro.cli(Options, args=arguments, use_underscores=True, config=(tyro.conf.FlagCreatePairsOff,))
    options.train_arguments = (*options.train_arguments, *further)
    return options


def chosen_datasets(options: Options) -> list[tuple[Dataset, Path]]:
    """The datasets that have a folder.

    Raises:
        UserError: there is none, a folder is missing, or ``--only`` names a scene that no dataset has.
    """
    folders = [(dataset, getattr(options, dataset.key)) for dataset in DATASETS]
    chosen = [(dataset, folder) for dataset, folder in folders if folder is not None]
    keys = [*(dataset.key for dataset in DATASETS), OTHER]
    given = [(key, folder) for key in keys if (folder := getattr(options, key)) is not None]
    if not given:
        raise UserError(f"no dataset is given; name at least one of {', '.join(f'--{key}' for key in keys)}")
    for key, folder in given:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; check --{key}")
    if options.scenes is not None:
        chosen.append((Dataset.of_folder(options.scenes), options.scenes))
    if options.checkpoints is None:
        raise UserError("no trained models are given; name their folder with --checkpoints")
    if options.model_path is None and not options.check:
        raise UserError("no output folder is given; name one with -m")
    if options.resume and options.overwrite:
        raise UserError("--resume goes on with what is there and --overwrite replaces it; give one of the two")
    scenes = [scene for dataset, _ in chosen for scene in dataset.images]
    unknown = [scene for scene in options.only if scene not in scenes]
    if unknown:
        raise UserError(f"--only {unknown[0]}: there is no such scene; the scenes are {', '.join(scenes)}")
    return chosen


def scenes_to_run(options: Options, datasets: list[tuple[Dataset, Path]]) -> tuple[list[DatasetResults], list[Scene]]:
    """The tables to fill and the jobs that fill them. Scenes without data are entered as skipped."""
    assert options.checkpoints is not None and options.model_path is not None
    recipes = options.config or (None,)
    if len({path.stem for path in options.config}) < len(options.config):
        raise UserError("--config: two recipes have the same name; rename one")
    batch, agreed = uuid.uuid4().hex, versions()
    tables, scenes = [], []
    for dataset, folder in datasets:
        for recipe in recipes:
            results = DatasetResults(dataset, recipe.stem if recipe is not None and len(recipes) > 1 else "")
            tables.append(results)
            for name, images in dataset.images.items():
                if options.only and name not in options.only:
                    continue
                checkpoint, output = options.checkpoints / name, options.model_path / results.recipe / name
                job = _job(options, folder / name, images, checkpoint, output, recipe, batch, agreed)
                if options.skip_done and (output / "results.json").is_file() and RunDir(output).is_complete():
                    results.summaries[name] = read_summary(output)
                    continue
                missing = [path for path in job.needed if not path.is_dir()]
                if missing:
                    results.skipped[name] = f"{missing[0]} is missing"
                    cli.warn(f"{name}: skipped, {results.skipped[name]}")
                    continue
                scenes.append(Scene(results, name, job))
    return tables, scenes


def _job(
    options: Options,
    source: Path,
    images: str,
    checkpoint: Path,
    output: Path,
    recipe: Path | None,
    batch: str,
    agreed: tuple[tuple[str, str], ...],
) -> SceneJob:
    """All paths are made absolute: a job may run on another machine, in another folder."""
    source, checkpoint, output = source.resolve(), checkpoint.resolve(), output.resolve()
    train = render = measure = None
    if not options.skip_training:
        train = (str(ROOT / "train.py"), "-s", str(source), "-i", images, "--pretrained_dir", str(checkpoint))
        train += ("-m", str(output), "--eval")
        train += ("--config", str(recipe.resolve())) if recipe is not None else ()
        train += tuple(options.train_arguments)
    if not options.skip_rendering:
        render = (str(ROOT / "render.py"), "-m", str(output), "--skip_train")
    if not options.skip_metrics:
        weights = ("--lpips_weights", str(options.lpips_weights.resolve())) if options.lpips_weights is not None else ()
        measure = (str(ROOT / "metrics.py"), "-m", str(output), *weights)
    return SceneJob(
        name=" ".join([output.name, *([recipe.stem] if recipe is not None and len(options.config) > 1 else [])]),
        needed=(source / images, checkpoint) if train is not None else (),
        output=output,
        train=train,
        render=render,
        measure=measure,
        batch=batch,
        resume=options.resume,
        overwrite=options.overwrite,
        versions=agreed,
    )


def run(options: Options, tables: list[DatasetResults], scenes: list[Scene]) -> None:
    """Run all jobs and bring the report up to date after each."""
    assert options.model_path is not None
    cluster = None
    if options.ray is not None:
        address = None if options.ray == HERE else options.ray
        cluster = RayBatch(address, options.gpus_per_scene, options.cpus_per_scene, options.retries)
    by_job = {scene.job.output: scene for scene in scenes}
    display = Display([scene.job.name for scene in scenes])
    jobs = [scene.job for scene in scenes]
    try:
        write_report(tables, options.model_path)
        for job, failure in cluster.run(jobs, display) if cluster is not None else run_serially(jobs, display):
            display.ended(job.name, _enter(by_job[job.output], failure))
            write_report(tables, options.model_path)
    finally:
        display.close()
        if cluster is not None:
            cluster.close()


def _enter(scene: Scene, failure: str | None) -> str:
    """Enter what became of a scene into its table; returns that in a few words."""
    if failure is None:
        try:
            summary = scene.results.summaries[scene.name] = read_summary(scene.job.output)
        except UserError as error:
            failure = str(error)
        else:
            size = "" if summary.megabytes is None else f", {summary.megabytes:.2f} MB"
            return f"done: {summary.metrics.psnr:.2f} dB{size}"
    scene.results.failed[scene.name] = failure
    return f"FAILED: {failure}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = parse(arguments)
    datasets = chosen_datasets(options)
    if options.check:
        assert options.checkpoints is not None
        problems = [line for each, folder in datasets for line in check_dataset(each, folder, options.checkpoints)]
        for line in problems:
            cli.say(line)
        scenes = sum(len(dataset.images) for dataset, _ in datasets)
        cli.say(f"checked {scenes} scenes: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
        sys.exit(1 if problems else 0)
    tables, jobs = scenes_to_run(options, datasets)
    if options.dry_run:
        for scene in jobs:
            for command in scene.job.commands():
                cli.say(f"$ {shlex.join(command)}")
        return
    run(options, tables, jobs)
    cli.say("\n" + report(tables))
    cli.say(f"\nwrote {options.model_path / 'results.json'}, results.csv and results.md")
    if any(results.failed for results in tables):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
