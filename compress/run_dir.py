"""What a run writes: its state after every stage, the journal, the compressed file and the vanilla model directory."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from compress.adam_memory import Moments
from gsz.errors import UserError
from gsz.files import atomic_path, read_bytes, write_bytes, write_text
from quality.metrics import ViewMetrics
from scene.gaussian_model import GaussianModel

_STATE_NAME = "state.npz"
_FIRST, _SECOND = "first.", "second."


@dataclass(frozen=True)
class JournalRow:
    """One row of ``journal.csv``: the model after a stage, measured on what was decoded from its bytes.

    Attributes:
        stage: "uncompressed", "first", "round 1", ..., "final".
        iteration: Iterations of fine-tuning so far.
        gaussians: How many there are.
        psnr, ssim, lpips: Means over the views the run stops on; ``lpips`` is ``None`` where it is not measured.
        bytes: Size of the encoded model (of the checkpoint's file for "uncompressed").
        score_seconds, finetune_seconds, encode_seconds, evaluate_seconds: Time of the stage's phases.
    """

    stage: str
    iteration: int
    gaussians: int
    psnr: float
    ssim: float
    bytes: int
    score_seconds: float = 0.0
    finetune_seconds: float = 0.0
    encode_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    lpips: float | None = None

    @property
    def metrics(self) -> ViewMetrics:
        return ViewMetrics(self.psnr, self.ssim, self.lpips)


@dataclass(frozen=True)
class RunState:
    """All that a run needs to go on after a stage.

    Attributes:
        settings: What the result depends on; a run is resumed only with the same.
        splats: The model, not snapped.
        journal: The rows so far; the last one's stage is the one that was completed.
        moments: What Adam remembers of the model, where the recipe keeps it.
        rounds_ended: Whether the last round has spent the budget, so that only the final stage is left.
    """

    settings: dict[str, Any]
    splats: GaussianModel
    journal: list[JournalRow]
    rounds_ended: bool = False
    moments: Moments | None = None


class RunDir:
    """The output directory of a run (``-m``)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compressed_path(self, suffix: str) -> Path:
        return self.path / f"compressed{suffix}"

    @property
    def _state_path(self) -> Path:
        return self.path / "resume" / _STATE_NAME

    def has_state(self) -> bool:
        """Whether there is an unfinished run here."""
        return self._state_path.is_file()

    def save_state(self, state: RunState) -> None:
        """Write the state and the journal atomically, the state last: what it claims exists."""
        self.write_journal(state.journal)
        description = {
            "settings": state.settings,
            "journal": [asdict(row) for row in state.journal],
            "rounds_ended": state.rounds_ended,
        }
        arrays = _arrays(state.splats)
        if state.moments is not None:
            description["adam_steps"] = state.moments.steps
            arrays |= _arrays(state.moments.first, _FIRST) | _arrays(state.moments.second, _SECOND)
        with atomic_path(self._state_path) as temporary, temporary.open("wb") as file:
            arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
            np.savez(file, allow_pickle=False, **arrays)

    def write_journal(self, rows: list[JournalRow]) -> None:
        """Write ``journal.csv``."""
        write_text(self.path / "journal.csv", journal_csv(rows))

    def load_state(self, settings: dict[str, Any]) -> RunState:
        """Read the state back.

        Raises:
            UserError: it is damaged, or belongs to a run with other settings.
        """
        try:
            with np.load(self._state_path, allow_pickle=False) as file:
                description = json.loads(file["description"].tobytes())
                splats = _model(file)
                moments = None
                if "adam_steps" in description:
                    moments = Moments(_model(file, _FIRST), _model(file, _SECOND), int(description["adam_steps"]))
            journal = [JournalRow(**row) for row in description["journal"]]
            state = RunState(description["settings"], splats, journal, bool(description["rounds_ended"]), moments)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{self._state_path}: damaged ({error}); start again without --resume") from error
        # Through JSON and back, so that tuples and lists compare equal.
        wanted = json.loads(json.dumps(settings))
        for name, value in wanted.items():
            if state.settings.get(name) != value:
                raise UserError(
                    f"{self._state_path}: the run was started with {name} = {state.settings.get(name)!r}, "
                    f"not {value!r}; give the same settings or start again without --resume"
                )
        return state

    def clear_state(self) -> None:
        """Forget the state of a finished run, and what was left half-written where one was killed."""
        if self._state_path.parent.is_dir():
            shutil.rmtree(self._state_path.parent)

    def write_compressed(self, suffix: str, data: bytes) -> Path:
        """Write the compressed file, and remove files of other formats that an earlier run left."""
        path = self.compressed_path(suffix)
        write_bytes(path, data)
        for other in self.path.glob("compressed.*"):
            if other != path:
                other.unlink()
        return path


def _arrays(model: GaussianModel, prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + name: tensor.detach().cpu().numpy() for name, tensor in model.named_parameters()}


def _model(arrays: Mapping[str, np.ndarray], prefix: str = "") -> GaussianModel:
    return GaussianModel.from_arrays(**{field.name: arrays[prefix + field.name] for field in fields(GaussianModel)})


def read_journal(path: Path) -> list[JournalRow]:
    """The rows of a ``journal.csv``.

    Raises:
        UserError: the file is missing or damaged.
    """
    text = read_bytes(path).decode(errors="replace")
    readers: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "str": str,
        "float | None": lambda text: float(text) if text else None,
    }
    kinds = {field.name: readers[str(field.type)] for field in fields(JournalRow)}
    try:
        return [
            JournalRow(**{name: kind(row.get(name, "")) for name, kind in kinds.items()})
            for row in csv.DictReader(io.StringIO(text))
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a journal that train.py wrote ({error}); run without --pick") from error


def journal_csv(rows: list[JournalRow]) -> str:
    """The journal as CSV with a header, seconds to the tenth."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(JournalRow))
    for row in rows:
        values = asdict(row)
        formatted = {
            name: f"{value:.1f}" if name.endswith("_seconds") else f"{value:.4f}" if isinstance(value, float) else value
            for name, value in values.items()
        }
        writer.writerow(formatted.values())
    return text.getvalue()
