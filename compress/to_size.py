"""An encoded model, and how one is brought to a size: by the steps of its grid where it has any, then by pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from compress.budget import SIZE_TOLERANCE
from compress.prune import kept_after_pruning
from gsz.errors import UserError
from gsz.registry import Codec, Grid
from scene.gaussian_model import GaussianModel
from utils import ranks

Score = Callable[[GaussianModel, Codec], Tensor]
"""``(N,)`` importance of a model's Gaussians, with the values that a codec's file would hold: what they are left out
by, and laid in layers."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A model and its file.

    Attributes:
        splats: The model, not snapped.
        codec: The format with its settings.
        grid: What the file can hold.
        data: The file.
        importance: ``(N,)`` what its layers are ordered by, where it has several and a score was asked for.
    """

    splats: GaussianModel
    codec: Codec
    grid: Grid
    data: bytes
    importance: Tensor | None = None


def encode(splats: GaussianModel, codec: Codec, grid: Grid, importance: Tensor | None = None) -> Encoded:
    """Encode a model. In a file in layers Gaussians are ordered by ``importance``, or else by the format's own idea."""
    ordering = None if importance is None else importance.detach().cpu().numpy()
    return Encoded(splats, codec, grid, ranks.once(lambda: grid.encode(splats, ordering)), importance)


def encode_by_score(splats: GaussianModel, codec: Codec, grid: Grid, score: Score) -> Encoded:
    """Encode a model with its Gaussians in the order of their score, where the file has layers."""
    in_layers = len(grid.layer_ends(len(splats))) > 1
    return encode(splats, codec, grid, score(splats, codec) if in_layers else None)


def encode_to_size(
    splats: GaussianModel, codec: Codec, grid: Grid, size: int, score: Score, *, keep_grid: bool = False
) -> Encoded:
    """The model in a file of at most ``size`` bytes, with as little taken from it as that takes.

    Formats with steps to choose get the finest steps that fit. Where there is no choice, or the coarsest steps do not
    fit, the Gaussians with the smallest scores are left out.

    Args:
        splats, codec, grid: The model and the grid it was fine-tuned on.
        keep_grid: Leave a model that fits on its grid as it is, also where finer steps would fit.

    Raises:
        UserError: not even a single Gaussian fits.
    """
    encoded = encode_by_score(splats, codec, grid, score)
    if keep_grid and len(encoded.data) <= size:
        return encoded
    # Steps are chosen for the order that is written, which changes the size by a few percent.
    importance = encoded.importance
    fitting = codec.for_size(splats, size, None if importance is None else importance.detach().cpu().numpy())
    if fitting is not None:
        encoded = encode(splats, fitting, _refit(fitting, splats, grid), importance)
    return encoded if len(encoded.data) <= size else _trim(encoded, size, score)


def _trim(encoded: Encoded, size: int, score: Score) -> Encoded:
    """Leave out as few Gaussians as bring the file to ``size`` bytes, the least important first."""
    splats, codec = encoded.splats, encoded.codec
    scores = score(splats, codec) if encoded.importance is None else encoded.importance

    def most_important(count: int) -> Encoded:
        indices = kept_after_pruning(scores, len(splats) - count)
        kept = splats.select(indices)
        return encode(kept, codec, _refit(codec, kept, encoded.grid), scores[indices])

    fits, too_many = 0, len(splats)  # Counts known to fit, and known not to.
    best: Encoded | None = None
    count = max(1, int(len(splats) * size / len(encoded.data)))
    while best is None or (fits < too_many - 1 and len(best.data) < (1 - SIZE_TOLERANCE / 2) * size):
        tried = most_important(count)
        taken = len(tried.data)
        if taken <= size:
            fits, best = count, tried
        else:
            too_many = count
        if too_many <= 1 and best is None:
            raise UserError(f"target_size: even one Gaussian takes {taken} bytes; choose a larger size")
        aimed = int(count * size / taken * (1 - SIZE_TOLERANCE / 4))
        count = min(max(aimed, fits + 1), too_many - 1) if fits < too_many - 1 else fits
    return best


def _refit(codec: Codec, splats: GaussianModel, grid: Grid) -> Grid:
    """A grid for other Gaussians or other steps, with the corrections of the layers of the one they had.

    Fewer Gaussians may have fewer layers, each of which is the same part of the whole: those of the smallest parts go.
    """
    refitted = codec.fit(splats)
    layers = len(refitted.layer_ends(len(splats)))
    refitted.corrections = grid.corrections[max(0, len(grid.corrections) - (layers - 1)) :]
    return refitted
