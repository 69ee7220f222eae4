"""Train a plain 3DGS model from photographs with poses: what INRIA's train.py does, on any renderer of this project.

    python pretrain.py -s data/garden -m models/garden --eval -i images_4

It writes the model directory that INRIA's program writes (``point_cloud/``, ``cameras.json``, ``cfg_args``,
``input.ply``); ``train.py --pretrained_dir`` compresses it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from gaussian_renderer import BackendName, choose_backend
from gsz.errors import UserError
from gsz.splats import MAX_SH_DEGREE
from pretraining.checkpoint import checkpoint_path, latest_checkpoint, load_checkpoint, save_checkpoint
from pretraining.densify import DensityRules
from pretraining.initial import random_points, splats_at_points
from pretraining.schedule import PAPER_ITERATIONS, Schedule
from pretraining.trainer import STREAM_POINTS, Trainer, random_stream
from quality.metrics import mean_metrics, measure
from scene import PointCloud, Scene, model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from scene.points import write_points
from utils import cli
from utils.cli import say
from utils.progress import Progress, silent
from utils.state import check_settings

# Training views that are reported beside the test views; five, as in 3DGS.
REPORTED_TRAINING_VIEWS = 5
# The loss shown is a running mean over about this many iterations, each of which sees another view.
LOSS_WINDOW = 100


@dataclass
class Options:
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
    """Iterations after which a checkpoint to resume from is saved."""
    resume: bool = False
    """Go on from the latest checkpoint in the model's folder, with the same result as without the interruption."""
    random_points: int = 100_000
    """Number of random points to begin with where the scene comes without points (Blender)."""
    validation_every: int = 0
    """Leave one in so many training views out of training, the ones train.py then judges on. 0 trains on all, as 3DGS
    does; train.py cannot hold out views that the checkpoint was trained on."""
    seed: int = 0
    """Stands for every random choice: the order of the views, random points, the places of split Gaussians."""
    backend: BackendName = "auto"
    """Renderer."""


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    with cli.progress_bar("pretrain", "it") as progress:
        pretrain(options, progress)


def pretrain(options: Options, progress: Progress = silent) -> Path:
    """Train as the options say and write the model directory.

    Returns:
        The ``point_cloud.ply`` of the last iteration.

    Raises:
        UserError: the options or the scene are no good, or the training came to nothing.
    """
    if options.iterations < 1:
        raise UserError(f"--iterations {options.iterations}: must be at least 1")
    backend = choose_backend(options.backend)
    scene = open_scene(
        options.scene, validation_every=options.validation_every, device=backend.device, with_points=True
    )
    if options.scene.sh_degree is None:
        options = replace(options, scene=replace(options.scene, sh_degree=MAX_SH_DEGREE))
    trainer = begin(options, scene)
    first, started = trainer.iteration, time.monotonic()
    say(
        f"{options.scene.source_path}: {len(scene.train)} training and {len(scene.test)} test views, "
        f"{len(trainer.splats):,} Gaussians, from iteration {first:,} to {options.iterations:,}, {backend.description}"
    )
    write_description(options, scene)
    run_iterations(options, trainer, progress)
    path = model_dir.save_checkpoint(options.model_path, trainer.iteration, trainer.splats.detach())
    report(trainer)
    say(
        f"wrote {path}: {len(trainer.splats):,} Gaussians, {path.stat().st_size / 1e6:.1f} MB; "
        f"{trainer.iteration - first:,} iterations in {(time.monotonic() - started) / 60:.1f} min"
    )
    return path


def begin(options: Options, scene: Scene) -> Trainer:
    """A trainer before the first iteration, or with ``--resume`` where the latest checkpoint left off."""
    path = latest_checkpoint(options.model_path) if options.resume else None
    state = load_checkpoint(path, scene.background.device) if path else None
    if options.resume and state is None:
        say(f"{options.model_path}: holds no checkpoint; training begins at the first iteration")
    trainer = Trainer(
        scene,
        state.splats if state else initial_splats(options, scene),
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


def initial_splats(options: Options, scene: Scene) -> GaussianModel:
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
    assert options.scene.sh_degree is not None
    return splats_at_points(points, options.scene.sh_degree).to(scene.background.device)


def run_iterations(options: Options, trainer: Trainer, progress: Progress) -> None:
    """Train to the last iteration, saving and reporting on the way."""
    mean_loss = None
    while trainer.iteration < options.iterations:
        loss = trainer.step()
        if loss is not None:
            mean_loss = loss if mean_loss is None else mean_loss + (loss - mean_loss) / LOSS_WINDOW
        note = "" if mean_loss is None else f"loss {mean_loss:.4f}, {len(trainer.splats):,} Gaussians"
        progress(trainer.iteration, options.iterations, note)
        # The last iteration is saved and reported in any case, at the end.
        if trainer.iteration < options.iterations:
            if trainer.iteration in options.save_iterations:
                model_dir.save_checkpoint(options.model_path, trainer.iteration, trainer.splats.detach())
            if trainer.iteration in options.test_iterations:
                report(trainer)
        if trainer.iteration in options.checkpoint_iterations:
            save_checkpoint(checkpoint_path(options.model_path, trainer.iteration), trainer.state())


def report(trainer: Trainer) -> None:
    """Print the mean PSNR and SSIM over the test views and over a few training views."""
    training = trainer.scene.train[:: max(1, len(trainer.scene.train) // REPORTED_TRAINING_VIEWS)]
    for label, views in (("test", trainer.scene.test), ("training", training[:REPORTED_TRAINING_VIEWS])):
        if views:
            metrics = mean_metrics([measure(trainer.render(view), trainer.photograph(view)) for view in views])
            say(
                f"iteration {trainer.iteration:,}, {len(views)} {label} views: "
                f"PSNR {metrics.psnr:.2f} dB, SSIM {metrics.ssim:.4f}, {len(trainer.splats):,} Gaussians"
            )


def write_description(options: Options, scene: Scene) -> None:
    """Write what INRIA's model directory tells of the scene and the options."""
    model_dir.write_cameras(options.model_path, [*scene.test, *scene.train])
    source_path = Path(options.scene.source_path or "").resolve()
    model_dir.write_options(
        options.model_path,
        {**asdict(options.scene), "source_path": source_path, "model_path": options.model_path},
    )


if __name__ == "__main__":
    cli.run(main)
