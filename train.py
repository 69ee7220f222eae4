"""Compress a trained 3DGS model: score, prune, fine-tune on the grid of the file, write.

    python train.py -s data/garden --pretrained_dir models/garden -m output/garden --eval -i images_4

Writes to the model directory the compressed file (``compressed.*``), the model it decodes to
(``point_cloud/iteration_N/point_cloud.ply``, for any viewer), ``journal.csv`` and ``journal.png`` with a row a round,
``recipe.yaml``, ``cameras.json`` and ``cfg_args``. ``render.py`` and ``metrics.py`` go on from there.

Without photographs (no ``-s``), the model's own renders are what the compressed model has to match, at the cameras of
its ``cameras.json`` or, for a lone ``.ply``, at cameras that are placed around or in it::

    python train.py --pretrained_ply garden.ply -m output/garden --eval
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from compress.judging import Roles, assign_roles
from compress.loop import Result, check_targets, compress
from compress.recipe import Recipe
from compress.report import print_journal_table, write_journal_plot
from compress.run_dir import RunDir
from compress.synthetic_views import ASSUMED_QUALITY, scene_without_photographs
from compress.views import Views
from gaussian_renderer import BackendName, choose_backend
from gsz.errors import UserError
from gsz.files import write_text
from quality.lpips import HOW_TO_GET_LPIPS, Lpips, load_lpips
from scene import Scene, model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions, options_of_model
from scene.placement import PlacementOptions
from utils import cli
from utils.cli import say

DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "default.yaml"
RECIPE_FILE = "recipe.yaml"


@dataclass
class Options:
    """Compress a trained 3DGS model."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder to write to."""
    pretrained_dir: Path | None = None
    """The trained model: a directory that INRIA's program or pretrain.py wrote."""
    pretrained_ply: Path | None = None
    """The trained model: a lone point_cloud.ply. Give one of the two."""
    iteration: int = -1
    """Which iteration of the trained model to begin with; -1 is the latest."""
    config: Path = DEFAULT_CONFIG
    """The recipe: a YAML file. The settings below override it."""
    resume: bool = False
    """Go on after the last completed stage of a killed run, with the same result."""
    pick: str = ""
    """On a finished run: do only the final stage again, from the round whose file has this size, such as 5MB. The
    recipe is that of the run."""
    backend: BackendName = "auto"
    """Renderer."""
    threads: int = 0
    """CPU threads; 0 takes all. The result does not depend on it."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), to measure it and for max_lpips_rise."""
    placement: PlacementOptions = field(default_factory=PlacementOptions)
    recipe: Recipe = field(default_factory=Recipe)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line, over the recipe of ``--config``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    config = _config_argument(arguments)
    return tyro.cli(
        Options,
        args=arguments,
        default=Options(model_path=tyro.MISSING, config=config, recipe=Recipe.from_yaml(config)),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        use_underscores=True,
    )


def _config_argument(arguments: list[str]) -> Path:
    """The recipe to begin with, which has to be known before the rest is parsed, since it holds the defaults."""
    config = _value_of(arguments, "--config")
    if config is not None:
        return Path(config)
    out = _value_of(arguments, "-m", "--model_path")
    if out is not None and _value_of(arguments, "--pick") is not None and (Path(out) / RECIPE_FILE).is_file():
        return Path(out) / RECIPE_FILE
    return DEFAULT_CONFIG


def _value_of(arguments: list[str], *names: str) -> str | None:
    """The value of an option, given as ``--name value`` or ``--name=value``; ``None`` where it is not given."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            if equals:
                return value
            if position + 1 < len(arguments):
                return arguments[position + 1]
    return None


def train(options: Options) -> Result:
    """Compress a model as the options say, and write everything a run writes."""
    recipe = options.recipe
    recipe.check()
    if recipe.stop_on == "test" and not options.scene.eval:
        raise UserError("stop_on: test needs test views; add --eval")
    if options.threads < 0:
        raise UserError(f"--threads {options.threads}: must not be negative")
    if options.threads:
        torch.set_num_threads(options.threads)
    backend = choose_backend(options.backend)
    original, original_path = load_original(options)
    check_targets(original, recipe)
    lpips = load_run_lpips(options)
    options = with_background_of_checkpoint(options)
    scene = load_scene(options, original, original_path)
    if recipe.stop_on == "validation" and not scene.validation:
        raise UserError(
            f"{options.scene.source_path or original_path}: has too few views to hold one out; "
            "add views, or stop_on: test"
        )

    say(f"renderer: {backend.description}")
    say(
        f"{original_path}: {len(original):,} Gaussians; {len(scene.train)} views to train on, "
        f"{len(scene.validation)} for validation, {len(scene.test)} for testing"
    )
    if recipe.stop_on == "test":
        say("stop_on: test, as published: the number of rounds is chosen on the test views, so their metrics flatter")

    roles = roles_of_views(options, scene, original.to(backend.device))
    if roles.note:
        say(roles.note)
    roles = replace(roles, judging=replace(roles.judging, lpips=lpips))
    run = RunDir(options.model_path)
    write_description(options, scene, original_path)
    result = compress(
        original.to(backend.device),
        original_path.stat().st_size,
        roles,
        recipe,
        run,
        settings=identity(options, roles, original_path),
        resume=options.resume,
        pick=options.pick,
    )
    point_cloud = model_dir.save_checkpoint(options.model_path, result.iterations, result.splats)
    write_journal_plot(result.journal, options.model_path / "journal.png")
    run.clear_state()
    print_journal_table(result.journal, judged_on=recipe.stop_on)
    size, before = result.path.stat().st_size, original_path.stat().st_size
    say(
        f"wrote {result.path}: {size / 1e6:.2f} MB, {before / size:.1f} times smaller; "
        f"the same model for any viewer is {point_cloud}"
    )
    return result


def load_original(options: Options) -> tuple[GaussianModel, Path]:
    """The trained model and its file.

    Raises:
        UserError: none or two are given, or the one given is missing, damaged or empty.
    """
    if (options.pretrained_dir is None) == (options.pretrained_ply is None):
        raise UserError(
            "name the trained model with --pretrained_dir DIR or with --pretrained_ply FILE, one of the two"
        )
    if options.pretrained_ply is not None:
        path = options.pretrained_ply
    else:
        assert options.pretrained_dir is not None
        if not options.pretrained_dir.is_dir():
            raise UserError(f"{options.pretrained_dir}: there is no such folder; give the folder of a trained model")
        iteration = model_dir.latest_iteration(options.pretrained_dir) if options.iteration == -1 else options.iteration
        path = model_dir.checkpoint_path(options.pretrained_dir, iteration)
    model = GaussianModel.load_ply(path, options.scene.sh_degree)
    if len(model) == 0:
        raise UserError(f"{path}: holds no Gaussians; there is nothing to compress")
    model.check_finite(str(path))
    return model, path


def with_background_of_checkpoint(options: Options) -> Options:
    """The options, on white where the checkpoint was trained on white."""
    folder = options.pretrained_dir
    if options.scene.white_background or folder is None or not options_of_model(folder).white_background:
        return options
    say(f"{folder}: was trained on a white background, so that is what is rendered on")
    return replace(options, scene=replace(options.scene, white_background=True))


def load_scene(options: Options, original: GaussianModel, original_path: Path) -> Scene:
    """The scene with its photographs, or else the one that the model makes of itself."""
    # Who stops on the test views trains on all others, as published.
    every = 0 if options.recipe.stop_on == "test" else options.recipe.validation_every
    if options.scene.source_path is not None:
        return open_scene(options.scene, validation_every=every, device=choose_backend(options.backend).device)
    return scene_without_photographs(
        original,
        original_path,
        options.pretrained_dir,
        options.scene,
        options.placement,
        validation_every=every,
        seed=options.recipe.seed,
        backend=options.backend,
    )


def roles_of_views(options: Options, scene: Scene, original: GaussianModel) -> Roles:
    """Which views train and which judge, by the recipe and by what the original, on the backend's device, knows."""
    training = Views(scene.train, scene.images.load, scene.background, scene.extent, options.backend)
    by_test = options.recipe.stop_on == "test"
    if options.scene.source_path is None:
        training = replace(training, target_quality=ASSUMED_QUALITY)
    elif not by_test:
        return assign_roles(training, scene.validation, original)
    return Roles(training, training.of(scene.test if by_test else scene.validation))


def load_run_lpips(options: Options) -> Lpips | None:
    """LPIPS, where the options ask for it.

    Raises:
        UserError: the budget needs it, and it is not to be had.
    """
    limited = options.recipe.max_lpips_rise < math.inf
    if options.lpips_weights is None and not limited:
        return None
    lpips = load_lpips(options.lpips_weights, choose_backend(options.backend).device)
    if lpips is None and limited:
        raise UserError(f"max_lpips_rise: {options.recipe.max_lpips_rise} cannot be watched; {HOW_TO_GET_LPIPS}")
    return lpips


def identity(options: Options, roles: Roles, original_path: Path) -> dict[str, Any]:
    """All that the result depends on, in a form that can be compared when a run is resumed."""
    return {
        **asdict(options.recipe),
        "checkpoint": hashlib.sha256(original_path.read_bytes()).hexdigest(),
        "backend": choose_backend(options.backend).name,
        "white_background": options.scene.white_background,
        "targets": asdict(options.placement) if options.scene.source_path is None else "photographs",
        "training views": [f"{view.name} {view.width}x{view.height}" for view in roles.training.cameras],
        "judging views": [view.name for view in roles.judging.cameras],
    }


def write_description(options: Options, scene: Scene, original_path: Path) -> None:
    """Write what INRIA's model directory tells of the scene and the options, and the recipe."""
    model_dir.write_cameras(options.model_path, [*scene.test, *scene.validation, *scene.train])
    written = {**asdict(options.scene), "model_path": options.model_path}
    if options.scene.source_path is not None:
        written |= {"source_path": options.scene.source_path.resolve()}
    else:
        # What render.py needs to show the original beside the result; the cameras are at their final size already.
        written |= {"pretrained_ply": original_path.resolve(), "resolution": 1}
    model_dir.write_options(options.model_path, written)
    write_text(options.model_path / RECIPE_FILE, options.recipe.to_yaml())


def main() -> None:
    train(parse())


if __name__ == "__main__":
    cli.run(main)
