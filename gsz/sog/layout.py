"""What a file is made of: names of its members, numbers of its format."""

from __future__ import annotations

import math

VERSION = 2
META = "meta.json"
FILES = {
    "means": ["means_l.webp", "means_u.webp"],
    "quats": ["quats.webp"],
    "scales": ["scales.webp"],
    "sh0": ["sh0.webp"],
    "shN": ["shN_centroids.webp", "shN_labels.webp"],
}
"""The images of each entry of ``meta.json``, as this program calls them; a file may call them otherwise."""

ATTRIBUTES = {
    "means": "means",
    "quats": "quaternions",
    "scales": "log_scales",
    "sh0": "sh_dc and opacity_logits",
    "shN": "sh_rest",
}
"""What each entry of ``meta.json`` is called in this program."""

ZIP_MAGIC = b"PK\x03\x04"

PALETTE_ROW = 64
"""Palette vectors in a row of their image."""

MAX_PALETTE = 1 << 16
MEAN_STEPS = (1 << 16) - 1
ROTATION_UNIT = 255 * math.sqrt(2)
"""Rotation components are bytes ``b`` for ``(2 b - 255) / 255``, full scale being 1 / sqrt(2)."""

ROTATION_TAG = 252
"""The fourth byte of a rotation, plus the index of the largest component in the order w x y z."""
