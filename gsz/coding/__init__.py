"""Entropy coding of integers, and the order in which Gaussians are coded.

The coder is Duda's rANS (arXiv:1311.2540) with Giesen's interleaving (arXiv:1402.3392): eight 32-bit states take
turns, so that a processor works on eight symbols at once, and states are renormalized by 16-bit words. Symbol ``i``
of a stream belongs to state ``i mod 8``. Frequencies sum to 4096.

No tables are stored. Symbols come in chunks; after each chunk encoder and decoder count what passed and rebuild the
tables of those contexts that have learnt enough since. A context's distribution is its own counts plus a little of
the distribution of all contexts together, which makes contexts cheap in small files. Everything is integer
arithmetic, so every machine decodes the same symbols.

Integers of any size become *tokens* below 256 and raw bits (:mod:`gsz.coding.alphabet`). :mod:`gsz.coding.tables` has
the distributions, :mod:`gsz.coding.encoder` and :mod:`gsz.coding.decoder` the two directions, and
:mod:`gsz.coding.morton` the curve along which neighbors in space become neighbors in the file.
"""
