"""Proves that the process that compiles the kernels computes the bits of those that load them from Numba's cache.

Once it did not: LLVM's fast-math flags let the two fuse and add in other orders. Then the first run after installing
ends with another file than every later one, and a run that is killed and resumed with another than one that was not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HASHES_OF_A_STEP = """
import hashlib
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from gaussian_renderer import render
from scene.cameras import Camera
from tests.tiny_run import tiny_splats
from quality.losses import photometric_loss

torch.set_num_threads(1)
pose = np.eye(4)
pose[:3, :3] = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
pose[2, 3] = 4
camera = Camera("view", 80, 60, 90.0, 95.0, 37.0, 33.5, pose)
splats = tiny_splats()
splats.requires_grad_()
image = render(camera, splats, torch.zeros(3)).image
loss = photometric_loss(image, torch.rand(image.shape, generator=torch.Generator().manual_seed(0)), 0.2)
loss.backward()
for tensor in (image, loss, *(tensor.grad for _, tensor in splats.named_parameters())):
    print(hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest())
"""


def test_compiling_and_loading_give_the_same_bits(tmp_path: Path):
    folder = Path(__file__).parents[1]
    path = os.pathsep.join([str(folder.parent), str(folder)])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    compiled, loaded = (
        subprocess.run(
            [sys.executable, "-c", HASHES_OF_A_STEP], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert len(compiled) == 8
    assert compiled == loaded
