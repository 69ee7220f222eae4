"""What ``compare.py`` does: measure how far two models are apart, a model and its scene, or a model and its formats."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gaussian_renderer import choose_backend
from gsz import registry
from gsz.errors import UserError
from gsz.files import write_text
from gsz.splats import Splats
from programs.options import CompareOptions
from programs.own_renders import known_cameras
from programs.placed_views import placed_cameras
from programs.rendering import Renderer
from quality.lpips import Lpips, load_lpips
from quality.metrics import measure
from quality.summary import ViewMetrics, finite_or_none
from scene import Camera, GaussianModel, background, open_scene
from scene.cache import ImageCache
from scene.images import ImageSource
from scene.model_dir import CAMERAS_FILE
from scene.options import SceneOptions, options_of_model
from utils.progress import Progress, counted, silent
from utils.tables import cell, format_table

log = logging.getLogger(__name__)

WORST_VIEWS = 3
"""How many of the worst views are named."""


# --- What comes out --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """How close the images of a model are to others, view by view.

    Attributes:
        what: Whose images, against which.
        views: By the view's name, in the order that they were looked at; at least one.
    """

    what: str
    views: dict[str, ViewMetrics]

    @property
    def mean(self) -> ViewMetrics:
        """Means over the views. Equal images have an infinite PSNR, and count only where all are equal."""
        psnr = [view.psnr for view in self.views.values() if math.isfinite(view.psnr)]
        lpips = [view.lpips for view in self.views.values() if view.lpips is not None]
        return ViewMetrics(
            math.fsum(psnr) / len(psnr) if psnr else math.inf,
            math.fsum(view.ssim for view in self.views.values()) / len(self.views),
            math.fsum(lpips) / len(lpips) if len(lpips) == len(self.views) else None,
        )

    def worst(self, count: int = WORST_VIEWS) -> list[str]:
        """The names of the views with the lowest PSNR, the worst first."""
        return sorted(self.views, key=lambda name: self.views[name].psnr)[:count]

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "mean": _metrics_json(self.mean),
            "worst": {name: _metrics_json(self.views[name]) for name in self.worst()},
            "views": {name: _metrics_json(view) for name, view in self.views.items()},
        }


@dataclass(frozen=True)
class Candidate:
    """A model and what was measured of it.

    Attributes:
        name: The file's path, or a format's name and settings.
        format: Which format it is.
        gaussians, bytes: How many Gaussians, and the size of the file.
        to_photographs: Against a scene's photographs, where there are some.
        to_first: Against the first model's renders; ``None`` for the first model itself.
        is_equal: Whether it holds the Gaussians of the first model, value for value.
        label: A short name.
    """

    name: str
    format: str
    gaussians: int
    bytes: int
    to_photographs: Measured | None = None
    to_first: Measured | None = None
    is_equal: bool = False
    label: str = ""

    @property
    def decisive(self) -> Measured | None:
        """What a limit of quality is held against."""
        return self.to_first or self.to_photographs

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "format": self.format,
            "gaussians": self.gaussians,
            "bytes": self.bytes,
            "bytes_per_gaussian": self.bytes / self.gaussians if self.gaussians else None,
            "same_values_as_first": self.is_equal,
            "to_photographs": self.to_photographs and self.to_photographs.to_json(),
            "to_first": self.to_first and self.to_first.to_json(),
        }


@dataclass(frozen=True)
class ComparedImages:
    """What there is to see at some views.

    Attributes:
        cameras: The views.
        of: ``(H, W, 3)`` images of a view by what they show, rendered when they are asked for.
        background: ``#rrggbb`` behind everything.
    """

    cameras: list[Camera]
    of: Callable[[str], dict[str, Tensor]]
    background: str = "#000000"


@dataclass(frozen=True)
class LoadedModel:
    """A model and what its file is."""

    name: str
    format: str
    splats: Splats
    bytes: int


@dataclass(frozen=True)
class Comparison:
    """All that ``compare.py`` found.

    Attributes:
        where: Which views were looked at, in words.
        candidates: The first model, and what is compared with it.
        models: Their Gaussians.
        images: What they show.
    """

    where: str
    candidates: list[Candidate]
    models: list[LoadedModel]
    images: ComparedImages

    @property
    def psnr(self) -> float:
        """The lowest mean PSNR of a candidate, in dB."""
        decisive = [candidate.decisive for candidate in self.candidates[1:] or self.candidates]
        return min((measured.mean.psnr for measured in decisive if measured is not None), default=math.inf)

    def to_json(self) -> dict[str, Any]:
        return {"where": self.where, "models": [candidate.to_json() for candidate in self.candidates]}


def _metrics_json(metrics: ViewMetrics) -> dict[str, float | None]:
    # JSON has no infinity; a PSNR of null is that of equal images, as in results.json.
    return {"PSNR": finite_or_none(metrics.psnr), "SSIM": metrics.ssim, "LPIPS": metrics.lpips}


# --- Views -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """From where models are looked at.

    Attributes:
        where: In words, for people.
        cameras: At least one.
        photographs: What the cameras should see, where that is known.
    """

    where: str
    cameras: list[Camera]
    photographs: ImageSource | None = None


def choose_outlook(options: CompareOptions, first: GaussianModel, progress: Progress = silent) -> Outlook:
    """The test views of the scene that is given; else cameras of the cameras.json that is given or lies beside a model;
    else placed ones.

    Raises:
        UserError: what is given is missing or damaged, or there are hardly any views of the model to be had.
    """
    device = choose_backend(options.backend).device
    if options.scene.source_path is not None:
        opened = open_scene(replace(options.scene, eval=True), 0, device, cache=ImageCache(0))
        where = f"the {len(opened.test)} test views of {options.scene.source_path}"
        return Outlook(where, opened.test, opened.images)
    known = options.cameras or next(filter(None, map(cameras_beside, options.models)), None)
    if known is None:
        placed = placed_cameras(first, options.placement, backend=options.backend, progress=progress)
        return Outlook(f"{len(placed)} placed views of {options.models[0]}", placed)
    cameras = known_cameras(known)
    chosen = spread(cameras, options.placement.view_count)
    return Outlook(f"{len(chosen)} of the {len(cameras)} cameras of {known}", chosen)


def cameras_beside(model: Path) -> Path | None:
    """The cameras.json of the model directory that a file lies in, at any of the places that it may have there."""
    parents = [model.parent]
    if model.parent.name == "front":
        parents.append(model.parent.parent)
    if model.parent.parent.name == "point_cloud":
        parents.append(model.parent.parent.parent)
    return next((path for parent in parents if (path := parent / CAMERAS_FILE).is_file()), None)


def spread(cameras: Sequence[Camera], count: int) -> list[Camera]:
    """At most ``count`` of the cameras, evenly by their names."""
    ordered = sorted(cameras, key=lambda camera: camera.name)
    step = max(1.0, len(ordered) / count)
    return [ordered[int(step * number)] for number in range(min(count, len(ordered)))]


# --- Measuring -------------------------------------------------------------------------------------------------------


def run(options: CompareOptions, progress: Progress = silent) -> Comparison:
    """Measure what the options name.

    Raises:
        UserError: anything wrong with the options, the models, the scene or the cameras.
    """
    check(options)
    models = [read_model(path) for path in options.models]
    specs = split_specs(options.formats) if options.formats is not None else []
    for spec in specs:
        registry.writer("the model", spec)  # A mistake should show before minutes are spent.
    first = models[0]
    options = with_options_of_model(options)
    quick = options.brief and options.lpips_weights is None
    lpips = None if quick else load_lpips(options.lpips_weights, choose_backend(options.backend).device)
    outlook = choose_outlook(options, GaussianModel.of(first.splats), progress)
    for spec in specs:
        log.info("encoding %s", spec)
        models.append(encoded_as(spec, first.splats))
    return compare_models(models, outlook, options, lpips, progress)


def check(options: CompareOptions) -> None:
    """Raise :class:`UserError` for options that make no sense."""
    if len(options.models) == 2 and options.formats is not None:
        raise UserError("--formats measures what one model loses in formats; name one model")
    if len(options.models) == 1 and options.formats is None and options.scene.source_path is None:
        raise UserError("nothing to compare with; name a second model, the scene with -s, or --formats")
    if options.scene.source_path is not None and options.cameras is not None:
        raise UserError("-s and --cameras name two sets of views; give one of them")
    options.placement.check()


def with_options_of_model(options: CompareOptions) -> CompareOptions:
    """The options, with background, image folder and size of the first model's ``cfg_args`` where none are given."""
    beside = cameras_beside(options.models[0])
    if beside is None or options.scene != SceneOptions(source_path=options.scene.source_path):
        return options
    own = options_of_model(beside.parent)
    own.source_path = options.scene.source_path
    return replace(options, scene=own)


def read_model(path: Path) -> LoadedModel:
    """A model of any format.

    Raises:
        UserError: the file is missing, damaged, of no known format or holds no Gaussians.
    """
    info, splats = registry.info(path), registry.read(path)
    if not len(splats):
        raise UserError(f"{path}: holds no Gaussians; there is nothing to compare")
    return LoadedModel(str(path), str(info["format"]), splats, int(info["file_bytes"]))


def encoded_as(spec: str, splats: Splats) -> LoadedModel:
    """What a model becomes in a format."""
    codec = registry.codec(spec)
    data = codec.fit(splats).encode(splats)
    return LoadedModel(spec, codec.name, codec.decode(data, spec), len(data))


def split_specs(text: str) -> list[str]:
    """The formats in ``spz,sog,gsz:quality=low,layers=1``: a part that is no name belongs to the format before it.

    Raises:
        UserError: there is none.
    """
    specs = re.split(r",(?!\s*\w+=)", text)
    if not all(map(str.strip, specs)):
        raise UserError(f"--formats {text!r}: name formats with commas between, such as spz,sog,gsz:quality=low")
    return [spec.strip() for spec in specs]


def compare_models(
    models: Sequence[LoadedModel], outlook: Outlook, options: CompareOptions, lpips: Lpips | None, progress: Progress
) -> Comparison:
    """Render all models at all views, each against the first one and against the photographs."""
    backend, behind = choose_backend(options.backend), background(options.scene)
    renderers = [Renderer(GaussianModel.of(model.splats), behind, backend) for model in models]
    to_first: list[dict[str, ViewMetrics]] = [{} for _ in models]
    to_photographs: list[dict[str, ViewMetrics]] = [{} for _ in models]
    for camera in counted(outlook.cameras, progress):
        rendered = [renderer.image(camera) for renderer in renderers]
        photograph = outlook.photographs.load(camera) if outlook.photographs is not None else None
        for number, image in enumerate(rendered):
            if number:
                to_first[number][camera.name] = measure(image, rendered[0], lpips)
            if photograph is not None:
                to_photographs[number][camera.name] = measure(image, photograph, lpips)

    def measured(what: str, views: dict[str, ViewMetrics]) -> Measured | None:
        return Measured(what, views) if views else None

    labels = _labels(models)
    candidates = [
        Candidate(
            name=model.name,
            format=model.format,
            gaussians=len(model.splats),
            bytes=model.bytes,
            to_photographs=measured(f"{labels[number]} to the photographs", to_photographs[number]),
            to_first=measured(f"{labels[number]} to {labels[0]}", to_first[number]),
            is_equal=number > 0 and same_gaussians(models[0].splats, model.splats),
            label=labels[number],
        )
        for number, model in enumerate(models)
    ]

    def images(view: str) -> dict[str, Tensor]:
        camera = next(camera for camera in outlook.cameras if camera.name == view)
        shown = {"photograph": outlook.photographs.load(camera)} if outlook.photographs is not None else {}
        for number in dict.fromkeys((0, len(models) - 1)):
            shown[labels[number]] = renderers[number].image(camera)
        return shown

    color = "#ffffff" if options.scene.white_background else "#000000"
    return Comparison(outlook.where, candidates, list(models), ComparedImages(outlook.cameras, images, color))


def _labels(models: Sequence[LoadedModel]) -> list[str]:
    """Short names: those of the files where they differ, else the paths."""
    names = [Path(model.name).name for model in models]
    return names if len(set(names)) == len(names) else [model.name for model in models]


def same_gaussians(one: Splats, other: Splats) -> bool:
    """Whether two models hold the same Gaussians, value for value, in any order."""
    if len(one) != len(other) or one.sh_degree != other.sh_degree or one.antialiased != other.antialiased:
        return False
    offsets = [np.zeros(3) if model.offset is None else model.offset for model in (one, other)]
    return bool((offsets[0] == offsets[1]).all()) and bool((_sorted_rows(one) == _sorted_rows(other)).all())


def _sorted_rows(splats: Splats) -> npt.NDArray[np.void]:
    """``(N,)`` records of all values of a Gaussian, in an order that depends on the values alone."""
    columns = [array.reshape(len(splats), -1) for _, array in splats.numpy().named_parameters()]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1) + np.float32(0.0))  # -0 becomes 0.
    return np.sort(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel())


# --- What is said ----------------------------------------------------------------------------------------------------


def write_json(path: Path, comparison: Comparison) -> None:
    """Write all figures as JSON."""
    write_text(path, json.dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n")


def brief(comparison: Comparison) -> str:
    """One line on the last model."""
    last = comparison.candidates[-1]
    if last.is_equal:
        return f"{last.name}: the same {last.gaussians:,} Gaussians as {comparison.candidates[0].name}"
    measured = last.decisive
    assert measured is not None  # Where nothing was measured, check() found nothing to compare with.
    mean, worst = measured.mean, measured.worst(1)[0]
    lpips = "" if mean.lpips is None else f", LPIPS {mean.lpips:.4f}"
    return (
        f"{measured.what}, {comparison.where}: PSNR {mean.psnr:.2f} dB, SSIM {mean.ssim:.4f}{lpips}; "
        f"worst {measured.views[worst].psnr:.2f} dB ({worst})"
    )


def report(comparison: Comparison) -> str:
    """All that was found, as tables."""
    first, *others = comparison.candidates
    measured = [found for model in comparison.candidates for found in (model.to_photographs, model.to_first) if found]
    lines = [_models_table(comparison.candidates), "", f"Renders at {comparison.where}:", "", _measured_table(measured)]
    for found in measured:
        named = ", ".join(f"{name} ({found.views[name].psnr:.2f} dB)" for name in found.worst())
        lines.append(f"worst views of {found.what}: {named}")
    lines += [
        f"{other.name} holds the same {other.gaussians:,} Gaussians as {first.name}, value for value"
        for other in others
        if other.is_equal
    ]
    return "\n".join(lines)


def _models_table(candidates: Sequence[Candidate]) -> str:
    header = ["model", "format", "Gaussians", "bytes", "bytes a Gaussian", "smaller"]
    rows = [
        [
            model.name,
            model.format,
            f"{model.gaussians:,}",
            f"{model.bytes:,}",
            f"{model.bytes / model.gaussians:.2f}" if model.gaussians else "n/a",
            f"{candidates[0].bytes / model.bytes:.2f}x",
        ]
        for model in candidates
    ]
    return format_table(header, rows)


def _measured_table(measured: Sequence[Measured]) -> str:
    rows = [
        [
            found.what,
            f"{found.mean.psnr:.2f}",
            f"{found.views[found.worst(1)[0]].psnr:.2f}",
            f"{found.mean.ssim:.4f}",
            cell(found.mean.lpips, ".4f"),
        ]
        for found in measured
    ]
    return format_table(["renders of", "PSNR", "worst", "SSIM", "LPIPS"], rows)


def formats_table(comparison: Comparison) -> str:
    """Size against quality of a model's formats, the smallest first."""
    first, *others = comparison.candidates
    with_photographs = first.to_photographs is not None
    header = ["format", "MB", "bytes a Gaussian", "smaller", "PSNR", "worst", "SSIM", "LPIPS"]
    header += ["PSNR to photographs"] if with_photographs else []

    def row(model: Candidate) -> list[str]:
        found = model.to_first
        cells = [
            model.name,
            f"{model.bytes / 1e6:.3f}",
            f"{model.bytes / model.gaussians:.2f}",
            f"{first.bytes / model.bytes:.2f}x",
        ]
        if found is None:
            cells += ["", "", "", ""]
        else:
            (worst,) = found.worst(1)
            cells += [f"{found.mean.psnr:.2f}", f"{found.views[worst].psnr:.2f} ({worst})", f"{found.mean.ssim:.4f}"]
            cells += [cell(found.mean.lpips, ".4f")]
        if model.to_photographs is not None:
            cells.append(f"{model.to_photographs.mean.psnr:.2f}")
        return cells

    table = format_table(header, [row(model) for model in [*sorted(others, key=lambda model: model.bytes), first]])
    return f"{table}\nPSNR, SSIM and LPIPS are those of renders against {first.name}'s own, at {comparison.where}"
