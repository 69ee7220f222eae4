"""Proves that the package compiles little, once and where it may, and leaves the Numba of whoever imports it alone."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from gsz import kernels
from gsz.kernels import SERIAL, Kernels, announced

ROOT = Path(__file__).parents[2]

SETTINGS = """
import numba
before = dict(vars(numba.config))
import gsz.native, gsz.fast3dgs, gsz.sog, gsz.spz
after = dict(vars(numba.config))
print([name for name in before if not name.startswith("_") and before[name] is not after[name]])
"""

SPECIALIZATIONS = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from gsz.native import GszCodec
from gsz.splats import Splats

rng = np.random.default_rng(0)
for coefficients in (0, 3, 8, 15):
    shapes = ((3,), (3,), (4,), (1,), (1, 3), (coefficients, 3))
    splats = Splats.from_arrays(*(rng.normal(0, 0.3, (2000, *shape)) for shape in shapes))
    for _, array in splats.named_parameters():
        array.flags.writeable = False
    for codec in (GszCodec(), GszCodec(quality="tiny", layers=1), GszCodec(grid="fast3dgs")):
        codec.decode(codec.fit(splats).encode(splats))
members = [item for name, module in sys.modules.items() if name.startswith("gsz.") for item in vars(module).values()]
kernels = {id(item): item for item in members if isinstance(item, Dispatcher)}.values()
for kernel in kernels:
    if len(kernel.signatures) > 1:
        print(kernel.py_func.__name__, kernel.signatures)
print(sum(len(kernel.signatures) for kernel in kernels))
"""


def printed(program: str) -> list[str]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def test_importing_the_package_changes_no_setting_of_numba() -> None:
    assert printed(SETTINGS) == ["[]"]


def test_every_kernel_of_gsz_is_compiled_for_one_kind_of_arguments() -> None:
    """Each further one would be compiled at first use, which takes as long as all else that a conversion does."""
    (number,) = printed(SPECIALIZATIONS)
    assert int(number) < 35


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "module.py").write_text("ANSWER = 42\n")
    return folder


def test_compiled_code_lies_in_the_package_or_else_in_the_users_cache(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(kernels, "_user_cache", lambda: tmp_path / "user")
    cache = Kernels(package).cache
    assert cache is not None and cache.parent == package / "__pycache__"
    monkeypatch.setattr(kernels, "_can_write", lambda folder: package not in folder.parents)
    cache = Kernels(package).cache
    assert cache is not None and cache.parent == tmp_path / "user" / "gsz"
    monkeypatch.setattr(kernels, "_can_write", lambda folder: False)
    assert Kernels(package).cache is None
    monkeypatch.undo()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    cache = Kernels(package).cache
    assert cache is not None and cache.parent == tmp_path / "chosen"


def test_without_a_place_for_compiled_code_kernels_work_all_the_same(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_can_write", lambda folder: False)
    double = Kernels(package).njit(**SERIAL)(lambda value: 2 * value)
    assert double(21) == 42


def test_other_sources_have_another_place(package: Path) -> None:
    """A kernel is compiled together with what it calls and with constants of other files."""
    caches = [Kernels(package).cache, Kernels(package, variant="scalar").cache]
    (package / "module.py").write_text("ANSWER = 43\n")
    caches.append(Kernels(package).cache)
    assert len(set(caches)) == 3


def test_what_has_to_be_compiled_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = (numba.njit(lambda values: values.sum()) for _ in range(3))
    with caplog.at_level(logging.INFO, "gsz"):
        with announced("the sums of a test"):
            first(np.ones(3))
            second(np.ones(3))
        with announced("the sums of a test"):
            first(np.ones(3))
            third(np.ones(3))
    assert [record.getMessage() for record in caplog.records] == [
        "compiling the sums of a test; this takes a few seconds, once"
    ]
