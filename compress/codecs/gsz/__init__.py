"""The compact codec ``.gsz``: integer grids for every parameter, learned entropy coding, layers of importance.

``docs/formats.md`` has the byte layout. The modules, from the model to the file:
:mod:`~compress.codecs.gsz.settings` (quality presets), :mod:`~compress.codecs.gsz.symbols` (parameters to integers),
:mod:`~compress.codecs.gsz.native` and :mod:`~compress.codecs.gsz.fast3dgs` (integers to columns),
:mod:`~compress.codecs.gsz.streams` and :mod:`~compress.codecs.gsz.harmonics` (columns to bits),
:mod:`~compress.codecs.gsz.container` (the file) and :mod:`~compress.codecs.gsz.codec`, which joins them. Beside them,
:mod:`~compress.codecs.gsz.rate` estimates sizes and :mod:`~compress.codecs.gsz.target` meets them.
"""

from compress.codecs.gsz.codec import GszCodec, GszGrid
from compress.codecs.gsz.settings import QUALITIES, GridSettings
from compress.codecs.gsz.target import settings_for_size

__all__ = ["QUALITIES", "GridSettings", "GszCodec", "GszGrid", "settings_for_size"]
