"""Whether kernels in NVIDIA Warp can run here, and what to install where they cannot. Imports Warp only when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGE = "warp"
INSTALL = 'pip install "warp-lang>=1.17,<1.20"'
OLDEST = (1, 17)
"""From PyPI it uses CUDA 12; newer ones use CUDA 13."""
OLDEST_ON_CPU = (1, 19)
"""Before, a block on the CPU had one lane."""


def obstacle(compile_kernels: Callable[[torch.device], None]) -> str | None:
    """What keeps the installed package from working, with the remedy; ``None`` if nothing does.

    Args:
        compile_kernels: is tried where there is a CUDA device; on the first call on a machine it takes half a minute.

    Raises:
        ImportError: the package is not installed.
    """
    import torch
    import warp

    version = tuple(int(part) for part in warp.__version__.split(".")[:2])
    if version < (OLDEST if torch.cuda.is_available() else OLDEST_ON_CPU):
        return f"warp-lang {warp.__version__} is too old; replace it with: {INSTALL}"
    if not torch.cuda.is_available():
        return None
    if not warp.is_cuda_available():
        return (
            f"warp-lang {warp.__version__} cannot use this NVIDIA driver: from 1.18 on it needs driver 580 or newer; "
            "update the driver, or install an older one with: pip install warp-lang==1.17.0"
        )
    try:
        compile_kernels(torch.device("cuda", 0))
    # NVRTC is run by this, and what it may raise is not documented.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"Warp's compiler does not take the kernels ({reason}); install a tested version: {INSTALL}"
    return None
