"""Proves that ``decompress.py`` keeps the options it always had; the rest is that of ``gsz``, in ``test_cli.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import decompress
from gsz import registry
from gsz.errors import UserError
from tests.helpers import random_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    path = tmp_path / "model.ply"
    random_model(200).save_ply(path)
    return path


def test_as_a_process(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gslzma"
    command = [sys.executable, str(ROOT / "decompress.py"), str(ply), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    size, name = out.stat().st_size, registry.identify(out.read_bytes(), out).name
    assert finished.stdout.splitlines() == [
        f"reading {ply}",
        f"wrote {out} ({name}): 200 Gaussians, {size / 1e6:.3f} MB, {size / 200:.1f} bytes each",
    ]


def test_info_writes_nothing(ply: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decompress.main([str(ply), "--info"])
    assert "sh_degree: 3" in capsys.readouterr().out.splitlines()
    assert [path.name for path in ply.parent.iterdir()] == ["model.ply"]


def test_options_that_are_short_for_settings(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.spz"
    decompress.main([str(ply), str(out), "--version", "2", "--quality", "best"])
    assert registry.info(out)["version"] == 2
    best = out.stat().st_size
    decompress.main([str(ply), str(out), "--codec", "spz:version=2", "--quality", "tiny"])
    assert registry.info(out)["version"] == 2
    assert out.stat().st_size < best
    decompress.main([str(ply), str(tmp_path / "model.gsz"), "--grid", "fast3dgs"])
    assert registry.info(tmp_path / "model.gsz")["grid"] == "fast3dgs"


def test_the_old_name_of_a_codec(ply: Path, tmp_path: Path) -> None:
    decompress.main([str(ply), str(tmp_path / "model.bin"), "--codec", "lzma"])
    assert registry.info(tmp_path / "model.bin")["format"] == registry.find("lzma").name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.ply"], "no OUT is given"),
        ([], "the following arguments are required: IN; see decompress.py --help"),
        (["model.ply", "out.spz", "--version", "5"], "version is 2, 3 or 4"),
        (["model.ply", "out.sog", "--version", "2"], "codec 'sog' has no setting 'version'"),
        (["model.ply", "out.sog", "--grid", "fast3dgs"], "codec 'sog' has no setting 'grid'"),
        (["model.ply", "out.xyz", "--quality", "low"], "out.xyz: the suffix names no format"),
    ],
)
def test_failures(words: list[str], message: str, ply: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ply.parent)
    with pytest.raises(UserError, match=message):
        decompress.main(words)
    assert [path.name for path in ply.parent.iterdir()] == ["model.ply"]
