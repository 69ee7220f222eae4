"""Compare finished runs on the test views: how many bytes does each need to look the same?

    python scripts/compare_fronts.py output/published output/default --json output/fronts.json --plot output/fronts.png

Every file of each run's ``front/`` is decoded and rendered at the test views of the scene that its ``cfg_args`` names,
and so is the final file, with LPIPS where ``--lpips_weights`` are given. Then, for the PSNR of the first run's final
file: the bytes and Gaussians that each run's files take, interpolated along its front (the logarithms in a straight
line between the two files around). Files that the JSON file already holds are not measured again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import _root  # noqa: F401
import tyro

from compress.judging import Judge
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from gsz.files import atomic_path
from programs import rendering
from programs.options import RenderOptions, original_file
from quality.lpips import load_lpips
from scene.gaussian_model import GaussianModel
from scene.options import options_of_model
from utils import cli
from utils.progress import counted
from utils.results import read_results, write_results
from utils.tables import NOT_AVAILABLE, cell, format_table


@dataclass
class Options:
    """Compare finished runs on the test views."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]]
    """Folders that train.py wrote."""
    json: Path = Path("output/fronts.json")
    """Results; what they hold already is not measured again."""
    plot: Path | None = None
    """Also draw the results, as a PNG."""
    lpips_weights: Path | None = None
    """Weights of LPIPS (scripts/export_lpips_weights.py writes them), to measure it of the final files."""


@dataclass(frozen=True)
class Point:
    """A file of a run on the test views.

    Attributes:
        run: The run's folder.
        file: Name of the file within it.
        gaussians, bytes: Number of Gaussians, and size of the file.
        psnr, ssim, lpips: Means over the test views; ``lpips`` is ``None`` where it is not measured.
    """

    run: str
    file: str
    gaussians: int
    bytes: int
    psnr: float
    ssim: float
    lpips: float | None = None

    @property
    def is_final(self) -> bool:
        return "/" not in self.file


def files_of(run: Path) -> list[Path]:
    """The files of a finished run: those of its front, and the final one last.

    Raises:
        UserError: the folder holds no finished run.
    """
    final = rendering.choose_model(run).path
    front = [path for path in sorted((run / "front").glob("*")) if registry.format_of_suffix(path) is not None]
    if not front or final.parent != run:
        raise UserError(f"{run}: does not hold a finished run of train.py; give the folder of one")
    return [*front, final]


def test_views(run: Path) -> Views:
    """The test views that a run was made with.

    Raises:
        UserError: there are none, or the scene is gone.
    """
    options = RenderOptions(run, options_of_model(run), pretrained_ply=original_file(run))
    scene = rendering.load_scene(options)
    if not scene.test:
        raise UserError(f"{run}: was made without test views; run train.py with --eval")
    return Views.of(scene, scene.test)


def measure(runs: Sequence[Path], path: Path, lpips_weights: Path | None) -> list[Point]:
    """All files of the runs on their test views: those that ``path`` holds, and the others, which are added to it."""
    points = [Point(**row) for row in read_results(path, {})]
    known = {(point.run, point.file, point.bytes) for point in points}
    files = [(run, file) for run in runs for file in files_of(run)]
    missing = [(run, file) for run, file in files if key(run, file) not in known]
    lpips = load_lpips(lpips_weights) if lpips_weights is not None and missing else None
    views = {run: test_views(run) for run, _ in missing}
    with cli.progress_bar("test views", "files") as progress:
        for run, file in counted(missing, progress):
            splats = GaussianModel.of(registry.read(file))
            judge = Judge(views[run], lpips if file.parent == run else None)
            metrics = judge.evaluate(splats)
            points.append(Point(*key(run, file)[:2], len(splats), file.stat().st_size, **asdict(metrics)))
            write_results(path, {}, [asdict(point) for point in points])
    wanted = [key(run, file) for run, file in files]
    return [point for point in points if (point.run, point.file, point.bytes) in wanted]


def key(run: Path, file: Path) -> tuple[str, str, int]:
    """What distinguishes a file from every other, also from an earlier one of the same name."""
    return str(run), file.relative_to(run).as_posix(), file.stat().st_size


def at_quality(points: Sequence[Point], psnr: float) -> tuple[float, float] | None:
    """Bytes and Gaussians that a run takes for a PSNR, or ``None`` where its files do not reach around it."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, -point.psnr)):
        if not front or point.psnr > front[-1].psnr:
            front.append(point)
    for worse, better in pairwise(front):
        if worse.psnr <= psnr <= better.psnr:
            share = (psnr - worse.psnr) / (better.psnr - worse.psnr)
            return (
                _between(worse.bytes, better.bytes, share),
                _between(worse.gaussians, better.gaussians, share),
            )
    return None


def _between(first: float, second: float, share: float) -> float:
    return math.exp((1.0 - share) * math.log(first) + share * math.log(second))


def results_table(points: Sequence[Point]) -> str:
    """The final file of each run, and what the run takes for the PSNR of the first one's."""
    finals = [point for point in points if point.is_final]
    wanted = finals[0].psnr
    header = ["run", "PSNR", "SSIM", "LPIPS", "Gaussians", "MB", "B/G"]
    header += [f"MB at {wanted:.2f} dB", "Gaussians there", "of the first"]
    first = finals[0].bytes
    rows = []
    for final in finals:
        needed = at_quality([point for point in points if point.run == final.run], wanted)
        if final is finals[0]:
            needed = (final.bytes, final.gaussians)
        rows.append(
            [
                Path(final.run).name,
                f"{final.psnr:.2f}",
                f"{final.ssim:.4f}",
                cell(final.lpips, ".3f"),
                f"{final.gaussians:,}",
                f"{final.bytes / 1e6:.3f}",
                f"{final.bytes / final.gaussians:.1f}",
                *(
                    [NOT_AVAILABLE] * 3
                    if needed is None
                    else [f"{needed[0] / 1e6:.3f}", f"{round(needed[1]):,}", f"{needed[0] / first:.2f}"]
                ),
            ]
        )
    return format_table(header, rows, "markdown")


def write_plot(points: Sequence[Point], path: Path) -> None:
    """Draw PSNR against bytes, one line a run, its final file as a star, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, run in enumerate(dict.fromkeys(point.run for point in points)):
        of_run = [point for point in points if point.run == run]
        rounds = sorted((point for point in of_run if not point.is_final), key=lambda point: point.bytes)
        color = f"C{number}"
        axes.plot(
            [point.bytes / 1e6 for point in rounds],
            [point.psnr for point in rounds],
            ".-",
            color=color,
            label=Path(run).name,
        )
        for final in of_run:
            if final.is_final:
                axes.plot([final.bytes / 1e6], [final.psnr], "*", markersize=12, color=color)
    axes.set(xlabel="file (MB)", ylabel="PSNR on the test views (dB)", xscale="log")
    axes.legend(loc="lower right", fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ``arguments`` default to those of the process."""
    options = tyro.cli(Options, args=arguments, use_underscores=True)
    points = measure(options.runs, options.json, options.lpips_weights)
    cli.say(results_table(points))
    if options.plot is not None:
        write_plot(points, options.plot)


if __name__ == "__main__":
    cli.run(main)
