"""What a block of a model should look like, seen alone: a scene that ``train.py`` compresses it by.

A photograph shows all blocks at once. What it says of one is how far the whole model's render is off, in the share that
the block has in each pixel. So the target of a block is its own render, plus that share of the photograph less the
render of the whole. Where the block fills the picture this is the photograph itself; where it is hidden, the block
stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from compress.views import Views
from gsz.files import atomic_path, write_text
from gsz.splats import SH_C0
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.transforms import TEST_TRANSFORMS, TRAIN_TRANSFORMS

IMAGES = "images"


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a model.

    Attributes:
        name: Its cell's.
        members: ``(N,)`` mask of the whole model's Gaussians: those of the cell and those around it.
    """

    name: str
    members: Tensor


@torch.no_grad()
def targets(
    camera: Camera, views: Views, whole: GaussianModel, blocks: Sequence[Block]
) -> Iterator[tuple[Tensor, float]]:
    """What each block should look like in a view, ``(H, W, 3)`` in [0, 1], and its mean share of the pixels."""
    missing = views.target(camera) - views.render(camera, whole).image
    for first in range(0, len(blocks), 3):
        some = blocks[first : first + 3]
        shares = _shares(camera, views, whole, [block.members for block in some])
        for block, share in zip(some, shares.unbind(2), strict=False):
            alone = views.render(camera, whole.select(block.members)).image
            yield (alone + share[..., None] * missing).clamp(0.0, 1.0), float(share.mean())


def _shares(camera: Camera, views: Views, whole: GaussianModel, members: Sequence[Tensor]) -> Tensor:
    """``(H, W, 3)``: the share of each pixel that up to three sets of Gaussians have, one a channel."""
    colors = torch.zeros(len(whole), 3, device=whole.device)
    for channel, mask in enumerate(members):
        colors[:, channel] = mask
    painted = whole.replace(sh_dc=((colors - 0.5) / SH_C0)[:, None], sh_rest=torch.zeros_like(whole.sh_rest))
    black = replace(views, background=torch.zeros_like(views.background))
    return black.render(camera, painted).image


class SceneWriter:
    """Writes the scene of one block, view by view.

    Args:
        folder: Gets ``images`` and, at the end, the two transforms files of a Blender scene.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frames: dict[str, list[dict]] = {TRAIN_TRANSFORMS: [], TEST_TRANSFORMS: []}

    def add(self, camera: Camera, target: Tensor, *, tests: bool) -> None:
        """Write a view."""
        name = f"{IMAGES}/{camera.name.replace('/', '_')}.png"
        pixels = (target * 255.0).round().to(torch.uint8).cpu().numpy()
        with atomic_path(self.folder / name) as temporary:
            Image.fromarray(pixels).save(temporary)
        pose = np.linalg.inv(camera.world_to_camera) @ np.diag([1.0, -1.0, -1.0, 1.0])
        intrinsics = {"w": camera.width, "h": camera.height, "fl_x": camera.fx, "fl_y": camera.fy}
        intrinsics |= {"cx": camera.cx, "cy": camera.cy}
        frame = {"file_path": name, **intrinsics, "transform_matrix": pose.tolist()}
        self._frames[TEST_TRANSFORMS if tests else TRAIN_TRANSFORMS].append(frame)

    @property
    def training_views(self) -> int:
        return len(self._frames[TRAIN_TRANSFORMS])

    def finish(self) -> None:
        """Write which views there are."""
        for name, frames in self._frames.items():
            write_text(self.folder / name, json.dumps({"frames": frames}, indent=1) + "\n")
