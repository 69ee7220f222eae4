"""Proves that ``decompress.py`` converts between all formats, says what it did, and fails as the house wants it.

A failure is one line that names the file, exit code 2, and nothing written or lost. The tool runs as users run it, in a
process of its own; where only conversion matters it is called directly.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import decompress
from gsz import registry
from gsz.errors import UserError
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, random_model

ROOT = Path(__file__).parents[2]
WRITABLE = registry.names(writable_only=True)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "decompress.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    path = tmp_path / "model.ply"
    random_model(200).save_ply(path)
    return path


@pytest.mark.parametrize("name", WRITABLE)
def test_any_format_goes_there_and_back(name: str, ply: Path, tmp_path: Path) -> None:
    codec = registry.get(name)
    packed, unpacked = tmp_path / f"packed{codec.suffix}", tmp_path / "unpacked.ply"
    decompress.convert(ply, packed)
    decompress.convert(packed, unpacked)
    splats = GaussianModel.load_ply(ply)
    assert_same_up_to_order(GaussianModel.load_ply(unpacked), codec.fit(splats).snap(splats))


@pytest.mark.parametrize("name", WRITABLE)
def test_info_names_the_format(name: str, ply: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / f"packed{registry.get(name).suffix}"
    decompress.convert(ply, packed)
    capsys.readouterr()
    decompress.describe(packed)
    lines = capsys.readouterr().out.splitlines()
    assert f"format: {name}" in lines
    assert "count: 200" in lines
    assert f"file_bytes: {packed.stat().st_size}" in lines


def test_the_last_line_says_what_was_written(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gslzma"
    finished = run(ply, out)
    assert finished.returncode == 0, finished.stderr
    size = out.stat().st_size
    expected = f"wrote {out} (fast3dgs): 200 Gaussians, {size / 1e6:.3f} MB, {size / 200:.1f} bytes each"
    assert finished.stdout.splitlines()[-1] == expected


def test_info_from_the_command_line_writes_nothing(ply: Path) -> None:
    finished = run(ply, "--info")
    assert finished.returncode == 0, finished.stderr
    assert "sh_degree: 3" in finished.stdout
    assert [path.name for path in ply.parent.iterdir()] == ["model.ply"]


@pytest.mark.parametrize("version", [2, 4])
def test_versions_of_spz(version: int, ply: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.spz"
    monkeypatch.setattr(sys, "argv", ["decompress.py", str(ply), str(out), "--version", str(version)])
    decompress.run()
    assert registry.info(out)["version"] == version


def test_codec_overrides_the_suffix_and_files_are_replaced(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.bin"
    out.write_bytes(b"old")
    decompress.convert(ply, out, codec="lzma")
    assert registry.info(out)["format"] == "fast3dgs"
    decompress.convert(out, out, codec="ply")
    assert registry.info(out)["format"] == "ply"


def test_a_codec_takes_its_settings_and_a_size(tmp_path: Path) -> None:
    ply = tmp_path / "model.ply"
    random_model(3000).save_ply(ply)
    out = tmp_path / "model.gsz"
    decompress.convert(ply, out, quality="best")
    best = out.stat().st_size
    decompress.convert(ply, out, quality="tiny")
    tiny = out.stat().st_size
    size = (best + tiny) // 2
    decompress.convert(ply, out, target_size=str(size))
    assert 0.98 * size <= out.stat().st_size <= size
    decompress.convert(ply, out, grid="fast3dgs")
    assert registry.info(out)["grid"] == "fast3dgs"
    with pytest.raises(UserError, match="out of reach of gsz's steps"):
        decompress.convert(ply, out, target_size="1kB")
    with pytest.raises(UserError, match="out of reach of spz's steps"):
        decompress.convert(ply, tmp_path / "model.spz", target_size="1MB")
    with pytest.raises(UserError, match="codec 'sog' has no setting 'grid'"):
        decompress.convert(ply, tmp_path / "model.sog", grid="fast3dgs")


def test_models_of_no_gaussians_convert(tmp_path: Path) -> None:
    GaussianModel.empty().save_ply(tmp_path / "empty.ply")
    decompress.convert(tmp_path / "empty.ply", tmp_path / "empty.gslzma")
    assert len(registry.read(tmp_path / "empty.gslzma")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.ply", "out.ply"], "absent.ply: cannot be read"),
        (["model.ply"], "no OUT is given"),
        (["model.ply", "out.xyz"], "out.xyz: the suffix names no format; use --codec"),
        (["model.ply", "out.xz"], "out.xz: fast3dgs-pickle files can only be read"),
        (["model.ply", "out.ply", "--codec", "mp3"], "codec 'mp3' is unknown"),
        (["model.ply", "out.spz", "--version", "5"], "version 5 cannot be written; choose 2, 3 or 4"),
        (["model.ply", "out.sog", "--version", "2"], "codec 'sog' has no setting 'version'"),
        (["broken.gslzma", "out.ply"], "broken.gslzma: is truncated"),
        (["broken.gslzma", "--info"], "broken.gslzma: is truncated"),
        (["empty.ply", "out.ply"], "empty.ply: the file is empty"),
        (["model.ply", "model.ply/out.ply"], "cannot be written"),
    ],
)
def test_failures_are_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    ply: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = ply.parent
    monkeypatch.chdir(folder)
    registry.write("broken.gslzma", random_model(20), registry.get("lzma"))
    Path("broken.gslzma").write_bytes(Path("broken.gslzma").read_bytes()[:500])
    Path("empty.ply").touch()
    before = sorted(path.name for path in folder.iterdir())

    monkeypatch.setattr(sys, "argv", ["decompress.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        decompress.run()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in folder.iterdir()) == before


def test_exit_code_of_the_process(tmp_path: Path) -> None:
    finished = run(tmp_path / "absent.ply", tmp_path / "out.ply")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1 and "Traceback" not in finished.stderr


def test_a_damaged_file_does_not_cost_the_old_output(ply: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ply"
    broken.write_bytes(ply.read_bytes()[:-7])
    before = ply.read_bytes()
    with pytest.raises(UserError, match=r"broken\.ply: is truncated"):
        decompress.convert(broken, ply)
    assert ply.read_bytes() == before


def test_numbers_are_shown_short(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    splats = random_model(10)
    registry.write(tmp_path / "model.gslzma", splats, registry.get("lzma"))
    decompress.describe(tmp_path / "model.gslzma")
    out = capsys.readouterr().out
    scale = np.float32(registry.get("lzma").fit(splats).dc.scale)  # type: ignore[attr-defined]
    assert f"scales: sh_dc {scale:.6g}, sh_rest" in out
    assert "float32: none" in out
