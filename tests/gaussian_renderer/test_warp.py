"""The kernels in Warp: the numbers of the CPU backend, compiled for GPUs that are not here, and, on one, its streams.

That they give the image and the gradients of the reference is proved in ``test_render.py``, and that what they measure
is what leaving a Gaussian out does in ``test_render_statistics.py``.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
import warp as wp

import train
from gaussian_renderer import choose_backend, render, render_statistics
from gaussian_renderer.choice import obstacle_to
from gaussian_renderer.warp_backend import blending, projection, tiles
from scene.gaussian_model import GaussianModel
from tests.gaussian_renderer.test_render import all_around, huge, make_camera, needles, ordinary, passes, saturated
from tests.tiny_run import write_tiny_scene

BACKGROUND = torch.tensor([0.1, 0.2, 0.9])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", [ordinary, needles, huge, all_around, saturated])
def test_both_renderers_agree_on_an_image_of_many_tiles(family):
    """Lists of several batches, blocks beyond the image's edge, pixels that end at different places."""
    rng = np.random.default_rng([300, len(family.__name__)])
    camera = make_camera(rng, 90, 70)
    model = GaussianModel.concatenate([family(rng) for _ in range(4)])
    weights, target = torch.from_numpy(rng.normal(size=(2, 70, 90, 3))).float()

    image, radii, *gradients = passes("warp", model, camera, weights)
    cpu_image, cpu_radii, *cpu_gradients = passes("cpu", model, camera, weights)
    torch.testing.assert_close(image, cpu_image, atol=1e-5, rtol=0)
    assert torch.equal(radii, cpu_radii)
    for found, expected in zip(gradients, cpu_gradients, strict=True):
        assert relative_error(found, expected) < 1e-5

    found, expected = (
        render_statistics(camera, model, BACKGROUND, backend=backend, target=target) for backend in ("warp", "cpu")
    )
    assert found is not None and expected is not None
    for name in ("blend_weight", "removal_error", "sh_removal_error", "removal_loss"):
        assert relative_error(getattr(found, name), getattr(expected, name)) < 1e-5, name


def test_asked_for_without_a_gpu_it_runs_on_the_cpu_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choose_backend.cache_clear()
    with caplog.at_level(logging.WARNING):
        backend = choose_backend("warp")
    choose_backend.cache_clear()
    assert backend.device == torch.device("cpu")
    assert "for tests" in backend.description
    assert "tests and many times slower than --backend cpu" in caplog.messages[0]


def test_a_model_is_compressed_by_it_as_on_the_cpu(tmp_path):
    source, checkpoint = write_tiny_scene(tmp_path)
    schedule = ["--first_iterations", 4, "--round_iterations", 4, "--final_iterations", 6, "--max_rounds", 1]
    schedule += ["--means_lr", 0.0000016]  # The model is where its photographs were taken of it.
    quality = {}
    for backend in ("warp", "cpu"):
        out = ["-m", tmp_path / backend, "--backend", backend]
        arguments = ["-s", source, "--pretrained_dir", checkpoint, "--eval", *out, *schedule]
        quality[backend] = train.train(train.parse([str(word) for word in arguments])).journal[-1].psnr
    assert quality["warp"] > 35
    assert quality["warp"] == pytest.approx(quality["cpu"], abs=0.1)


@pytest.mark.parametrize("module", [projection, tiles, blending])
def test_the_kernels_compile_for_gpus(module, tmp_path):
    """To machine code of the oldest architecture that CUDA 13 knows and of Hopper, which takes no GPU and no driver."""
    compiled = wp.compile_aot_module(module, arch=(75, 90), module_dir=tmp_path, use_ptx=False)
    assert len(compiled) == 2
    for path in compiled:
        assert path.read_bytes()[:4] == b"\x7fELF" and path.stat().st_size > 10_000


# On a GPU.


@pytest.fixture
def on_cuda() -> torch.device:
    problem = obstacle_to("warp")
    if problem:
        pytest.skip(problem)
    return torch.device("cuda", 0)


@pytest.mark.cuda
def test_on_a_gpu_an_image_waits_once(on_cuda):
    rng = np.random.default_rng(301)
    camera, model, background = make_camera(rng), ordinary(rng).to(on_cuda).requires_grad_(), BACKGROUND.to(on_cuda)
    render(camera, model, background, backend="warp").image.sum().backward()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            render(camera, model, background, backend="warp").image.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([warning for warning in caught if "synchroniz" in str(warning.message)]) <= 1


@pytest.mark.cuda
def test_on_a_gpu_the_kernels_run_on_the_stream_that_pytorch_uses(on_cuda):
    """What is queued on a stream before a rendering, and takes long, is done when the rendering reads it."""
    rng = np.random.default_rng(302)
    camera, model = make_camera(rng), ordinary(rng).to(on_cuda)
    background = torch.zeros(3, device=on_cuda)
    expected = render(camera, model, background, backend="warp").image
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        shifted = model.clone()
        shifted.means.zero_()
        torch.cuda._sleep(100_000_000)
        shifted.means.copy_(model.means)
        image = render(camera, shifted, background, backend="warp").image.clone()
    stream.synchronize()
    assert torch.equal(image, expected)
