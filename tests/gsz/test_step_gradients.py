"""Proves that learned steps get the gradients that they should, and that a grid holds its law wherever they take it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gsz.contract import CodecError
from gsz.native import container
from gsz.native import learning as learned_steps
from gsz.native.codec import GszCodec
from gsz.native.container import Header
from gsz.native.grid import GszGrid
from gsz.native.learning import FARTHEST, LATTICE, STEPS_LIFE, prices
from gsz.native.native_packing import NativePacking
from gsz.native.settings import STEPS
from gsz.native.symbols import TURNS
from gsz.splats import Splats
from scene.gaussian_model import GaussianModel
from tests.helpers import assert_same_up_to_order, degenerate_models, random_model

OCTAVES = len(STEPS)


def square_error(name: str) -> Callable[[Splats, Splats], Tensor]:
    """Of one attribute, uniform over its grid."""

    def error(snapped: Splats, original: Splats) -> Tensor:
        if name == "log_scales":
            before = original.log_scales.sort(1, descending=True).values
            return (torch.exp(0.4 * snapped.log_scales) - torch.exp(0.4 * before)).square().sum() * 1e3
        if name == "opacities":
            roots = (torch.sigmoid(model.opacity_logits).sqrt() for model in (snapped, original))
            return (next(roots) - next(roots)).square().sum()
        if name == "rotations":
            return rotation_error(snapped.quaternions, original.quaternions)
        tensor = {"means": "means", "dc": "sh_dc"}.get(name, "sh_rest")
        apart = getattr(snapped, tensor) - getattr(original, tensor)
        if name == "sh":
            return apart.mean(2).square().sum()
        return (apart - apart.mean(2, keepdim=True)).square().sum() if name == "sh_chroma" else apart.square().sum()

    return error


def rotation_error(snapped: Tensor, original: Tensor) -> Tensor:
    """Of Gaussians that look the same with their axes in another order, and by quaternions of any length."""
    snapped = torch.nn.functional.normalize(snapped, dim=1)
    w, x, y, z = torch.nn.functional.normalize(original, dim=1).unbind(1)
    product = torch.stack(
        [torch.stack(row, 1) for row in ([w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w])], 1
    )
    turned = product @ torch.from_numpy(TURNS).to(original).T
    return (1.0 - torch.einsum("nk,nkt->nt", snapped, turned).abs().amax(1)).sum()


@pytest.mark.parametrize("step", range(OCTAVES), ids=STEPS)
def test_the_gradient_of_a_step_is_that_of_what_its_rounding_costs(step: int) -> None:
    """On average, against differences between errors on two grids whose zones of zeros are not widened."""
    splats = random_model(4000, sh_degree=1, seed=3)
    splats.sh_rest *= 10.0
    settings = replace(GszCodec(quality="high").grid_settings(), sh_threshold=0.5, sh_chroma=1.0, rotation_range=0)
    codec, error = GszCodec(settings=settings), square_error(STEPS[step])

    def at(octave: float) -> float:
        moved = tuple(octave * (step == index) for index in range(OCTAVES))
        return float(error(replace(codec, octaves=moved).fit(splats).snap(splats), splats))

    grid = codec.fit(splats)
    octaves = learning(grid, splats)
    error(grid.snap(splats), splats).backward()
    assert octaves.grad is not None
    differences = sum(at(octave) - at(-octave) for octave in (0.125, 0.25)) / 0.75
    assert float(octaves.grad[step]) == pytest.approx(differences, rel=0.15)


def test_other_steps_do_not_feel_what_is_not_theirs() -> None:
    splats = random_model(1000, sh_degree=1)
    for step, name in enumerate(STEPS):
        grid = GszCodec().fit(splats)
        octaves = learning(grid, splats)
        square_error(name)(grid.snap(splats), splats).backward()
        assert octaves.grad is not None
        own = float(octaves.grad[step])
        assert own > 0.0
        assert all(abs(float(grad)) < 1e-3 * own for index, grad in enumerate(octaves.grad) if index != step)


def test_the_price_of_a_step_is_what_the_file_grows_by() -> None:
    splats = random_model(3000, seed=5)
    codec = GszCodec(quality="low")
    priced = prices(codec, splats)
    assert all(price < 0.0 for price in priced)
    grid = codec.fit(splats)
    octaves = learning(grid, splats)
    bits = grid.estimated_bits(splats)
    assert float(bits.detach()) == pytest.approx(8 * len(grid.encode(splats)), rel=1e-3)
    bits.backward()
    assert octaves.grad is not None and octaves.grad.tolist() == pytest.approx([3000 * price for price in priced])
    octaves.grad = None
    grid.pay(splats.clone().requires_grad_(), 0.5)
    assert octaves.grad is not None and octaves.grad.tolist() == pytest.approx([1500 * price for price in priced])
    finer = replace(codec, octaves=(0.0, 0.0, 0.0, 0.0, -0.25, 0.0, 0.0))
    grown = 8 * (len(finer.fit(splats).encode(splats)) - len(codec.fit(splats).encode(splats)))
    assert grown / 3000 == pytest.approx(-0.25 * priced[4], rel=0.15)


@pytest.mark.parametrize("case", degenerate_models())
@pytest.mark.parametrize("away", [-5.0, 5.0])
def test_the_law_holds_where_steps_have_gone_as_far_as_they_may(case: str, away: float) -> None:
    """Also that they go no farther, however far an optimizer goes, and that gradients are numbers."""
    splats = degenerate_models()[case].requires_grad_()
    if not len(splats):
        return
    grid = GszCodec().fit(splats)
    octaves = learning(grid, splats)
    snapped = grid.snap(splats)
    sum((tensor * tensor).sum() for _, tensor in snapped.named_parameters()).backward()
    assert octaves.grad is not None and octaves.grad.isfinite().all()
    with torch.no_grad():
        octaves += away
    before = grid.steps.sh_step
    observe(grid, splats, STEPS_LIFE)
    assert grid.octaves == (FARTHEST if away > 0 else -FARTHEST,) * OCTAVES
    assert grid.steps.sh_step == pytest.approx(before * 4.0 ** np.sign(away))
    plain = splats.detach()
    assert_same_up_to_order(GszCodec().decode(grid.encode(plain)), grid.snap(plain).detach())


def test_the_law_holds_at_every_moment_and_grids_are_on_the_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_steps, "STEPS_LIFE", 5)
    splats = random_model(300, sh_degree=1).requires_grad_()
    grid = GszCodec(layers=1).fit(splats)
    assert isinstance(grid, GszGrid)
    octaves = learning(grid, splats)
    optimizer = torch.optim.Adam([octaves], lr=0.03)
    seen = set()
    for iteration in range(20):
        grid.observe(splats)
        optimizer.zero_grad()
        (grid.snap(splats).sh_rest.square().sum() + 1e-5 * grid.estimated_bits(splats)).backward()
        optimizer.step()
        seen.add(grid.octaves)
        assert all((LATTICE * octave).is_integer() for octave in grid.octaves)
        if iteration % 3 == 0:
            plain = splats.detach()
            assert_same_up_to_order(GszCodec().decode(grid.encode(plain)), grid.snap(plain).detach())
            assert float(grid.estimated_bits(plain).detach()) > 0.0
    assert len(seen) == 5
    learned = GszCodec().with_steps_of(grid)
    assert learned.octaves == grid.octaves and learned.fit(splats.detach()).steps.dc_step == grid.steps.dc_step

    octaves.requires_grad_(False)
    with torch.no_grad():
        octaves += 1.0
    observe(grid, splats, 3 * STEPS_LIFE)
    assert grid.octaves == learned.octaves


def test_a_size_is_met_with_learned_steps_in_their_proportions() -> None:
    splats = random_model(2000, sh_degree=1)
    octaves = (0.5, 0.25, 0.0, 0.5, -0.25, 0.0, -0.5)
    codec = GszCodec(octaves=octaves)
    size = int(0.9 * len(codec.fit(splats).encode(splats)))
    fitting = codec.for_size(splats, size)
    assert fitting is not None and fitting.octaves == octaves
    assert 0.98 * size <= len(fitting.fit(splats).encode(splats)) <= size


def test_only_steps_of_the_native_grid_are_learned() -> None:
    splats = random_model(10)
    codec = GszCodec(grid="fast3dgs")
    assert codec.fit(splats).learn_steps(splats) is None and not codec.learns_steps
    assert codec.with_steps_of(codec.fit(splats)) is codec


@pytest.mark.parametrize("number", range(16))
@pytest.mark.parametrize("value", [float("nan"), -1e300, 1e300])
def test_steps_that_nobody_learned_are_refused(number: int, value: float) -> None:
    """Of the numbers that the header has for the grid, none may be anything at all."""
    splats = random_model(20, sh_degree=1)
    grid = GszCodec().fit(splats)
    assert isinstance(grid, GszGrid)
    parameters = bytearray(NativePacking(grid.steps).pack())
    struct.pack_into("<d", parameters, 8 * number, value)
    header = Header.parse(grid.encode(splats), "odd")
    data = container.assemble(replace(header, parameters=bytes(parameters)), [[b""] * 6])
    with pytest.raises(CodecError, match=r"^odd"):
        GszCodec().decode(data, "odd")


def learning(grid: object, splats: GaussianModel) -> Tensor:
    """The parameters of a grid's steps, past the first iterations, in which they are left alone."""
    assert isinstance(grid, GszGrid)
    octaves = grid.learn_steps(splats)
    assert octaves is not None
    observe(grid, splats, STEPS_LIFE)
    return octaves


def observe(grid: GszGrid, splats: GaussianModel, times: int) -> None:
    for _ in range(times):
        grid.observe(splats)
