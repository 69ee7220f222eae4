"""Checkpoints of a training: plain arrays in an uncompressed ``.npz``, nothing in them that could be executed.

Random numbers are functions of the seed and the iteration (see ``pretrain.py``), so no generator's state is kept.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsz.errors import UserError
from gsz.files import atomic_path
from pretraining.densify import ScreenStatistics
from pretraining.optimizer import Moments
from scene.gaussian_model import GaussianModel

_FILE_NAME = re.compile(r"chkpnt(\d+)\.npz")
_TENSOR_NAMES = tuple(field.name for field in fields(GaussianModel))
_MODELS = ("splats", "first", "second")


@dataclass(eq=False)
class TrainingState:
    """All that a training needs to go on: after ``iteration`` iterations, the model, Adam's memory, the statistics.

    ``settings`` is a JSON object of what the result depends on; see :func:`check_settings`.
    """

    iteration: int
    splats: GaussianModel
    moments: Moments
    statistics: ScreenStatistics
    settings: dict[str, Any]


def checkpoint_path(model_path: Path, iteration: int) -> Path:
    return model_path / f"chkpnt{iteration}.npz"


def latest_checkpoint(model_path: Path) -> Path | None:
    """The checkpoint of the highest iteration in a model directory, or ``None``."""
    if not model_path.is_dir():
        return None
    found = [(int(match[1]), path) for path in model_path.iterdir() if (match := _FILE_NAME.fullmatch(path.name))]
    return max(found)[1] if found else None


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write a checkpoint atomically."""
    arrays: dict[str, np.ndarray] = {
        "iteration": np.array(state.iteration, np.int64),
        "settings": np.frombuffer(json.dumps(state.settings, sort_keys=True).encode(), np.uint8),
        "steps": np.array([state.moments.steps[name] for name in _TENSOR_NAMES], np.int64),
    }
    for prefix, model in zip(_MODELS, (state.splats, state.moments.first, state.moments.second), strict=True):
        for name, tensor in model.named_parameters():
            arrays[f"{prefix}.{name}"] = tensor.detach().cpu().numpy()
    for name in ScreenStatistics.FIELDS:
        arrays[f"statistics.{name}"] = getattr(state.statistics, name).cpu().numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types the names as its own keywords too.


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> TrainingState:
    """Read a checkpoint.

    Raises:
        UserError: it is damaged, or not a checkpoint.
    """
    try:
        arrays = _read_arrays(path)
        models = [_read_model(arrays, prefix, device) for prefix in _MODELS]
        count = len(models[0])
        statistics = ScreenStatistics(count, device)
        for name in ScreenStatistics.FIELDS:
            values = _read_floats(arrays[f"statistics.{name}"], (count,))
            setattr(statistics, name, torch.from_numpy(values).to(device))
        steps = {name: int(step) for name, step in zip(_TENSOR_NAMES, arrays["steps"], strict=True)}
        settings = json.loads(arrays["settings"].tobytes())
        if not isinstance(settings, dict) or any(model.sh_rest.shape != models[0].sh_rest.shape for model in models):
            raise ValueError("its parts do not belong together")
        iteration = int(arrays["iteration"])
    except (OSError, EOFError, ValueError, TypeError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({error}); delete it to resume from an earlier one"
        ) from error
    models[0].check_finite(str(path))
    return TrainingState(iteration, models[0], Moments(models[1], models[2], steps), statistics, settings)


def check_settings(path: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise :class:`UserError` where a checkpoint was made with other settings than the training that would go on."""
    current = json.loads(json.dumps(current))
    different = sorted(name for name in saved.keys() | current.keys() if saved.get(name) != current.get(name))
    if different:
        raise UserError(
            f"{path}: made with another {', '.join(different)}; use the same options as before, "
            "or train into a new folder without --resume"
        )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed ``.npz``; no length is believed before the bytes for it are there."""
    file_size = path.stat().st_size
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > file_size:
                raise ValueError(f"{member.filename} is not stored as it should be")
            data = archive.read(member)
            stream = io.BytesIO(data)
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError(f"{member.filename} is of an unknown version")
            shape, column_order, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype.kind not in "fiu" or column_order:
                raise ValueError(f"{member.filename} holds something unexpected")
            arrays[member.filename.removesuffix(".npy")] = np.frombuffer(data, dtype, offset=stream.tell()).reshape(
                shape
            )
    return arrays


def _read_model(arrays: dict[str, np.ndarray], prefix: str, device: torch.device | str) -> GaussianModel:
    count = len(arrays[f"{prefix}.means"])
    rest = arrays[f"{prefix}.sh_rest"].shape[1:2]
    if rest not in ((0,), (3,), (8,), (15,)):
        raise ValueError(f"{prefix}.sh_rest has a wrong shape")
    shapes = {
        "means": (count, 3),
        "log_scales": (count, 3),
        "quaternions": (count, 4),
        "opacity_logits": (count, 1),
        "sh_dc": (count, 1, 3),
        "sh_rest": (count, *rest, 3),
    }
    return GaussianModel(
        **{name: torch.from_numpy(_read_floats(arrays[f"{prefix}.{name}"], shape)) for name, shape in shapes.items()}
    ).to(device)


def _read_floats(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"an array of {values.dtype} {values.shape} stands where float32 {shape} should")
    return values.copy()
