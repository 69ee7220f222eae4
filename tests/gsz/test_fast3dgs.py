"""Proves what is particular to the ``fast3dgs`` codec.

Its 8-bit grids follow PyTorch's affine quantization and moving min/max, their gradients pass straight through and stop
where a value is cut off; float16 gives way to float32 where it would lose a Gaussian; the size is near that of
Fast-3DGS; and its reader refuses every header that lies, without allocating what it asks for.
"""

from __future__ import annotations

import lzma
import struct
import zlib

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.contract import CodecError
from gsz.errors import UserError
from gsz.fast3dgs import HEADER, AffineGrid, Fast3dgsCodec, Fast3dgsGrid
from scene.gaussian_model import GaussianModel
from tests.helpers import allocating_little, assert_same_up_to_order, damaged, random_model

VERSION_AT, DEGREE_AT, FLAGS_AT, COUNT_AT, SCALE_AT, RESERVED_AT, LENGTHS_AT = 8, 10, 11, 12, 16, 26, 28


def encoded(splats: GaussianModel, codec: Fast3dgsCodec | None = None) -> bytes:
    return (codec or Fast3dgsCodec()).fit(splats).encode(splats)


def sealed(body: bytes | bytearray) -> bytes:
    """A file with a right checksum, whatever the body says."""
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def tampered(data: bytes, at: int, field: bytes) -> bytes:
    body = bytearray(data[:-4])
    body[at : at + len(field)] = field
    return sealed(body)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4, 3.0])
def test_affine_grid_agrees_with_pytorch(shift: float) -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) + shift
    grid = AffineGrid.fit(values.numpy())
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    assert grid.scale == pytest.approx((high - low) / 255, rel=1e-6)
    assert grid.zero_point == round(-low / grid.scale)
    theirs = torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero_point, 0, 255)
    torch.testing.assert_close(grid.snap(values), theirs, rtol=0, atol=0)
    symbols = grid.symbols(values.numpy()).astype(np.float32)
    np.testing.assert_array_equal((symbols - grid.zero_point) * np.float32(grid.scale), theirs.numpy())


def test_gradients_agree_with_pytorch_when_the_range_is_too_narrow() -> None:
    mine = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    grid = AffineGrid(-0.5, 1.0)
    grid.snap(mine).sum().backward()
    torch.fake_quantize_per_tensor_affine(theirs, grid.scale, grid.zero_point, 0, 255).sum().backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)


def test_range_follows_a_moving_average() -> None:
    grid = AffineGrid.fit(np.array([-1.0, 2.0], np.float32))
    assert (grid.low, grid.high) == (-1.0, 2.0)
    grid.observe(torch.tensor([-3.0, 1.0]))
    assert grid.low == pytest.approx(-1.02)
    assert grid.high == pytest.approx(1.99)
    grid.observe(torch.tensor([5.0, 6.0]))  # A range always contains zero.
    assert grid.low == pytest.approx(-1.02 * 0.99)


def test_snap_and_encode_do_not_move_the_grid() -> None:
    splats = random_model(100)
    grid = Fast3dgsCodec().fit(splats)
    before = (grid.rest.low, grid.rest.high, grid.dc.low, grid.dc.high)
    grid.snap(splats)
    grid.encode(splats)
    assert (grid.rest.low, grid.rest.high, grid.dc.low, grid.dc.high) == before
    grid.observe(splats.map(lambda tensor: tensor * 2))
    assert grid.rest.high == pytest.approx(before[1] * 1.01)


def test_zero_is_on_the_grid_and_has_no_sign() -> None:
    values = torch.tensor([-0.3, -1e-4, -0.0, 0.0, 1e-4, 0.9])
    snapped = AffineGrid.fit(values.numpy()).snap(values)
    assert snapped[1:5].tolist() == [0.0] * 4
    assert not torch.signbit(snapped[1:5]).any()


def test_gradients_pass_straight_through_and_stop_at_the_range() -> None:
    values = torch.tensor([-9.0, -1.0, 0.3, 2.0, 9.0], requires_grad=True)
    AffineGrid(-1.0, 2.0).snap(values).backward(torch.full((5,), 7.0))
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 7.0, 7.0, 7.0, 0.0]


def test_gradients_of_all_parameters_are_those_of_the_snapped_model() -> None:
    splats = random_model(200).requires_grad_()
    snapped = Fast3dgsCodec().fit(splats).snap(splats)
    gradients = [torch.randn_like(tensor) for _, tensor in splats.named_parameters()]
    torch.autograd.backward([tensor for _, tensor in snapped.named_parameters()], gradients)
    for (name, tensor), gradient in zip(splats.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, rtol=0, atol=0, msg=name)


def test_values_are_eight_bit_and_half_precision() -> None:
    splats = random_model(2000)
    snapped = Fast3dgsCodec().fit(splats).snap(splats)
    for name in ("means", "log_scales", "quaternions", "opacity_logits"):
        torch.testing.assert_close(getattr(snapped, name), getattr(splats, name).half().float(), rtol=0, atol=0)
    assert len(snapped.sh_dc.unique()) <= 256
    assert len(snapped.sh_rest.unique()) <= 256
    span = float(splats.sh_rest.max() - splats.sh_rest.min())
    assert float((snapped.sh_rest - splats.sh_rest).abs().max()) <= span / 255 * 0.51


def test_positions_are_float32_on_request_and_where_float16_overflows() -> None:
    splats = random_model(100)
    snapped = Fast3dgsCodec(positions="float32").fit(splats).snap(splats)
    torch.testing.assert_close(snapped.means, splats.means, rtol=0, atol=0)
    splats.means[3, 1] = 70_000.0
    grid = Fast3dgsCodec().fit(splats)
    assert grid.wide == {"means"}
    torch.testing.assert_close(grid.snap(splats).means, splats.means, rtol=0, atol=0)
    assert_same_up_to_order(Fast3dgsCodec().decode(grid.encode(splats)), grid.snap(splats))
    with pytest.raises(UserError, match="positions are float16 or float32"):
        registry.get("lzma", positions="float8")


def test_tiny_quaternions_keep_their_direction() -> None:
    splats = random_model(100)
    splats.quaternions[:10] *= 1e-7
    snapped = Fast3dgsCodec().fit(splats).snap(splats)
    torch.testing.assert_close(snapped.rotations, splats.rotations)


def test_values_that_outgrow_float16_after_the_fit_stay_finite() -> None:
    splats = random_model(100)
    grid = Fast3dgsCodec().fit(splats)
    grown = splats.map(lambda tensor: tensor * 1e6)
    grid.snap(grown).check_finite("snapped")
    assert_same_up_to_order(Fast3dgsCodec().decode(grid.encode(grown)), grid.snap(grown))


def test_files_decode_along_a_morton_curve() -> None:
    splats = random_model(3000)
    decoded = Fast3dgsCodec().decode(encoded(splats))
    steps = [np.median(np.linalg.norm(np.diff(model.numpy().means, axis=0), axis=1)) for model in (splats, decoded)]
    assert steps[1] < steps[0] / 3


def test_size_is_that_of_fast_3dgs_own_file() -> None:
    """Noise does not compress: nearly all of the 48 bytes of SH and the 22 of everything else are there."""
    data = encoded(random_model(5000))
    assert 40 < len(data) / 5000 < 62
    by_attribute = Fast3dgsCodec().info(data)["bytes"]
    assert sum(by_attribute.values()) + HEADER.size + 4 == len(data)


def test_uniform_models_are_padded_so_that_counts_can_be_trusted() -> None:
    splats = random_model(1).select(torch.zeros(40_000, dtype=torch.long))
    data = encoded(splats)
    assert 10_000 <= len(data) < 10_200
    assert_same_up_to_order(Fast3dgsCodec().decode(data), Fast3dgsCodec().fit(splats).snap(splats))


@pytest.mark.parametrize(
    ("at", "field", "message"),
    [
        (VERSION_AT, b"\x02\x00", "is of version 2 .* update the program"),
        (DEGREE_AT, b"\x04", "is damaged"),
        (DEGREE_AT, b"\x02", "is damaged, a stream has another length"),
        (FLAGS_AT, b"\x10", "is damaged, its header"),
        (FLAGS_AT, b"\x01", "is damaged, a stream has another length"),
        (COUNT_AT, struct.pack("<I", 61), "is damaged, a stream has another length"),
        (COUNT_AT, struct.pack("<I", 0xFFFFFFFF), "is truncated"),
        (SCALE_AT, struct.pack("<f", np.nan), "is damaged, its header holds an impossible step"),
        (SCALE_AT, struct.pack("<f", -1.0), "is damaged, its header holds an impossible step"),
        (RESERVED_AT, b"\x01", "is damaged, its header"),
        (LENGTHS_AT, struct.pack("<Q", 1 << 63), "is truncated"),
        (LENGTHS_AT, struct.pack("<Q", 1), "is damaged"),
        (HEADER.size, b"\x7f\x7f\x7f", "is damaged, a stream does not decompress"),
        (0, b"PK", "is not a fast3dgs file"),
    ],
)
def test_contradictory_headers_are_refused_without_allocating(at: int, field: bytes, message: str) -> None:
    broken = tampered(encoded(random_model(60)), at, field)
    with allocating_little(), pytest.raises(CodecError, match=f"^broken.file: {message}"):
        Fast3dgsCodec().decode(broken, "broken.file")


def test_bombs_are_not_inflated() -> None:
    """A stream of a fifty million zeros in the place of 60 positions stops where the positions would end."""
    data = encoded(random_model(60))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    bomb = lzma.compress(bytes(50_000_000), format=lzma.FORMAT_RAW, filters=filters)
    (first,) = struct.unpack_from("<Q", data, LENGTHS_AT)
    body = bytearray(data[: HEADER.size] + bomb + data[HEADER.size + first : -4])
    struct.pack_into("<Q", body, LENGTHS_AT, len(bomb))
    content = sealed(body)
    with allocating_little(), pytest.raises(CodecError, match="a stream has another length"):
        Fast3dgsCodec().decode(content, "bomb")


def test_damage_behind_a_right_checksum_raises_codec_errors_only() -> None:
    body = encoded(random_model(50, sh_degree=1))[:-4]
    for broken in damaged(body, 1000, seed=1):
        try:
            Fast3dgsCodec().decode(sealed(broken), "broken.file")
        except CodecError as error:
            assert str(error).startswith("broken.file")


def test_trailing_bytes_and_a_wrong_checksum_are_refused() -> None:
    data = encoded(random_model(50))
    with pytest.raises(CodecError, match="its checksum or its length is wrong"):
        Fast3dgsCodec().decode(data + b"\0", "file")
    with pytest.raises(CodecError, match="its checksum or its length is wrong"):
        Fast3dgsCodec().decode(sealed(data), "file")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    with pytest.raises(CodecError, match="its checksum or its length is wrong"):
        Fast3dgsCodec().decode(bytes(flipped), "file")
    with pytest.raises(CodecError, match=rf"is truncated, 200 of {len(data)} bytes"):
        Fast3dgsCodec().decode(data[:200], "file")


def test_grids_are_plain_data_that_a_run_can_store() -> None:
    splats = random_model(30)
    grid = Fast3dgsCodec().fit(splats)
    again = Fast3dgsGrid(AffineGrid(grid.dc.low, grid.dc.high), AffineGrid(grid.rest.low, grid.rest.high), grid.wide)
    assert again.encode(splats) == grid.encode(splats)
