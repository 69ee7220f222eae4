"""Niantic's ``.spz``: one byte or three a number, in planes, under gzip (versions 1 to 3) or zstd (version 4).

Read from the description in Niantic's public repository (github.com/nianticlabs/spz) and checked against files and
readers of others. The format's axes are right-up-back where INRIA's are right-down-front, so the second and third axis
change sign, and with them the rotations and some of the spherical harmonics. Many programs leave INRIA's axes in its
files, and nothing in a file says so: that is what the setting ``axes`` is for. ``docs/formats.md`` has the layout.
"""

from gsz.spz.codec import SpzCodec
from gsz.spz.grid import SpzGrid
from gsz.spz.layout import HEADER, plane_widths

__all__ = ["HEADER", "SpzCodec", "SpzGrid", "plane_widths"]
