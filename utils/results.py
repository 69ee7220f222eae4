"""Files of results: a long comparison adds to one, and goes on from it when it is started again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsz.errors import UserError
from gsz.files import read_bytes, write_text


def read_results(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a file that :func:`write_results` wrote; an empty list where there is no file.

    Raises:
        UserError: the file is not one of results, or its rows belong to other settings.
    """
    if not path.exists():
        return []
    found, rows = _read(path)
    wanted = json.loads(json.dumps(settings))  # Tuples come back as lists.
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if names:
        raise UserError(f"{path}: was written with other settings ({', '.join(names)}); choose another --json")
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that :func:`write_results` wrote, whatever settings they belong to.

    Raises:
        UserError: the file cannot be read, or is not one of results.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        results = json.loads(read_bytes(path))
        return dict(results["settings"]), list(results["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a file of results that this script wrote; choose another one") from error


def write_results(path: Path, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the rows and the settings that they belong to, atomically."""
    write_text(path, json.dumps({"settings": settings, "rows": rows}, indent=1))
