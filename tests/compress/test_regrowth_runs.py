"""Whole runs of the default recipe on a scene whose checkpoint has one Gaussian where there should be two.

They split where that pays, and everything else that holds of a run still does: counts and sizes are met, a killed run
ends with the bytes of one that was not, another size can be picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import train
from compress import regrow
from compress.averaging import RunningAverage
from compress.finetune import finetune
from compress.loop import Result
from compress.recipe import Recipe
from compress.run_dir import RunDir, RunState
from compress.views import Views
from gaussian_renderer import render
from gsz import registry
from scene import model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.helpers import table
from tests.synthetic_scenes import write_colmap_scene
from tests.tiny_run import VIEWS, tiny_splats

SCHEDULE = {"first_iterations": 4, "round_iterations": 4, "final_iterations": 6, "max_rounds": 3}
COUNT = 120


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs of pairs of differently colored Gaussians, and a checkpoint with one in the place of each pair."""
    source, checkpoint = (tmp_path_factory.mktemp("coarse") / name for name in ("scene", "trained"))
    write_colmap_scene(source, VIEWS)
    model = tiny_splats(COUNT)
    model.log_scales[:, 0] += 1.0
    pairs = regrow.split_in_two(model)
    pairs.sh_dc += 0.6 * torch.randn(pairs.sh_dc.shape, generator=torch.Generator().manual_seed(3))
    scene = open_scene(SceneOptions(source_path=source, eval=True))
    for camera in [*scene.train, *scene.validation, *scene.test]:
        image = render(camera, pairs, scene.background).image.clamp(0, 1)
        assert camera.image_path is not None
        Image.fromarray((image * 255).round().to(torch.uint8).numpy()).save(camera.image_path)
    model_dir.save_checkpoint(checkpoint, 7000, model)
    return source, checkpoint


def compress(coarse: tuple[Path, Path], out: Path, **settings: object) -> Result:
    source, checkpoint = coarse
    arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--eval"]
    for name, value in {**SCHEDULE, "max_psnr_drop": "inf", "max_ssim_drop": "inf", **settings}.items():
        arguments += [f"--{name}", *([] if value is True else [str(value)])]
    result = train.train(train.parse(arguments))
    assert result is not None
    return result


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many Gaussians each round of a run has split."""
    counts: list[int] = []
    choose = regrow.choose

    def counted(*arguments) -> regrow.Change:
        change = choose(*arguments)
        counts.append(len(change.split))
        return change

    monkeypatch.setattr(regrow, "choose", counted)
    return counts


def test_a_round_splits_where_it_pays_and_the_count_falls_as_without(
    coarse: tuple[Path, Path], tmp_path: Path, splits: list[int]
):
    grown = compress(coarse, tmp_path / "grown")
    assert len(splits) == 3 and all(0 < count <= COUNT // 10 for count in splits)
    pruned = compress(coarse, tmp_path / "pruned", regrow_fraction=0)
    assert len(splits) == 3
    assert [row.gaussians for row in grown.journal] == [row.gaussians for row in pruned.journal] == [
        120, 120, 108, 98, 89, 89,
    ]  # fmt: skip


def test_regrowth_brings_the_images_nearer_to_the_photographs(coarse: tuple[Path, Path], tmp_path: Path):
    """On the mean of two runs, because so small a scene ends tenths of a dB higher or lower by chance.

    Positions hardly move: so few Gaussians would find their places in so small a scene by themselves.
    """
    longer = {"round_iterations": 40, "final_iterations": 60, "max_rounds": 5, "end_with": "last", "means_lr": 1.6e-6}
    gains = []
    for seed in range(2):
        grown = compress(coarse, tmp_path / f"grown{seed}", seed=seed, **longer)
        pruned = compress(coarse, tmp_path / f"pruned{seed}", seed=seed, regrow_fraction=0, **longer)
        assert len(grown.splats) == len(pruned.splats) == 73
        gains.append(grown.journal[-1].psnr - pruned.journal[-1].psnr)
    assert sum(gains) / 2 > 0.25


@pytest.mark.parametrize("score", ["gradient_sum", "blend_weight"])
def test_any_score_may_choose_what_goes(coarse: tuple[Path, Path], tmp_path: Path, splits: list[int], score: str):
    result = compress(coarse, tmp_path, score=score)
    assert len(result.splats) == 89 and len(splits) == 3


def test_targets_of_count_and_size_are_met(coarse: tuple[Path, Path], tmp_path: Path, splits: list[int]):
    counted = compress(coarse, tmp_path / "count", target_count=101, max_rounds=9)
    assert len(counted.splats) == 101 and any(splits)
    size = int(counted.journal[-1].bytes * 0.9)
    sized = compress(coarse, tmp_path / "size", target_size=size, max_rounds=9)
    assert 0.97 * size <= sized.path.stat().st_size <= size
    picked = compress(coarse, tmp_path / "size", pick=int(size * 1.05), max_rounds=9)
    assert 0.97 * size * 1.05 <= picked.path.stat().st_size <= size * 1.05


class Killed(Exception):
    pass


@pytest.mark.parametrize("target", [{}, {"target_size": 2000}])
def test_a_killed_run_resumes_to_the_same_bytes(
    coarse: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    splits: list[int],
    target: dict[str, int],
):
    whole = compress(coarse, tmp_path / "whole", **target)
    assert any(splits)
    save = RunDir.save_state

    def save_then_die(run: RunDir, state: RunState) -> None:
        save(run, state)
        if len(state.journal) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "save_state", save_then_die)
        with pytest.raises(Killed):
            compress(coarse, tmp_path / "killed", **target)
    resumed = compress(coarse, tmp_path / "killed", resume=True, **target)
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_pruned_harmonics_stay_pruned_in_children(coarse: tuple[Path, Path], tmp_path: Path, splits: list[int]):
    result = compress(coarse, tmp_path, sh_prune_fraction=1, codec="ply")
    assert any(splits) and not result.splats.sh_rest.any()


# --- Averages and rates ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def views(coarse: tuple[Path, Path]) -> Views:
    scene = open_scene(SceneOptions(source_path=coarse[0], eval=True))
    return Views.of(scene, scene.train[:4])


def tune(splats: GaussianModel, views: Views, recipe: Recipe, iterations: int) -> GaussianModel:
    return finetune(splats, registry.get("ply"), views, recipe, iterations, (0,), lr_factor=recipe.final_lr_factor)[0]


def test_a_stage_ends_with_the_average_of_its_models(views: Views):
    """With a decay of next to nothing each iteration's model is the average; a long one lies between them all."""
    recipe = Recipe().with_settings({"average": 0, "final_lr_factor": 1}, "test")
    splats = tiny_splats(30)
    path = [tune(splats, views, recipe, count) for count in range(1, 9)]
    averaged = tune(splats, views, recipe.with_settings({"average": 0.9}, "test"), 8)
    expected = splats.clone().means.double()
    for updates, model in enumerate(path):
        weight = min(0.9, (1 + updates) / (10 + updates))
        expected = weight * expected + (1 - weight) * model.means.double()
    torch.testing.assert_close(averaged.means.double(), expected, rtol=1e-5, atol=1e-7)
    assert np.array_equal(table(tune(splats, views, recipe.with_settings({"average": 0.9}, "test"), 0)), table(splats))


def test_the_average_goes_on_after_a_size_is_met(
    coarse: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The last fifth of the final iterations, from where the size was met, belongs to the average of all of them."""
    begun_after: list[int] = []

    class Watched(RunningAverage):
        def __init__(self, tensors: Sequence[Tensor], decay: float, updates: int = 0) -> None:
            begun_after.append(updates)
            super().__init__(tensors, decay, updates)

    monkeypatch.setattr("compress.finetune.RunningAverage", Watched)
    size = compress(coarse, tmp_path, target_size=2000, final_iterations=50).path.stat().st_size
    assert 1_960 <= size <= 2_000 and begun_after[-2:] == [0, 40] and not any(begun_after[:-1])


def test_the_factor_speeds_up_all_but_positions_and_view_dependence(views: Views):
    """Adam's first step is as long as its learning rate."""
    plain = Recipe().with_settings({"average": 0, "final_lr_factor": 1}, "test")
    splats = tiny_splats(30)
    slow, fast = (
        tune(splats, views, recipe, 1) for recipe in (plain, plain.with_settings({"final_lr_factor": 4}, "test"))
    )
    for name, start in splats.named_parameters():
        steps = [(getattr(tuned, name) - start).abs().mean() for tuned in (slow, fast)]
        factor = 1.0 if name in ("means", "sh_rest") else 4.0
        assert float(steps[1] / steps[0]) == pytest.approx(factor, rel=1e-3), name
