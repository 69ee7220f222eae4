"""What tests of several rooms share. Makers of models and scenes are in :mod:`tests.helpers` and its neighbors.

No package but pytest is imported here at once: tests of the package ``gsz`` run where nothing else is installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def messages_are_shown() -> None:
    """Functions that a test calls log what a user of the program would see; let it be printed, as programs do."""
    if importlib.util.find_spec("tqdm") is None:
        return  # Only the package gsz is tested here.
    from utils import cli

    cli.show_messages()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scene that is compressed in a second, and the folder of its checkpoint. Shared, so that no test writes to it.

    Tests that change a scene make one of their own, by :func:`tests.tiny_run.write_tiny_scene`.
    """
    from tests.tiny_run import write_tiny_scene

    return write_tiny_scene(tmp_path_factory.mktemp("tiny"))
