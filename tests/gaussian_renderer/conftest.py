"""The renderers of ours that pass the same tests."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["cpu", "warp"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend that renders tensors on the CPU. Warp's kernels are compiled once and kept in Warp's own cache."""
    return request.param
