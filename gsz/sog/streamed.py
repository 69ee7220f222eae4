"""Levels of detail as SuperSplat and the PlayCanvas engine stream them: ``lod-meta.json`` beside a SOG in loose files
for every part of every level.

Space is cut into parts, each by halves of what is in it. A viewer loads for each part the level that its distance asks
for. The layout is described in ``docs/formats.md``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsz.contract import Codec
from gsz.errors import UserError
from gsz.files import write_bytes
from gsz.sog.layout import META
from gsz.splats import Splats

LEVELS_FILE = "lod-meta.json"
PART = 1 << 16
"""The most Gaussians of the finest level in a part: as many as a palette has vectors for."""


def write_levels(path: Path, levels: Sequence[Splats], codec: Codec, part: int = PART) -> int:
    """Write ``lod-meta.json`` and a folder for each part of each level beside it.

    Args:
        path: of ``lod-meta.json``; what it names is written first.
        levels: the finest first; each holds some of the Gaussians of the one before.
        codec: writes the parts, as SOG.
        part: the most Gaussians of the finest level in a part.

    Returns:
        How many bytes were written.

    Raises:
        UserError: there are no Gaussians, or a file cannot be written.
    """
    if not len(levels[0]):
        raise UserError(f"{path}: there are no Gaussians to be streamed; give a model that has some")
    writer = _Writer(path.parent, codec)
    tree = _tree(writer, list(levels), part)
    meta = {
        "version": 1,
        "asset": {"generator": "gsz"},
        "count": len(levels[0]),
        "counts": [len(level) for level in levels],
        "lodLevels": len(levels),
        "filenames": writer.names,
        "tree": tree,
    }
    data = json.dumps(meta, separators=(",", ":")).encode()
    write_bytes(path, data)
    return writer.bytes + len(data)


class _Writer:
    """Writes parts of levels, and remembers their names."""

    def __init__(self, folder: Path, codec: Codec):
        self._folder = folder
        self._codec = codec
        self._parts = 0
        self.names: list[str] = []
        self.bytes = 0

    def write(self, levels: list[Splats]) -> dict[str, dict[str, int]]:
        """A part in all its levels, of which some may have nothing there."""
        entries = {}
        for number, splats in enumerate(levels):
            if len(splats):
                name = f"{number}_{self._parts}"
                with zipfile.ZipFile(io.BytesIO(self._codec.fit(splats).encode(splats))) as members:
                    for member in members.namelist():
                        data = members.read(member)
                        write_bytes(self._folder / name / member, data)
                        self.bytes += len(data)
                entries[str(number)] = {"file": len(self.names), "offset": 0, "count": len(splats)}
                self.names.append(f"{name}/{META}")
        self._parts += 1
        return entries


def _tree(writer: _Writer, levels: list[Splats], part: int) -> dict[str, Any]:
    """The node of what is in ``levels``: a leaf where that is little, else one of two halves."""
    means = levels[0].means
    low, high = means.min(axis=0), means.max(axis=0)
    bound = {"min": low.tolist(), "max": high.tolist()}
    axis = int(np.argmax(high - low))
    middle = np.median(means[:, axis])
    below = [level.means[:, axis] < middle for level in levels]
    # Where most lie in one place there are no halves.
    if len(means) <= part or not below[0].any():
        return {"bound": bound, "lods": writer.write(levels)}
    halves = [[level.select(rows == side) for level, rows in zip(levels, below, strict=True)] for side in (True, False)]
    return {"bound": bound, "children": [_tree(writer, half, part) for half in halves]}
