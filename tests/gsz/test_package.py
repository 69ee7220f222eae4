"""Proves that ``gsz`` is a package of its own: a wheel with nothing else in it, which works where PyTorch is not.

The wheel is built and installed into a fresh environment, where every golden file must have its values, and the command
``gsz`` must convert. Without a network, or a package index in its place, there is nothing to install NumPy and Numba
from, and that part is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import gsz
from tests.helpers import checksum, random_model

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

READ_GOLDEN = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
began = time.process_time()
import gsz
assert time.process_time() - began < 0.3, "the import is slow"
assert gsz.__file__.startswith(sys.prefix), gsz.__file__
for path in sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix != ".sha256"):
    arrays = [array.reshape(len(array), -1) for _, array in gsz.read(path).named_parameters()]
    bits = np.ascontiguousarray(np.concatenate(arrays, 1)).view("<u4")
    bits = bits[np.lexsort(bits.T[::-1])]
    assert hashlib.sha256(bits.tobytes()).hexdigest() == Path(f"{path}.sha256").read_text().strip(), path
    print(path.name)
for name in ("torch", "scene", "utils", "compress"):
    assert name not in sys.modules, name
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = built.glob("*.whl")
    install = [commands / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    finished = subprocess.run(install, capture_output=True, text=True, check=False)
    if finished.returncode:
        if "No matching distribution" in finished.stderr or "connection" in finished.stderr.lower():
            pytest.skip(
                f"there is no package index to install NumPy and Numba from: {finished.stderr.splitlines()[-1]}"
            )
        pytest.fail(finished.stderr)
    return commands


def clean() -> dict[str, str]:
    """The environment without what would let the clone be imported."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_the_wheel_holds_the_package_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"gsz", f"gsz-{gsz.__version__}.dist-info"}
    assert "gsz/py.typed" in names
    assert sorted(name for name in names if name.startswith("gsz/") and name.endswith(".py")) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "gsz").rglob("*.py")
    )


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert not (folder / "compress").exists()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (again,), (wheel,) = (tmp_path / "dist").glob("*.whl"), built.glob("*.whl")
    first, second = zipfile.ZipFile(wheel), zipfile.ZipFile(again)
    assert {name: first.read(name) for name in first.namelist()} == {
        name: second.read(name) for name in second.namelist()
    }


def test_golden_files_have_their_values_without_pytorch(fresh: Path, tmp_path: Path) -> None:
    read = [fresh / "python", "-c", READ_GOLDEN, GOLDEN]
    finished = subprocess.run(read, cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == sorted(path.name for path in GOLDEN.iterdir() if path.suffix != ".sha256")


def test_the_command_converts_without_pytorch(fresh: Path, tmp_path: Path) -> None:
    """To every format that can be written, and back, with the values that they have here."""
    splats = random_model(50, sh_degree=1)
    splats.save_ply(tmp_path / "model.ply")

    def command(*words: str) -> str:
        finished = subprocess.run([fresh / "gsz", *words], cwd=tmp_path, env=clean(), capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    for name in gsz.registry.names(writable_only=True):
        file = f"packed{gsz.registry.find(name).suffix}"
        assert command("convert", "model.ply", file).splitlines()[-1].startswith(f"wrote {file} ({name}): 50 Gaussians")
        assert f"format: {name}\n" in command("info", file)
        command("convert", file, "back.ply")
        assert checksum(gsz.read(tmp_path / "back.ply")) == checksum(gsz.read(tmp_path / file))
        labelled = splats.replace(metadata=gsz.read(tmp_path / file).metadata)
        assert (tmp_path / file).read_bytes() == gsz.write(tmp_path / file, labelled, name)


def requirements(file: str) -> list[Requirement]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (ROOT / file).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads TOML from Python 3.11 on")
def test_the_requirements_hold_what_the_package_depends_on() -> None:
    """What ``pip install gsz`` brings is in ``requirements.txt``, in versions that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = requirements("requirements.txt")
    for needed in map(Requirement, project["dependencies"]):
        found = [requirement for requirement in pinned if requirement.name.lower() == needed.name.lower()]
        assert found, f"requirements.txt lacks {needed.name}"
        for requirement in found:
            (pin,) = requirement.specifier
            assert pin.operator == "==" and Version(pin.version) in needed.specifier, f"{requirement} is not {needed}"
    for file in ("requirements.txt", "requirements-dev.txt"):
        names = [(requirement.name.lower(), str(requirement.marker)) for requirement in requirements(file)]
        assert len(set(names)) == len(names)
