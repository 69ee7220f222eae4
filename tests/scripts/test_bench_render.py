"""The harness of scripts/bench_render.py measures what it says, on a tiny scene and without its peer."""

from __future__ import annotations

import json
import math

import bench_render
import numpy as np
import pytest


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_render, "RANDOM_SCENES", {"S": (300, 48, 32)})
    monkeypatch.setattr(
        bench_render, "vector_rates", lambda: dict.fromkeys(("simple", "divisions", "exponentials"), 1e9)
    )


def test_the_figures_of_one_scene(tiny: None, capsys: pytest.CaptureFixture[str]):
    options = bench_render.Options(repetitions=2, peer_repetitions=0, scenes=("S",))
    results = json.loads(json.dumps(bench_render.bench(options)))
    scene = results["scenes"]["S"]
    assert results["threads"] == 1 and results["lanes"]
    for name in ("forward", "backward", "ssim", "step"):
        assert scene[f"{name}_cpu_ms"] > 0 and scene[f"{name}_wall_ms"] > 0
    assert scene["peer_step_cpu_ms"] is None and scene["ratio"] is None
    # 24 operations and an exponential a vector, at a thousand million a second each.
    assert scene["forward_floor_cpu_ms"] == pytest.approx(25e-6 * scene["vectors_forward"])
    table = capsys.readouterr().out
    assert "its floor" in table and "48x32" in table and "metal-gauss" not in table


def test_blends_are_those_of_the_image():
    """Counted one by one here: pixels where a Gaussian has alpha of 1/255 or more and that have not ended."""
    model, camera, background = bench_render.random_scene(60, 48, 32, sigma_px=4)
    scene = bench_render.BenchScene.of(model, [camera], background)
    forward, backward, pairs = bench_render.count_blends(scene)
    assert 0 < backward <= forward
    lanes = bench_render.simd.LANES
    assert pairs <= lanes * backward

    from gaussian_renderer import render_statistics

    noisy = scene.model.detach()
    touched = 0
    for index in range(len(noisy)):
        alone = noisy.select(np.arange(len(noisy)) == index)
        seen = render_statistics(camera, alone, background, backend="cpu")
        touched += int((seen.image.numpy() != background.numpy()).any(2).sum())
    # No pixel ends here, so every Gaussian contributes where it would alone.
    assert pairs == pytest.approx(touched, rel=0.01)


def test_rates_are_those_of_a_processor():
    rates = bench_render.vector_rates(steps=2000)
    assert rates["simple"] > rates["exponentials"] > 0 and rates["simple"] > rates["divisions"] > 0
    assert all(math.isfinite(rate) and rate < 1e12 for rate in rates.values())
