"""Give damaged files to every decoder: it may only decode them or raise CodecError, in bounded time and memory, and may
write, start and unpickle nothing.

    python scripts/fuzz_codecs.py --inputs 1000000 --json fuzz.json

Small valid files of every format in the registry, of several SH degrees and settings, are mutated: bits flipped, bytes
changed, cut out, doubled or replaced by numbers that lengths like least, files cut off or spliced with one another.
Containers are opened for part of the mutations, so that damage gets past their checksums. The same seed gives the same
inputs. Exits with code 1 if a decoder misbehaved, and prints how to make the offending input again.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import signal
import sys
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import dumps as pickled
from typing import Annotated

import _root  # noqa: F401
import numpy as np
import torch
import tyro
from tqdm import tqdm

from gsz import ksplat, registry
from gsz.cleaning import clean
from gsz.files import write_text
from gsz.registry import Codec, CodecError
from scene.gaussian_model import GaussianModel
from utils import cli
from utils.cli import say

MOST_SECONDS = 2.0
"""A decoder that takes longer for one input has failed."""

FREE_BYTES = 192 << 20
BYTES_A_BYTE = 1 << 14
"""A decoder may allocate :data:`FREE_BYTES`, and this much more for a byte of file: packed zeros become 1032 bytes, one
byte of a plane becomes one float32, and each step of decoding holds a few copies."""

MEASURED_EVERY = 64
"""Inputs for one whose allocations are traced, which slows decoding down."""

LENGTHS = [
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    65535,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    (1 << 64) - 1,
]


@dataclass
class Tally:
    """What became of the inputs of one format."""

    codec: str
    inputs: int = 0
    decoded: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    largest_allocation_mb: float = 0.0


@dataclass
class Seed:
    """A valid file, and for containers how to take it apart and put it together again."""

    codec: type[Codec]
    data: bytes
    unpack: Callable[[bytes], bytes] | None = None
    pack: Callable[[bytes], bytes] | None = None


def main(
    inputs: int = 1_000_000,
    seconds: float | None = None,
    seed: int = 0,
    codec: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Fuzz the decoders.

    Args:
        inputs: Inputs in total, over all formats.
        seconds: Stop after about so many.
        seed: Seed of the mutations.
        codec: Only this format; may be given several times. By default all.
        json_file: Write the table there as well.
    """
    torch.set_num_threads(1)
    tallies = fuzz(inputs, seconds, seed, codec)
    for line in table(tallies):
        say(line)
    failures = [failure for tally in tallies for failure in tally.failures]
    for failure in failures[:20]:
        say(failure)
    if json_file is not None:
        write_text(
            json_file, json.dumps({"seed": seed, "codecs": {tally.codec: asdict(tally) for tally in tallies}}, indent=1)
        )
    if failures:
        sys.exit(1)


def fuzz(inputs: int, seconds: float | None = None, seed: int = 0, names: tuple[str, ...] = ()) -> list[Tally]:
    """Decode mutated files of the formats of those names, or of all; the inputs are shared out evenly."""
    chosen = [format_.load() for format_ in registry.FORMATS if not names or format_.name in names]
    seeds = {codec: list(seed_files(codec)) for codec in chosen}
    everything = [item.data for items in seeds.values() for item in items]
    for codec, items in seeds.items():  # What is compiled or imported for the first time is so now.
        for item in items:
            codec().decode(item.data), codec().info(item.data)
    tallies = [Tally(codec.name) for codec in chosen]
    started = time.monotonic()
    # Readers remark on what they leave out, and zipfile on names that the mutations have doubled.
    quiet = (redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings())
    with tqdm(total=inputs, unit="input", delay=2.0, mininterval=1.0, file=sys.stderr) as bar, ExitStack() as stack:
        for silence in quiet:
            stack.enter_context(silence)
        warnings.simplefilter("ignore")
        stack.enter_context(suppress(KeyboardInterrupt))  # Ctrl-C ends the run early and shows what has been found.
        for index in range(inputs):
            if seconds is not None and time.monotonic() - started > seconds:
                break
            which = index % len(chosen)
            rng = np.random.default_rng([seed, index])
            data = mutated(seeds[chosen[which]], everything, rng)
            with checksums_ignored() if rng.random() < 0.5 else nullcontext():
                problem = attempt(chosen[which](), data, tallies[which])
            if problem is not None:
                tallies[which].failures.append(f"--seed {seed}, input {index} ({tallies[which].codec}): {problem}")
            bar.update()
    return tallies


def attempt(codec: Codec, data: bytes, tally: Tally) -> str | None:
    """Decode one input, and say what went wrong if it was not refused properly."""
    measured = tally.inputs % MEASURED_EVERY == 0
    tally.inputs += 1
    if measured:
        tracemalloc.start()
    began = time.perf_counter()
    refusals = 0
    problem = None

    def decode(data: bytes, source: str) -> object:
        return clean(codec.decode(data, source).numpy())

    for read in (decode, codec.info):
        try:
            with time_limit(10 * MOST_SECONDS), watched() as deeds:
                read(data, "input")
        except CodecError as error:
            refusals += read == decode
            if not str(error).startswith("input") or "\n" in str(error):
                problem = f"the message is not one line that begins with the file: {error!r}"
        except Exception as error:
            problem = f"{read.__name__}: {type(error).__name__}: {str(error)[:200]}"
        if deeds:
            problem = f"{read.__name__} did more than read: {deeds[0]}"
    tally.refused += refusals
    tally.decoded += 1 - refusals
    elapsed = time.perf_counter() - began
    if measured:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        tally.largest_allocation_mb = max(tally.largest_allocation_mb, peak / 1e6)
        if peak > FREE_BYTES + BYTES_A_BYTE * len(data):
            problem = problem or f"{peak} bytes were allocated for a file of {len(data)}"
    else:
        tally.slowest_ms = max(tally.slowest_ms, 1000 * elapsed)
        # Other programs may have had the processor; what is slow is slow twice.
        if elapsed > MOST_SECONDS and again_slow(codec, data):
            problem = problem or f"it took {elapsed:.1f} s"
    return problem


FORBIDDEN = ("os.", "shutil.", "subprocess.", "socket.", "pickle.", "tempfile.", "ctypes.")
"""Audit events that no decoder has reason to cause, by how they begin."""

_deeds: list[str] | None = None
"""What has been done since :func:`watched` began; None where nobody looks."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _deeds is None:
        return
    if event == "open":
        # Reading is what the import of a module does that is needed for the first time.
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and "__pycache__" not in str(path):
            _deeds.append(f"open {path!r} {mode!r}")
    elif event.startswith(FORBIDDEN) and event not in ("os.listdir", "os.scandir"):
        _deeds.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note what the block does to the world outside of its memory: files written, programs started, pickles run."""
    global _deeds
    before, _deeds = _deeds, []
    try:
        yield _deeds
    finally:
        _deeds = before


def again_slow(codec: Codec, data: bytes) -> bool:
    began = time.process_time()
    with suppress(Exception):
        codec.decode(data, "input")
    return time.process_time() - began > MOST_SECONDS


class _AnyChecksum(int):
    """A checksum that equals every other one."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def checksums_ignored() -> Iterator[None]:
    """Let damage pass the CRCs that decoders compute themselves, as an attacker would who knows the format."""
    crc32 = zlib.crc32
    zlib.crc32 = lambda *arguments: _AnyChecksum(crc32(*arguments))  # type: ignore[assignment]
    try:
        yield
    finally:
        zlib.crc32 = crc32


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what hangs, where the system can (not on Windows, nor outside of the main thread)."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expire(signum: int, frame: object) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(seeds: list[Seed], everything: list[bytes], rng: np.random.Generator) -> bytes:
    """A damaged version of one of the seeds; for containers, half of the time what is inside is damaged."""
    item = seeds[int(rng.integers(len(seeds)))]
    inside = item.unpack is not None and rng.random() < 0.5
    data = bytearray(item.unpack(item.data) if inside and item.unpack else item.data)
    for _ in range(int(rng.geometric(0.5))):
        damage(data, everything, rng)
    if inside and item.pack is not None:
        return item.pack(bytes(data))
    return bytes(data)


def damage(data: bytearray, everything: list[bytes], rng: np.random.Generator) -> None:
    """One mutation, in place. Half of them hit the first 160 bytes, where headers are."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 160)
    at = int(rng.integers(reach + 1))
    match int(rng.integers(8)):
        case 0:
            for _ in range(int(rng.integers(1, 9))):
                if data:
                    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        case 1:
            data[at : at + 1] = rng.bytes(1)
        case 2:
            width = int(rng.choice([1, 2, 4, 8]))
            number = LENGTHS[int(rng.integers(len(LENGTHS)))] + int(rng.integers(-2, 3))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        case 3:
            del data[at:]
        case 4:
            del data[at : at + int(rng.integers(1, 64))]
        case 5:
            data[at:at] = rng.bytes(int(rng.integers(1, 64)))
        case 6:
            end = at + int(rng.integers(1, 64))
            data[at:at] = data[at:end]
        case 7:
            other = everything[int(rng.integers(len(everything)))]
            begin = int(rng.integers(len(other)))
            data[at:] = other[begin:]


def seed_files(codec: type[Codec]) -> Iterator[Seed]:
    """Small valid files of a format. A new format that is only read needs a line here."""
    if not codec.writable:
        makers = {
            "compressed-ply": _compressed_ply,
            "splat": _splat,
            "ksplat": _ksplat,
            "fast3dgs-pickle": _published,
        }
        for count, degree in ((60, 1), (300, 0), (20, 3)):
            yield Seed(codec, makers[codec.name](count, degree), *_container(codec.name))
        return
    settings = {"spz": [{"version": version} for version in (2, 3, 4)]}.get(codec.name, [{}])
    for arguments in settings:
        instance = registry.get(codec.name, **arguments)
        for count, degree in ((40, 1), (7, 3), (30, 0)):
            splats = _model(count, degree)
            yield Seed(codec, instance.fit(splats).encode(splats), *_container(codec.name, **arguments))


def _container(name: str, **arguments: int) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]] | tuple[()]:
    if name == "spz" and arguments.get("version", 3) < 4:
        return (lambda data: zlib.decompress(data, wbits=31)), _gzip
    if name == "sog":
        return _unzip, _zip
    if name == "fast3dgs-pickle":
        return lzma.decompress, lzma.compress
    return ()


def _gzip(payload: bytes) -> bytes:
    deflate = zlib.compressobj(1, wbits=31)
    return deflate.compress(payload) + deflate.flush()


_SEPARATOR = b"\x00MEMBER\x00"


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _SEPARATOR.join(part for name in archive.namelist() for part in (name.encode(), archive.read(name)))


def _zip(payload: bytes) -> bytes:
    parts = payload.split(_SEPARATOR)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in zip(parts[::2], parts[1::2], strict=False):
            archive.writestr(zipfile.ZipInfo(name.decode("latin-1") or "?"), content)
    return buffer.getvalue()


def _model(count: int, sh_degree: int) -> GaussianModel:
    rng = np.random.default_rng(count)
    return GaussianModel.from_arrays(
        means=rng.standard_t(3, (count, 3)),
        log_scales=rng.normal(-4, 1, (count, 3)),
        quaternions=rng.normal(0, 1, (count, 4)),
        opacity_logits=rng.normal(0, 3, (count, 1)),
        sh_dc=rng.normal(0, 1, (count, 1, 3)),
        sh_rest=rng.laplace(0, 0.05, (count, (sh_degree + 1) ** 2 - 1, 3)),
    )


def _compressed_ply(count: int, sh_degree: int) -> bytes:
    rng = np.random.default_rng(count)
    ranges = [f"{end}_{kind}{axis}" for kind in ("", "scale_") for end in ("min", "max") for axis in "xyz"]
    ranges += [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
    chunks = -(-count // 256)
    numbers = 3 * ((sh_degree + 1) ** 2 - 1)
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in ranges]
    lines += [f"element vertex {count}"]
    lines += [f"property uint packed_{name}" for name in ("position", "rotation", "scale", "color")]
    if numbers:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{index}" for index in range(numbers))]
    body = rng.normal(0, 1, (chunks, 18)).astype("<f4").tobytes() + rng.bytes(16 * count) + rng.bytes(numbers * count)
    return "\n".join([*lines, "end_header", ""]).encode() + body


def _splat(count: int, sh_degree: int) -> bytes:
    rng = np.random.default_rng(count)
    floats = np.abs(rng.normal(0, 1, (count, 6))).astype("<f4").view(np.uint8).reshape(count, 24)
    return np.concatenate([floats, rng.integers(0, 256, (count, 8), np.uint8)], axis=1).tobytes()


def _ksplat(count: int, sh_degree: int) -> bytes:
    """Of each level of compression, in two sections with full and partly filled buckets."""
    rng = np.random.default_rng(count)
    header, sections = np.zeros(1, ksplat.HEADER)[0], np.zeros(2, ksplat.SECTION)
    header["version"], header["level"] = ksplat.VERSION, sh_degree % len(ksplat.NUMBERS)
    header["sections"], header["most"], header["count"] = 2, count, count
    sections["count"] = sections["room"] = count // 2, count - count // 2
    sections["width"], sections["center_bytes"], sections["sh_degree"] = 5.0, 12, sh_degree
    sections["bucket"], sections["full"], sections["partial"] = 4, sections["count"] // 4, 1
    sections["buckets"] = sections["full"] + 1
    parts = [header.tobytes(), sections.tobytes()]
    for section in sections:
        last = np.uint32(section["count"] % 4).tobytes()
        centers = rng.normal(0, 1, (section["buckets"], 3)).astype("<f4").tobytes()
        numbers, row = np.abs(rng.normal(0, 1, (section["count"], 80))), ksplat.row_type(header, section)
        rows = np.zeros(section["count"], row)
        for name in row.names or ():
            rows[name] = numbers[:, : rows[name].shape[1]] * (100 if rows[name].dtype.kind == "u" else 1)
        parts += [last, centers, rows.tobytes()]
    return b"".join(parts)


def _published(count: int, sh_degree: int) -> bytes:
    splats = {name: tensor.numpy() for name, tensor in _model(count, sh_degree).named_parameters()}
    names = {"xyz": "means", "scaling": "log_scales", "rotation": "quaternions", "opacity": "opacity_logits"}
    checkpoint: dict[str, object] = {theirs: splats[ours].astype(np.float16) for theirs, ours in names.items()}
    for theirs, ours in (("features_dc", "sh_dc"), ("features_rest", "sh_rest")):
        symbols = np.clip(np.rint(splats[ours] / 0.0123) + 100, 0, 255).astype(np.uint8)
        checkpoint |= {theirs: symbols, f"{theirs}_scale": 0.0123, f"{theirs}_zero_point": 100}
    return lzma.compress(pickled({**checkpoint, "active_degree": sh_degree}))


def table(tallies: list[Tally]) -> list[str]:
    """The tallies as lines of Markdown."""
    lines = [
        "| codec | inputs | decoded | refused | failures | slowest (ms) | largest allocation (MB) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for tally in [*tallies, _total(tallies)]:
        lines.append(
            f"| {tally.codec} | {tally.inputs:,} | {tally.decoded:,} | {tally.refused:,} | {len(tally.failures)} "
            f"| {tally.slowest_ms:.0f} | {tally.largest_allocation_mb:.1f} |"
        )
    return lines


def _total(tallies: list[Tally]) -> Tally:
    return Tally(
        "all",
        sum(tally.inputs for tally in tallies),
        sum(tally.decoded for tally in tallies),
        sum(tally.refused for tally in tallies),
        [failure for tally in tallies for failure in tally.failures],
        max((tally.slowest_ms for tally in tallies), default=0.0),
        max((tally.largest_allocation_mb for tally in tallies), default=0.0),
    )


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main))
