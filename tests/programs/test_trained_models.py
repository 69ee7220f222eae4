"""Proves that a run begins with a trained model of any format that is read, and of any SH degree, untold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gsz
from gsz import registry
from gsz.errors import UserError
from programs.compression import Inputs, load_original
from scene.options import SceneOptions
from tests.helpers import random_model


@pytest.mark.parametrize("name", registry.names(writable_only=True))
@pytest.mark.parametrize("sh_degree", [0, 2])
def test_any_format_and_degree(name: str, sh_degree: int, tmp_path: Path) -> None:
    path = tmp_path / f"trained{registry.find(name).suffix}"
    gsz.write(path, random_model(30, sh_degree), name)
    model, found = load_original(Inputs(pretrained_ply=path))
    assert (len(model), model.sh_degree, found) == (30, sh_degree, path)


def test_another_degree_than_asked_for_is_refused(tmp_path: Path) -> None:
    gsz.write(tmp_path / "trained.spz", random_model(30, 1))
    with pytest.raises(
        UserError, match=r"trained\.spz: holds spherical harmonics of degree 1, not 3; use --sh_degree 1"
    ):
        load_original(Inputs(pretrained_ply=tmp_path / "trained.spz", scene=SceneOptions(sh_degree=3)))


def test_cameras_elsewhere_than_the_model_are_refused(tmp_path: Path) -> None:
    gsz.write(tmp_path / "trained.ply", random_model(30).replace(offset=np.array([5e5, 4.5e6, 0.0])))
    model, _ = load_original(Inputs(pretrained_ply=tmp_path / "trained.ply"))
    assert model.offset is not None
    with pytest.raises(UserError, match=r"relative to the offset \[.*\], and the cameras of scene are not"):
        load_original(Inputs(pretrained_ply=tmp_path / "trained.ply", scene=SceneOptions(Path("scene"))))


def test_antialiased_models_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gsz.write(tmp_path / "trained.spz", random_model(30).replace(antialiased=True))
    load_original(Inputs(pretrained_ply=tmp_path / "trained.spz"))
    assert "which the renderers here do not apply" in caplog.text


def test_values_after_their_activation_are_read_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, path = random_model(100).numpy(), tmp_path / "trained.ply"
    activated = model.replace(
        opacity_logits=1 / (1 + np.exp(-model.opacity_logits)), log_scales=np.exp(model.log_scales)
    )
    path.write_bytes(registry.codec("ply").fit(activated).encode(activated))
    load_original(Inputs(pretrained_ply=path))
    assert "its opacities look activated" in caplog.text and "read it with --activated opacity" in caplog.text
    found, _ = load_original(Inputs(pretrained_ply=path, activated="opacity, scale"))
    np.testing.assert_allclose(found.opacity_logits.numpy(), model.opacity_logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.log_scales.numpy(), model.log_scales, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="activated: 'color' is neither opacity nor scale"):
        load_original(Inputs(pretrained_ply=path, activated="color"))


def test_broken_rows_are_dropped_or_refused_as_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, path = random_model(30).numpy(), tmp_path / "trained.ply"
    model.means[3] = np.nan
    path.write_bytes(registry.codec("ply").fit(model).encode(model))
    found, _ = load_original(Inputs(pretrained_ply=path))
    assert len(found) == 29 and "1 of 30 Gaussians" in caplog.text
    with pytest.raises(UserError, match="leave --strict out"):
        load_original(Inputs(pretrained_ply=path, strict=True))
