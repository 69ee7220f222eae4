"""What a file says about itself: a JSON object, which readers check and never execute.

Any key may be there. Those that :mod:`gsz` gives a meaning are described in ``docs/formats.md``.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from gsz.contract import CodecError
from gsz.errors import UserError

MOST_BYTES = (1 << 16) - 1


def pack_metadata(metadata: dict[str, Any]) -> bytes:
    """The bytes of a header's metadata: none where there is nothing to say.

    Raises:
        UserError: it is too long, or not made of what JSON has.
    """
    if not metadata:
        return b""
    try:
        packed = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"the metadata cannot be written as JSON ({error}); give numbers, texts, lists, objects"
        ) from None
    if len(packed) > MOST_BYTES:
        raise UserError(f"the metadata takes {len(packed)} bytes; shorten it to {MOST_BYTES} or fewer")
    return packed


def unpack_metadata(packed: bytes, source: str) -> dict[str, Any]:
    """The inverse of :func:`pack_metadata`.

    Raises:
        CodecError: it is no JSON object in UTF-8.
    """
    if not packed:
        return {}
    try:
        metadata = json.loads(packed.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CodecError(f"{source}: the metadata is no JSON object; the file was not written by gsz")
    return metadata


def _refuse(constant: str) -> NoReturn:
    """JSON has no NaN and no infinity."""
    raise ValueError(constant)
