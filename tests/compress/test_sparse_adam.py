"""Proves the optimizer that moves only what a view shows: its arithmetic against the formula, what it leaves
alone, that fine-tuning uses it when asked, and, on a GPU, that gsplat's kernel does the same.
"""

from __future__ import annotations

import math

import pytest
import torch

import gaussian_renderer
from compress.finetune import finetune
from compress.recipe import Recipe
from compress.sparse_adam import SparseAdam, sparse_adam
from compress.views import Views
from gaussian_renderer import render
from gsz import registry
from scene.cameras import Camera
from tests.synthetic_scenes import CX, CY, FX, FY, HEIGHT, WIDTH, ring_poses
from tests.tiny_run import tiny_splats


def test_visible_rows_follow_the_formula_and_hidden_rows_keep_everything():
    start = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensor = start.clone().requires_grad_()
    optimizer = SparseAdam([{"params": [tensor], "lr": 0.1}], 1e-15)
    first, second, expected = 0.0, 0.0, 1.0
    for gradient in (0.5, -0.25, 2.0):
        tensor.grad = torch.full_like(tensor, gradient)
        optimizer.step(torch.tensor([True, False]))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        expected -= 0.1 * first / (math.sqrt(second) + 1e-15)
    assert float(tensor.detach()[0, 0]) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(tensor.detach()[1], start[1])
    assert torch.equal(optimizer.state[tensor]["exp_avg"][1], torch.zeros(2))

    # A row that comes into view later begins as the first one did.
    before = tensor.detach().clone()
    tensor.grad = torch.ones_like(tensor)
    optimizer.step(torch.tensor([False, True]))
    assert torch.equal(tensor.detach()[0], before[0])
    assert torch.allclose(tensor.detach()[1], before[1] - 0.1 * 0.1 / math.sqrt(0.001))


def test_all_shapes_of_a_model_and_missing_gradients_are_taken():
    splats = tiny_splats(5).requires_grad_()
    groups = [{"params": [tensor], "lr": 0.01} for _, tensor in splats.named_parameters()]
    optimizer = sparse_adam(groups, 1e-15, "cpu")
    before = splats.clone()
    for name, tensor in splats.named_parameters():
        tensor.grad = None if name == "means" else torch.ones_like(tensor)
    optimizer.step(torch.tensor([True, True, False, True, False]))  # type: ignore[arg-type]
    assert torch.equal(splats.means.detach(), before.means)
    for name in ("log_scales", "quaternions", "opacity_logits", "sh_dc", "sh_rest"):
        moved = (getattr(splats, name).detach() != getattr(before, name)).flatten(1).any(1)
        assert moved.tolist() == [True, True, False, True, False], name


def test_fine_tuning_moves_only_what_its_views_show():
    splats = tiny_splats(60)
    splats.means[:20] += 100.0  # Out of every view.
    camera = Camera("view", WIDTH, HEIGHT, FX, FY, CX, CY, ring_poses(3)[0])
    black = torch.zeros(3)
    target = render(camera, tiny_splats(60, seed=1), black, backend="cpu").image.clamp(0, 1)
    views = Views([camera], lambda camera: target, black, 1.0, "cpu")

    def tuned(sparse: bool):
        recipe = Recipe(codec="ply", sparse_adam=sparse)
        return finetune(splats, registry.get("ply"), views, recipe, 5, (0,))[0]

    dense, sparse = tuned(False), tuned(True)
    # The penalty on sh_rest pulls at every Gaussian, seen or not, unless the optimizer is told which are seen.
    assert not torch.equal(dense.sh_rest[:20], splats.sh_rest[:20])
    for name, tensor in sparse.named_parameters():
        assert torch.equal(tensor[:20], getattr(splats, name)[:20]), name
    assert not torch.equal(sparse.sh_dc[20:], splats.sh_dc[20:])

    def error(model):
        return float((render(camera, model, black, backend="cpu").image - target).square().mean())

    assert error(sparse) < error(splats)


@pytest.mark.cuda
def test_on_a_gpu_gsplats_kernel_does_the_same():
    problem = gaussian_renderer._no_cuda() or gaussian_renderer._obstacle("gsplat")
    if problem:
        pytest.skip(problem)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(500, 15, 3, generator=generator).cuda()
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    optimizers = [
        SparseAdam([{"params": [ours], "lr": 0.01}], 1e-15),
        sparse_adam([{"params": [theirs], "lr": 0.01}], 1e-15, "gsplat"),
    ]
    for _ in range(20):
        gradient = torch.randn(start.shape, generator=generator).cuda()
        visible = (torch.rand(500, generator=generator) < 0.3).cuda()
        for tensor, optimizer in zip((ours, theirs), optimizers, strict=True):
            tensor.grad = gradient.clone()
            optimizer.step(visible)  # type: ignore[arg-type]
    assert torch.allclose(ours, theirs, atol=1e-4)
