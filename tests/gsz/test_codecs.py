"""Proves, for every format in the registry, the law of the codecs: a file decodes to what ``snap`` showed.

Also that encoding is deterministic, that snapping passes gradients, that files are recognised by their first bytes,
that damaged files raise ``CodecError`` and nothing else, that golden files keep their values, and what the
registry says to wrong names. A format that is added to the registry is covered at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsz import registry
from gsz.coding.morton import BITS_PER_AXIS, deinterleave, interleave, morton_codes, morton_order, stable_order
from gsz.errors import UserError
from gsz.registry import Codec, CodecError
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, checksum, damaged, degenerate_models, random_model

GOLDEN = Path(__file__).parents[1] / "golden"
WRITABLE = registry.names(writable_only=True)


@pytest.fixture(params=WRITABLE)
def codec(request: pytest.FixtureRequest) -> Codec:
    return registry.get(request.param)


def assert_law(codec: Codec, splats: GaussianModel) -> None:
    """A file decodes to the snapped model, which is finite, and says in its header what it holds."""
    grid = codec.fit(splats)
    snapped = grid.snap(splats)
    data = grid.encode(splats)
    decoded = codec.decode(data, "file")
    assert_same_up_to_order(decoded, snapped)
    decoded.check_finite("file")
    info = codec.info(data, "file")
    assert (info["format"], info["count"], info["sh_degree"]) == (codec.name, len(splats), splats.sh_degree)
    assert "version" in info
    if len(splats):
        assert sum(info["bytes"].values()) <= len(data) <= 5000 + 1.05 * sum(info["bytes"].values())


@pytest.mark.parametrize("sh_degree", range(4))
def test_law_on_random_models(codec: Codec, sh_degree: int) -> None:
    assert_law(codec, random_model(500, sh_degree, seed=sh_degree))


@pytest.mark.parametrize("case", degenerate_models())
def test_law_on_degenerate_models(codec: Codec, case: str) -> None:
    assert_law(codec, degenerate_models()[case])


def test_law_after_the_model_has_moved(codec: Codec) -> None:
    """The grid of fine-tuning is fitted once and writes a model that has drifted since, some of it off the range."""
    splats = random_model(300)
    grid = codec.fit(splats)
    moved = splats.map(lambda tensor: tensor * 1.3 + 0.01)
    grid.observe(moved)
    assert_same_up_to_order(codec.decode(grid.encode(moved)), grid.snap(moved))


def test_view_dependence_that_was_pruned_stays_pruned(codec: Codec) -> None:
    """Coefficients of 0 are on every grid, also when the others have moved, and when the Gaussians are others."""
    splats = random_model(3000, sh_degree=2)
    pruned = torch.arange(3000) % 3 > 0
    splats.sh_rest[pruned] = 0.0
    grid = codec.fit(splats)
    assert not grid.snap(splats).sh_rest[pruned].any()
    for _ in range(5):
        splats.sh_rest[~pruned] *= 1.1
        grid.observe(splats)
    assert not grid.snap(splats).sh_rest[pruned].any()
    others = splats.select(torch.nonzero(pruned)[:, 0])
    assert not grid.rebind(others).snap(others).sh_rest.any()


def test_importance_may_be_set_on_every_grid(codec: Codec) -> None:
    """The loop sets it whether the format makes use of it or not, and the law holds all the same."""
    splats = random_model(100)
    grid = codec.fit(splats)
    grid.importance = None
    grid.importance = torch.linspace(0, 1, 100)
    assert_same_up_to_order(codec.decode(grid.encode(splats)), grid.snap(splats))


def test_a_model_that_was_trained_with_antialiasing_says_so_in_formats_that_can(codec: Codec) -> None:
    for antialiased in (False, True):
        splats = random_model(20).replace(antialiased=antialiased)
        grid = codec.fit(splats)
        decoded = codec.decode(grid.encode(splats))
        assert decoded.antialiased == (antialiased and "antialiased" in codec.keeps)
        assert_same_up_to_order(decoded, grid.snap(splats))


def test_encoding_is_deterministic_and_leaves_the_model_alone(codec: Codec) -> None:
    splats = random_model(300)
    before = splats.clone()
    first = codec.fit(splats).encode(splats)
    assert codec.fit(splats).encode(splats) == first
    assert_same_up_to_order(splats, before)


def test_snapping_keeps_the_order_of_gaussians_and_passes_gradients(codec: Codec) -> None:
    splats = random_model(200).requires_grad_()
    grid = codec.fit(splats)
    snapped = grid.snap(splats)
    backwards = torch.arange(len(splats) - 1, -1, -1)
    reversed_after = snapped.select(backwards)
    reversed_splats = splats.select(backwards)
    reversed_before = grid.rebind(reversed_splats).snap(reversed_splats)
    for (name, after), (_, before) in zip(
        reversed_after.named_parameters(), reversed_before.named_parameters(), strict=True
    ):
        torch.testing.assert_close(after, before, rtol=0, atol=0, msg=name)

    rng = torch.Generator().manual_seed(0)
    sum(
        (tensor * torch.randn(tensor.shape, generator=rng)).sum() for _, tensor in snapped.named_parameters()
    ).backward()  # type: ignore[union-attr]
    for name, tensor in splats.named_parameters():
        assert tensor.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.any(), f"the gradient of {name} is zero"


def test_files_are_recognized_by_their_first_bytes(codec: Codec, tmp_path: Path) -> None:
    splats = random_model(20)
    data = codec.fit(splats).encode(splats)
    if not codec.recognizes(data[: registry.HEAD_BYTES]):
        pytest.skip(f"{codec.name} files have no magic number")
    misnamed = tmp_path / "model.bin"
    misnamed.write_bytes(data)
    assert_same_up_to_order(registry.read(misnamed), codec.decode(data))
    assert registry.info(misnamed)["file_bytes"] == len(data)


def test_write_and_read(codec: Codec, tmp_path: Path) -> None:
    splats = random_model(50)
    path = tmp_path / "new folder" / f"model{codec.suffix}"
    data = registry.write(path, splats, codec)
    assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert_same_up_to_order(registry.read(path), codec.fit(splats).snap(splats))


def test_parameters_that_are_not_finite_are_not_written(codec: Codec, tmp_path: Path) -> None:
    splats = random_model(5)
    splats.log_scales[2, 1] = torch.nan
    path = tmp_path / f"model{codec.suffix}"
    with pytest.raises(UserError, match="log_scales is NaN or infinite for 1 of 5"):
        registry.write(path, splats, codec)
    assert not path.exists()


def test_damaged_files_raise_codec_errors_only(codec: Codec) -> None:
    splats = random_model(40, sh_degree=1)
    data = codec.fit(splats).encode(splats)
    for broken in damaged(data, 300):
        try:
            codec.decode(broken, "broken.file")
        except CodecError as error:
            message = str(error)
            assert message.startswith("broken.file"), message
            assert "\n" not in message


@pytest.mark.parametrize("length", [0, 1, 7, 20])
def test_truncated_files_are_refused(codec: Codec, length: int) -> None:
    splats = random_model(40)
    data = codec.fit(splats).encode(splats)
    with pytest.raises(CodecError, match=r"^broken\.file"):
        codec.decode(data[:length], "broken.file")
    with pytest.raises(CodecError, match=r"^broken\.file"):
        codec.decode(data[: len(data) // 2], "broken.file")


GOLDEN_FILES = sorted(path for path in GOLDEN.glob("*") if path.suffix != ".sha256")


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.name)
def test_golden_files_decode_to_the_same_values_for_ever(path: Path) -> None:
    """Beside every golden file lies the ``helpers.checksum`` of what it held when it was written."""
    assert checksum(registry.read(path)) == Path(f"{path}.sha256").read_text().strip()


@pytest.mark.parametrize("format_", registry.FORMATS, ids=lambda format_: format_.name)
def test_the_registry_says_of_each_format_what_its_class_says(format_: registry.Format) -> None:
    """The registry knows it without importing the class, so that it stands in two places."""
    codec = format_.load()
    assert (codec.name, codec.suffix, codec.writable, codec.aliases) == (
        format_.name,
        format_.suffix,
        format_.writable,
        format_.aliases,
    )


def test_names_and_suffixes_are_unique() -> None:
    every = [name for format_ in registry.FORMATS for name in (format_.name, *format_.aliases)]
    assert len(set(every)) == len(every)
    suffixes = [format_.suffix for format_ in registry.FORMATS]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


def test_unknown_names_and_settings_list_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"codec 'mp3' is unknown; choose one of .*ply"):
        registry.get("mp3")
    with pytest.raises(UserError, match="codec 'ply' has no setting 'speed'; it has no settings"):
        registry.get("ply", speed=3)


def test_read_only_formats_say_so(tmp_path: Path) -> None:
    for format_ in registry.FORMATS:
        if not format_.writable:
            with pytest.raises(UserError, match="can be read but not written"):
                registry.write(tmp_path / "model", random_model(3), format_.load()())
            with pytest.raises(UserError, match="can be read but not written"):
                format_.load()().fit(random_model(3))


def test_the_longest_suffix_wins() -> None:
    assert registry.format_of_suffix("GARDEN.PLY") is registry.format_of_suffix("b.ply")
    assert registry.format_of_suffix("model.tar") is None
    for format_ in registry.FORMATS:
        assert registry.format_of_suffix(f"model{format_.suffix}") is format_


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"GIF89a" * 20, "not a file of a known format")])
def test_files_of_no_format_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CodecError, match=f"model.bin: .*{message}"):
        registry.read(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.ply: cannot be read"):
        registry.read(tmp_path / "absent.ply")


def test_morton_codes_interleave_and_come_apart() -> None:
    cells = np.random.default_rng(0).integers(0, 1 << BITS_PER_AXIS, (1000, 3)).astype(np.int32)
    codes = interleave(cells)
    np.testing.assert_array_equal(deinterleave(codes), cells)
    ones = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]], np.int32)
    assert interleave(ones).tolist() == interleave(ones - 5, 5).tolist() == [1, 2, 4, 8]
    slow = sum(((int(cells[7, axis]) >> bit) & 1) << (3 * bit + axis) for axis in range(3) for bit in range(21))
    assert int(codes[7]) == slow


@pytest.mark.parametrize("bits", [0, 3, 11, 40, 63])
def test_stable_order_is_numpys(bits: int) -> None:
    """Codes of any length, with equal ones among them, are sorted as NumPy's stable sort does."""
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 3000)
    codes[::7] = codes[5]
    np.testing.assert_array_equal(stable_order(codes), np.argsort(codes, kind="stable"))
    assert stable_order(codes[:0]).tolist() == []


def test_morton_order_is_a_permutation_that_keeps_neighbors_together() -> None:
    positions = random_model(5000).means.numpy()
    order = morton_order(positions)
    assert sorted(order.tolist()) == list(range(5000))

    def step(points: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(np.diff(points, axis=0), axis=1)))

    assert step(positions[order]) < step(positions) / 4


def test_morton_order_of_degenerate_points() -> None:
    assert morton_order(np.zeros((0, 3), np.float32)).tolist() == []
    assert morton_order(np.zeros((1, 3), np.float32)).tolist() == [0]
    assert morton_order(np.full((5, 3), 7, np.float32)).tolist() == [0, 1, 2, 3, 4]
    far = np.array([[3e38] * 3, [0, 0, 0], [-3e38] * 3, [1e-30, 0, 0]], np.float32)
    assert sorted(morton_order(far).tolist()) == [0, 1, 2, 3]
    cells = deinterleave(morton_codes(far))
    assert 0 <= cells.min() < cells.max() < 1 << BITS_PER_AXIS
