"""Regrowth drops and splits by the rule that is written down, and a split keeps what the parent adds up to.

Also: counts are exact, ties and NaN are decided, nothing is random, and models at the edges of what a codec takes do
no harm.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compress import regrow
from compress.prune import prune
from scene.gaussian_model import GaussianModel
from tests.dense_reference import rotation_matrices
from tests.helpers import degenerate_models, random_model, table


def covariances(splats: GaussianModel) -> Tensor:
    axes = rotation_matrices(splats.quaternions.double()) * splats.log_scales.double().exp()[:, None, :]
    return axes @ axes.mT


def test_a_pair_has_the_mean_covariance_and_mass_of_its_parent():
    parents = random_model(500)
    parents.opacity_logits.clamp_(-12, 12)
    children = regrow.split_in_two(parents)
    first, second = children.select(torch.arange(500)), children.select(torch.arange(500, 1000))
    wanted, spread = covariances(parents), (first.means - second.means).double() / 2
    pair = covariances(first) + spread[:, :, None] * spread[:, None, :]
    scale = wanted.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # Means far from the origin are rounded to float32; what that does to the children's distance is no error.
    near = parents.means.abs().amax(1) < 100 * parents.scales.amax(1)
    assert near.sum() > 50
    torch.testing.assert_close((pair / scale)[near], (wanted / scale)[near], rtol=0, atol=1e-4)
    torch.testing.assert_close((first.means + second.means) / 2, parents.means, rtol=1e-6, atol=1e-6)

    def mass(splats: GaussianModel) -> Tensor:
        return torch.sigmoid(splats.opacity_logits.double()[:, 0]) * splats.log_scales.double().sum(1).exp()

    torch.testing.assert_close(mass(first) + mass(second), mass(parents), rtol=1e-5, atol=0)


def test_children_lie_along_the_longest_axis_and_copy_the_rest():
    parents = random_model(100)
    parents.sh_rest[::2] = 0.0  # As pruned.
    children = regrow.split_in_two(parents)
    longest = parents.log_scales.argmax(1)
    axis = rotation_matrices(parents.quaternions.double())[torch.arange(100), :, longest]
    step = (children.means[:100] - parents.means).double()
    along = (step * axis).sum(1)
    torch.testing.assert_close(along, 0.7 * parents.scales.double().amax(1), rtol=1e-3, atol=1e-5)
    ratio = children.scales / torch.cat([parents.scales] * 2)
    is_longest = torch.nn.functional.one_hot(torch.cat([longest] * 2), 3).bool()
    torch.testing.assert_close(ratio[is_longest], torch.full((200,), 0.71414), rtol=1e-5, atol=0)
    torch.testing.assert_close(ratio[~is_longest], torch.ones(400))
    torch.testing.assert_close(children.opacities, 0.70014 * torch.cat([parents.opacities] * 2), rtol=1e-4, atol=0)
    for name in ("quaternions", "sh_dc", "sh_rest"):
        assert torch.equal(getattr(children, name), torch.cat([getattr(parents, name)] * 2)), name


def test_of_equally_long_axes_the_first_is_divided():
    parents = random_model(3)
    parents.log_scales[:] = torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    shrunk = regrow.split_in_two(parents).log_scales[:3] < parents.log_scales
    assert shrunk.tolist() == [[True, False, False], [False, True, False], [True, False, False]]


def test_opacities_fade_without_overflow():
    logits = torch.tensor([[-1e4], [-90.0], [-20.0], [-3.0], [0.0], [5.0], [20.0], [90.0], [1e4]])
    exact = regrow.FADE * torch.sigmoid(logits.double())
    assert torch.isfinite(regrow.faded(logits)).all()
    torch.testing.assert_close(torch.sigmoid(regrow.faded(logits).double()), exact, rtol=2e-5, atol=1e-38)


def test_a_split_has_to_promise_more_than_what_is_dropped_for_it_carries():
    scores = torch.tensor([5.0, 1.0, 9.0, 2.0, 7.0, 3.0, 8.0, 6.0, 4.0, 0.0])
    gains = torch.tensor([1.0, 99.0, 5.0, 98.0, 3.5, 97.0, 7.0, 6.0, 2.0, 96.0])
    # Rows 9 and 1 go in any case; 3, 5 and 8 cost 2, 3 and 4, and of the others 6, 7 and 2 promise 7, 6 and 5.
    change = regrow.choose(scores, scores, gains, dropped=2, at_most=3)
    assert change.kept.tolist() == [0, 4] and change.split.tolist() == [2, 6, 7]
    assert len(change) == 8
    # Three times as dear, only the first pays: 7 for 6, but not 6 for 9.
    change = regrow.choose(scores, 3 * scores, gains, dropped=2, at_most=3)
    assert change.split.tolist() == [6] and change.kept.tolist() == [0, 2, 4, 5, 7, 8]
    assert len(change) == 8
    # A pair further on that would pay is not looked at.
    dear = torch.where(scores == 2.0, 1000.0, 0.0)
    assert len(regrow.choose(scores, dear, gains, dropped=2, at_most=3).split) == 0


def test_equals_are_not_exchanged_and_nan_never_pays():
    ones = torch.ones(10)
    change = regrow.choose(ones, ones, ones, dropped=1, at_most=3)
    assert change.kept.tolist() == list(range(1, 10)) and not len(change.split)
    change = regrow.choose(ones, ones, 2 * ones, dropped=1, at_most=3)
    assert change.kept.tolist() == [7, 8, 9] and change.split.tolist() == [4, 5, 6]
    gains = torch.full((10,), torch.nan)
    gains[8] = 2.0
    assert regrow.choose(ones, ones, gains, dropped=0, at_most=3).split.tolist() == [8]
    assert not len(regrow.choose(ones, ones * torch.nan, 2 * ones, dropped=0, at_most=3).split)


@pytest.mark.parametrize("dropped", [0, 1, 3, 30, 98, 99])
@pytest.mark.parametrize("at_most", [0, 1, 5, 50, 1000])
def test_the_count_is_exact_and_no_gaussian_is_both_dropped_and_split(dropped, at_most):
    rng = np.random.default_rng([dropped, at_most])
    scores, costs, gains = (torch.from_numpy(rng.uniform(size=100)) for _ in range(3))
    for factor in (0.5, 1.0, 100.0):
        change = regrow.choose(scores, costs, factor * gains, dropped, at_most)
        assert len(change) == 100 - dropped
        rows = torch.cat([change.kept, change.split])
        assert len(rows.unique()) == len(rows)
        assert len(change.split) <= min(at_most, (100 - dropped) // 2)
        gone = torch.ones(100, dtype=torch.bool)
        gone[rows] = False
        assert gone.sum() == dropped + len(change.split)
        assert not gone.any() or scores[gone].max() < scores[rows].min()
    everything_pays = regrow.choose(scores, costs * 0.0, gains, dropped, at_most)
    assert len(everything_pays.split) == min(at_most, (100 - dropped) // 2)


def test_without_new_ones_it_is_pruning():
    splats = random_model(50)
    scores = torch.rand(50, generator=torch.Generator().manual_seed(1))
    change = regrow.choose(scores, scores, scores, dropped=20, at_most=0)
    assert np.array_equal(table(change.apply(splats)), table(prune(splats, scores, 20)))


@pytest.mark.parametrize(("name", "model"), degenerate_models().items())
def test_models_at_the_edges(name, model):
    count = len(model)
    zeros = torch.zeros(count)
    change = regrow.choose(zeros, zeros, zeros + 1.0, dropped=count // 4, at_most=count // 3)
    assert len(change.split) == count // 3
    model = model.replace(antialiased=True, offset=np.array([1.0, 2.0, 3.0]))
    before = model.clone()
    grown = change.apply(model)
    assert len(grown) == count - count // 4
    assert grown.sh_degree == model.sh_degree
    assert np.array_equal(table(grown), table(change.apply(model)))
    assert np.array_equal(table(before), table(model))
    grown.check_finite(name)
    assert grown.antialiased and grown.offset is model.offset
