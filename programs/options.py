"""The options of the programs, and how the defaults of some depend on others.

Nothing here imports PyTorch, so that ``--help`` and mistakes on the command line are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import tyro

from compress.recipe import Recipe, read_yaml
from compress.run_dir import OPTIONS_FILE, RECIPE_FILE, RunDir
from gsz.errors import UserError
from pretraining.rules import DensityRules
from pretraining.schedule import PAPER_ITERATIONS, Schedule
from scene.model_dir import find_options
from scene.options import PlacementOptions, SceneOptions, options_of_model
from utils.options import (
    IterationOrLatest,
    Number,
    OptionalCount,
    OptionalIteration,
    OptionalNumber,
    OptionalSize,
    from_plain,
    look_for,
)

BackendName = Literal["auto", "inria", "gsplat", "warp", "cpu"]
"""The backends of :mod:`gaussian_renderer`."""

_CONFIG = (tyro.conf.OmitArgPrefixes,)


# --- train.py --------------------------------------------------------------------------------------------------------


@dataclass
class Inputs:
    """What a run is made from. It is remembered in the run's folder, for --resume and --pick."""

    pretrained_dir: Path | None = None
    """The trained model: a directory that INRIA's program or pretrain.py wrote."""
    pretrained_ply: Path | None = None
    """The trained model: a lone file, a point_cloud.ply or any other format that can be read. Give one of the two."""
    iteration: OptionalIteration = None
    """Which iteration of the trained model to begin with; by default the latest."""
    strict: bool = False
    """Refuse a model with broken values (NaN, infinite, absurd) instead of cleaning it."""
    activated: str | None = None
    """What the model's file holds after its activation: opacity (0 to 1 instead of logits), scale (lengths instead of
    logarithms), or opacity,scale."""
    backend: BackendName = "auto"
    """Renderer."""
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), to measure it and for max_lpips_rise."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    placement: PlacementOptions = field(default_factory=PlacementOptions)


@dataclass
class CompressOptions(Inputs):
    """Compress a trained 3DGS model."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])] = tyro.MISSING
    """Folder to write to."""
    config: Path | None = None
    """A recipe: a YAML file with the settings that differ from the defaults. The settings below override it."""
    resume: bool = False
    """Go on after the last completed stage of a killed run, with the same result. The options are those of the run."""
    pick: OptionalSize = None
    """On a finished run: do only the final stage again, from the round whose file has this size, such as 5MB. The
    options are those of the run."""
    overwrite: bool = False
    """Begin anew where the folder holds a run already."""
    threads: OptionalCount = None
    """CPU threads; by default all. The result does not depend on it."""
    report: bool = True
    """Write report.html, the page of the run, at its end; --no_report leaves it out."""
    tensorboard: bool = False
    """Write what every stage comes to for TensorBoard, too, where it is installed."""
    recipe: Recipe = field(default_factory=Recipe)


@dataclass
class _Choice:
    """The options that the defaults of the others depend on."""

    model_path: Annotated[Path | None, tyro.conf.arg(aliases=["-m"])] = None
    config: Path | None = None
    resume: bool = False
    pick: OptionalSize = None


@dataclass
class _FormerCodecOptions:
    """Settings of a codec that are now given with its name."""

    quality: str | None = None
    grid: str | None = None


OptionsT = TypeVar("OptionsT", bound=CompressOptions)


@overload
def parse_compress(arguments: Sequence[str] | None = None) -> CompressOptions: ...
@overload
def parse_compress(arguments: Sequence[str] | None, kind: type[OptionsT]) -> OptionsT: ...
def parse_compress(arguments: Sequence[str] | None = None, kind: type[CompressOptions] = CompressOptions) -> Any:
    """The command line of ``train.py``, over the recipe of ``--config`` or the options of the run to go on with.

    Args:
        arguments: By default those of the process.
        kind: Programs that run ``train.py`` add options of their own to a subclass.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    codec, given = look_for(_FormerCodecOptions, given)
    choice, _ = look_for(_Choice, given)
    options = tyro.cli(
        kind,
        args=given,
        default=_defaults(choice, kind),
        config=_CONFIG,
        use_underscores=True,
    )
    return replace(options, recipe=options.recipe.with_codec_settings(codec.quality, codec.grid))


def _defaults(choice: _Choice, kind: type[OptionsT]) -> OptionsT:
    recipe = Recipe() if choice.config is None else Recipe.from_yaml(choice.config)
    options = kind(config=choice.config, recipe=recipe)
    if choice.model_path is None or not (choice.resume or choice.pick):
        return options
    folder = RunDir(choice.model_path).folder
    if (folder / RECIPE_FILE).is_file() and choice.config is None:
        options = replace(options, recipe=Recipe.from_yaml(folder / RECIPE_FILE))
    if (folder / OPTIONS_FILE).is_file():
        path = folder / OPTIONS_FILE
        remembered = from_plain(Inputs, read_yaml(path), str(path))
        options = replace(options, **{name: getattr(remembered, name) for name in vars(remembered)})
    return options


# --- render.py -------------------------------------------------------------------------------------------------------


@dataclass
class RenderOptions:
    """Render the training and test views of a model, in any format, beside the photographs."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """The model directory, whose cfg_args gives the defaults of the scene's options. May be new with --model and -s."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    model: Path | None = None
    """Render this file instead of the directory's own: .ply or any compressed format."""
    iteration: IterationOrLatest = None
    """Render point_cloud/iteration_N/point_cloud.ply. By default the compressed file, if there is one, else the
    latest."""
    pretrained_ply: Path | None = None
    """Where there are no photographs: the model whose renders stand for them, at the cameras of cameras.json."""
    activated: str | None = None
    """What the file of --pretrained_ply holds after its activation: opacity, scale, or opacity,scale."""
    skip_train: bool = False
    """Leave the training views out."""
    skip_test: bool = False
    """Leave the test views out."""
    backend: BackendName = "auto"
    """Who renders; auto takes the fastest that works here."""


@dataclass
class _Folder:
    """The option that the defaults of the others depend on."""

    model_path: Annotated[Path | None, tyro.conf.arg(aliases=["-m"])] = None


def parse_render(arguments: Sequence[str] | None = None) -> RenderOptions:
    """The command line of ``render.py``, over the defaults in the ``cfg_args`` of the model directory it names."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    folder = look_for(_Folder, given)[0].model_path
    default = RenderOptions(model_path=tyro.MISSING)
    if folder is not None:
        default = RenderOptions(
            model_path=folder,
            scene=options_of_model(folder),
            pretrained_ply=original_file(folder),
            activated=_noted(folder, "activated"),
        )
    return tyro.cli(RenderOptions, args=given, default=default, config=_CONFIG, use_underscores=True)


def original_file(model_dir: Path) -> Path | None:
    """The model that the one in this directory was made from, where it was made without photographs."""
    path = _noted(model_dir, "pretrained_ply")
    return None if path is None else Path(path)


def _noted(model_dir: Path, name: str) -> str | None:
    """A text in the ``cfg_args`` of a model directory, where there is one of this name."""
    value = find_options(model_dir).get(name)
    return value if isinstance(value, str) else None


# --- metrics.py ------------------------------------------------------------------------------------------------------


@dataclass
class MeasureOptions:
    """Measure what render.py wrote: PSNR, SSIM and LPIPS of the test views, and size, count and speed of the model."""

    model_paths: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["-m", "--model_path"], metavar="DIR [DIR ...]")]
    """Model directories."""
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), where the lpips package does not work."""


def parse_measure(arguments: Sequence[str] | None = None) -> MeasureOptions:
    """The command line of ``metrics.py``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return tyro.cli(MeasureOptions, args=given, use_underscores=True)


# --- report.py -------------------------------------------------------------------------------------------------------


@dataclass
class ReportOptions:
    """Write the page of a finished run, report.html."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """The run's folder."""
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), to measure it; by default as in the run."""
    backend: BackendName = "auto"
    """Who renders; auto takes the run's."""


def parse_report(arguments: Sequence[str] | None = None) -> ReportOptions:
    """The command line of ``report.py``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return tyro.cli(ReportOptions, args=given, use_underscores=True)


# --- compare.py ------------------------------------------------------------------------------------------------------


@dataclass
class CompareOptions:
    """Measure how far two models are apart, or a model and its scene: PSNR, SSIM and LPIPS of renders, and sizes."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL]")]
    """One or two files of any format; of two, the second is measured against the first."""
    formats: str | None = None
    """Measure what the model loses in these formats, such as spz,sog,gsz:quality=low. Nothing is written."""
    cameras: Path | None = None
    """Look from the cameras of this cameras.json. By default from one beside a model, else from placed cameras."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    placement: PlacementOptions = field(default_factory=lambda: PlacementOptions(view_count=24))
    """Views without -s: how many are placed, or taken of a cameras.json, evenly."""
    min_psnr: OptionalNumber = None
    """End with exit code 1 where the mean PSNR is lower than this, in dB."""
    json: Path | None = None
    """Write all figures to this file as well."""
    html: Path | None = None
    """Write a page with the figures, pictures and the models in 3D to this file as well."""
    brief: bool = False
    """Print one line."""
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), where the lpips package does not work."""
    backend: BackendName = "auto"
    """Who renders; auto takes the fastest that works here."""


def parse_compare(arguments: Sequence[str] | None = None) -> CompareOptions:
    """The command line of ``compare.py``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = tyro.cli(CompareOptions, args=given, config=_CONFIG, use_underscores=True)
    _check_models(options.models)
    return options


def _check_models(models: tuple[Path, ...]) -> None:
    """Raise :class:`UserError` unless one or two models are named."""
    if not 1 <= len(models) <= 2:
        raise UserError(f"{len(models) or 'no'} models are named; give one or two")


# --- view.py ---------------------------------------------------------------------------------------------------------


@dataclass
class ViewOptions:
    """Show one or two models, or all that a run has written, in the browser."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL]")]
    """One or two files of any format, or the folder of a run, while it still runs too."""
    cameras: Path | None = None
    """Offer the cameras of this cameras.json. By default of one beside a model, or of the scene (-s)."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    port: int = 0
    """Where the page is served on this machine; 0 takes a free port."""
    open: bool = True
    """Open the page in a browser, where there is one; --no_open only prints its address."""
    export: Path | None = None
    """Write one file that opens from disk without a network, and serve nothing."""


def parse_view(arguments: Sequence[str] | None = None) -> ViewOptions:
    """The command line of ``view.py``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = tyro.cli(ViewOptions, args=given, config=_CONFIG, use_underscores=True)
    _check_models(options.models)
    return options


# --- pretrain.py -----------------------------------------------------------------------------------------------------


@dataclass
class PretrainOptions:
    """Train a plain 3DGS model from photographs with poses."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder to write the model to."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    schedule: Schedule = field(default_factory=Schedule)
    density: DensityRules = field(default_factory=DensityRules)
    iterations: int = PAPER_ITERATIONS
    """Number of iterations, each on one photograph."""
    scale_schedule: bool = False
    """With fewer (or more) iterations than 30,000: move everything that happens at an iteration in proportion."""
    save_iterations: tuple[int, ...] = (7000, 30_000)
    """Iterations after which the model is saved; it always is after the last."""
    test_iterations: tuple[int, ...] = (7000, 30_000)
    """Iterations after which PSNR and SSIM are reported; they always are after the last."""
    checkpoint_iterations: tuple[int, ...] = ()
    """Iterations after which a checkpoint to resume from is saved and kept."""
    checkpoint_minutes: Number = 5.0
    """Minutes after which a checkpoint to resume from is saved in the place of the one before."""
    resume: bool = False
    """Go on from the latest checkpoint in the model's folder, with the same result as without the interruption."""
    overwrite: bool = False
    """Begin anew where the folder holds a training already."""
    random_points: int = 100_000
    """Number of random points to begin with where the scene comes without points (Blender)."""
    validation_every: int = 0
    """Leave one in so many training views out of training, the ones train.py then judges on. 0 trains on all, as 3DGS
    does; train.py cannot hold out views that the checkpoint was trained on."""
    seed: int = 0
    """Stands for every random choice: the order of the views, random points, the places of split Gaussians."""
    backend: BackendName = "auto"
    """Renderer."""


def parse_pretrain(arguments: Sequence[str] | None = None) -> PretrainOptions:
    """The command line of ``pretrain.py``; ``arguments`` default to those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return tyro.cli(PretrainOptions, args=given, config=_CONFIG, use_underscores=True)
