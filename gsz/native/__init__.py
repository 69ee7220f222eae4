"""The compact codec ``.gsz``: integer grids for every parameter, learned entropy coding, layers of importance.

``docs/formats.md`` has the byte layout. The modules, from the model to the file:
:mod:`~gsz.native.settings` (quality presets), :mod:`~gsz.native.symbols` (parameters to integers),
:mod:`~gsz.native.native` and :mod:`~gsz.native.fast3dgs` (integers to columns),
:mod:`~gsz.native.streams` and :mod:`~gsz.native.harmonics` (columns to bits),
:mod:`~gsz.native.container` (the file) and :mod:`~gsz.native.codec`, which joins them. Beside them,
:mod:`~gsz.native.rate` estimates sizes and :mod:`~gsz.native.target` meets them.
"""

from gsz.native.codec import GszCodec, GszGrid
from gsz.native.settings import QUALITIES, GridSettings
from gsz.native.target import settings_for_size

__all__ = ["QUALITIES", "GridSettings", "GszCodec", "GszGrid", "settings_for_size"]
