"""What the browser is held against: the demo's model as a file, and pictures of it by the CPU renderer.

python web/test/reference.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import gsz
from gaussian_renderer import render
from scene.gaussian_model import GaussianModel
from scene.model_dir import read_cameras

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "demo/snowmiku/pretrained"
CAMERAS = (0, 20, 60)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    original = gsz.read(MODEL / "point_cloud/iteration_15000/point_cloud.ply")
    gsz.write(folder / "demo.gsz", original, "gsz:quality=low")
    gsz.write(folder / "small.gsz", original.select(slice(None, None, 16)), "gsz:layers=3")
    gsz.convert(folder / "small.gsz", folder / "levels" / "lod-meta.json")
    gsz.convert(folder / "small.gsz", folder / "small.glb")
    cameras = read_cameras(MODEL)
    names = {"original": original} | {name: gsz.read(folder / f"{name}.gsz") for name in ("demo", "small")}
    for name, model in names.items():
        for index in CAMERAS if name == "demo" else CAMERAS[:1]:
            with torch.no_grad():
                image = render(cameras[index], GaussianModel.of(model), torch.zeros(3), backend="cpu").image
            (folder / f"{name}_{index}.rgb").write_bytes((image.clamp(0, 1) * 255).round().byte().numpy().tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
