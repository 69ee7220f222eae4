"""Checkpoints of a training, to resume from.

Random numbers are functions of the seed and the iteration (see ``pretrain.py``), so no generator's state is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gsz.splats import PARAMETERS
from pretraining.checkpoint_files import REMEDY
from pretraining.densify import ScreenStatistics
from pretraining.optimizer import Moments
from scene.gaussian_model import GaussianModel
from utils.state import Arrays, damaged, floats, read_state, splats_from_arrays, splats_to_arrays, write_state

_MODELS = ("splats", "first", "second")


@dataclass(eq=False)
class TrainingState:
    """All that a training needs to go on: after ``iteration`` iterations, the model, Adam's memory, the statistics.

    ``settings`` is a JSON object of what the result depends on; see :func:`utils.state.check_settings`.
    """

    iteration: int
    splats: GaussianModel
    moments: Moments
    statistics: ScreenStatistics
    settings: dict[str, Any]


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write a checkpoint atomically."""
    description = {"iteration": state.iteration, "settings": state.settings, "steps": state.moments.steps}
    models = (state.splats, state.moments.first, state.moments.second)
    arrays: Arrays = {}
    for prefix, model in zip(_MODELS, models, strict=True):
        arrays |= splats_to_arrays(model, prefix)
    for name in ScreenStatistics.FIELDS:
        arrays[f"statistics.{name}"] = getattr(state.statistics, name).cpu().numpy()
    write_state(path, description, arrays)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> TrainingState:
    """Read a checkpoint.

    Raises:
        UserError: it is damaged, or not a checkpoint.
    """
    description, arrays = read_state(path, REMEDY)
    try:
        splats, first, second = (GaussianModel.of(splats_from_arrays(arrays, prefix)).to(device) for prefix in _MODELS)
        if any(model.sh_rest.shape != splats.sh_rest.shape for model in (first, second)):
            raise ValueError("its parts do not belong together")
        statistics = ScreenStatistics(len(splats), device)
        for name in ScreenStatistics.FIELDS:
            values = floats(arrays[f"statistics.{name}"], (len(splats),))
            setattr(statistics, name, torch.from_numpy(values).to(device))
        steps = {name: int(description["steps"][name]) for name in PARAMETERS}
        iteration, settings = int(description["iteration"]), dict(description["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, error, REMEDY) from error
    splats.check_finite(str(path))
    return TrainingState(iteration, splats, Moments(first, second, steps), statistics, settings)
