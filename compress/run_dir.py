"""The folder a run writes to: its journal, the models of its rounds, the compressed file, and the state to resume from.

What a folder holds of a finished run stays as it is until the next one there is complete: the next one then writes to
``resume/`` and moves everything into place at its end. The first run in a folder writes in place, so that its journal
can be watched. Only files that a run wrote are ever removed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.journal import FINAL, Journal, JournalRow, journal_csv, read_journal
from gsz import registry
from gsz.errors import UserError
from gsz.files import write_bytes, write_text
from gsz.splats import Splats
from scene import model_dir
from utils.state import check_settings, damaged, read_state, splats_from_arrays, splats_to_arrays, write_state

RECIPE_FILE = "recipe.yaml"
OPTIONS_FILE = "options.yaml"
JOURNAL_FILE = "journal.csv"
MADE_FILE = "made.yaml"
REPORT_FILE = "report.html"

_STATE_REMEDY = "start again with --overwrite"


@dataclass(frozen=True)
class RunState:
    """All that a run needs to go on after a stage.

    Attributes:
        settings: What the result depends on; a run is resumed only with the same.
        splats: The model, not snapped.
        journal: The rows so far; the last one's stage is the one that was completed.
        rounds_ended: Whether the last round has spent the budget, so that only the final stage is left.
    """

    settings: dict[str, Any]
    splats: Splats
    journal: Journal
    rounds_ended: bool = False


class RunDir:
    """The output folder of a run (``-m``).

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._staging = path / "resume"
        self._state_path = self._staging / "state.npz"

    @property
    def folder(self) -> Path:
        """Where the run in progress writes."""
        return self._staging if (self._staging / RECIPE_FILE).is_file() else self.path

    # --- What is there ---

    def is_finished(self) -> bool:
        """Whether the folder holds a finished run."""
        with suppress(UserError):
            journal = read_journal(self.path / JOURNAL_FILE)
            return journal[-1].stage == FINAL and bool(_compressed_files(self.path))
        return False

    def is_complete(self) -> bool:
        """Whether the folder holds a finished run and nothing of a later one."""
        return self.is_finished() and not self._staging.exists()

    def has_state(self) -> bool:
        """Whether there is an unfinished run here that can be resumed."""
        return self._state_path.is_file()

    def state_time(self) -> float:
        """When the state to resume from was written, in seconds since the epoch."""
        return self._state_path.stat().st_mtime

    def foreign_files(self) -> list[str]:
        """Names of what a run would write over where no run has written yet: a trained model, say."""
        if (self.path / RECIPE_FILE).is_file() or self._staging.exists() or self.is_finished():
            return []
        models = (self.path / "point_cloud").glob("iteration_*/point_cloud.ply")
        found = [self.path / name for name in _WRITTEN if (self.path / name).is_file()]
        found += [*_compressed_files(self.path), *_front_files(self.path), *models]
        return sorted(str(path.relative_to(self.path)) for path in found)

    def finished_journal(self) -> Journal:
        """The journal of the finished run in the folder.

        Raises:
            UserError: there is none.
        """
        if not self.is_finished():
            raise UserError(f"{self.path}: holds no finished run; run train.py without --pick first")
        return read_journal(self.path / JOURNAL_FILE)

    # --- Beginning ---

    def begin(self, recipe_yaml: str) -> Path:
        """Begin a run, and return where it writes: in place, or aside where a finished run is there."""
        self._remove_staging()
        folder = self._staging if self.is_finished() else self.path
        write_text(folder / RECIPE_FILE, recipe_yaml)
        return folder

    def save_state(self, state: RunState) -> None:
        """Write the journal and the state atomically, the state last: what it claims exists."""
        write_text(self.folder / JOURNAL_FILE, journal_csv(state.journal))
        description = {
            "settings": state.settings,
            "stages": len(state.journal),
            "rounds_ended": state.rounds_ended,
        }
        write_state(self._state_path, description, splats_to_arrays(state.splats, "splats"))

    def load_state(self, settings: dict[str, Any]) -> RunState:
        """Read the state back. Nothing is changed.

        Raises:
            UserError: it is damaged, or belongs to a run with other settings.
        """
        description, arrays = read_state(self._state_path, _STATE_REMEDY)
        journal = read_journal(self.folder / JOURNAL_FILE)
        try:
            saved, stages = dict(description["settings"]), int(description["stages"])
            if not 0 < stages <= len(journal):
                raise ValueError(f"{JOURNAL_FILE} has {len(journal)} rows, not {stages}")
            splats = splats_from_arrays(arrays, "splats")
            state = RunState(saved, splats, journal[:stages], bool(description["rounds_ended"]))
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(self._state_path, error, _STATE_REMEDY) from error
        remedy = "give the same settings, or start again with --overwrite"
        check_settings(self._state_path, saved, settings, remedy)
        return state

    # --- The front: the model of every round ---

    def add_to_front(self, row: JournalRow, suffix: str, data: bytes) -> None:
        """Keep the encoded model of a stage."""
        write_bytes(self.folder / "front" / front_name(row, suffix), data)

    def read_front(self, row: JournalRow, suffix: str, *, finished: bool = False) -> Splats:
        """The decoded model of a stage, of the run in progress or else of the finished one.

        Raises:
            UserError: its file is missing or damaged.
        """
        return registry.read((self.path if finished else self.folder) / "front" / front_name(row, suffix))

    # --- Ending ---

    def write_compressed(self, suffix: str, data: bytes) -> Path:
        """Write the compressed file, and return where it is."""
        path = self.folder / f"compressed{suffix}"
        write_bytes(path, data)
        return path

    def complete(self, journal: Journal, compressed: Path) -> Path:
        """Put the finished run in the place of the one before it, and forget the state to resume from.

        Args:
            journal: All rows.
            compressed: What :meth:`write_compressed` returned.

        Returns:
            Where the compressed file is now.

        Killed at any moment, this is done again from where it stopped by :meth:`settle`.
        """
        write_text(self.folder / JOURNAL_FILE, journal_csv(journal))
        self._state_path.unlink(missing_ok=True)
        if self.folder == self.path:
            self._remove_stale(journal, compressed)
        self.settle()
        return self.path / compressed.name

    def settle(self) -> None:
        """Move a run that is complete into place, if there is one that was not moved yet."""
        if self.has_state():
            return
        staged_journal = self._staging / JOURNAL_FILE
        if staged_journal.is_file() and (journal := read_journal(staged_journal))[-1].stage == FINAL:
            # The compressed file and the journal, in this order, are the last to go: while they are here, all that was
            # done before can be done again.
            compressed = _compressed_files(self._staging)
            for path in sorted(self._staging.rglob("*")):
                if path.is_file() and path not in (*compressed, staged_journal):
                    self._move(path)
            for path in compressed:
                self._remove_stale(journal, path)
                self._move(path)
            self._move(staged_journal)
        self._remove_staging()

    def _move(self, path: Path) -> None:
        """Move a file from the staging folder to its place."""
        target = self.path / path.relative_to(self._staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def _remove_stale(self, journal: Journal, compressed: Path) -> None:
        """Remove what an earlier run wrote that the one with this journal and compressed file did not write as well."""
        suffix = compressed.name.removeprefix("compressed")
        (self.path / REPORT_FILE).unlink(missing_ok=True)
        names = {compressed.name, *(front_name(row, suffix) for row in journal)}
        for path in [*_compressed_files(self.path), *_front_files(self.path)]:
            if path.name not in names:
                path.unlink()
        with suppress(UserError):
            earlier = read_journal(self.path / JOURNAL_FILE)[-1]
            if earlier.stage == FINAL and earlier.iteration != journal[-1].iteration:
                _remove_model(self.path, earlier.iteration)

    def _remove_staging(self) -> None:
        """Remove what a run left aside, with what was half-written where one was killed."""
        if not self._staging.is_dir():
            return
        leftovers = [self._state_path, *self._staging.glob(".state-*.npz"), *_front_files(self._staging)]
        leftovers += [*_compressed_files(self._staging), *self._staging.glob(".compressed-*")]
        leftovers += [self._staging / name for name in _WRITTEN]
        for path in leftovers:
            path.unlink(missing_ok=True)
        for path in (self._staging / "point_cloud").glob("iteration_*"):
            _remove_model(self._staging, int(path.name.partition("_")[2]))
        for folder in ("front", "point_cloud", ""):
            with suppress(OSError):  # It is not there, or holds something of somebody else's.
                (self._staging / folder).rmdir()


_WRITTEN = (
    RECIPE_FILE,
    OPTIONS_FILE,
    JOURNAL_FILE,
    MADE_FILE,
    model_dir.CAMERAS_FILE,
    model_dir.OPTIONS_FILE,
)
"""Names of the files that a run writes beside its models."""


def _compressed_files(folder: Path) -> list[Path]:
    return [path for kind in registry.FORMATS if (path := folder / f"compressed{kind.suffix}").is_file()]


def _front_files(folder: Path) -> list[Path]:
    written = re.compile(r"\.?(first|round_[0-9]+)[.-].*")
    return [
        path
        for path in (folder / "front").glob("*")
        if written.fullmatch(path.name) and registry.format_of_suffix(path) is not None
    ]


def _remove_model(folder: Path, iteration: int) -> None:
    """Remove the model of an iteration, and its folder where nothing else is in it."""
    path = model_dir.checkpoint_path(folder, iteration)
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def front_name(row: JournalRow, suffix: str) -> str:
    """The name of the file that holds a stage's model."""
    return row.stage.replace(" ", "_") + suffix
