"""How kernels in NVIDIA Warp are launched on PyTorch's tensors.

All memory comes from PyTorch and all work goes to its current stream, so that its allocator sees every byte and nothing
waits for another stream. Imported only where such kernels run: it needs the package ``warp-lang``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import warp as wp
from torch import Tensor

wp.config.log_level = wp.LOG_WARNING  # Else every module that is loaded says so on standard output.
wp.config.enable_cpu_blocks = True  # On the CPU, too, a block has as many lanes as its launch says.
wp.init()


@contextmanager
def on_stream_of(device: torch.device) -> Iterator[wp.Device]:
    """Let Warp's work go to PyTorch's current stream. Gives Warp's name of the device."""
    if device.type == "cuda":
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)), sync_enter=False) as stream:
            yield stream.device
    else:
        yield wp.device_from_torch(device)


def array(tensor: Tensor, dtype: Any = None) -> Any:
    """A tensor as a kernel takes it, of vectors along the last axis where ``dtype`` is a vector."""
    if tensor.numel() == 0:
        # Warp takes no empty array. In its place goes one of which no kernel reads anything.
        tensor = tensor.new_empty([max(1, side) for side in tensor.shape])
    return wp.from_torch(tensor, dtype=dtype, requires_grad=False, return_ctype=True)
