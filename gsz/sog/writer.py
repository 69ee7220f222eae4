"""From integers to a zip of images."""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gsz.rounding.arrays import Bytes, Float32s
from gsz.rounding.codebooks import short_decimal
from gsz.sog.layout import FILES, META, PALETTE_ROW, ROTATION_TAG, VERSION
from gsz.sog.levels import Levels, Ranges

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that equal models make equal files."""


def write(levels: Levels, ranges: Ranges, order: npt.NDArray[np.int64], antialiased: bool = False) -> bytes:
    """The file of the Gaussians that ``order`` names, in its order."""
    columns = {
        "means_l.webp": levels.means & 255,
        "means_u.webp": levels.means >> 8,
        "quats.webp": np.concatenate([levels.others, levels.largest[:, None] + ROTATION_TAG], axis=1),
        "scales.webp": levels.scales,
        "sh0.webp": np.concatenate([levels.colors, levels.opacities[:, None]], axis=1),
    }
    meta: dict[str, Any] = {
        "version": VERSION,
        "asset": {"generator": "gsz"},
        "count": len(order),
        "means": {"mins": ranges.lows.tolist(), "maxs": ranges.highs.tolist(), "files": FILES["means"]},
        "scales": {"codebook": _decimals(ranges.scales), "files": FILES["scales"]},
        "quats": {"files": FILES["quats"]},
        "sh0": {"codebook": _decimals(ranges.colors), "files": FILES["sh0"]},
    }
    if antialiased:
        meta |= {"antialias": True, "model": "antialiased"}  # Readers look for the one or the other.
    images = {name: _write_webp(_image(numbers, order)) for name, numbers in columns.items()}
    if (palette := levels.palette) is not None:
        labels = palette.labels
        images["shN_centroids.webp"] = _write_webp(_palette_image(palette.entries))
        images["shN_labels.webp"] = _write_webp(
            _image(np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1), order)
        )
        meta["shN"] = {
            "count": len(palette.entries),
            "bands": palette.sh_degree,
            "codebook": _decimals(palette.codebook),
            "files": FILES["shN"],
        }
    return _write_zip({META: json.dumps(meta, separators=(",", ":")).encode(), **images})


def _image(columns: npt.NDArray[np.integer], order: npt.NDArray[np.int64]) -> Bytes:
    """``(height, width, channels)`` with a pixel for each row that ``order`` names; the rest is 0."""
    count = len(order)
    width = 4 * max(1, math.ceil(math.sqrt(count) / 4))
    height = 4 * max(1, math.ceil(count / width / 4))
    pixels = np.zeros((height * width, columns.shape[1]), np.uint8)
    pixels[:count] = columns.astype(np.uint8)[order]
    return pixels.reshape(height, width, -1)


def _palette_image(entries: Bytes) -> Bytes:
    """``(rows, 64 K, 3)``: the ``K`` coefficients of a vector are adjacent pixels, 64 vectors make a row."""
    count, numbers = entries.shape
    rows = math.ceil(count / PALETTE_ROW)
    padded = np.zeros((rows * PALETTE_ROW, numbers), np.uint8)
    padded[:count] = entries
    return padded.reshape(rows, PALETTE_ROW * numbers // 3, 3)


def _decimals(codebook: Float32s) -> list[float]:
    return [short_decimal(level) for level in codebook]


def _write_webp(pixels: Bytes) -> bytes:
    """A lossless image; ``exact`` keeps the colors where alpha, here a number like any other, is 0."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=50, method=3)
    return buffer.getvalue()


def _write_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)
    return buffer.getvalue()
