"""What several test files share: models to encode, comparison of models, and damage to files."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gsz.splats import Splats
from scene.gaussian_model import GaussianModel


def random_model(count: int, sh_degree: int = 3, seed: int = 0) -> GaussianModel:
    """A model with the statistics of a trained one: a dense middle, far outliers, small Gaussians, weak SH."""
    rng = np.random.default_rng(seed)
    coefficients = (sh_degree + 1) ** 2 - 1
    return GaussianModel.from_arrays(
        means=rng.standard_t(2, (count, 3)),
        log_scales=rng.normal(-4, 1, (count, 3)),
        quaternions=rng.normal(0, 1, (count, 4)),
        opacity_logits=rng.normal(0, 3, (count, 1)),
        sh_dc=rng.normal(0, 1, (count, 1, 3)),
        sh_rest=rng.laplace(0, 0.05, (count, coefficients, 3)),
    )


def degenerate_models() -> dict[str, GaussianModel]:
    """Models at the edges of what a codec must take, by name."""
    models = {f"{count} Gaussians": random_model(count) for count in (0, 1, 2)}
    models["none, SH degree 0"] = random_model(0, sh_degree=0)
    models["one, SH degree 0"] = random_model(1, sh_degree=0)
    models["identical"] = random_model(1).select(torch.zeros(50, dtype=torch.long))
    models["all zero"] = random_model(20).map(torch.zeros_like)

    for name, span in (("span of a million", 1e6), ("span of 1e30", 1e30)):
        wide = random_model(60)
        wide.means[0] = span
        wide.means[1] = -span
        models[name] = wide

    saturated = random_model(60)
    saturated.opacity_logits[::2] = 20.0
    saturated.opacity_logits[1::2] = -20.0
    models["opacity logits at 20 and -20"] = saturated

    unrotated = random_model(60)
    unrotated.quaternions[::3] = 0.0
    unrotated.quaternions[1::3] *= 1e-6
    models["quaternions of length 0 and 1e-6"] = unrotated

    flat = random_model(60)
    flat.log_scales[:, 0] = -30.0
    flat.log_scales[:5] = 8.0
    models["needles and giants"] = flat
    return models


def table(splats: Splats) -> np.ndarray:
    """All parameters, a row a Gaussian: ``(N, 14 + 3 K)`` float32."""
    return np.concatenate(
        [array.reshape(len(splats), array[:1].size) for _, array in splats.numpy().named_parameters()], axis=1
    )


def in_canonical_order(splats: Splats) -> np.ndarray:
    """The table's bits with its rows sorted, so that models can be compared up to the order of their Gaussians."""
    bits = np.ascontiguousarray(table(splats)).view(np.uint32)
    return bits[np.lexsort(bits.T[::-1])]


def assert_same_up_to_order(first: Splats, second: Splats) -> None:
    """Both models have the same Gaussians, bit for bit."""
    assert len(first) == len(second)
    assert first.sh_degree == second.sh_degree
    np.testing.assert_array_equal(in_canonical_order(first), in_canonical_order(second))


def checksum(splats: Splats) -> str:
    """SHA-256 of all parameters' bits, whatever the order of the Gaussians."""
    return hashlib.sha256(in_canonical_order(splats).astype("<u4").tobytes()).hexdigest()


@contextmanager
def allocating_little(limit: int = 12_000_000) -> Iterator[None]:
    """Fail where the block allocates more than ``limit`` bytes at once; the dictionary of LZMA alone takes 8 MiB."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` damaged versions of a file: bytes changed, removed, added, or replaced by extreme numbers."""
    rng = np.random.default_rng(seed)
    extremes = [b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\xff\xff\xff\xff"]
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            # Half of the damage goes to the first bytes, where headers are.
            end = len(broken) + 1 if rng.random() < 0.5 else min(len(broken) + 1, 128)
            at = int(rng.integers(0, end))
            match int(rng.integers(0, 5)):
                case 0:
                    broken[at : at + 1] = rng.bytes(1)
                case 1:
                    extreme = extremes[int(rng.integers(0, len(extremes)))]
                    broken[at : at + len(extreme)] = extreme
                case 2:
                    del broken[at : at + int(rng.integers(1, 40))]
                case 3:
                    broken[at:at] = rng.bytes(int(rng.integers(1, 40)))
                case 4:
                    del broken[at:]
        yield bytes(broken)
