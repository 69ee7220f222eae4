"""A scene small enough to compress in a second, with photographs that its checkpoint nearly explains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import train
from compress.loop import Result
from gaussian_renderer import render
from scene import model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.synthetic_scenes import write_colmap_scene

VIEWS = 24


def tiny_splats(count: int = 150, sh_degree: int = 3, seed: int = 0) -> GaussianModel:
    """A ball of blobs around the origin, where the cameras of the synthetic scenes look."""
    random = np.random.default_rng(seed)
    return GaussianModel.from_arrays(
        means=random.normal(0, 0.4, (count, 3)),
        log_scales=random.normal(-2.2, 0.3, (count, 3)),
        quaternions=random.normal(0, 1, (count, 4)),
        opacity_logits=random.normal(1, 1.5, (count, 1)),
        sh_dc=random.normal(0, 1, (count, 1, 3)),
        sh_rest=random.normal(0, 0.05, (count, (sh_degree + 1) ** 2 - 1, 3)),
    )


def write_tiny_scene(folder: Path, count: int = 150) -> tuple[Path, Path]:
    """Write photographs of a model and a checkpoint that is that model, slightly disturbed. Returns both folders."""
    source, checkpoint = folder / "scene", folder / "trained"
    write_colmap_scene(source, VIEWS)
    splats = tiny_splats(count)
    scene = open_scene(SceneOptions(source_path=source, eval=True))
    for camera in [*scene.train, *scene.validation, *scene.test]:
        image = render(camera, splats, scene.background).image.clamp(0, 1)
        assert camera.image_path is not None
        Image.fromarray((image * 255).round().to(torch.uint8).numpy()).save(camera.image_path)
    disturbed = splats.clone()
    disturbed.sh_dc += 0.05 * torch.randn(disturbed.sh_dc.shape, generator=torch.Generator().manual_seed(1))
    model_dir.save_checkpoint(checkpoint, 7000, disturbed)
    return source, checkpoint


def compress_tiny(scene: tuple[Path, Path], out: Path, *options: str) -> Result:
    """What ``train.py`` makes of a scene and its checkpoint, as :func:`write_tiny_scene` gives them."""
    source, checkpoint = scene
    given = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--eval", *options]
    result = train.train(train.parse(given))
    assert result is not None
    return result
