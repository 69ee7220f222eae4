"""The kernels on single lanes pass the renderer's tests, and the choice between them and vectors says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gaussian_renderer import choose_backend
from gaussian_renderer.cpu import lanes, scalar

ROOT = Path(__file__).resolve().parents[2]


def test_single_lanes_pass_the_tests_of_the_renderer():
    """As plain Python, which the operations on one lane are as well: compiling them again would take a minute."""
    environment = {**os.environ, "GSZ_NO_SIMD": "1", "NUMBA_DISABLE_JIT": "1"}
    tests = [
        "test_render.py::test_image_and_gradients[cpu-ordinary-0]",
        "test_render.py::test_image_and_gradients[cpu-saturated-0]",
        "test_render_statistics.py::test_blend_weights_add_up_to_what_hides_the_background[cpu-ordinary]",
        "test_projection.py",
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        *(f"{Path(__file__).parent}/{test}" for test in tests),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "16 passed" in done.stdout


def test_the_environment_can_ask_for_single_lanes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GSZ_NO_SIMD", "1")
    chosen, description = lanes._choose()
    assert chosen is scalar
    assert description == "scalar loops: GSZ_NO_SIMD is set"


def test_a_numba_without_vector_types_gets_single_lanes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GSZ_NO_SIMD", raising=False)
    monkeypatch.setitem(sys.modules, "gaussian_renderer.cpu.simd", None)
    monkeypatch.delattr("gaussian_renderer.cpu.simd", raising=False)
    chosen, description = lanes._choose()
    assert chosen is scalar
    assert description.startswith("scalar loops: this Numba cannot build vector types (") and "\n" not in description


def test_the_backend_says_what_it_computes_with():
    assert f"CPU rasterizer, {lanes.DESCRIPTION} (" in choose_backend("cpu").description
