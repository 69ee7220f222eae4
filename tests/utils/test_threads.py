"""Which threads run kernels: in programs OpenMP's, which sleep when idle; in a library those that survive a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "NUMBA_THREADING_LAYER")
RUN_A_KERNEL = """
import numba
import numpy as np
from utils.kernels import PARALLEL, match_torch_threads

@numba.njit(parallel=True)
def double(values):
    for i in numba.prange(len(values)):
        values[i] *= 2

match_torch_threads()
double(np.ones(4))
print(os.environ.get("OMP_WAIT_POLICY"), numba.threading_layer())
"""
AS_A_PROGRAM = "import os\nfrom utils import cli\ncli.settle_threads()" + RUN_A_KERNEL
AS_A_LIBRARY = "import os" + RUN_A_KERNEL


def threads_of(code: str, **set_by_user: str) -> list[str]:
    """How threads wait, and Numba's threading layer, in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | set_by_user, stdout=subprocess.PIPE, check=True, text=True
    )
    return ran.stdout.split()


@pytest.mark.skipif(find_library("gomp") is None, reason="there is no OpenMP here")
def test_a_program_prefers_openmp_and_its_threads_sleep():
    assert threads_of(AS_A_PROGRAM) == ["PASSIVE", "omp"]


def test_a_library_leaves_openmp_alone():
    assert threads_of(AS_A_LIBRARY) == ["None", "workqueue"]


def test_what_the_user_has_set_up_stays():
    theirs = {"OMP_WAIT_POLICY": "ACTIVE", "NUMBA_THREADING_LAYER": "workqueue"}
    assert threads_of(AS_A_PROGRAM, **theirs) == ["ACTIVE", "workqueue"]


def test_the_number_of_threads_stays_as_it_was_set():
    """Numba's OpenMP may be PyTorch's as well: starting it must not bring back as many threads as processors."""
    code = AS_A_PROGRAM.replace("import numba\n", "import torch\ntorch.set_num_threads(1)\nimport numba\n", 1)
    assert threads_of(code + "print(torch.get_num_threads())")[-1] == "1"
    code = AS_A_PROGRAM.replace("@numba", "import torch\ntorch.set_num_threads(1)\n@numba", 1)
    assert threads_of(code + "print(torch.get_num_threads())")[-1] == "1"
