"""Proves the formats that are only read, compressed PLY, splat and ksplat: other programs' files have the values that
those programs decode, and look like the model they were made of; damaged files are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.compressed_ply import CompressedPlyCodec
from gsz.ksplat import HEADER as KSPLAT_HEADER_TYPE
from gsz.ksplat import SECTION, KsplatCodec, row_type
from gsz.ksplat import VERSION as KSPLAT_VERSION
from gsz.registry import CodecError
from gsz.splat import RECORD, SplatCodec
from scene.gaussian_model import GaussianModel
from tests.helpers import allocating_little
from tests.viewer_helpers import (
    VIEWER_FILES,
    assert_read_as,
    cameras_around,
    other_programs_files,
    pictures,
    psnr,
    source_model,
)


@pytest.mark.parametrize("name", other_programs_files("*.compressed.ply"))
def test_compressed_ply_of_other_programs(name: str) -> None:
    model = GaussianModel.of(registry.read(VIEWER_FILES / name))
    assert_read_as(model, name)
    info = registry.info(VIEWER_FILES / name)
    assert (info["format"], info["count"], info["sh_degree"]) == ("compressed-ply", 200, 3)
    assert info["bytes"] == {"chunk": 72, "vertex": 3200, "sh": 9000}
    splats = source_model()
    cameras = cameras_around(splats)
    assert psnr(pictures(model, cameras), pictures(splats, cameras)) > 38


def test_splat_of_another_program() -> None:
    name = "gaussforge_sh0.splat"
    model = GaussianModel.of(registry.read(VIEWER_FILES / name))
    # Bytes of rotations are around 128 in antimatter15's own converter, around 127.5 in splat-transform.
    assert_read_as(
        model.map(lambda tensor: torch.nn.functional.normalize(tensor, dim=1) if tensor.shape[1:] == (4,) else tensor),
        name,
        quaternions=0.01,
    )
    info = registry.info(VIEWER_FILES / name)
    assert (info["format"], info["count"], info["sh_degree"]) == ("splat", 200, 0)
    splats = source_model(sh_degree=0)
    cameras = cameras_around(splats)
    assert psnr(pictures(model, cameras), pictures(splats, cameras)) > 38


def test_splat_rotations_are_around_128() -> None:
    rows = np.zeros(2, RECORD)
    rows["scales"] = 0.5
    rows["wxyz"] = [[255, 128, 128, 128], [128, 128, 128, 128]]
    model = GaussianModel.of(SplatCodec().decode(rows.tobytes()))
    assert model.rotations.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    torch.testing.assert_close(model.scales, torch.full((2, 3), 0.5))


def test_files_without_magic_number_are_told_by_their_first_records(tmp_path: Path) -> None:
    data = (VIEWER_FILES / "gaussforge_sh0.splat").read_bytes()
    (tmp_path / "unnamed").write_bytes(data)
    assert registry.info(tmp_path / "unnamed")["format"] == "splat"
    rng = np.random.default_rng(0)
    assert not any(SplatCodec.recognizes(rng.bytes(512)) for _ in range(1000))
    for name in other_programs_files("*.s[po][zg]"):
        assert not SplatCodec.recognizes((VIEWER_FILES / name).read_bytes()[:512])


@pytest.mark.parametrize(("before", "after", "message"), [
    (b"element chunk 1", b"element chunk 2", "truncated or its header is wrong|do not make 2 chunks"),
    (b"element vertex 200", b"element vertex 900000000", "the header asks for"),
    (b"element vertex 200", b"element vertex \r900000000", "the header asks for"),
    (b"float min_x", b"float max_x", "repeats|twice|damaged|lacks min_x"),
    (b"uint packed_scale", b"int packed_scale", "lacks packed_scale"),
    (b"uchar f_rest_7\n", b"uchar f_rest_x\n", "lacks f_rest_7"),
    (b"property uchar f_rest_44\n", b"", "44 SH|44 numbers"),
    (b"format binary_little_endian", b"format ascii", "binary|asks for|damaged"),
])  # fmt: skip
def test_damaged_compressed_ply_is_refused(before: bytes, after: bytes, message: str) -> None:
    data = (VIEWER_FILES / "splat-transform_sh3.compressed.ply").read_bytes()
    assert before in data
    with allocating_little(), pytest.raises(CodecError, match=f"^f: .*({message})"):
        CompressedPlyCodec().decode(data.replace(before, after, 1), "f")


def test_ranges_that_are_not_numbers_are_refused() -> None:
    data = bytearray((VIEWER_FILES / "splat-transform_sh3.compressed.ply").read_bytes())
    start = data.index(b"end_header\n") + len(b"end_header\n")
    data[start : start + 4] = np.float32(np.nan).tobytes()
    with pytest.raises(CodecError, match=r"^f: corrupted, the range min_x of a chunk is not finite"):
        CompressedPlyCodec().decode(bytes(data), "f")


@pytest.mark.parametrize("name", other_programs_files("*.ksplat"))
def test_ksplat_of_its_program(name: str) -> None:
    model = GaussianModel.of(registry.read(VIEWER_FILES / name))
    assert_read_as(model, name)
    info = registry.info(VIEWER_FILES / name)
    assert (info["format"], info["version"], info["count"], info["sh_degree"]) == ("ksplat", "0.1", 200, 2)
    assert f"level{info['compression']}" in name
    splats = source_model(sh_degree=2)
    cameras = cameras_around(splats)
    assert psnr(pictures(model, cameras), pictures(splats, cameras)) > 38


def test_ksplat_is_told_by_its_header_alone(tmp_path: Path) -> None:
    for name in other_programs_files("*.ksplat"):
        data = (VIEWER_FILES / name).read_bytes()
        (tmp_path / "unnamed").write_bytes(data)
        assert registry.info(tmp_path / "unnamed")["format"] == "ksplat"
        assert not SplatCodec.recognizes(data[: registry.HEAD_BYTES])
    for other in VIEWER_FILES.iterdir():
        assert other.suffix == ".ksplat" or not KsplatCodec.recognizes(other.read_bytes()[: registry.HEAD_BYTES])


def test_sections_of_ksplat_are_joined() -> None:
    """A section has room for more Gaussians than it holds, and SH of a degree of its own."""
    rows = np.zeros(7, row_type(KSPLAT_HEADER, ksplat_section(0, 0)))
    rows["means"], rows["scales"], rows["wxyz"] = np.arange(21).reshape(7, 3), 0.5, [2, 0, 0, 0]
    sh_rows = np.zeros(3, row_type(KSPLAT_HEADER, ksplat_section(0, 1)))
    sh_rows["means"], sh_rows["sh"] = 100, np.arange(9)
    sections = [ksplat_section(5, 0, room=7), ksplat_section(0, 0), ksplat_section(3, 1)]
    header = KSPLAT_HEADER.copy()
    header["sections"], header["most"], header["count"] = 3, 10, 8
    data = b"".join(part.tobytes() for part in (header, *sections, rows, sh_rows))
    model = KsplatCodec().decode(data)
    assert (len(model), model.sh_degree) == (8, 1)
    np.testing.assert_array_equal(model.means, [*rows["means"][:5], *sh_rows["means"]])
    assert not model.sh_rest[:5].any()
    # All of red, then of green, then of blue.
    np.testing.assert_array_equal(model.sh_rest[5], np.arange(9).reshape(3, 3).T)
    np.testing.assert_array_equal(model.log_scales[:5], np.full((5, 3), np.log(np.float32(0.5))))
    assert np.isneginf(model.log_scales[5:]).all()


KSPLAT_HEADER = np.zeros(1, KSPLAT_HEADER_TYPE)[0]
KSPLAT_HEADER["version"] = KSPLAT_VERSION


def ksplat_section(count: int, sh_degree: int, room: int | None = None) -> np.void:
    section = np.zeros(1, SECTION)[0]
    section["count"], section["room"], section["sh_degree"] = count, count if room is None else room, sh_degree
    return section


@pytest.mark.parametrize(("place", "kind", "value", "message"), [
    (0, "u1", 1, r"version 1\.1 with compression level 1 is unknown"),
    (20, "<u2", 3, "compression level 3 is unknown"),
    (4, "<u4", 1 << 31, "2147483648 sections are claimed"),
    (4096 + 4, "<u4", 1 << 31, "its sections take .* bytes"),
    (4096 + 0, "<u4", 201, "more Gaussians than it has room for"),
    (4096 + 12, "<u4", (1 << 32) - 1, "its sections take"),
    (4096 + 36, "<u4", 1 << 20, "its sections take"),
    (4096 + 20, "<u2", 8, "do not fit into 0 buckets"),
    (4096 + 8, "<u4", 1, "do not fit into"),
    (4096 + 40, "<u2", 4, "SH of degree 4"),
])  # fmt: skip
def test_damaged_ksplat_is_refused(place: int, kind: str, value: int, message: str) -> None:
    data = bytearray((VIEWER_FILES / "gaussiansplats3d_sh2_level1.ksplat").read_bytes())
    data[place : place + np.dtype(kind).itemsize] = np.array(value, kind).tobytes()
    with allocating_little(), pytest.raises(CodecError, match=f"^f: .*({message})"):
        KsplatCodec().decode(bytes(data), "f")
    for length in (0, 4000, 5000, len(data) - 1):
        with pytest.raises(CodecError, match=r"^f: "):
            KsplatCodec().decode(bytes(data[:length]), "f")


@pytest.mark.parametrize(("field", "value"), [("means", np.nan), ("scales", -1.0), ("scales", np.inf)])
def test_records_with_impossible_values_are_dropped(field: str, value: float, tmp_path: Path) -> None:
    """One of a hundred is dropped, as from a PLY; where most are so, this is another format."""
    rows = np.zeros(100, RECORD)
    rows["means"] = np.random.default_rng(0).normal(size=(100, 3))
    rows["scales"], rows["rgba"] = 1.0, 200
    rows[field][70, 2] = value
    (tmp_path / "model.splat").write_bytes(rows.tobytes())
    assert len(registry.read(tmp_path / "model.splat")) == 99
    rows[field][:70, 2] = value
    with pytest.raises(CodecError, match=r"^f: corrupted or no \.splat file"):
        SplatCodec().decode(rows.tobytes(), "f")
    with pytest.raises(CodecError, match=r"^f: truncated or no \.splat file, 95 bytes"):
        SplatCodec().decode(rows.tobytes()[:95], "f")


def test_records_of_zeros_pad_a_file(tmp_path: Path) -> None:
    data = (VIEWER_FILES / "gaussforge_sh0.splat").read_bytes()
    (tmp_path / "model.splat").write_bytes(data + bytes(32 * 50))
    assert len(registry.read(tmp_path / "model.splat")) == len(data) // 32


def test_the_word_chunk_in_a_comment_makes_no_compressed_ply() -> None:
    assert not CompressedPlyCodec.recognizes(b"ply\nformat ascii 1.0\ncomment element chunk 3\nelement vertex 9\n")
