"""What the scripts that compare runs of ``train.py`` share."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import _root  # noqa: F401

from compress.recipe import Recipe
from gsz.errors import UserError
from programs.options import CompressOptions, parse_compress


@dataclass
class Experiment(CompressOptions):
    """Options of a comparison whose runs take the same number of iterations."""

    iterations: int = 3000
    """Iterations of each run."""


OptionsT = TypeVar("OptionsT", bound=CompressOptions)
ExperimentT = TypeVar("ExperimentT", bound=Experiment)


def parse(arguments: Sequence[str] | None, kind: type[OptionsT], *more: str) -> OptionsT:
    """The command line of a comparison on test views, with ``more`` options; by default that of the process."""
    return parse_compress([*(sys.argv[1:] if arguments is None else arguments), "--eval", *more], kind)


def parse_experiment(arguments: Sequence[str] | None, kind: type[ExperimentT]) -> ExperimentT:
    """As :func:`parse`, with iterations.

    Raises:
        UserError: there are none.
    """
    options = parse(arguments, kind)
    if options.iterations < 1:
        raise UserError(f"--iterations {options.iterations}: must be at least 1")
    return options


def without_budget(recipe: Recipe) -> Recipe:
    """The recipe with neither limits of quality nor targets, whose last round is what its final stage begins with."""
    return replace(
        recipe,
        keep_ratio=None,
        target_count=None,
        target_size=None,
        max_psnr_drop=math.inf,
        max_ssim_drop=math.inf,
        max_lpips_rise=math.inf,
        end_with="last",
    )
