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
    for name in ("forward", "backward", "ssim", "bare_step", "step", "ply_step"):
        assert scene[f"{name}_cpu_ms"] > 0 and scene[f"{name}_wall_ms"] > 0
    assert scene["step_over_ply_step"] == pytest.approx(scene["step_cpu_ms"] / scene["ply_step_cpu_ms"])
    assert all(scene[f"{stage}_cpu_ms"] > 0 for stage in bench_render.STAGES)
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


def test_the_dense_scene_is_the_demo_split_and_seen_in_larger_pictures():
    model, camera, _ = bench_render.random_scene(60, 48, 32)
    split = bench_render.split_to(model, 200)
    assert len(split) == 200
    mass = [float((m.opacities[:, 0] * m.scales.prod(1)).sum()) for m in (model, split)]
    assert mass[1] == pytest.approx(mass[0], rel=1e-4)
    larger = bench_render.resized(camera, 96, 80)
    assert (larger.width, larger.height, larger.fx, larger.cy) == (96, 80, 2 * camera.fx, 40)


def test_two_checkouts_are_measured_in_turns(capsys: pytest.CaptureFixture[str]):
    options = bench_render.Options(repetitions=1, scenes=("S",), rounds=1)
    results = bench_render.bench_against(options, bench_render.ROOT)
    for name in ("forward", "project", "bare_step", "step"):
        assert results["there"]["S"][name] == pytest.approx(results["here"]["S"][name], rel=0.9)
    assert "times as fast" in capsys.readouterr().out


def test_memory_is_measured_after_each_part_of_a_stage():
    peaks = list(bench_render.measure_memory(60_000, iterations=1).values())
    assert peaks[:2] == [60_000, pytest.approx(14.16)]
    assert peaks[1] < peaks[2] and peaks[2:] == sorted(peaks[2:])
