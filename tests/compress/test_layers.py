"""Proves that layers are ordered as Gaussians would be pruned, and that cuts decode to what was trained for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import to_size
from compress.finetune import finetune
from compress.importance import removal_error
from compress.judging import Judge
from compress.layers import A_FIFTH, Prefixes, iterative_importance, ranks_of
from compress.loop import Result
from compress.recipe import Recipe
from compress.run_dir import RunDir
from compress.to_size import encode
from compress.views import Views
from gsz import registry
from gsz.contract import LARGEST_CORRECTION, Correction
from gsz.errors import UserError
from gsz.native.container import Header
from gsz.native.grid import GszGrid
from gsz.splats import Splats
from scene import open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.helpers import assert_same_up_to_order
from tests.tiny_run import compress_tiny, tiny_splats, write_tiny_scene

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def views(tiny: tuple[Path, Path]) -> Views:
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    return Views.of(scene, scene.train[:4])


def test_ranks_are_places_in_an_order():
    assert ranks_of(torch.tensor([2, 0, 1])).tolist() == [1, 2, 0]


def test_the_first_fifth_goes_by_the_score_and_the_next_by_the_score_of_what_is_left(views: Views):
    splats = tiny_splats(100)
    ranks = iterative_importance(splats, views, (0,), "removal_error", 50)
    assert sorted(ranks.tolist()) == list(range(100))
    left = torch.arange(100)
    for begin, end in ((0, 20), (20, 36), (36, 48)):
        scores = removal_error(splats.select(left), views).gaussians
        order = torch.argsort(scores, stable=True)
        dropped = int(A_FIFTH * len(left))
        assert ranks[left[order[:dropped]]].tolist() == list(range(begin, end))
        left = left[order[dropped:]]


def test_what_is_left_shows_more_of_the_whole_than_by_scores_taken_once(views: Views):
    """Where one hides another, each seems dispensable until the other is gone."""
    splats = tiny_splats(300)

    def error(importance: torch.Tensor) -> float:
        kept = splats.select(torch.argsort(importance, descending=True)[:75])
        return sum(
            float((views.render(camera, kept).image - views.render(camera, splats).image).square().mean())
            for camera in views.cameras
        )

    once = removal_error(splats, views).gaussians
    assert error(iterative_importance(splats, views, (0,), "removal_error", 75)) < 0.7 * error(once)


# --- Trained along ----------------------------------------------------------------------------------------------------

QUICK = ["--first_iterations", "2", "--round_iterations", "2", "--max_rounds", "1", "--max_psnr_drop", "inf"]
QUICK += [
    "--max_ssim_drop",
    "inf",
    "--regrow_fraction",
    "0",
    "--prune_fraction",
    "0.05",
    "--config",
    str(CONFIGS / "progressive.yaml"),
]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Enough Gaussians for three layers."""
    return write_tiny_scene(tmp_path_factory.mktemp("larger"), 1100)


def compress(scene: tuple[Path, Path], out: Path, *extra: str) -> Result:
    return compress_tiny(scene, out, *QUICK, *extra)


def test_prefixes_are_rows_with_what_was_trained_for_them_and_gradients_of_their_own():
    splats = tiny_splats(100).requires_grad_()
    prefixes = Prefixes([25, 50, 100], 0.5, (0,), [Correction(0.5, -1.0)])
    drawn = [prefixes.draw() for _ in range(4000)]
    for prefix, share in ((None, 0.5), (0, 0.25), (1, 0.25)):
        assert drawn.count(prefix) == pytest.approx(4000 * share, rel=0.1)
    again = Prefixes([25, 50, 100], 0.5, (0,))
    assert [again.draw() for _ in range(4000)] == drawn

    part = prefixes.corrected(prefixes.of(splats, 0), 0)
    assert len(part) == 25 and prefixes.of(splats, None) is splats
    assert torch.equal(part.log_scales, splats.log_scales[:25] + 0.5)
    assert torch.equal(part.opacity_logits, splats.opacity_logits[:25] - 1.0)
    assert [prefixes.end(prefix) for prefix in (0, 1, None)] == [25, 50, 100]
    (part.log_scales.sum() + part.opacity_logits.sum()).backward()
    assert prefixes.offsets[0].grad is not None and prefixes.offsets[0].grad.tolist() == [[75.0, 25.0]]
    assert prefixes.offsets[1].grad is None


def test_every_cut_of_a_file_decodes_to_what_was_trained(views: Views):
    """The law for prefixes, with corrections from an average, rows in the order that was trained."""
    splats, codec = tiny_splats(1100), registry.codec("gsz:layers=3")
    start = splats.clone()
    tuned, grid = finetune(splats, codec, views, Recipe(progressive=True), 12, (0,), corrections=())
    assert len(grid.corrections) == 2 and all(all(each) for each in grid.corrections)
    data = grid.encode(tuned, np.arange(1100, 0, -1))
    prefixes = Prefixes([275, 550, 1100], 0.5, (0,), grid.corrections)
    for prefix, level in ((0, 1), (1, 2), (None, 3)):
        shown = prefixes.corrected(grid.snap(prefixes.of(tuned, prefix)), prefix).detach()
        assert_same_up_to_order(registry.decode(data, "file", level=level), shown)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(*map(named, (start, splats)), strict=True))


def test_prefixes_are_trained_up_to_an_iteration(views: Views):
    splats, codec, recipe = tiny_splats(1100), registry.codec("gsz:layers=3"), Recipe(progressive=True)
    tuned, grid = finetune(splats, codec, views, recipe, 6, (0,), corrections=(), prefix_iterations=0)
    alone, _ = finetune(splats, codec, views, recipe, 6, (0,))
    assert not any(map(any, grid.corrections))
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(*map(named, (tuned, alone)), strict=True))
    tuned, grid = finetune(splats, codec, views, recipe, 12, (0,), corrections=(), prefix_iterations=10)
    longer, other_grid = finetune(splats, codec, views, recipe, 12, (0,), corrections=())
    assert all(map(any, grid.corrections)) and grid.corrections != other_grid.corrections
    assert not torch.equal(tuned.sh_dc, longer.sh_dc)


def test_bits_of_a_prefix_weigh_as_those_of_a_model_of_its_own(views: Views, monkeypatch: pytest.MonkeyPatch):
    paid: set[tuple[int, float]] = set()
    pay = GszGrid.pay

    def noted(grid: GszGrid, splats: Splats, weight: float, count: int, **options: bool) -> torch.Tensor:
        paid.add((count, round(count * weight, 12)))
        return pay(grid, splats, weight, count, **options)

    monkeypatch.setattr(GszGrid, "pay", noted)
    recipe = Recipe(progressive=True, rate_weight=0.001)
    finetune(tiny_splats(1100), registry.codec("gsz:layers=3"), views, recipe, 12, (0,), corrections=())
    assert paid == {(275, 0.001), (550, 0.001), (1100, 0.001)}


def test_training_prefixes_makes_them_better(larger: tuple[Path, Path]):
    scene = open_scene(SceneOptions(source_path=larger[0], eval=True))
    views = Views.of(scene, scene.train[:4])
    # In no order: the best quarter of this scene would do nearly as well as the whole before it is trained.
    splats, codec = tiny_splats(1100), registry.codec("gsz:layers=3")
    recipe = Recipe(progressive=True, means_lr=1.6e-6)  # The model is where its photographs were taken of it.
    quality = []
    for corrections in (None, ()):
        tuned, grid = finetune(splats, codec, views, recipe, 60, (0,), corrections=corrections)
        data = grid.encode(tuned, np.arange(1100, 0, -1))
        quality.append([Judge(views).evaluate(registry.decode(data, "file", level=n)).psnr for n in (1, 2, 3)])
    untrained, trained = quality
    assert trained[0] > untrained[0] + 1.5 and trained[1] > untrained[1] + 1.5


def test_a_progressive_run_that_is_killed_ends_with_the_same_bytes(larger: tuple[Path, Path], tmp_path: Path):
    whole = compress(larger, tmp_path / "whole", "--final_iterations", "10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_compressed", died)
        with pytest.raises(KeyboardInterrupt):
            compress(larger, tmp_path / "killed", "--final_iterations", "10")
    resumed = compress(larger, tmp_path / "killed", "--final_iterations", "10", "--resume")
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    header = Header.parse(whole.path.read_bytes(), "file")
    assert len(header.counts) == 3 and all(any(each) for each in header.corrections[:-1])
    assert not any(header.corrections[-1])


def test_rounds_of_exchange_leave_the_count_as_it_was(larger: tuple[Path, Path], tmp_path: Path):
    """They are a part of the final iterations."""
    extra = ["--round_iterations", "20", "--final_iterations", "50", "--regrow_fraction", "0.1"]
    result = compress(larger, tmp_path, *extra, "--exchange_share", "0.9")
    before, after = result.journal[-2:]
    assert (after.gaussians, after.iteration) == (before.gaussians, before.iteration + 50)
    without = compress(larger, tmp_path / "without", *extra, "--exchange_share", "0").splats
    assert len(without) == len(result.splats)
    assert not np.allclose(np.sort(result.splats.means[:, 0]), np.sort(without.means[:, 0]))


def test_fewer_layers_keep_the_corrections_of_their_own_share():
    """What is left out for a size may take a model below the Gaussians that a layer more needs."""
    splats = tiny_splats(1100)
    codec = registry.codec("gsz:layers=3")
    grid = codec.fit(splats)
    grid.corrections = [Correction(0.25, 0.0), Correction(0.5, 0.0)]
    whole = encode(splats, codec, grid, torch.arange(1100, 0, -1))
    for share, expected in ((0.98, grid.corrections), (0.6, grid.corrections[1:]), (0.3, [])):
        encoded = to_size._trim(whole, int(share * len(whole.data)), lambda splats, codec: splats.sh_dc[:, 0])
        assert len(encoded.grid.layer_ends(len(encoded.splats))) == len(expected) + 1
        assert encoded.grid.corrections == expected
        header = Header.parse(encoded.data, "file")
        assert header.corrections == [*expected, Correction()]


def test_no_correction_is_larger_than_a_file_may_have(views: Views):
    splats, codec = tiny_splats(600), registry.codec("gsz:layers=2")
    recipe = Recipe(progressive=True, prefix_share=1.0, correction_lr=1000.0)
    tuned, grid = finetune(splats, codec, views, recipe, 3, (0,), corrections=())
    assert max(map(abs, grid.corrections[0])) == LARGEST_CORRECTION
    assert len(registry.decode(grid.encode(tuned, np.arange(600, 0, -1)), "file", level=1)) == 300


def test_there_are_as_many_rounds_of_exchange_as_fit():
    recipe = Recipe(codec="gsz:layers=4", progressive=True, exchange_share=0.5)
    fitting = {5000: 5, 1999: 1, 999: 0, 0: 0}
    assert {n: replace(recipe, final_iterations=n).exchange_rounds for n in fitting} == fitting
    assert (
        replace(recipe, progressive=False).exchange_rounds == replace(recipe, round_iterations=0).exchange_rounds == 0
    )
    assert replace(recipe, exchange_share=0.57, round_iterations=50).exchange_rounds == 57, "0.57 is a little less"
    assert Recipe.from_yaml(CONFIGS / "progressive.yaml").exchange_rounds == 20
    with pytest.raises(UserError, match=r"exchange_share: 1\.0 must leave iterations to the layers"):
        replace(recipe, exchange_share=1.0).check()


def test_a_size_is_met_with_layers_that_were_trained(larger: tuple[Path, Path], tmp_path: Path):
    result = compress(larger, tmp_path, "--final_iterations", "10", "--target_size", "12kB", "--max_rounds", "4")
    assert 11_760 <= result.path.stat().st_size <= 12_000
    header = Header.parse(result.path.read_bytes(), "file")
    assert len(header.counts) > 1 and all(any(each) for each in header.corrections[:-1])


def test_layers_are_asked_for_where_they_are_to_be_trained():
    with pytest.raises(UserError, match="progressive: sog files are a single layer; set codec: gsz:layers=4"):
        Recipe(codec="sog", progressive=True).check()


def died(*_: object) -> None:
    raise KeyboardInterrupt


def named(splats: GaussianModel) -> list[tuple[str, torch.Tensor]]:
    return list(splats.named_parameters())
