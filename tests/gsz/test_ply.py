"""Proves that PLY files survive a round trip, are read by name whoever wrote them, and that bad ones are refused.

The files of "another program" are assembled here byte by byte or with plyfile, never with the writer under test.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from gsz.errors import UserError
from gsz.ply import read_ply, write_ply
from gsz.splats import Splats
from scene.gaussian_model import GaussianModel

COEFFICIENTS = {0: 0, 1: 3, 2: 8, 3: 15}
FRONT = ["f_dc_0", "f_dc_1", "f_dc_2"]
BACK = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
REQUIRED = ["x", "y", "z", *FRONT, *BACK]


def random_model(count: int = 7, degree: int = 3, seed: int = 0) -> GaussianModel:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    return GaussianModel(normal(3), normal(3), normal(4), normal(1), normal(1, 3), normal(COEFFICIENTS[degree], 3))


def assert_same(one: Splats, other: Splats) -> None:
    pairs = zip(one.numpy().named_parameters(), other.numpy().named_parameters(), strict=True)
    for (name, expected), (_, actual) in pairs:
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, expected, name)


def records(columns: dict[str, np.ndarray], dtype: str = "<f4") -> np.ndarray:
    rows = np.empty(len(next(iter(columns.values()))), [(name, dtype) for name in columns])
    for name, column in columns.items():
        rows[name] = column
    return rows


def plain_columns(count: int = 5, rest: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    names = [*REQUIRED, *(f"f_rest_{i}" for i in range(rest))]
    return {name: generator.normal(size=count).astype(np.float32) for name in names}


def write_by_others(path: Path, columns: dict[str, np.ndarray], dtype: str = "<f4", **format_: object) -> None:
    PlyData([PlyElement.describe(records(columns, dtype), "vertex")], **format_).write(str(path))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_round_trip_is_exact(tmp_path: Path, degree: int, count: int) -> None:
    model = random_model(count, degree)
    model.save_ply(tmp_path / "deep" / "model.ply")
    read = GaussianModel.load_ply(tmp_path / "deep" / "model.ply", sh_degree=degree)
    assert (len(read), read.sh_degree) == (count, degree)
    assert_same(model, read)


def test_file_has_inria_layout(tmp_path: Path) -> None:
    model = random_model(3, 1)
    model.save_ply(tmp_path / "model.ply")
    ply = PlyData.read(str(tmp_path / "model.ply"))
    expected = ["x", "y", "z", "nx", "ny", "nz", *FRONT, *(f"f_rest_{i}" for i in range(9)), *BACK]
    assert [prop.name for prop in ply["vertex"].properties] == expected
    assert {prop.val_dtype for prop in ply["vertex"].properties} == {"f4"}
    assert (ply.text, ply.byte_order, len(ply.elements)) == (False, "<", 1)
    assert not ply["vertex"]["ny"].any()
    # All coefficients of red, then of green, then of blue.
    np.testing.assert_array_equal(ply["vertex"]["f_rest_1"], model.sh_rest[:, 1, 0])
    np.testing.assert_array_equal(ply["vertex"]["f_rest_3"], model.sh_rest[:, 0, 1])
    np.testing.assert_array_equal(ply["vertex"]["f_rest_8"], model.sh_rest[:, 2, 2])
    np.testing.assert_array_equal(ply["vertex"]["f_dc_2"], model.sh_dc[:, 0, 2])


@pytest.mark.parametrize("form", [{"byte_order": "<"}, {"byte_order": ">"}, {"text": True}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_reads_by_name_not_by_position(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: dict, dtype: str
) -> None:
    caplog.set_level("INFO")
    columns = plain_columns(count=6, rest=24)
    shuffled = dict(sorted(columns.items(), key=lambda item: item[0][::-1]))
    shuffled = {"confidence": np.ones(6), **shuffled, "nx": np.ones(6), "label": np.zeros(6)}
    write_by_others(tmp_path / "other.ply", shuffled, dtype, **form)
    caplog.set_level("INFO")
    model = GaussianModel.load_ply(tmp_path / "other.ply")
    assert model.sh_degree == 2
    np.testing.assert_array_equal(model.means.numpy()[:, 1], columns["y"])
    np.testing.assert_array_equal(model.quaternions.numpy()[:, 3], columns["rot_3"])
    np.testing.assert_array_equal(model.log_scales.numpy()[:, 2], columns["scale_2"])
    np.testing.assert_array_equal(model.opacity_logits.numpy()[:, 0], columns["opacity"])
    np.testing.assert_array_equal(model.sh_dc.numpy()[:, 0, 1], columns["f_dc_1"])
    for channel in range(3):
        for k in range(8):
            np.testing.assert_array_equal(model.sh_rest.numpy()[:, k, channel], columns[f"f_rest_{8 * channel + k}"])
    lines = caplog.messages
    assert len(lines) == 1 and "confidence, label" in lines[0] and "nx" not in lines[0]


def test_reads_other_elements_and_crlf_headers(tmp_path: Path) -> None:
    columns = plain_columns(count=2)
    header = "ply\r\nformat binary_little_endian 1.0\r\ncomment element vertex 9\r\n"
    header += "element camera 3\r\nproperty double focal\r\nelement vertex 2\r\n"
    header += "".join(f"property float {name}\r\n" for name in columns)
    header += "element face 1\r\nproperty list uchar int index\r\nend_header\r\n"
    rows = np.stack(list(columns.values()), axis=1).astype("<f4").tobytes()
    (tmp_path / "mixed.ply").write_bytes(header.encode() + bytes(24) + rows + b"\3" + bytes(12))
    model = GaussianModel.load_ply(tmp_path / "mixed.ply")
    np.testing.assert_array_equal(model.means.numpy()[:, 0], columns["x"])


def test_normals_alone_are_not_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    random_model().save_ply(tmp_path / "model.ply")
    GaussianModel.load_ply(tmp_path / "model.ply")
    assert caplog.messages == []


def test_streams_of_bytes(tmp_path: Path) -> None:
    model, stream = random_model(degree=1), io.BytesIO()
    write_ply(model, stream)
    assert_same(model, read_ply(io.BytesIO(stream.getvalue()), "memory"))


def test_gradients_do_not_hinder_saving(tmp_path: Path) -> None:
    model = random_model().requires_grad_()
    model.save_ply(tmp_path / "model.ply")
    assert_same(model.detach(), GaussianModel.load_ply(tmp_path / "model.ply"))


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ply"
    random_model(seed=1).save_ply(path)
    before = path.read_bytes()
    broken = random_model()
    broken.sh_dc = broken.sh_dc[:3]
    with pytest.raises(ValueError):
        broken.save_ply(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_million_gaussians_in_time(tmp_path: Path) -> None:
    """2 s to read and 3 s to write, in CPU seconds, so that a busy machine does not fail the test."""
    model = random_model(500_000, 3)
    start = time.process_time()
    model.save_ply(tmp_path / "big.ply")
    written = time.process_time()
    GaussianModel.load_ply(tmp_path / "big.ply")
    assert written - start < 3.0
    assert time.process_time() - written < 2.0


# --- Bad input -------------------------------------------------------------------------------------------------------


def refused(path: Path, *said: str, sh_degree: int | None = None) -> None:
    """Loading fails with one line that names the file and contains what is expected."""
    with pytest.raises(UserError) as caught:
        GaussianModel.load_ply(path, sh_degree)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in said:
        assert part in message


def saved(path: Path, **arguments: int) -> bytes:
    random_model(**arguments).save_ply(path)
    return path.read_bytes()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.ply", "No such file", "check the path")
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"plx\n", bytes(3000)])
def test_not_a_ply(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.ply").write_bytes(content)
    refused(tmp_path / "model.ply", "is not a PLY file")


@pytest.mark.parametrize("keep", [4, 50, 400])
def test_cut_in_the_header(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path)[:keep])
    refused(path, "header does not end")


@pytest.mark.parametrize("missing", [1, 100, 7 * 62 * 4])
def test_cut_in_the_data(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path)[:-missing])
    refused(path, "truncated")


@pytest.mark.parametrize("count", [b"8", b"4000000000", b"9" * 18])
@pytest.mark.parametrize("kind", [b"binary_little_endian", b"ascii"])
def test_absurd_counts_allocate_nothing(tmp_path: Path, count: bytes, kind: bytes) -> None:
    path = tmp_path / "model.ply"
    data = saved(path).replace(b"element vertex 7", b"element vertex " + count)
    path.write_bytes(data.replace(b"binary_little_endian", kind))
    # ASCII rows may be shorter than binary ones, so one more of them may only show while they are read.
    refused(path, "truncated" if kind != b"ascii" or len(count) > 1 else "does not fit its header")


@pytest.mark.parametrize("count", [b"-1", b"1e3", b"9" * 40, b"x"])
def test_counts_that_are_none(tmp_path: Path, count: bytes) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(b"element vertex 7", b"element vertex " + count))
    refused(path, "declares")


def test_rows_of_nothing_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(b"element vertex", b"element free 99999999999\nelement vertex"))
    refused(path, "truncated")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"property float x\n", b"property float\n"),
        (b"property float x\n", b"property quaternion x\n"),
        (b"property float x\n", b"property float y\n"),
        (b"format binary_little_endian 1.0", b"format zip 1.0"),
        (b"element vertex 7", b"element vertex 7 7"),
        (b"element vertex 7", b"element vertex"),
        (b"format", b"\xff\xfe"),
    ],
)
def test_damaged_headers(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(old, new, 1))
    refused(path, "header")


def test_no_vertices(tmp_path: Path) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(b"element vertex", b"element points"))
    refused(path, "no vertex element")


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_properties(tmp_path: Path, name: str) -> None:
    columns = plain_columns()
    del columns[name]
    write_by_others(tmp_path / "model.ply", columns)
    refused(tmp_path / "model.ply", f"lacks the properties {name};")


def test_a_mesh_is_not_a_model(tmp_path: Path) -> None:
    write_by_others(tmp_path / "model.ply", {name: np.zeros(3) for name in "xyz"})
    refused(tmp_path / "model.ply", "lacks the properties f_dc_0", "and 3 more")


@pytest.mark.parametrize("rest", [1, 8, 10, 44, 48, 72])
def test_wrong_number_of_coefficients(tmp_path: Path, rest: int) -> None:
    write_by_others(tmp_path / "model.ply", plain_columns(rest=rest))
    refused(tmp_path / "model.ply", f"has {rest} f_rest_*", "0, 9, 24, 45")


def test_gap_in_the_coefficients(tmp_path: Path) -> None:
    columns = plain_columns(rest=10)
    del columns["f_rest_4"]
    write_by_others(tmp_path / "model.ply", columns)
    refused(tmp_path / "model.ply", "lacks the properties f_rest_4")


def test_other_degree_than_asked_for(tmp_path: Path) -> None:
    saved(tmp_path / "model.ply", degree=1)
    refused(tmp_path / "model.ply", "of degree 1, not 3", "--sh_degree 1", sh_degree=3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("z", "means"),
        ("scale_1", "log_scales"),
        ("rot_0", "quaternions"),
        ("opacity", "opacity_logits"),
        ("f_dc_2", "sh_dc"),
        ("f_rest_5", "sh_rest"),
    ],
)
def test_numbers_that_are_none(tmp_path: Path, name: str, called: str, value: float) -> None:
    columns = plain_columns(rest=9)
    columns[name][[1, 3]] = value
    write_by_others(tmp_path / "model.ply", columns)
    refused(tmp_path / "model.ply", f"{called} is NaN or infinite for 2 of 5")


def test_doubles_beyond_float32(tmp_path: Path) -> None:
    columns = {name: column.astype(np.float64) for name, column in plain_columns().items()}
    columns["x"][0] = 1e300
    write_by_others(tmp_path / "model.ply", columns, "f8")
    refused(tmp_path / "model.ply", "means is NaN or infinite for 1 of 5")


@pytest.mark.parametrize("where", ["required", "extra", "before"])
def test_lists(tmp_path: Path, where: str) -> None:
    path = tmp_path / "model.ply"
    old, new = {
        "required": (b"property float x\n", b"property list uchar float x\n"),
        "extra": (b"property float nx\n", b"property list uchar float many\n"),
        "before": (b"element vertex", b"element face 0\nproperty list uchar int index\nelement vertex"),
    }[where]
    path.write_bytes(saved(path).replace(old, new))
    refused(path, "lists")


@pytest.mark.parametrize("damage", ["word", "short", "long"])
def test_damaged_text(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.ply"
    write_by_others(path, plain_columns(), text=True)
    lines = path.read_text().splitlines()
    lines[-2] = {"word": lines[-2] + "x", "short": lines[-2][:20], "long": lines[-2] + " 1"}[damage]
    path.write_text("\n".join(lines))
    refused(path, "does not fit its header" if damage != "short" else "")


def test_binary_behind_an_ascii_header(tmp_path: Path) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(b"binary_little_endian", b"ascii"))
    refused(path, "does not fit its header")


def test_any_damage_is_a_user_error(tmp_path: Path) -> None:
    """Bytes overwritten at random, mostly in the header: a model or a UserError, nothing else."""
    path = tmp_path / "model.ply"
    data = saved(path, count=3, degree=1)
    generator = np.random.default_rng(7)
    for _ in range(300):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data) // 2, 3):
            damaged[position] = generator.integers(0, 256)
        try:
            read_ply(io.BytesIO(bytes(damaged)), "damaged")
        except UserError as error:
            assert str(error).startswith("damaged: ")
