"""The packings by the number in a file."""

from __future__ import annotations

from gsz.contract import CodecError
from gsz.native.container import Header
from gsz.native.fast3dgs_packing import Fast3dgsPacking
from gsz.native.native_packing import NativePacking
from gsz.native.packing import Packing

PACKINGS: dict[int, type[Packing]] = {packing.number: packing for packing in (NativePacking, Fast3dgsPacking)}


def packing_of(header: Header, source: str) -> Packing:
    """The packing of a file.

    Raises:
        CodecError: it is unknown, or its parameters are out of range.
    """
    packing = PACKINGS.get(header.grid)
    if packing is None or len(header.column_sizes) != len(packing.layout) + 1:
        raise CodecError(f"{source}: grid {header.grid} is unknown; update gsz")
    try:
        return packing.unpack(header.parameters)
    except ValueError as error:
        raise CodecError(f"{source}: {error}; the file is damaged or was not written by gsz, copy it again") from error
