"""Fine-tuning and scoring on CUDA fit a card of 24 GB at six million Gaussians, wait for nothing and mix no devices.

No GPU is needed: tensors are on a CUDA device that does not exist (``tests/fake_cuda``), in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAIR = (300_000, 900_000)
AIM = 6_000_000


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """What ``tests.fake_cuda.measure`` says of both tasks at both sizes."""
    pytest.importorskip("warp")
    compiler = shutil.which("g++")
    if compiler is None or torch.version.cuda is not None:
        pytest.skip("needs g++ and a PyTorch without CUDA, in whose place the device that does not exist is put")
    package = Path(torch.__file__).parent
    library = tmp_path_factory.mktemp("fake_cuda") / "libfakecuda.so"
    includes = [f"-I{package}/include", f"-I{package}/include/torch/csrc/api/include"]
    command = [compiler, "-shared", "-fPIC", "-O1", "-std=c++20", ROOT / "tests/fake_cuda/guard.cpp", "-o", library]
    subprocess.run([*command, *includes, f"-L{package}/lib", "-ltorch_cpu", "-lc10"], check=True, timeout=120)
    tasks = [f"{task}:{count}" for task in ("finetune", "score") for count in PAIR]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_cuda.measure", library, *tasks],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(package / "lib")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    return {"finetune": measured[:2], "score": measured[2:]}


def peak_at(count: int, measured: list[dict]) -> float:
    """Bytes at a number of Gaussians, on the line through what was measured."""
    small, large = (entry["peak"] for entry in measured)
    return small + (large - small) * (count - PAIR[0]) / (PAIR[1] - PAIR[0])


def test_six_million_gaussians_are_fine_tuned_in_13_gigabytes(figures) -> None:
    assert peak_at(AIM, figures["finetune"]) < 13.0e9


def test_they_are_scored_in_6_gigabytes(figures) -> None:
    assert peak_at(AIM, figures["score"]) < 6.0e9


def test_nothing_is_copied_between_devices_after_the_first_epoch(figures) -> None:
    """Two views: an epoch is two iterations. What would wait or mix devices has failed before this."""
    for entry in figures["finetune"]:
        copies = entry["copies"]
        assert len(copies) == 4
        assert copies[-1] == copies[1]
