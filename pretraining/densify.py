"""Adaptive density control: where Gaussians are cloned, split and removed (section 5 of the 3DGS paper).

A change of the set is described by its *origin*: for each Gaussian of the new set the row of the old set it continues,
or ``NEWBORN``. What is kept per Gaussian, such as an optimizer's moments, follows through :func:`carry`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretraining.rules import DensityRules
from scene.gaussian_model import GaussianModel

NEWBORN = -1

# A parent is replaced by two children, each this much smaller along every axis (the paper's phi).
CHILDREN = 2
SHRINK = 1.6


class ScreenStatistics:
    """What the views since the last densification say about each of ``N`` Gaussians.

    Attributes:
        gradient_sum: ``(N,)`` sum of the lengths of dL/d(position on the screen), in normalized device coordinates.
        views: ``(N,)`` number of renderings the Gaussian was seen in.
        max_radii: ``(N,)`` largest radius in pixels.
    """

    FIELDS = ("gradient_sum", "views", "max_radii")

    def __init__(self, count: int, device: torch.device | str = "cpu") -> None:
        self.gradient_sum = torch.zeros(count, device=device)
        self.views = torch.zeros(count, device=device)
        self.max_radii = torch.zeros(count, device=device)

    def add(self, pixel_gradients: Tensor, radii: Tensor, width: int, height: int) -> None:
        """Count one rendering.

        Args:
            pixel_gradients: ``(N, 2)`` dL/d(position on the screen) with the position in pixels.
            radii: ``(N,)`` radii in pixels, 0 where a Gaussian was not seen.
            width, height: Size of the rendering in pixels; half of it is one unit of the normalized coordinates.
        """
        # A Gaussian that was not seen has a gradient of zero, so the sum needs no mask.
        self.gradient_sum += torch.hypot(pixel_gradients[:, 0] * (width / 2), pixel_gradients[:, 1] * (height / 2))
        self.views += radii > 0
        torch.maximum(self.max_radii, radii.to(self.max_radii.dtype), out=self.max_radii)

    def mean_gradients(self) -> Tensor:
        """``(N,)`` mean length of the gradient over the renderings a Gaussian was seen in; 0 for one never seen."""
        return self.gradient_sum / self.views.clamp(min=1)


@torch.no_grad()
def densify_and_prune(
    splats: GaussianModel,
    statistics: ScreenStatistics,
    rules: DensityRules,
    extent: float,
    prune_large: bool,
    generator: torch.Generator,
) -> tuple[GaussianModel, Tensor]:
    """One round of density control.

    Small Gaussians with a high view-space gradient are copied, large ones replaced by two smaller ones drawn from
    them; then those too faint, and with ``prune_large`` those too large, are removed.

    Args:
        extent: Radius of the scene in world units.
        generator: Source of the children's positions; on the CPU, whatever the device of the Gaussians.

    Returns:
        The new set, detached, and its ``(N',)`` origin.
    """
    chosen = choose_candidates(splats, statistics.mean_gradients(), rules)
    large = splats.scales.amax(1) > rules.percent_dense * extent
    split = chosen & large
    cloned = (chosen & ~large).nonzero().squeeze(1)
    kept = (~split).nonzero().squeeze(1)
    parents = splats.select(split)

    grown = GaussianModel.concatenate([splats.select(kept), splats.select(cloned), split_in_two(parents, generator)])
    newborn = kept.new_full((len(grown) - len(kept),), NEWBORN)
    origin = torch.cat([kept, newborn])

    survives = grown.opacities.squeeze(1) >= rules.min_opacity
    if prune_large:
        survives &= grown.scales.amax(1) <= rules.max_world_scale * extent
        if rules.max_screen_radius > 0:
            survives &= carry(statistics.max_radii, origin) <= rules.max_screen_radius
    return grown.select(survives), origin[survives]


def choose_candidates(splats: GaussianModel, gradients: Tensor, rules: DensityRules) -> Tensor:
    """``(N,)`` mask of the Gaussians to clone or split: each adds one to the number of Gaussians.

    Those about to be pruned for their opacity are left out: their offspring would share that opacity and go with them.
    """
    opaque = splats.opacities.squeeze(1) >= rules.min_opacity
    candidates = (gradients >= rules.densify_grad_threshold) & opaque
    if rules.max_gaussians:
        room = max(rules.max_gaussians - int(opaque.sum()), 0)
        if int(candidates.sum()) > room:
            # Sorting is stable, so that equal gradients fall the same way on every machine.
            ranked = torch.where(candidates, gradients, -torch.inf).argsort(descending=True, stable=True)
            candidates = torch.zeros_like(candidates)
            candidates[ranked[:room]] = True
    return candidates


def split_in_two(parents: GaussianModel, generator: torch.Generator) -> GaussianModel:
    """Two children a parent: centers drawn from the parent's own distribution, scales divided by 1.6, the rest copied.

    Returns:
        ``2 * len(parents)`` Gaussians: the first child of every parent, then the second of every parent.
    """
    children = GaussianModel.concatenate([parents] * CHILDREN)
    normal = torch.randn(children.means.shape, generator=generator).to(children.device)
    offsets = rotate(children.rotations, normal * children.scales)
    children.means = children.means + offsets
    children.log_scales = torch.log(children.scales / SHRINK)
    return children


def rotate(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """``(N, 3)`` vectors turned by ``(N, 4)`` unit quaternions (w x y z)."""
    real, imaginary = quaternions[:, :1], quaternions[:, 1:]
    twice_cross = 2 * torch.linalg.cross(imaginary, vectors)
    return vectors + real * twice_cross + torch.linalg.cross(imaginary, twice_cross)


def carry(rows: Tensor, origin: Tensor) -> Tensor:
    """Per-Gaussian values ``(N, ...)`` brought over to a changed set with the ``(N',)`` origin; newborns get 0."""
    carried = rows[origin.clamp(min=0)]
    carried[origin == NEWBORN] = 0
    return carried


def reset_opacities(opacity_logits: Tensor, ceiling: float = 0.01) -> Tensor:
    """Opacity logits, with the opacities capped at ``ceiling``: what is not needed then fades and is pruned."""
    return opacity_logits.clamp(max=float(torch.logit(torch.tensor(ceiling))))
