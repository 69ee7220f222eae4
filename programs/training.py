"""What ``pretrain.py`` does: train a plain 3DGS model from photographs with poses."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path

from gaussian_renderer import choose_backend
from gsz.errors import UserError
from gsz.splats import MAX_SH_DEGREE
from pretraining.checkpoint import load_checkpoint, save_checkpoint
from pretraining.checkpoint_files import checkpoint_path, latest_checkpoint, rolling_checkpoint_path
from pretraining.initial import random_points, splats_at_points
from pretraining.trainer import STREAM_POINTS, Trainer, random_stream
from programs.options import PretrainOptions
from quality.metrics import measure
from quality.summary import mean_metrics
from scene import PointCloud, Scene, model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.points import write_points
from utils import ranks
from utils.progress import Progress, silent
from utils.state import check_settings

log = logging.getLogger(__name__)

# Training views that are reported beside the test views; five, as in 3DGS.
REPORTED_TRAINING_VIEWS = 5
# The loss shown is a running mean over about this many iterations, each of which sees another view.
LOSS_WINDOW = 100
# Iterations between two looks at the clock, which processes that share a training have to agree on.
CLOCK_EVERY = 10


def run(options: PretrainOptions, progress: Progress = silent) -> Path:
    """Train as the options say and write the model directory.

    Returns:
        The ``point_cloud.ply`` of the last iteration.

    Raises:
        UserError: the options or the scene are no good, or the training came to nothing.
    """
    check(options)
    backend = choose_backend(options.backend)
    scene = open_scene(
        options.scene, validation_every=options.validation_every, device=backend.device, with_points=True
    )
    trainer = begin(options, scene)
    first, started = trainer.iteration, time.monotonic()
    log.info(
        "%s: %d training and %d test views, %s Gaussians, from iteration %s to %s, %s",
        options.scene.source_path,
        len(scene.train),
        len(scene.test),
        f"{len(trainer.splats):,}",
        f"{first:,}",
        f"{options.iterations:,}",
        backend.description,
    )
    ranks.once(lambda: write_description(options, scene))
    run_iterations(options, trainer, progress)
    path = save_model(options, trainer)
    ranks.once(lambda: rolling_checkpoint_path(options.model_path).unlink(missing_ok=True))
    report(trainer)
    if ranks.count() > 1:
        log.info("%d processes shared the training; this one spent %s", ranks.count(), ranks.time_spent())
    log.info(
        "wrote %s: %s Gaussians, %.1f MB; %s iterations in %.1f min",
        path,
        f"{len(trainer.splats):,}",
        path.stat().st_size / 1e6,
        f"{trainer.iteration - first:,}",
        (time.monotonic() - started) / 60,
    )
    return path


def check(options: PretrainOptions) -> None:
    """Raise :class:`UserError` for an option that makes no sense."""
    if options.iterations < 1:
        raise UserError(f"--iterations {options.iterations}: must be at least 1")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed}: must be from 0 to 2^63 - 1")
    if not options.checkpoint_minutes > 0:
        raise UserError(f"--checkpoint_minutes {options.checkpoint_minutes}: must be above 0")
    if not (options.resume or options.overwrite) and ranks.once(lambda: has_training(options.model_path)):
        raise UserError(
            f"{options.model_path}: holds a training already; --resume goes on with it, --overwrite begins anew, or "
            "choose another folder with -m"
        )


def has_training(folder: Path) -> bool:
    """Whether a model was trained there, or began to be."""
    return latest_checkpoint(folder) is not None or any(folder.glob("point_cloud/iteration_*/point_cloud.ply"))


def begin(options: PretrainOptions, scene: Scene) -> Trainer:
    """A trainer before the first iteration, or with ``--resume`` where the latest checkpoint left off."""
    path = ranks.once(lambda: latest_checkpoint(options.model_path)) if options.resume else None
    state = ranks.once(lambda: load_checkpoint(path, scene.background.device)) if path else None
    if options.resume and state is None:
        log.info("%s: holds no checkpoint; training begins at the first iteration", options.model_path)
    trainer = Trainer(
        scene,
        state.splats if state else ranks.once(lambda: initial_splats(options, scene)),
        options.schedule.scaled_to(options.iterations) if options.scale_schedule else options.schedule,
        options.density,
        seed=options.seed,
        white_background=options.scene.white_background,
        backend=options.backend,
    )
    if path and state:
        remedy = "use the same options as before, or train into a new folder without --resume"
        check_settings(path, state.settings, trainer.settings(), remedy)
        if state.iteration > options.iterations:
            raise UserError(f"{path}: is beyond --iterations {options.iterations}; give more, or leave out --resume")
        trainer.restore(state)
    return trainer


def initial_splats(options: PretrainOptions, scene: Scene) -> GaussianModel:
    """One Gaussian at each of the scene's points, or at random points where a Blender scene has none.

    With ``--max_gaussians``, at a random choice of so many of them.
    """
    random = random_stream(options.seed, STREAM_POINTS)
    points = scene.points
    if points is None:
        if options.random_points < 1:
            raise UserError(f"--random_points {options.random_points}: must be at least 1 for a scene without points")
        points = random_points(options.random_points, random)
    if not len(points):
        raise UserError(
            f"{options.scene.source_path}: its COLMAP model has no points to begin with; "
            "run COLMAP's point_triangulator and copy its model into sparse/0"
        )
    write_points(options.model_path / model_dir.POINTS_FILE, points)
    cap = options.density.max_gaussians
    if 0 < cap < len(points):
        chosen = random.permutation(len(points))[:cap]
        points = PointCloud(points.positions[chosen], points.colors[chosen])
    return splats_at_points(points, degree_to_train(options)).to(scene.background.device)


def degree_to_train(options: PretrainOptions) -> int:
    """The degree of the spherical harmonics of the model that comes out."""
    return MAX_SH_DEGREE if options.scene.sh_degree is None else options.scene.sh_degree


def run_iterations(options: PretrainOptions, trainer: Trainer, progress: Progress) -> None:
    """Train to the last iteration, saving and reporting on the way."""
    mean_loss = None
    saved = time.monotonic()

    def is_due() -> bool:
        return time.monotonic() - saved >= 60 * options.checkpoint_minutes

    while trainer.iteration < options.iterations:
        before = trainer.iteration
        loss = trainer.step(options.iterations)
        done = set(range(before + 1, trainer.iteration + 1))
        if loss is not None:
            mean_loss = loss if mean_loss is None else mean_loss + (loss - mean_loss) / LOSS_WINDOW
        note = "" if mean_loss is None else f"loss {mean_loss:.4f}, {len(trainer.splats):,} Gaussians"
        progress(trainer.iteration, options.iterations, note)
        # The last iteration is saved and reported in any case, at the end.
        if trainer.iteration < options.iterations:
            if done.intersection(options.save_iterations):
                save_model(options, trainer)
            if done.intersection(options.test_iterations):
                report(trainer)
        if done.intersection(options.checkpoint_iterations):
            save_state(checkpoint_path(options.model_path, trainer.iteration), trainer)
        if trainer.iteration % CLOCK_EVERY < len(done) and ranks.once(is_due):
            save_state(rolling_checkpoint_path(options.model_path), trainer)
            saved = time.monotonic()


def save_model(options: PretrainOptions, trainer: Trainer) -> Path:
    """Write the model as it is now; the path of its ``point_cloud.ply``."""
    splats = trainer.splats.detach()
    return ranks.once(lambda: model_dir.save_checkpoint(options.model_path, trainer.iteration, splats))


def save_state(path: Path, trainer: Trainer) -> None:
    """Write a checkpoint to resume from."""
    state = trainer.state()
    ranks.once(lambda: save_checkpoint(path, state))


def report(trainer: Trainer) -> None:
    """Print the mean PSNR and SSIM over the test views and over a few training views."""
    training = trainer.scene.train[:: max(1, len(trainer.scene.train) // REPORTED_TRAINING_VIEWS)]
    for label, views in (("test", trainer.scene.test), ("training", training[:REPORTED_TRAINING_VIEWS])):
        if views:
            mine = [measure(trainer.render(view), trainer.photograph(view)) for view in ranks.share(views)]
            metrics = mean_metrics(ranks.gathered(mine))
            log.info(
                "iteration %s, %d %s views: PSNR %.2f dB, SSIM %.4f, %s Gaussians",
                f"{trainer.iteration:,}",
                len(views),
                label,
                metrics.psnr,
                metrics.ssim,
                f"{len(trainer.splats):,}",
            )


def write_description(options: PretrainOptions, scene: Scene) -> None:
    """Write what INRIA's model directory tells of the scene and the options."""
    model_dir.write_cameras(options.model_path, [*scene.test, *scene.train])
    source_path = Path(options.scene.source_path or "").resolve()
    model_dir.write_options(
        options.model_path,
        {
            **asdict(options.scene),
            "sh_degree": degree_to_train(options),
            "source_path": source_path,
            "model_path": options.model_path,
        },
    )
