"""Check and measure everything that runs on a GPU: one command, no internet, at most eight minutes on an H200.

    python scripts/gpu_check.py                        # writes docs/benchmarks_gpu.json and .md
    python scripts/gpu_check.py --quick                # the same with less of everything, to see that it works
    python scripts/gpu_check.py --device cpu --quick   # the harness itself, where there is no GPU

Each part runs in a process of its own with a limit of its own, so that one that fails or hangs costs the others
nothing; what it had measured until then is kept. The first run on a machine compiles the kernels of gsplat and Warp,
which comes on top; on a machine of few cores that can take an hour, and of little memory it needs MAX_JOBS=2. The exit
code is 0 only if every part went well. Without a GPU the program ends at once and writes nothing.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from _root import ROOT
from torch import Tensor

from compress.finetune import finetune
from compress.importance import gradient_sum
from compress.judging import Judge
from compress.prune import prune
from compress.recipe import Recipe
from compress.views import Views
from gaussian_renderer import choose_backend, render, render_statistics
from gaussian_renderer.choice import CUDA_BACKENDS
from gsz import registry
from gsz.errors import UserError
from gsz.files import write_text
from quality.losses import photometric_loss
from quality.ssim import SSIMTarget
from scene import model_dir, open_scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from utils import cli
from utils.adam import adam
from utils.cli import say
from utils.tables import format_table

DEMO = ROOT / "demo" / "snowmiku"

FLOATS = 59
"""Parameters of a Gaussian with spherical harmonics of degree 3."""

PASSES = {"render": 1, "step": 10, "score": 6}
"""How often the parameters of all Gaussians must cross the memory bus at least, gradients and moments counted alike.

Rendering reads them. A backward pass reads them again and writes gradients. A step of Adam reads parameters, gradients
and two moments and writes all but the gradients; a score reads its sum and the gradients and writes the sum.
"""

IMAGES = {"render": 1, "step": 5, "score": 5}
"""The same for the image: written; with a loss also read beside the target, and its gradient written and read."""


@dataclass
class Options:
    """Check and measure everything that runs on a GPU."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu proves the harness where there is no GPU; its figures say nothing about one."""
    quick: bool = False
    """Less of everything."""
    output: Path | None = None
    """JSON file to write; the table goes beside it as .md. By default docs/benchmarks_gpu.json, or
    output/gpu_check_cpu.json for --device cpu."""
    parts: tuple[str, ...] = ()
    """Only these parts: machine, prepare, tests, speed, demo, schedule. By default all."""
    counts: tuple[int, ...] = ()
    """Numbers of random Gaussians to time. By default 100,000, 1,000,000 and 3,000,000."""
    size: tuple[int, int] = (0, 0)
    """Width and height to time at. By default 1600 1064."""
    child: Annotated[str, tyro.conf.arg(help="for the program's own use")] = ""

    def filled(self) -> Options:
        """With all defaults chosen."""
        small = self.quick or self.device == "cpu"
        name = "docs/benchmarks_gpu.json" if self.device == "cuda" else "output/gpu_check_cpu.json"
        if self.device == "cpu":
            counts, size = (1000, 3000), (160, 106)
        else:
            counts, size = (100_000, 1_000_000, 3_000_000), (1600, 1064)
        return replace(
            self,
            quick=small,
            output=self.output or ROOT / name,
            counts=self.counts or (counts[:2] if small else counts),
            size=self.size if min(self.size) > 0 else size,
        )

    @property
    def backends(self) -> tuple[str, ...]:
        return CUDA_BACKENDS if self.device == "cuda" else ("cpu",)


class Record:
    """What a part has found so far, on disk after every finding.

    Attributes:
        found: A JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}

    def add(self, **findings: Any) -> None:
        self.found.update(findings)
        write_text(self.path, json.dumps(self.found))


def finish(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(function: Callable[[], object], device: torch.device, limit: float, most: int = 50) -> float:
    """Median of repeated runs, each until its result is there, for about ``limit`` seconds; three runs warm up."""
    for _ in range(3):
        function()
    taken: list[float] = []
    ends = time.perf_counter() + limit
    while len(taken) < 3 or (len(taken) < most and time.perf_counter() < ends):
        finish(device)
        started = time.perf_counter()
        function()
        finish(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


# --- machine ---------------------------------------------------------------------------------------------------------


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second, read and written, of copying ``size`` bytes on the device."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device, 1.0)


def check_machine(options: Options, record: Record) -> None:
    """Which device, which versions, and how fast it copies."""
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if options.device == "cuda" else platform.processor() or "CPU"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for package in ("gsplat", "diff_gaussian_rasterization", "warp-lang", "fused_ssim"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    record.add(device=name, versions=versions)
    record.add(copy_bytes_per_second=copy_bandwidth(device, (1 << 30) if options.device == "cuda" else (1 << 26)))


def prepare_backends(options: Options, record: Record) -> None:
    """Load every backend, and with it compile what is not compiled yet."""
    for name in options.backends:
        started = time.perf_counter()
        try:
            backend = choose_backend(name)
        except UserError as error:
            record.add(**{name: {"missing": str(error)}})
            continue
        splats, camera = random_splats(100, backend.device), wide_camera(64, 48)
        render(camera, splats, torch.zeros(3, device=backend.device), backend=name)
        finish(backend.device)
        record.add(**{name: {"ready_seconds": time.perf_counter() - started, "description": backend.description}})
    if not any("ready_seconds" in record.found[name] for name in options.backends):
        raise UserError("no backend works: " + "; ".join(record.found[name]["missing"] for name in options.backends))


# --- tests -----------------------------------------------------------------------------------------------------------


def run_tests(options: Options, record: Record) -> None:
    """The tests that need a GPU. Without one they skip, each with its reason."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", f"--junitxml={report}"]
        if options.quick:
            command += ["tests/gaussian_renderer"]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise UserError(f"pytest did not run: {last_line(finished.stderr or finished.stdout)}")
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    bad = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    record.add(passed=passed, skipped=counts["skipped"], failed=bad)
    if bad:
        raise UserError(f"{len(bad)} tests fail, the first is {bad[0]}")


# --- speed -----------------------------------------------------------------------------------------------------------


def wide_camera(width: int, height: int) -> Camera:
    """At the origin, looking along z, with a field of view of 60 degrees across."""
    focal = width / (2 * np.tan(np.radians(30)))
    return Camera("timing", width, height, focal, focal, width / 2, height / 2, np.eye(4))


def random_splats(count: int, device: torch.device | str = "cpu", seed: int = 0) -> GaussianModel:
    """Gaussians of degree 3 evenly in a frustum from 2 to 10 units in front of :func:`wide_camera`, all in view.

    They are as dense as in a trained model: a third as wide as their neighbors are apart, 30 % around that.
    """
    random = np.random.default_rng(seed)
    near, far = 2.0, 10.0
    depth = np.cbrt(random.uniform(near**3, far**3, count))
    across, along = np.tan(np.radians(30)) * 0.95, np.tan(np.radians(20)) * 0.95
    means = np.stack(
        [random.uniform(-across, across, count) * depth, random.uniform(-along, along, count) * depth, depth]
    )
    spacing = np.cbrt(4 * across * along * (far**3 - near**3) / 3 / count)
    return GaussianModel.from_arrays(
        means=means.T,
        log_scales=random.normal(np.log(spacing / 3), 0.3, (count, 3)),
        quaternions=random.normal(0, 1, (count, 4)),
        opacity_logits=random.normal(0, 2, (count, 1)),
        sh_dc=random.normal(0, 1, (count, 1, 3)),
        sh_rest=random.normal(0, 0.1, (count, 15, 3)),
    ).to(device)


def floor_seconds(job: str, count: int, pixels: int, bandwidth: float) -> float:
    """What the job's bytes take at the bandwidth, if each crosses the bus as rarely as it can; see ``PASSES``."""
    return (PASSES[job] * FLOATS * 4 * count + IMAGES[job] * 12 * pixels) / bandwidth


def time_backend(options: Options, record: Record) -> None:
    """Milliseconds of render, step and score pass, and the floor, for each number of Gaussians."""
    try:
        backend = choose_backend(options.child.partition(":")[2])
    except UserError as error:
        record.add(missing=str(error))
        return
    device = backend.device
    width, height = options.size
    bandwidth = copy_bandwidth(device, (1 << 30) if device.type == "cuda" else (1 << 26))
    record.add(backend=backend.name, size=[width, height], copy_bytes_per_second=bandwidth, rows=[])
    limit = 0.3 if options.quick else 2.0
    for count in options.counts:
        row = {"gaussians": count, **time_jobs(backend.name, count, width, height, device, limit)}
        for job in PASSES:
            row[f"{job}_floor_ms"] = 1e3 * floor_seconds(job, count, width * height, bandwidth)
        record.add(rows=[*record.found["rows"], row])


def time_jobs(backend: str, count: int, width: int, height: int, device: torch.device, limit: float) -> dict[str, Any]:
    """Milliseconds of each job, the share of Gaussians in view, and the device's peak memory in bytes.

    ``statistics_ms``, of what the default recipe scores by, is there for the backends that measure it.
    """
    camera, background = wide_camera(width, height), torch.zeros(3, device=device)
    splats = random_splats(count, device).requires_grad_()
    target = SSIMTarget.of(torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)).to(device))
    # The rates are too small to change the picture over the measurement, which the arithmetic does not see.
    groups = [{"params": [tensor], "lr": 1e-12} for _, tensor in splats.named_parameters()]
    optimizer = adam(groups)

    def backward() -> None:
        photometric_loss(render(camera, splats, background, backend=backend).image, target).backward()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> Tensor:
        return render(camera, splats, background, backend=backend).radii

    def statistics_of_view() -> object:
        return render_statistics(camera, splats, background, backend=backend)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    jobs: dict[str, Callable[[], object]] = {"render": forward, "score": backward, "step": step}
    if statistics_of_view() is not None:
        jobs["statistics"] = statistics_of_view
    found: dict[str, Any] = {f"{job}_ms": 1e3 * median_seconds(run, device, limit) for job, run in jobs.items()}
    found["in_view"] = float((forward() > 0).float().mean())
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


# --- the method ------------------------------------------------------------------------------------------------------


def compress_demo(options: Options, record: Record) -> None:
    """The shipped scene, compressed with the published schedule."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(ROOT / "train.py"), "--config", str(ROOT / "configs" / "fast3dgs.yaml")),
            *("-s", str(DEMO), "-i", "images_400", "--eval", "--pretrained_dir", str(DEMO / "pretrained")),
            *("-m", folder, "--data_device", options.device),
            *("--backend", "auto" if options.device == "cuda" else "cpu"),
        ]
        if options.quick:
            command += ["--first_iterations", "5", "--round_iterations", "5", "--final_iterations", "5"]
            command += ["--max_rounds", "2", "-r", "8"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None:
                    time.sleep(0.5)
                    record_journal(Path(folder), record)
            finally:
                process.kill()
            output, errors = process.communicate()
        if process.returncode:
            raise UserError(f"train.py: {last_line(errors or output)}")
        record_journal(Path(folder), record)
        renderer = next((line for line in output.splitlines() if line.startswith("renderer: ")), "")
        size = sum(path.stat().st_size for path in Path(folder).glob("compressed.*"))
        record.add(seconds=time.perf_counter() - started, renderer=renderer.removeprefix("renderer: "), bytes=size)


def record_journal(folder: Path, record: Record) -> None:
    """Keep how far a run has come: its first and its latest row, and how many there are."""
    path = folder / "journal.csv"
    if path.exists():
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        if rows and len(rows) != record.found.get("stages"):
            record.add(stages=len(rows), first_row=rows[0], last_row=rows[-1])


def compare_schedules(options: Options, record: Record) -> None:
    """Seconds of one round on the shipped scene: ours, on the published grid and our own, and a plain loop."""
    backend = choose_backend("auto" if options.device == "cuda" else "cpu")
    scene = open_scene(
        SceneOptions(
            DEMO, images="images_400", eval=True, resolution=8 if options.quick else -1, data_device=options.device
        ),
        device=backend.device,
    )
    iterations, repeats = (3, 1) if options.quick else (500, 2)
    recipe, native = Recipe.from_yaml(ROOT / "configs" / "fast3dgs.yaml"), Recipe()
    training = Views.of(scene, scene.train[:4] if options.quick else scene.train, backend.name)
    splats = model_dir.load_checkpoint(DEMO / "pretrained")[0].to(backend.device)
    record.add(backend=backend.name, gaussians=len(splats), iterations=iterations)
    test = Judge(training.at(scene.test[:2] if options.quick else scene.test))
    validation = Judge(training.at(scene.validation))
    rounds = {
        "plain": lambda: plain_round(splats, training, test, recipe, iterations),
        "ours": lambda: our_round(splats, training, validation, recipe, iterations),
        # On the grid of gsz, whose steps are learned as in a final stage.
        "native": lambda: our_round(splats, training, validation, native, iterations, learning=4 * iterations // 5),
    }
    for name, run in rounds.items():
        seconds, parts, model = [], {}, splats
        for _ in range(repeats + 1):
            finish(backend.device)
            started = time.perf_counter()
            model, parts = run()
            finish(backend.device)
            seconds.append(time.perf_counter() - started)
        # The first one warms up.
        psnr = test.evaluate(model).psnr
        record.add(**{name: {"seconds": statistics.median(seconds[1:]), "test_psnr": psnr, "seconds_of": parts}})


def our_round(
    splats: GaussianModel, training: Views, validation: Judge, recipe: Recipe, iterations: int, learning: int = 0
) -> tuple[GaussianModel, dict[str, float]]:
    """Score, prune, fine-tune, encode, and judge what was decoded on the validation views, as ``train.py`` does.

    The grid's steps are learned in the first ``learning`` iterations.
    """
    codec, clock = recipe.make_codec(), Clock(splats.device)
    snapped = codec.fit(splats).snap(splats).detach()
    pruned = prune(splats, gradient_sum(snapped, training).gaussians, int(recipe.prune_fraction * len(splats)))
    clock.mark("score")
    tuned, grid = finetune(pruned, codec, training, recipe, iterations, (0,), learning=learning)
    clock.mark("finetune")
    data = grid.encode(tuned)
    clock.mark("encode")
    decoded = GaussianModel.of(registry.decode(data, "round"))
    validation.evaluate(decoded)
    clock.mark("evaluate")
    return decoded, clock.seconds


def plain_round(
    splats: GaussianModel, training: Views, test: Judge, recipe: Recipe, iterations: int
) -> tuple[GaussianModel, dict[str, float]]:
    """The same round as plain programs write it: unfused dense Adam, the loss read in every iteration, all test views
    evaluated before and after, nothing encoded."""
    codec, clock = recipe.make_codec(), Clock(splats.device)
    snapped = codec.fit(splats).snap(splats).detach()
    pruned = prune(splats, gradient_sum(snapped, training).gaussians, int(recipe.prune_fraction * len(splats)))
    clock.mark("score")
    test.evaluate(pruned)
    clock.mark("evaluate_before")
    pruned = pruned.requires_grad_()
    grid = codec.fit(pruned)
    rates = recipe.learning_rates(training.extent)
    groups = [{"params": [tensor], "lr": rates[name]} for name, tensor in pruned.named_parameters()]
    optimizer = adam(groups)
    for _, camera in zip(range(iterations), training.shuffled((0,)), strict=False):
        grid.observe(pruned)
        shown = grid.snap(pruned)
        loss = photometric_loss(training.render(camera, shown).image, training.target(camera), recipe.dssim_weight)
        loss = loss + recipe.sh_rest_penalty * shown.sh_rest.abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    clock.mark("finetune")
    tuned = grid.snap(pruned).detach()
    test.evaluate(tuned)
    clock.mark("evaluate_after")
    return tuned, clock.seconds


class Clock:
    """Seconds between marks.

    Attributes:
        seconds: By the name of the mark that ends them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        finish(self.device)
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


# --- all of it -------------------------------------------------------------------------------------------------------

Part = Callable[[Options, Record], None]
PARTS: dict[str, tuple[Part, int]] = {
    "machine": (check_machine, 25),
    "prepare": (prepare_backends, 7200),
    "tests": (run_tests, 90),
    "speed": (time_backend, 40),
    "demo": (compress_demo, 180),
    "schedule": (compare_schedules, 60),
}
"""Each part with its limit in seconds; ``speed`` has it for each backend. All but ``prepare`` make 475.

``prepare`` takes seconds once everything is compiled. One file of gsplat has taken 14 minutes on two slow cores.
"""

CPU_LIMIT = 600
"""Seconds for any part where it is only the harness that is checked."""


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")


def failure_of(command: list[str], limit: float) -> str | None:
    """Run a command for at most ``limit`` seconds. Returns what it failed of, or ``None``.

    With a command that is cut short all the processes end that it has started.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"not done after {limit} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return last_line(errors or output) if process.returncode else None


def run_part(name: str, options: Options) -> dict[str, Any]:
    """Run a part in a process of its own. Returns what it found, with ``seconds`` and, if it failed, ``failure``."""
    limit = CPU_LIMIT if options.device == "cpu" else PARTS[name.partition(":")[0]][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--child", name, "--device", options.device, "--output", str(path)]
        command += ["--counts", *map(str, options.counts), "--size", *map(str, options.size)]
        command += ["--quick"] if options.quick else []
        say(f"{name} ...")
        started = time.perf_counter()
        failure = failure_of(command, limit)
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found["part_seconds"] = time.perf_counter() - started
    if failure:
        found["failure"] = failure.removeprefix("error: ")
    say(f"{name}: {found['part_seconds']:.0f} s{', FAILED: ' + found['failure'] if failure else ''}")
    return found


def run_all(options: Options) -> dict[str, Any]:
    """Run the parts asked for; the report is on disk after each."""
    assert options.output is not None
    wanted = options.parts or tuple(PARTS)
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise UserError(f"--parts {unknown[0]}: no such part; choose from {', '.join(PARTS)}")
    report: dict[str, Any] = {"device": options.device, "quick": options.quick, "parts": {}}
    for name in PARTS:
        if name not in wanted:
            continue
        for part in [f"speed:{backend}" for backend in options.backends] if name == "speed" else [name]:
            report["parts"][part] = run_part(part, options)
            write_text(options.output, json.dumps(report, indent=1) + "\n")
            write_text(options.output.with_suffix(".md"), describe(report))
    return report


def describe(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    parts = report["parts"]
    machine = parts.get("machine", {})
    lines = [f"# GPU check: {machine.get('device', 'unknown device')}", ""]
    if report["device"] == "cpu":
        lines += ["Made with `--device cpu`, to check the harness. No figure here is of a GPU.", ""]
    if report["quick"]:
        lines += ["Made with `--quick`: fewer sizes, iterations and repeats.", ""]
    if "copy_bytes_per_second" in machine:
        lines += [f"Copy bandwidth, read and written: {machine['copy_bytes_per_second'] / 1e9:.0f} GB/s.", ""]
    lines += [f"- {name}: {value or 'not installed'}" for name, value in machine.get("versions", {}).items()]
    outcome = [[name, f"{found['part_seconds']:.0f}"] for name, found in parts.items()]
    lines += ["", format_table(["part", "seconds"], outcome, "markdown"), ""]
    lines += [f"- {name} FAILED: {found['failure']}" for name, found in parts.items() if "failure" in found]
    lines += [f"- {name} not run: {found['missing']}" for name, found in parts.items() if "missing" in found]
    lines += [""] if lines[-1] else []
    if "passed" in parts.get("tests", {}):
        found = parts["tests"]
        lines += [f"Tests: {found['passed']} passed, {found['skipped']} skipped, {len(found['failed'])} failed.", ""]
    rows = [speed_row(found, row) for found in parts.values() for row in found.get("rows", [])]
    if rows:
        header = [
            "backend",
            "size",
            "Gaussians",
            "in view",
            "render ms",
            "floor",
            "step ms",
            "floor",
            "score ms",
            "floor",
            "statistics ms",
        ]
        lines += [format_table(header, rows, "markdown"), "", FLOOR_NOTE, ""]
    lines += describe_demo(parts.get("demo", {})) + describe_schedules(parts.get("schedule", {}))
    return "\n".join(lines)


FLOOR_NOTE = (
    "Floors are bytes over copy bandwidth measured in the same process: "
    + ", ".join(f"{job} {PASSES[job]} x 236 B a Gaussian and {IMAGES[job]} x 12 B a pixel" for job in PASSES)
    + ". What sorting and blending move comes on top of them. A score is one view of `gradient_sum`; statistics are"
    " what the default recipe scores a view by, where the backend measures it."
)


def speed_row(found: dict[str, Any], row: dict[str, Any]) -> list[str]:
    times = [f"{row[f'{job}_{kind}']:.2f}" for job in ("render", "step", "score") for kind in ("ms", "floor_ms")]
    return [
        found["backend"],
        "x".join(map(str, found["size"])),
        f"{row['gaussians']:,}",
        f"{row['in_view']:.0%}",
        *times,
        f"{row['statistics_ms']:.2f}" if "statistics_ms" in row else "none",
    ]


def describe_demo(found: dict[str, Any]) -> list[str]:
    if "last_row" not in found:
        return []
    first, last = found["first_row"], found["last_row"]
    took = f"in {found['seconds']:.0f} s" if "seconds" in found else "which was not its end"
    before, after = (
        f"{int(row['gaussians']):,} Gaussians, {int(row['bytes']) / 1e6:.2f} MB, {float(row['psnr']):.2f} dB"
        for row in (first, last)
    )
    return [
        f"Demo scene, `configs/fast3dgs.yaml`: {before} before; {after} after {last['iteration']} iterations, {took} "
        "(validation views).",
        "",
    ]


def describe_schedules(found: dict[str, Any]) -> list[str]:
    names = [name for name in ("plain", "ours", "native") if name in found]
    if not names:
        return []
    rows = [[name, f"{found[name]['seconds']:.2f}", f"{found[name]['test_psnr']:.3f}"] for name in names]
    return [
        f"One round of {found['iterations']} iterations on the demo scene ({found['gaussians']:,} Gaussians, "
        f"{found['backend']} backend):",
        "",
        format_table(["round", "seconds", "test PSNR after it"], rows, "markdown"),
        "",
    ]


def main() -> None:
    options = tyro.cli(Options, use_underscores=True, config=(tyro.conf.FlagCreatePairsOff,)).filled()
    assert options.output is not None
    if options.child:
        record = Record(options.output)
        record.add()
        PARTS[options.child.partition(":")[0]][0](options, record)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no CUDA device; try --device cpu to check the harness alone")
    report = run_all(options)
    say("\n" + describe(report))
    say(f"wrote {options.output} and {options.output.with_suffix('.md')}")
    if any("failure" in found for found in report["parts"].values()):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
