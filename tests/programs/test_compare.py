"""Proves that compare.py measures what it says: renders of one model against another's or against photographs, what
formats cost, and whether two files hold the same model; and that gsz hands over to it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compare
import gsz
from gaussian_renderer import choose_backend
from gsz import repository
from gsz.errors import UserError
from gsz.splats import SH_C0
from programs import comparing
from programs.options import parse_compare
from programs.rendering import Renderer
from quality.metrics import measure
from quality.summary import ViewMetrics
from scene.model_dir import read_cameras, write_cameras
from tests.programs.test_render_cli import photographed, random_model  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
GSZ = [sys.executable, "-m", "gsz"]


@pytest.fixture
def models(tmp_path: Path, photographed: Path) -> Path:  # noqa: F811
    """A folder with a model, a darker one, the first one's Gaussians in another order, and cameras for all."""
    from scene import open_scene
    from scene.options import SceneOptions

    model = random_model(0)
    model.save_ply(tmp_path / "model.ply")
    model.replace(sh_dc=model.sh_dc - 0.1 / SH_C0).save_ply(tmp_path / "darker.ply")
    model.select(torch.arange(len(model) - 1, -1, -1)).save_ply(tmp_path / "reversed.ply")
    write_cameras(tmp_path, open_scene(SceneOptions(source_path=photographed, eval=True), 0).train)
    return tmp_path


def compared(*words: str | Path) -> comparing.Comparison:
    return comparing.run(parse_compare([*map(str, words), "--backend", "cpu"]))


def test_the_second_model_is_measured_against_the_first(models: Path) -> None:
    found = compared(models / "model.ply", models / "darker.ply").candidates[1].to_first
    assert found is not None
    black = torch.zeros(3)
    one, other = (
        Renderer(comparing.GaussianModel.load_ply(models / name), black, choose_backend("cpu"))
        for name in ("model.ply", "darker.ply")
    )
    for camera in read_cameras(models):
        assert found.views[camera.name] == measure(other.image(camera), one.image(camera))
    assert found.mean.psnr == pytest.approx(sum(view.psnr for view in found.views.values()) / len(found.views))
    assert found.views[found.worst()[0]].psnr == min(view.psnr for view in found.views.values())


def test_the_same_model_in_another_order_is_recognized_and_another_one_is_not(models: Path) -> None:
    assert compared(models / "model.ply", models / "reversed.ply").candidates[1].is_equal
    assert not compared(models / "model.ply", models / "darker.ply").candidates[1].is_equal


def test_a_model_is_measured_against_the_test_photographs_of_its_scene(
    models: Path,
    photographed: Path,  # noqa: F811
) -> None:
    """The photographs are renders of the model, rounded to 8 bits."""
    (model,) = compared(models / "model.ply", "-s", photographed).candidates
    assert model.to_photographs is not None
    assert len(model.to_photographs.views) == 2
    assert model.to_photographs.mean.psnr > 55


def test_views_that_are_equal_do_not_hide_those_that_are_not() -> None:
    views = {"far": ViewMetrics(math.inf, 1.0), "near": ViewMetrics(20.0, 0.5)}
    assert comparing.Measured("b to a", views).mean == ViewMetrics(20.0, 0.75)
    assert comparing.Measured("b to a", {"far": views["far"]}).mean.psnr == math.inf


def test_formats_are_listed_by_size_with_what_they_lose(models: Path) -> None:
    found = compared(models / "model.ply", "--formats", "ply,gsz:quality=low,layers=1,spz")
    names = [model.name for model in found.candidates[1:]]
    assert names == ["ply", "gsz:quality=low,layers=1", "spz"]
    for model in found.candidates[1:]:
        path = models / f"written{gsz.codec(model.name).suffix}"
        assert model.bytes == len(gsz.write(path, gsz.read(models / "model.ply"), model.name))
    assert found.candidates[1].is_equal
    rows = comparing.formats_table(found).splitlines()[2:]
    assert [row.split()[0] for row in rows[:3]] == ["gsz:quality=low,layers=1", "spz", "ply"]


def test_a_limit_decides_about_the_exit_code_and_json_holds_all_figures(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(models / "model.ply"), str(models / "darker.ply"), "--backend", "cpu"]
    with pytest.raises(SystemExit) as ended:
        compare.main([*words, "--min_psnr", "80", "--json", str(models / "figures.json")])
    assert ended.value.code == 1
    figures = json.loads((models / "figures.json").read_text())
    assert figures["models"][1]["to_first"]["mean"]["PSNR"] < 80
    compare.main([*words, "--min_psnr", "1"])
    assert "darker.ply to model.ply" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.ply"], "nothing to compare with"),
        (["model.ply", "darker.ply", "model.ply"], "give one or two"),
        (["model.ply", "--formats", "spz,,sog"], "commas between"),
        (["model.ply", "--formats", "ksplat"], "can be read but not written"),
        (["model.ply", "absent.ply"], "check the path"),
    ],
)
def test_mistakes_are_refused_in_one_line(words: list[str], said: str, models: Path) -> None:
    paths = [str(models / word) if word.endswith(".ply") else word for word in words]
    with pytest.raises(UserError, match=said):
        compared(*paths)


def test_gsz_convert_verifies_what_it_wrote(models: Path) -> None:
    words = [*GSZ, "convert", models / "model.ply", models / "model.spz", "--verify", "--min_psnr", "99"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ended.returncode == 1, ended.stderr
    assert "model.spz to model.ply, 3 of the 3 cameras" in ended.stdout
    assert "below --min_psnr 99" in ended.stderr


def test_gsz_says_what_to_do_where_there_is_no_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_ROOT", tmp_path)
    with pytest.raises(UserError, match="pip install -e"):
        repository.run_program("compare", [])
