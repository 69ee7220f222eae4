"""The running average forgets at the rate that it is given, sooner at first, and leaves the model it averages alone.

What fine-tuning ends with is the average, and so are the harmonics of its file where a grid holds them itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compress.averaging import RunningAverage
from compress.finetune import finetune
from compress.recipe import Recipe
from compress.views import Views
from gsz import registry
from scene import open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.helpers import random_model
from tests.tiny_run import tiny_splats


def tensors_of(model: GaussianModel) -> list[Tensor]:
    return [tensor for _, tensor in model.named_parameters()]


def test_a_model_that_rests_is_its_own_average():
    model = random_model(20)
    average = RunningAverage(tensors_of(model), 0.998)
    for _ in range(50):
        average.update(tensors_of(model))
    for still, averaged in zip(tensors_of(model), average.tensors, strict=True):
        torch.testing.assert_close(averaged, still)
        assert averaged.data_ptr() != still.data_ptr()


def test_a_step_is_followed_at_the_rate_of_the_decay():
    model = random_model(5)
    average = RunningAverage(tensors_of(model), 0.9)
    before = model.clone()
    for _ in range(200):
        average.update(tensors_of(model))
    model = model.map(lambda tensor: tensor + 1.0)
    for _ in range(10):
        average.update(tensors_of(model))
    for old, averaged in zip(tensors_of(before), average.tensors, strict=True):
        torch.testing.assert_close(averaged, old + 1.0 - 0.9**10, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("iterations", [10, 100, 1000])
def test_what_it_began_with_is_forgotten_even_by_a_short_stage(iterations):
    start = random_model(5)
    average = RunningAverage(tensors_of(start), 0.998)
    moved = start.map(lambda tensor: tensor + 1.0).requires_grad_()
    for _ in range(iterations):
        average.update(tensors_of(moved))
    left = 1.0 - (average.tensors[0] - start.means).mean()
    assert left < 1e-4
    assert moved.means.requires_grad and not average.tensors[0].requires_grad


def test_an_average_goes_on_where_another_one_ended():
    generator = torch.Generator().manual_seed(0)
    path = [[torch.randn(4, 3, generator=generator)] for _ in range(100)]
    whole, first = RunningAverage(path[0], 0.998), RunningAverage(path[0], 0.998)
    for tensors in path:
        whole.update(tensors)
    for tensors in path[:80]:
        first.update(tensors)
    second = RunningAverage(first.tensors, 0.998, updates=80)
    for tensors in path[80:]:
        second.update(tensors)
    assert torch.equal(second.tensors[0], whole.tensors[0])


def test_a_model_without_gaussians_has_an_average():
    average = RunningAverage(tensors_of(random_model(0)), 0.998)
    average.update(tensors_of(random_model(0)))
    assert all(len(tensor) == 0 for tensor in average.tensors)


def test_the_palette_of_a_format_is_that_of_the_average(tiny: tuple[Path, Path]):
    scene = open_scene(SceneOptions(source_path=tiny[0], eval=True))
    views = Views.of(scene, scene.train[:4])
    recipe = Recipe(sh_rest_lr=0.2)
    tuned, grid = finetune(tiny_splats(), registry.codec("sog:quality=best"), views, recipe, 20, (0,))
    error = (grid.snap(tuned).sh_rest - tuned.sh_rest)[tuned.sh_rest.abs() < 0.7].abs()
    assert error.max() < 0.51 / 128
