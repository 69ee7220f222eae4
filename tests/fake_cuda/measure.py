"""Fine-tune, or score, a model on CUDA tensors that have no memory and no values, and count the bytes they would take.

    python -m tests.fake_cuda.measure LIBRARY TASK:GAUSSIANS [TASK:GAUSSIANS ...]

A task is ``finetune`` or ``score``. Prints a JSON list: for each the peak of live tensors in bytes, and how many
tensors had been copied between devices after each iteration.
Everything is the program's own but the work of the kernels: the Warp backend's launches do nothing. What would wait for
a GPU (reading a value) or mix devices is an error of FakeTensorMode. ``LIBRARY`` is ``guard.cpp``, compiled.
"""

from __future__ import annotations

import ctypes
import json
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)  # Before PyTorch is imported, so that it finds the device.

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from compress import finetune, importance  # noqa: E402
from compress.recipe import Recipe  # noqa: E402
from compress.views import Views  # noqa: E402
from gaussian_renderer import warp_backend  # noqa: E402
from gaussian_renderer.warp_backend import rasterizer  # noqa: E402
from gsz.native.device import DeviceSteps  # noqa: E402
from gsz.native.grid import GszGrid  # noqa: E402
from scene.cameras import Camera  # noqa: E402
from scene.gaussian_model import GaussianModel  # noqa: E402
from tests.synthetic_scenes import ring_poses  # noqa: E402
from tests.tiny_run import tiny_splats  # noqa: E402

WIDTH, HEIGHT = 1600, 1064
PAIRS_A_GAUSSIAN = 3.3
ITERATIONS = 4
CUDA = torch.device("cuda", 0)


class Meter(TorchDispatchMode):
    """Live bytes on CUDA and their peak, and the number of copies from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.copies = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {tensor.device.type for tensor in _tensors((args, kwargs, result))}
        if "copy" in str(func) and len(devices) > 1:
            self.copies += 1
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if tensor.device.type == "cuda" and storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._forget, storage._cdata)
        return result

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def silence_kernels(pairs: int) -> None:
    """Let the Warp backend allocate what it does and launch nothing; its one look at a value gives ``pairs``."""
    nothing: Callable[..., None] = lambda *arguments, **named: None  # noqa: E731
    rasterizer._launch_blocks = rasterizer._array = rasterizer._splat_array = nothing
    rasterizer._on_stream_of = lambda device: nullcontext()
    warp_backend.obstacle = lambda: None
    rasterizer.wp.launch = rasterizer.wp.from_torch = rasterizer.wp.utils.radix_sort_pairs = nothing
    rasterizer.int = lambda value: pairs if isinstance(value, Tensor) else int(value)


def on_cuda(mode: FakeTensorMode, thing: Any) -> None:
    """Put the tensors among the attributes of an object, or in tuples of them, on the device."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return mode.from_tensor(value).to(CUDA)
        return tuple(map(moved, value)) if isinstance(value, tuple) else value

    for name, value in list(vars(thing).items()):
        setattr(thing, name, moved(value))


def fitted_grid(recipe: Recipe) -> GszGrid:
    """The grid of a small model, with the statistics of its rate."""
    small = tiny_splats(50)
    grid = recipe.make_codec().fit(small)
    assert isinstance(grid, GszGrid)
    grid.estimated_bits(small)
    grid._on_device = DeviceSteps(grid.steps, torch.device("cpu"))
    return grid


def move(mode: FakeTensorMode, grid: GszGrid, count: int) -> None:
    """Let the grid's tables be on the device, as if it were that of ``count`` Gaussians there."""
    rate, steps = grid._rate, grid._on_device
    assert rate is not None and steps is not None
    for thing in (steps, rate, rate._tables):
        on_cuda(mode, thing)
    steps.device = rate._device = CUDA
    rate._count, rate._steps_there = count, steps


class Ready:
    """A codec whose grid has been fitted."""

    def __init__(self, grid: GszGrid) -> None:
        self._grid = grid

    def fit(self, splats: GaussianModel) -> GszGrid:
        return self._grid


def measure(task: str, count: int) -> dict[str, Any]:
    """Peak bytes, and copies after each iteration."""
    silence_kernels(int(PAIRS_A_GAUSSIAN * count))
    recipe = Recipe()
    cameras = [Camera(f"{i}", WIDTH, HEIGHT, 1400.0, 1400.0, WIDTH / 2, HEIGHT / 2, ring_poses(2)[i]) for i in range(2)]
    copies: list[int] = []
    grid = fitted_grid(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        move(mode, grid, count)
        with Meter() as meter:
            shapes = ((3,), (3,), (4,), (1,), (1, 3), (15, 3))
            splats = GaussianModel(*(torch.empty(count, *shape, device=CUDA) for shape in shapes))
            target, background = torch.empty(HEIGHT, WIDTH, 3, device=CUDA), torch.empty(3, device=CUDA)
            views = Views(cameras, lambda camera: target, background, 1.0, "warp")
            if task == "score":
                importance.removal_error(splats, views, (0,))
            else:
                progress = lambda loss: copies.append(meter.copies)  # noqa: E731
                finetune.finetune(splats, Ready(grid), views, recipe, ITERATIONS, (0,), progress)
    return {"peak": meter.peak, "copies": copies}


def main() -> None:
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_name = lambda device: "none"
    sys.modules["fused_ssim"] = None  # type: ignore[assignment]
    finetune.finite_loss = lambda *arguments: 0.0  # The look at the loss every 50 iterations.
    tasks = (argument.split(":") for argument in sys.argv[2:])
    print(json.dumps([measure(task, int(count)) for task, count in tasks]))


if __name__ == "__main__":
    main()
