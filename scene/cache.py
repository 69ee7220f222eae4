"""Images kept in memory within a bound."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

ASSUMED_FREE_BYTES = 8 * 10**9
"""Taken to be free where the system does not say."""


class ImageCache:
    """Tensors by key, up to a number of bytes.

    What does not fit any more is made again whenever it is asked for, and nothing that is kept makes room for it: views
    come round once an epoch, in random order, so whichever were asked for last are the least likely to be the next.

    Args:
        limit_bytes: Upper bound of what is kept. Zero keeps nothing.
        device: Where it is kept.

    Attributes:
        held_bytes: Sum of what is kept.
    """

    def __init__(self, limit_bytes: int, device: torch.device | str = "cpu") -> None:
        self.limit_bytes = limit_bytes
        self.device = torch.device(device)
        self.held_bytes = 0
        self._kept: dict[Hashable, Tensor | _Pages] = {}

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, made if it is not kept; not to be changed."""
        kept = self._kept.get(key)
        if kept is None:
            made = make()
            if self.held_bytes + made.nbytes > self.limit_bytes:
                return made
            on_heap = self.device.type == "cpu" and not made.is_pinned() and made.numel() > 0
            kept = self._kept[key] = _Pages(made) if on_heap else made.to(self.device)
            self.held_bytes += made.nbytes
        return kept.tensor() if isinstance(kept, _Pages) else kept


class _Pages:
    """A tensor on the CPU in pages of its own, outside of the heap.

    The heap of glibc is where the tensors of training are, large and soon gone. Whatever is kept longer, and be it the
    head of a tensor, comes to lie in the hole that one of them leaves, into which the next then does not fit: 250
    photographs of 5 MB would take four times that.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._pages = mmap.mmap(-1, tensor.nbytes)
        self._dtype, self._shape = tensor.dtype, tuple(tensor.shape)
        self.tensor().copy_(tensor)

    def tensor(self) -> Tensor:
        return torch.frombuffer(self._pages, dtype=self._dtype).view(self._shape)


def half_of_free_memory(device: torch.device | str = "cpu") -> int:
    """Half of the bytes that could be allocated on a device now, within the limits of a container."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = min([_free_on_machine(), *_free_in_container()])
    return max(0, free) // 2


def _free_on_machine() -> int:
    """Memory that is free, or that the system would give back from its own caches."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):  # macOS has the size of the memory only, Windows neither.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return ASSUMED_FREE_BYTES


_CONTAINER_FILES = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where either version of Linux' control groups has the limit of a container's memory, its use, and the name in
``memory.stat`` of the part of that use that is copies of files, which it would give back."""


def _free_in_container() -> list[int]:
    """What the limits of a container leave, one number a limit; the limit may be the word "max"."""
    free = []
    for folder, limit, used, files in _CONTAINER_FILES:
        with suppress(OSError, ValueError):
            read = Path(folder)
            statistics = dict(line.split() for line in (read / "memory.stat").read_text().splitlines())
            in_use = int((read / used).read_text()) - int(statistics.get(files, 0))
            free.append(int((read / limit).read_text()) - in_use)
    return free
