"""Adam that moves only the Gaussians a view shows (Mallick et al., Taming 3DGS, 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gaussian_renderer import choose_backend

BETAS = (0.9, 0.999)


def sparse_adam(groups: list[dict[str, Any]], epsilon: float, backend: str) -> torch.optim.Optimizer:
    """An optimizer whose ``step`` takes the ``(N,)`` mask of the rows to update.

    On the gsplat backend it is gsplat's ``SelectiveAdam``, one kernel a tensor; elsewhere :class:`SparseAdam`, which
    computes the same.

    Args:
        groups: Of one tensor of ``N`` rows each, as ``torch.optim`` takes them, with their learning rates.
        epsilon: Added to the root of the second moment.
        backend: Name of the renderer.
    """
    if choose_backend(backend).name == "gsplat":
        try:
            from gsplat.optimizers import SelectiveAdam
        except ImportError:
            pass  # gsplat has it since 1.5.
        else:
            return SelectiveAdam(groups, eps=epsilon, betas=BETAS)
    return SparseAdam(groups, epsilon)


class SparseAdam(torch.optim.Optimizer):
    """Adam on some rows of each tensor, as gsplat's ``SelectiveAdam`` has it.

    Rows that are left out keep their values and their moments, and the moments are not corrected for having begun at
    zero: the first steps are up to 3.2 times as long as Adam's.
    """

    def __init__(self, groups: list[dict[str, Any]], epsilon: float) -> None:
        super().__init__(groups, {"lr": 0.0, "eps": epsilon})

    @torch.no_grad()
    def step(self, visible: Tensor) -> None:  # type: ignore[override]
        """Update the rows where the ``(N,)`` mask is true."""
        for group in self.param_groups:
            (tensor,) = group["params"]
            if tensor.grad is None:
                continue
            state = self.state[tensor]
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(tensor), torch.zeros_like(tensor)
            first, second = state["exp_avg"], state["exp_avg_sq"]
            # A weight of zero leaves a row as it is; indexing would make the CPU wait for the GPU.
            rows = visible.view(-1, *[1] * (tensor.dim() - 1)).to(tensor.dtype)
            first.lerp_(tensor.grad, rows * (1 - BETAS[0]))
            second.lerp_(tensor.grad.square(), rows * (1 - BETAS[1]))
            tensor.addcdiv_(first * rows, second.sqrt().add_(group["eps"]), value=-group["lr"])
