"""What each view should look like, kept with the statistics that SSIM needs of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from quality.ssim import SSIMTarget


class _Named(Protocol):
    @property
    def name(self) -> str: ...


View = TypeVar("View", bound=_Named)

DEFAULT_TARGET_MEMORY = 2_000_000_000
"""Bytes of photographs with their SSIM statistics that are kept; beyond that they are computed again."""


class TargetCache(Generic[View]):
    """What each view should look like, with the statistics that SSIM needs of it, within a memory bound.

    The least recently used views are dropped first.

    Args:
        load: Gives a view's photograph, ``(H, W, 3)`` float32 in [0, 1].
        memory_limit_bytes: Bound of what is kept.
    """

    def __init__(self, load: Callable[[View], Tensor], memory_limit_bytes: int = DEFAULT_TARGET_MEMORY) -> None:
        self._load = load
        self._limit = memory_limit_bytes
        self._held = 0
        self._targets: OrderedDict[str, SSIMTarget] = OrderedDict()

    def __call__(self, camera: View) -> SSIMTarget:
        if camera.name in self._targets:
            self._targets.move_to_end(camera.name)
            return self._targets[camera.name]
        target = SSIMTarget.of(self._load(camera))
        self._targets[camera.name] = target
        self._held += target.bytes
        while self._held > self._limit and len(self._targets) > 1:
            _, dropped = self._targets.popitem(last=False)
            self._held -= dropped.bytes
        return target
