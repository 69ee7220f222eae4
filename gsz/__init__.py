"""Read, write and convert files of 3D Gaussian Splatting models.

    import gsz

    splats = gsz.read("garden.spz")                    # six NumPy arrays: splats.means, splats.sh_rest, ...
    gsz.write("garden.gsz", splats, "gsz:quality=low")
    gsz.convert("garden.gsz", "garden.ply")

The formats are listed in :mod:`gsz.registry`, and by the command ``gsz formats``. Every error that a user can mend is a
:class:`UserError` of one line. PyTorch is needed by none of this, only by what rounds models while they are trained.
"""

from gsz.contract import CodecError
from gsz.conversion import Written, convert
from gsz.errors import UserError
from gsz.registry import codec, info, read, write
from gsz.splats import Splats

__all__ = ["CodecError", "Splats", "UserError", "Written", "codec", "convert", "info", "read", "write"]
__version__ = "0.1.0"
