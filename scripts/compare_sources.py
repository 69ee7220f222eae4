"""What photographs are worth: compress a model with them, with its cameras alone, and from its .ply alone.

    python scripts/compare_sources.py -s demo/snowmiku -i images_400 --pretrained_dir demo/snowmiku/pretrained \\
        -m output/sources [settings of train.py]

All three runs have the same settings, and all three are measured on the scene's test photographs. A run that has
already finished in the output folder is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _root  # noqa: F401

import metrics
import render
import train
from compress.synthetic_views import OwnRenders
from compress.views import Views
from gsz import registry
from quality.metrics import ViewMetrics, read_summary
from scene import GaussianModel, Scene, model_dir, open_scene
from scene.options import SceneOptions
from utils import cli
from utils.tables import cell, format_table


def compress(out: Path, arguments: list[str]) -> Path:
    """The compressed file of a run, which is done unless it has been."""
    finished = [] if (out / "resume").exists() else sorted(out.glob("compressed.*"))
    if finished:
        return finished[0]
    return train.train(train.parse([*arguments, "--eval", "-m", str(out)])).path


def against_original(original: Path, compressed: Path, scene: Scene) -> ViewMetrics:
    """The compressed model beside the original's renders, at the test views."""
    splats = GaussianModel.load_ply(original)
    views = Views(scene.test, OwnRenders(splats, scene.background).load, scene.background, scene.extent)
    return views.evaluate(GaussianModel.of(registry.read(compressed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-s", "--source_path", type=Path, required=True)
    parser.add_argument("-i", "--images", default="images")
    parser.add_argument("-r", "--resolution", type=int, default=-1)
    parser.add_argument("--pretrained_dir", type=Path, required=True)
    parser.add_argument("--iteration", type=int, default=-1)
    parser.add_argument("-m", "--model_path", type=Path, default=Path("output/sources"))
    parser.add_argument("--lpips_weights", type=Path)
    options, settings = parser.parse_known_args()

    number = model_dir.latest_iteration(options.pretrained_dir) if options.iteration == -1 else options.iteration
    original = model_dir.checkpoint_path(options.pretrained_dir, number)
    resolution = ["-r", str(options.resolution)]
    photographs = ["-s", str(options.source_path), "-i", options.images]
    checkpoint = ["--pretrained_dir", str(options.pretrained_dir), "--iteration", str(number)]
    sources = {
        "photographs": [*photographs, *checkpoint],
        "cameras": checkpoint,
        "ply": ["--pretrained_ply", str(original)],
    }
    files = {name: compress(options.model_path / name, [*how, *resolution, *settings]) for name, how in sources.items()}
    files = {"original": original, **files}

    scene = open_scene(
        SceneOptions(options.source_path, options.images, options.resolution, eval=True), validation_every=0
    )
    weights = ["--lpips_weights", str(options.lpips_weights)] if options.lpips_weights else []
    rows = []
    for name, file in files.items():
        measured = options.model_path / "measured" / name
        render.main(["-m", str(measured), *photographs, *resolution, "--eval", "--model", str(file), "--skip_train"])
        metrics.main(["-m", str(measured), *weights])
        summary = read_summary(measured)
        to_original = None if name == "original" else against_original(original, file, scene)
        rows.append(
            [
                name,
                cell(summary.megabytes, ".2f"),
                cell(summary.gaussians, ","),
                cell(summary.metrics.psnr, ".2f"),
                cell(summary.metrics.ssim, ".4f"),
                cell(summary.metrics.lpips, ".4f"),
                cell(to_original.psnr if to_original else None, ".2f"),
                cell(to_original.ssim if to_original else None, ".4f"),
            ]
        )
    header = ["made with", "MB", "Gaussians", "PSNR", "SSIM", "LPIPS", "PSNR to original", "SSIM to original"]
    cli.say(f"\non the {len(scene.test)} test photographs:")
    cli.say(format_table(header, rows, "markdown"))


if __name__ == "__main__":
    cli.run(main)
