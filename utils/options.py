"""Types of options that people write in several ways."""

from __future__ import annotations

import re

from gsz.errors import UserError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Bytes in "5MB", "800 kB" or "1200000"; units are powers of 1000.

    Raises:
        UserError: it is no positive size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmMgG]?[bB]?)\s*", text)
    unit = match[2].upper() if match else ""
    unit += "B" if unit in ("K", "M", "G") else ""
    size = int(float(match[1]) * _UNITS[unit]) if match else 0
    if size <= 0:
        raise UserError(f"size {text!r}: give a positive number with B, kB, MB or GB, such as 5MB")
    return size
