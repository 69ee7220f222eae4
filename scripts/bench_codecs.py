"""What every file format costs: bytes, time, errors, and with a scene the quality of what comes out of the file.

    python scripts/bench_codecs.py models/*/point_cloud/iteration_30000/point_cloud.ply --json codecs.json
    python scripts/bench_codecs.py garden.ply --codecs gsz gsz:quality=low lzma -s data/garden -i images_4

Every codec of the registry that can write is fitted to the model as it is; nothing is fine-tuned. Settings may follow
a codec's name. Where PlayCanvas' ``splat-transform`` is on the PATH, the files it writes are measured too.
Times are processor seconds of this one process, after a first run that lets Numba compile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compress import codecs
from compress.codecs import Codec
from gaussian_renderer import choose_backend
from gaussian_renderer import render as render_view
from scene import Scene, SceneOptions
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.cli import say
from utils.errors import UserError
from utils.files import write_text
from utils.metrics import ViewMetrics, mean_metrics, measure

WARM_UP = 3000
"""Gaussians that are encoded and decoded once before the clock runs."""
PEER = "splat-transform"


@dataclass
class Options:
    """What every file format costs: bytes, time, errors, quality."""

    models: tyro.conf.Positional[list[Path]]
    """Models in any format."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    json: Path | None = None
    """Write the results here."""
    codecs: list[str] = field(default_factory=list)
    """Codecs, each with settings if need be: gsz gsz:quality=low. By default all, and each quality of gsz."""
    limit: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Measure the first N Gaussians of each model only; 0 takes all."""


@dataclass(frozen=True)
class Result:
    """One codec on one model; the keys of the JSON file.

    Attributes:
        by_attribute: bytes, where the format's header says.
        encode_s, decode_s: processor seconds; encoding includes fitting the grid.
        law_holds: whether the file decodes to what its grid's ``snap`` shows; None for other programs' files.
        max_error, mean_error: absolute errors of parameters, opacities after the sigmoid, log-scales sorted, and
            ``covariance`` relative to the covariance's norm.
    """

    bytes: int
    bytes_per_gaussian: float
    by_attribute: dict[str, int]
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
    from compress.codecs.gsz.settings import DEFAULT_QUALITY, QUALITIES

    others = [f"gsz:quality={quality}" for quality in QUALITIES if quality != DEFAULT_QUALITY]
    return [*codecs.names(writable_only=True), *others, "gsz:grid=fast3dgs"]


def parse_codec(text: str) -> Codec:
    """A codec by name and ``key=value`` settings; values that look like integers are integers."""
    name, _, settings = text.partition(":")
    pairs: dict[str, Any] = {}
    for pair in filter(None, settings.split(",")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise UserError(f"--codecs {text}: {pair!r} is no setting; write name=value")
        pairs[key] = int(value) if value.isdigit() else value
    return codecs.get(name, **pairs)


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
    w, x, y, z = torch.nn.functional.normalize(splats.quaternions.double(), dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotations = torch.stack([torch.stack(row, -1) for row in rows], -2)
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
            self._scene = Scene(options)
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
    (grid, data), encode_s = timed(lambda: (fitted := codec.fit(splats), fitted.encode(splats)))
    decoded, decode_s = timed(lambda: codec.decode(data))
    snapped = grid.snap(splats).detach()
    lossy = errors(splats, snapped)
    by_attribute = codec.info(data).get("bytes", {})
    return _result(data, by_attribute, encode_s, decode_s, same_up_to_order(decoded, snapped), lossy, decoded, judge)


def bench_peer(path: Path, suffix: str, judge: Judge) -> Result:
    """The file that splat-transform makes of a PLY. Its Gaussians are in another order, so errors are not compared."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"model{suffix}"
        start = time.perf_counter()
        done = subprocess.run([PEER, "-g", "cpu", str(path), str(target)], capture_output=True, text=True, check=False)
        if done.returncode or not target.exists():
            raise UserError(f"{path}: {PEER} failed ({done.stderr.strip().splitlines()[-1:]}); run it by hand")
        encode_s = time.perf_counter() - start
        data = target.read_bytes()
        decoded, decode_s = timed(lambda: codecs.read(target))
    return _result(data, {}, encode_s, decode_s, None, {}, decoded, judge)


def _result(
    data: bytes,
    by_attribute: dict[str, int],
    encode_s: float,
    decode_s: float,
    law_holds: bool | None,
    lossy: dict[str, Tensor],
    decoded: GaussianModel,
    judge: Judge,
) -> Result:
    count = max(1, len(decoded))
    quality = judge.quality(decoded)
    return Result(
        bytes=len(data),
        bytes_per_gaussian=len(data) / count,
        by_attribute=by_attribute,
        encode_s=encode_s,
        decode_s=decode_s,
        encode_per_s=count / max(encode_s, 1e-9),
        decode_per_s=count / max(decode_s, 1e-9),
        law_holds=law_holds,
        max_error=summary(lossy, torch.max),
        mean_error=summary(lossy, torch.mean),
        test_psnr=quality.psnr if quality else None,
        test_ssim=quality.ssim if quality else None,
    )


def bench_model(path: Path, options: Options, judge: Judge) -> dict[str, Any]:
    """All codecs on one model: its entry in the JSON file."""
    splats = codecs.read(path)
    if options.limit:
        splats = splats.select(torch.arange(min(options.limit, len(splats))))
    say(f"{path}: {len(splats)} Gaussians, SH degree {splats.sh_degree}")
    jobs: dict[str, Callable[[], Result]] = {}
    for text in options.codecs or default_codecs():
        codec = parse_codec(text)
        jobs[text] = lambda codec=codec: bench_codec(codec, splats, judge)  # type: ignore[misc]
    if shutil.which(PEER) and path.suffix == ".ply" and not options.limit:
        for suffix in (".sog", ".spz"):
            jobs[f"{PEER}{suffix}"] = lambda suffix=suffix: bench_peer(path, suffix, judge)  # type: ignore[misc]
    results = {}
    say(f"  {'codec':24} {'bytes':>12} {'B/G':>7} {'enc M/s':>8} {'dec M/s':>8}  law  test PSNR")
    for name, job in jobs.items():
        result = job()
        results[name] = asdict(result)
        law = {True: "yes", False: "NO", None: "-"}[result.law_holds]
        quality = "" if result.test_psnr is None else f"{result.test_psnr:.3f}"
        say(
            f"  {name:24} {result.bytes:12,} {result.bytes_per_gaussian:7.2f} {result.encode_per_s / 1e6:8.3f} "
            f"{result.decode_per_s / 1e6:8.3f}  {law:3}  {quality}"
        )
    entry: dict[str, Any] = {"count": len(splats), "sh_degree": splats.sh_degree, "codecs": results}
    if (original := judge.quality(splats)) is not None:
        entry |= {"test_psnr": original.psnr, "test_ssim": original.ssim}
        say(f"  {'the model itself':24} {'':12} {'':7} {'':8} {'':8}       {original.psnr:.3f}")
    return entry


def main() -> None:
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    torch.set_num_threads(1)
    judge = Judge(options.scene)
    models = {str(path): bench_model(path, options, judge) for path in options.models}
    if options.json is not None:
        write_text(options.json, json.dumps({"models": models}, indent=1) + "\n")
        say(f"wrote {options.json}")


if __name__ == "__main__":
    cli.run(main)
