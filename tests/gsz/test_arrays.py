"""Proves that the package reads, writes and converts every format in NumPy alone.

Nothing here imports PyTorch or another room, so that ``.ci/pythons`` can run it on every version of Python with nothing
installed but the package and pytest.
"""

from __future__ import annotations

import hashlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import gsz
from gsz import registry

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MODELS = sorted(path for path in GOLDEN.iterdir() if path.suffix != ".sha256")


def random_splats(count: int = 60, sh_degree: int = 3) -> gsz.Splats:
    """Gaussians of ordinary sizes within a few units, a tenth of a unit apart along x, so that they can be told."""
    random = np.random.default_rng(0)
    places = random.normal(0, 1, (count, 3))
    places[:, 0] = random.permutation(count) / 10 - count / 20
    return gsz.Splats.from_arrays(
        means=places,
        log_scales=random.normal(-3, 0.5, (count, 3)),
        quaternions=random.normal(0, 1, (count, 4)),
        opacity_logits=random.normal(0, 2, (count, 1)),
        sh_dc=random.normal(0, 0.5, (count, 1, 3)),
        sh_rest=random.normal(0, 0.05, (count, (sh_degree + 1) ** 2 - 1, 3)),
    )


def by_place(splats: gsz.Splats) -> np.ndarray:
    """``(N, 10)`` what is drawn where, ordered by x: centers, extents of the covariance, opacities, and times those
    colors."""
    turned = splats.quaternions / np.linalg.norm(splats.quaternions, axis=1, keepdims=True)
    w, x, y, z = turned.T
    rotations = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    variances = (rotations**2 @ np.exp(2 * splats.log_scales)[:, :, None])[:, :, 0]
    opacities = 1 / (1 + np.exp(-splats.opacity_logits))
    rows = np.hstack([splats.means, np.sqrt(variances), opacities, opacities * splats.sh_dc[:, 0]])
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.parametrize("name", registry.names(writable_only=True))
@pytest.mark.parametrize("sh_degree", [0, 3])
def test_every_format_gives_back_what_is_drawn(name: str, sh_degree: int, tmp_path: Path):
    splats, path = random_splats(sh_degree=sh_degree), tmp_path / "model"
    data = gsz.write(path, splats, name)
    read = gsz.read(path)
    assert all(isinstance(array, np.ndarray) for _, array in read.named_parameters())
    assert (len(read), read.sh_degree) == (len(splats), sh_degree)
    np.testing.assert_allclose(by_place(read), by_place(splats), atol=0.05)
    assert len(data) == path.stat().st_size == gsz.info(path)["file_bytes"]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_golden_files_have_their_values(path: Path):
    splats = gsz.read(path)
    table = np.hstack([array.reshape(len(splats), -1) for _, array in splats.named_parameters()])
    bits = np.ascontiguousarray(table).view("<u4")
    bits = bits[np.lexsort(bits.T[::-1])]
    assert hashlib.sha256(bits.tobytes()).hexdigest() == Path(f"{path}.sha256").read_text().split()[0]


def test_a_damaged_file_is_one_line(tmp_path: Path):
    path = tmp_path / "damaged.gsz"
    gsz.write(path, random_splats())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(gsz.UserError) as raised:
        gsz.read(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


@pytest.mark.parametrize("words", [["convert.py", "model.ply"], ["read_in_python.py", "model.ply", "opaque.ply"]])
def test_examples_need_nothing_else(words: list[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    gsz.write("model.ply", random_splats())
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(root / "examples" / words[0]), run_name="__main__")
    assert len(list(tmp_path.iterdir())) == {"convert.py": 4, "read_in_python.py": 2}[words[0]]
