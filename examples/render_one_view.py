"""Render a model from one camera of a cameras.json, on whatever renderer works here.

python -m examples.render_one_view garden.gsz models/garden/cameras.json 0 view.png
"""

import sys
from pathlib import Path

import torch
from PIL import Image

import gsz
from gaussian_renderer import choose_backend, render
from scene.gaussian_model import GaussianModel
from scene.model_dir import read_cameras


def main(model: Path, cameras: Path, number: int, picture: Path) -> None:
    backend = choose_backend("auto")
    splats = GaussianModel.of(gsz.read(model)).to(backend.device)
    camera = read_cameras(cameras.parent)[number]
    background = torch.zeros(3, device=backend.device)
    with torch.no_grad():
        image = render(camera, splats, background, backend=backend.name).image
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    Image.fromarray(pixels).save(picture)
    print(f"{picture}: {camera.width}x{camera.height} pixels from camera {camera.name}, by {backend.name}")


if __name__ == "__main__":
    model, cameras, number, picture = sys.argv[1:]
    main(Path(model), Path(cameras), int(number), Path(picture))
