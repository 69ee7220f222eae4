"""Time the CPU renderer, its gradient, SSIM and a whole training step, beside another CPU renderer in the same run.

    python scripts/bench_render.py --json output/bench_render.json
    python scripts/bench_render.py --scaling --plot docs/images/cpu_scaling.png    # time and memory up to 4M Gaussians

CPU time is that of the process, so it hardly depends on who else uses the machine; wall time does. The peer is
metal-gauss' ``torch_ref`` (PyTorch; ``pip install -r requirements-bench.txt``), the one renderer on PyPI that runs on a
CPU. Its step uses our loss and the same optimiser, so that the ratio is about rendering alone.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from torch import Tensor  # noqa: E402
from tqdm import tqdm  # noqa: E402

from gaussian_renderer import render  # noqa: E402
from scene import model_dir  # noqa: E402
from scene.cameras import Camera  # noqa: E402
from scene.gaussian_model import GaussianModel  # noqa: E402
from utils import cli  # noqa: E402
from utils.cli import say  # noqa: E402
from utils.files import atomic_path, write_text  # noqa: E402
from utils.losses import photometric_loss  # noqa: E402
from utils.ssim import SSIMTarget, ssim  # noqa: E402
from utils.tables import cell, format_table  # noqa: E402

DEMO = ROOT / "demo" / "snowmiku" / "pretrained"
RANDOM_SCENES = {"S": (30_000, 320, 214), "L": (100_000, 640, 427)}  # Gaussians, width, height.
PEER_TILES = {"tile": 8, "slab": 64, "tile_chunk": 64}  # The fastest found for it: its defaults take ten times as long.
SCALING_COUNTS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000)
SCALING_SIZE = (1600, 1064)
SCALING_REPETITIONS = 3


@dataclass
class Options:
    """Time the CPU renderer.

    Attributes:
        json: Write the figures to this file as well.
        threads: Threads of our renderer and of PyTorch.
        repetitions: Runs of ours that the medians are taken over, after one that is not counted.
        peer_repetitions: The same for the peer, which is slow; 0 leaves it out.
        scenes: Which scenes: S (30,000 Gaussians, 320x214), L (100,000, 640x427), demo.
        scaling: Measure the forward pass alone, from 10,000 to 4,000,000 Gaussians at 1600x1064, instead.
        scaling_count: Measure that for one number of Gaussians, in this process, and print JSON; --scaling does it so.
        plot: With --scaling, draw time and memory to this file.
    """

    json: Path | None = None
    threads: int = 1
    repetitions: int = 15
    peer_repetitions: int = 2
    scenes: tuple[Literal["S", "L", "demo"], ...] = ("S", "L", "demo")
    scaling: bool = False
    plot: Path | None = None
    scaling_count: int | None = None


@dataclass
class BenchScene:
    """A model, the views it is rendered from in turn, and the images a training step compares with."""

    model: GaussianModel
    cameras: list[Camera]
    background: Tensor
    targets: list[SSIMTarget]

    @staticmethod
    def of(model: GaussianModel, cameras: list[Camera], background: Tensor) -> BenchScene:
        """Targets are the model's own renders; what is then trained is the model with a little noise on it."""
        targets = [SSIMTarget.of(render(camera, model, background, backend="cpu").image) for camera in cameras]
        torch.manual_seed(3)
        noisy = model.map(lambda tensor: tensor + 0.02 * torch.randn_like(tensor))
        return BenchScene(noisy.requires_grad_(), cameras, background, targets)


def random_scene(count: int, width: int, height: int, sigma_px: float = 1.5) -> tuple[GaussianModel, Camera, Tensor]:
    """Gaussians about ``sigma_px`` wide in a box that is somewhat larger than the view, opacities 0.05 to 0.95."""
    rng = np.random.default_rng(0)
    focal = width / (2 * math.tan(math.radians(30)))
    means = np.stack([rng.uniform(-3, 3, count), rng.uniform(-2, 2, count), rng.uniform(3, 7, count)], 1)
    log_scales = np.log(5.0 / focal * sigma_px) + rng.normal(0, 0.4, (count, 3))
    quaternions = rng.normal(0, 1, (count, 4))
    opacities = rng.uniform(0.05, 0.95, (count, 1))
    harmonics = rng.normal(0, 0.1, (count, 16, 3)).astype(np.float32)
    harmonics[:, 0] = rng.uniform(-1, 1.7, (count, 3))
    model = GaussianModel.from_arrays(
        means=means,
        log_scales=log_scales,
        quaternions=quaternions,
        opacity_logits=np.log(opacities / (1 - opacities)),
        sh_dc=harmonics[:, :1],
        sh_rest=harmonics[:, 1:],
    )
    yaw, pitch = 0.05, -0.03
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = tilt @ turn, [0.02, -0.01, 0.1]
    camera = Camera("view", width, height, focal, focal, width / 2, height / 2, pose)
    return model, camera, torch.tensor([0.1, 0.2, 0.3])


class Stopwatch:
    """Collects CPU and wall milliseconds by name."""

    def __init__(self) -> None:
        self._cpu: dict[str, list[float]] = {}
        self._wall: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self._cpu.setdefault(name, []).append(1e3 * (time.process_time() - cpu))
        self._wall.setdefault(name, []).append(1e3 * (time.perf_counter() - wall))
        return result

    def forget(self) -> None:
        self._cpu.clear()
        self._wall.clear()

    def cpu(self, name: str) -> float:
        return statistics.median(self._cpu[name])

    def wall(self, name: str) -> float:
        return statistics.median(self._wall[name])


def _adam(model: GaussianModel) -> torch.optim.Adam:
    return torch.optim.Adam([tensor for _, tensor in model.named_parameters()], lr=1e-5, fused=True)


def time_ours(scene: BenchScene, repetitions: int) -> dict[str, float]:
    """Medians of the passes one by one, then of the whole step: render, L1 + SSIM, backward, fused Adam."""
    watch, optimizer = Stopwatch(), _adam(scene.model)
    for repetition in tqdm(range(repetitions + 1), desc="ours", leave=False):
        if repetition == 1:
            watch.forget()
        camera = scene.cameras[repetition % len(scene.cameras)]
        target = scene.targets[repetition % len(scene.cameras)]

        def forward(camera: Camera = camera) -> Tensor:
            return render(camera, scene.model, scene.background, backend="cpu").image

        def similarity(image: Tensor, target: SSIMTarget = target) -> None:
            ssim(image, target).backward()

        def step(forward: Callable[[], Tensor] = forward, target: SSIMTarget = target) -> None:
            photometric_loss(forward(), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        image = watch.time("forward", forward)
        d_image = torch.randn_like(image)
        watch.time("backward", lambda image=image, d_image=d_image: image.backward(d_image))
        optimizer.zero_grad(set_to_none=True)
        leaf = image.detach().requires_grad_()
        watch.time("ssim", lambda leaf=leaf, similarity=similarity: similarity(leaf))
        watch.time("step", step)
    return {
        "forward_cpu_ms": watch.cpu("forward"),
        "backward_cpu_ms": watch.cpu("backward"),
        "ssim_cpu_ms": watch.cpu("ssim"),
        "step_cpu_ms": watch.cpu("step"),
        "forward_wall_ms": watch.wall("forward"),
        "backward_wall_ms": watch.wall("backward"),
        "ssim_wall_ms": watch.wall("ssim"),
        "step_wall_ms": watch.wall("step"),
    }


def time_peer(scene: BenchScene, repetitions: int) -> float | None:
    """CPU-ms of the same step with the peer's renderer, or ``None`` where it is not installed."""
    try:
        from metal_gauss import torch_ref
    except ImportError:
        return None
    watch, optimizer = Stopwatch(), _adam(scene.model)
    for repetition in tqdm(range(repetitions), desc="metal-gauss torch_ref", leave=False):
        camera, target = scene.cameras[repetition % len(scene.cameras)], scene.targets[repetition % len(scene.cameras)]

        def step(camera: Camera = camera, target: SSIMTarget = target) -> None:
            model = scene.model
            pinhole = torch.tensor([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
            image = torch_ref.render(
                model.means,
                model.quaternions,
                model.scales,
                model.opacities[:, 0],
                torch.cat([model.sh_dc, model.sh_rest], 1),
                pinhole,
                torch.from_numpy(camera.world_to_camera).float(),
                camera.width,
                camera.height,
                near=0.2,
                **PEER_TILES,
                background=tuple(scene.background.tolist()),
            )[0]
            photometric_loss(image, target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        watch.time("step", step)
    return watch.cpu("step")


def make_scene(name: str) -> BenchScene | None:
    """One of the two random scenes, or the demo's from eight of its cameras; ``None`` where that is not there."""
    if name in RANDOM_SCENES:
        model, camera, background = random_scene(*RANDOM_SCENES[name])
        return BenchScene.of(model, [camera], background)
    if not DEMO.is_dir():
        say(f"{DEMO}: not here, so the demo scene is left out")
        return None
    model, _ = model_dir.load_checkpoint(DEMO)
    cameras = model_dir.read_cameras(DEMO)
    return BenchScene.of(model, cameras[:: max(1, len(cameras) // 8)][:8], torch.zeros(3))


def bench(options: Options) -> dict[str, Any]:
    """All scenes; prints a table."""
    results: dict[str, dict[str, float | None]] = {}
    rows = []
    for name in options.scenes:
        scene = make_scene(name)
        if scene is None:
            continue
        ours = time_ours(scene, options.repetitions)
        peer = time_peer(scene, options.peer_repetitions) if options.peer_repetitions else None
        ratio = None if peer is None else peer / ours["step_cpu_ms"]
        results[name] = {**ours, "peer_step_cpu_ms": peer, "ratio": ratio}
        camera = scene.cameras[0]
        figures = [*ours.values(), peer]
        rows.append(
            [name, f"{len(scene.model):,}", f"{camera.width}x{camera.height}"]
            + [cell(figure, ".1f") for figure in figures]
            + [cell(ratio, ".0f")]
        )
    header = ["scene", "Gaussians", "pixels", "forward", "backward", "SSIM", "step"]
    header += ["wall: forward", "backward", "SSIM", "step", "peer's step", "ratio"]
    say(f"CPU-ms and wall-ms, medians; {options.threads} thread(s)")
    say(format_table(header, rows))
    if any(result["peer_step_cpu_ms"] is None for result in results.values()) and options.peer_repetitions:
        say("metal-gauss is not installed: pip install -r requirements-bench.txt")
    return {"threads": options.threads, "scenes": results}


def measure_count(count: int) -> dict[str, float]:
    """Forward time and peak memory of this process at one number of Gaussians."""
    import resource

    width, height = SCALING_SIZE
    model, camera, background = random_scene(count, width, height)
    small, small_camera, _ = random_scene(1, 16, 16)
    watch = Stopwatch()
    with torch.no_grad():
        render(small_camera, small, background, backend="cpu")  # Loads the compiled kernels.
        for _ in range(SCALING_REPETITIONS):
            watch.time("forward", lambda: render(camera, model, background, backend="cpu"))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "gaussians": count,
        "forward_cpu_ms": watch.cpu("forward"),
        "forward_wall_ms": watch.wall("forward"),
        "peak_mb": peak / 1e6,
        "model_mb": count * 59 * 4 / 1e6,
    }


def bench_scaling(options: Options) -> dict[str, Any]:
    """Each number of Gaussians in a process of its own, so that each has a peak memory of its own."""
    results = []
    for count in tqdm(SCALING_COUNTS, desc="scaling"):
        command = [sys.executable, __file__, "--threads", str(options.threads), "--scaling-count", str(count)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=dict(os.environ)).stdout
        results.append(json.loads(output.splitlines()[-1]))
    rows = [
        [f"{r['gaussians']:,}"] + [cell(r[key], ".0f") for key in ("forward_cpu_ms", "forward_wall_ms")]
        + [cell(r[key], ",.0f") for key in ("model_mb", "peak_mb")]
        for r in results
    ]  # fmt: skip
    width, height = SCALING_SIZE
    say(f"forward pass at {width}x{height}, {options.threads} thread(s)")
    say(format_table(["Gaussians", "CPU-ms", "wall-ms", "model MB", "peak MB of the process"], rows))
    if options.plot is not None:
        plot_scaling(results, options.plot)
        say(f"wrote {options.plot}")
    return {"threads": options.threads, "scaling": results}


def plot_scaling(results: list[dict[str, float]], path: Path) -> None:
    """CPU time and peak memory against the number of Gaussians, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [result["gaussians"] for result in results]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    left.loglog(counts, [result["forward_cpu_ms"] / 1e3 for result in results], "o-")
    left.set(xlabel="Gaussians", ylabel="forward pass, CPU-seconds")
    right.loglog(counts, [result["peak_mb"] for result in results], "o-", label="process, at its peak")
    right.loglog(counts, [result["model_mb"] for result in results], "--", label="the model itself")
    right.set(xlabel="Gaussians", ylabel="MB")
    right.legend()
    for axes in (left, right):
        axes.grid(True, which="major", alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    if options.scaling_count is not None:
        print(json.dumps(measure_count(options.scaling_count)))
        return
    results = bench_scaling(options) if options.scaling else bench(options)
    if options.json is not None:
        write_text(options.json, json.dumps(results, indent=2) + "\n")
        say(f"wrote {options.json}")


if __name__ == "__main__":
    cli.run(main)
