"""What the formats' grids share: rounding numbers to levels, what levels stand for, and codebooks.

Every value a decoder returns comes from a table or from arithmetic on the stored integers, and ``snap`` takes the same
path, so that the law of :mod:`gsz.contract` holds by construction: rounding decides the integers, and the integers
alone decide the values.

Functions take NumPy arrays. Most take PyTorch tensors as well, so that a model on a GPU stays there; both give the same
bits. What is slow as a chain of array operations is written twice for that: as a kernel here, compiled without
fast-math, and in tensors in :mod:`gsz.rounding.tensors`, the one module that imports PyTorch. A model of tensors on the
CPU shares its memory with NumPy arrays and is computed as these.
"""
