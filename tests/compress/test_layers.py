"""Proves that layers are ordered as Gaussians would be pruned, a few at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.importance import removal_error
from compress.layers import DROPPED_AT_ONCE, iterative_importance, ranks_of
from compress.views import Views
from scene import open_scene
from scene.options import SceneOptions
from tests.tiny_run import tiny_splats


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
        dropped = int(DROPPED_AT_ONCE * len(left))
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
