"""The running average forgets at the rate that it is given, sooner at first, and leaves the model it averages alone."""

from __future__ import annotations

import pytest
import torch

from compress.averaging import RunningAverage
from tests.helpers import random_model


def test_a_model_that_rests_is_its_own_average():
    model = random_model(20)
    average = RunningAverage(model, 0.998)
    for _ in range(50):
        average.update(model)
    for (_, still), (_, averaged) in zip(model.named_parameters(), average.splats.named_parameters(), strict=True):
        torch.testing.assert_close(averaged, still)
        assert averaged.data_ptr() != still.data_ptr()


def test_a_step_is_followed_at_the_rate_of_the_decay():
    model = random_model(5)
    average = RunningAverage(model, 0.9)
    before = model.clone()
    for _ in range(200):
        average.update(model)
    model = model.map(lambda tensor: tensor + 1.0)
    for _ in range(10):
        average.update(model)
    for (_, old), (_, averaged) in zip(before.named_parameters(), average.splats.named_parameters(), strict=True):
        torch.testing.assert_close(averaged, old + 1.0 - 0.9**10, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("iterations", [10, 100, 1000])
def test_what_it_began_with_is_forgotten_even_by_a_short_stage(iterations):
    start = random_model(5)
    average = RunningAverage(start, 0.998)
    moved = start.map(lambda tensor: tensor + 1.0).requires_grad_()
    for _ in range(iterations):
        average.update(moved)
    left = 1.0 - (average.splats.means - start.means).mean()
    assert left < 1e-4
    assert moved.means.requires_grad and not average.splats.means.requires_grad


def test_a_model_without_gaussians_has_an_average():
    average = RunningAverage(random_model(0), 0.998)
    average.update(random_model(0))
    assert len(average.splats) == 0
