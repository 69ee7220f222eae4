"""Proves that a run learns its steps by the price of bits, keeps them at its end, and can be killed at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.finetune import finetune
from compress.loop import Result
from compress.recipe import Recipe
from compress.run_dir import RunDir
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from gsz.native import learning as learned_steps
from gsz.native.grid import GszGrid
from gsz.splats import Splats
from scene import open_scene
from scene.options import SceneOptions
from tests.helpers import assert_same_up_to_order
from tests.tiny_run import compress_tiny, tiny_splats

QUICK = ["--first_iterations", "2", "--round_iterations", "2", "--max_rounds", "1", "--max_psnr_drop", "inf"]
QUICK += ["--max_ssim_drop", "inf", "--final_iterations", "30", "--learn_steps", "true", "--steps_lr", "0.05"]


@pytest.fixture(scope="module")
def views(tiny: tuple[Path, Path]) -> Views:
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    return Views.of(scene, scene.train[:4])


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids follow the parameters more often, so that runs need not be long."""
    monkeypatch.setattr(learned_steps, "STEPS_LIFE", 8)


def compress(scene: tuple[Path, Path], out: Path, *extra: str) -> Result:
    return compress_tiny(scene, out, *QUICK, *extra)


def test_dear_bits_make_steps_coarser_and_cheap_ones_finer(views: Views):
    reached = []
    for weight in (1e-7, 1e-2):
        recipe = Recipe(learn_steps=True, rate_weight=weight, steps_lr=0.03)
        tuned, grid = finetune(tiny_splats(), registry.codec("gsz"), views, recipe, 40, (0,), learning=40)
        assert isinstance(grid, GszGrid)
        assert_same_up_to_order(registry.decode(grid.encode(tuned), "file"), grid.snap(tuned).detach())
        reached.append(grid.octaves)
    finer, coarser = reached
    assert all(one < other for one, other in zip(finer, coarser, strict=True))
    assert sum(finer) < 0.0 < min(coarser)


def test_steps_stay_after_the_iterations_that_they_are_learned_in(views: Views, monkeypatch: pytest.MonkeyPatch):
    seen = []
    recipe = Recipe(learn_steps=True, rate_weight=1e-2, steps_lr=0.05)
    observe = GszGrid.observe

    def observed(grid: GszGrid, splats: Splats) -> None:
        observe(grid, splats)
        seen.append(grid.octaves)

    monkeypatch.setattr(GszGrid, "observe", observed)
    _, grid = finetune(tiny_splats(), registry.codec("gsz"), views, recipe, 50, (0,), learning=30)
    assert isinstance(grid, GszGrid)
    reached = grid.octaves
    assert not any(any(octaves) for octaves in seen[:15])
    assert seen[15] != seen[23] == seen[-1] == reached


def test_a_run_that_learns_steps_and_is_killed_ends_with_the_same_bytes(tiny: tuple[Path, Path], tmp_path: Path):
    whole = compress(tiny, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_compressed", died)
        with pytest.raises(KeyboardInterrupt):
            compress(tiny, tmp_path / "killed")
    resumed = compress(tiny, tmp_path / "killed", "--resume")
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    asked = registry.info(tmp_path / "whole" / "front" / "round_1.gsz")["steps"]
    assert registry.info(whole.path)["steps"]["dc"] != asked["dc"]


def test_a_size_is_met_with_learned_steps(tiny: tuple[Path, Path], tmp_path: Path):
    result = compress(tiny, tmp_path, "--target_size", "4kB", "--max_rounds", "4")
    assert 3_920 <= result.path.stat().st_size <= 4_000


def test_long_stages_learn_steps_where_there_are_any_and_bits_are_paid_for():
    assert Recipe().learns_steps and not Recipe(final_iterations=1999).learns_steps
    assert not Recipe(codec="sog").learns_steps and not Recipe(rate_weight=0.0).learns_steps
    assert Recipe(final_iterations=1, learn_steps=True).learns_steps and not Recipe(learn_steps=False).learns_steps


def test_what_has_no_steps_or_no_price_is_refused():
    with pytest.raises(UserError, match=r"learn_steps: 'perhaps': give true\|false"):
        Recipe().with_settings({"learn_steps": "perhaps"}, "recipe.yaml")
    with pytest.raises(UserError, match="learn_steps: sog has no steps to learn; set codec: gsz"):
        Recipe(codec="sog", learn_steps=True).check()
    with pytest.raises(UserError, match="learn_steps: nothing holds against ever finer steps"):
        Recipe(learn_steps=True, rate_weight=0.0).check()


def died(*_: object) -> None:
    raise KeyboardInterrupt
