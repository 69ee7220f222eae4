"""Load a model of any format into FlashGS and render the cameras of its ``cameras.json``.

    python scripts/flashgs_example.py -m output/garden                       # the run's compressed file
    python scripts/flashgs_example.py -m output/garden --model garden.spz

Images go to ``flashgs/`` in the model directory. Without FlashGS' extension the tensors are made and described only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import _root  # noqa: F401
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from gsz import registry
from gsz.errors import UserError
from render import choose_model, save_png
from scene.cameras import Camera
from scene.flashgs import FlashGSScene
from scene.gaussian_model import GaussianModel
from scene.model_dir import read_cameras
from utils import cli
from utils.cli import say, warn

EXTENSION = "flash_gaussian_splatting"
BUILD = "clone https://github.com/InternLandMark/FlashGS and run `python setup.py install` there"

TILE = (32, 16)
FAR, NEAR = 100.0, 0.01
MAX_TILES = 1 << 20


@dataclass
class Options:
    """Load a model of any format into FlashGS and render the cameras of its cameras.json."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """The model directory; it holds cameras.json."""
    model: Path | None = None
    """Load this file instead of the directory's own: .ply or any compressed format."""
    max_pairs: int = 1 << 27
    """Room for so many pairs of a tile and a Gaussian, 24 bytes each. FlashGS does not check that they suffice."""
    repeats: int = 10
    """How often each view is rendered to measure the speed."""


class FlashGS:
    """FlashGS' three operations with the buffers they work in.

    Args:
        ops: The extension's operations.
        scene: On the CUDA device.
        max_pairs: Room for so many pairs of a tile and a Gaussian.
    """

    def __init__(self, ops: Any, scene: FlashGSScene, max_pairs: int) -> None:
        self._ops, self._scene, self._max_pairs = ops, scene, max_pairs

        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=scene.position.device)

        count = len(scene)
        self._keys, self._sorted_keys = (buffer(max_pairs, dtype=torch.int64) for _ in range(2))
        self._values, self._sorted_values = (buffer(max_pairs, dtype=torch.int32) for _ in range(2))
        self._sorting = buffer(int(ops.get_sort_buffer_size(max_pairs)), dtype=torch.int8)
        self._ranges = buffer(MAX_TILES, 2, dtype=torch.int32)
        self._pairs = buffer(1, dtype=torch.int32)
        # One version of FlashGS keeps depths and colours apart, and so takes one argument more.
        if "arg20" in (ops.preprocess.__doc__ or ""):
            colours = [buffer(count), buffer(count, 3)]
        else:
            colours = [buffer(count, 4)]
        self._projected = [buffer(count, 2), *colours, buffer(count, 4)]
        self._background = torch.zeros(3)

    def render(self, camera: Camera) -> Tensor:
        """``(H, W, 3)`` uint8 on black.

        Raises:
            UserError: there are more pairs than there is room for.
        """
        scene, size = self._scene, (camera.width, camera.height)
        self._pairs.zero_()
        self._ops.preprocess(
            scene.position, scene.shs, scene.opacity, scene.cov3d,
            *size, *TILE, *pose(camera), camera.fx, camera.fy, FAR, NEAR,
            *self._projected, self._keys, self._values, self._pairs,
        )  # fmt: skip
        pairs = int(self._pairs)
        if pairs >= self._max_pairs:
            raise UserError(f"{camera.name}: needs room for {pairs:,} pairs; give --max_pairs {2 * pairs}")
        self._ops.sort_gaussian(
            pairs, *size, *TILE, self._sorting, self._keys, self._values, self._sorted_keys, self._sorted_values
        )
        image = torch.zeros(camera.height, camera.width, 3, dtype=torch.uint8, device=scene.position.device)
        self._ops.render_32x16(
            pairs, *size, *self._projected, self._sorted_keys, self._sorted_values,
            self._ranges, self._background, image,
        )  # fmt: skip
        return image


def pose(camera: Camera) -> tuple[Tensor, Tensor]:
    """Position ``(3,)`` and rotation ``(3, 3)`` from the camera's axes to the world, as ``cameras.json`` has them."""
    rotation = torch.from_numpy(camera.world_to_camera[:3, :3].T.copy())
    return torch.from_numpy(camera.center).float(), rotation.float().contiguous()


def describe(scene: FlashGSScene) -> None:
    for name in ("position", "shs", "opacity", "cov3d"):
        tensor = getattr(scene, name)
        say(f"{name}: {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}, {tensor.nbytes / 1e6:.1f} MB")


def check(scene: FlashGSScene, source: Path) -> None:
    """Raise :class:`UserError` where the tensors are none that FlashGS can draw."""
    if len(scene) == 0:
        raise UserError(f"{source}: holds no Gaussians; there is nothing to load")
    xx, xy, _, yy, _, zz = scene.cov3d.unbind(1)
    if not bool((torch.stack([xx, yy, zz]) >= 0).all()) or not bool(torch.isfinite(scene.cov3d).all()):
        raise UserError(f"{source}: holds scales beyond what float32 covariances can; decompress and prune it first")
    # Rounding aside, no correlation exceeds one.
    if bool((xy.square() > 1.001 * xx * yy + 1e-30).any()):
        raise UserError(f"{source}: holds covariances that are none; its quaternions may be damaged")


def load_extension() -> ModuleType | None:
    """FlashGS' extension, or ``None`` after one line that says what is missing."""
    if not torch.cuda.is_available():
        say("nothing is rendered: PyTorch sees no CUDA device, which FlashGS needs")
        return None
    try:
        import flash_gaussian_splatting
    except ImportError as error:
        say(f"nothing is rendered: {EXTENSION} cannot be imported ({error}); {BUILD}")
        return None
    return flash_gaussian_splatting


def render_cameras(flashgs: FlashGS, cameras: list[Camera], folder: Path, repeats: int) -> None:
    """Write one PNG a camera and print the speed."""
    shifts = [max(abs(c.cx - c.width / 2), abs(c.cy - c.height / 2)) for c in cameras]
    if max(shifts) > 0:
        warn(f"FlashGS has the principal point in the middle; views are shifted by up to {max(shifts):.1f} pixels")
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    for camera in tqdm(cameras, desc="FlashGS", unit="view"):
        image = flashgs.render(camera)
        save_png(image.float() / 255, folder / f"{camera.name}.png")
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            flashgs.render(camera)
        torch.cuda.synchronize()
        seconds += time.perf_counter() - started
    say(f"{len(cameras)} views in {folder}, {len(cameras) * repeats / seconds:.0f} a second")


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    path = choose_model(options.model_path, options.model).path
    scene = FlashGSScene.of(GaussianModel.of(registry.read(path)))
    check(scene, path)
    cameras = read_cameras(options.model_path)
    say(f"{path}: {len(scene):,} Gaussians; {len(cameras)} cameras")
    describe(scene)
    extension = load_extension()
    if extension is None or not cameras:
        return
    device = torch.device("cuda", 0)
    on_device = FlashGSScene(*(getattr(scene, name).to(device) for name in ("position", "shs", "opacity", "cov3d")))
    render_cameras(
        FlashGS(extension.ops, on_device, options.max_pairs), cameras, options.model_path / "flashgs", options.repeats
    )


if __name__ == "__main__":
    cli.run(main)
