"""Read, write and convert files of 3D Gaussian Splatting models.

    import gsz

    splats = gsz.read("garden.spz")                    # six NumPy arrays: splats.means, splats.sh_rest, ...
    gsz.write("garden.gsz", splats, "gsz:quality=low")
    gsz.convert("garden.gsz", "garden.ply")

The formats are listed in :mod:`gsz.registry`, and by the command ``gsz formats``. Every error that a user can mend is a
:class:`UserError` of one line. PyTorch is needed by none of this, only by what rounds models while they are trained.

Names are imported when they are first asked for: a program that answers Ctrl-C from its first moment must not wait for
NumPy before.
"""

from __future__ import annotations

TYPE_CHECKING = False  # That of typing takes a while to be imported.
if TYPE_CHECKING:
    from typing import Any

    from gsz import registry as registry
    from gsz import splats as splats
    from gsz.contract import CodecError
    from gsz.conversion import Written, convert
    from gsz.errors import UserError
    from gsz.registry import codec, info, read, write
    from gsz.splats import Splats

__all__ = ["CodecError", "Splats", "UserError", "Written", "codec", "convert", "info", "read", "write"]
__version__ = "0.1.0"

_MODULES = {
    "CodecError": "contract",
    "Splats": "splats",
    "UserError": "errors",
    "Written": "conversion",
    "convert": "conversion",
}
_SUBMODULES = ("registry", "splats")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'registry')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
