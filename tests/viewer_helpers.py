"""What the tests of the viewers' formats share: files of other programs, and pictures of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gaussian_renderer import render
from gsz.splats import Splats
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.synthetic_scenes import ring_poses

VIEWER_FILES = Path(__file__).parent / "viewer_files"


def other_programs_files(pattern: str) -> list[str]:
    return sorted(path.name for path in VIEWER_FILES.glob(pattern))


def source_model(sh_degree: int = 3) -> GaussianModel:
    """The model that the other programs were given."""
    with np.load(VIEWER_FILES / "source_sh3.npz") as arrays:
        model = GaussianModel.from_arrays(**arrays)
    model.sh_rest = model.sh_rest[:, : (sh_degree + 1) ** 2 - 1].contiguous()
    return model


def assert_read_as(model: Splats, name: str, quaternions: float = 1e-6) -> None:
    """``model``, decoded by us from the file ``name``, has the values that splat-transform decodes from it.

    Infinite opacity logits, which it returns where an opacity byte is 255, must be at least 5.5 with us.
    """
    with np.load(VIEWER_FILES / f"{name}.npz") as arrays:
        theirs = {key: arrays[key] for key in arrays.files}
    ours = dict(model.numpy().named_parameters())
    saturated = np.isinf(theirs["opacity_logits"])
    assert (ours["opacity_logits"][saturated] > 5.5).all()
    theirs["opacity_logits"] = np.where(saturated, ours["opacity_logits"], theirs["opacity_logits"])
    for key, expected in theirs.items():
        tolerance = quaternions if key == "quaternions" else 1e-6
        np.testing.assert_allclose(ours[key], expected, rtol=1e-6, atol=tolerance, err_msg=f"{name}: {key}")


def cameras_around(model: GaussianModel, count: int = 4, distance: float = 1.0) -> list[Camera]:
    """Cameras on a ring about a model, looking at it."""
    middle = model.means.median(dim=0).values.double().numpy()
    radius = float((model.means - model.means.median(dim=0).values).norm(dim=1).quantile(0.7))
    cameras = []
    for index, pose in enumerate(ring_poses(count)):
        pose = pose.copy()
        pose[:3, 3] *= distance * radius / 2
        pose[:3, 3] -= pose[:3, :3] @ middle
        cameras.append(Camera(str(index), 160, 120, 130.0, 130.0, 80.0, 60.0, pose))
    return cameras


def with_strong_sh(model: GaussianModel) -> GaussianModel:
    """Larger Gaussians of strongly view-dependent colour, so that a wrong sign of any coefficient shows."""
    generator = torch.Generator().manual_seed(0)
    strong = model.clone()
    strong.log_scales += 0.8
    strong.sh_rest = (torch.rand(model.sh_rest.shape, generator=generator) - 0.5) * 0.9
    return strong


@torch.no_grad()
def pictures(splats: Splats, cameras: list[Camera]) -> torch.Tensor:
    """``(views, H, W, 3)``, clamped as they would be stored."""
    model = GaussianModel.of(splats)
    return torch.stack([render(camera, model, torch.zeros(3), backend="cpu").image.clamp(0, 1) for camera in cameras])


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * (first - second).square().mean().clamp_min(1e-12).log10())
