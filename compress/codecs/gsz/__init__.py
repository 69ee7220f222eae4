"""The compact codec ``.gsz``: integer grids for every parameter, learned entropy coding, layers of importance.

``docs/formats.md`` has the byte layout. The modules, from the model to the file:
:mod:`~compress.codecs.gsz.settings` (quality presets), :mod:`~compress.codecs.gsz.symbols` (parameters to integers),
:mod:`~compress.codecs.gsz.streams` (integers to bits), :mod:`~compress.codecs.gsz.container` (the file) and
:mod:`~compress.codecs.gsz.codec`, which joins them.
"""

from compress.codecs.gsz.codec import GszCodec, GszGrid

__all__ = ["GszCodec", "GszGrid"]
