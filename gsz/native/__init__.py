"""The compact codec ``.gsz``: integer grids for every parameter, learned entropy coding, layers of importance.

``docs/formats.md`` has the byte layout. The modules, from the model to the file and in the order in which they import
each other:

- :mod:`~gsz.native.settings` has the quality presets, :mod:`~gsz.native.steps` the numbers of a grid,
  :mod:`~gsz.native.symbols` turns parameters into symbols and back, and :mod:`~gsz.native.fit` chooses the steps.
- A *packing* makes columns of symbols: :mod:`~gsz.native.layout` says what a column is,
  :mod:`~gsz.native.packing` what a packing is, and :mod:`~gsz.native.native_packing` and
  :mod:`~gsz.native.fast3dgs_packing` are the two that there are.
- :mod:`~gsz.native.layer_coding` turns columns into streams of bits and back, :mod:`~gsz.native.sh_coding` does so for
  harmonics, :mod:`~gsz.native.layers` orders the Gaussians, and :mod:`~gsz.native.container` is the file.
- :mod:`~gsz.native.grid` and :mod:`~gsz.native.codec` join them, and :mod:`~gsz.native.target` meets a size.
- Fine-tuning alone needs PyTorch: :mod:`~gsz.native.snap`, :mod:`~gsz.native.gpu` and :mod:`~gsz.native.rate`, whose
  kernels for the CPU are in :mod:`~gsz.native.price`.
"""

from gsz.native.codec import GszCodec
from gsz.native.grid import GszGrid
from gsz.native.settings import QUALITIES, GridSettings
from gsz.native.target import settings_for_size

__all__ = ["QUALITIES", "GridSettings", "GszCodec", "GszGrid", "settings_for_size"]
