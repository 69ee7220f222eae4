"""What all tests share."""

from __future__ import annotations

import pytest

from utils import cli


@pytest.fixture(autouse=True, scope="session")
def messages_are_shown() -> None:
    """Functions that a test calls log what a user of the program would see; let it be printed, as programs do."""
    cli.show_messages()
