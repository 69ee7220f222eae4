"""Proves that PLY files survive a round trip, are read whoever wrote them, and that damaged ones are refused.

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

from gsz.cleaning import FLAT_LOG_SCALE
from gsz.errors import UserError
from gsz.ply import read_ply, save_ply, with_filter_3d, write_ply
from gsz.splats import SH_C0, Splats
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


# --- What other programs write ----------------------------------------------------------------------------------------


def read(path: Path) -> Splats:
    with path.open("rb") as stream:
        return read_ply(stream, str(path))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_comments_of_any_bytes(tmp_path: Path, newline: bytes) -> None:
    """In any place of the header, with the words of a header in them, and in Latin letters that are no UTF-8."""
    path = tmp_path / "model.ply"
    plain = saved(path, degree=1)
    expected = read(path)
    head, data = plain.split(b"end_header\n")
    comments = ["élan".encode(), "élan".encode("latin-1"), b"\x00\xff\xfe", b"end_header", b"element vertex 9", b""]
    lines = head.splitlines()
    for place, comment in enumerate(comments):
        lines.insert(2 + 3 * place, b"comment " + comment)
        lines.insert(2 + 3 * place, b"obj_info " + comment)
    path.write_bytes(newline.join([*lines, b"end_header", b""]) + data)
    assert_same(read(path), expected)


def test_carriage_returns_alone_end_lines_of_old_files(tmp_path: Path) -> None:
    """The first byte of the data may be a line feed."""
    columns = plain_columns(count=2)
    columns["x"][0] = np.frombuffer(b"\n\n\n\n", "<f4")[0]
    write_by_others(tmp_path / "model.ply", columns)
    head, data = (tmp_path / "model.ply").read_bytes().split(b"end_header\n")
    (tmp_path / "old.ply").write_bytes(head.replace(b"\n", b"\r") + b"end_header\r" + data)
    assert_same(read(tmp_path / "old.ply"), read(tmp_path / "model.ply"))


def test_words_for_nan_and_infinity_are_read(tmp_path: Path) -> None:
    """As printed by C libraries of different systems."""
    write_by_others(tmp_path / "model.ply", plain_columns(count=6), text=True)
    lines = (tmp_path / "model.ply").read_text().splitlines()
    start = lines.index("end_header") + 1
    for row, word in enumerate(["nan", "-nan(ind)", "inf", "-1e999", "1.#INF", "-1.#IND"]):
        lines[start + row] = " ".join([word, *lines[start + row].split()[1:]])
    (tmp_path / "words.ply").write_text("\n\n".join(lines[start:]).join(["\n".join([*lines[:start], ""]), "\n"]))
    expected = [np.nan, np.nan, np.inf, -np.inf, np.inf, np.nan]
    np.testing.assert_array_equal(read(tmp_path / "words.ply").means[:, 0], expected)


def test_two_scales_of_2dgs_get_a_flat_third(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    columns = plain_columns()
    del columns["scale_2"]
    write_by_others(tmp_path / "model.ply", columns)
    splats = read(tmp_path / "model.ply")
    np.testing.assert_array_equal(splats.log_scales[:, 1], columns["scale_1"])
    assert (splats.log_scales[:, 2] == FLAT_LOG_SCALE).all()
    assert len(caplog.messages) == 1 and "two scales, as 2DGS writes" in caplog.text


@pytest.mark.parametrize(("dtype", "full"), [("u1", 255), ("<u2", 65535), ("<i4", 255), ("<f4", 1), ("<f4", 255)])
def test_red_green_and_blue_for_harmonics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str, full: int
) -> None:
    caplog.set_level("INFO")
    columns = plain_columns()
    for name, harmonic in zip(("red", "green", "blue"), FRONT, strict=True):
        columns[name] = np.abs(columns.pop(harmonic)) % 1 * full
    rows = np.empty(5, [(name, dtype if name in ("red", "green", "blue") else "<f4") for name in columns])
    for name, column in columns.items():
        rows[name] = column
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "model.ply"))
    colors = 0.5 + SH_C0 * read(tmp_path / "model.ply").sh_dc[:, 0].astype(np.float64)
    np.testing.assert_allclose(colors[:, 1] * full, rows["green"], atol=1e-6 * full)
    assert len(caplog.messages) == 1 and "red, green and blue without f_dc_*" in caplog.text


@pytest.mark.parametrize("text", [False, True])
def test_opacities_in_a_byte_are_no_logits(tmp_path: Path, text: bool) -> None:
    columns = plain_columns()
    rows = np.empty(5, [(name, "u1" if name == "opacity" else "<f4") for name in columns])
    for name, column in columns.items():
        rows[name] = column
    rows["opacity"] = 0, 1, 51, 128, 255
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(tmp_path / "model.ply"))
    opacities = 1 / (1 + np.exp(-read(tmp_path / "model.ply").opacity_logits[:, 0].astype(np.float64)))
    np.testing.assert_allclose(opacities, rows["opacity"] / 255, atol=1e-6)


def test_a_colored_point_cloud_is_called_one(tmp_path: Path) -> None:
    write_by_others(tmp_path / "model.ply", {name: np.ones(3) for name in ("x", "y", "z", "red", "green", "blue")})
    refused(
        tmp_path / "model.ply", "lacks the properties opacity, scale_0", "red, green and blue alone make a point cloud"
    )


def test_the_filter_of_mip_splatting_is_folded_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Against the formula in its plain form: variances add, and opacity falls by the root of the determinants."""
    caplog.set_level("INFO")
    columns = plain_columns(count=50)
    columns["filter_3D"] = np.abs(np.random.default_rng(1).normal(size=50)).astype(np.float32)
    columns["filter_3D"][0] = 0
    write_by_others(tmp_path / "model.ply", columns)
    splats = read(tmp_path / "model.ply")
    variances = np.exp(2 * np.stack([columns[f"scale_{axis}"] for axis in range(3)], 1).astype(np.float64))
    wider = variances + columns["filter_3D"].astype(np.float64)[:, None] ** 2
    np.testing.assert_allclose(np.exp(2 * splats.log_scales.astype(np.float64)), wider, rtol=1e-5)
    opacities = 1 / (1 + np.exp(-columns["opacity"].astype(np.float64)))
    opacities *= np.sqrt(variances.prod(1) / wider.prod(1))
    np.testing.assert_allclose(1 / (1 + np.exp(-splats.opacity_logits[:, 0].astype(np.float64))), opacities, rtol=1e-5)
    np.testing.assert_allclose(splats.log_scales[0], [columns[f"scale_{axis}"][0] for axis in range(3)], rtol=1e-6)
    assert len(caplog.messages) == 1 and "filter_3D is folded" in caplog.text


def test_the_filter_at_the_ends_of_its_range() -> None:
    """Opaque and flat Gaussians and no filter at all give what the formula's limits are, and never NaN."""
    inf = np.float32(np.inf)
    logs, logits = with_filter_3d(
        np.array([[0, 0, 0], [0, 0, -inf], [-inf, -inf, -inf], [1, 2, 3], [5, 5, 5]], np.float32),
        np.array([[inf], [3], [3], [-inf], [inf]], np.float32),
        np.array([[1], [1], [0], [1], [0]], np.float32),
    )
    np.testing.assert_allclose(logs[:2], [[np.log(2) / 2] * 3, [np.log(2) / 2] * 2 + [0]], rtol=1e-6)
    assert (logs[2] == -inf).all() and logs[4].tolist() == [5, 5, 5]
    np.testing.assert_allclose(logits[0], np.log(8**-0.5 / (1 - 8**-0.5)), rtol=1e-6)
    assert logits[1:].ravel().tolist() == [-inf, 3, -inf, inf]


UTM = np.array([446_123.25, 5_411_987.5, 212.125])


def test_doubles_far_from_the_origin_keep_their_shape(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An offset carries them through the model, and back into the file."""
    caplog.set_level("INFO")
    columns = {name: column.astype(np.float64) for name, column in plain_columns(count=50).items()}
    placed = np.stack([columns[axis] for axis in "xyz"], 1) + UTM
    columns.update(zip("xyz", placed.T, strict=True))
    write_by_others(tmp_path / "model.ply", columns, "f8")
    splats = read(tmp_path / "model.ply")
    assert splats.offset is not None and splats.offset.dtype == np.float64
    assert (splats.offset == np.round(splats.offset)).all() and np.abs(splats.offset - UTM).max() < 2
    np.testing.assert_allclose(splats.means + splats.offset, placed, rtol=0, atol=1e-6)
    assert len(caplog.messages) == 1 and "offset [446123.0, 5411988.0, 212.0]" in caplog.text

    for carried in (splats, GaussianModel.of(splats), splats.select(np.arange(50)), GaussianModel.of(splats).clone()):
        carried_path = tmp_path / "again.ply"
        save_ply(carried, carried_path)
        rows = PlyData.read(str(carried_path))["vertex"]
        assert [rows.ply_property(name).val_dtype for name in ("x", "z", "nx", "opacity")] == ["f8", "f8", "f4", "f4"]
        np.testing.assert_array_equal(rows["y"], splats.means[:, 1].astype(np.float64) + splats.offset[1])
        assert_same(read(carried_path), splats)


def test_doubles_near_the_origin_need_no_offset(tmp_path: Path) -> None:
    columns = {name: column.astype(np.float64) for name, column in plain_columns(count=50).items()}
    columns["x"] += 1000
    columns["y"][0] = 1e300
    write_by_others(tmp_path / "model.ply", columns, "f8")
    splats = read(tmp_path / "model.ply")
    assert splats.offset is None and splats.means[0, 1] == np.inf


@pytest.mark.parametrize("comment", ["SplatRenderMode: mip", "antialiased 1", None])
def test_antialiased_models_say_so(tmp_path: Path, comment: str | None) -> None:
    path = tmp_path / "model.ply"
    data = saved(path)
    if comment:
        path.write_bytes(data.replace(b"element", f"comment {comment}\nelement".encode(), 1))
    splats = read(path)
    assert splats.antialiased == bool(comment)
    save_ply(GaussianModel.of(splats), path)
    assert read(path).antialiased == bool(comment)
    assert (path.read_bytes() == data) == (comment is None)


# --- Bad input -------------------------------------------------------------------------------------------------------


def refused(path: Path, *said: str) -> None:
    """Reading fails with one line that names the file and contains what is expected."""
    with pytest.raises(UserError) as caught, path.open("rb") as stream:
        read_ply(stream, str(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in said:
        assert part in message


def saved(path: Path, **arguments: int) -> bytes:
    random_model(**arguments).save_ply(path)
    return path.read_bytes()


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
def test_invalid_counts_are_refused(tmp_path: Path, count: bytes) -> None:
    path = tmp_path / "model.ply"
    path.write_bytes(saved(path).replace(b"element vertex 7", b"element vertex " + count))
    refused(path, "declares")


def test_elements_without_properties_must_fit_the_file(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", sorted({*REQUIRED} - {"scale_2"}))
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


@pytest.mark.parametrize("where", ["required", "extra", "before"])
def test_list_properties_are_refused(tmp_path: Path, where: str) -> None:
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
