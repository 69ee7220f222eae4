"""Measure every file format: bytes, time, errors, and with a scene the quality of what comes out of the file.

    python scripts/bench_codecs.py models/*/point_cloud/iteration_30000/point_cloud.ply --json codecs.json
    python scripts/bench_codecs.py garden.ply --codecs gsz gsz:quality=low fast3dgs -s data/garden -i images_4
    python scripts/bench_codecs.py garden.ply --codecs gsz spz --scaling     # speed and memory up to 4M Gaussians

Every codec of the registry that can write is fitted to the model as it is; nothing is fine-tuned. Settings may follow
a codec's name. Where other people's converters are at hand, the files they write are measured too: PlayCanvas'
``splat-transform`` on the PATH or in ``.interop``, and the package ``gaussforge``.
Times are processor seconds, after a first run that lets Numba compile; splat-transform's include the start of Node. The
table is Markdown.

With ``--scaling`` copies of the model, each slightly changed, are laid out side by side, until there are as many
Gaussians as are asked for. Peak memory is that of a process that does nothing else, less what it took before the model
(encoding) or the file (decoding) was read. The first decoding is that of a fresh process. "Again" is the median of five
more, whose memory the system has at hand; a virtual machine may have to ask its host for that of the first.
"""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from _root import ROOT
from torch import Tensor
from tqdm import tqdm

from gaussian_renderer import choose_backend
from gaussian_renderer import render as render_view
from gsz import registry
from gsz.errors import UserError
from gsz.files import write_text
from gsz.registry import Codec
from quality.metrics import measure
from quality.summary import ViewMetrics, mean_metrics
from scene import Scene, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from scene.rotations import rotation_matrices
from utils import cli
from utils.cli import say
from utils.tables import format_table

AGAIN = 5
"""How often a file is decoded again, with --scaling."""
WARM_UP = 3000
"""Gaussians that are encoded and decoded once before the clock runs."""

SPLAT_TRANSFORM = "splat-transform"
GAUSSFORGE = "gaussforge"

COLUMNS = {
    "means": "means",
    **dict.fromkeys(("log_scales", "scales"), "scales"),
    **dict.fromkeys(("quaternions", "rotations"), "rotations"),
    **dict.fromkeys(("opacity_logits", "opacities"), "opacity"),
    **dict.fromkeys(("sh_dc", "sh_dc and opacity_logits", "dc"), "DC"),
    **dict.fromkeys(("sh_rest", "sh"), "SH"),
}
"""Column of the table for each attribute; what has none is counted as ``other``."""


@dataclass
class Options:
    """Measure every file format: bytes, time, errors, quality."""

    models: tyro.conf.Positional[list[Path]]
    """Models in any format."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    json: Path | None = None
    """Write the results here."""
    codecs: list[str] = field(default_factory=list)
    """Codecs, each with settings if need be: gsz gsz:quality=low. By default all, and each quality of gsz."""
    limit: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Measure the first N Gaussians of each model only; 0 takes all."""
    peers: bool = True
    """Measure other people's converters where they are installed; splat-transform takes minutes for a SOG."""
    scaling: bool = False
    """Measure speed and peak memory at --counts, instead of errors and quality at the model's own."""
    counts: list[int] = field(default_factory=lambda: [100_000, 1_000_000, 4_000_000])
    """Numbers of Gaussians, with --scaling."""


@dataclass(frozen=True)
class Result:
    """One codec on one model; the keys of the JSON file.

    Attributes:
        by_attribute: bytes, where the format's header says.
        fit_s: processor seconds of choosing the grid; None for other programs' files, which encode with it.
        encode_s, decode_s: processor seconds.
        law_holds: whether the file decodes to what its grid's ``snap`` shows; None for other programs' files.
        max_error, mean_error: absolute errors of parameters, opacities after the sigmoid, log-scales sorted, and
            ``covariance`` relative to the covariance's norm.
    """

    bytes: int
    bytes_per_gaussian: float
    by_attribute: dict[str, int]
    fit_s: float | None
    encode_s: float
    decode_s: float
    encode_per_s: float
    decode_per_s: float
    law_holds: bool | None
    max_error: dict[str, float]
    mean_error: dict[str, float]
    test_psnr: float | None = None
    test_ssim: float | None = None


def default_codecs() -> list[str]:
    """All codecs that write, and the other qualities and grids of ``gsz``."""
    from gsz.native.settings import DEFAULT_QUALITY, QUALITIES

    others = [f"gsz:quality={quality}" for quality in QUALITIES if quality != DEFAULT_QUALITY]
    return [*registry.names(writable_only=True), *others, "gsz:grid=fast3dgs"]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its processor seconds."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def same_up_to_order(first: GaussianModel, second: GaussianModel) -> bool:
    """Whether both models have the same Gaussians, bit for bit."""

    def rows(model: GaussianModel) -> np.ndarray:
        table = np.concatenate([tensor.detach().flatten(1).numpy() for _, tensor in model.named_parameters()], axis=1)
        bits = np.ascontiguousarray(table).view(np.uint8)
        return np.sort(bits.view(f"V{bits.shape[1]}").reshape(-1)) if len(bits) else bits

    return len(first) == len(second) and np.array_equal(rows(first), rows(second))


def covariances(splats: GaussianModel) -> Tensor:
    """``(N, 3, 3)`` float64."""
    quaternions = torch.nn.functional.normalize(splats.quaternions.detach().double(), dim=1)
    rotations = torch.from_numpy(rotation_matrices(quaternions.numpy()))
    return rotations @ torch.diag_embed(torch.exp(2 * splats.log_scales.double())) @ rotations.transpose(1, 2)


def errors(original: GaussianModel, snapped: GaussianModel) -> dict[str, Tensor]:
    """Absolute errors by attribute, of models in the same order."""
    expected, actual = covariances(original), covariances(snapped)
    return {
        "means": (snapped.means - original.means).norm(dim=1),
        "log_scales": snapped.log_scales.sort(dim=1).values - original.log_scales.sort(dim=1).values,
        "opacities": snapped.opacities - original.opacities,
        "sh_dc": snapped.sh_dc - original.sh_dc,
        "sh_rest": snapped.sh_rest - original.sh_rest,
        "covariance": (actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp(min=1e-30),
    }


def summary(values: dict[str, Tensor], reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
    return {name: float(reduce(value.detach().abs())) for name, value in values.items() if value.numel()}


class Judge:
    """Renders the test views of a scene, where one is given."""

    def __init__(self, options: SceneOptions):
        self._scene: Scene | None = None
        if options.source_path is not None:
            options.eval = True
            self._scene = open_scene(options)
            self._backend = choose_backend()

    @torch.inference_mode()
    def quality(self, splats: GaussianModel) -> ViewMetrics | None:
        """Mean PSNR and SSIM over the test views."""
        if self._scene is None:
            return None
        on_device = splats.to(self._backend.device)
        black = self._scene.background.to(self._backend.device)
        views = [
            measure(
                render_view(camera, on_device, black, backend=self._backend.name).image.cpu(),
                self._scene.images.load(camera),
            )
            for camera in self._scene.test
        ]
        return mean_metrics(views)


def bench_codec(codec: Codec, splats: GaussianModel, judge: Judge) -> Result:
    """Fit, encode, decode and compare."""
    sample = splats.select(torch.arange(min(WARM_UP, len(splats))))
    codec.decode(codec.fit(sample).encode(sample))
    grid, fit_s = timed(lambda: codec.fit(splats))
    data, encode_s = timed(lambda: grid.encode(splats))
    arrays, decode_s = timed(lambda: codec.decode(data))
    decoded = GaussianModel.of(arrays)
    snapped = grid.snap(splats).detach()
    lossy = errors(splats, snapped)
    law_holds = same_up_to_order(decoded, snapped)
    return _result(data, codec, decoded, judge, encode_s, decode_s, fit_s=fit_s, law_holds=law_holds, lossy=lossy)


Writer = Callable[[Path], tuple[bytes, float]]
"""Makes a file of a PLY: its bytes, and the processor seconds it took."""


def peers() -> dict[str, Writer]:
    """Other people's converters that are installed, by the name of what they write."""
    found: dict[str, Writer] = {}
    program = shutil.which(SPLAT_TRANSFORM) or shutil.which(SPLAT_TRANSFORM, path=ROOT / ".interop/node_modules/.bin")
    if program is not None:
        for suffix in (".sog", ".spz"):
            found[SPLAT_TRANSFORM + suffix] = lambda path, suffix=suffix: _splat_transform(program, path, suffix)  # type: ignore[misc]
    if importlib.util.find_spec(GAUSSFORGE) is not None:
        found[f"{GAUSSFORGE}.spz"] = _gaussforge
    return found


def _splat_transform(program: str, path: Path, suffix: str) -> tuple[bytes, float]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"model{suffix}"
        before = _seconds_of_children()
        done = subprocess.run(
            [program, "-g", "cpu", str(path), str(target)], capture_output=True, text=True, check=False
        )
        if done.returncode or not target.exists():
            raise UserError(
                f"{path}: {SPLAT_TRANSFORM} failed ({done.stderr.strip().splitlines()[-1:]}); run it by hand"
            )
        return target.read_bytes(), _seconds_of_children() - before


def _seconds_of_children() -> float:
    import resource  # Not on Windows, where this is the only thing to fail.

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _gaussforge(path: Path) -> tuple[bytes, float]:
    from gaussforge import GaussForge

    data = path.read_bytes()
    answer, seconds = timed(lambda: GaussForge().convert(data, "ply", "spz"))
    if "data" not in answer:
        raise UserError(f"{path}: {GAUSSFORGE} failed ({answer.get('error')}); uninstall it to go on without")
    return bytes(answer["data"]), seconds


def bench_peer(write: Writer, path: Path, judge: Judge) -> Result:
    """The file that another program makes of a PLY. Its Gaussians are in another order, so errors are not compared."""
    data, encode_s = write(path)
    codec = registry.identify(data, "the converter's file")
    arrays, decode_s = timed(lambda: codec.decode(data))
    decoded = GaussianModel.of(arrays)
    return _result(data, codec, decoded, judge, encode_s, decode_s)


def _result(
    data: bytes,
    codec: Codec,
    decoded: GaussianModel,
    judge: Judge,
    encode_s: float,
    decode_s: float,
    *,
    fit_s: float | None = None,
    law_holds: bool | None = None,
    lossy: dict[str, Tensor] | None = None,
) -> Result:
    count = max(1, len(decoded))
    quality = judge.quality(decoded)
    return Result(
        bytes=len(data),
        bytes_per_gaussian=len(data) / count,
        by_attribute=codec.info(data).get("bytes", {}),
        fit_s=fit_s,
        encode_s=encode_s,
        decode_s=decode_s,
        encode_per_s=count / max(encode_s, 1e-9),
        decode_per_s=count / max(decode_s, 1e-9),
        law_holds=law_holds,
        max_error=summary(lossy or {}, torch.max),
        mean_error=summary(lossy or {}, torch.mean),
        test_psnr=quality.psnr if quality else None,
        test_ssim=quality.ssim if quality else None,
    )


def bench_model(path: Path, options: Options, judge: Judge) -> dict[str, Any]:
    """All codecs on one model: its entry in the JSON file. Prints the table as it goes."""
    splats = GaussianModel.of(registry.read(path))
    if options.limit:
        splats = splats.select(torch.arange(min(options.limit, len(splats))))
    entry: dict[str, Any] = {"count": len(splats), "sh_degree": splats.sh_degree}
    title = f"{path}: {len(splats):,} Gaussians, SH degree {splats.sh_degree}"
    if (original := judge.quality(splats)) is not None:
        entry |= {"test_psnr": original.psnr, "test_ssim": original.ssim}
        title += f", test PSNR {original.psnr:.3f} dB"
    jobs: dict[str, Callable[[], Result]] = {}
    for text in options.codecs or default_codecs():
        codec = registry.codec(text)
        jobs[text] = lambda codec=codec: bench_codec(codec, splats, judge)  # type: ignore[misc]
    if path.suffix == ".ply" and not options.limit and options.peers:
        for name, write in peers().items():
            jobs[name] = lambda write=write: bench_peer(write, path, judge)  # type: ignore[misc]
    say(f"\n{title}\n")
    columns = [*dict.fromkeys(COLUMNS.values()), "other"]
    say(f"| codec | MB | B/G | {' | '.join(columns)} | fit s | encode M/s | decode M/s | law | test PSNR |")
    say(f"|---|{'---:|' * (len(columns) + 7)}")
    results = {}
    for name, job in jobs.items():
        results[name] = asdict(job())
        say(table_row(name, Result(**results[name]), len(splats), columns))
    return {**entry, "codecs": results}


def table_row(name: str, result: Result, count: int, columns: list[str]) -> str:
    """A result as a line of Markdown."""
    spent = dict.fromkeys(columns, 0)
    for attribute, size in result.by_attribute.items():
        spent[COLUMNS.get(attribute, "other")] += size
    shares = [f"{spent[column] / max(count, 1):.2f}" if result.by_attribute else "" for column in columns]
    cells = [
        name,
        f"{result.bytes / 1e6:.3f}",
        f"{result.bytes_per_gaussian:.2f}",
        *shares,
        "" if result.fit_s is None else f"{result.fit_s:.1f}",
        f"{result.encode_per_s / 1e6:.2f}",
        f"{result.decode_per_s / 1e6:.2f}",
        {True: "yes", False: "NO", None: ""}[result.law_holds],
        "" if result.test_psnr is None else f"{result.test_psnr:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def replicated(splats: GaussianModel, count: int) -> GaussianModel:
    """``count`` Gaussians: copies of a model side by side on a square, each parameter of each Gaussian moved a little.

    Harmonics that are zero stay so, since how many are not decides what they cost.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(count)
    copies = splats.select(numbers % len(splats)).detach()
    side = math.ceil(math.sqrt(math.ceil(count / len(splats))))
    copy = numbers // len(splats)
    places = torch.stack([copy % side, torch.zeros_like(copy), copy // side], dim=1)

    def noise(values: Tensor, size: float | Tensor) -> Tensor:
        return torch.randn(values.shape, generator=generator).mul_(size)

    extent = splats.means.quantile(0.9, dim=0) - splats.means.quantile(0.1, dim=0)
    smallest = copies.log_scales.min(dim=1, keepdim=True).values.exp()
    copies.means += places * extent.max() + noise(copies.means, smallest)
    for values, size in (
        (copies.log_scales, 0.1),
        (copies.quaternions, 0.02),
        (copies.opacity_logits, 0.1),
        (copies.sh_dc, 0.02),
    ):
        values += noise(values, size)
    copies.sh_rest *= 1 + noise(copies.sh_rest, 0.1)
    return copies


def _peak_bytes() -> int:
    """The most memory that this process had until now."""
    import resource  # Not on Windows.

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _warm_up(text: str, sh_degree: int) -> Codec:
    """A codec whose kernels are loaded."""
    torch.set_num_threads(1)
    codec = registry.codec(text)
    coefficients = (sh_degree + 1) ** 2 - 1
    widths = {"means": (3,), "log_scales": (3,), "quaternions": (4,), "opacity_logits": (1,)}
    shapes = {**widths, "sh_dc": (1, 3), "sh_rest": (coefficients, 3)}
    random = np.random.default_rng(0)
    arrays = {name: random.normal(0, 1, (WARM_UP, *shape)).astype(np.float32) for name, shape in shapes.items()}
    sample = GaussianModel.from_arrays(**arrays)
    codec.decode(codec.fit(sample).encode(sample))
    return codec


def _write_arrays(path: Path, count: int, folder: Path) -> int:
    """Write the parameters of a model replicated to ``count`` Gaussians, each to a file. Returns its SH degree."""
    torch.set_num_threads(1)
    splats = replicated(GaussianModel.of(registry.read(path)), count)
    for name, tensor in splats.named_parameters():
        np.save(folder / f"{name}.npy", tensor.numpy())
    return splats.sh_degree


def _measure_encoding(text: str, sh_degree: int, folder: Path) -> dict[str, float]:
    codec = _warm_up(text, sh_degree)
    before = _peak_bytes()
    splats = GaussianModel.from_arrays(**{file.stem: np.load(file) for file in folder.glob("*.npy")})
    grid, fit_s = timed(lambda: codec.fit(splats))
    data, encode_s = timed(lambda: grid.encode(splats))
    peak = _peak_bytes() - before
    (folder / "file").write_bytes(data)
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in splats.named_parameters())
    return {"model_bytes": size, "fit_s": fit_s, "encode_s": encode_s, "encode_peak_bytes": peak}


def _measure_decoding(text: str, sh_degree: int, folder: Path) -> dict[str, float]:
    codec = _warm_up(text, sh_degree)
    before = _peak_bytes()
    data = (folder / "file").read_bytes()
    count, decode_s = _time_decoding(codec, data)
    peak = _peak_bytes() - before
    again = [_time_decoding(codec, data)[1] for _ in range(AGAIN)]
    return {
        "bytes": len(data),
        "count": count,
        "decode_s": decode_s,
        "decode_again_s": statistics.median(again),
        "decode_peak_bytes": peak,
    }


def _time_decoding(codec: Codec, data: bytes) -> tuple[int, float]:
    """Number of Gaussians, and seconds; giving the model's memory back is not in them."""
    splats, seconds = timed(lambda: codec.decode(data))
    return len(splats), seconds


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def bench_scaling(path: Path, options: Options) -> dict[str, dict[str, dict[str, float]]]:
    """Speed and peak memory by codec and number of Gaussians. Prints a table."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    chosen = options.codecs or ["gsz"]
    rows = []
    with tqdm(total=len(chosen) * len(options.counts), desc="scaling") as bar:
        for count in options.counts:
            with tempfile.TemporaryDirectory() as folder:
                sh_degree = _alone(_write_arrays, path, count, Path(folder))
                for text in chosen:
                    measured = _alone(_measure_encoding, text, sh_degree, Path(folder))
                    measured |= _alone(_measure_decoding, text, sh_degree, Path(folder))
                    results.setdefault(text, {})[str(count)] = measured
                    rows.append(scaling_row(text, measured))
                    bar.update()
    headers = ["codec", "Gaussians", "B/G", "fit s", "encode M/s", "decode M/s", "again M/s", "model MB"]
    headers += ["x encoding", "x decoding"]
    say(f"\n{path}, replicated, SH degree {sh_degree}; peak memory in sizes of the float model\n")
    say(format_table(headers, rows, "markdown"))
    return results


def scaling_row(text: str, measured: dict[str, float]) -> list[str]:
    """A line of the table of :func:`bench_scaling`."""
    count, size = measured["count"], measured["model_bytes"]
    return [
        text,
        f"{count:,}",
        f"{measured['bytes'] / count:.2f}",
        f"{measured['fit_s']:.1f}",
        f"{count / max(measured['encode_s'], 1e-9) / 1e6:.2f}",
        f"{count / max(measured['decode_s'], 1e-9) / 1e6:.2f}",
        f"{count / max(measured['decode_again_s'], 1e-9) / 1e6:.2f}",
        f"{size / 1e6:,.0f}",
        f"{measured['encode_peak_bytes'] / size:.2f}",
        f"{measured['decode_peak_bytes'] / size:.2f}",
    ]


def main() -> None:
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    torch.set_num_threads(1)
    if options.scaling:
        models: dict[str, Any] = {str(path): bench_scaling(path, options) for path in options.models}
    else:
        judge = Judge(options.scene)
        models = {str(path): bench_model(path, options, judge) for path in options.models}
    if options.json is not None:
        write_text(options.json, json.dumps({"models": models}, indent=1) + "\n")
        say(f"wrote {options.json}")


if __name__ == "__main__":
    cli.run(main)
