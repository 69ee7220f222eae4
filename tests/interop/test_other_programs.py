"""Proves with other people's programs that they read our SPZ and SOG files to the values that ``snap`` shows, and that
we read theirs as they do themselves.

``make test-interop`` installs the programs into ``.interop`` and runs this: splat-transform (npm, which reads SPZ by
Niantic's own library) and gsply (PyPI). Of splat-transform there are two versions: up to 2 it turns the axes of SPZ to
INRIA's, from 3 on it takes them to be INRIA's. Where the programs are missing these tests are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gsz import registry
from gsz.ply_header import columns, read_header, read_vertices
from gsz.registry import Codec
from gsz.rounding.axes import sh_signs
from gsz.splats import Splats
from scene.gaussian_model import GaussianModel
from scene.rotations import rotation_matrices
from tests.helpers import assert_same_up_to_order, random_model
from tests.viewer_helpers import source_model

INTEROP = Path(__file__).parent.parent.parent / ".interop"
SPLAT_TRANSFORM = INTEROP / "node_modules" / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
NEWER_SPLAT_TRANSFORM = INTEROP / "newer" / "node_modules" / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
GSPLY_PYTHON = INTEROP / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"

needs_splat_transform = pytest.mark.skipif(
    not SPLAT_TRANSFORM.exists(), reason="splat-transform is not installed; make test-interop does it where Node is"
)
needs_newer_splat_transform = pytest.mark.skipif(
    not NEWER_SPLAT_TRANSFORM.exists(), reason="splat-transform 3 is not installed; make test-interop does it"
)
needs_gsply = pytest.mark.skipif(not GSPLY_PYTHON.exists(), reason="gsply is not installed; make test-interop does it")

WRITERS = {
    "spz-v2": registry.get("spz", version=2),
    "spz-v3": registry.get("spz"),
    "spz-v4": registry.get("spz", version=4),
    "spz-fine": registry.get("spz", version=3, fractional_bits=17, sh_bits=16),
    "sog": registry.get("sog"),
    "sog-palette": registry.get("sog", palette=100),
}


def models() -> dict[str, GaussianModel]:
    """A real model, and random ones of every SH degree with some extremes."""
    extreme = random_model(700, sh_degree=3, seed=5)
    extreme.opacity_logits[:20] = 30.0
    extreme.opacity_logits[20:40] = -30.0
    extreme.means[0] = 900.0
    return {
        "demo": source_model(),
        "extreme": extreme,
        **{f"degree {degree}": random_model(300, degree, seed=degree) for degree in range(3)},
    }


def splat_transform(*arguments: str | Path, program: Path = SPLAT_TRANSFORM) -> None:
    run = subprocess.run(
        ["node", str(program), "-w", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr


def read_ply(path: Path) -> dict[str, np.ndarray]:
    """A PLY's parameters as they stand, infinite ones included, which the program itself refuses."""
    with path.open("rb") as stream:
        header = read_header(stream, str(path))
        rows = read_vertices(stream, header, str(path))
    rest = [name for name in header.names if name.startswith("f_rest_")]
    rest.sort(key=lambda name: int(name[7:]))
    return {
        "means": columns(rows, ["x", "y", "z"]),
        "log_scales": columns(rows, ["scale_0", "scale_1", "scale_2"]),
        "quaternions": columns(rows, ["rot_0", "rot_1", "rot_2", "rot_3"]),
        "opacity_logits": columns(rows, ["opacity"]),
        "sh_dc": columns(rows, ["f_dc_0", "f_dc_1", "f_dc_2"])[:, None],
        "sh_rest": columns(rows, rest).reshape(len(rows), 3, len(rest) // 3).transpose(0, 2, 1),
    }


GSPLY_READS = """
import sys, numpy
from gsply import sogread
from gsply.spz import read_spz
source, target = sys.argv[1:]
data = sogread(source) if source.endswith(".sog") else read_spz(source)
numpy.savez(target, means=data.means, log_scales=data.scales, quaternions=data.quats,
            opacity_logits=numpy.asarray(data.opacities).reshape(-1, 1), sh_dc=numpy.asarray(data.sh0)[:, None],
            sh_rest=numpy.zeros((len(data.means), 0, 3)) if data.shN is None else data.shN)
"""


def gsply_reads(path: Path) -> dict[str, np.ndarray]:
    """What gsply reads, with the axes of SPZ, which it leaves as they are stored, turned to INRIA's."""
    target = path.with_suffix(".npz")
    run = subprocess.run(
        [str(GSPLY_PYTHON), "-c", GSPLY_READS, str(path), str(target)], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    with np.load(target) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    if path.suffix == ".spz":
        values["means"] = values["means"] * [1, -1, -1]
        values["quaternions"] = values["quaternions"] * [1, 1, -1, -1]
        values["sh_rest"] = values["sh_rest"] * sh_signs(y=-1, z=-1)[: values["sh_rest"].shape[1], None]
    return values


def assert_equal_values(theirs: dict[str, np.ndarray], ours: Splats, **tolerances: float) -> None:
    """Equal to a millionth, or for the parameters named to another share of the value or absolute difference."""
    for name, array in ours.numpy().named_parameters():
        tolerance = tolerances.get(name, 1e-6)
        np.testing.assert_allclose(theirs[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def rounding(writer: str) -> dict[str, float]:
    """Version 2 stores no real parts; where one is nearly 0 it is what single precision leaves of a difference."""
    return {"quaternions": 1e-3} if writer == "spz-v2" else {}


def written(codec: Codec, model: GaussianModel, path: Path) -> Splats:
    """A file of ours, and its values in its order."""
    grid = codec.fit(model)
    path.write_bytes(grid.encode(model))
    decoded = codec.decode(path.read_bytes())
    assert_same_up_to_order(decoded, grid.snap(model))
    return decoded


@needs_splat_transform
@pytest.mark.parametrize("model", models())
@pytest.mark.parametrize("writer", WRITERS)
def test_splat_transform_reads_our_files(writer: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{WRITERS[writer].suffix}"
    decoded = written(WRITERS[writer], models()[model], path)
    splat_transform(path, tmp_path / "back.ply")
    assert_equal_values(read_ply(tmp_path / "back.ply"), decoded, **rounding(writer))


@needs_gsply
@pytest.mark.parametrize("writer", WRITERS)
def test_gsply_reads_our_files(writer: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{WRITERS[writer].suffix}"
    decoded = written(WRITERS[writer], models()["extreme"], path)
    # It computes logits, and the positions of SOG, in single precision throughout.
    assert_equal_values(gsply_reads(path), decoded, means=2e-5, opacity_logits=1e-5, **rounding(writer))


@needs_splat_transform
@pytest.mark.parametrize("name", ["their.sog", "v3.spz", "v4.spz", "their.compressed.ply"])
def test_we_read_splat_transforms_files(name: str, tmp_path: Path) -> None:
    model = random_model(60, sh_degree=0 if name.endswith(".sog") else 3)
    model.opacity_logits.clamp_(-5, 5)
    model.save_ply(tmp_path / "model.ply")
    options = {"v3.spz": ["--spz-version", "3"], "their.sog": ["-g", "cpu"]}.get(name, [])
    splat_transform(*options, tmp_path / "model.ply", tmp_path / name)
    splat_transform(tmp_path / name, tmp_path / "back.ply")
    assert_equal_values(read_ply(tmp_path / "back.ply"), registry.read(tmp_path / name))


@needs_newer_splat_transform
@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("model", ["demo", "extreme"])
def test_splat_transform_3_reads_our_spz_with_axes_rdf(version: int, model: str, tmp_path: Path) -> None:
    codec = registry.get("spz", version=version, axes="rdf")
    decoded = written(codec, models()[model], tmp_path / "model.spz")
    splat_transform(tmp_path / "model.spz", tmp_path / "back.ply", program=NEWER_SPLAT_TRANSFORM)
    assert_equal_values(read_ply(tmp_path / "back.ply"), decoded, **rounding(f"spz-v{version}"))


@needs_newer_splat_transform
@pytest.mark.parametrize("version", ["3", "4"])
def test_we_read_the_spz_of_splat_transform_3_with_axes_rdf(version: str, tmp_path: Path) -> None:
    random_model(60).save_ply(tmp_path / "model.ply")
    options = ["--spz-version", version]
    splat_transform(*options, tmp_path / "model.ply", tmp_path / "their.spz", program=NEWER_SPLAT_TRANSFORM)
    splat_transform(tmp_path / "their.spz", tmp_path / "back.ply", program=NEWER_SPLAT_TRANSFORM)
    theirs, ours = read_ply(tmp_path / "back.ply"), registry.read(tmp_path / "their.spz", read_as="spz:axes=rdf")
    saturated = np.isinf(theirs["opacity_logits"])  # Where the byte is 255; finite with us.
    theirs["opacity_logits"] = np.where(saturated, ours.opacity_logits, theirs["opacity_logits"])
    assert_equal_values(theirs, ours)


@needs_splat_transform
@needs_newer_splat_transform
@pytest.mark.parametrize("program", [SPLAT_TRANSFORM, NEWER_SPLAT_TRANSFORM], ids=["2", "3"])
@pytest.mark.parametrize("degree", range(4))
def test_we_read_splat_transforms_gltf(program: Path, degree: int, tmp_path: Path) -> None:
    """A Gaussian's own axes may be reversed: it is the same Gaussian, and programs differ there."""
    model = random_model(60, degree)
    model.opacity_logits.clamp_(-5, 5)  # Nearer to 0 and 1, float32 opacities tell logits less well.
    model.save_ply(tmp_path / "model.ply")
    splat_transform(tmp_path / "model.ply", tmp_path / "their.glb", program=program)
    ours = registry.read(tmp_path / "their.glb")
    axes, expected = (rotation_matrices(GaussianModel.of(found).rotations) for found in (ours, model))
    np.testing.assert_allclose(np.abs((axes * expected).sum(axis=1)), 1.0, atol=1e-6)
    theirs = dict(model.numpy().named_parameters()) | {"quaternions": ours.quaternions}
    assert_equal_values(theirs, ours, opacity_logits=1e-5)


GSPLY_WRITES = """
import sys, gsply, gsply.spz
source, target = sys.argv[1:]
data = gsply.plyread(source)
if target.endswith(".spz"):
    gsply.spz.write_spz(target, data, version=int(target[-5]), fractional_bits=16)
else:
    gsply.plywrite(target, data, compressed=True)
"""


@needs_gsply
@needs_splat_transform
@pytest.mark.parametrize("name", ["v3.spz", "v4.spz", "their.compressed.ply"])
def test_we_read_gsplys_files(name: str, tmp_path: Path) -> None:
    """As splat-transform does, which turns the axes of SPZ as we do."""
    model = random_model(300, sh_degree=3)
    model.save_ply(tmp_path / "model.ply")
    command = [str(GSPLY_PYTHON), "-c", GSPLY_WRITES, str(tmp_path / "model.ply"), str(tmp_path / name)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    splat_transform(tmp_path / name, tmp_path / "back.ply")
    theirs, ours = read_ply(tmp_path / "back.ply"), registry.read(tmp_path / name)
    saturated = np.isinf(theirs["opacity_logits"])  # Where the byte is 255; finite with us.
    theirs["opacity_logits"] = np.where(saturated, ours.opacity_logits, theirs["opacity_logits"])
    assert_equal_values(theirs, ours)
