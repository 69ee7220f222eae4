"""Proves SOG: other programs' files are read to the values those programs decode; colours survive where opacity is 0;
the palette keeps its assignments and follows its Gaussians; codebooks and k-means do what they should; zips, metas and
images that lie are refused before anything is allocated for them.

The law itself is proved for every codec in ``test_codecs.py``.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.errors import UserError
from gsz.registry import CodecError
from gsz.rounding import palettes
from gsz.rounding.codebooks import fit_codebook
from gsz.rounding.levels import midpoints_of, nearest_levels
from gsz.rounding.palettes import PaletteFitter, nearest_centroids
from gsz.rounding.sh_bits import log2_prominence
from gsz.sog import SogCodec
from gsz.sog.palette import FOLLOW_EVERY
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


def encode(splats: GaussianModel, **settings: Any) -> bytes:
    codec = SogCodec(**settings)
    return codec.fit(splats).encode(splats)


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_meta(data: bytes, **changes: Any) -> bytes:
    members = members_of(data)
    members["meta.json"] = json.dumps({**json.loads(members["meta.json"]), **changes}).encode()
    return zipped(members)


@pytest.mark.parametrize("name", other_programs_files("*.sog"))
def test_other_programs_files_are_read_to_their_values(name: str) -> None:
    data = (VIEWER_FILES / name).read_bytes()
    model = SogCodec().decode(data, name)
    assert model.sh_degree == int(name[-5])
    assert_read_as(model, name)
    info = SogCodec().info(data, name)
    assert (info["count"], info["sh_degree"]) == (200, model.sh_degree)
    assert sum(info["bytes"].values()) == sum(map(len, members_of(data).values()))


def test_pictures_of_another_programs_file() -> None:
    splats = source_model()
    cameras = cameras_around(splats)
    decoded = SogCodec().decode((VIEWER_FILES / "splat-transform_sh3.sog").read_bytes())
    assert psnr(pictures(decoded, cameras), pictures(splats, cameras)) > 45


def test_axes_and_signs_by_rendering() -> None:
    """SOG has INRIA's axes, and a picture of strongly view-dependent colours shows that nothing changes its sign."""
    splats = with_strong_sh(source_model())
    cameras = cameras_around(splats)
    decoded = SogCodec().decode(encode(splats))
    assert psnr(pictures(decoded, cameras), pictures(splats, cameras)) > 45


def test_layout_is_as_described() -> None:
    splats = source_model()
    members = members_of(encode(splats))
    meta = json.loads(members["meta.json"])
    assert (meta["version"], meta["count"]) == (2, 200)
    assert (meta["shN"]["count"], meta["shN"]["bands"]) == (len(splats.sh_rest.flatten(1).unique(dim=0)), 3)
    assert all(len(meta[key]["codebook"]) == 256 for key in ("scales", "sh0", "shN"))
    assert sorted(name for key in ("means", "quats", "scales", "sh0", "shN") for name in meta[key]["files"]) == sorted(
        set(members) - {"meta.json"}
    )
    logs = torch.sign(splats.means) * torch.log1p(splats.means.abs())
    np.testing.assert_allclose(meta["means"]["mins"], logs.amin(dim=0), rtol=1e-5)
    np.testing.assert_allclose(meta["means"]["maxs"], logs.amax(dim=0), rtol=1e-5)
    with zipfile.ZipFile(io.BytesIO(encode(splats))) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_colors_survive_where_opacity_is_zero() -> None:
    """Opacity is in the alpha channel, and an encoder of pictures may drop colours that nobody would see."""
    splats = random_model(300)
    splats.opacity_logits[:] = -30.0
    grid = SogCodec().fit(splats)
    decoded = SogCodec().decode(grid.encode(splats))
    assert_same_up_to_order(decoded, grid.snap(splats))
    assert len(np.unique(decoded.sh_dc)) > 100


def test_a_palette_vector_is_kept_and_follows_its_gaussians() -> None:
    splats = random_model(2000, sh_degree=1)
    grid = SogCodec(palette=128).fit(splats)
    before = grid.snap(splats).sh_rest
    assert before.flatten(1).unique(dim=0).shape[0] == 128
    moved = splats.clone()
    chosen = (before == before[0]).flatten(1).all(dim=1)
    moved.sh_rest[chosen] += 0.05
    # Fine-tuning moves coefficients past the borders between vectors; the assignment stays.
    assert torch.equal(grid.snap(moved).sh_rest, before)
    for _ in range(FOLLOW_EVERY):
        grid.observe(moved)
    after = grid.snap(moved).sh_rest
    torch.testing.assert_close(after[chosen], before[chosen] + 0.05, rtol=0, atol=0.02)
    assert torch.equal(after[~chosen], before[~chosen])
    assert_same_up_to_order(SogCodec().decode(grid.encode(moved)), grid.snap(moved))


def test_a_palette_settles_on_a_model_it_has_not_observed() -> None:
    """Fine-tuning ends with an average of its models; its file once had the palette of one of the last of them."""
    splats = random_model(2000, sh_degree=1)
    grid = SogCodec(quality="best").fit(splats)
    grid.observe(splats)  # The next ones of FOLLOW_EVERY leave the palette where it is.
    averaged = splats.map(lambda tensor: tensor + 0.05)
    grid.settle(averaged)
    torch.testing.assert_close(grid.snap(averaged).sh_rest, averaged.sh_rest, rtol=0, atol=0.51 / 128)
    assert_same_up_to_order(SogCodec().decode(grid.encode(averaged)), grid.snap(averaged))


def test_gaussians_have_vectors_of_their_own_whose_numbers_are_multiples() -> None:
    """Up to 65,536 Gaussians share no vector, and a vector has the finer steps the more its Gaussian shows."""
    splats = random_model(2000)
    splats.sh_rest.clamp_(-0.7, 0.7)  # Where the codebook is even.
    grid = SogCodec().fit(splats)
    assert json.loads(members_of(grid.encode(splats))["meta.json"])["shN"]["count"] == 2000
    snapped = grid.snap(splats).sh_rest
    assert torch.allclose(snapped * 128, (snapped * 128).round(), atol=0.01)
    error = (snapped - splats.sh_rest).abs().amax(dim=(1, 2))
    order = log2_prominence(splats.numpy()).argsort()
    assert error[order[-200:]].mean() < error[order[:200]].mean() / 4
    finest = SogCodec(quality="best").fit(splats).snap(splats).sh_rest
    assert (finest - splats.sh_rest).abs().max() <= 0.501 / 128
    sizes = [len(encode(splats, quality=quality)) for quality in ("tiny", "low", "medium", "high", "best")]
    assert sizes == sorted(sizes)


def test_vectors_that_many_gaussians_share_have_finer_steps() -> None:
    """What the Gaussians of a vector show adds up, so that its error does too."""
    splats = random_model(1000, sh_degree=1)
    splats.log_scales.zero_()
    splats.opacity_logits.zero_()
    splats.sh_rest[100:] = splats.sh_rest[0]
    snapped = SogCodec().fit(splats).snap(splats).sh_rest
    error = (snapped - splats.sh_rest).abs().amax(dim=(1, 2))
    assert error[0] < error[1:100].mean() / 2


def test_coefficients_beyond_one_are_kept() -> None:
    splats = random_model(500)
    splats.sh_rest[:3] = torch.tensor([-3.0, 0.0, 2.5])
    snapped = SogCodec(quality="best").fit(splats).snap(splats).sh_rest
    torch.testing.assert_close(snapped[:3], splats.sh_rest[:3], rtol=0.03, atol=0)


def test_the_gaussians_of_a_palette_vector_share_its_gradient() -> None:
    """What they share is one parameter; with gradients of their own they drifted apart from what they were shown as."""
    splats = random_model(1000, sh_degree=1)
    grid = SogCodec(palette=64).fit(splats)
    leaves = splats.clone().requires_grad_()
    snapped = grid.snap(leaves).sh_rest
    pulls = torch.randn(snapped.shape, generator=torch.Generator().manual_seed(0))
    snapped.backward(pulls)
    assert leaves.sh_rest.grad is not None
    vectors, members = snapped.detach().flatten(1).unique(dim=0, return_inverse=True)
    assert len(vectors) == 64
    for vector in range(64):
        chosen = members == vector
        expected = pulls[chosen].sum(dim=0).expand(int(chosen.sum()), 3, 3)
        torch.testing.assert_close(leaves.sh_rest.grad[chosen], expected)


@pytest.mark.parametrize("change", ["fewer", "another order"])
def test_a_grid_that_is_bound_to_other_gaussians_matches_them_anew(change: str) -> None:
    """A pruned or reordered model must not be given the vectors of the Gaussians that stood in its places."""
    splats = random_model(2000, sh_degree=1)
    grid = SogCodec(palette=64).fit(splats)
    index = (
        torch.arange(1500) if change == "fewer" else torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    )
    other = splats.select(index)
    before = grid.encode(splats)
    bound = grid.rebind(other)
    error = (bound.snap(other).sh_rest - other.sh_rest).square().mean()
    assert error < 1.1 * (grid.snap(splats).sh_rest - splats.sh_rest).square().mean()
    assert_same_up_to_order(SogCodec().decode(bound.encode(other)), bound.snap(other))
    assert grid.encode(splats) == before


def test_a_grid_refuses_a_model_of_another_count_and_names_the_remedy() -> None:
    splats = random_model(50, sh_degree=1)
    grid, pruned = SogCodec().fit(splats), splats.select(torch.arange(49))
    for use in (grid.observe, grid.settle, grid.snap, grid.encode):
        with pytest.raises(ValueError, match=r"to the 50 Gaussians .* given 49; .*rebind"):
            use(pruned)


def test_what_a_grid_shows_does_not_depend_on_what_it_was_shown_before() -> None:
    """It once took a model that had moved far for another one, unless it had observed it on the way."""
    splats = random_model(500, sh_degree=1)
    grid = SogCodec(palette=16).fit(splats)
    far = splats.clone()
    far.means += 1000.0
    assert torch.equal(grid.snap(far).sh_rest, grid.snap(splats).sh_rest)


def test_the_scales_of_large_gaussians_are_fine() -> None:
    """A few giants cover most of the picture; by their number alone they would get few of the 256 entries."""
    splats = random_model(4000)
    splats.log_scales[:20] += 3 + 8 * torch.rand((20, 3), generator=torch.Generator().manual_seed(0))
    error = (SogCodec().fit(splats).snap(splats).log_scales - splats.log_scales).abs()
    assert error[:20].mean() < 0.005
    assert error.mean() < 0.05


def levels_of(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    return nearest_levels(values, midpoints_of(codebook))


def test_codebooks_keep_few_values_and_halve_the_error_of_even_steps() -> None:
    few = np.float32([3.0, 1.5, 1.5, -2.25])
    levels = fit_codebook(few)
    assert levels.shape == (256,)
    assert set(few.tolist()) == set(levels.tolist())

    values = np.random.default_rng(0).laplace(size=20_000).astype(np.float32)

    def error(codebook: np.ndarray) -> float:
        return float(np.square(codebook[levels_of(values, codebook)] - values).mean())

    even = np.linspace(values.min(), values.max(), 256, dtype=np.float32)
    assert error(fit_codebook(values)) < error(even) / 2


def test_levels_are_the_nearest_entries() -> None:
    codebook = np.sort(np.random.default_rng(0).normal(size=256)).astype(np.float32)
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32) * 2
    nearest = np.abs(values[:, None].astype(np.float64) - codebook).argmin(axis=1)
    np.testing.assert_array_equal(levels_of(values, codebook), nearest)


def test_palettes_find_clusters_and_are_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 9)).astype(np.float32)
    rows = (centers[rng.integers(0, 40, 4000)] + rng.normal(0, 0.01, (4000, 9))).astype(np.float32)
    weights = np.ones(4000, np.float32)
    first, second = (PaletteFitter(60, seed=1).fit(rows, weights) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.centroids, second.centroids)
    assert np.square(rows - first.centroids[first.labels]).sum(axis=1).mean() < 2 * 9 * 0.01**2


def test_palettes_in_two_levels_are_nearly_as_good_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).laplace(size=(6000, 9)).astype(np.float32)
    weights = np.ones(6000, np.float32)

    def error() -> float:
        palette = PaletteFitter(512).fit(rows, weights)
        assert len(palette.centroids) <= 512
        return float(np.square(rows - palette.centroids[palette.labels]).mean())

    in_one = error()
    monkeypatch.setattr(palettes, "SCORES_AN_ITERATION", 1 << 14)
    assert error() < 1.15 * in_one


def test_rows_that_are_nearly_alike_end() -> None:
    rows = np.full((3000, 9), 1000.0, np.float32)
    rows[:, 0] += np.arange(3000) * 1e-4
    palette = PaletteFitter(1500, iterations=2).fit(rows, np.ones(3000, np.float32))
    assert np.abs(rows - palette.centroids[palette.labels]).max() < 0.5
    labels, _ = nearest_centroids(rows, palette.centroids)
    assert labels.max() < len(palette.centroids)


def test_a_description_without_its_images_names_the_first_that_is_missing(tmp_path: Any) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(members_of(encode(random_model(10)))["meta.json"])
    with pytest.raises(UserError, match=r"means_l\.webp: cannot be read"):
        registry.read(path)


def test_the_bytes_of_a_description_alone_are_refused_with_the_remedy() -> None:
    meta = members_of(encode(random_model(10)))["meta.json"]
    assert SogCodec.recognizes(meta)
    with pytest.raises(CodecError, match=r"^meta\.json: .*an unbundled SOG .*give its folder"):
        SogCodec().decode(meta, "meta.json")


def test_names_in_the_zip_may_be_others() -> None:
    splats = random_model(10, sh_degree=0)
    members = members_of(encode(splats))
    meta = json.loads(members["meta.json"])
    meta["quats"]["files"] = ["somewhere/q.webp"]
    members["somewhere/q.webp"] = members.pop("quats.webp")
    members["meta.json"] = json.dumps(meta).encode()
    expected = SogCodec().decode(encode(splats))
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert_same_up_to_order(SogCodec().decode(zipped(members, compression)), expected)


@pytest.mark.parametrize(("changes", "message"), [
    ({"version": 3}, "SOG version 3 is unknown"),
    ({"version": None}, "SOG version None is unknown"),
    ({"count": 10**12}, "claims a count"),
    ({"count": -1}, "claims a count"),
    ({"count": 60.5}, "claims a count"),
    ({"count": 65}, "pixels for 65 Gaussians"),
    ({"means": []}, "lacks means"),
    ({"quats": {"files": ["../../etc/passwd"]}}, "names a file of quats that is missing"),
    ({"quats": {"files": [7]}}, "names a file of quats that is missing"),
    ({"scales": {"codebook": [0.0], "files": ["scales.webp"]}}, "past the end of its codebook"),
    ({"scales": {"codebook": [float("nan")] * 256, "files": ["scales.webp"]}}, "other than finite numbers"),
    ({"sh0": {"codebook": [0.0] * 257, "files": ["sh0.webp"]}}, "no list codebook of 1 to 256"),
    ({"means": {"mins": [0, 0, 0], "maxs": [0, 0, 99], "files": ["means_l.webp", "means_u.webp"]}}, "beyond float32"),
    ({"shN": {"count": 1, "bands": 4, "codebook": [0.0], "files": ["a", "b"]}}, "names a file of shN|claims a bands"),
])  # fmt: skip
def test_contradictory_metas_are_refused(changes: dict[str, Any], message: str) -> None:
    data = encode(random_model(60))
    with allocating_little(), pytest.raises(CodecError, match=f"^f: .*({message})"):
        SogCodec().decode(with_meta(data, **changes), "f")


def test_labels_past_the_palette_are_refused() -> None:
    data = encode(random_model(60))
    section = json.loads(members_of(data)["meta.json"])["shN"]
    with pytest.raises(CodecError, match=r"^f: .*a label is past the end of the palette"):
        SogCodec().decode(with_meta(data, shN={**section, "count": 30}), "f")


def test_images_that_claim_to_be_huge_are_refused_before_they_are_opened() -> None:
    members = members_of(encode(random_model(60)))
    image = bytearray(members["quats.webp"])
    assert image[12:16] == b"VP8L"
    image[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14 | 1 << 28)
    huge = zipped({**members, "quats.webp": bytes(image)})
    with allocating_little(), pytest.raises(CodecError, match=r"^f: .*'quats\.webp' is of 16384 x 16384 pixels"):
        SogCodec().decode(huge, "f")


def test_lossy_images_are_refused() -> None:
    from PIL import Image

    members = members_of(encode(random_model(60)))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", lossless=False)
    with pytest.raises(CodecError, match=r"^f: .*'scales\.webp' is a lossy image"):
        SogCodec().decode(zipped({**members, "scales.webp": buffer.getvalue()}), "f")


def test_zip_bombs_are_refused() -> None:
    members = members_of(encode(random_model(60)))
    bomb = zipped({**members, "meta.json": b" " * 200_000_000}, zipfile.ZIP_DEFLATED)
    with allocating_little(), pytest.raises(CodecError, match=r"^f: .*'meta\.json' claims to be of 200000000 bytes"):
        SogCodec().decode(bomb, "f")
    deep = zipped({**members, "meta.json": b"[" * 100_000})
    with pytest.raises(CodecError, match=r"^f: .*meta\.json is not JSON"):
        SogCodec().decode(deep, "f")


def test_checksums_of_the_zip_are_used() -> None:
    data = bytearray(encode(random_model(60)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo("means_u.webp")
    data[member.header_offset + 30 + len(member.filename) + member.file_size // 2] ^= 255
    with pytest.raises(CodecError, match=r"^f: corrupted, 'means_u\.webp' cannot be unzipped \(Bad CRC-32"):
        SogCodec().decode(bytes(data), "f")


@pytest.mark.parametrize("case", degenerate_models())
@pytest.mark.parametrize("palette", [1, 2, 65536])
def test_law_of_other_palettes_on_degenerate_models(palette: int, case: str) -> None:
    splats = degenerate_models()[case]
    splats.sh_rest[::2] = 0.0
    grid = SogCodec(palette=palette).fit(splats)
    assert_same_up_to_order(SogCodec().decode(grid.encode(splats)), grid.snap(splats))


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"palette": 65537}, "palette 65537"),
        ({"sh_bits": 17}, "sh_bits 17"),
        ({"quality": "fine"}, "sog quality 'fine' is unknown; choose one of best, high"),
    ):
        with pytest.raises(UserError, match=message):
            SogCodec(**settings)
