"""Open our files in other people's viewers, in a browser without a GPU, and hold their pictures against our renderer's.

    npm install --prefix scripts/viewers
    python scripts/viewers/measure.py [--viewers spark,three] [--formats sog,spz]

Prints the table of ``docs/web.md``. Each picture is of one camera of the demo's checkpoint and is compared with our CPU
renderer's of the same file, so that what is measured is the viewer and not the format. Needs Node 20 and Debian's
chromium (or what ``CHROMIUM`` names).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from PIL import Image  # noqa: E402

from gaussian_renderer import choose_backend  # noqa: E402
from gsz import registry  # noqa: E402
from gsz.errors import UserError  # noqa: E402
from programs.rendering import Renderer  # noqa: E402
from quality.metrics import psnr  # noqa: E402
from scene import GaussianModel  # noqa: E402
from scene.model_dir import camera_entries, checkpoint_path, latest_iteration, read_cameras  # noqa: E402
from utils import cli  # noqa: E402
from utils.tables import format_table  # noqa: E402

DEMO = ROOT / "demo" / "snowmiku" / "pretrained"
SIZE = (800, 600)

FORMATS = {
    "ply": "ply",
    "sog": "sog",
    "spz 2": "spz:version=2",
    "spz 3": "spz:version=3",
    "spz 4": "spz:version=4",
    "glb": "glb",
}

SPARK_AS_INRIA = {
    "preBlurAmount": 0.3,
    "blurAmount": 0.0,
    "sortRadial": False,
    "minAlpha": 1 / 255,
    "maxStdDev": 3.33,
}


@dataclass(frozen=True)
class Viewer:
    """A viewer, with what has to be told it.

    Attributes:
        name, version: Of the package.
        module: Its page's script.
        package: Where its version is found.
        options: Handed to it.
    """

    name: str
    module: str
    package: str
    options: dict[str, Any] | None = None

    @property
    def version(self) -> str:
        installed = HERE / "node_modules" / self.package / "package.json"
        if not installed.is_file():
            raise UserError(f"{installed}: is not there; run npm install --prefix {HERE}")
        return str(json.loads(installed.read_text())["version"])


VIEWERS = {
    "spark": Viewer("Spark", "spark", "@sparkjsdev/spark", SPARK_AS_INRIA),
    "spark-defaults": Viewer("Spark, its defaults", "spark", "@sparkjsdev/spark", {}),
    "playcanvas": Viewer("PlayCanvas engine", "playcanvas", "playcanvas"),
    "three": Viewer("three.js", "three", "three"),
    "babylon": Viewer("Babylon.js", "babylon", "@babylonjs/core"),
    "gaussiansplats3d": Viewer("GaussianSplats3D", "gaussiansplats3d", "@mkkellogg/gaussian-splats-3d"),
    "supersplat": Viewer("SuperSplat's viewer", "supersplat", "@playcanvas/supersplat-viewer"),
}

TURNS = {"spz": "x", "glb": "z"}
"""How files that are read as they stand are turned to INRIA's axes."""


@dataclass
class Options:
    """Open our files in other people's viewers and print how close their pictures are to our renderer's."""

    viewers: str = ",".join(VIEWERS)
    """Which, with commas between."""
    formats: str = ",".join(FORMATS)
    """Which, with commas between."""
    camera: int = 0
    """Number of the demo's camera."""


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    viewers = [VIEWERS[name] for name in options.viewers.split(",")]
    for viewer in viewers:
        _ = viewer.version
    camera = read_cameras(DEMO)[options.camera].at_resolution(*SIZE)
    model = registry.read(checkpoint_path(DEMO, latest_iteration(DEMO)))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.formats.split(","):
            codec = registry.codec(FORMATS[kind])
            file = folder / f"model_{kind.replace(' ', '_')}{codec.suffix}"
            registry.write(file, model, codec)
            backend = choose_backend("cpu")
            ours = Renderer(GaussianModel.of(registry.read(file)), torch.zeros(3), backend).image(camera)
            for viewer in viewers:
                asked = {
                    "viewer": viewer.module,
                    "file": f"/files/{file.name}",
                    "camera": camera_entries([camera])[0],
                    "turn": TURNS.get(codec.name, "none"),
                    "options": viewer.options or {},
                }
                row = [viewer.name, viewer.version, kind, *opened(folder, asked, ours)]
                cli.say("  ".join(row))
                rows.append(row)
    rows.sort(key=lambda row: list(VIEWERS).index(next(k for k, v in VIEWERS.items() if v.name == row[0])))
    cli.say(format_table(["viewer", "version", "file", "opened", "PSNR, dB"], rows, "markdown"))


def opened(folder: Path, asked: dict[str, Any], ours: torch.Tensor) -> tuple[str, str]:
    """Whether a viewer opened a file, and how close its picture is to ours."""
    (folder / "asked.json").write_text(json.dumps(asked))
    picture = folder / "picture.png"
    picture.unlink(missing_ok=True)
    command = ["node", str(HERE / "open.mjs"), str(folder), str(folder / "asked.json"), str(picture)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode or not run.stdout.strip():
        raise UserError(f"{command[1]}: {cli.first_line(RuntimeError(run.stderr))}; check Node and chromium")
    said = json.loads(run.stdout.strip().splitlines()[-1])
    if said["failure"] or not picture.is_file():
        return f"no: {said['failure'] or said['errors']}", ""
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    theirs = torch.from_numpy(pixels.copy()).float() / 255.0
    if theirs.shape != ours.shape:
        return f"no: its picture is {theirs.shape[1]}x{theirs.shape[0]}", ""
    return "yes" if not said["errors"] else f"yes, saying {said['errors'][0][:60]}", f"{psnr(theirs, ours):.1f}"


if __name__ == "__main__":
    cli.run(main)
