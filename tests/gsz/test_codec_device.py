"""Proves that fine-tuning on a GPU never waits for the CPU, and that what it renders there is what a decoder returns.

There is no GPU here. That the arithmetic for a GPU gives the same bits as the kernels of the CPU is shown by running
both on the CPU, that of ``gsz`` on Warp's CPU device: it is made of operations that have only one right result, and the
code that Warp makes for GPUs has no others. That viewers' grids stay on their device is shown with tensors on PyTorch's
``meta`` device, which have no values that anything could wait for; of ``gsz`` it is in ``test_cuda_memory.py``.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gsz import registry
from gsz.contract import Grid
from gsz.native import QUALITIES, GszCodec, GszGrid
from gsz.native import grid as native_grid
from gsz.native.steps import LOGS_PER_OCTAVE
from gsz.rounding import levels, palettes, rotations, tensors
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, degenerate_models, random_model

DEMO = Path(__file__).parents[2] / "demo" / "snowmiku" / "pretrained"


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the CPU wait for a device: reading a value, and copies from one device to another.

    Attributes:
        kernels: how many operations there were, views not counted.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits for the device"
        assert name != "_to_copy" or not (kwargs or {}).get("device"), "a copy to another device"
        self.kernels += not function.is_view
        return function(*args, **(kwargs or {}))


def models() -> dict[str, GaussianModel]:
    return {f"random, SH degree {degree}": random_model(1000, degree, seed=degree) for degree in range(4)} | (
        degenerate_models()
    )


def between_symbols(grid: GszGrid) -> GaussianModel:
    """A model whose every value lies half-way between two symbols, or next to it, or on a tie of its own."""
    steps = grid.steps
    model = random_model(400, seed=5)
    rng = np.random.default_rng(6)

    def half(shape: tuple[int, ...], step: float, nudges: tuple[float, ...] = (0.0, 0.0, 1e-7, -1e-7)) -> Tensor:
        whole = rng.integers(-6, 6, shape) + 0.5
        return torch.from_numpy(((whole + rng.choice(nudges, shape)) * step).astype(np.float32))

    model.means = half((400, 3), steps.radius * 2.0**-steps.mean_bits) + torch.from_numpy(steps.center).float()
    # Exactly between two symbols the power of scales is a whole number and a half, which a logarithm is only near.
    powers = np.log2(np.abs(half((400, 3), 1.0).numpy().astype(np.float64)) * steps.scale_steps)
    model.log_scales = torch.from_numpy((powers * LOGS_PER_OCTAVE + steps.scale_pivot).astype(np.float32))
    model.quaternions = torch.from_numpy(rng.choice([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0], (400, 4)).astype(np.float32))
    model.opacity_logits = torch.from_numpy(rng.choice(steps.opacity_thresholds, (400, 1)))
    model.sh_dc = half((400, 1, 3), steps.dc_step)
    model.sh_rest = half((400, 15, 3), steps.sh_step)
    return model


def same_bits(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first.view(torch.int32), second.view(torch.int32))


def snap_and_pull(grid: Grid, splats: GaussianModel) -> dict[str, Tensor]:
    """What ``snap`` makes of a model and what its gradients are, by name."""
    leaves = splats.clone().requires_grad_()
    snapped = grid.snap(leaves)
    found = [values for _, values in snapped.named_parameters()]
    pulls = [torch.arange(values.numel(), device=values.device) % 101 * 0.37 - 17.0 for values in found]
    torch.autograd.backward(found, [pull.reshape(values.shape) for pull, values in zip(pulls, found, strict=True)])
    return {
        **dict(snapped.detach().named_parameters()),
        **{f"gradient of {name}": leaf.grad for name, leaf in leaves.named_parameters()},
    }


def in_warp(grid: GszGrid) -> GszGrid:
    """The same grid that treats the CPU as CUDA: its kernels in Warp run on Warp's CPU device."""
    pytest.importorskip("warp")
    from gsz.native.gpu import GpuSteps

    on_device = GpuSteps(grid.steps, torch.device("cpu"))
    twin = GszGrid(grid.steps, grid.layers)
    twin.steps_on = lambda device: on_device  # type: ignore[method-assign]
    return twin


def assert_same_bits(grid: GszGrid, splats: GaussianModel, case: str) -> None:
    """In Warp as in kernels of the CPU: values and gradients."""
    kernels, found = (snap_and_pull(each, splats) for each in (grid, in_warp(grid)))
    for name, values in kernels.items():
        assert same_bits(values, found[name]), (case, name)


@pytest.mark.parametrize("quality", QUALITIES)
def test_gsz_in_warp_is_gsz_in_kernels_bit_for_bit(quality: str) -> None:
    """Values and gradients: of random and degenerate models, of what lies between symbols, of what is snapped."""
    codec = GszCodec(quality=quality)
    for case, splats in models().items():
        assert_same_bits(codec.fit(splats), splats, case)
    splats = random_model(1000)
    grid = codec.fit(splats)
    for case, other in (("half-way", between_symbols(grid)), ("snapped", grid.snap(splats))):
        assert_same_bits(grid, other, case)


def test_gsz_in_warp_is_gsz_in_kernels_on_a_trained_model() -> None:
    splats = GaussianModel.load_ply(next(DEMO.glob("point_cloud/*/point_cloud.ply")))
    assert_same_bits(GszCodec().fit(splats), splats, "the demo")


def test_nan_and_infinity_do_no_harm_in_warp() -> None:
    """NaN and infinity become some symbol or other: a table is never read beyond its end."""
    for value in (float("nan"), float("inf"), -float("inf")):
        splats = random_model(50)
        grid = GszCodec().fit(splats)
        snapped = in_warp(grid).snap(splats.map(lambda tensor, value=value: torch.full_like(tensor, value)))
        assert all(bool(tensor.isfinite().all()) for _, tensor in snapped.named_parameters())


def test_short_quaternions_have_finite_gradients() -> None:
    """The square of a length of 1e-25 is no float32; dividing by it made the gradient NaN."""
    splats = random_model(20)
    splats.quaternions *= 1e-25
    grid = GszCodec().fit(splats)
    for each in (grid, in_warp(grid)):
        gradient = snap_and_pull(each, splats)["gradient of quaternions"]
        assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).any())


@pytest.mark.parametrize("sh_degree", [0, 3])
def test_the_gradient_of_the_rate_in_warp_is_that_in_kernels_bit_for_bit(sh_degree: int) -> None:
    """Also after the model has moved beyond the tables; the bits themselves are added up in another order."""
    splats = random_model(3000, sh_degree)
    grid = GszCodec().fit(splats)
    twin = in_warp(grid)
    for spread in (1.0, 1.3):
        both = []
        for each in (grid, twin):
            leaves = splats.map(lambda tensor, spread=spread: tensor * spread).requires_grad_()
            bits = each.estimated_bits(leaves)
            bits.backward()
            both.append((bits.detach(), leaves))
        (bits, kernels), (also, found) = both
        torch.testing.assert_close(bits, also, rtol=1e-6, atol=0)
        for name, leaf in kernels.named_parameters():
            other = getattr(found, name).grad
            assert (leaf.grad is None) == (other is None), name
            assert leaf.grad is None or torch.equal(leaf.grad, other), name


@pytest.mark.parametrize("sh_degree", [0, 1, 3])
def test_paying_adds_what_a_term_of_the_loss_would_on_any_number_of_threads(sh_degree: int) -> None:
    """To the gradients of the first Gaussians alone, of a model that several threads share."""
    splats = random_model(40_000, sh_degree)
    grid = GszCodec().fit(splats)
    for each in (grid, in_warp(grid)):
        leaves = splats.clone().requires_grad_()
        bits = each.estimated_bits(leaves)
        (0.5 * bits).backward()
        expected = {name: leaf.grad for name, leaf in leaves.named_parameters() if leaf.grad is not None}
        assert set(expected) == {"opacity_logits", "log_scales", "sh_dc", "sh_rest"}
        paid = []
        for threads in (1, 2):
            payers = splats.clone().requires_grad_()
            for _, leaf in payers.named_parameters():
                leaf.grad = torch.ones_like(leaf)
            before = torch.get_num_threads()
            try:
                torch.set_num_threads(threads)
                torch.testing.assert_close(each.pay(payers, 0.5, 25_000), bits.detach(), rtol=1e-5, atol=0)
            finally:
                torch.set_num_threads(before)
            paid.append({name: leaf.grad for name, leaf in payers.named_parameters()})
        for name, gradient in paid[0].items():
            assert gradient is not None and torch.equal(gradient, paid[1][name]), name
            added = expected.get(name, torch.zeros_like(gradient))
            torch.testing.assert_close(gradient[:25_000] - 1.0, added[:25_000], rtol=1e-4, atol=1e-4, msg=name)
            assert bool((gradient[25_000:] == 1.0).all()), name


def test_fine_tuning_on_gsz_waits_for_nothing() -> None:
    """Rounding, rate, and both ways back are three kernels in Warp and hardly anything else."""
    splats = random_model(500)
    grid = in_warp(GszCodec().fit(splats))
    leaves = splats.clone().requires_grad_()
    grid.estimated_bits(leaves)
    with NoWaiting() as counted:
        snapped = [tensor for _, tensor in grid.snap(leaves).named_parameters()]
        torch.autograd.backward(snapped, [torch.ones_like(tensor) for tensor in snapped])
        grid.pay(leaves, 0.1)
    assert all(leaf.grad is not None for _, leaf in leaves.named_parameters())
    assert counted.kernels < 50


def test_the_kernels_of_the_grid_compile_for_gpus_into_nothing_but_rounded_operations(tmp_path: Path) -> None:
    """To machine code of two architectures; in PTX each sum, product, quotient and root is rounded by itself.

    A contracted product and sum (``fma``) or an approximation would give other bits than the CPU's.
    """
    wp = pytest.importorskip("warp")
    from gsz.native import gpu_kernels

    compiled = wp.compile_aot_module(gpu_kernels, arch=(75, 90), module_dir=tmp_path, use_ptx=False)
    assert [path.read_bytes()[:4] for path in compiled] == [b"\x7fELF"] * 2
    (assembly,) = wp.compile_aot_module(gpu_kernels, arch=75, module_dir=tmp_path, use_ptx=True)
    names = r"\b(?:add|sub|mul|div|rcp|sqrt|fma|mad|ex2|lg2|rsqrt)\.[a-z0-9.]*f(?:32|64)\b"
    found = set(re.findall(names, assembly.read_text()))
    assert {"mul.rn.f64", "add.rn.f64", "div.rn.f64", "sqrt.rn.f64", "mul.rn.f32", "add.rn.f32"} <= found
    assert found <= {f"{name}.rn.f{size}" for name in ("add", "sub", "mul", "div", "rcp", "sqrt") for size in (32, 64)}


def test_without_warp_a_model_is_rounded_on_the_cpu_and_a_warning_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "warp", None)
    native_grid.rounds_on_gpu.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not native_grid.rounds_on_gpu()
    native_grid.rounds_on_gpu.cache_clear()
    (message,) = caplog.messages
    assert "not installed; install it with: pip install" in message


@pytest.mark.parametrize("name", ["sog", "spz", "spz:version=2"])
def test_the_viewers_grids_in_tensors_are_those_in_kernels_bit_for_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, of random and degenerate models, of another model than was fitted, of what is snapped."""
    codec = registry.codec(name)
    for case, splats in models().items():
        grid = codec.fit(splats)
        for kind, other in (("", splats), ("moved", splats.map(lambda tensor: tensor * 1.3)), ("", grid.snap(splats))):
            kernels = snap_and_pull(grid, other)
            with monkeypatch.context() as patched:
                as_elsewhere(patched)
                found = snap_and_pull(grid, other)
            for key, values in kernels.items():
                assert same_bits(values, found[key]), (case, kind, key)


def as_elsewhere(patched: pytest.MonkeyPatch) -> None:
    """Treat tensors on the CPU as those of any other device."""
    patched.setattr(tensors, "on_cpu", lambda tensor: False)


def as_tensors(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in arguments)


def ties_and_edges() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Functions with arguments for which a kernel and tensors could differ, by what is special about them."""
    rng = np.random.default_rng(0)
    thresholds = np.sort(rng.choice(np.arange(-20, 20) / 4, 200)).astype(np.float32)
    quarters = (rng.integers(-30, 30, 2000) / 4).astype(np.float32)
    quaternions = rng.choice([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0], (2000, 4)).astype(np.float32)
    powers = np.ldexp(np.float32(1), rng.integers(0, 7, 2000))
    wide = (rng.choice([-1.0, 1.0], 2000) * 10.0 ** rng.uniform(-30, 30, 2000)).astype(np.float32)
    others = rng.integers(-511, 512, (2000, 3)).astype(np.int32)
    dropped, labels = rng.integers(0, 4, 2000), rng.integers(0, 7, 2000)
    none = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    return {
        "levels on thresholds": (levels.nearest_levels, (quarters, thresholds)),
        "levels of infinite numbers": (levels.nearest_levels, (none[1:], thresholds)),
        "halves": (levels.whole, (quarters.astype(np.float64), -20, 19)),
        "whole numbers of no numbers": (levels.whole, (none, -20, 19)),
        "halves of steps": (
            levels.round_to_multiples,
            (quarters[:, None], np.array([2], np.float32), powers, -20.0, 19.0),
        ),
        "multiples": (levels.multiples, (others, np.array([0.1, -0.0, 3e-39], np.float32))),
        "logarithms": (levels.signed_log, (wide,)),
        "logarithms of quarters": (levels.signed_log, (quarters,)),
        "components of equal size": (rotations.drop_largest, (quaternions,)),
        "components of equal size, xyzw": (rotations.drop_largest, (quaternions, 3)),
        "the real component": (rotations.drop_real, (quaternions, 3)),
        "rotations beyond unit length": (rotations.restore_dropped, (dropped, others, 511 * math.sqrt(2))),
        "means of few": (palettes.centroids_of, (quaternions, powers / 64, labels, np.ones((9, 4), np.float32))),
    }


@pytest.mark.parametrize("case", ties_and_edges())
def test_ties_and_edges_are_decided_alike(case: str) -> None:
    """Levels on thresholds, components of equal size, halves: where a kernel and tensors could differ."""
    function, arguments = ties_and_edges()[case]
    kernels, found = function(*arguments), function(*as_tensors(arguments))
    if not isinstance(kernels, tuple):
        kernels, found = (kernels,), (found,)
    for kernel, tensor in zip(kernels, found, strict=True):
        assert np.array_equal(kernel, tensor.numpy()), case
        assert kernel.dtype == np.uint8 or kernel.dtype == tensor.numpy().dtype, case
        assert np.array_equal(np.signbit(kernel), np.signbit(tensor.numpy())), case


def test_the_logarithm_of_positions_is_one() -> None:
    values = np.float32([0.0, -0.0, 1e-30, 1e-7, 0.41, 0.42, 1.0, -3.5, 1e10, -3e38])
    wide = values.astype(np.float64)
    np.testing.assert_allclose(levels.signed_log(values), np.sign(wide) * np.log1p(np.abs(wide)), rtol=1e-13)


def test_the_means_that_a_palette_follows_do_not_depend_on_the_order_of_their_sums() -> None:
    """A GPU adds in any order; whole numbers have the same sum in all of them, and nearly that of the kernel."""
    rng = np.random.default_rng(0)
    rows, labels = rng.laplace(0, 0.05, (20_000, 9)).astype(np.float32), rng.integers(0, 50, 20_000)
    weights = rng.uniform(1e-6, 1, 20_000).astype(np.float32) ** 4
    previous = np.ones((60, 9), np.float32)
    kernel = palettes.centroids_of(rows, weights, labels, previous)
    first = palettes.centroids_of(*as_tensors((rows, weights, labels, previous)))
    order = rng.permutation(20_000)
    second = palettes.centroids_of(*as_tensors((rows[order], weights[order], labels[order], previous)))
    assert torch.equal(first, second)
    np.testing.assert_allclose(first.numpy(), kernel, rtol=1e-5, atol=1e-7)


def test_a_palette_follows_its_gaussians_in_tensors_as_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the last bits of the means, which steps of 1/128 and more hide."""
    splats = random_model(2000, sh_degree=1)
    moved = splats.map(lambda tensor: tensor * 1.3)
    found = []
    for elsewhere in (False, True):
        grid = registry.codec("sog:palette=100").fit(splats)
        with monkeypatch.context() as patched:
            if elsewhere:
                as_elsewhere(patched)
            for _ in range(5):
                grid.observe(moved)
            found.append(grid.snap(moved))
        assert_same_up_to_order(registry.codec("sog").decode(grid.encode(moved)), found[-1])
    assert_same_up_to_order(*found)


@pytest.mark.parametrize("name", ["sog", "spz", "spz:version=2", "lzma", "ply"])
def test_fine_tuning_on_any_codec_waits_for_nothing(name: str) -> None:
    """A step of it on a device without values, as :func:`test_fine_tuning_on_gsz_waits_for_nothing`."""
    splats = random_model(500)
    grid, device = registry.codec(name).fit(splats), torch.device("meta")
    leaves = splats.to(device).requires_grad_()
    for part in (grid, *vars(grid).values()):
        for key, value in vars(part).items() if hasattr(part, "__dict__") else ():
            if isinstance(value, Tensor):
                setattr(part, key, value.to(device))
    for counted in (nullcontext(), NoWaiting()):  # Tables are made in the first step.
        with counted:
            grid.observe(leaves)
            snapped = grid.snap(leaves)
            torch.stack([tensor.square().sum() for _, tensor in snapped.named_parameters()]).sum().backward()
    assert isinstance(counted, NoWaiting)
    assert counted.kernels < 260
    assert all(leaf.grad is not None and leaf.grad.device == device for _, leaf in leaves.named_parameters())


@pytest.mark.cuda
@pytest.mark.parametrize("name", registry.names(writable_only=True))
def test_on_a_gpu_nothing_waits_and_the_bits_are_those_of_the_cpu(name: str) -> None:
    """PyTorch itself raises where the inner loop would wait for the GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for case, splats in models().items():
        there = splats.to("cuda")
        codec = registry.get(name)
        grid = codec.fit(there)
        snap_and_pull(grid, there)
        torch.cuda.set_sync_debug_mode("error")
        try:
            grid.observe(there)
            found = snap_and_pull(grid, there)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert_same_up_to_order(codec.decode(grid.encode(there)), grid.snap(there).to("cpu"))
        if name != "lzma":  # Its range follows the model.
            here = snap_and_pull(codec.fit(splats), splats)
            assert all(same_bits(values, found[key].cpu()) for key, values in here.items()), case
