"""Measure what processes that share a run exchange in a step: the gradients of all Gaussians.

    torchrun --nproc-per-node 4 scripts/bench_exchange.py --gaussians 200000

It is the call that ``train.py`` and ``pretrain.py`` make, between the processes and by the library (NCCL between GPUs,
else gloo) that they would use.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import _root  # noqa: F401
import torch
import tyro

from scene.gaussian_model import GaussianModel
from utils import cli, ranks


@dataclass
class Options:
    """Measure what processes that share a run exchange in a step."""

    gaussians: int = 100_000
    """Gaussians of the model, with harmonics of degree 3."""
    steps: int = 50
    """Steps to measure, after five that are not."""


def measure(options: Options) -> tuple[int, float]:
    """Bytes of a step's gradients, and the mean seconds of their exchange."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = options.gaussians
    shapes = {"means": (3,), "log_scales": (3,), "quaternions": (4,), "opacity_logits": (1,)}
    shapes |= {"sh_dc": (1, 3), "sh_rest": (15, 3)}
    splats = GaussianModel(**{name: torch.zeros(count, *shape, device=device) for name, shape in shapes.items()})
    tensors = [tensor for _, tensor in splats.requires_grad_().named_parameters()]
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    began = 0.0
    for step in range(5 + options.steps):
        if step == 5:
            began = _now(device)
        ranks.average_gradients(tensors)
    return 4 * sum(tensor.numel() for tensor in tensors), (_now(device) - began) / options.steps


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    options = tyro.cli(Options, use_underscores=True)
    cli.meet_others()
    size, seconds = measure(options)
    speed = f"{1e3 * seconds:.1f} ms, {size / seconds / 1e9:.2f} GB/s"
    cli.say(f"{ranks.count()} processes, {size / 1e6:.1f} MB a step: {speed}")


if __name__ == "__main__":
    cli.run(main)
