"""Proves that a run does what the method says: scores, prunes, fine-tunes on the grid, stops, and reports its own file.

Also that the same seed gives the same bytes, and that a run that was killed after any stage ends with the bytes of the
run that was not.
"""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml

import train
from compress import importance
from compress.budget import Budget, Loss, dropped_in_a_round, fewest_left, rounds_needed
from compress.finetune import finetune
from compress.front import rounds_of
from compress.journal import JournalRow, journal_csv, read_journal
from compress.judging import Judge, assign_roles
from compress.loop import Result
from compress.prune import has_sh_rest, kept_after_pruning, prune
from compress.recipe import Recipe, ScoreName
from compress.run_dir import RunDir, RunState
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from quality.losses import photometric_loss
from quality.summary import ViewMetrics
from scene import open_scene
from scene.options import SceneOptions
from scripts import measure_front
from tests.quality.test_lpips import random_weights
from tests.tiny_run import tiny_splats, write_tiny_scene

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SCHEDULE = ["--first_iterations", "4", "--round_iterations", "4", "--final_iterations", "6", "--max_rounds", "3"]


@pytest.fixture(scope="module")
def views(tiny: tuple[Path, Path]) -> Views:
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    return Views.of(scene, scene.train[:4])


def compress(tiny: tuple[Path, Path], out: Path, *extra: str) -> Result:
    source, checkpoint = tiny
    arguments = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--eval"]
    arguments += ["--config", str(CONFIGS / "fast3dgs.yaml")]
    result = train.train(train.parse([*arguments, *SCHEDULE, *extra]))
    assert result is not None
    return result


# --- Scores and pruning ----------------------------------------------------------------------------------------------


def test_gradient_sum_takes_the_norm_after_summing_over_views(views: Views):
    splats = tiny_splats()
    scores = importance.gradient_sum(splats, views).gaussians
    leaves = splats.clone().requires_grad_()
    total = sum(photometric_loss(views.render(camera, leaves).image, views.target(camera)) for camera in views.cameras)
    assert isinstance(total, torch.Tensor)
    gradients = torch.autograd.grad(total, [tensor for _, tensor in leaves.named_parameters()])
    expected = sum(gradient.reshape(len(splats), -1).norm(dim=1) for gradient in gradients)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-9)
    assert not splats.means.requires_grad


def test_the_smallest_scores_go_and_the_order_stays():
    scores = torch.tensor([5.0, 1.0, 4.0, 0.0, 3.0, 2.0])
    assert kept_after_pruning(scores, 2).tolist() == [0, 2, 4, 5]
    splats = tiny_splats(6)
    assert torch.equal(prune(splats, scores, 2).means, splats.means[[0, 2, 4, 5]])


@pytest.mark.parametrize(("count", "fraction", "left"), [(100, 0.05, 95), (10, 0.05, 9), (2, 0.9, 1), (1, 0.5, 1)])
def test_a_round_drops_at_least_one_and_never_all(count: int, fraction: float, left: int):
    dropped = dropped_in_a_round(fraction, count)
    assert dropped == Budget().to_drop(fraction, count, 1000)
    assert len(kept_after_pruning(torch.rand(count), dropped)) == left


def test_how_far_rounds_lead_and_how_many_a_count_takes_belong_together():
    assert fewest_left(100, 0.05, 3) == 87  # 95, 91, 87
    assert [rounds_needed(100, target, 0.05) for target in (100, 95, 94, 87, 86)] == [0, 1, 2, 3, 4]
    assert rounds_needed(5, 0, 0.05) == 4  # One Gaussian always stays.


def test_a_round_drops_no_more_than_the_targets_ask_for():
    assert Budget(target_count=97).to_drop(0.05, 100, 1000) == 3
    assert Budget(target_count=50).to_drop(0.05, 100, 1000) == 5
    assert Budget(target_bytes=980).to_drop(0.05, 100, 1000) == 2
    assert Budget(target_count=97, target_bytes=960).to_drop(0.05, 100, 1000) == 4
    assert Budget(target_count=100).to_drop(0.05, 100, 1000) == 0


def test_equal_scores_fall_in_order_and_nan_counts_as_least():
    assert kept_after_pruning(torch.zeros(4), 2).tolist() == [2, 3]
    assert kept_after_pruning(torch.tensor([1.0, float("nan"), 0.0]), 1).tolist() == [0, 2]


def test_the_budget_is_spent_at_its_edge():
    budget, uncompressed = Budget(0.5), ViewMetrics(30.0, 0.9)

    def spent(budget: Budget, now: ViewMetrics, before: ViewMetrics = uncompressed) -> bool:
        return budget.is_spent(Loss.between(before, now))

    assert spent(budget, ViewMetrics(29.5, 0.9))
    assert not spent(budget, ViewMetrics(29.6, 0.9))
    assert not spent(budget, ViewMetrics(31.0, 0.9))
    assert spent(Budget(max_ssim_drop=0.01), ViewMetrics(30.0, 0.885))
    assert not spent(Budget(), ViewMetrics(1.0, 0.1))
    of_lpips, before = Budget(max_lpips_rise=0.02), ViewMetrics(30.0, 0.9, 0.1)
    assert spent(of_lpips, ViewMetrics(31.0, 0.9, 0.125), before)
    assert not spent(of_lpips, ViewMetrics(20.0, 0.5, 0.115), before)
    assert not spent(of_lpips, ViewMetrics(30.0, 0.9), before)


def test_a_loss_is_what_went_down_and_what_went_up():
    loss = Loss.between(ViewMetrics(30.0, 0.9, 0.1), ViewMetrics(29.0, 0.88, 0.15))
    assert (loss.psnr_drop, loss.ssim_drop, loss.lpips_rise) == pytest.approx((1.0, 0.02, 0.05))
    assert str(loss) == "1.00 dB, 0.0200 SSIM and 0.0500 LPIPS"
    same = ViewMetrics(float("inf"), 1.0)
    assert str(Loss.between(same, same)) == "0.00 dB and 0.0000 SSIM"


# --- Fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_lowers_the_loss_of_what_the_file_holds(views: Views):
    splats = tiny_splats()
    splats.sh_dc += 0.3
    codec = registry.get("lzma")
    before = Judge(views).evaluate(codec.fit(splats).snap(splats))
    tuned, grid = finetune(splats, codec, views, Recipe(), 60, (0, 0))
    after = Judge(views).evaluate(grid.snap(tuned))
    decoded = registry.decode(grid.encode(tuned), "tuned")
    assert after.psnr > before.psnr + 1.0
    assert Judge(views).evaluate(decoded).psnr == pytest.approx(after.psnr, abs=1e-3)


def test_fine_tuning_leaves_its_input_alone_and_repeats(views: Views):
    splats = tiny_splats()
    copy = splats.clone()
    first, _ = finetune(splats, registry.get("lzma"), views, Recipe(), 5, (3, 1))
    second, _ = finetune(splats, registry.get("lzma"), views, Recipe(), 5, (3, 1))
    other, _ = finetune(splats, registry.get("lzma"), views, Recipe(), 5, (4, 1))
    assert torch.equal(splats.means, copy.means)
    for (_, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.sh_dc, other.sh_dc)


def test_the_penalty_shrinks_the_higher_harmonics(views: Views):
    splats = tiny_splats()
    norms = []
    for penalty in (0.0, 5.0):
        tuned, _ = finetune(splats, registry.get("ply"), views, replace(Recipe(), sh_rest_penalty=penalty), 20, (0, 0))
        norms.append(float(tuned.sh_rest.abs().mean()))
    assert norms[1] < norms[0]


def test_a_rate_term_makes_the_file_smaller_and_needs_no_penalty(views: Views):
    splats = tiny_splats(600)
    codec = registry.get("gsz")
    sizes = []
    for weight in (0.0, 0.01):
        recipe = replace(Recipe(), rate_weight=weight, sh_rest_penalty=0.0)
        tuned, grid = finetune(splats, codec, views, recipe, 30, (0, 0))
        sizes.append(len(grid.encode(tuned)))
    assert sizes[1] < 0.97 * sizes[0]


def test_codecs_without_an_estimate_keep_the_penalty(views: Views):
    splats = tiny_splats()
    tuned = [
        finetune(splats, registry.get("lzma"), views, replace(Recipe(), rate_weight=weight), 5, (0, 0))[0]
        for weight in (0.0, 1.0)
    ]
    assert torch.equal(tuned[0].sh_rest, tuned[1].sh_rest)


def test_the_rate_of_the_means_follows_the_scene(views: Views):
    rates = Recipe(means_lr=2e-5).learning_rates(extent=3.0)
    assert rates["means"] == pytest.approx(6e-5)
    assert set(rates) == {name for name, _ in tiny_splats(1).named_parameters()}


def test_means_hardly_move_where_cameras_are_placed():
    """Unless it is asked for. A recipe that is not told about cameras takes them for those of photographs."""
    rates = [Recipe().for_cameras(placed=placed).learning_rates(1.0)["means"] for placed in (False, True)]
    assert rates == [1.6e-4, pytest.approx(1.6e-6)] and Recipe().learning_rates(1.0)["means"] == 1.6e-4
    assert Recipe(means_lr=3e-5).for_cameras(placed=True).means_lr == 3e-5


def test_decaying_rates_end_a_stage_with_smaller_steps(views: Views):
    steps = []
    for decay in (1.0, 0.01):
        recipe = replace(Recipe(), lr_decay=decay, sh_rest_penalty=0.0, average=0.0)
        shorter, _ = finetune(tiny_splats(), registry.get("ply"), views, recipe, 30, (0, 0))
        longer, _ = finetune(tiny_splats(), registry.get("ply"), views, recipe, 60, (0, 0))
        steps.append(float((longer.sh_dc - shorter.sh_dc).abs().mean()))
    assert steps[1] < steps[0]


def test_a_loss_that_is_not_finite_names_the_view(views: Views):
    def broken(camera):
        return torch.full_like(views.target(camera), float("nan"))

    with pytest.raises(UserError, match=r"^view_\d+: the loss of fine-tuning is not finite; lower"):
        finetune(tiny_splats(), registry.get("ply"), replace(views, target=broken), Recipe(), 1, (0, 0))


def test_pruned_view_dependence_stays_pruned(views: Views):
    splats = tiny_splats()
    splats.sh_rest[:100] = 0.0
    tuned, _ = finetune(splats, registry.get("ply"), views, replace(Recipe(), sh_prune_fraction=0.1), 5, (0, 0))
    assert has_sh_rest(tuned).nonzero()[:, 0].tolist() == list(range(100, 150))
    regrown, _ = finetune(splats, registry.get("ply"), views, Recipe(), 5, (0, 0))
    assert int(has_sh_rest(regrown).sum()) > 50


# --- Who judges ----------------------------------------------------------------------------------------------------


def test_views_the_checkpoint_has_not_seen_judge_it(views: Views, caplog: pytest.LogCaptureFixture):
    splats = tiny_splats()  # The photographs of the fixture show this very model, except where they are spoilt here.
    unseen = views.cameras[-1:]

    def target(camera):
        image = views.target(camera)
        return 1.0 - image if camera is unseen[0] else image

    training = replace(views, cameras=views.cameras[:-1], target=target)
    roles = assign_roles(training, unseen, splats)
    assert roles.judge.views.cameras == unseen and roles.training.cameras == training.cameras
    assert not caplog.messages


def test_views_the_checkpoint_was_trained_on_stay_in_training(
    tiny: tuple[Path, Path], views: Views, caplog: pytest.LogCaptureFixture
):
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    roles = assign_roles(views.at(scene.train), scene.validation, tiny_splats())
    assert roles.judge.views.cameras == scene.validation
    assert {camera.name for camera in roles.training.cameras} == {c.name for c in [*scene.train, *scene.validation]}
    assert "trained on the validation views" in caplog.text


def test_of_few_views_that_the_checkpoint_knows_all_judge(views: Views):
    roles = assign_roles(views.at(views.cameras[:-1]), views.cameras[-1:], tiny_splats())
    assert roles.judge.views.cameras == roles.training.cameras == views.cameras


def test_the_last_stage_may_train_on_the_views_that_judged(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The rounds see the views that are left; the final stage sees all but the test views."""
    monkeypatch.setattr("compress.judging.KNOWN_MARGIN", -100.0)  # Whatever it renders well, the checkpoint is new to.
    seen: list[set[str]] = []

    def spy(splats, codec, views, *rest, **options):
        seen.append({camera.name for camera in views.cameras})
        return finetune(splats, codec, views, *rest, **options)

    monkeypatch.setattr("compress.loop.finetune", spy)
    compress(tiny, tmp_path / "held_out", "--max_rounds", "1")
    assert [len(names) for names in seen] == [19, 19, 19]
    seen.clear()
    compress(tiny, tmp_path / "all", "--max_rounds", "1", "--final_uses_all")
    assert [len(names) for names in seen] == [19, 19, 21]
    with pytest.raises(UserError, match="train on the test views"):
        compress(tiny, tmp_path / "test", "--stop_on", "test", "--final_uses_all")


# --- The whole run ---------------------------------------------------------------------------------------------------


def test_a_run_writes_all_it_should_and_reports_its_own_file(tiny: tuple[Path, Path], tmp_path: Path):
    result = compress(tiny, tmp_path)
    rows = list(csv.DictReader((tmp_path / "journal.csv").open()))
    stages = [row["stage"] for row in rows]
    assert stages[:3] == ["uncompressed", "first", "round 1"] and stages[-1] == "final"
    counts = [int(row["gaussians"]) for row in rows]
    assert counts[0] == counts[1] == 150 and counts[2] == 143
    assert int(rows[-1]["iteration"]) == 4 * (len(rows) - 2) + 6 == result.iterations
    assert int(rows[-1]["bytes"]) == result.path.stat().st_size

    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    measured = Judge(Views.of(scene, scene.validation)).evaluate(registry.read(result.path))
    assert float(rows[-1]["psnr"]) == pytest.approx(measured.psnr, abs=1e-4)
    assert float(rows[-1]["ssim"]) == pytest.approx(measured.ssim, abs=1e-4)

    for name in ("recipe.yaml", "options.yaml", "made.yaml", "cameras.json", "cfg_args"):
        assert (tmp_path / name).is_file()
    viewer = registry.read(tmp_path / "point_cloud" / f"iteration_{result.iterations}" / "point_cloud.ply")
    assert np.array_equal(viewer.means, result.splats.means)
    assert not (tmp_path / "resume").exists()
    assert Recipe.from_yaml(tmp_path / "recipe.yaml").first_iterations == 4


def test_a_file_says_who_made_it_from_what_and_how_good_it_is(tiny: tuple[Path, Path], tmp_path: Path):
    result = compress(tiny, tmp_path, "--codec", "gsz", "--max_rounds", "1")
    said = registry.info(result.path)["metadata"]
    last = result.journal[-1]
    assert said["generator"].startswith("gsz ")
    assert said["source"] == {"gaussians": 150, "bytes": result.journal[0].bytes}
    assert said["quality"] == {
        "psnr": round(last.psnr, 2),
        "ssim": round(last.ssim, 4),
        "views": 2,
        "of": "validation",
        "unseen": True,
        "against": "photographs",
        "gaussians": last.gaussians,
    }
    # What the viewer turns about, and where it stands at first.
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True), validation_every=10)
    assert np.linalg.norm(said["up"]) == pytest.approx(1, abs=2e-3)
    assert np.mean([np.dot(-view.world_to_camera[1, :3], said["up"]) for view in scene.train]) > 0.1
    assert said["camera"]["position"] == pytest.approx(scene.train[0].center, abs=1e-3)
    assert last.bytes == result.path.stat().st_size


def test_a_label_counts_for_the_size_and_is_left_out_of_tiny_files(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    extra = ["--codec", "gsz", "--max_psnr_drop", "inf", "--max_rounds", "30", "--target_size"]
    tiny_file = compress(tiny, tmp_path / "small", *extra, "2500").path
    assert "metadata" not in registry.info(tiny_file) and tiny_file.stat().st_size <= 2500
    monkeypatch.setattr("compress.loop.LABEL_SHARE", 0.2)
    larger = compress(tiny, tmp_path / "larger", *extra, "4500").path
    assert "metadata" in registry.info(larger) and 0.98 * 4500 <= larger.stat().st_size <= 4500


def test_a_spent_budget_ends_the_rounds(tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = compress(tiny, tmp_path, "--prune_fraction", "0.6", "--max_psnr_drop", "0.01", "--round_iterations", "1")
    assert [row.stage for row in result.journal] == ["uncompressed", "first", "round 1", "final"]
    assert "the budget is spent" in capsys.readouterr().out


def test_stopping_on_test_views_says_so_and_trains_on_all_others(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    compress(tiny, tmp_path, "--stop_on", "test", "--max_rounds", "0")
    output = capsys.readouterr().out
    assert "stop_on: test" in output
    assert "21 views to train on, 0 for validation, 3 for testing" in output


def test_the_same_seed_writes_the_same_bytes_on_any_number_of_threads(tiny: tuple[Path, Path], tmp_path: Path):
    first = compress(tiny, tmp_path / "one", "--threads", "1").path.read_bytes()
    second = compress(tiny, tmp_path / "two", "--threads", "2").path.read_bytes()
    torch.set_num_threads(2)
    assert first == second
    assert compress(tiny, tmp_path / "three", "--seed", "5").path.read_bytes() != first


def test_the_front_keeps_every_round_and_the_best_can_be_chosen(tiny: tuple[Path, Path], tmp_path: Path):
    """The first rounds are harmless here and the later ones are not, so the best is not the last."""
    extra = ["--prune_fraction", "0.08", "--max_psnr_drop", "8", "--max_rounds", "12", "--final_iterations", "0"]
    last = compress(tiny, tmp_path / "last", *extra)
    best = compress(tiny, tmp_path / "best", *extra, "--end_with", "best")
    rounds = last.journal[1:-1]
    assert rounds_of(read_journal(tmp_path / "last" / "journal.csv")) == rounds
    for row in rounds:
        file = tmp_path / "last" / "front" / f"{row.stage.replace(' ', '_')}.gslzma"
        assert file.stat().st_size == row.bytes
        assert len(registry.read(file)) == row.gaussians
    assert last.journal[0].psnr - rounds[-1].psnr >= 8.0 and len(rounds) >= 3
    assert len(last.splats) == rounds[-1].gaussians
    assert len(best.splats) == rounds[-2].gaussians


def test_a_target_count_is_met_exactly(tiny: tuple[Path, Path], tmp_path: Path):
    result = compress(tiny, tmp_path, "--target_count", "131", "--max_rounds", "20", "--max_psnr_drop", "inf")
    assert len(result.splats) == 131
    extra = ["--max_rounds", "20", "--max_psnr_drop", "inf", "--overwrite"]
    kept = compress(tiny, tmp_path, "--keep_ratio", "0.9", *extra)
    assert len(kept.splats) == 135


def test_a_target_size_is_met_within_two_percent_and_never_exceeded(tiny: tuple[Path, Path], tmp_path: Path):
    whole = compress(tiny, tmp_path / "whole", "--max_rounds", "0").path.stat().st_size
    target = int(0.7 * whole)
    extra = ["--target_size", str(target), "--max_rounds", "30", "--max_psnr_drop", "inf"]
    size = compress(tiny, tmp_path / "target", *extra).path.stat().st_size
    assert 0.98 * target <= size <= target


def test_a_codec_with_steps_meets_a_size_by_them(tiny: tuple[Path, Path], tmp_path: Path):
    whole = compress(tiny, tmp_path / "whole", "--codec", "gsz", "--max_rounds", "0").path.stat().st_size
    target = int(1.2 * whole)
    result = compress(tiny, tmp_path / "target", "--codec", "gsz", "--target_size", str(target))
    assert 0.98 * target <= result.path.stat().st_size <= target
    assert len(result.splats) == result.journal[0].gaussians


@pytest.mark.parametrize("codec", registry.names(writable_only=True))
def test_every_format_goes_through_the_loop(codec: str, tiny: tuple[Path, Path], tmp_path: Path):
    """View dependence that was pruned on the way is not in the file, whatever the grid."""
    extra = ["--codec", codec, "--sh_prune_fraction", "0.5", "--max_rounds", "1", "--max_psnr_drop", "inf"]
    result = compress(tiny, tmp_path, *extra)
    assert registry.info(result.path)["format"] == codec
    assert len(result.splats) == len(registry.read(result.path)) < 150
    assert has_sh_rest(result.splats).float().mean() < 0.6


def test_layers_begin_with_what_the_score_holds_important(tiny: tuple[Path, Path], tmp_path: Path):
    source, checkpoint = write_tiny_scene(tmp_path / "larger", 1200)
    extra = ["--codec", "gsz:layers=3", "--layer_score", "blend_weight"]
    result = compress((source, checkpoint), tmp_path / "out", *extra)
    data = result.path.read_bytes()
    coarse = registry.decode(data, "coarse", level=1)
    scene = open_scene(SceneOptions(source_path=source, eval=True))
    scores = importance.blend_weight(result.splats, Views.of(scene, scene.train), (0, 0)).gaussians
    first = (result.splats.means[:, None] == torch.as_tensor(coarse.means)).all(2).any(1)
    assert len(coarse) < len(result.splats) / 2
    assert scores[first].mean() > 1.5 * scores[~first].mean()


def test_lpips_can_be_a_budget(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "lpips", None)  # The weights below, whatever package is installed.
    with pytest.raises(UserError, match=r"max_lpips_rise: 0\.01 cannot be watched; .*--lpips_weights FILE"):
        compress(tiny, tmp_path / "run", "--max_lpips_rise", "0.01")
    assert not (tmp_path / "run").exists()

    np.savez(tmp_path / "vgg.npz", **random_weights())
    extra = ["--lpips_weights", str(tmp_path / "vgg.npz"), "--prune_fraction", "0.6", "--max_psnr_drop", "inf"]
    result = compress(tiny, tmp_path / "run", *extra, "--max_lpips_rise", "1e-9")
    assert [row.stage for row in result.journal] == ["uncompressed", "first", "round 1", "final"]
    before, after = (result.journal[place].metrics.lpips for place in (0, 2))
    assert before is not None and after is not None and after > before
    assert read_journal(tmp_path / "run" / "journal.csv")[2].lpips == pytest.approx(after, abs=1e-4)
    assert "LPIPS: the budget is spent" in capsys.readouterr().out


def test_another_size_is_picked_from_a_finished_run_without_its_rounds(tiny: tuple[Path, Path], tmp_path: Path):
    extra = ["--max_rounds", "6", "--prune_fraction", "0.1", "--max_psnr_drop", "inf"]
    first = compress(tiny, tmp_path, *extra)
    target = int(first.journal[3].bytes * 0.99)
    picked = compress(tiny, tmp_path, *extra, "--pick", str(target))
    assert 0.98 * target <= picked.path.stat().st_size <= target
    assert [row.stage for row in picked.journal] == [row.stage for row in first.journal]
    assert len(first.splats) < len(picked.splats) <= first.journal[3].gaussians
    with pytest.raises(UserError, match="the smallest is"):
        compress(tiny, tmp_path, *extra, "--pick", "1kB")


def test_a_target_beyond_the_quality_budget_gives_the_nearest_model_with_a_warning(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    extra = ["--target_count", "60", "--prune_fraction", "0.3", "--max_psnr_drop", "0.01"]
    result = compress(tiny, tmp_path / "count", *extra)
    assert len(result.splats) == result.journal[-2].gaussians > 60
    assert f"out of reach within the quality budget: the file will be of the nearest model, of {0.0:.1f}" in (
        capsys.readouterr().err.replace("0.01", "0.0")
    )
    small = ["--target_size", "3kB", "--prune_fraction", "0.3", "--max_psnr_drop", "0.01", "--max_rounds", "9"]
    result = compress(tiny, tmp_path / "size", *small)
    assert result.path.stat().st_size > 3000
    assert len(result.splats) == result.journal[-2].gaussians, "nothing was pruned beyond the budget"
    said = capsys.readouterr().err
    assert "warning: the target is out of reach" in said
    assert said.splitlines()[-1].startswith("warning: the target is missed: it has"), "the last line says so again"
    assert "where 3,000 were asked for" in said


@pytest.mark.parametrize("target", [{"target_count": 60}, {"keep_ratio": 0.4}, {"target_size": 3000}])
def test_a_target_takes_the_place_of_limits_of_quality_that_are_not_given(target: dict[str, Any]):
    much_worse = Loss(psnr_drop=30.0, ssim_drop=0.5)
    assert Recipe().budget(150).is_spent(much_worse)
    assert not replace(Recipe(), **target).budget(150).is_spent(much_worse)
    assert replace(Recipe(), max_psnr_drop=0.1, **target).budget(150).is_spent(much_worse)
    assert Recipe().budget(150).is_spent(Loss(0.0, 0.011)) and not Recipe().budget(150).is_spent(Loss(0.9, 0.009))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("--target_count", "151"), "more than the 150"),
        (("--target_count", "5"), r"the nearest is 130, after max_rounds: 3 of prune_fraction: 0\.05"),
        (("--keep_ratio", "0.1"), "the nearest is 130"),
        (("--target_size", "100B"), r"a fast3dgs file of a single Gaussian takes \d+ bytes"),
    ],
)
def test_targets_that_no_run_can_reach_are_refused_before_anything_is_done(
    tiny: tuple[Path, Path], tmp_path: Path, targets: tuple[str, str], message: str
):
    with pytest.raises(UserError, match=message):
        compress(tiny, tmp_path / "run", "--max_psnr_drop", "inf", *targets)
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


def kill_after(stages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[RunState] = []
    save: Callable[[RunDir, RunState], None] = RunDir.save_state

    def save_then_die(run: RunDir, state: RunState) -> None:
        save(run, state)
        saved.append(state)
        if len(saved) == stages:
            raise Killed

    monkeypatch.setattr(RunDir, "save_state", save_then_die)


@pytest.mark.parametrize(("stages", "codec"), [(1, "fast3dgs"), (2, "gsz"), (4, "fast3dgs")])
def test_a_killed_run_resumes_to_the_same_bytes(
    tiny: tuple[Path, Path], tmp_path: Path, stages: int, codec: str, monkeypatch: pytest.MonkeyPatch
):
    whole = compress(tiny, tmp_path / "whole", "--codec", codec)
    with monkeypatch.context() as patch:
        kill_after(stages, patch)
        with pytest.raises(Killed):
            compress(tiny, tmp_path / "killed", "--codec", codec)
    assert not list((tmp_path / "killed").glob("compressed.*"))
    resumed = compress(tiny, tmp_path / "killed", "--codec", codec, "--resume")
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert [row.stage for row in resumed.journal] == [row.stage for row in whole.journal]


def test_a_run_is_not_resumed_with_other_settings(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        kill_after(2, patch)
        with pytest.raises(Killed):
            compress(tiny, tmp_path)
    with pytest.raises(UserError, match="prune_fraction"):
        compress(tiny, tmp_path, "--resume", "--prune_fraction", "0.5")
    state = tmp_path / "resume" / "state.npz"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(UserError, match="is not a readable state"):
        compress(tiny, tmp_path, "--resume")


def test_the_journal_survives_a_crash_between_stages(tmp_path: Path):
    rows = [JournalRow("uncompressed", 0, 10, 30.0, 0.9, 2480)]
    RunDir(tmp_path).save_state(RunState({"seed": 0}, tiny_splats(10), rows))
    # The journal is written first: a row whose state was never written does not count.
    later = [*rows, JournalRow("first", 5, 10, 29.0, 0.89, 400)]
    (tmp_path / "journal.csv").write_text(journal_csv(later))
    state = RunDir(tmp_path).load_state({"seed": 0})
    assert state.journal == rows and len(state.splats) == 10 and not state.rounds_ended


# --- Recipes ---------------------------------------------------------------------------------------------------------


def test_the_default_recipe_is_the_one_without_any_settings():
    assert train.parse(["-m", "out"]).recipe == Recipe() == Recipe.from_yaml(CONFIGS / "default.yaml")
    published = Recipe.from_yaml(CONFIGS / "fast3dgs.yaml")
    assert Recipe().budget(1000).max_ssim_drop <= 0.01 and Recipe().end_with == "best"
    for name in ("first_iterations", "round_iterations", "final_iterations"):
        assert getattr(Recipe(), name) <= getattr(published, name)


def test_the_published_recipe_has_the_published_values():
    recipe = Recipe.from_yaml(CONFIGS / "fast3dgs.yaml")
    assert (recipe.codec, recipe.score, recipe.prune_fraction, recipe.max_rounds) == ("lzma", "gradient_sum", 0.05, 90)
    assert (recipe.first_iterations, recipe.round_iterations, recipe.final_iterations) == (1000, 1000, 5000)
    assert (recipe.max_psnr_drop, recipe.max_ssim_drop, recipe.end_with) == (0.1, math.inf, "last")
    assert (recipe.rate_weight, recipe.lr_decay, recipe.sh_rest_penalty) == (0.0, 1.0, 0.05)


@pytest.mark.parametrize("name", ["fast3dgs", "elmgs", "gode"])
def test_recipes_of_others_fine_tune_at_the_rates_of_3dgs(name: str):
    """Those of the end of its training. The default's are higher where that was found better."""
    recipe = Recipe.from_yaml(CONFIGS / f"{name}.yaml")
    assert recipe.final_lr_factor == 1.0
    assert recipe.learning_rates(2.0) == {
        "means": 3.2e-6,
        "log_scales": 0.005,
        "quaternions": 0.001,
        "opacity_logits": 0.025,
        "sh_dc": 0.0025,
        "sh_rest": 0.000125,
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_lists_only_what_differs_from_the_default(path: Path):
    recipe = Recipe.from_yaml(path)
    for name in yaml.safe_load(path.read_text()) or {}:
        assert getattr(recipe, name) != getattr(Recipe(), name), name


def test_a_recipe_survives_yaml_and_is_complete_there(tmp_path: Path):
    recipe = replace(Recipe(), target_size=5_000_000, codec="gsz:quality=low", max_psnr_drop=math.inf)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == recipe
    assert len(yaml.safe_load(recipe.to_yaml())) == len(asdict(recipe))


def test_every_score_can_be_named():
    assert set(get_args(ScoreName)) == set(importance.SCORES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune_fraktion: 0.1", "no setting 'prune_fraktion'"),
        ("prune_fraction: lots", "prune_fraction: 'lots': give a number"),
        ("prune_fraction: [0.1]", "give a single value"),
        ("prune_fraction: 1.5", "between 0 and 1"),
        ("first_iterations: -1", "must not be negative"),
        ("first_iterations: 1.5", "give a whole number"),
        ("stop_on: mood", "give validation or test"),
        ("final_uses_all: perhaps", "give True or False"),
        ("codec: zip", "choose one of"),
        ("codec: splat", "can only be read"),
        ("codec: gsz:speed=9", "'speed'"),
        ("codec: gsz:low", "write NAME:key=value"),
        ("score: astrology", "give gradient_sum or"),
        ("target_size: five", "such as 5MB"),
        ("validation_every: 0", "holds no views out to stop on"),
        ("seed: -1", "seed: -1 must be from 0"),
        ("means_lr: -1", "means_lr: -1.0 must be a number that is not negative"),
        ("sh_dc_lr: .nan", "sh_dc_lr: nan must be"),
        ("rate_weight: .inf", "rate_weight: inf must be"),
        ("keep_optimizer: true", "no setting 'keep_optimizer'"),
        ("- just\n- a list", "setting: value"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_recipe_that_makes_no_sense_names_itself_and_the_fault(tmp_path: Path, text: str, message: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml") as raised:
        Recipe.from_yaml(path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seed", "-1"], "seed: -1 must"),
        (["--means_lr", "-1"], "means_lr: -1.0 must"),
        (["--sh_dc_lr", "nan"], "sh_dc_lr: nan must"),
        (["--codec", "lzma", "--quality", "low"], "'quality'"),
    ],
)
def test_settings_of_the_command_line_are_checked_before_anything_is_read(option: list[str], message: str):
    with pytest.raises(UserError, match=message):
        train.train(train.parse(["-m", "out", "--pretrained_ply", "nowhere.ply", *option]))


@pytest.mark.parametrize("text", ["inf", ".inf", "1e-6", "0.5", "3"])
def test_numbers_are_read_alike_on_the_command_line_and_in_yaml(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(f"max_psnr_drop: {text}\n")
    by_option = train.parse(["-m", "out", "--max_psnr_drop", text]).recipe
    assert by_option == Recipe.from_yaml(path)
    assert by_option.max_psnr_drop == float(text.removeprefix("."))


def test_older_spellings_of_options_still_work(tmp_path: Path):
    options = train.parse(["-m", "out", "--target_count", "0", "--keep_ratio", "0", "--iteration", "-1", "--threads=0"])
    assert options == train.parse(["-m", "out"])
    assert train.parse(["-m", "out", "--codec", "lzma"]).recipe.codec == "lzma"
    assert train.parse(["-m", "out", "--quality", "low"]).recipe.codec == "gsz:quality=low"
    assert train.parse(["-m", "out", "--codec", "sog", "--quality=high"]).recipe.codec == "sog:quality=high"
    assert train.parse(["-m", "out", "--grid", "fast3dgs"]).recipe.codec == "gsz:grid=fast3dgs"
    former = (
        "codec: gsz\nquality: tiny\ngrid: ''\ntarget_size: ''\ntarget_count: 0\nkeep_ratio: 0.0\nsparse_adam: false\n"
    )
    (tmp_path / "former.yaml").write_text(former + "keep_optimizer: false\n")
    assert Recipe.from_yaml(tmp_path / "former.yaml") == replace(Recipe(), codec="gsz:quality=tiny")


def test_a_recipe_on_disk_is_overridden_by_the_command_line(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("round_iterations: 7\nfinal_iterations: 8\n")
    options = train.parse(["-m", "out", f"--config={path}", "--final_iterations", "9"])
    assert (options.recipe.round_iterations, options.recipe.final_iterations) == (7, 9)


@pytest.mark.parametrize(
    "spelling", ["-m {}", "-m={}", "-m{}", "--model_path {}", "--model_path={}", "--model-path {}"]
)
@pytest.mark.parametrize("pick", ["--pick 1MB", "--pick=1MB"])
def test_pick_takes_the_recipe_of_the_run(tmp_path: Path, spelling: str, pick: str):
    (tmp_path / "recipe.yaml").write_text("round_iterations: 7\n")
    where = spelling.format(tmp_path).split(" ")
    assert train.parse([*where, *pick.split(" ")]).recipe.round_iterations == 7
    assert train.parse([*pick.split(" "), *where]).recipe.round_iterations == 7
    assert train.parse(where).recipe == Recipe()
    published = ["--config", str(CONFIGS / "fast3dgs.yaml")]
    assert train.parse([*where, *pick.split(" "), *published]).recipe == Recipe.from_yaml(CONFIGS / "fast3dgs.yaml")


# --- Leftovers -------------------------------------------------------------------------------------------------------


def test_leftovers_do_not_pile_up(tiny: tuple[Path, Path], tmp_path: Path):
    compress(tiny, tmp_path / "run", "--max_rounds", "0")
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")]
    shutil.rmtree(tmp_path / "run")


def test_a_front_is_measured_on_test_views_beside_the_views_that_judged(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    result = compress(tiny, tmp_path, "--max_rounds", "1")
    source, checkpoint = tiny
    measure_front.main(["-m", str(tmp_path), "-s", str(source), "--pretrained_dir", str(checkpoint)])
    _, _, *rows = capsys.readouterr().out.strip().splitlines()[-4:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["first", "round 1"]
    lost = result.journal[0].psnr - result.journal[2].psnr
    assert float(cells[1][3]) == pytest.approx(lost, abs=0.006) and cells[1][5] != cells[1][3]
