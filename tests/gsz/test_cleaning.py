"""Proves what becomes of values that no trained model should hold: repaired where they have a meaning, dropped where
they have none, with one line for each kind that counts them; refused with ``strict``; the model untouched otherwise.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import gsz
from gsz import registry
from gsz.cleaning import CUT_SH, FLAT_LOG_SCALE, OPAQUE_LOGIT, clean, deactivate, doubts
from gsz.errors import UserError
from gsz.native.rate import symbol_costs
from gsz.registry import CodecError
from gsz.splats import Splats
from tests.helpers import degenerate_models, random_model

ALL_FORMATS = registry.names(writable_only=True)


def model(count: int = 200, sh_degree: int = 1) -> Splats:
    return random_model(count, sh_degree).numpy().map(np.copy)


def assert_same(one: Splats, other: Splats) -> None:
    for (name, expected), (_, actual) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        np.testing.assert_array_equal(actual, expected, name)


def test_sound_models_are_left_alone() -> None:
    splats = model()
    cleaned, notes = clean(splats)
    assert cleaned is splats and notes == [] and doubts(splats) == []


@pytest.mark.parametrize("case", sorted(set(degenerate_models()) - {"all zero", "span of 1e30", "span of a million"}))
def test_degenerate_but_valid_models_are_left_alone(case: str) -> None:
    splats = degenerate_models()[case].numpy()
    assert clean(splats) == (splats, [])
    assert doubts(splats) == []


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_what_has_been_cleaned_stays_clean(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of the values that cleaning sets, which a grid may round past them, are read without being cleaned."""
    splats = model()
    splats.opacity_logits[:50] = OPAQUE_LOGIT
    splats.opacity_logits[50:60] = -OPAQUE_LOGIT
    splats.log_scales[::3, 1] = FLAT_LOG_SCALE
    splats.sh_dc[7], splats.sh_rest[8] = CUT_SH, -CUT_SH
    gsz.write(tmp_path / "model", splats, name)
    assert len(gsz.read(tmp_path / "model", strict=True)) == 200
    assert caplog.text == ""


def test_rows_with_nan_are_dropped_and_counted_by_field() -> None:
    splats = model()
    for row, name in enumerate(["means", "log_scales", "quaternions", "opacity_logits", "sh_dc", "sh_rest"]):
        getattr(splats, name)[[row, 100]] = np.nan
    splats.means[150, 1], splats.quaternions[151, 0], splats.sh_rest[152, 2, 1] = np.inf, -np.inf, np.inf
    splats.log_scales[[153, 154], 2] = np.inf, 200.0
    broken = [*range(6), 100, *range(150, 155)]
    cleaned, notes = clean(splats)
    assert_same(cleaned, splats.select(np.setdiff1d(np.arange(200), broken)))
    assert notes == [
        "12 of 200 Gaussians are dropped for values that are NaN, infinite or out of all bounds "
        "(means of 3, log_scales of 4, quaternions of 3, opacity_logits of 2, sh_dc of 2, sh_rest of 3)"
    ]


def test_blank_rows_are_dropped() -> None:
    """As Postshot pads its files; a Gaussian at the origin is not blank."""
    splats = model()
    for _, array in splats.named_parameters():
        array[20:] = 0
    splats.means[:10] = 0
    cleaned, notes = clean(splats)
    assert_same(cleaned, splats.select(np.arange(20)))
    assert notes == ["180 of 200 Gaussians are dropped because all their values are 0"]


def test_blank_rows_may_have_an_identity_rotation() -> None:
    """One such Gaussian alone is what people write by hand."""
    splats = model()
    for name, array in splats.named_parameters():
        array[180:] = 0
        if name == "quaternions":
            array[180:, 0] = 1
    assert len(clean(splats)[0]) == 180
    assert len(clean(splats.select(np.arange(181)))[0]) == 181


def test_infinite_opacities_are_opaque_or_gone() -> None:
    splats = model()
    splats.opacity_logits[:20], splats.opacity_logits[20:30], splats.opacity_logits[30] = np.inf, -np.inf, 1e30
    cleaned, notes = clean(splats)
    assert cleaned.opacity_logits[:31, 0].tolist() == [20.0] * 20 + [-20.0] * 10 + [20.0]
    assert_same(cleaned.select(np.arange(31, 200)), splats.select(np.arange(31, 200)))
    assert notes == [
        "31 Gaussians with infinite opacity logits are read as 21 opaque and 10 invisible ones (20 and -20)"
    ]


def test_scales_of_zero_are_read_as_flat() -> None:
    splats = model()
    splats.log_scales[:5, 2], splats.log_scales[3, 1], splats.log_scales[7] = -np.inf, -1e30, -39
    cleaned, notes = clean(splats)
    assert (cleaned.log_scales[:5, 2] == FLAT_LOG_SCALE).all() and cleaned.log_scales[3, 1] == FLAT_LOG_SCALE
    assert (cleaned.log_scales[7] == -39).all()
    assert notes == ["5 Gaussians with a scale of 0 are read as flat (a log-scale of -30)"]


@pytest.mark.parametrize("value", [1e4, 1e8, 1e30, 3e38])
def test_diverged_colors_are_cut(value: float) -> None:
    splats = model()
    splats.sh_dc[3, 0, 1], splats.sh_rest[3, 1, 2], splats.sh_rest[9, 0, 0] = value, value, -value
    cleaned, notes = clean(splats)
    assert (cleaned.sh_dc[3, 0, 1], cleaned.sh_rest[3, 1, 2], cleaned.sh_rest[9, 0, 0]) == (CUT_SH, CUT_SH, -CUT_SH)
    assert notes == ["the colors of 2 Gaussians are diverged: coefficients beyond 2000 are cut to 1000"]


@pytest.mark.parametrize("value", [1e9, 1e30])
def test_lost_positions_are_dropped(value: float) -> None:
    splats = model()
    splats.means[5, 1], splats.means[6] = value, -value
    cleaned, notes = clean(splats)
    assert_same(cleaned, splats.select(np.setdiff1d(np.arange(200), [5, 6])))
    assert notes == [
        "2 of 200 Gaussians are dropped because they lie more than 1,000,000 radii of the model away from it"
    ]


def test_large_and_small_models_are_not_lost() -> None:
    for scale in (1e-6, 1e6):
        splats = model().replace(means=model().means * np.float32(scale))
        assert clean(splats)[1] == []
    assert clean(model().replace(means=np.zeros((200, 3), np.float32)))[1] == []


def test_long_quaternions_keep_their_direction() -> None:
    splats = model()
    expected = splats.quaternions / np.linalg.norm(splats.quaternions, axis=1, keepdims=True)
    splats.quaternions[4] *= np.float32(1e30)
    cleaned, notes = clean(splats)
    lengths = np.linalg.norm(cleaned.quaternions, axis=1, keepdims=True)
    np.testing.assert_allclose(cleaned.quaternions / lengths, expected, rtol=1e-5)
    assert notes == []


def test_every_kind_has_its_line_in_the_log_or_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splats = model()
    splats.means[0] = np.nan
    splats.opacity_logits[1] = np.inf
    splats.sh_dc[2] = 1e30
    write_unchecked(tmp_path / "model.ply", splats)
    assert len(gsz.read(tmp_path / "model.ply")) == 199
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    for message, begin in zip(caplog.messages, ["1 of 200 Gaussians", "1 Gaussian with", "the colors"], strict=True):
        assert message.startswith(f"{tmp_path / 'model.ply'}: {begin}")
    with pytest.raises(CodecError, match=r"model\.ply: 1 of 200 .*; 1 Gaussian .*; the colors .*; leave --strict out"):
        gsz.read(tmp_path / "model.ply", strict=True)


def test_models_of_nothing_usable_are_refused(tmp_path: Path) -> None:
    splats = model(5)
    splats.means[:] = np.nan
    write_unchecked(tmp_path / "model.ply", splats)
    with pytest.raises(CodecError, match=r"model\.ply: holds no Gaussian that can be used: 5 of 5 .* dropped"):
        gsz.read(tmp_path / "model.ply")


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_no_broken_value_reaches_a_file(name: str, tmp_path: Path) -> None:
    """From PLY to every format, and what it is read as there."""
    splats = model(3000)
    generator = np.random.default_rng(0)
    for _, array in splats.named_parameters():
        at = generator.integers(0, 3000, 40)
        array.reshape(3000, -1)[at, 0] = generator.choice([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38], 40)
    write_unchecked(tmp_path / "model.ply", splats)
    written = gsz.convert(tmp_path / "model.ply", tmp_path / "model.out", name)
    assert 2700 < written.count < 3000
    read = gsz.read(tmp_path / "model.out")
    assert len(read) == written.count
    read.check_finite("model.out")


@pytest.mark.parametrize("value", [1e8, 1e18])
def test_no_table_of_the_rate_is_as_long_as_one_value(value: float) -> None:
    """Fine-tuning may make a color diverge that was sound when it was read."""
    symbols = np.arange(-50, 50)
    low, costs = symbol_costs(np.append(symbols, int(value)))
    plain_low, plain_costs = symbol_costs(symbols)
    assert low == plain_low and len(costs) < 1 << 17
    # What occurs costs less than what does not, as it does without that value.
    assert costs[0] > costs[-50 - low] and plain_costs[0] > plain_costs[-50 - low]


def activated(*names: str) -> Splats:
    splats = model()
    if "opacity" in names:
        splats.opacity_logits = 1 / (1 + np.exp(-splats.opacity_logits))
    if "scale" in names:
        splats.log_scales = np.exp(splats.log_scales)
    return splats


@pytest.mark.parametrize("names", [("opacity",), ("scale",), ("opacity", "scale")])
def test_activated_values_are_noticed_and_read(
    names: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gsz.write(tmp_path / "model.ply", activated(*names))
    gsz.read(tmp_path / "model.ply")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(names)
    for name, message in zip(names, caplog.messages, strict=True):
        assert f"--activated {name}" in message
    caplog.clear()
    read = gsz.read(tmp_path / "model.ply", activated=names)
    assert caplog.messages == []
    for (name, expected), (_, actual) in zip(model().named_parameters(), read.named_parameters(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("factor", [1e-4, 1.0, 30.0, 1e3])
def test_activated_scales_are_noticed_in_models_of_any_size(
    factor: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where cleaning would drop most of them for their size, and where others are broken."""
    plain = model()
    plain = plain.replace(means=plain.means * factor, log_scales=plain.log_scales + np.float32(np.log(factor)))
    assert doubts(plain) == []
    scales = np.exp(plain.log_scales)
    scales[5], scales[6, 1] = 0, np.nan
    write_unchecked(tmp_path / "model.ply", plain.replace(log_scales=scales))
    with suppress(CodecError):
        gsz.read(tmp_path / "model.ply")
    assert "its scales look activated" in caplog.text


def test_activated_opacities_may_be_rounded_beyond_1() -> None:
    splats = activated("opacity")
    splats.opacity_logits[3] = np.float32(1.0000002)
    assert "--activated opacity" in doubts(splats)[0]
    assert np.isposinf(deactivate(splats, ("opacity",), "file").opacity_logits[3])


def test_positions_that_single_precision_has_spoiled_are_noticed() -> None:
    far = model()
    far = far.replace(means=(far.means + np.array([5e5, 5.4e6, 300])).astype(np.float32))
    assert "has rounded them to steps of 0.5" in doubts(far)[0]
    assert doubts(far.replace(log_scales=far.log_scales + 5)) == []


def test_activated_ends_are_opaque_gone_and_flat() -> None:
    splats = activated("opacity", "scale")
    splats.opacity_logits[:2, 0], splats.log_scales[0, 1] = (0, 1), 0
    cleaned, notes = clean(deactivate(splats, ("opacity", "scale"), "file"))
    assert cleaned.opacity_logits[:2, 0].tolist() == [-20, 20] and cleaned.log_scales[0, 1] == FLAT_LOG_SCALE
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("opacity",), "its opacities run from -.* so that they are not activated"),
        (("scale",), "its scales begin at -.*, so that they are not activated"),
        (("color",), "'color' is neither opacity nor scale"),
    ],
)
def test_what_cannot_be_activated_is_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        deactivate(model(), names, "file")


def test_a_message_names_what_a_format_cannot_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splats = model().replace(offset=np.array([4e5, 5e6, 0]), antialiased=True)
    for name in ALL_FORMATS:
        caplog.clear()
        gsz.write(tmp_path / "model", splats, name)
        kept = registry.find(name).load().keeps
        assert ("add [400000.0, 5000000.0, 0.0] to them" in caplog.text) == ("offset" not in kept)
        assert ("cannot say that the model was trained with antialiasing" in caplog.text) == ("antialiased" not in kept)
        read = gsz.read(tmp_path / "model")
        assert read.antialiased == ("antialiased" in kept) and (read.offset is not None) == ("offset" in kept)


def write_unchecked(path: Path, splats: Splats) -> None:
    """As other programs do, without a look at the values."""
    path.write_bytes(registry.get("ply").fit(splats).encode(splats))
