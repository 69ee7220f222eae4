"""``report.html``: what a run did, on one page that opens from disk without a network.

``train.py`` writes it at its end, ``report.py`` for a run that is finished, and ``compare.py --html`` one of two files.
"""

from __future__ import annotations

import hashlib
import logging
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compress.front import rounds_of, smallest_first
from compress.journal import FINAL, Journal, JournalRow
from compress.run_dir import RECIPE_FILE, REPORT_FILE, RunDir
from gaussian_renderer import Backend, choose_backend
from gsz import registry
from gsz.errors import UserError
from gsz.files import write_text
from gsz.splats import Splats
from programs import page
from programs.comparing import ComparedImages, Comparison, Measured, spread
from programs.compression import load_original
from programs.options import ReportOptions, parse_compress, parse_render
from programs.page import Cell, Point, Scene3D, number
from programs.provenance import read_made
from programs.rendering import Renderer, choose_model, load_scene
from quality.lpips import Lpips, load_lpips
from quality.metrics import measure
from quality.summary import ViewMetrics
from scene import Camera, GaussianModel, Scene
from scene.model_dir import camera_entries
from utils.progress import Progress, counted, silent

log = logging.getLogger(__name__)

MOST_VIEWS = 24
"""Of a run without test views, so many of the others are looked at."""

PAGE_WITHOUT_MODELS = 1_500_000
"""Bytes that pictures and tables are taken to need; the models get the rest of the page."""


# --- What is looked at -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looks:
    """What the two models show at some views.

    Attributes:
        where: Which views, and what the run had to do with them, in words.
        against: What the models are held against there: "photographs" or "renders of the original".
        images: Renders and targets by view.
        before, after: Against the targets; ``before`` is ``None`` where these are renders of the original.
        change: The compressed model against the original.
    """

    where: str
    against: str
    images: ComparedImages
    before: Measured | None
    after: Measured
    change: Measured

    def loss(self, view: str) -> float:
        """dB that a view lost; where the targets are the original's own renders, less dB is more loss."""
        after = self.after.views[view].psnr
        return -after if self.before is None else self.before.views[view].psnr - after

    @property
    def by_loss(self) -> list[str]:
        """The views, the largest loss first."""
        return sorted(self.after.views, key=self.loss, reverse=True)


def views_of(scene: Scene, has_photographs: bool) -> tuple[list[Camera], str]:
    """The test views of a run; where there are none, some of the others."""
    which = "photographs" if has_photographs else "cameras"
    if scene.test:
        return scene.test, f"the {len(scene.test)} test {which}, which the run never looked at"
    chosen = spread(scene.train, MOST_VIEWS)
    return (
        chosen,
        f"{len(chosen)} of the {len(scene.train)} {which} that it was trained on; none was set aside (--eval)",
    )


def look(
    scene: Scene,
    has_photographs: bool,
    models: tuple[Splats, Splats],
    backend: Backend,
    lpips: Lpips | None,
    progress: Progress = silent,
) -> Looks:
    """Render the original and the compressed model at the views of a run, and measure them."""
    cameras, where = views_of(scene, has_photographs)
    renderers = [Renderer(GaussianModel.of(model), scene.background, backend) for model in models]
    before: dict[str, ViewMetrics] = {}
    after: dict[str, ViewMetrics] = {}
    change: dict[str, ViewMetrics] = {}
    for camera in counted(cameras, progress):
        target = scene.images.load(camera).to(backend.device)
        original, compressed = (renderer.image(camera) for renderer in renderers)
        before[camera.name] = measure(original, target, lpips)
        after[camera.name] = measure(compressed, target, lpips)
        change[camera.name] = measure(compressed, original) if has_photographs else after[camera.name]

    def images(view: str) -> dict[str, Tensor]:
        camera = next(camera for camera in cameras if camera.name == view)
        original, compressed = (renderer.image(camera) for renderer in renderers)
        shown = {"photograph": scene.images.load(camera)} if has_photographs else {}
        return {**shown, "original": original, "compressed": compressed}

    return Looks(
        where,
        "photographs" if has_photographs else "renders of the original",
        ComparedImages(cameras, images, _hexadecimal(scene.background)),
        Measured("the original", before) if has_photographs else None,
        Measured("the compressed model", after),
        Measured("the compressed model against the original", change),
    )


# --- The page of a run -----------------------------------------------------------------------------------------------


def run(options: ReportOptions, progress: Progress = silent) -> Path:
    """Write the page of a finished run, and return where.

    Raises:
        UserError: there is no finished run, or its files are damaged. A scene or an original that is not where it was
            leaves the pictures out, with a warning.
    """
    folder = RunDir(options.model_path)
    if not folder.is_finished():
        path = options.model_path
        raise UserError(f"{path}: holds no finished run; python view.py {path} shows one that still goes on")
    journal = folder.finished_journal()
    made = parse_compress(["-m", str(options.model_path), "--resume"])
    compressed = choose_model(options.model_path).path
    looks, original_path, models = None, None, {}
    try:
        original, original_path = load_original(made)
        opened = load_scene(parse_render(["-m", str(options.model_path)]))
        backend = choose_backend(options.backend if options.backend != "auto" else made.backend)
        weights = options.lpips_weights or made.lpips_weights
        lpips = load_lpips(weights, backend.device) if weights is not None else None
        decoded = registry.read(compressed)
        has_photographs = made.scene.source_path is not None
        looks = look(opened, has_photographs, (original.numpy(), decoded), backend, lpips, progress)
        models = {"original": original.numpy(), "compressed": decoded}
    except UserError as error:
        log.warning("%s; the page is made without pictures", error)
    path = options.model_path / REPORT_FILE
    text = run_page(options.model_path, journal, compressed, original_path, looks, models)
    write_text(path, text)
    log.info("wrote %s: %.1f MB, opens in any browser", path, len(text.encode()) / 1e6)
    return path


def run_page(
    run_dir: Path,
    journal: Journal,
    compressed: Path,
    original_path: Path | None,
    looks: Looks | None,
    models: Mapping[str, Splats],
) -> str:
    """The whole page of a run."""
    before, after = journal[0], journal[-1]
    sections = [f"<h1>{page.escape(run_dir.resolve().name)}: {_ratio(before.bytes, after.bytes)} smaller</h1>"]
    sections.append(f"<p class=dim>{page.escape(_what_was_done(before, after, compressed, original_path))}</p>")
    sections.append(page.tiles(_summary(journal, looks)))
    data = ""
    if looks is not None:
        sections.append(_pictures(looks))
        shown, notes = _models_to_show(models, {"compressed": compressed})
        if shown:
            cameras = camera_entries(looks.images.cameras)
            stage, data = Scene3D(shown, cameras, looks.images.background, notes).html()
            sections.append(f'<section class="screen"><h2>In three dimensions</h2>{stage}</section>')
        sections.append(_views_table(looks))
    if original_path is not None:
        sections.append(_bytes_section(original_path, compressed))
    sections.append(_rounds_section(journal))
    sections.append(_made_section(run_dir, compressed))
    return page.whole_page(f"{run_dir.resolve().name}, compressed", "\n".join(sections), data)


def _ratio(before: int, after: int) -> str:
    return f"{before / max(after, 1):.1f} times"


def _what_was_done(before: JournalRow, after: JournalRow, compressed: Path, original_path: Path | None) -> str:
    source = f"{original_path.name}, " if original_path is not None else ""
    return (
        f"{source}{before.gaussians:,} Gaussians in {before.bytes / 1e6:.2f} MB, became {compressed.name}, "
        f"{after.gaussians:,} Gaussians in {after.bytes / 1e6:.3f} MB."
    )


def _summary(journal: Journal, looks: Looks | None) -> list[tuple[str, str, str]]:
    before, after = journal[0], journal[-1]
    items = [
        (
            "file",
            f"{before.bytes / 1e6:.2f} → {after.bytes / 1e6:.3f} MB",
            f"{_ratio(before.bytes, after.bytes)} smaller",
        ),
        (
            "Gaussians",
            f"{before.gaussians:,} → {after.gaussians:,}",
            f"{after.bytes / max(after.gaussians, 1):.1f} bytes each",
        ),
        ("time", f"{_minutes(journal):.1f} min", "all stages together"),
    ]
    if looks is None:
        return items
    mean = looks.after.mean
    where = f"mean over {looks.where}"
    if looks.before is None:
        where += ", against renders of the original"
        return [
            *items[:1],
            ("PSNR", f"{mean.psnr:.2f} dB", where),
            ("SSIM", f"{mean.ssim:.4f}", where),
            *([] if mean.lpips is None else [("LPIPS", f"{mean.lpips:.4f}", where)]),
            *items[1:],
        ]
    was = looks.before.mean
    quality = [
        ("PSNR", f"{was.psnr:.2f} → {mean.psnr:.2f} dB", where),
        ("SSIM", f"{was.ssim:.4f} → {mean.ssim:.4f}", where),
    ]
    if was.lpips is not None and mean.lpips is not None:
        quality.append(("LPIPS", f"{was.lpips:.4f} → {mean.lpips:.4f}", f"{where}; less is better"))
    return [*items[:1], *quality, *items[1:]]


def _minutes(journal: Journal) -> float:
    return (
        sum(row.score_seconds + row.finetune_seconds + row.encode_seconds + row.evaluate_seconds for row in journal)
        / 60
    )


def chosen_views(looks: Looks) -> dict[str, str]:
    """The views that are shown, by what they are: the worst one, the median and the best one."""
    ordered = looks.by_loss
    chosen = {"Worst view": ordered[0], "Median view": ordered[len(ordered) // 2], "Best view": ordered[-1]}
    return {
        name: view for index, (name, view) in enumerate(chosen.items()) if view not in list(chosen.values())[:index]
    }


def _pictures(looks: Looks) -> str:
    numbers = {camera.name: index for index, camera in enumerate(looks.images.cameras)}
    how = (
        "by how much PSNR against its photograph it lost"
        if looks.before is not None
        else "by its PSNR against the render of the original"
    )
    parts = [f"<section><h2>Before and after</h2><p>Views are ordered {how}, among {page.escape(looks.where)}.</p>"]
    for name, view in chosen_views(looks).items():
        images = looks.images.of(view)
        shown = {kind: (_caption(kind, view, looks), image) for kind, image in images.items()}
        apart = page.difference(images["original"], images["compressed"])
        shown["difference"] = (f"{page.DIFFERENCE_GAIN} times the difference of original and compressed", apart)
        parts.append(
            f"<article><h3>{name}: {page.escape(view)}{page.escape(_lost(looks, view))}</h3>"
            f"{page.pictures(view, shown)}"
            f"{_button(numbers[view])}</article>"
        )
    return "".join(parts) + "</section>"


def _caption(kind: str, view: str, looks: Looks) -> str:
    measured = {"original": looks.before, "compressed": looks.after}.get(kind)
    if measured is None:
        return kind
    found = measured.views[view]
    return f"{kind}: {found.psnr:.2f} dB, SSIM {found.ssim:.4f} against the {looks.against.removesuffix('s')}"


def _lost(looks: Looks, view: str) -> str:
    if looks.before is None:
        return f", {looks.after.views[view].psnr:.2f} dB"
    loss = looks.loss(view)
    return f", {abs(loss):.2f} dB {'lost' if loss >= 0 else 'gained'}"


def _views_table(looks: Looks) -> str:
    with_lpips = looks.after.mean.lpips is not None
    before = looks.before
    header = ["view"]
    if before is not None:
        header += ["PSNR before", "after", "lost", "SSIM before", "after"]
        header += ["LPIPS before", "after"] if with_lpips else []
        header += ["PSNR to the original's render"]
    else:
        header += ["PSNR", "SSIM", *(["LPIPS"] if with_lpips else [])]
    rows: list[list[Cell | str]] = []
    for view in looks.by_loss:
        now = looks.after.views[view]
        row: list[Cell | str] = [view]
        if before is not None:
            was = before.views[view]
            row += [number(was.psnr, ".2f"), number(now.psnr, ".2f"), number(looks.loss(view), "+.2f")]
            row += [number(was.ssim, ".4f"), number(now.ssim, ".4f")]
            row += [number(was.lpips, ".4f"), number(now.lpips, ".4f")] if with_lpips else []
            row += [number(looks.change.views[view].psnr, ".2f")]
        else:
            row += [number(now.psnr, ".2f"), number(now.ssim, ".4f")]
            row += [number(now.lpips, ".4f")] if with_lpips else []
        rows.append(row)
    median = statistics.median(looks.loss(view) for view in looks.after.views)
    lost = f"; the median view lost {median:.2f} dB" if before is not None else ""
    caption = (
        f"PSNR in dB, against the {looks.against}, at {looks.where}{lost}. Renders are measured as they are; "
        "metrics.py reads them from 8-bit pictures, and differs in the last digits. A header sorts."
    )
    return f"<section><h2>View by view</h2>{page.table(caption, header, rows, sortable=True)}</section>"


def _bytes_section(original: Path, compressed: Path) -> str:
    sizes = []
    for path in (original, compressed):
        try:
            parts = by_parameter(registry.info(path).get("bytes", {}))
        except UserError as error:
            log.warning("%s; its bytes are not listed", error)
            return ""
        rest = path.stat().st_size - sum(parts.values())
        sizes.append(parts | {"everything else": rest} if rest else parts)
    caption = (
        f"Bytes of {original.name} and {compressed.name}. Bars are relative to the largest attribute of each file."
    )
    return f"<section><h2>Where the bytes are</h2>{page.byte_bars(caption, *sizes)}</section>"


_PARAMETERS = {
    "means": "positions",
    "log_scales": "scales",
    "quaternions": "rotations",
    "opacity_logits": "opacities",
    "sh_dc": "colors",
    "dc": "colors",
    "sh_rest": "view dependence (SH)",
    "sh": "view dependence (SH)",
}
"""What formats call the parts of their files, in one set of words."""


def by_parameter(sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of a file by what they are for, whatever its format calls it; parts of no bytes are left out."""
    found: dict[str, int] = {}
    for name, size in sizes.items():
        what = _PARAMETERS.get(name, name)
        found[what] = found.get(what, 0) + int(size)
    return {what: size for what, size in found.items() if size}


def _rounds_section(journal: Journal) -> str:
    before, after = journal[0], journal[-1]
    front = {row.stage for row in smallest_first(journal)}
    estimated = before.estimated_psnr is not None or any(row.estimated_psnr is not None for row in journal)
    points = [
        Point(row.stage, row.bytes, row.psnr, "on" if row.stage in front else "round")
        for row in rounds_of(journal)
        if math.isfinite(row.psnr)
    ]
    points.append(Point("this file", after.bytes, after.psnr, "final"))
    if math.isfinite(before.psnr):
        points.append(Point("original", before.bytes, before.psnr, "original"))
    rows: list[list[Cell | str]] = []
    for row in journal:
        pick = f"--pick {math.ceil(row.bytes / 1e3)}kB" if row.stage in front else ""
        rows.append(
            [
                {FINAL: "this file"}.get(row.stage, row.stage),
                number(row.gaussians, ","),
                number(row.bytes / 1e6, ".3f"),
                number(row.psnr, ".2f"),
                number(row.ssim, ".4f"),
                number(row.finetune_seconds + row.score_seconds + row.encode_seconds + row.evaluate_seconds, ".0f"),
                pick,
            ]
        )
    header = ["stage", "Gaussians", "MB", "PSNR", "SSIM", "seconds", "train.py makes this size with"]
    where = "means over the views that the run decides by, not over test views"
    if estimated:
        where = "means over the views that the run decides by, against renders of the original"
    caption = f"PSNR (dB) and SSIM are {where}. Where there is a --pick, no other round is both smaller and better."
    return (
        "<section><h2>Size against quality</h2>"
        "<p>A dot is the model of a round, kept in <code>front/</code>; another one beats the grey ones in both. "
        f"PSNR is {_article(where)}.</p>{page.front_plot('Size against quality', points)}"
        f"{page.table(caption, header, rows, sortable=True, marked=[len(rows) - 1])}</section>"
    )


def _article(where: str) -> str:
    return where.replace("means over", "the mean over")


def _made_section(run_dir: Path, compressed: Path) -> str:
    noted = read_made(run_dir)
    digest = hashlib.sha256(compressed.read_bytes()).hexdigest()
    items = [(name, value) for name, value in noted.items() if name != "command"]
    items += [("file", compressed.name), ("SHA-256", digest)]
    recipe = (run_dir / RECIPE_FILE).read_text(encoding="utf-8", errors="replace")
    command = f"<pre>{page.escape(noted['command'])}</pre>" if "command" in noted else ""
    return (
        f"<section><h2>How it was made</h2>{command}{page.definitions(items)}"
        f"<h3>Recipe, the seed with it</h3><pre>{page.escape(recipe)}</pre></section>"
    )


def _hexadecimal(color: Tensor) -> str:
    """A color of 0 to 1 as ``#rrggbb``."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in color.tolist())


def _models_to_show(models: Mapping[str, Splats], files: Mapping[str, Path]) -> tuple[dict[str, bytes], list[str]]:
    """The models as the viewer reads them, as far as there is room for them, and what has to be said of them."""
    room = (page.MOST_BYTES - PAGE_WITHOUT_MODELS) * 3 // 4
    shown: dict[str, bytes] = {}
    notes = []
    for name in reversed([*models]):  # The compressed model first: it is what the page is about.
        path = files.get(name)
        if path is not None and path.suffix == ".gsz":
            data = path.read_bytes()
        else:
            data, quality = encoded_for_viewer(models[name], room)
            notes.append(f"For the viewer, {name} is written as .gsz of quality {quality}.")
        if len(data) > room:
            notes = [note for note in notes if name not in note]
            notes.append(f"Too large to be shown on this page: {name}, {len(data) / 1e6:.1f} MB.")
            continue
        room -= len(data)
        shown[name] = data
    return {name: shown[name] for name in models if name in shown}, notes


def encoded_for_viewer(splats: Splats, room: int) -> tuple[bytes, str]:
    """A model as the viewer reads it, on the finest of three grids on which it takes no more than ``room`` bytes."""
    for quality in ("best", "high", "medium"):
        codec = registry.codec(f"gsz:quality={quality}")
        data = codec.fit(splats).encode(splats)
        if len(data) <= room:
            break
    return data, quality


# --- The page of a comparison ----------------------------------------------------------------------------------------


def comparison_page(comparison: Comparison) -> str:
    """Two models, or a model and its photographs, or a model and its formats."""
    first, *others = comparison.candidates
    last = others[-1] if others else first
    decisive = last.decisive
    assert decisive is not None  # check() has found something to compare with.
    mean, worst = decisive.mean, decisive.worst(1)[0]
    items = [
        ("PSNR", _decibels(mean.psnr), f"{decisive.what}, mean over {comparison.where}"),
        ("worst view", _decibels(decisive.views[worst].psnr), worst),
        ("SSIM", f"{mean.ssim:.4f}", "mean over the same views"),
        *([] if mean.lpips is None else [("LPIPS", f"{mean.lpips:.4f}", "mean over the same views; less is better")]),
        ("file", f"{last.bytes / 1e6:.3f} MB", f"{last.bytes / max(last.gaussians, 1):.1f} bytes a Gaussian"),
    ]
    title = f"{last.label} and {first.label}" if others else f"{first.label} and its photographs"
    sections = [f"<h1>{page.escape(title)}</h1>", page.tiles(items), _candidates_table(comparison)]
    names = {"Worst view": worst, "Median view": _ordered(decisive)[len(decisive.views) // 2]}
    names["Best view"] = _ordered(decisive)[-1]
    cameras = comparison.images.cameras
    numbers = {camera.name: index for index, camera in enumerate(cameras)}
    parts = [f"<section><h2>View by view</h2><p>Ordered by PSNR: {page.escape(decisive.what)}.</p>"]
    for name, view in names.items():
        images = comparison.images.of(view)
        labels = list(images)
        shown = {label: (label, image) for label, image in images.items()}
        apart = page.difference(images[labels[-2]], images[labels[-1]])
        shown["difference"] = (f"{page.DIFFERENCE_GAIN} times the difference of the last two", apart)
        parts.append(
            f"<article><h3>{name}: {page.escape(view)}, {_decibels(decisive.views[view].psnr)}</h3>"
            f"{page.pictures(view, shown)}{_button(numbers[view])}</article>"
        )
    rows: list[list[Cell | str]] = [
        [view, number(found.psnr, ".2f"), number(found.ssim, ".4f"), number(found.lpips, ".4f")]
        for view, found in decisive.views.items()
    ]
    caption = f"{decisive.what}, at {comparison.where}; PSNR in dB. A header sorts."
    parts.append(page.table(caption, ["view", "PSNR", "SSIM", "LPIPS"], rows, sortable=True) + "</section>")
    models = {first.label: comparison.models[0].splats, last.label: comparison.models[-1].splats}
    files = {model.label: Path(model.name) for model in comparison.candidates}
    shown_models, notes = _models_to_show(models, files)
    stage, data = Scene3D(shown_models, camera_entries(cameras), comparison.images.background, notes).html()
    sections += [*parts, f'<section class="screen"><h2>In three dimensions</h2>{stage}</section>']
    return page.whole_page(title, "\n".join(sections), data if shown_models else "")


def _ordered(measured: Measured) -> list[str]:
    return measured.worst(len(measured.views))


def _mean_psnr(measured: Measured | None) -> float | None:
    return None if measured is None else measured.mean.psnr


def _decibels(psnr: float) -> str:
    return "equal" if math.isinf(psnr) else f"{psnr:.2f} dB"


def _button(camera: int) -> str:
    return f'<p class="controls screen"><button data-camera="{camera}" hidden>Show this view in 3D</button></p>'


def _candidates_table(comparison: Comparison) -> str:
    header = ["model", "format", "Gaussians", "bytes", "bytes a Gaussian", "PSNR to the first", "PSNR to photographs"]
    rows: list[list[Cell | str]] = [
        [
            model.label,
            model.format,
            number(model.gaussians, ","),
            number(model.bytes, ","),
            number(model.bytes / max(model.gaussians, 1), ".2f"),
            number(_mean_psnr(model.to_first), ".2f"),
            number(_mean_psnr(model.to_photographs), ".2f"),
        ]
        for model in comparison.candidates
    ]
    return page.table(f"PSNR (dB) are means over {comparison.where}.", header, rows, sortable=True)
