"""Time the CPU renderer, its gradient, SSIM and a step of fine-tuning, beside another CPU renderer in the same run.

    python scripts/bench_render.py --json output/bench_render.json
    python scripts/bench_render.py --scaling --plot docs/images/cpu_scaling.png    # time and memory up to 4M Gaussians
    python scripts/bench_render.py --against ../before      # and what a checkout of another commit takes, in turns
    python scripts/bench_render.py --memory-count 1500000    # peak memory of a stage of a run

Two steps are measured. The bare step is render, L1 + SSIM, backward and fused Adam. The step is an iteration of
``compress.finetune`` with the default recipe: it rounds to the grid of ``.gsz`` and pays for the rate as well; beside
it stands the same with the codec ``ply``, which neither rounds nor pays, and how many times as much the former costs.

CPU time is that of the process, so it hardly depends on who else uses the machine; wall time does. The peer is
metal-gauss' ``torch_ref`` (PyTorch; ``pip install -r requirements-bench.txt``), the one renderer on PyPI that runs on a
CPU. Its step uses our loss and the same optimizer, so that the ratio is about rendering alone.

The floor is the time that the arithmetic of blending alone takes: the number of vectors of pixels that are blended,
times the operations on each (see ``FORWARD`` and ``BACKWARD``), at the rates that multiplications with additions,
divisions and exponentials reach in the same run when nothing is loaded or stored.
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()
    import utils.cli

    # Another checkout may not have it; the environment that it settles is inherited from here.
    getattr(utils.cli, "settle_threads", lambda: None)()

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from _root import ROOT
from torch import Tensor
from tqdm import tqdm

from compress import importance
from compress.finetune import finetune
from compress.recipe import Recipe
from compress.regrow import Change
from compress.views import Views
from gaussian_renderer import cpu, render
from gaussian_renderer.cpu import blending, lanes, projection, tiles
from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.lanes import CHUNK, PARTS
from gaussian_renderer.cpu.layout import ALPHA_MIN, TILE
from gsz import registry
from gsz.files import atomic_path, write_text
from quality.losses import photometric_loss
from quality.ssim import SSIMTarget, ssim
from scene import model_dir
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.cli import say
from utils.kernels import SERIAL
from utils.tables import cell, format_table

# Another checkout may know of no blocks, and of one kind of lanes only.
simd, BLOCK = getattr(lanes, "pixels", lanes.lanes), getattr(lanes, "BLOCK", CHUNK)
blocks_of = getattr(blending, "blocks_of", None) or njit(**SERIAL)(lambda chunks: chunks)

DEMO = ROOT / "demo" / "snowmiku" / "pretrained"
RANDOM_SCENES = {  # Gaussians, width, height.
    "S": (30_000, 320, 214),
    "L": (100_000, 640, 427),
    "XL": (1_000_000, 1600, 1064),
}
DENSE = (400_000, 800, 533)
PEER_TILES = {"tile": 8, "slab": 64, "tile_chunk": 64}  # The fastest found for it: its defaults take ten times as long.
SCALING_COUNTS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000)
SCALING_SIZE = (1600, 1064)
SCALING_REPETITIONS = 3


@dataclass(frozen=True)
class Operations:
    """Operations on one vector of pixels, counted in the source of :mod:`gaussian_renderer.cpu.blending`.

    Attributes:
        simple: Additions, multiplications, pairs of both, comparisons and selections.
        divisions, exponentials: The others. Loads, stores and what is done once a Gaussian are not counted.
    """

    simple: int
    divisions: int
    exponentials: int


FORWARD = Operations(simple=24, divisions=0, exponentials=1)
BACKWARD = Operations(simple=36, divisions=1, exponentials=1)
COLUMNS = {
    "forward": "forward_cpu_ms",
    "floor": "forward_floor_cpu_ms",
    "backward": "backward_cpu_ms",
    "its floor": "backward_floor_cpu_ms",
    "SSIM": "ssim_cpu_ms",
    "bare step": "bare_step_cpu_ms",
    "step": "step_cpu_ms",
    "step, ply": "ply_step_cpu_ms",
    "step / ply": "step_over_ply_step",
    "peer's bare step": "peer_step_cpu_ms",
    "wall: bare step": "bare_step_wall_ms",
    "wall: step": "step_wall_ms",
    "wall: step, ply": "ply_step_wall_ms",
}
"""Headings of the table, and which figures are under them."""

STAGES = {
    "project": (projection, "project"),
    "sort": (tiles, "sort_by_depth"),
    "fill tiles": (tiles, "fill_tiles"),
    "blend": (blending, "blend"),
    "blend backward": (blending, "blend_backward"),
    "project backward": (projection, "project_backward"),
}
"""The kernels of a bare step, and where they are."""

PEER_SCENES = ("S", "L", "demo")  # The peer would take many minutes for the others.
TURNS = 3  # Of steps with the grid and steps with ply, so that what else the machine does in the meantime slows both.
CHAINS = 10  # Independent chains of operations, so that none waits for the one before.


@dataclass
class Options:
    """Time the CPU renderer.

    Attributes:
        json: Write the figures to this file as well.
        threads: Threads of our renderer and of PyTorch.
        repetitions: Runs of ours that the medians are taken over, after one that is not counted.
        peer_repetitions: The same for the peer, which is slow, on S, L and demo; 0 leaves it out.
        scenes: Which scenes: S (30,000 random Gaussians, 320x214), L (100,000, 640x427), XL (1,000,000, 1600x1064),
            demo (59,956, 400x300), dense (the demo's, split until they are 400,000, 800x533).
        against: A checkout of another commit: each of the two is measured in turns, in processes of its own.
        rounds: How many turns each of them gets.
        scaling: Measure the forward pass alone, from 10,000 to 4,000,000 Gaussians at 1600x1064, instead.
        scaling_count: Measure that for one number of Gaussians, in this process, and print JSON; --scaling does it so.
        plot: With --scaling, draw time and memory to this file.
        memory_count: Fine-tune the demo's model, split until it has so many Gaussians, at 1600x1064 for a few
            iterations with the default recipe; encode, decode and score it; and print the peak memory of this process
            after each.
    """

    json: Path | None = None
    threads: int = 1
    repetitions: int = 15
    peer_repetitions: int = 2
    scenes: tuple[Literal["S", "L", "XL", "demo", "dense"], ...] = ("S", "L", "demo", "dense", "XL")
    against: Path | None = None
    rounds: int = 3
    scaling: bool = False
    plot: Path | None = None
    scaling_count: int | None = None
    memory_count: int | None = None


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


@njit(**SERIAL)
def _multiply_and_add(steps, values):
    factor, summand = simd.splat(np.float32(0.5)), simd.splat(np.float32(1))
    a, b, c, d, e = factor, factor, factor, factor, factor
    f, g, h, i, j = summand, summand, summand, summand, summand
    for _ in range(steps):
        a, b, c = a * factor + summand, b * factor + summand, c * factor + summand
        d, e, f = d * factor + summand, e * factor + summand, f * factor + summand
        g, h = g * factor + summand, h * factor + summand
        i, j = i * factor + summand, j * factor + summand
    simd.store(values, 0, a + b + c + d + e + f + g + h + i + j)


@njit(**SERIAL)
def _divide(steps, values):
    one = simd.splat(np.float32(1))
    a, b, c, d, e = one, one, one, one, one
    f, g, h, i, j = one, one, one, one, one
    divisor = simd.splat(values[0])
    for _ in range(steps):
        a, b, c, d, e = divisor / a, divisor / b, divisor / c, divisor / d, divisor / e
        f, g, h, i, j = divisor / f, divisor / g, divisor / h, divisor / i, divisor / j
    simd.store(values, 0, a + b + c + d + e + f + g + h + i + j)


@njit(**SERIAL)
def _exponentiate(steps, values):
    zero = simd.splat(np.float32(0))
    a, b, c, d, e = zero, zero, zero, zero, zero
    f, g, h, i, j = zero, zero, zero, zero, zero
    for _ in range(steps):
        a, b, c, d = simd.exp2(zero - a), simd.exp2(zero - b), simd.exp2(zero - c), simd.exp2(zero - d)
        e, f, g = simd.exp2(zero - e), simd.exp2(zero - f), simd.exp2(zero - g)
        h, i, j = simd.exp2(zero - h), simd.exp2(zero - i), simd.exp2(zero - j)
    simd.store(values, 0, a + b + c + d + e + f + g + h + i + j)


def vector_rates(steps: int = 300_000) -> dict[str, float]:
    """Operations on whole vectors a CPU-second, in registers: the best of five tries."""
    rates = {}
    for name, kernel in (("simple", _multiply_and_add), ("divisions", _divide), ("exponentials", _exponentiate)):
        values = np.full(BLOCK, 1.5, np.float32)
        kernel(1, values)  # Compiles it.
        best = math.inf
        for _ in range(5):
            start = time.process_time()
            kernel(steps, np.full(BLOCK, 1.5, np.float32))
            best = min(best, time.process_time() - start)
        rates[name] = CHAINS * steps / best
    return rates


@njit(**SERIAL)
def _count_blends(tile_start, members, records, tiles_x, pixel_ends, counts):
    """Vectors of pixels that blending and its gradient work on, and pixels in them that a Gaussian contributes to."""
    visited = np.empty(BLOCK, np.float32)
    for tile in range(tile_start.shape[0] - 1):
        ends, begin = pixel_ends[tile], tile_start[tile]
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        for position in range(tile_start[tile + 1] - begin):
            record = records[members[begin + position]]
            todo = blocks_of(blending.reached_chunks(record, x0, y0))
            while todo != 0:
                chunk = lanes.lanes.trailing_zeros(todo)
                todo &= todo - 1
                first = chunk * CHUNK
                last_end = ends[first : first + BLOCK].max()
                counts[0] += PARTS if position <= last_end else 0
                counts[1] += PARTS if position < last_end else 0
                for part in range(PARTS):
                    _, _, alpha = blending.falloff(blending.footprint(record, x0, y0, part), chunk)
                    simd.store(visited, part * simd.LANES, alpha)
                for lane in range(BLOCK):
                    counts[2] += visited[lane] >= ALPHA_MIN and position < ends[first + lane]


def count_blends(scene: BenchScene) -> tuple[float, float, float]:
    """Vectors blended forward and backward, and pairs of a pixel and a Gaussian in it: means over the cameras."""
    counts = np.zeros(3, np.int64)
    model = scene.model.detach()
    for camera in scene.cameras:
        _, frame = cpu.render_frame(camera, model, scene.background, sh_degree=model.sh_degree)
        tiles_x = -(-camera.width // TILE)
        _count_blends(frame.tile_start, frame.members, frame.records, tiles_x, frame.pixel_ends, counts)
    forward, backward, pairs = (counts / len(scene.cameras)).tolist()
    return forward, backward, pairs


def floor_ms(vectors: float, operations: Operations, rates: dict[str, float]) -> float:
    """CPU-ms that the arithmetic alone takes."""
    seconds = sum(getattr(operations, name) / rate for name, rate in rates.items())
    return 1e3 * vectors * seconds


def page_faults() -> int | None:
    """Pages that the process has been given so far; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _adam(model: GaussianModel) -> torch.optim.Adam:
    return torch.optim.Adam([tensor for _, tensor in model.named_parameters()], lr=1e-5, fused=True)


def time_ours(scene: BenchScene, repetitions: int) -> dict[str, float | None]:
    """Medians of the passes one by one, then of a bare step."""
    watch, optimizer = Stopwatch(), _adam(scene.model)
    faults: list[int] = []
    for repetition in tqdm(range(repetitions + 1), desc="ours", leave=False):
        if repetition == 1:
            watch.forget()
            faults.clear()
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

        with stages_timed(watch):
            image = watch.time("forward", forward)
            d_image = torch.randn_like(image)
            watch.time("backward", lambda image=image, d_image=d_image: image.backward(d_image))
        optimizer.zero_grad(set_to_none=True)
        leaf = image.detach().requires_grad_()
        watch.time("ssim", lambda leaf=leaf, similarity=similarity: similarity(leaf))
        before = page_faults()
        watch.time("bare_step", step)
        after = page_faults()
        if before is not None and after is not None:
            faults.append(after - before)
    passes = ("forward", "backward", "ssim", "bare_step")
    return {
        **{f"{name}_cpu_ms": watch.cpu(name) for name in (*passes, *STAGES)},
        **{f"{name}_wall_ms": watch.wall(name) for name in passes},
        "bare_step_page_faults": statistics.median(faults) if faults else None,
    }


@contextmanager
def stages_timed(watch: Stopwatch) -> Iterator[None]:
    """Time each kernel of :data:`STAGES` that is called within."""
    kernels = {name: getattr(module, attribute) for name, (module, attribute) in STAGES.items()}
    try:
        for name, (module, attribute) in STAGES.items():
            timed = lambda *arguments, name=name: watch.time(name, lambda: kernels[name](*arguments))  # noqa: E731
            setattr(module, attribute, timed)
        yield
    finally:
        for name, (module, attribute) in STAGES.items():
            setattr(module, attribute, kernels[name])


def time_training(scene: BenchScene, repetitions: int) -> dict[str, float]:
    """Medians of an iteration of fine-tuning with the grid and rate of the default recipe and with neither, in turns of
    which the first iteration is not counted."""
    recipes = {"step": Recipe(), "ply_step": replace(Recipe(), codec="ply", rate_weight=0.0, sh_rest_penalty=0.0)}
    turns = min(TURNS, repetitions)
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in recipes}
    for turn in range(turns):
        iterations = repetitions // turns + (turn < repetitions % turns)
        for name, recipe in recipes.items():
            seconds[name].append(time_iterations(scene, recipe, iterations, f"{name}, turn {turn + 1}"))
    figures = {}
    for name, of_turns in seconds.items():
        cpu_seconds, wall_seconds = np.median(np.concatenate(of_turns), axis=0).tolist()
        figures |= {f"{name}_cpu_ms": 1e3 * cpu_seconds, f"{name}_wall_ms": 1e3 * wall_seconds}
    return {**figures, "step_over_ply_step": figures["step_cpu_ms"] / figures["ply_step_cpu_ms"]}


def time_iterations(scene: BenchScene, recipe: Recipe, iterations: int, name: str) -> np.ndarray:
    """``(iterations, 2)`` CPU and wall seconds of iterations of fine-tuning, after a first one."""
    targets = {camera.name: target for camera, target in zip(scene.cameras, scene.targets, strict=True)}
    views = Views(scene.cameras, lambda camera: targets[camera.name], scene.background, extent=1.0, backend="cpu")
    ticks: list[tuple[float, float]] = []
    with tqdm(total=iterations + 1, desc=name, leave=False) as bar:

        def tick(_loss: float | None) -> None:
            ticks.append((time.process_time(), time.perf_counter()))
            bar.update()

        finetune(scene.model.detach(), recipe.make_codec(), views, recipe, iterations + 1, (0,), tick)
    return np.diff(np.array(ticks), axis=0)


def time_peer(scene: BenchScene, repetitions: int) -> float | None:
    """CPU-ms of a bare step with the peer's renderer, or ``None`` where it is not installed."""
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


def split_to(model: GaussianModel, count: int) -> GaussianModel:
    """The Gaussians split in two, all of them as often as it goes and then the first ones, until they are so many."""
    while len(model) < count:
        split = min(len(model), count - len(model))
        rows = torch.arange(len(model))
        model = Change(kept=rows[split:], split=rows[:split]).apply(model)
    return model


def resized(camera: Camera, width: int, height: int) -> Camera:
    """The same view in a picture of another size, as wide as before, with the axis in its middle."""
    zoom = width / camera.width
    return replace(
        camera, width=width, height=height, fx=zoom * camera.fx, fy=zoom * camera.fy, cx=width / 2, cy=height / 2
    )


def make_scene(name: str) -> BenchScene | None:
    """A random scene, or one of the demo's from eight of its cameras; ``None`` where that is not there."""
    if name in RANDOM_SCENES:
        model, camera, background = random_scene(*RANDOM_SCENES[name])
        return BenchScene.of(model, [camera], background)
    if not DEMO.is_dir():
        say(f"{DEMO}: there is no such folder, so the demo scene is left out")
        return None
    model, _ = model_dir.load_checkpoint(DEMO)
    cameras = model_dir.read_cameras(DEMO)
    cameras = cameras[:: max(1, len(cameras) // 8)][:8]
    if name == "dense":
        count, width, height = DENSE
        model, cameras = split_to(model, count), [resized(camera, width, height) for camera in cameras]
    return BenchScene.of(model, cameras, torch.zeros(3))


def digits(key: str) -> str:
    """How a figure is printed."""
    return ".2f" if key == "step_over_ply_step" else ".1f"


def bench(options: Options) -> dict[str, Any]:
    """All scenes; prints a table."""
    results: dict[str, dict[str, float | None]] = {}
    rows, stage_rows = [], []
    rates = vector_rates()
    for name in options.scenes:
        scene = make_scene(name)
        if scene is None:
            continue
        ours = {**time_ours(scene, options.repetitions), **time_training(scene, options.repetitions)}
        forward, backward, pairs = count_blends(scene)
        peer_repetitions = options.peer_repetitions if name in PEER_SCENES else 0
        peer = time_peer(scene, peer_repetitions) if peer_repetitions else None
        step = ours["bare_step_cpu_ms"]
        result = {
            **ours,
            "forward_floor_cpu_ms": floor_ms(forward, FORWARD, rates),
            "backward_floor_cpu_ms": floor_ms(backward, BACKWARD, rates),
            "vectors_forward": forward,
            "vectors_backward": backward,
            "blends": pairs,
            "peer_step_cpu_ms": peer,
            "ratio": None if peer is None or step is None else peer / step,
        }
        results[name] = result
        camera = scene.cameras[0]
        of_scene = [name, f"{len(scene.model):,}", f"{camera.width}x{camera.height}"]
        rows.append(
            of_scene + [cell(result[key], digits(key)) for key in COLUMNS.values()] + [cell(result["ratio"], ".0f")]
        )
        stage_rows.append([name] + [cell(result[f"{stage}_cpu_ms"], ".1f") for stage in STAGES])
    say(f"{cpu.DESCRIPTION}; CPU-ms and wall-ms, medians; {options.threads} thread(s)")
    say(format_table(["scene", "Gaussians", "pixels", *COLUMNS, "ratio"], rows))
    say(format_table(["scene", *STAGES], stage_rows))
    million = {name: f"{rate / 1e6:,.0f}" for name, rate in rates.items()}
    say(
        f"millions of vectors of {simd.LANES} a CPU-second: {million['simple']} multiplications with additions, "
        f"{million['divisions']} divisions, {million['exponentials']} exponentials"
    )
    without_peer = [name for name in PEER_SCENES if name in results and results[name]["peer_step_cpu_ms"] is None]
    if without_peer and options.peer_repetitions:
        say("the peer is left out; install it with: pip install -r requirements-bench.txt")
    return {
        "threads": options.threads,
        "lanes": cpu.DESCRIPTION,
        "vectors_per_second": rates,
        "scenes": results,
    }


def bench_against(options: Options, other: Path) -> dict[str, Any]:
    """This checkout and another one in turns; prints a table of both and of how many times as fast this one is."""
    runs: dict[str, list[dict[str, Any]]] = {"there": [], "here": []}
    for _ in tqdm(range(options.rounds), desc="rounds"):
        for place, root in (("there", other), ("here", ROOT)):
            runs[place].append(_bench_checkout(options, root.resolve()))
    names = ["forward", "backward", *STAGES, "bare_step", "step", "ply_step"]
    results: dict[str, Any] = {place: {} for place in runs}
    rows = []
    for scene in runs["here"][0]:
        for place, measured in runs.items():
            results[place][scene] = {
                name: statistics.median(run[scene][f"{name}_cpu_ms"] for run in measured) for name in names
            }
        there, here = results["there"][scene], results["here"][scene]
        for name in names:
            figures = [there[name], here[name], there[name] / here[name]]
            rows.append([scene, name.replace("_", " "), *(f"{x:.1f}" for x in figures[:2]), f"{figures[2]:.2f}"])
        for of_place in (there, here):
            of_place["step_over_ply_step"] = of_place["step"] / of_place["ply_step"]
        rows.append([scene, "step / ply step", *(f"{x['step_over_ply_step']:.2f}" for x in (there, here)), ""])
    say(f"CPU-ms, medians; {options.rounds} turns of {options.repetitions}; {options.threads} thread(s)")
    say(format_table(["scene", "", f"{other}", "here", "times as fast"], rows))
    return {"threads": options.threads, **results}


def _bench_checkout(options: Options, root: Path) -> dict[str, Any]:
    """The scenes' figures with the packages of a checkout, by this script."""
    with tempfile.TemporaryDirectory() as folder:
        script, figures = Path(folder) / Path(__file__).name, Path(folder) / "figures.json"
        shutil.copy(__file__, script)
        (Path(folder) / "_root.py").write_text(
            f"import sys\nfrom pathlib import Path\n\nROOT = Path({str(root)!r})\nsys.path.insert(0, str(ROOT))\n"
            "\n\ndef watch():\n    pass\n"
        )
        command = [sys.executable, str(script), "--json", str(figures), "--peer-repetitions", "0"]
        command += ["--threads", str(options.threads), "--repetitions", str(options.repetitions)]
        subprocess.run([*command, "--scenes", *options.scenes], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        return json.loads(figures.read_text())["scenes"]


def measure_count(count: int) -> dict[str, float]:
    """Forward time and peak memory of this process at one number of Gaussians."""
    width, height = SCALING_SIZE
    model, camera, background = random_scene(count, width, height)
    small, small_camera, _ = random_scene(1, 16, 16)
    watch = Stopwatch()
    with torch.no_grad():
        render(small_camera, small, background, backend="cpu")  # Loads the compiled kernels.
        for _ in range(SCALING_REPETITIONS):
            watch.time("forward", lambda: render(camera, model, background, backend="cpu"))
    return {
        "gaussians": count,
        "forward_cpu_ms": watch.cpu("forward"),
        "forward_wall_ms": watch.wall("forward"),
        "peak_mb": peak_mb(),
        "model_mb": count * 59 * 4 / 1e6,
    }


def peak_mb() -> float:
    """The most memory that this process has had."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure_memory(count: int, iterations: int = 3) -> dict[str, float]:
    """Peak memory, in MB, after each part of a stage of a run, at one number of Gaussians."""
    demo, _ = model_dir.load_checkpoint(DEMO)
    model = split_to(demo, count)
    cameras = [resized(camera, *SCALING_SIZE) for camera in model_dir.read_cameras(DEMO)[:2]]
    background, recipe = torch.zeros(3), Recipe()
    images = {camera.name: render(camera, model, background, backend="cpu").image for camera in cameras}
    peaks = {"gaussians": count, "model": count * 59 * 4 / 1e6, "before": peak_mb()}
    ready = {name: SSIMTarget.of(image) for name, image in images.items()}
    views = Views(cameras, lambda camera: ready[camera.name], background, extent=1.0, backend="cpu")
    model, grid = finetune(model, recipe.make_codec(), views, recipe, iterations, (0,))
    peaks["fine-tuned"] = peak_mb()
    data = grid.encode(model)
    peaks["encoded"] = peak_mb()
    registry.decode(data, "model")
    peaks["decoded"] = peak_mb()
    importance.removal_error(model, replace(views, target=lambda camera: images[camera.name]))
    peaks["scored"] = peak_mb()
    return peaks


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
    if options.memory_count is not None:
        print(json.dumps(measure_memory(options.memory_count)))
        return
    if options.against is not None:
        results = bench_against(options, options.against)
    else:
        results = bench_scaling(options) if options.scaling else bench(options)
    if options.json is not None:
        write_text(options.json, json.dumps(results, indent=2) + "\n")
        say(f"wrote {options.json}")


if __name__ == "__main__":
    cli.run(main)
