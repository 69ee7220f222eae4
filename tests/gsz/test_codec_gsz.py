"""Proves what is particular to ``.gsz``: equivalence of the canonical form, gradients, layers, sizes, damage.

The law itself is proved for every codec in ``test_codecs.py``; here it is proved for every preset and both grids.
"""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gsz import convert, registry
from gsz.coding.morton import deinterleave, interleave
from gsz.contract import Correction
from gsz.errors import UserError
from gsz.fast3dgs import Fast3dgsCodec
from gsz.native import QUALITIES, GridSettings, GszCodec, GszGrid
from gsz.native.container import Header
from gsz.native.grid import RATE_LIFE
from gsz.native.layers import in_lanes, smallest
from gsz.native.layout import ATTRIBUTES, from_ycocg, lane_differences, lane_sums, to_ycocg
from gsz.native.steps import MEAN_LIMIT
from gsz.registry import CodecError
from scene.gaussian_model import GaussianModel
from tests.helpers import allocating_little, assert_same_up_to_order, damaged, degenerate_models, random_model

ROOT = Path(__file__).parents[2]
FINE = GridSettings(
    1e-4, 1e-3, 256, 2e-4, 0, dc_step=1e-4, dc_range=0, sh_step=1e-3, sh_chroma=1, sh_threshold=0.5, sh_range=0
)


def covariances(splats: GaussianModel) -> Tensor:
    """``(N, 3, 3)`` covariances, in the dtype of the quaternions."""
    w, x, y, z = torch.nn.functional.normalize(splats.quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotations = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return rotations @ torch.diag_embed(torch.exp(2 * splats.log_scales)) @ rotations.transpose(1, 2)


@pytest.mark.parametrize("quality", QUALITIES)
def test_law_of_every_quality(quality: str) -> None:
    splats = random_model(1500, seed=3)
    codec = GszCodec(quality=quality)
    grid = codec.fit(splats)
    assert_same_up_to_order(codec.decode(grid.encode(splats)), grid.snap(splats))


@pytest.mark.parametrize("case", degenerate_models())
def test_the_grid_of_fast3dgs_is_exactly_that_of_its_codec_and_smaller(case: str) -> None:
    splats = degenerate_models()[case]
    codec = GszCodec(grid="fast3dgs")
    grid = codec.fit(splats)
    decoded = codec.decode(grid.encode(splats))
    assert_same_up_to_order(decoded, grid.snap(splats))
    published = Fast3dgsCodec()
    assert_same_up_to_order(decoded, published.decode(published.fit(splats).encode(splats)))


def test_the_published_values_take_fewer_bytes() -> None:
    """As the published method regularises them: most harmonics are next to nothing."""
    splats = random_model(4000, seed=1)
    splats.sh_rest[::10] *= 20
    published = Fast3dgsCodec().fit(splats).encode(splats)
    assert len(GszCodec(grid="fast3dgs").fit(splats).encode(splats)) < len(published)


def test_qualities_are_a_rate_axis() -> None:
    splats = random_model(3000)
    sizes = [len(GszCodec(quality=quality).fit(splats).encode(splats)) for quality in QUALITIES]
    assert sizes == sorted(sizes, reverse=True)


def test_the_canonical_form_is_the_same_gaussian() -> None:
    splats = random_model(2000, sh_degree=1, seed=5)
    splats.quaternions[::7] *= 30
    snapped = GszCodec(settings=FINE).fit(splats).snap(splats)
    assert (snapped.log_scales.diff(dim=1) <= 0.02).all()  # The third is on a coarser grid.
    # The vector part is limited in resolution: 1/1000 of a radian is what the finest step can do.
    expected = covariances(splats)
    error = (covariances(snapped) - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() < 5e-3
    torch.testing.assert_close(snapped.means, splats.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(snapped.opacities, splats.opacities, rtol=0, atol=0.004)
    torch.testing.assert_close(snapped.sh_dc, splats.sh_dc, rtol=0, atol=1e-4)
    torch.testing.assert_close(snapped.sh_rest, splats.sh_rest, rtol=0, atol=2.1e-3)


def test_gradients_reach_the_original_axes_and_quaternions() -> None:
    """A function of the covariances alone has nearly the same gradient through the snap as without it."""
    splats = random_model(300, sh_degree=0, seed=2).map(lambda tensor: tensor * 0.5)
    weights = torch.randn(300, 3, 3, generator=torch.Generator().manual_seed(1))
    grid = GszCodec(settings=FINE).fit(splats)
    gradients = []
    for through in (grid.snap, lambda model: model):
        leaves = splats.clone().requires_grad_()
        (covariances(through(leaves)) * weights).sum().backward()
        assert leaves.quaternions.grad is not None and leaves.log_scales.grad is not None
        gradients.append((leaves.quaternions.grad, leaves.log_scales.grad))
    for snapped, direct in zip(*gradients, strict=True):
        error = (snapped - direct).norm(dim=1) / (direct.norm(dim=1) + 1e-3)
        assert error.median() < 0.01
        assert error.max() < 0.2


def test_other_gradients_pass_straight_through() -> None:
    splats = random_model(100).requires_grad_()
    grid = GszCodec().fit(splats)
    snapped = grid.snap(splats)
    (
        snapped.means.sum() + 2 * snapped.opacity_logits.sum() + 3 * snapped.sh_dc.sum() + snapped.sh_rest.sum()
    ).backward()
    for tensor, gradient in ((splats.means, 1), (splats.opacity_logits, 2), (splats.sh_dc, 3), (splats.sh_rest, 1)):
        assert tensor.grad is not None and (tensor.grad == gradient).all()


def test_a_prefix_is_a_coarser_model() -> None:
    splats = random_model(3000, sh_degree=1)
    codec = GszCodec(layers=4)
    grid = codec.fit(splats)
    data = grid.encode(splats)
    whole = codec.decode(data)
    layers = codec.info(data)["layers"]
    assert [layer["count"] for layer in layers] == [375, 375, 750, 1500]
    header = codec.info(data)["bytes"]["header"]
    end = header
    for level, layer in enumerate(layers, 1):
        end += layer["bytes"]
        by_level = codec.decode(codec.cut(data, level=level))
        assert_same_up_to_order(by_level, whole.select(slice(len(by_level))))
        fraction = len(by_level) / len(splats)
        most = min(1.0, 1.9 * fraction)
        for part in ({"max_bytes": end}, {"level": 99, "max_bytes": end + 1}, {"keep": fraction}, {"keep": most}):
            assert codec.cut(data, **part) == data[:end]  # type: ignore[arg-type]
    assert end == len(data)
    for part, complaint in (
        ({"max_bytes": header + 5}, rf"not even the first of 4 layers .* allow {header + layers[0]['bytes']} or more"),
        ({"level": 0}, "level 0"),
        ({"keep": 0.1}, "the first of 4 layers holds 0.125 of the Gaussians"),
        ({"keep": 1.5}, "keep 1.5 is out of range"),
    ):
        with pytest.raises(UserError, match=complaint):
            codec.cut(data, "model.gsz", **part)  # type: ignore[arg-type]


def test_a_file_whose_end_is_missing_gives_its_whole_layers(caplog: pytest.LogCaptureFixture) -> None:
    splats = random_model(3000, sh_degree=1)
    codec = GszCodec(layers=3)
    data = codec.fit(splats).encode(splats)
    coarser = codec.decode(data[:-1], "cut.gsz")
    assert len(coarser) == 1500
    assert "cut.gsz: the file's end is missing; decoded 2 of 3 layers" in caplog.text
    for length in (0, 5, 20, 100, codec.info(data)["bytes"]["header"] + 1):
        with pytest.raises(CodecError, match=r"^cut\.gsz"):
            codec.decode(data[:length], "cut.gsz")


def test_a_download_that_was_broken_off_anywhere_is_a_model_or_refused_in_a_line() -> None:
    """At every byte of a file: its whole layers, corrected for what is missing, from the end of the first one on."""
    splats = random_model(520, sh_degree=0)
    codec = GszCodec(quality="tiny", layers=2)
    grid = codec.fit(splats)
    grid.corrections = [Correction(0.5, 0.25)]
    data = grid.encode(splats)
    ends = [Header.parse(data, "file").end_of(layer) for layer in range(2)]
    parts = [codec.decode(codec.cut(data, level=level)) for level in (1, 2)]
    assert [len(part) for part in parts] == [260, 520] and ends[-1] == len(data)
    for length in range(len(data) + 1):
        layers = sum(end <= length for end in ends)
        if layers:
            decoded = codec.decode(data[:length]).named_parameters()
            for (_, found), (_, expected) in zip(decoded, parts[layers - 1].named_parameters(), strict=True):
                np.testing.assert_array_equal(found, expected)
        else:
            with pytest.raises(CodecError, match=r"^cut\.gsz: [^\n]*$"):
                codec.decode(data[:length], "cut.gsz")


def test_a_part_is_written_byte_for_byte_unless_another_format_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, part = tmp_path / "model.gsz", tmp_path / "part.gsz"
    codec = GszCodec(quality="low", layers=3)
    data = registry.write(source, random_model(3000, sh_degree=0), codec)
    written = convert(source, part, keep=0.5)
    assert part.read_bytes() == codec.cut(data, level=2) and written.count == 1500
    assert written.file_bytes == part.stat().st_size
    convert(source, part, max_bytes=written.file_bytes)
    assert part.stat().st_size == written.file_bytes
    with caplog.at_level("INFO"):
        assert registry.info(part)["count"] == len(registry.read(part)) == 1500
    assert "part.gsz: is a coarser model, the first 2 of 3 layers" in caplog.text and "missing" not in caplog.text
    convert(source, part, "gsz:quality=tiny", keep=0.5)
    assert len(registry.info(part)["layers"]) == 1 and registry.info(part)["count"] == 1500


def test_decompress_writes_a_part_of_a_file(tmp_path: Path) -> None:
    splats = random_model(3000, sh_degree=0)
    source, target = tmp_path / "model.gsz", tmp_path / "part.ply"
    size = len(registry.write(source, splats, GszCodec(layers=3)))
    convert(source, target, level=1)
    assert len(registry.read(target)) == 750
    convert(source, target, max_bytes=size - 1)
    assert len(registry.read(target)) == 1500
    with pytest.raises(UserError, match=r"part\.ply: ply files have no layers"):
        convert(target, tmp_path / "other.ply", level=1)


def test_importance_chooses_the_first_layer() -> None:
    splats = random_model(2000, sh_degree=0)
    codec = GszCodec(layers=2)
    grid = codec.fit(splats)
    assert isinstance(grid, GszGrid)
    importance = np.random.default_rng(0).random(2000)
    chosen = torch.from_numpy(np.argsort(-importance)[:1000])
    first_layer = codec.decode(codec.cut(grid.encode(splats, importance), level=1))
    assert_same_up_to_order(first_layer, grid.snap(splats).select(chosen))
    with pytest.raises(UserError, match="importance of 7 Gaussians given for 2000"):
        grid.encode(splats, np.zeros(7))


def test_layers_cost_little() -> None:
    splats = random_model(20_000, sh_degree=1)
    one, three = (len(GszCodec(layers=layers).fit(splats).encode(splats)) for layers in (1, 3))
    assert three < 1.03 * one


def test_info_accounts_for_every_byte_without_decoding() -> None:
    splats = random_model(2000)
    codec = GszCodec()
    data = codec.fit(splats).encode(splats)
    info = codec.info(data)
    assert sum(info["bytes"].values()) == len(data)
    assert info["grid"] == "native" and info["version"] == 2
    assert set(info["bytes"]) == {"header", *ATTRIBUTES, "padding"}


def test_a_file_of_one_layer_says_what_can_be_done_in_place_of_cutting_it() -> None:
    splats = random_model(200)
    data = GszCodec().fit(splats).encode(splats)
    with pytest.raises(UserError, match=rf"is a single layer of {len(data)} bytes.*gsz:layers=4"):
        GszCodec().cut(data, "file", max_bytes=len(data) - 1)


@pytest.mark.parametrize("grid", ["native", "fast3dgs"])
def test_a_file_of_one_gaussian_needs_no_kernel_of_its_own(grid: str) -> None:
    """A kernel is compiled for each kind of argument, and a decoder of strangers' files must not compile."""
    from gsz.coding import decoder

    for count in (2, 1):
        splats = random_model(count)
        codec = GszCodec(grid=grid)
        codec.decode(codec.fit(splats).encode(splats))
    assert len(decoder._decode_predicted.signatures) <= 1


def test_info_says_that_a_file_is_cut() -> None:
    splats = random_model(2000)
    codec = GszCodec(layers=3)
    data = codec.fit(splats).encode(splats)
    assert "cut" not in codec.info(data)
    cut = codec.info(data[: 2 * len(data) // 3])
    assert cut["count"] < 2000 and cut["cut"].startswith("the file ends after 2 of its 3 layers")


def size_at(splats: GaussianModel, size: int) -> int:
    """Bytes of the file whose steps were chosen for ``size``."""
    codec = GszCodec().for_size(splats, size)
    assert codec is not None
    return len(codec.fit(splats).encode(splats))


def test_a_size_is_met_within_two_percent_and_never_exceeded() -> None:
    splats = random_model(4000, sh_degree=1)
    coarsest = len(GszCodec(quality="tiny").fit(splats).encode(splats))
    finest = len(GszCodec(quality="best").fit(splats).encode(splats))
    for size in ((coarsest + finest) // 2, int(coarsest * 1.1)):
        length = size_at(splats, size)
        assert 0.98 * size <= length <= size
    assert size_at(splats, 2 * finest) == finest
    assert GszCodec().for_size(splats, 100) is None
    assert GszCodec(grid="fast3dgs").for_size(splats, finest) is None


def test_the_estimated_rate_is_the_actual_one_and_its_gradient_saves_bytes() -> None:
    splats = random_model(6000, seed=4)
    grid = GszCodec(quality="low", layers=1).fit(splats)
    assert isinstance(grid, GszGrid)
    actual = 8 * len(grid.encode(splats))
    assert abs(float(grid.estimated_bits(splats)) - actual) < 1e-3 * actual

    leaves = splats.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaves.sh_rest, leaves.log_scales], lr=0.003)
    for _ in range(8):
        optimiser.zero_grad()
        grid.estimated_bits(leaves).backward()
        optimiser.step()
    moved = leaves.detach()
    saved = 8 * len(grid.encode(moved))
    assert saved < 0.97 * actual
    assert abs(float(grid.estimated_bits(moved)) - saved) < 0.05 * saved


def test_estimates_change_with_what_is_observed_and_not_with_how_often_they_are_made() -> None:
    splats = random_model(2000, sh_degree=1)
    moved = splats.map(lambda tensor: tensor * 1.2)
    grid = GszCodec(quality="low").fit(splats)
    assert isinstance(grid, GszGrid)
    grid.observe(splats)
    grid.estimated_bits(splats)
    before = float(grid.estimated_bits(moved))
    assert all(float(grid.estimated_bits(moved)) == before for _ in range(RATE_LIFE + 1))
    for _ in range(RATE_LIFE - 1):
        grid.observe(moved)
    assert float(grid.estimated_bits(moved)) == before
    grid.observe(moved)
    actual = 8 * len(grid.encode(moved))
    assert abs(float(grid.estimated_bits(moved)) - actual) < 1e-3 * actual < abs(before - actual)


def test_a_snapped_model_keeps_its_values_while_anything_of_it_is_there() -> None:
    """Its memory serves the next one afterwards, and only then."""
    first, second = random_model(300, seed=1), random_model(300, seed=2)
    grid = GszCodec().fit(first)
    part = grid.snap(first).sh_rest[10:20]
    expected, address = part.clone(), part.untyped_storage().data_ptr()
    for _ in range(2):
        other = grid.snap(second)
    assert torch.equal(part, expected)
    assert other.sh_rest.untyped_storage().data_ptr() != address
    address = other.sh_rest.untyped_storage().data_ptr()
    del other
    assert grid.snap(first).sh_rest.untyped_storage().data_ptr() == address


def test_the_price_is_that_of_the_model_as_it_is_and_not_as_it_was_when_it_was_rounded() -> None:
    splats = random_model(3000, seed=3)
    grid = GszCodec().fit(splats)

    def paid(leaves: GaussianModel, snaps: bool) -> list[Tensor]:
        if snaps:
            grid.snap(leaves)
        for _, leaf in leaves.named_parameters():
            leaf.grad = None
        bits = grid.pay(leaves, 1.0)
        return [bits, *(leaf.grad for _, leaf in leaves.named_parameters() if leaf.grad is not None)]

    leaves = splats.clone().requires_grad_()
    known, unknown = paid(leaves, snaps=True), paid(splats.clone().requires_grad_(), snaps=False)
    assert all(map(torch.equal, known, unknown))
    with torch.no_grad():
        leaves.log_scales += 0.7
    moved = paid(leaves, snaps=False)
    assert not torch.equal(known[3], moved[3])  # Colors cost more where larger scales have made their steps finer.
    assert all(map(torch.equal, moved, paid(leaves.detach().clone().requires_grad_(), snaps=False)))


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(UserError, match="quality 'superb' is unknown; choose one of best, high"):
        GszCodec(quality="superb")
    with pytest.raises(UserError, match="opacity_levels=1 is out of range"):
        GszCodec(settings=GridSettings(opacity_levels=1))
    with pytest.raises(UserError, match="layers=0"):
        registry.get("gsz", layers=0)
    with pytest.raises(UserError, match="grid 'square'"):
        registry.get("gsz", grid="square")


def resealed(data: bytes, header: Header) -> bytes:
    """A file with all its checksums made right, so that damage reaches the decoders behind them."""
    position = header.size
    for layer, sections in enumerate(header.sections):
        for index, (length, _) in enumerate(sections):
            sections[index] = (length, zlib.crc32(data[position : position + length]))
            position += length
        header.sections[layer] = sections
    return header.pack() + data[header.size :]


@pytest.mark.parametrize("grid", ["native", "fast3dgs"])
def test_damage_behind_right_checksums_raises_codec_errors_only(grid: str) -> None:
    splats = random_model(300, sh_degree=2)
    codec = GszCodec(grid=grid)  # type: ignore[arg-type]
    data = codec.fit(splats).encode(splats)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        header = Header.parse(data, "file")
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            broken[int(rng.integers(header.size, len(data)))] = int(rng.integers(0, 256))
        if rng.random() < 0.3:
            parameters = bytearray(header.parameters)
            parameters[int(rng.integers(0, len(parameters)))] = int(rng.integers(0, 256))
            header.parameters = bytes(parameters)
        if rng.random() < 0.3:
            header.column_sizes[int(rng.integers(0, len(header.column_sizes)))] = int(rng.integers(1, 257))
        if rng.random() < 0.3:
            header.counts[0] = int(rng.integers(0, header.layer_bytes(0) + 1))
        try:
            codec.decode(resealed(bytes(broken), header), "broken.gsz")
        except CodecError as error:
            assert str(error).startswith("broken.gsz: ") and "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_any_damage_is_noticed() -> None:
    splats = random_model(200, sh_degree=1)
    codec = GszCodec(layers=1)
    data = codec.fit(splats).encode(splats)
    expected = codec.decode(data)
    for broken in damaged(data, 300, seed=9):
        try:
            decoded = codec.decode(broken, "broken.gsz")
        except CodecError:
            continue
        assert broken[: len(data)] == data  # Bytes after the end are not looked at.
        assert_same_up_to_order(decoded, expected)


def test_absurd_counts_allocate_nothing() -> None:
    splats = random_model(100, sh_degree=3)
    codec = GszCodec(layers=1)
    data = codec.fit(splats).encode(splats)
    header = Header.parse(data, "file")
    header.counts[0] = 4_000_000_000
    with allocating_little(), pytest.raises(CodecError, match=r"^big\.gsz: layer 1 claims more Gaussians than bytes"):
        codec.decode(header.pack() + data[header.size :], "big.gsz")
    header.counts[0], header.sections[0][0] = 100, (4_000_000_000, 0)
    with allocating_little(), pytest.raises(CodecError, match="not even the first of 1 layers"):
        codec.decode(header.pack() + data[header.size :], "big.gsz")


def test_identical_gaussians_are_padded_to_a_byte_each() -> None:
    splats = random_model(1, sh_degree=3).map(torch.zeros_like).select(torch.zeros(5000, dtype=torch.long))
    codec = GszCodec()
    data = codec.fit(splats).encode(splats)
    assert 5000 <= len(data) < 8000
    assert len(codec.decode(data)) == 5000


def test_other_versions_and_grids_are_refused() -> None:
    splats = random_model(10)
    codec = GszCodec()
    data = codec.fit(splats).encode(splats)
    for place, number, complaint in (
        (8, 3, r"\.gsz version 3 is unknown"),
        (8, 1, r"\.gsz version 1 was a draft"),
        (10, 0b1001, r"needs the \.gsz features 3, which are unknown"),
    ):
        other = bytearray(data)
        struct.pack_into("<H", other, place, number)
        with pytest.raises(CodecError, match=rf"^new\.gsz: {complaint}"):
            codec.decode(bytes(other), "new.gsz")
    header = Header.parse(data, "file")
    header.grid = 7
    with pytest.raises(CodecError, match=r"^new\.gsz: grid 7 is unknown"):
        codec.decode(header.pack() + data[header.size :], "new.gsz")


def test_a_file_keeps_what_is_known_about_the_model() -> None:
    """Metadata, in any language, the offset of positions to the last bit, and the flag of antialiasing."""
    known = {"made by": "gsz", "copyright": "© 2026 Ζωή", "quality": {"psnr": 28.5, "views": [1, 2]}, "up": None}
    offset = np.array([412345.678901, 5678901.234567, 1e-300])
    splats = random_model(10).replace(metadata=known, offset=offset, antialiased=True)
    for grid in ("native", "fast3dgs"):
        codec = GszCodec(grid=grid)  # type: ignore[arg-type]
        data = codec.fit(splats).encode(splats)
        decoded = codec.decode(data)
        assert decoded.metadata == known and decoded.antialiased and (decoded.offset == offset).all()
        assert codec.info(data)["metadata"] == known
    plain = codec.decode(codec.fit(random_model(10)).encode(random_model(10)))
    assert plain.metadata == {} and plain.offset is None and not plain.antialiased
    for wrong, complaint in (
        ({"a": "x" * 70_000}, "takes 70008 bytes"),
        ({"a": math.nan}, "as JSON"),
        ({"a": {1}}, "JSON"),
    ):
        with pytest.raises(UserError, match=complaint):
            codec.fit(splats).encode(splats.replace(metadata=wrong))


def test_a_label_may_be_replaced_and_written_in_any_way_that_json_has() -> None:
    splats = random_model(200)
    codec = GszCodec()
    data = codec.fit(splats).encode(splats)
    labelled = codec.labelled(data, {"up": [0, 1, 0]})
    header, before = Header.parse(labelled, "labelled.gsz"), Header.parse(data, "plain.gsz")
    assert labelled[header.size :] == data[before.size :]
    header.label = b' { "up" : [ 0, 1, 0 ] } '  # As another program might.
    spaced = header.pack() + data[before.size :]
    for file in (labelled, spaced):
        assert codec.decode(file).metadata == codec.info(file)["metadata"] == {"up": [0, 1, 0]}
    assert codec.labelled(spaced, {}) == data


def test_a_conversion_says_where_a_file_is_from_but_not_the_quality_of_another(tmp_path: Path) -> None:
    source, first, second = tmp_path / "a.ply", tmp_path / "a.gsz", tmp_path / "b.gsz"
    registry.write(source, random_model(50))
    convert(source, first)
    said = registry.info(first)["metadata"]
    assert said["source"] == {"format": "ply", "gaussians": 50, "bytes": source.stat().st_size}
    model = registry.read(first)
    registry.write(first, model.replace(metadata=model.metadata | {"quality": {"psnr": 30.0}, "copyright": "Zoe"}))
    convert(first, second, "gsz:quality=low")
    assert registry.info(second)["metadata"] == said | {"copyright": "Zoe"}


@pytest.mark.parametrize("packed", [b"[1]", b"{", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 60_000, b"{}" * 2])
def test_metadata_that_is_no_json_object_is_refused(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    splats = random_model(5, sh_degree=0)
    codec = GszCodec()
    monkeypatch.setattr("gsz.native.grid.pack_metadata", lambda metadata: packed)
    data = codec.fit(splats).encode(splats)
    with pytest.raises(CodecError, match=r"^odd\.gsz: the metadata is no JSON object"):
        codec.decode(data, "odd.gsz")


def test_a_file_cut_at_a_layer_is_corrected_as_it_says() -> None:
    """What the header has for the layer that is the last is added; a whole file is what it is."""
    splats = random_model(3000, sh_degree=0)
    codec = GszCodec(layers=3)
    grid = codec.fit(splats)
    assert isinstance(grid, GszGrid)
    plain = grid.encode(splats)
    grid.corrections = [Correction(0.25, -0.5), Correction(0.125, 0.0), Correction(1.0, 1.0)]
    data = grid.encode(splats)
    assert_same_up_to_order(codec.decode(data), codec.decode(plain))
    for level, (scales, logits) in enumerate(grid.corrections[:2], 1):
        expected = codec.decode(codec.cut(plain, level=level))
        expected.log_scales += np.float32(scales)
        expected.opacity_logits += np.float32(logits)
        assert_same_up_to_order(codec.decode(codec.cut(data, level=level)), expected)
    header = Header.parse(data, "file")
    header.corrections[0] = Correction(math.nan, 0.0)
    with pytest.raises(CodecError, match=r"^odd\.gsz: layer 1 has a correction that is out of range"):
        codec.decode(header.pack() + data[header.size :], "odd.gsz")


@pytest.mark.parametrize("wide", [False, True])
def test_fast3dgs_keeps_every_float_to_the_bit(wide: bool) -> None:
    """All finite half-precision numbers, -0 and subnormal ones included; and single-precision ones of any exponent."""
    if wide:
        bits = np.random.default_rng(0).integers(0, 1 << 32, 70_000, np.uint32)
        bits[:2] = 0, 1 << 31
        numbers = bits.view(np.float32)
    else:
        numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    numbers = numbers[np.isfinite(numbers) & (np.abs(numbers) < 1e30)]
    rows = np.resize(numbers, (len(numbers) // 3 + 1, 11))
    model = random_model(len(rows), 1)
    model.means, model.log_scales, model.quaternions, model.opacity_logits = (
        torch.from_numpy(rows[:, begin:end].copy()) for begin, end in ((0, 3), (3, 6), (6, 10), (10, 11))
    )
    grid = GszCodec(grid="fast3dgs").fit(model)
    assert bool(grid.values.wide) >= wide  # type: ignore[attr-defined]
    decoded = GszCodec().decode(grid.encode(model))
    assert_same_up_to_order(decoded, grid.snap(model))


def test_the_most_important_come_first_and_equals_in_their_order() -> None:
    values = np.random.default_rng(0).integers(0, 20, 1000).astype(np.float64)
    order = np.argsort(values, kind="stable")
    for number in (1, 2, 499, 1000):
        assert np.flatnonzero(smallest(values, number)).tolist() == sorted(order[:number])


def test_every_part_of_the_coding_has_its_inverse() -> None:
    rng = np.random.default_rng(0)
    means = rng.integers(-MEAN_LIMIT, MEAN_LIMIT + 1, (1000, 3)).astype(np.int32)
    np.testing.assert_array_equal(deinterleave(interleave(means, MEAN_LIMIT), MEAN_LIMIT), means)
    rgb = rng.integers(-(1 << 20), 1 << 20, (3, 1000)).astype(np.int32)
    np.testing.assert_array_equal(from_ycocg(*to_ycocg(*rgb)), rgb)
    for count in (0, 1, 7, 8, 9, 100):
        values = rng.integers(-(1 << 40), 1 << 40, count)
        np.testing.assert_array_equal(lane_sums(lane_differences(values), np.zeros(8, np.int64)), values)
        assert sorted(in_lanes(np.arange(count))) == list(range(count))
    np.testing.assert_array_equal(in_lanes(np.arange(17))[::8], [0, 1, 2])


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scene"):
            raise ImportError(f"{name} may not be imported")

sys.meta_path.insert(0, Refuse())
import numpy as np
from gsz.fast3dgs import Fast3dgsCodec
from gsz.fast3dgs_pickle import Fast3dgsPickleCodec
from gsz.native import GszCodec
from gsz.splats import Splats

rng = np.random.default_rng(0)
splats = Splats.from_arrays(*(rng.normal(0, 1, (3000, *shape)) for shape in ((3,), (3,), (4,), (1,), (1, 3), (15, 3))))
for codec in (GszCodec(), GszCodec(grid="fast3dgs"), Fast3dgsCodec()):
    data = codec.fit(splats).encode(splats)
    print(type(codec).__name__, len(codec.decode(data)), type(codec.decode(data).means).__name__)
assert GszCodec().for_size(splats, 200_000) is not None
print("torch" in sys.modules)
"""


def test_no_pytorch_is_needed_to_fit_encode_and_decode() -> None:
    finished = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, cwd=ROOT)
    assert finished.stderr == ""
    expected = [f"{name} 3000 ndarray" for name in ("GszCodec", "GszCodec", "Fast3dgsCodec")]
    assert finished.stdout.splitlines() == [*expected, "False"]
