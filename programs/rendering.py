"""What ``render.py`` does: render a model of any format beside the photographs of its scene."""

from __future__ import annotations

import logging
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from compress.journal import FINAL, read_journal
from compress.run_dir import JOURNAL_FILE
from gaussian_renderer import Backend, choose_backend
from gaussian_renderer import render as render_view
from gsz import registry
from gsz.cleaning import listed
from gsz.errors import UserError
from gsz.files import write_text
from programs.options import RenderOptions
from programs.own_renders import OwnRenders, known_cameras
from quality.render_info import FILE_NAME as INFO_FILE
from quality.render_info import RenderInfo
from scene import Camera, GaussianModel, Scene, background, open_scene, scene_of_cameras
from scene.cache import ImageCache
from scene.model_dir import CAMERAS_FILE, checkpoint_path, latest_iteration
from utils.progress import Progress, counted, silent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFile:
    """The model to render.

    Attributes:
        path: The file.
        method: What its renders are filed under: ``ours_N`` for a run's own, else the file's name.
    """

    path: Path
    method: str


def choose_model(
    model_dir: Path, model: Path | None = None, iteration: int | Literal["latest"] | None = None
) -> ModelFile:
    """The file that the options name; without any, the run's compressed file, else its latest checkpoint.

    Raises:
        UserError: the options contradict each other, there is no model, or it is not clear which.
    """
    if model is not None and iteration is not None:
        raise UserError("--model and --iteration name two models; give one of them")
    compressed = _compressed_files(model_dir)
    if model is not None:
        if not model.is_file():
            raise UserError(f"{model}: there is no such file; check --model")
        if model.resolve() in [path.resolve() for path in compressed]:
            return ModelFile(model, _method_of_run(model_dir))
        folder = re.fullmatch(r"iteration_(\d+)", model.resolve().parent.name)
        return ModelFile(model, f"ours_{folder[1]}" if folder else model.stem.lstrip(".") or "model")
    if iteration is None and len(compressed) > 1:
        names = ", ".join(path.name for path in compressed)
        raise UserError(f"{model_dir}: holds several compressed files ({names}); choose one with --model")
    if iteration is None and compressed:
        return ModelFile(compressed[0], _method_of_run(model_dir))
    number = iteration if isinstance(iteration, int) else latest_iteration(model_dir)
    return ModelFile(checkpoint_path(model_dir, number), f"ours_{number}")


def _compressed_files(model_dir: Path) -> list[Path]:
    return sorted(path for path in model_dir.glob("compressed.*") if registry.format_of_suffix(path) is not None)


def _method_of_run(model_dir: Path) -> str:
    """A compressed file counts as the last iteration of its run."""
    with suppress(UserError):
        last = read_journal(model_dir / JOURNAL_FILE)[-1]
        if last.stage == FINAL:
            return f"ours_{last.iteration}"
    with suppress(UserError):
        return f"ours_{latest_iteration(model_dir)}"
    return "ours_0"


def load_scene(options: RenderOptions) -> Scene:
    """The scene with its photographs; or, where there is none, the model's cameras with renders of its original.

    Raises:
        UserError: neither is named, or what is named is missing or damaged.
    """
    # Each photograph is needed once, so none is kept; and none is held out of training, since nothing is validated.
    if options.scene.source_path is not None:
        return open_scene(options.scene, validation_every=0, cache=ImageCache(0))
    folder, original = options.model_path, options.pretrained_ply
    if original is None:
        raise UserError(f"{folder}: no cfg_args in it names the scene; give the scene's folder with -s")
    if not original.is_file():
        raise UserError(f"{original}: {folder} was made from it, but it is gone; say where it is with --pretrained_ply")
    images = OwnRenders(
        GaussianModel.load_ply(original, activated=listed(options.activated)),
        background(options.scene),
        options.backend,
    )
    return scene_of_cameras(known_cameras(folder), images, options.scene, folder / CAMERAS_FILE, validation_every=0)


class Renderer:
    """A model on a backend, rendering on one background.

    Attributes:
        backend: Who renders.
    """

    def __init__(self, splats: GaussianModel, background: Tensor, backend: Backend) -> None:
        self.backend = backend
        self._splats = splats.to(backend.device)
        self._background = background.to(backend.device)

    @torch.inference_mode()
    def image(self, camera: Camera) -> Tensor:
        """``(H, W, 3)`` float32, clamped to [0, 1]."""
        return render_view(camera, self._splats, self._background, backend=self.backend.name).image.clamp(0.0, 1.0)

    def seconds(self, camera: Camera) -> float:
        """How long the view takes, until the image is there."""
        self._finish()
        start = time.perf_counter()
        self.image(camera)
        self._finish()
        return time.perf_counter() - start

    def _finish(self) -> None:
        if self.backend.device.type == "cuda":
            torch.cuda.synchronize(self.backend.device)


def save_png(image: Tensor, path: Path) -> None:
    """Write an ``(H, W, 3)`` image in [0, 1] as 8-bit PNG, rounded to nearest."""
    pixels = (image * 255.0).add(0.5).clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.cpu().numpy()).save(path)


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose ``renders`` and ``gt`` replace those of ``folder`` when the block ends well.

    Images of an earlier run can so never stand among the new ones, and a killed run leaves the earlier ones whole.
    Other files in ``folder`` are left alone.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    staging = folder.with_name(f".{folder.name}.partial")
    try:
        if staging.exists():
            shutil.rmtree(staging)
        for part in ("renders", "gt"):
            (staging / part).mkdir(parents=True)
        yield staging
        folder.mkdir(parents=True, exist_ok=True)
        # Without its record the folder makes no claim while its two halves are exchanged.
        (folder / INFO_FILE).unlink(missing_ok=True)
        for part in ("renders", "gt"):
            if (folder / part).exists():
                shutil.rmtree(folder / part)
            (staging / part).replace(folder / part)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def render_split(
    folder: Path, cameras: Sequence[Camera], scene: Scene, renderer: Renderer, progress: Progress = silent
) -> None:
    """Write ``renders/00000.png`` and ``gt/00000.png`` and so on, in the order of ``cameras``."""
    with staged_folder(folder) as staging:
        for number, camera in enumerate(counted(cameras, progress)):
            save_png(renderer.image(camera), staging / "renders" / f"{number:05d}.png")
            save_png(scene.images.load(camera), staging / "gt" / f"{number:05d}.png")


def frames_per_second(cameras: Sequence[Camera], renderer: Renderer) -> float:
    """One over the median seconds a view, each rendered once.

    The renderer must have rendered before, so that nothing is left to compile.
    """
    return 1.0 / statistics.median(renderer.seconds(camera) for camera in cameras)


def run(options: RenderOptions, progress: Progress = silent) -> None:
    """Render what the options ask for into the model directory.

    Raises:
        UserError: anything wrong with the options, the scene, the model or the photographs.
    """
    model_dir = options.model_path
    # With --model and -s the directory is only written to, and may be new.
    if options.model is None and not model_dir.is_dir():
        raise UserError(f"{model_dir}: there is no such model directory; check -m")
    model_file = choose_model(model_dir, options.model, options.iteration)
    backend = choose_backend(options.backend)
    splats = GaussianModel.of(registry.read(model_file.path))
    scene = load_scene(options)
    splits = {
        "train": [] if options.skip_train else scene.train,
        "test": [] if options.skip_test else scene.test,
    }
    if not scene.test and not options.skip_test:
        log.info(
            "%s: has no test views, since it was made without --eval; give --eval to split them off now", model_dir
        )
    if not any(splits.values()):
        raise UserError(f"{model_dir}: nothing to render; leave out --skip_train or give --eval")

    log.info("%s: %s Gaussians; %s", model_file.path, f"{len(splats):,}", backend.description)
    renderer = Renderer(splats, scene.background, backend)
    for label, cameras in splits.items():
        if not cameras:
            continue
        folder = model_dir / label / model_file.method
        render_split(folder, cameras, scene, renderer, progress)
        log.info("%s: %d views in %s", label, len(cameras), folder)
        if label == "test":
            info = RenderInfo(
                file=model_file.path.name,
                bytes=model_file.path.stat().st_size,
                gaussians=len(splats),
                backend=backend.name,
                device=backend.description,
                resolution=(cameras[0].width, cameras[0].height),
                fps=frames_per_second(cameras, renderer),
            )
            write_text(folder / INFO_FILE, info.to_json())
            size = f"{cameras[0].width}x{cameras[0].height}"
            log.info("test: %.1f views a second at %s, %s backend", info.fps, size, backend.name)
