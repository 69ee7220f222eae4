"""What ``train.py`` does: load a trained model and its views, compress it, write everything a run writes."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from compress.front import front_table
from compress.judging import Judge, Roles, assign_roles
from compress.loop import Result, check_targets, compress, repick
from compress.recipe import Recipe
from compress.report import journal_table
from compress.run_dir import MADE_FILE, OPTIONS_FILE, RECIPE_FILE, RunDir
from compress.views import Views
from gaussian_renderer import choose_backend
from gsz.cleaning import listed
from gsz.errors import UserError
from gsz.files import write_text
from gsz.ply_header import abridged
from programs.label import label_of
from programs.options import CompressOptions, Inputs
from programs.own_renders import ASSUMED_QUALITY, has_cameras, scene_without_photographs
from programs.provenance import how_it_is_made
from programs.tensorboard import WatchedRunDir
from quality.lpips import HOW_TO_GET_LPIPS, Lpips, load_lpips
from scene import Scene, model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import options_of_model
from utils import ranks
from utils.options import to_plain
from utils.progress import Progress, silent

log = logging.getLogger(__name__)


def run(options: CompressOptions, progress: Progress = silent) -> Result | None:
    """Compress a model as the options say, and write everything a run writes.

    Returns:
        ``None`` where there was nothing to do, since the run to resume is finished, and in all but the first of several
        processes that share the run.

    Raises:
        UserError: anything wrong with the options, the model or the scene.
    """
    recipe = options.recipe
    folder = WatchedRunDir(options.model_path, recipe.stop_on) if options.tensorboard else RunDir(options.model_path)
    recipe.check()
    if recipe.stop_on == "test" and not options.scene.eval:
        raise UserError("stop_on: test needs test views; add --eval")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: must be at least 1")
    if ranks.once(lambda: is_done(options, folder)):
        return None
    listed = ranks.once(folder.finished_journal) if options.pick is not None else []
    if options.threads is not None:
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

    log.info("renderer: %s", backend.description)
    log.info(
        "%s: %s Gaussians; %d views to train on, %d for validation, %d for testing",
        original_path,
        f"{len(original):,}",
        len(scene.train),
        len(scene.validation),
        len(scene.test),
    )
    if recipe.stop_on == "test":
        log.info("stop_on: test, as published: the number of rounds is chosen on test views, so their metrics flatter")

    original = original.to(backend.device)
    roles = roles_of_views(options, scene, original, lpips)
    if ranks.count() > len(roles.training):
        raise UserError(f"{len(roles.training)} views cannot be shared by {ranks.count()} processes; start fewer")
    settings = identity(options, roles, original_path)
    state = ranks.once(lambda: folder.load_state(settings) if options.resume and folder.has_state() else None)
    if state is None and ranks.is_first():
        write_description(folder.begin(recipe.to_yaml()), options, scene, original, original_path)
    size = original_path.stat().st_size
    label = label_of(original, size, scene.train)
    if options.pick is not None:
        log.info(
            "%s: its file of %.2f MB is replaced by one of %.2f MB; all rounds stay in front/, to pick others from",
            options.model_path,
            listed[-1].bytes / 1e6,
            options.pick / 1e6,
        )
        result = repick(listed, roles, recipe, folder, options.pick, label=label, progress=progress)
    else:
        result = compress(
            original, size, roles, recipe, folder, settings=settings, label=label, state=state, progress=progress
        )
    if ranks.count() > 1:
        log.info("%d processes shared the run; this one spent %s", ranks.count(), ranks.time_spent())
    if not ranks.leave():
        return None
    result = write_result(folder, result, judged_on=recipe.stop_on, original_path=original_path)
    if options.pick is None:
        missed = recipe.budget(len(original)).missed(len(result.splats), result.path.stat().st_size)
        if missed:
            log.warning(
                "the target is missed: %s. Rounds ended before, at a limit of quality or of rounds; raise "
                "max_psnr_drop, max_ssim_drop or max_rounds",
                missed,
            )
    return result


def is_done(options: CompressOptions, folder: RunDir) -> bool:
    """Whether there is nothing left to do. A run that only has to be moved into place is.

    Raises:
        UserError: the folder holds another run, and it is not said what should become of it; or the trained model.
    """
    check_output(options)
    folder.settle()
    if options.overwrite or options.pick is not None:
        return False
    if folder.has_state():
        if options.resume:
            return False
        raise UserError(
            f"{options.model_path}: holds an unfinished run; --resume goes on with it, --overwrite begins anew"
        )
    if not folder.is_finished():
        return False
    if not options.resume:
        raise UserError(
            f"{options.model_path}: holds a finished run; --overwrite replaces it, --pick SIZE makes another size of "
            "it, or choose another folder with -m"
        )
    path = options.model_path / RECIPE_FILE
    if path.is_file() and Recipe.from_yaml(path) != options.recipe:
        raise UserError(
            f"{path}: the finished run here has another recipe; --overwrite replaces it, or choose another folder "
            "with -m"
        )
    log.info("%s: the run is finished, there is nothing to resume", options.model_path)
    return True


def check_output(options: CompressOptions) -> None:
    """Raise :class:`UserError` where the run would write over a model that it did not make."""
    out, trained = options.model_path.resolve(), options.pretrained_dir
    if trained is None and options.pretrained_ply is not None:
        parents = options.pretrained_ply.resolve().parents  # .../point_cloud/iteration_N
        trained = parents[2] if len(parents) > 2 and parents[1].name == "point_cloud" else None
    if trained is not None and trained.resolve() == out:
        raise UserError(
            f"{options.model_path}: is the folder of the trained model, whose files would be replaced; choose another "
            "one with -m"
        )
    foreign = RunDir(options.model_path).foreign_files()
    if foreign:
        raise UserError(
            f"{options.model_path}: holds files that this program did not write and would replace "
            f"({abridged(foreign)}); choose another folder with -m"
        )


def write_result(folder: RunDir, result: Result, judged_on: str, original_path: Path) -> Result:
    """Write what a run writes beside its compressed file, put all of it in place, and tell of it."""
    model_dir.save_checkpoint(folder.folder, result.iterations, result.splats)
    path = folder.complete(result.journal, result.path)
    log.info("front (before the final stage):\n%s", front_table(result.journal))
    log.info("on the %s views:\n%s", judged_on, journal_table(result.journal))
    size, before = path.stat().st_size, original_path.stat().st_size
    log.info(
        "wrote %s: %.2f MB, %.1f times smaller; the same model for any viewer is %s",
        path,
        size / 1e6,
        before / size,
        model_dir.checkpoint_path(folder.path, result.iterations),
    )
    return replace(result, path=path)


def load_original(options: Inputs) -> tuple[GaussianModel, Path]:
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
        iteration = options.iteration
        if iteration is None:
            iteration = model_dir.latest_iteration(options.pretrained_dir)
        path = model_dir.checkpoint_path(options.pretrained_dir, iteration)
    model = GaussianModel.load_ply(
        path, options.scene.sh_degree, strict=options.strict, activated=listed(options.activated)
    )
    if len(model) == 0:
        raise UserError(f"{path}: holds no Gaussians; there is nothing to compress")
    if model.antialiased:
        log.warning(
            "%s: was trained with antialiasing (Mip-Splatting's 2D filter), which the renderers here do not apply; "
            "its fine parts are fine-tuned to look as without it",
            path,
        )
    if model.offset is not None and options.scene.source_path is not None:
        raise UserError(
            f"{path}: its positions are relative to the offset {model.offset.tolist()}, and the cameras of "
            f"{options.scene.source_path} are not; move both close to the origin, or leave -s out"
        )
    return model, path


def with_background_of_checkpoint(options: CompressOptions) -> CompressOptions:
    """The options, on white where the checkpoint was trained on white."""
    folder = options.pretrained_dir
    if options.scene.white_background or folder is None or not options_of_model(folder).white_background:
        return options
    log.info("%s: was trained on a white background, so that is what is rendered on", folder)
    return replace(options, scene=replace(options.scene, white_background=True))


def load_scene(options: CompressOptions, original: GaussianModel, original_path: Path) -> Scene:
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


def roles_of_views(
    options: CompressOptions, scene: Scene, original: GaussianModel, lpips: Lpips | None = None
) -> Roles:
    """Which views train and which judge, by the recipe and by what the original, on the backend's device, knows."""
    training = Views.of(scene, scene.train, options.backend)
    by_test = options.recipe.stop_on == "test"
    has_photographs = options.scene.source_path is not None
    if has_photographs and not by_test:
        return assign_roles(training, scene.validation, original, lpips)
    judge = Judge(
        training.at(scene.test if by_test else scene.validation), lpips, None if has_photographs else ASSUMED_QUALITY
    )
    return Roles(training, judge, placed=not has_photographs and not has_cameras(options.pretrained_dir))


def load_run_lpips(options: CompressOptions) -> Lpips | None:
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


def identity(options: CompressOptions, roles: Roles, original_path: Path) -> dict[str, Any]:
    """All that the result depends on, in a form that can be compared when a run is resumed."""
    return {
        **asdict(options.recipe),
        "checkpoint": hashlib.sha256(original_path.read_bytes()).hexdigest(),
        "activated": sorted(listed(options.activated)),
        "backend": choose_backend(options.backend).name,
        "white_background": options.scene.white_background,
        "targets": asdict(options.placement) if options.scene.source_path is None else "photographs",
        "training views": [f"{view.name} {view.width}x{view.height}" for view in roles.training.cameras],
        "judging views": [view.name for view in roles.judge.views.cameras],
    }


def write_description(
    folder: Path, options: CompressOptions, scene: Scene, original: GaussianModel, original_path: Path
) -> None:
    """Write what INRIA's model directory tells of the scene and the options, and the options of the run."""
    model_dir.write_cameras(folder, [*scene.test, *scene.validation, *scene.train])
    written = {**asdict(options.scene), "sh_degree": original.sh_degree, "model_path": options.model_path}
    if options.scene.source_path is not None:
        written |= {"source_path": options.scene.source_path.resolve()}
    else:
        # What render.py needs to show the original beside the result; the cameras are at their final size already.
        written |= {"pretrained_ply": original_path.resolve(), "activated": options.activated, "resolution": 1}
    model_dir.write_options(folder, written)
    inputs = Inputs(**{name: getattr(options, name) for name in vars(Inputs())})
    made = how_it_is_made(choose_backend(options.backend))
    write_text(folder / MADE_FILE, yaml.safe_dump(made, sort_keys=False, width=1000))
    write_text(folder / OPTIONS_FILE, yaml.safe_dump(to_plain(inputs), sort_keys=False))
