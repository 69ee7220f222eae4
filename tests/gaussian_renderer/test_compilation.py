"""Proves that the process that compiles the kernels computes the bits of those that load them from Numba's cache.

Once it did not: LLVM's fast-math flags let the two fuse and add in other orders. Then the first run after installing
ends with another file than every later one, and a run that is killed and resumed with another than one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from scipy.spatial.transform import Rotation

from gaussian_renderer import render
from quality.losses import photometric_loss
from scene.cameras import Camera
from tests.tiny_run import tiny_splats

MODULES = [*(f"gaussian_renderer.cpu.{name}" for name in ("projection", "tiles", "blending")), "quality.ssim"]
"""Where the kernels of a training step are."""


def step() -> dict[str, Any]:
    """Hashes of the results of a training step, and how many kernels were compiled for it and how many loaded."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
    pose[2, 3] = 4
    camera = Camera("view", 80, 60, 90.0, 95.0, 37.0, 33.5, pose)
    splats = tiny_splats()
    splats.requires_grad_()
    image = render(camera, splats, torch.zeros(3), backend="cpu").image
    loss = photometric_loss(image, torch.rand(image.shape, generator=torch.Generator().manual_seed(0)), 0.2)
    loss.backward()
    results = (image, loss, *(tensor.grad for _, tensor in splats.named_parameters()))
    members = [member for name in MODULES for member in vars(import_module(name)).values()]
    kernels = {id(member): member for member in members if isinstance(member, Dispatcher)}.values()
    return {
        "hashes": [hashlib.sha256(result.detach().numpy().tobytes()).hexdigest() for result in results],
        "compiled": sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels),
        "loaded": sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels),
    }


def in_a_process(cache: str) -> dict[str, Any]:
    """The step in a process of its own, with that cache of kernels."""
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(folder)}
    command = "import json; from tests.gaussian_renderer.test_compilation import step; print(json.dumps(step()))"
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_compiling_and_loading_give_the_same_bits(tmp_path: Path):
    cache = str(numba.config.CACHE_DIR)
    # In a fresh clone the tests before this one have compiled all kernels in this very process, which costs nothing.
    compiling = step()
    if compiling["loaded"]:
        cache = str(tmp_path)
        compiling = in_a_process(cache)
    loading = in_a_process(cache)
    assert compiling["compiled"] > 5 and not compiling["loaded"]
    assert loading["loaded"] > 5 and not loading["compiled"]
    assert len(compiling["hashes"]) == 8
    assert compiling["hashes"] == loading["hashes"]
