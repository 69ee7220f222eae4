"""Convolutions in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let cuDNN's convolutions compute in float32 within the block.

    PyTorch lets them round to TF32's ten bits by default, and what is computed here subtracts nearly equal numbers.
    """
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
