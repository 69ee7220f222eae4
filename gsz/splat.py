"""antimatter15's ``.splat``: 32 bytes a Gaussian and nothing else, without view-dependent color. Read, not written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.contract import Codec, CodecError
from gsz.rounding.elementary import log
from gsz.rounding.opacity import LOGITS_OF_BYTES
from gsz.splats import SH_C0, Splats

RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("wxyz", "u1", 4)])
LEAST_SCALE = 1e-30
"""Standard deviations that underflowed to 0 are read as this."""

PLAUSIBLE = 1e7
"""Positions and scales beyond this are taken for a sign that a file without magic number is of another format."""


@dataclass(frozen=True)
class SplatCodec(Codec):
    """The format of the first web viewers: float32 positions and scales, 8-bit color, opacity and rotation."""

    name = "splat"
    suffix = ".splat"
    writable = False

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """The format has no magic number: a file is of it if its first records are what splats can be."""
        rows = np.frombuffer(head, RECORD, len(head) // RECORD.itemsize)
        if len(head) % RECORD.itemsize or not len(rows):
            return False
        with np.errstate(invalid="ignore"):
            placed = (np.abs(rows["means"]) < PLAUSIBLE).all()
            sized = ((rows["scales"] > LEAST_SCALE) & (rows["scales"] < PLAUSIBLE)).all()
        return bool(placed and sized)

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        rows = _records(data, source)
        by_attribute = {name: rows[name].nbytes for name in RECORD.names or ()}
        return {"format": self.name, "version": None, "count": len(rows), "sh_degree": 0, "bytes": by_attribute}

    def decode(self, data: bytes, source: str = "<bytes>") -> Splats:
        rows = _records(data, source)
        scales, means = rows["scales"], rows["means"]
        with np.errstate(invalid="ignore"):
            sound = np.isfinite(means).all(axis=1) & np.isfinite(scales).all(axis=1) & (scales >= 0).all(axis=1)
        if 2 * np.count_nonzero(sound) < len(rows):
            raise CodecError(f"{source}: corrupted or no .splat file, its positions and scales are no such numbers")
        # What is no number is left to be dropped with a line that counts it, and so are records of zeros, which pad.
        blank = ~rows.view(np.uint8).reshape(len(rows), -1).any(axis=1)
        lengths = np.where(scales >= 0, np.maximum(scales.astype(np.float64), LEAST_SCALE), np.nan)
        quaternions = (rows["wxyz"].astype(np.float32) - 128) / 128
        splats: Splats = Splats.from_arrays(
            means=means,
            log_scales=log(lengths),
            quaternions=np.where(
                quaternions.any(axis=1, keepdims=True), quaternions, np.array([1, 0, 0, 0], np.float32)
            ),
            opacity_logits=LOGITS_OF_BYTES[rows["rgba"][:, 3]],
            sh_dc=(rows["rgba"][:, :3] / 255 - 0.5) / SH_C0,
            sh_rest=np.zeros((len(rows), 0, 3), np.float32),
        )
        return splats.map(lambda array: array * ~blank.reshape(-1, *[1] * (array.ndim - 1))) if blank.any() else splats


def _records(data: bytes, source: str) -> npt.NDArray[np.void]:
    if len(data) % RECORD.itemsize:
        raise CodecError(f"{source}: truncated or no .splat file, {len(data)} bytes are not a multiple of 32")
    return np.frombuffer(data, RECORD)
