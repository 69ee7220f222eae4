"""Proves that layers are ordered as Gaussians would be pruned, a few at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.importance import removal_error
from compress.layers import DROPPED_AT_ONCE, iterative_importance, ranks_of
from compress.views import Views
from scene import open_scene
from scene.gaussian_model import GaussianModel
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


def test_of_two_that_stand_in_for_each_other_one_is_kept(views: Views):
    """Scored once, both of a pair seem dispensable: each hides what the other is for."""
    single = tiny_splats(20)
    single.opacity_logits.fill_(3.0)
    pair = GaussianModel.concatenate([single, single.select(torch.arange(10))])
    once = removal_error(pair, views).gaussians
    of_pairs = torch.cat([torch.arange(10), torch.arange(20, 30)])
    lost = np.intersect1d(torch.argsort(once)[:15], of_pairs)
    assert any(each in lost and each + 20 in lost for each in range(10))
    ranks = iterative_importance(pair, views, (0,), "removal_error", 5)
    gone = torch.argsort(ranks)[:10].tolist()
    assert not any(each in gone and each + 20 in gone for each in range(10))
