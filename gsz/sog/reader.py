"""From the images of version 2 to integers, and a reader for each version."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gsz.contract import CodecError
from gsz.rounding.arrays import Float32s
from gsz.rounding.codebooks import CODEBOOK_SIZE
from gsz.sog.archive import Archive
from gsz.sog.layout import FILES, MAX_PALETTE, PALETTE_ROW, ROTATION_TAG, VERSION
from gsz.sog.levels import Levels, PaletteLevels, Ranges
from gsz.sog.version1 import Version1
from gsz.splats import MAX_SH_DEGREE, Splats, sh_coefficients

LARGEST_LOG = 89
"""Logarithms of positions beyond this are no float32 numbers."""


def open_reader(data: bytes, source: str) -> Reader | Version1:
    """A reader of the file's version, its ``meta.json`` checked; nothing else is read until asked for.

    Raises:
        CodecError: the file is damaged, or of a version that is not known.
    """
    archive = Archive(data, source)
    version = archive.meta.get("version", 1)
    if version not in (1, VERSION):
        raise CodecError(f"{source}: SOG version {str(version)[:20]} is unknown; versions 1 and {VERSION} can be read")
    return Reader(archive) if version == VERSION else Version1(archive)


class Reader:
    """A file of version 2.

    Attributes:
        count, sh_degree, palette_size: Of the model.
        files: The names of the images of each entry of ``meta.json``.
        antialiased: See :class:`gsz.splats.Splats`.
    """

    version = VERSION

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        meta = archive.meta
        self.count = archive.whole(meta, "count", 0, archive.most)
        keys = [key for key in FILES if key != "shN" or isinstance(meta.get("shN"), dict)]
        self.files = {key: archive.files(key, len(FILES[key])) for key in keys}
        means = archive.section("means")
        lows, highs = (archive.numbers(means, key, 3, 3) for key in ("mins", "maxs"))
        if np.abs([lows, highs]).max() > LARGEST_LOG:
            raise archive.bad("its range of positions is beyond float32")
        scales, colors = (self._codebook(archive.section(key)) for key in ("scales", "sh0"))
        self._ranges = Ranges(lows, highs, scales, colors)
        self.sh_degree = self.palette_size = 0
        if "shN" in keys:
            harmonics = archive.section("shN")
            self.sh_degree = archive.whole(harmonics, "bands", 1, MAX_SH_DEGREE)
            self.palette_size = archive.whole(harmonics, "count", 1, MAX_PALETTE)
            self._sh_codebook = self._codebook(harmonics)
        # As the specification first called it, and as splat-transform writes it.
        self.antialiased = meta.get("antialias") is True or meta.get("model") == "antialiased"

    def splats(self) -> Splats[Float32s]:
        count = self.count
        low, high = (self.archive.image(name, count)[:count, :3] for name in self.files["means"])
        rotations = self.archive.image(self.files["quats"][0], count)[:count]
        scales = self.archive.image(self.files["scales"][0], count)[:count, :3]
        colors = self.archive.image(self.files["sh0"][0], count)[:count]
        if count and rotations[:, 3].min() < ROTATION_TAG:
            raise self.archive.bad("a rotation names no largest component")
        for indices, codebook in ((scales, self._ranges.scales), (colors[:, :3], self._ranges.colors)):
            if count and indices.max() >= len(codebook):
                raise self.archive.bad("an index is past the end of its codebook")
        levels = Levels(
            means=low | high.astype(np.int32) << 8,
            largest=rotations[:, 3].astype(np.int64) - ROTATION_TAG,
            others=rotations[:, :3].astype(np.int32),
            scales=scales,
            colors=colors[:, :3],
            opacities=colors[:, 3],
            palette=self._palette(),
        )
        return levels.values(self._ranges.tables().here).replace(antialiased=self.antialiased)

    def _palette(self) -> PaletteLevels | None:
        if self.sh_degree == 0:
            return None
        coefficients = sh_coefficients(self.sh_degree)
        centroids, label_image = self.files["shN"]
        rows = math.ceil(self.palette_size / PALETTE_ROW)
        entries = self.archive.image_of(centroids, PALETTE_ROW * coefficients, rows)[:, :3]
        entries = entries.reshape(-1, 3 * coefficients)[: self.palette_size]
        pixels = self.archive.image(label_image, self.count)[: self.count].astype(np.int64)
        labels = pixels[:, 0] | pixels[:, 1] << 8
        if entries.max() >= len(self._sh_codebook):
            raise self.archive.bad("a palette entry is past the end of its codebook")
        if self.count and labels.max() >= self.palette_size:
            raise self.archive.bad("a label is past the end of the palette")
        return PaletteLevels(self._sh_codebook, entries, labels)

    def _codebook(self, section: dict[str, Any]) -> Float32s:
        return self.archive.numbers(section, "codebook", 1, CODEBOOK_SIZE).astype(np.float32)
