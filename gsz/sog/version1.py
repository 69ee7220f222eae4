"""Version 1, in which bytes are evenly spaced over ranges in place of being entries of codebooks. Read, not written.

There is no description but its readers, in the PlayCanvas engine and in splat-transform. It has no number of its own:
``meta.json`` lacks ``version``.
"""

from __future__ import annotations

import numpy as np

from gsz.rounding.arrays import Bytes, Float32s, Float64s
from gsz.rounding.elementary import signed_exp
from gsz.rounding.rotations import restore_dropped
from gsz.sog.archive import Archive
from gsz.sog.layout import FILES, MEAN_STEPS, META, PALETTE_ROW, ROTATION_TAG, ROTATION_UNIT
from gsz.splats import MAX_SH_DEGREE, Splats, sh_coefficients


class Version1:
    """A file of version 1; attributes as of :class:`gsz.sog.reader.Reader`."""

    version = 1
    antialiased = False

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        shape = archive.section("means").get("shape")
        if not isinstance(shape, list) or not shape:
            raise archive.bad(f"{META} does not say how many Gaussians there are")
        self.count = archive.whole_number(shape[0], "count", 0, archive.most)
        keys = [key for key in FILES if key != "shN" or isinstance(archive.meta.get("shN"), dict)]
        self.files = {key: archive.files(key, len(FILES[key])) for key in keys}
        self.sh_degree = self.palette_size = 0
        if "shN" in keys:
            width, height = archive.image_size(self.files["shN"][0])
            widths = {PALETTE_ROW * sh_coefficients(degree): degree for degree in range(1, MAX_SH_DEGREE + 1)}
            if width not in widths:
                raise archive.bad(f"its palette is {width} pixels wide, as that of no SH degree is")
            self.sh_degree, self.palette_size = widths[width], PALETTE_ROW * height

    def splats(self) -> Splats[Float32s]:
        low, high = (self._image("means", index)[:, :3].astype(np.float64) for index in (0, 1))
        rotations = self._image("quats")
        if self.count and rotations[:, 3].min() < ROTATION_TAG:
            raise self.archive.bad("a rotation names no largest component")
        largest, others = rotations[:, 3].astype(np.int64) - ROTATION_TAG, 2 * rotations[:, :3].astype(np.int32) - 255
        colors = self._spread("sh0", self._image("sh0") / 255)
        return Splats.from_arrays(
            means=signed_exp(self._spread("means", (256 * high + low) / MEAN_STEPS)),
            log_scales=self._spread("scales", self._image("scales")[:, :3] / 255),
            quaternions=restore_dropped(largest, others, ROTATION_UNIT),
            opacity_logits=colors[:, 3],
            sh_dc=colors[:, :3],
            sh_rest=self._sh_rest(),
        )

    def _image(self, key: str, index: int = 0) -> Bytes:
        """``(N, 4)`` pixels of the Gaussians."""
        return self.archive.image(self.files[key][index], self.count)[: self.count]

    def _spread(self, key: str, shares: Float64s) -> Float64s:
        """Values at ``(N, channels)`` shares of the way through an entry's ranges."""
        section, channels = self.archive.section(key), shares.shape[1]
        lows, highs = (self.archive.numbers(section, end, channels, channels) for end in ("mins", "maxs"))
        return lows + (highs - lows) * shares

    def _sh_rest(self) -> Float64s:
        if self.sh_degree == 0:
            return np.zeros((self.count, 0, 3))
        coefficients, section = sh_coefficients(self.sh_degree), self.archive.section("shN")
        ends = {"range": [section.get("mins"), section.get("maxs")]}
        low, high = self.archive.numbers(ends, "range", 2, 2)
        labels = self._image("shN", 1).astype(np.int64)
        labels = labels[:, 0] | labels[:, 1] << 8
        if self.count and labels.max() >= self.palette_size:
            raise self.archive.bad("a label is past the end of the palette")
        entries = self.archive.image_of(self.files["shN"][0], PALETTE_ROW * coefficients, 1)[:, :3]
        return low + (high - low) / 255 * entries.reshape(-1, coefficients, 3)[labels]
