"""What the NVIDIA driver says of this machine. A PyTorch that is built for the CPU cannot tell if there is a GPU."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

__all__ = ["Driver", "driver"]


@dataclass(frozen=True)
class Driver:
    """An NVIDIA driver with at least one GPU.

    Attributes:
        devices: GPUs that this process may use.
        cuda: Major and minor version of the newest CUDA that the driver can run.
    """

    devices: int
    cuda: tuple[int, int]


def driver() -> Driver | None:
    """The driver, or ``None`` where there is none or no GPU."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    devices, version = ctypes.c_int(0), ctypes.c_int(0)
    # Each of these returns 0 where it succeeds.
    if (
        library.cuInit(0)
        or library.cuDeviceGetCount(ctypes.byref(devices))
        or library.cuDriverGetVersion(ctypes.byref(version))
    ):
        return None
    return Driver(devices.value, (version.value // 1000, version.value % 1000 // 10)) if devices.value else None
