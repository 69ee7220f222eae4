"""Proves SPZ: other programs' files are read to the values those programs decode, in all versions; what is written has
the layout that Niantic describes; axes and SH signs are right, by rendering; lying headers are refused.

The law itself is proved for every codec in ``test_codecs.py``.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.errors import UserError
from gsz.registry import CodecError
from gsz.spz import HEADER, SpzCodec, plane_widths
from gsz.spz.codec import choose_fractional_bits
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from tests.helpers import allocating_little, assert_same_up_to_order, degenerate_models, random_model
from tests.viewer_helpers import (
    VIEWER_FILES,
    assert_read_as,
    cameras_around,
    other_programs_files,
    pictures,
    psnr,
    source_model,
    with_strong_sh,
)

GZIP_STEPS = 1 << 23


def encode(splats: GaussianModel, **settings: int) -> bytes:
    codec = SpzCodec(**settings)  # type: ignore[arg-type]
    return codec.fit(splats).encode(splats)


def gzipped(payload: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=31)
    return deflate.compress(payload) + deflate.flush()


@pytest.mark.parametrize("name", other_programs_files("*.spz"))
def test_other_programs_files_are_read_to_their_values(name: str) -> None:
    model = SpzCodec().decode((VIEWER_FILES / name).read_bytes(), name)
    assert_read_as(model, name)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_versions_agree_but_for_their_rotations(version: int) -> None:
    """Two hundred real Gaussians come back to within the steps of the format, whatever the version."""
    splats = source_model()
    data = encode(splats, version=version)
    assert SpzCodec().info(data)["version"] == version
    decoded = GaussianModel.of(SpzCodec().decode(data))
    order = torch.cdist(decoded.means, splats.means).argmin(dim=0)
    back = decoded.select(order)
    reference = SpzCodec(version=3).fit(splats).snap(splats)
    for name in ("means", "log_scales", "opacity_logits", "sh_dc", "sh_rest"):
        assert torch.equal(getattr(back, name), getattr(reference, name)), name
    cosines = (back.rotations * splats.rotations).sum(dim=1).abs()
    step = 1 / 127.5 if version == 2 else 1 / (511 * np.sqrt(2))
    # Where the real part is not the largest, version 2 gets it from the others with a larger error.
    assert (1 - cosines).median() < step**2
    assert (1 - cosines).max() < (0.05 if version == 2 else 3 * step**2)


def test_version_1_has_half_precision_positions() -> None:
    """No program writes version 1 any more, so its file is made here from one of version 2, as described by Niantic."""
    splats = source_model()
    payload = zlib.decompress(encode(splats, version=2), wbits=31)
    second = SpzCodec().decode(encode(splats, version=2))
    header = HEADER.pack(0x5053474E, 1, len(splats), 3, 0, 0, 0)
    turned = (second.means * [1.0, -1.0, -1.0]).astype("<f2")
    first = SpzCodec().decode(gzipped(header + turned.tobytes() + payload[HEADER.size + 9 * len(splats) :]))
    np.testing.assert_allclose(first.means, second.means, rtol=1e-3, atol=1e-3)
    for name, array in first.named_parameters():
        assert name == "means" or np.array_equal(array, getattr(second, name)), name


@pytest.mark.parametrize("version", [1, 2, 3])
def test_random_bytes_are_read_to_the_documented_bits(version: int) -> None:
    """Kernels read bytes as they are; the formulas of ``docs/formats.md``, in double precision, give the same bits."""
    count, fractional_bits = 5000, 11
    rng = np.random.default_rng(version)
    planes = {name: rng.integers(0, 256, (count, width), np.uint8) for name, width in plane_widths(version, 3).items()}
    if version == 1:
        planes["means"][:, 1::2] &= 0xBB  # Finite numbers only.
    header = HEADER.pack(0x5053474E, version, count, 3, fractional_bits, 0, 0)
    decoded = SpzCodec().decode(gzipped(header + b"".join(plane.tobytes() for plane in planes.values())))

    wide = {name: plane.astype(np.int64) for name, plane in planes.items()}
    turned = np.array([1.0, -1.0, -1.0])
    if version == 1:
        means = planes["means"].view("<f2").astype(np.float64)
    else:
        parts = wide["means"].reshape(count, 3, 3)
        fixed = parts[..., 0] + (parts[..., 1] << 8) + (parts[..., 2] << 16)
        means = np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) * 2.0**-fractional_bits
    if version == 3:
        word = planes["quaternions"].copy().view("<u4").astype(np.int64)
        fields = word >> np.array([20, 10, 0])
        others = np.where(fields & 512, -(fields & 511), fields & 511)
        largest, unit = (word >> 30)[:, 0], 511 * np.sqrt(2)
    else:
        others, largest, unit = 2 * wide["quaternions"] - 255, np.full(count, 3), 255.0
    xyzw = np.empty((count, 4))
    xyzw[np.arange(4) != largest[:, None]] = (others / unit).reshape(-1)
    xyzw[np.arange(count), largest] = np.sqrt(np.maximum(0, 1 - (others**2).sum(axis=1) / (unit * unit)))
    opacities = np.clip(wide["opacity_logits"], 1, 254) / 255
    signs = np.ones((15, 1))
    signs[[0, 1, 3, 6, 8, 10, 11, 13]] = -1
    expected = {
        "means": means * turned,
        "log_scales": wide["log_scales"] / 16 - 10,
        "quaternions": np.concatenate([xyzw[:, 3:], xyzw[:, :3] * turned], axis=1),
        "opacity_logits": np.log(opacities / (1 - opacities)),
        "sh_dc": ((wide["sh_dc"] / 255 - 0.5) / 0.15).reshape(count, 1, 3),
        "sh_rest": (wide["sh_rest"].reshape(count, 15, 3) - 128) / 128 * signs,
    }
    for name, values in expected.items():
        bits = getattr(decoded, name).view(np.int32)
        assert np.array_equal(bits, values.astype(np.float32).view(np.int32)), name


def test_layout_is_as_described() -> None:
    """One Gaussian, byte by byte, from the description alone."""
    splats = GaussianModel.from_arrays(
        means=np.array([[1.0, -2.0, 0.5]]),
        log_scales=np.array([[-10.0, 0.0, -3.5]]),
        quaternions=np.array([[2.0, 0.0, 0.0, 0.0]]),
        opacity_logits=np.array([30.0]),
        sh_dc=np.array([[0.0, 10.0, -10.0]]),
        sh_rest=np.array([[[0.25, 0.5, -0.5], [0.0, 0.0, 0.0], [-1.0, 1.0, 0.0]]]),
    )
    payload = zlib.decompress(encode(splats, fractional_bits=4), wbits=31)
    assert payload[:16] == b"NGSP" + struct.pack("<IIBBBB", 3, 1, 1, 4, 0, 0)
    # Positions are right-up-back with 4 binary digits: 16, 32, -8.
    assert payload[16:25] == bytes([16, 0, 0, 32, 0, 0, 0xF8, 0xFF, 0xFF])
    # A saturated opacity is 254, which all readers understand alike; colours are clamped.
    assert payload[25] == 254
    assert payload[26:29] == bytes([128, 255, 0])
    assert payload[29:32] == bytes([0, 160, 104])
    # The largest component is the last of x y z w.
    assert payload[32:36] == struct.pack("<I", 3 << 30)
    # The first two coefficients change sign; bytes are centres of buckets of 8.
    assert payload[36:] == bytes([96, 64, 192, 128, 128, 128, 0, 255, 128])


def test_version_4_is_six_zstd_streams_behind_a_table() -> None:
    import zstandard

    splats = source_model()
    data = encode(splats, version=4)
    magic, version, count, degree, _, flags, streams, table = struct.unpack("<IIIBBBBI12x", data[:32])
    assert (magic, version, count, degree, flags, streams, table) == (0x5053474E, 4, 200, 3, 0, 6, 32)
    sizes = np.frombuffer(data, "<u8", 12, 32).reshape(6, 2)
    assert sizes[:, 1].tolist() == [200 * width for width in (9, 1, 3, 3, 4, 45)]
    assert 32 + 96 + sizes[:, 0].sum() == len(data)
    begin = 128
    for packed, size in sizes.tolist():
        assert len(zstandard.ZstdDecompressor().decompress(data[begin : begin + packed])) == size
        begin += packed
    assert sum(SpzCodec().info(data)["bytes"].values()) == sizes[:, 0].sum()


def rotated_half_about_x(cameras: list[Camera]) -> list[Camera]:
    turn = np.diag([1.0, -1.0, -1.0, 1.0])
    return [Camera(c.name, c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.world_to_camera @ turn) for c in cameras]


def test_axes_and_signs_by_rendering() -> None:
    """A file is what it says: the same scene in right-up-back axes, seen by cameras turned with it.

    With the extension that declares right-down-front the decoder leaves the numbers as they are stored, so the picture
    of those numbers from turned cameras tests the signs of positions, rotations and SH without the decoder's.
    """
    splats = with_strong_sh(source_model())
    cameras = cameras_around(splats)
    original = pictures(splats, cameras)
    data = encode(splats, version=4, sh_bits=16, fractional_bits=18)
    assert psnr(pictures(SpzCodec().decode(data), cameras), original) > 45

    extension = struct.pack("<III", 0xADBE0003, 4, 6)
    as_stored = bytearray(data)
    as_stored[14] |= 2
    as_stored[16:20] = struct.pack("<I", 32 + len(extension))
    as_stored[32:32] = extension
    stored = SpzCodec().decode(bytes(as_stored))
    assert psnr(pictures(stored, rotated_half_about_x(cameras)), original) > 45
    assert psnr(pictures(stored, cameras), original) < 30

    for coefficient in range(15):
        wrong = splats.clone()
        wrong.sh_rest[:, coefficient] *= -1
        assert psnr(pictures(wrong, cameras), original) < 45, (
            f"the test cannot tell the sign of coefficient {coefficient}"
        )


@pytest.mark.parametrize("name", other_programs_files("*_v[34].spz"))
def test_pictures_of_other_programs_files(name: str) -> None:
    """What they made of a model looks like the model; gsply, which leaves the axes alone, by turned cameras."""
    splats = source_model()
    cameras = cameras_around(splats)
    seen = rotated_half_about_x(cameras) if name.startswith("gsply") else cameras
    decoded = SpzCodec().decode((VIEWER_FILES / name).read_bytes())
    assert psnr(pictures(decoded, seen), pictures(splats, cameras)) > 38


def test_other_axes_are_refused_where_they_are_turned_by_a_quarter() -> None:
    data = bytearray(encode(random_model(10), version=4))
    data[14] |= 2
    data[16:20] = struct.pack("<I", 32 + 12)
    data[32:32] = struct.pack("<III", 0xADBE0003, 4, 9)
    with pytest.raises(CodecError, match=r"^f: its axes are turned by a quarter"):
        SpzCodec().decode(bytes(data), "f")


def test_unknown_extensions_are_skipped() -> None:
    splats = random_model(10)
    payload = bytearray(zlib.decompress(encode(splats), wbits=31))
    payload[14] |= 2
    payload += struct.pack("<II", 0x12340001, 3) + b"abc" + struct.pack("<IIfff", 0xADBE0002, 12, 1, 2, 3)
    skipped = SpzCodec().decode(gzipped(bytes(payload)))
    assert np.array_equal(skipped.means, SpzCodec().decode(encode(splats)).means)


def test_gradients_turn_with_the_sign_of_the_stored_quaternion_and_stop_at_the_end_of_the_range() -> None:
    splats = random_model(4, sh_degree=1)
    splats.quaternions = torch.tensor(
        [[-2.0, 0.1, 0.0, 0.0], [2.0, 0.1, 0.0, 0.0], [0.1, 0.0, -1.0, 0.0], [1, 1, 1, 1.0]]
    )
    splats.opacity_logits = torch.tensor([[20.0], [20.0], [-20.0], [0.0]])
    splats = splats.requires_grad_()
    snapped = SpzCodec().fit(splats).snap(splats)
    # The gradient of a loss of the rotation's x must lower x in the rotation that is meant, whatever the sign stored.
    (snapped.quaternions[:, 1] * torch.sign(snapped.quaternions[:, 0])).sum().backward()
    assert splats.quaternions.grad is not None
    descended = torch.nn.functional.normalize(splats.quaternions - 0.01 * splats.quaternions.grad, dim=1)
    for row in (0, 1, 3):
        before = splats.rotations[row, 1] * torch.sign(splats.rotations[row, 0])
        after = descended[row, 1] * torch.sign(descended[row, 0])
        assert after < before

    (snapped.opacity_logits * torch.tensor([[1.0], [-1.0], [1.0], [5.0]])).sum().backward()
    assert splats.opacity_logits.grad is not None
    # Outwards is stopped (a negative gradient raises the logit), inwards and inside passes.
    assert splats.opacity_logits.grad.flatten().tolist() == [1.0, 0.0, 0.0, 5.0]


def test_harmonics_are_the_finer_the_more_a_gaussian_shows() -> None:
    splats = random_model(2000)
    error = (SpzCodec().fit(splats).snap(splats).sh_rest - splats.sh_rest).abs().amax(dim=(1, 2))
    size = splats.log_scales.sort(dim=1).values[:, 1:].mean(dim=1) + torch.nn.functional.logsigmoid(
        splats.opacity_logits[:, 0]
    )
    order = size.argsort()
    assert error[order[-200:]].mean() < error[order[:200]].mean() / 4
    finest = (SpzCodec(sh_bits=16).fit(splats).snap(splats).sh_rest - splats.sh_rest).abs()
    assert finest.max() <= 1 / 256


def test_gaussians_of_like_steps_are_together_and_take_fewer_bytes() -> None:
    """A quarter of the Gaussians shows 2 ** 12 times as much as the others, in no order; so they are told apart."""
    splats = random_model(4000)
    splats.log_scales[:] = -4.0
    splats.opacity_logits[:] = torch.where(torch.arange(4000) % 4 == 0, 5.5, -5.5)[:, None]
    splats.sh_rest *= 0.2
    grid = SpzCodec().fit(splats)
    data = grid.encode(splats)
    assert (SpzCodec().decode(data).opacity_logits[:, 0] > 0).tolist() == [True] * 1000 + [False] * 3000
    without = SpzCodec().info(data)["bytes"]
    mixed = splats.clone()
    mixed.sh_rest = grid.snap(splats).sh_rest
    mixed.opacity_logits.zero_()  # Now all are in Morton's order, with coefficients that are what they were.
    spread = SpzCodec(sh_bits=16).fit(mixed).encode(mixed)
    coefficients = [np.sort(SpzCodec().decode(each).sh_rest, axis=None) for each in (spread, data)]
    assert np.array_equal(*coefficients)
    assert without["sh_rest"] < 0.95 * SpzCodec().info(spread)["bytes"]["sh_rest"]


def test_info_says_what_each_plane_takes() -> None:
    """Of one gzip stream only its inflation tells; the planes of random numbers, which do not shrink, are known."""
    splats = random_model(5000, sh_degree=1)
    splats.sh_rest.zero_()
    data = encode(splats)
    sizes = SpzCodec().info(data)["bytes"]
    assert 0 <= len(data) - sum(sizes.values()) < 20
    assert sizes["quaternions"] == pytest.approx(4 * 5000, rel=0.05)
    assert sizes["opacity_logits"] == pytest.approx(5000, rel=0.05)
    assert sizes["sh_rest"] < 500
    with pytest.raises(CodecError, match=r"^f: truncated, it ends in "):
        SpzCodec().info(data[: len(data) // 2], "f")


def test_positions_get_the_digits_they_need() -> None:
    small = np.full((100, 3), -9.0, np.float32)
    near = np.random.default_rng(0).normal(0, 1, (100, 3)).astype(np.float32)
    assert choose_fractional_bits(near, np.full((100, 3), -2.0, np.float32)) == 12
    assert choose_fractional_bits(near, small) > 14
    for extent in (1.0, 100.0, 1e5):
        bits = choose_fractional_bits(near * extent, small)
        assert np.abs(near * extent).max() * 2**bits < GZIP_STEPS
    assert choose_fractional_bits(near[:0], small[:0]) == 12


@pytest.mark.parametrize(("place", "value", "message"), [
    (slice(4, 8), struct.pack("<I", 5), "SPZ version 5 is unknown"),
    (slice(8, 12), struct.pack("<I", 1 << 31), "cannot hold the 2147483648 Gaussians"),
    (slice(12, 13), b"\x04", "SH degree 4 is beyond 3"),
    (slice(13, 14), b"\x63", "99 fractional bits"),
])  # fmt: skip
@pytest.mark.parametrize("version", [3, 4])
def test_lying_headers_are_refused(version: int, place: slice, value: bytes, message: str) -> None:
    data = bytearray(encode(random_model(50), version=version))
    if version == 3:
        data = bytearray(zlib.decompress(bytes(data), wbits=31))
    data[place] = value
    with allocating_little(), pytest.raises(CodecError, match=f"^f: .*{message}"):
        SpzCodec().decode(bytes(data) if version == 4 else gzipped(bytes(data)), "f")


def test_streams_that_grow_more_than_announced_are_refused() -> None:
    """A few bytes of zstd that announce, or make, a hundred megabytes."""
    import zstandard

    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(100_000_000))
    writer = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    silent = writer.compress(bytes(100_000_000)) + writer.flush()
    data = encode(random_model(50), version=4)
    sizes = np.frombuffer(data, "<u8", 12, 32).reshape(6, 2).copy()
    for stream in (bomb, silent):
        sizes_now = sizes.copy()
        sizes_now[0, 0] = len(stream)
        broken = data[:32] + sizes_now.tobytes() + stream + data[128 + int(sizes[0, 0]) :]
        with allocating_little(), pytest.raises(CodecError, match=r"^f: corrupted in means"):
            SpzCodec().decode(broken, "f")


def test_checksum_of_gzip_is_used() -> None:
    data = bytearray(encode(random_model(50)))
    data[-6] ^= 1
    with pytest.raises(CodecError, match=r"^f: corrupted, gzip says .*incorrect data check"):
        SpzCodec().decode(bytes(data), "f")


def test_checksums_of_zstd_are_used() -> None:
    """Damage anywhere in the frame of the rotations, which are noise and so are stored as they are."""
    data = bytearray(encode(random_model(50), version=4))
    sizes = np.frombuffer(data, "<u8", 12, 32).reshape(6, 2)[:, 0]
    data[128 + int(sizes[:4].sum()) + int(sizes[4]) // 2] ^= 1
    with pytest.raises(CodecError, match=r"^f: corrupted in quaternions, zstd says .*checksum"):
        SpzCodec().decode(bytes(data), "f")


@pytest.mark.parametrize("case", degenerate_models())
@pytest.mark.parametrize("settings", [{"version": 2}, {"version": 4}, {"sh_bits": 2, "fractional_bits": 0}])
def test_law_of_other_settings_on_degenerate_models(settings: dict[str, int], case: str) -> None:
    splats = degenerate_models()[case]
    grid = SpzCodec(**settings).fit(splats)  # type: ignore[arg-type]
    assert_same_up_to_order(SpzCodec().decode(grid.encode(splats)), grid.snap(splats))


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"version": 1}, "version 1"),
        ({"sh_bits": 1}, "sh_bits 1"),
        ({"quality": "fine"}, "spz quality 'fine' is unknown; choose one of best, high"),
        ({"fractional_bits": 24}, "24"),
    ):
        with pytest.raises(UserError, match=message):
            SpzCodec(**settings)  # type: ignore[arg-type]


def test_axes_that_a_file_does_not_say_may_be_given(tmp_path: Path) -> None:
    """A file in INRIA's axes holds their numbers as they are; read as the format is described, it is upside down."""
    splats = source_model()
    path = tmp_path / "model.spz"
    registry.write(path, splats, "spz:axes=rdf")
    upright, turned = registry.read(path, read_as="spz:axes=rdf"), registry.read(path)
    assert_same_up_to_order(GaussianModel.of(upright), registry.codec("spz:axes=rdf").fit(splats).snap(splats))
    np.testing.assert_array_equal(turned.means, upright.means * np.float32([1, -1, -1]))
    payload = zlib.decompress(path.read_bytes(), wbits=31)
    first = [int.from_bytes(payload[16 + at : 19 + at], "little", signed=False) for at in (0, 3, 6)]
    signed = [value - (1 << 24) if value >> 23 else value for value in first]
    np.testing.assert_array_equal(upright.means[0], np.float32(signed) * np.float32(2.0 ** -payload[13]))
