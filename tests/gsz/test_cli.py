"""Proves that the command ``gsz`` converts between all formats, says what it did, and fails as it should.

A failure is one line that names the file, exit code 2, and nothing written or lost. The command runs as users run it,
in a process of its own; where only conversion matters the library is called directly.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gsz
from gsz import cli, registry
from gsz.errors import UserError
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, random_model

ROOT = Path(__file__).parents[2]
WRITABLE = registry.names(writable_only=True)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "gsz", *map(str, words)]


def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=120, cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    path = tmp_path / "model.ply"
    random_model(200).save_ply(path)
    return path


@pytest.mark.parametrize("name", WRITABLE)
def test_any_format_goes_there_and_back(name: str, ply: Path, tmp_path: Path) -> None:
    codec = registry.get(name)
    packed, unpacked = tmp_path / f"packed{codec.suffix}", tmp_path / "unpacked.ply"
    written = gsz.convert(ply, packed)
    assert (written.path, written.codec, written.count) == (packed, codec, 200)
    assert written.file_bytes == packed.stat().st_size
    gsz.convert(packed, unpacked)
    splats = GaussianModel.load_ply(ply)
    assert_same_up_to_order(GaussianModel.load_ply(unpacked), codec.fit(splats).snap(splats))


@pytest.mark.parametrize("name", WRITABLE)
def test_models_of_no_gaussians_convert(name: str, tmp_path: Path) -> None:
    GaussianModel.empty().save_ply(tmp_path / "empty.ply")
    packed = tmp_path / f"empty{registry.get(name).suffix}"
    gsz.convert(tmp_path / "empty.ply", packed)
    assert len(gsz.read(packed)) == 0


def test_what_is_read_is_numpy(ply: Path) -> None:
    for name in WRITABLE:
        packed = ply.with_suffix(".bin")
        gsz.convert(ply, packed, name)
        splats = gsz.read(packed)
        assert type(splats) is gsz.Splats
        for parameter, array in splats.named_parameters():
            assert type(array) is np.ndarray and array.dtype == np.float32, (name, parameter)


@pytest.mark.parametrize("name", WRITABLE)
def test_info_names_the_format(name: str, ply: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / f"packed{registry.get(name).suffix}"
    gsz.convert(ply, packed)
    cli.info(packed)
    lines = capsys.readouterr().out.splitlines()
    assert f"format: {name}" in lines
    assert "count: 200" in lines
    assert f"file_bytes: {packed.stat().st_size}" in lines


def test_numbers_are_shown_short(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    splats = random_model(10)
    registry.write(tmp_path / "model.gslzma", splats, registry.get("lzma"))
    cli.info(tmp_path / "model.gslzma")
    out = capsys.readouterr().out
    scale = np.float32(registry.get("lzma").fit(splats).dc.scale)  # type: ignore[attr-defined]
    assert f"scales: sh_dc {scale:.6g}, sh_rest" in out
    assert "float32: none" in out


def test_the_first_and_the_last_line_of_a_conversion(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.spz"
    finished = run("convert", ply, out, "--codec", "spz:version=2")
    assert finished.returncode == 0, finished.stderr
    size = out.stat().st_size
    assert finished.stdout.splitlines() == [
        f"reading {ply}",
        f"wrote {out} (spz): 200 Gaussians, {size / 1e6:.3f} MB, {size / 200:.1f} bytes each",
    ]
    assert gsz.info(out)["version"] == 2


def test_a_file_in_layers_is_cut_by_bytes_by_fraction_and_by_layers(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.gsz", tmp_path / "part.gsz"
    data = gsz.write(whole, random_model(1100, sh_degree=0), "gsz:layers=3")
    for option in (["--keep", "0.5"], ["--level", "2"], ["--max_bytes", f"{len(data) - 1}"]):
        finished = run("convert", whole, part, *option)
        assert finished.returncode == 0 and "wrote" in finished.stdout and "550 Gaussians" in finished.stdout
        assert data.startswith(part.read_bytes())
    finished = run("convert", whole, part, "--max_bytes", "1kB")
    assert (
        finished.returncode == 2 and "not even the first of 3 layers lies within 1000 bytes; allow" in finished.stderr
    )


def test_formats_lists_names_suffixes_and_settings() -> None:
    finished = run("formats")
    assert finished.returncode == 0, finished.stderr
    for format_ in registry.FORMATS:
        assert any(line.split()[:2] == [format_.name, format_.suffix] for line in finished.stdout.splitlines())
    assert "    version=3: 2, 3 or 4" in finished.stdout.splitlines()


def test_version_and_help() -> None:
    assert run("--version").stdout == f"gsz {gsz.__version__}\n"
    for words in (["--help"], ["convert", "--help"], ["info", "--help"], ["formats", "--help"]):
        finished = run(*words)
        assert finished.returncode == 0 and finished.stdout.startswith("usage: gsz")


def test_importing_is_quick_and_loads_no_format() -> None:
    """Reading a PLY file needs NumPy only: no compiler, no image library, no PyTorch."""
    program = "import sys, gsz, gsz.ply; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "numpy" in finished.stdout.split()
    assert not {"numba", "PIL", "zstandard", "torch", "scipy", "tyro", "tqdm", "scene"} & set(finished.stdout.split())
    timed = "import time; began = time.process_time(); import gsz; print(time.process_time() - began)"
    finished = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(finished.stdout) < 0.3


def test_a_codec_overrides_the_suffix_and_files_are_replaced(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.bin"
    out.write_bytes(b"old")
    gsz.convert(ply, out, "spz:version=4")
    assert gsz.info(out)["version"] == 4
    gsz.convert(out, out, "ply")
    assert gsz.info(out)["format"] == "ply"


def test_a_codec_takes_its_settings_and_a_size(tmp_path: Path) -> None:
    ply = tmp_path / "model.ply"
    random_model(3000).save_ply(ply)
    out = tmp_path / "model.gsz"
    best = gsz.convert(ply, out, "gsz:quality=best").file_bytes
    tiny = gsz.convert(ply, out, "gsz:quality=tiny").file_bytes
    size = (best + tiny) // 2
    assert 0.98 * size <= gsz.convert(ply, out, target_bytes=size).file_bytes <= size
    with pytest.raises(UserError, match="out of reach of gsz's steps"):
        gsz.convert(ply, out, target_bytes=1000)
    with pytest.raises(UserError, match="out of reach of spz's steps"):
        gsz.convert(ply, tmp_path / "model.spz", target_bytes=1_000_000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "absent.ply", "out.ply"], "absent.ply: cannot be read"),
        (["convert", "model.ply", "out.xyz"], "out.xyz: the suffix names no format; use --codec"),
        (["convert", "model.ply", "out.xz"], "out.xz: fast3dgs-pickle files can be read but not written"),
        (["convert", "model.ply", "out.ply", "--codec", "mp3"], "codec 'mp3' is unknown; choose one of"),
        (["convert", "model.ply", "out.spz", "--codec", "spz:version=5"], "version is 2, 3 or 4"),
        (["convert", "model.ply", "out.ply", "--level", "1"], "ply files have no layers"),
        (["convert", "model.ply", "out.ply", "--level", "x"], "argument --level: invalid int value: 'x'"),
        (["convert", "model.ply", "out.gsz", "--target_size", "much"], "such as 5MB"),
        (["convert", "broken.gslzma", "out.ply"], "broken.gslzma: is truncated"),
        (["info", "broken.gslzma"], "broken.gslzma: is truncated"),
        (["convert", "empty.ply", "out.ply"], "empty.ply: the file is empty"),
        (["convert", "model.ply", "model.ply/out.ply"], "cannot be written"),
        (["convert", "model.ply"], "the following arguments are required: DST; see gsz convert --help"),
        (["compress"], "invalid choice: 'compress'"),
        ([], "required: COMMAND; see gsz --help"),
    ],
)
def test_failures_are_one_line_and_exit_code_2(
    words: list[str],
    message: str,
    ply: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ply.parent)
    registry.write("broken.gslzma", random_model(20), registry.get("lzma"))
    Path("broken.gslzma").write_bytes(Path("broken.gslzma").read_bytes()[:500])
    Path("empty.ply").touch()
    before = sorted(path.name for path in ply.parent.iterdir())

    monkeypatch.setattr(sys, "argv", ["gsz", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in ply.parent.iterdir()) == before


def test_the_exit_code_of_the_process(tmp_path: Path) -> None:
    finished = run("convert", tmp_path / "absent.ply", tmp_path / "out.ply")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1 and "Traceback" not in finished.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_it_with_one_line(number: int, code: int, line: str, tmp_path: Path) -> None:
    """It waits for its input, a pipe that nobody writes to, when the signal comes."""
    pipe = tmp_path / "model.ply"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command("convert", pipe, tmp_path / "out.ply"), stdout=-1, stderr=-1, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == f"reading {pipe}\n"
    time.sleep(0.2)
    process.send_signal(number)
    _, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (code, f"{line}; go on with: {shlex.join(process.args)}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ply"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.3, 0.6])
def test_signals_while_it_starts_are_one_line_as_well(number: int, after: float, tmp_path: Path) -> None:
    pipe = tmp_path / "model.ply"
    os.mkfifo(pipe)
    words = [sys.executable, "decompress.py", pipe, tmp_path / "out.ply"]
    process = subprocess.Popen(words, stdout=-1, stderr=-1, text=True, cwd=ROOT)
    time.sleep(after)
    process.send_signal(number)
    _, error = process.communicate(timeout=10)
    assert "Traceback" not in error and error.count("\n") <= 1
    if process.returncode != -number:  # Python itself was not there yet.
        assert error.endswith(f"; go on with: {shlex.join(map(str, words))}\n")


def test_names_that_a_terminal_cannot_show_do_not_crash_it(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "модель.ply"
    finished = run("convert", ply, out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert finished.returncode == 0, finished.stderr
    assert out.exists() and r"wrote " in finished.stdout and r"\u043c" in finished.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    line = " ".join(f"'{word}'" for word in command("formats"))
    finished = subprocess.run(f"{line} | head -n 1", shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.stdout.startswith("gsz") and finished.stderr == ""


def test_a_damaged_file_does_not_cost_the_old_output(ply: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ply"
    broken.write_bytes(ply.read_bytes()[:-7])
    before = ply.read_bytes()
    with pytest.raises(UserError, match=r"broken\.ply: is truncated"):
        gsz.convert(broken, ply)
    assert ply.read_bytes() == before
