"""Where the photographs of a scene are, and what each view is called.

Whoever made the cameras knew the photographs by names that are not always those on this disk: another program has
written them as another file type, Windows has put backslashes between the folders, or they were in another folder.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from gsz.errors import UserError
from gsz.ply_header import abridged

log = logging.getLogger(__name__)

PathOrName = TypeVar("PathOrName", Path, PurePosixPath)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


class PhotographFolder:
    """Finds photographs by the names that the scene knows them by, in a folder that may hold another version of them.

    Args:
        folder: What the names are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_stem: dict[Path, dict[str, list[Path]]] = {}

    def find(self, names: Sequence[str], remedy: str, skip_missing: bool = False) -> dict[str, Path]:
        """The photographs of the names, in their order.

        Args:
            remedy: What to do about missing ones, for the message.
            skip_missing: Leave out the names whose photographs are missing, with a warning.

        Raises:
            UserError: photographs are missing, all of them in any case, or several could stand for one.
        """
        found = {name: self._find(name) for name in names}
        elsewhere = {name: self._find_elsewhere(name) for name, path in found.items() if path is None}
        taken = Counter([*found.values(), *elsewhere.values()])
        found |= {name: path for name, path in elsewhere.items() if taken[path] == 1}
        missing = [name for name, path in found.items() if path is None]
        if missing and not (skip_missing and len(missing) < len(found)):
            raise UserError(
                f"{self.folder / missing[0]}: there is no such photograph ({_count(missing, found)}); {remedy}"
                + ("" if skip_missing else ", or go on without these views with --skip_missing")
            )
        if missing:
            log.warning(
                "%s: going on without the views of missing photographs; %s", self.folder, _count(missing, found)
            )
        return {name: path for name, path in found.items() if path is not None}

    def _find(self, name: str) -> Path | None:
        """The photograph of that name, or of that name with a type, or the one that differs in type or case only."""
        for spelling in dict.fromkeys((name, _slashed(name))):
            path = self.folder / spelling
            for candidate in (path, *(path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES)):
                if _is_file(candidate):
                    return candidate
        others = self._stems(path.parent).get(_typeless(path).name.casefold(), [])
        others = [other for other in others if _typeless(other).name == _typeless(path).name] or others
        if len(others) > 1:
            listed = ", ".join(other.name for other in others)
            raise UserError(f"{path}: is missing, and {listed} could all stand for it; keep one of them")
        return others[0] if others else None

    def _find_elsewhere(self, name: str) -> Path | None:
        """The photograph of the end of a name, whose beginning is a folder of another computer or another folder."""
        parts = _slashed(name).split("/")
        ends = ("/".join(parts[first:]) for first in range(1, len(parts)))
        return next((path for end in ends if end and (path := self._find(end))), None)

    def _stems(self, folder: Path) -> dict[str, list[Path]]:
        """The photographs in a folder, by their names in small letters without type."""
        if folder not in self._by_stem:
            stems = defaultdict(list)
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if _typeless(path) != path and _is_file(path):
                    stems[_typeless(path).name.casefold()].append(path)
            self._by_stem[folder] = stems
        return self._by_stem[folder]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # Such as for a name that is longer than file systems have them.
        return False


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _typeless(path: PathOrName) -> PathOrName:
    """The path without its file type; what follows the last dot is none in names such as frame.0001 of Blender."""
    return path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path


def _count(missing: Sequence[str], all_names: Iterable[str]) -> str:
    total = len(list(all_names))
    return f"{len(missing)} of {total} {'is' if len(missing) == 1 else 'are'} missing: {abridged(missing)}"


def unique_view_names(paths: Iterable[str], source: Path) -> dict[str, str]:
    """A short name for each photograph: without folder and type, or with the folder where two would be the same.

    Raises:
        UserError: a photograph is listed twice, or two differ in nothing but their type.
    """
    listed = list(paths)
    twice = next((path for path, count in Counter(listed).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{source}: the photograph {twice!r} is listed twice; remove one")
    typeless = {path: _typeless(PurePosixPath(_slashed(path).replace("\t", " "))) for path in listed}
    names = {path: pure.name for path, pure in typeless.items()}
    if len(set(names.values())) < len(names):
        names = {path: str(pure).replace("/", "_") for path, pure in typeless.items()}
    bad = next((path for path, name in names.items() if name in ("", "..") or not name.isprintable()), None)
    if bad is not None:
        raise UserError(f"{source}: {bad!r} is not the name of a photograph; correct it")
    if len(set(names.values())) < len(names):
        same = Counter(names.values()).most_common(1)[0][0]
        raise UserError(f"{source}: two photographs share the name {same!r}; rename one")
    return names
