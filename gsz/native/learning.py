"""Steps of the native grid that are learned in fine-tuning, as learned step size quantization (LSQ) does it.

A step ``s`` rounds a value ``v`` to ``s k``. With the rounding passed straight through, the gradient of the loss by the
logarithm of the step is the sum of ``dL/d(s k) * (s k - v)`` over all values (Esser et al., "Learned Step Size
Quantization", arXiv:1902.08153, equation 3, times ``s``): errors of rounding, weighed by what they do to the loss.
Against it stand the bits that a coarser step saves, which are measured with the coder itself. A grid's steps are
fitted anew when the parameters have gone on to another sixteenth of an octave.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gsz.contract import ModelT
from gsz.native.settings import STEPS
from gsz.native.steps import SCALE_POWER
from gsz.native.symbols import TURNS
from gsz.rounding.elementary import LN2
from gsz.splats import Splats

if TYPE_CHECKING:
    from gsz.native.codec import GszCodec

LATTICE = 16
"""Parts of an octave that grids have their steps in."""
FARTHEST = 2.0
"""Octaves that a step may go from what was asked for."""
STEPS_LIFE = 50
"""For how many iterations a grid stays where it is, with the same prices of steps. In the first ones nothing is
learned: a model that was decoded from a file has to come off the grid of that before a coder says much of its steps."""
SAMPLE = 1 << 13
"""Of so many Gaussians they are measured."""
APART = 0.25
"""By steps that are so many octaves finer and coarser."""


class LearnedSteps:
    """The steps of a grid as parameters.

    Attributes:
        codec: whose steps the grid has now.
        octaves: ``(7,)`` by how much coarser than asked for each of :data:`STEPS` should be; a leaf. The grid follows
            as long as it requires gradients.
    """

    def __init__(self, codec: GszCodec, device: torch.device):
        begun = codec.octaves or (0.0,) * len(STEPS)
        self.codec = codec
        self.octaves = torch.tensor(begun, dtype=torch.float32, device=device).requires_grad_()
        self._prices: Tensor | None = None
        self._age = 0

    def observe(self, splats: Splats) -> bool:
        """Keep prices up to date, and now and then let the grid follow; whether it has to be fitted anew."""
        self._age += 1
        if not self.octaves.requires_grad or self._age % STEPS_LIFE:
            return False
        with torch.no_grad():
            self.octaves.clamp_(-FARTHEST, FARTHEST)
        reached = tuple(round(LATTICE * octave) / LATTICE for octave in self.octaves.tolist())
        moved = reached != (self.codec.octaves or (0.0,) * len(STEPS))
        self.codec = replace(self.codec, octaves=reached)
        self._prices = torch.tensor(prices(self.codec, splats)).to(self.octaves)
        return moved

    def price(self, count: int) -> Tensor | float:
        """Zero, with the gradient of the bits of so many Gaussians."""
        if self._prices is None:
            return 0.0
        return count * (self._prices * (self.octaves - self.octaves.detach())).sum()

    def pay(self, weight: float, count: int) -> None:
        """Add the gradient of ``weight`` times that, while steps are learned."""
        price = self.price(count)
        if isinstance(price, Tensor) and price.requires_grad:
            (weight * price).backward()

    def felt(self, splats: ModelT, snapped: ModelT) -> ModelT:
        """``snapped``, whose gradients reach the steps as well, given the model that was rounded to it."""
        if self._prices is None or not self.octaves.requires_grad:
            return snapped
        original = [tensor.detach() for _, tensor in splats.named_parameters()]
        tensors = [tensor for _, tensor in snapped.named_parameters()]
        return type(splats)(*_Felt.apply(self.octaves, original, *tensors))


def prices(codec: GszCodec, splats: Splats) -> list[float]:
    """For each of :data:`STEPS`, the bits that a Gaussian takes more for an octave more: negative numbers."""
    splats = splats.map(Tensor.detach)
    sample = splats.select(torch.arange(0, len(splats), -(-len(splats) // SAMPLE), device=splats.means.device)).numpy()
    octaves = codec.octaves or (0.0,) * len(STEPS)

    def bits(step: int, more: float) -> int:
        moved = tuple(octave + more * (step == index) for index, octave in enumerate(octaves))
        return 8 * len(replace(codec, octaves=moved, layers=1).fit(sample).encode(sample))

    return [(bits(step, APART) - bits(step, -APART)) / (2 * APART * len(sample)) for step in range(len(STEPS))]


class _Felt(torch.autograd.Function):
    """The identity of a snapped model; in the backward pass, also the gradient by the octaves of its steps."""

    @staticmethod
    def forward(ctx: Any, octaves: Tensor, original: list[Tensor], *snapped: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(octaves, *original, *snapped)
        return tuple(tensor.view_as(tensor) for tensor in snapped)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        octaves, *tensors = ctx.saved_tensors
        original, snapped = Splats(*tensors[: len(gradients)]), Splats(*tensors[len(gradients) :])
        means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest = gradients
        sh_error = snapped.sh_rest - original.sh_rest
        sh = (sh_rest * sh_error).sum()
        luma = (sh_rest.sum(2) * sh_error.mean(2)).sum() if sh_error.numel() else sh
        felt = [
            (means * (snapped.means - original.means)).sum(),
            (log_scales * _scale_errors(original.log_scales, snapped.log_scales)).sum(),
            (opacity_logits * _opacity_errors(original.opacity_logits, snapped.opacity_logits)).sum(),
            (quaternions * _rotation_errors(original.quaternions, snapped.quaternions)).sum(),
            (sh_dc * (snapped.sh_dc - original.sh_dc)).sum(),
            luma,
            sh - luma,
        ]
        # A model has diverged, or begins to, where this is not finite: that is not for the steps to mend.
        octave = torch.stack(felt).nan_to_num(0.0, 0.0, 0.0).to(octaves) * LN2
        return (octave, None, *gradients)


def _scale_errors(original: Tensor, snapped: Tensor) -> Tensor:
    """Log-scales of the grid less those before, axis by axis, as if the errors of their powers were small.

    The grid is uniform in a power of scales, in which errors are steps at most; logarithms of next to nothing are not.
    """
    before = original.sort(1, descending=True).values
    return (1.0 - torch.exp((SCALE_POWER * (before - snapped)).clamp(max=20.0))) * (1.0 / SCALE_POWER)


def _opacity_errors(original: Tensor, snapped: Tensor) -> Tensor:
    """The same of opacities, whose square roots are on a uniform grid."""
    before, after = torch.sigmoid(original).sqrt(), torch.sigmoid(snapped).sqrt()
    return 2.0 * (after - before) / (after * (1.0 - after.square()))


def _rotation_errors(original: Tensor, snapped: Tensor) -> Tensor:
    """The same of unit quaternions, the original ones turned as the snapped ones were."""
    unit = torch.nn.functional.normalize(original, dim=1)
    turns = torch.from_numpy(TURNS).to(unit)
    # What is between the two is nearly one of the turns, or its opposite.
    between = _products(unit * unit.new_tensor([1.0, -1.0, -1.0, -1.0]), snapped) @ turns.T
    nearest = between.abs().argmax(1, keepdim=True)
    sign = between.gather(1, nearest).sign()
    return snapped - _products(unit, turns[nearest[:, 0]]) * sign


def _products(left: Tensor, right: Tensor) -> Tensor:
    """``(N, 4)`` Hamilton products of quaternions, wxyz."""
    w, x, y, z = left.unbind(1)
    a, b, c, d = right.unbind(1)
    return torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        1,
    )
