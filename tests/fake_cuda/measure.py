"""Fine-tune, or score, a model on CUDA tensors that have no memory and no values, and count the bytes they would take.

    python -m tests.fake_cuda.measure LIBRARY TASK:GAUSSIANS [TASK:GAUSSIANS ...]

A task is ``finetune``, ``score``, or ``grid``: rounding, its way back and the rate. Prints a JSON list: for each the
peak of live tensors in bytes, how many kernels there were and how many bytes they read and wrote, and how many tensors
had been copied between devices after each iteration. Of the Warp backend's kernels no bytes are counted.
Everything is the program's own but the work of the kernels: launches in Warp do nothing. What would wait for
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
from gsz.native import gpu  # noqa: E402
from gsz.native import grid as native_grid  # noqa: E402
from gsz.native.grid import GszGrid  # noqa: E402
from scene.cameras import Camera  # noqa: E402
from scene.gaussian_model import GaussianModel  # noqa: E402
from tests.synthetic_scenes import ring_poses  # noqa: E402
from tests.tiny_run import tiny_splats  # noqa: E402

WIDTH, HEIGHT = 1600, 1064
PAIRS_A_GAUSSIAN = 3.3
ITERATIONS = 4
CUDA = torch.device("cuda", 0)
NO_KERNEL = ("empty", "new_empty", "detach", "device")
"""What the names of operations begin with that read and write nothing."""


class Meter(TorchDispatchMode):
    """What happens on CUDA.

    Attributes:
        peak: of live bytes.
        copies: from one device to another.
        kernels: operations and launches, but views and allocations.
        moved: bytes that their arguments and results have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.copies = self.kernels = self.moved = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {tensor.device.type for tensor in _tensors((args, kwargs, result))}
        if "copy" in str(func) and len(devices) > 1:
            self.copies += 1
        if "cuda" in devices and not func.is_view and not func.overloadpacket.__name__.startswith(NO_KERNEL):
            self.kernels += 1
            self.moved += _bytes((args, kwargs, result))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if tensor.device.type == "cuda" and storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._forget, storage._cdata)
        return result

    def launched(self, kernel: Any, count: int, inputs: list[Any], outputs: list[Any], device: torch.device) -> None:
        """In place of :func:`gsz.native.gpu._launch`."""
        self.kernels += 1
        self.moved += _bytes((inputs, outputs))
        if kernel is gpu.kernels.pay:
            self.moved += _bytes(outputs[1:])  # Gradients are added to.

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tree: Any) -> int:
    return sum(tensor.nbytes for tensor in _tensors(tree) if tensor.device.type == "cuda")


def silence_kernels(pairs: int, meter: Meter) -> None:
    """Let Warp allocate what it does and launch nothing; the renderer's one look at a value gives ``pairs``."""
    nothing: Callable[..., None] = lambda *arguments, **named: None  # noqa: E731
    rasterizer._launch_blocks = rasterizer.array = rasterizer._splat_array = nothing
    rasterizer.on_stream_of = lambda device: nullcontext()
    warp_backend.obstacle = lambda: None
    gpu._launch, gpu.array = meter.launched, lambda tensor, dtype=None: tensor
    native_grid.rounds_on_gpu = lambda: True
    rasterizer.wp.launch = rasterizer.wp.from_torch = rasterizer.wp.utils.radix_sort_pairs = nothing
    rasterizer.int = lambda value: pairs if isinstance(value, Tensor) else int(value)


def fitted_grid(recipe: Recipe, count: int) -> GszGrid:
    """The grid of a small model, with the statistics of its rate, as if it were that of ``count`` Gaussians on CUDA.

    No kernel reads its tables, and these stay where they are.
    """
    small = tiny_splats(50)
    grid = recipe.make_codec().fit(small)
    assert isinstance(grid, GszGrid)
    grid.estimated_bits(small)
    rate, steps = grid._rate, gpu.GpuSteps(grid.steps, torch.device("cpu"))
    assert rate is not None
    rate._prices_there = gpu.GpuPrices(steps, rate._prices)
    steps.device = rate._device = CUDA
    grid._on_gpu, rate._count = steps, count
    return grid


class Ready:
    """A codec whose grid has been fitted."""

    def __init__(self, grid: GszGrid) -> None:
        self._grid = grid

    def fit(self, splats: GaussianModel) -> GszGrid:
        return self._grid


def round_and_pay(grid: GszGrid, splats: GaussianModel) -> None:
    """What an iteration does on the grid."""
    snapped = [tensor for _, tensor in grid.snap(splats.requires_grad_()).named_parameters()]
    torch.autograd.backward(snapped, [torch.empty_like(tensor) for tensor in snapped])
    grid.pay(splats, 0.1)


def measure(task: str, count: int) -> dict[str, Any]:
    """Of one task."""
    meter = Meter()
    silence_kernels(int(PAIRS_A_GAUSSIAN * count), meter)
    recipe = Recipe()
    cameras = [Camera(f"{i}", WIDTH, HEIGHT, 1400.0, 1400.0, WIDTH / 2, HEIGHT / 2, ring_poses(2)[i]) for i in range(2)]
    copies: list[int] = []
    grid = fitted_grid(recipe, count)
    with FakeTensorMode(allow_non_fake_inputs=True), meter:
        shapes = ((3,), (3,), (4,), (1,), (1, 3), (15, 3))
        splats = GaussianModel(*(torch.empty(count, *shape, device=CUDA) for shape in shapes))
        target, background = torch.empty(HEIGHT, WIDTH, 3, device=CUDA), torch.empty(3, device=CUDA)
        views = Views(cameras, lambda camera: target, background, 1.0, "warp")
        if task == "grid":
            round_and_pay(grid, splats)
        elif task == "score":
            importance.removal_error(splats, views, (0,))
        else:
            progress = lambda loss: copies.append(meter.copies)  # noqa: E731
            finetune.finetune(splats, Ready(grid), views, recipe, ITERATIONS, (0,), progress)
    return {"peak": meter.peak, "copies": copies, "kernels": meter.kernels, "moved": meter.moved}


def main() -> None:
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_name = lambda device: "none"
    sys.modules["fused_ssim"] = None  # type: ignore[assignment]
    finetune.finite_loss = lambda *arguments: 0.0  # The look at the loss every 50 iterations.
    tasks = (argument.split(":") for argument in sys.argv[2:])
    print(json.dumps([measure(task, int(count)) for task, count in tasks]))


if __name__ == "__main__":
    main()
