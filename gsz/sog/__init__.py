"""PlayCanvas' ``.sog``, version 2: lossless WebP images of bytes and a ``meta.json``, in one zip.

Written after the public specification (developer.playcanvas.com, "The SOG Format") and checked against files and
readers of others. A pixel of each image is a Gaussian; spherical harmonics are one palette of vectors for all
Gaussians. ``docs/formats.md`` has the layout.
"""

from gsz.sog.codec import SogCodec
from gsz.sog.grid import SogGrid

__all__ = ["SogCodec", "SogGrid"]
