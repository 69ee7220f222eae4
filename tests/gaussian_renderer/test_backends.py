"""Proves who renders: which backend is chosen and what is said where one is missing, or a GPU is left unused; that
INRIA's rasterizer and gsplat are given the right cameras and parameters, so that pictures and gradients are the CPU
backend's; and, on a machine with a GPU, that all backends agree.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import sys
import weakref
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import pretrain
import train
from gaussian_renderer import choose_backend, gsplat_backend, inria_backend, nvidia, render, warp_backend
from gaussian_renderer.choice import CUDA_BACKENDS, obstacle_to
from gaussian_renderer.cuda import kept_per_camera
from gaussian_renderer.nvidia import Driver
from gaussian_renderer.warp_backend import rasterizer
from gsz import registry
from gsz.errors import UserError
from pretraining.schedule import Schedule
from quality import ssim
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.helpers import assert_same_up_to_order
from tests.reference_rasterizer import gsplat_module, inria_module
from tests.synthetic_scenes import CX, CY, FX, FY, HEIGHT, WIDTH, project, ring_poses
from tests.tiny_run import tiny_splats, write_tiny_scene
from utils import cli

PACKAGES = {"inria": inria_backend.PACKAGE, "gsplat": gsplat_backend.PACKAGE, "warp": warp_backend.PACKAGE}
BACKGROUND = torch.tensor([0.2, 0.5, 0.9])


def off_centre_camera(index: int = 0) -> Camera:
    return Camera(f"view {index}", WIDTH, HEIGHT, FX, FY, CX, CY, ring_poses(7)[index])


@pytest.fixture(autouse=True)
def forget_choices():
    """Choices are remembered for a process, but the tests change what there is to choose from."""
    choose_backend.cache_clear()
    yield
    choose_backend.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A function that makes this machine look as if it had a CUDA device and just these packages."""

    def pretend(**packages: ModuleType) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
        for name, package in PACKAGES.items():
            # None in sys.modules is what makes Python say that there is no such module.
            monkeypatch.setitem(sys.modules, package, packages.get(name))
        for name in [name for name in sys.modules if name.startswith("gsplat.")]:
            monkeypatch.delitem(sys.modules, name)
        if "gsplat" in packages:
            compiled = ModuleType("gsplat.cuda._backend")
            compiled._C = object()  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "gsplat.cuda", ModuleType("gsplat.cuda"))
            monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", compiled)

    return pretend


# The choice.


def warp_module(version: str = "1.19.0", finds_driver: bool = True) -> ModuleType:
    """What is asked of Warp before its kernels are compiled, which takes a GPU."""
    module = ModuleType("warp")
    module.__version__ = version  # type: ignore[attr-defined]
    module.is_cuda_available = lambda: finds_driver  # type: ignore[attr-defined]
    return module


def test_auto_takes_inria_then_gsplat_then_warp_then_the_cpu(machine, monkeypatch):
    machine(inria=inria_module(), gsplat=gsplat_module(), warp=warp_module())
    first = choose_backend("auto")
    assert (first.name, first.device) == ("inria", torch.device("cuda:0"))
    assert "a GPU" in first.description

    choose_backend.cache_clear()
    machine(gsplat=gsplat_module(), warp=warp_module())
    second = choose_backend("auto")
    assert second.name == "gsplat"
    assert "diff_gaussian_rasterization is not installed" in second.description

    choose_backend.cache_clear()
    machine(warp=warp_module())
    monkeypatch.setattr(rasterizer, "compile_kernels", lambda device: None)
    third = choose_backend("auto")
    assert (third.name, third.device) == ("warp", torch.device("cuda:0"))
    assert "gsplat is not installed" in third.description

    choose_backend.cache_clear()
    machine()
    last = choose_backend("auto")
    assert (last.name, last.device) == ("cpu", torch.device("cpu"))
    assert warp_backend.INSTALL in last.description
    assert all("\n" not in backend.description for backend in (first, second, third, last))


def test_a_gpu_that_is_left_unused_is_worth_a_warning_with_the_remedy(machine, caplog):
    machine()
    with caplog.at_level(logging.WARNING):
        choose_backend("auto")
    (message,) = caplog.messages
    assert message.startswith("This machine has a GPU, but everything is rendered on the CPU")
    assert warp_backend.INSTALL in message and "\n" not in message


@pytest.mark.parametrize(
    ("built_for", "driver", "remedy"),
    [
        (None, Driver(1, (13, 0)), "this PyTorch is built without CUDA; install one for CUDA 13.0 or older"),
        ("13.0", Driver(1, (12, 4)), "built for CUDA 13.0 and the NVIDIA driver runs CUDA 12.4; update the driver"),
    ],
)
def test_a_pytorch_that_cannot_use_the_gpu_is_named(monkeypatch, caplog, built_for, driver, remedy):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    with caplog.at_level(logging.WARNING):
        assert choose_backend("auto").name == "cpu"
    assert remedy in caplog.messages[0]
    with pytest.raises(UserError, match=remedy.split(";")[0]):
        choose_backend("gsplat")


def test_without_a_device_auto_takes_the_cpu_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    with caplog.at_level(logging.WARNING):
        backend = choose_backend("auto")
    assert backend.name == "cpu"
    assert "no CUDA device" in backend.description
    assert not caplog.messages


def driver_library(devices: int, version: int, status: int = 0) -> SimpleNamespace:
    """The three functions of NVIDIA's driver library that are asked."""

    def give(value):
        def write(pointer):
            pointer._obj.value = value
            return status

        return write

    return SimpleNamespace(
        cuInit=lambda flags: status, cuDeviceGetCount=give(devices), cuDriverGetVersion=give(version)
    )


def test_the_driver_is_asked_for_gpus_and_for_the_cuda_it_runs(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver_library(2, 12040))
    assert nvidia.driver() == Driver(2, (12, 4))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver_library(0, 13000))
    assert nvidia.driver() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver_library(1, 13000, status=100))
    assert nvidia.driver() is None


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (warp_module("1.16.0"), "warp-lang 1.16.0 is too old; replace it with: pip install"),
        (warp_module(finds_driver=False), "needs driver 580 or newer.*pip install warp-lang==1.17.0"),
    ],
)
def test_a_warp_that_cannot_run_here_is_named_with_the_remedy(machine, module, problem):
    machine(warp=module)
    with pytest.raises(UserError, match=problem):
        choose_backend("warp")


def test_a_gsplat_that_is_too_old_is_named_with_the_remedy(machine):
    old = gsplat_module()
    old.__version__ = "1.4.0"
    machine(gsplat=old)
    with pytest.raises(UserError, match=r"gsplat 1\.4\.0 is too old; replace it with: pip install"):
        choose_backend("gsplat")


@pytest.mark.parametrize("name", CUDA_BACKENDS)
def test_a_missing_package_asked_for_by_name_is_an_error_with_its_install_command(machine, name):
    machine()
    with pytest.raises(UserError, match=f"{PACKAGES[name]} is not installed; install it with: .*pip install") as error:
        choose_backend(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["inria", "gsplat"])
def test_a_missing_device_is_an_error_where_cuda_was_asked_for(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="use --backend cpu"):
        choose_backend(name)


def test_a_package_built_for_another_pytorch_is_passed_over_and_named(machine, monkeypatch):
    machine(gsplat=gsplat_module())
    broken = ModuleType("diff_gaussian_rasterization")

    def undefined(attribute: str) -> None:
        raise ImportError("_C.so: undefined symbol: _ZN3c10\nmore lines")

    broken.__getattr__ = undefined  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "diff_gaussian_rasterization", broken)
    backend = choose_backend("auto")
    assert backend.name == "gsplat"
    assert "undefined symbol" in backend.description and "\n" not in backend.description
    with pytest.raises(
        UserError, match=r"undefined symbol.*build it for this PyTorch with: .*-include cstdint.* pip install"
    ):
        choose_backend("inria")


def test_gsplat_without_a_compiler_is_passed_over_and_named(machine, monkeypatch):
    machine(gsplat=gsplat_module())
    monkeypatch.setattr(sys.modules["gsplat.cuda._backend"], "_C", None)
    assert choose_backend("auto").name == "cpu"
    with pytest.raises(UserError, match="nvcc"):
        choose_backend("gsplat")


def test_a_variant_of_inrias_package_with_other_settings_is_refused(machine):
    variant = inria_module()
    variant.GaussianRasterizationSettings._fields = (*variant.GaussianRasterizationSettings._fields, "kernel_size")
    try:
        machine(inria=variant)
        with pytest.raises(UserError, match="kernel_size"):
            choose_backend("inria")
    finally:
        variant.GaussianRasterizationSettings._fields = variant.GaussianRasterizationSettings._fields[:-1]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match="choose auto, inria, gsplat, warp or cpu"):
        choose_backend("vulkan")


def test_a_tool_ends_with_one_line_and_code_2(machine, monkeypatch, capsys, tmp_path):
    machine()
    monkeypatch.setattr(
        sys, "argv", ["pretrain.py", "-s", str(tmp_path), "-m", str(tmp_path / "out"), "--backend", "gsplat"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.run(pretrain.main)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == (
        f"error: --backend gsplat: the package gsplat is not installed; install it with: {gsplat_backend.INSTALL}\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has growing segments on Linux alone")
def test_cuda_memory_grows_unless_the_user_has_set_it_up(monkeypatch):
    def settings(**set_by_user: str) -> dict[str, str]:
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
            monkeypatch.delenv(name, raising=False)
        for name, value in set_by_user.items():
            monkeypatch.setenv(name, value)
        with contextlib.suppress(SystemExit):
            cli.run(lambda: None)
        return {name: value for name, value in os.environ.items() if name.endswith("_ALLOC_CONF")}

    assert settings() == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    theirs = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:128"}
    assert settings(**theirs) == theirs
    theirs = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    assert settings(**theirs) == theirs


# What the packages are given.


def test_inrias_matrices_take_points_to_their_pixels():
    camera = off_centre_camera()
    view, full_projection = inria_backend.matrices(camera)
    for point in np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3)):
        row = np.append(point, 1).astype(np.float32)
        np.testing.assert_allclose((row @ view)[:3], camera.world_to_camera[:3] @ row, atol=1e-5)
        x, y, _, w = row @ full_projection
        # Where the package's kernels put it, in pixel numbers; the centre of pixel 0 is at 1/2 in ours.
        pixel = ((np.array([x / w, y / w]) + 1) * (WIDTH, HEIGHT) - 1) / 2
        np.testing.assert_allclose(pixel + 0.5, project(camera, point), atol=1e-3)


def test_gsplats_intrinsics_take_points_to_their_pixels():
    camera = off_centre_camera()
    for point in np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3)):
        in_camera = camera.world_to_camera[:3] @ np.append(point, 1)
        x, y, depth = gsplat_backend.intrinsics(camera) @ in_camera
        np.testing.assert_allclose([x / depth, y / depth], project(camera, point), atol=1e-3)


def test_the_cpu_backend_puts_a_point_where_the_pinhole_equation_does():
    camera = replace(off_centre_camera(), width=10 * WIDTH, height=10 * HEIGHT, fx=900, fy=950, cx=370, cy=335)
    point = np.array([0.21, -0.13, 0.3])
    splats = GaussianModel.from_arrays(
        means=point[None],
        log_scales=np.full((1, 3), np.log(0.005)),
        quaternions=np.array([[1.0, 0, 0, 0]]),
        opacity_logits=np.array([[0.0]]),
        sh_dc=np.full((1, 1, 3), 1.0),
        sh_rest=np.zeros((1, 0, 3)),
    )
    brightness = render(camera, splats, torch.zeros(3), backend="cpu").image.sum(2)
    columns, rows = torch.meshgrid(torch.arange(10 * WIDTH), torch.arange(10 * HEIGHT), indexing="xy")
    centroid = [float((brightness * (place + 0.5)).sum() / brightness.sum()) for place in (columns, rows)]
    np.testing.assert_allclose(centroid, project(camera, point), atol=0.05)


def test_constants_of_a_camera_are_made_once_and_freed_with_it():
    made = []

    @kept_per_camera
    def numbered(camera: Camera, device: str) -> int:
        made.append(camera.name)
        return len(made)

    camera, other = off_centre_camera(0), off_centre_camera(1)
    assert [numbered(camera, "cpu"), numbered(camera, "cpu"), numbered(camera, "cuda"), numbered(other, "cpu")] == [
        *(1, 1, 2, 3)
    ]
    gone = weakref.ref(camera)
    del camera
    gc.collect()
    assert gone() is None


# Pictures and gradients.


def rendered(backend: str, camera: Camera, splats: GaussianModel, degree: int | None = None, device: str = "cpu"):
    """The rendering, and the gradients of a fixed function of it with respect to parameters and screen offsets."""
    splats = splats.to(device).clone().requires_grad_()
    offsets = torch.zeros(len(splats), 2, device=device, requires_grad=True)
    result = render(camera, splats, BACKGROUND.to(device), backend=backend, sh_degree=degree, screen_offsets=offsets)
    weights = torch.randn(result.image.shape, generator=torch.Generator().manual_seed(3)).to(device)
    (result.image * weights).mean().backward()
    gradients = {name: tensor.grad.cpu() for name, tensor in splats.named_parameters() if tensor.grad is not None}
    assert offsets.grad is not None
    gradients["screen_offsets"] = offsets.grad.cpu()
    return result.image.detach().cpu(), result.radii.cpu(), gradients


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def check_agreement(found, expected, pixels_off: float, gradients_off: float) -> None:
    """Nearly all pixels equal, none far off, and gradients equal as vectors."""
    (image, radii, gradients), (cpu_image, cpu_radii, cpu_gradients) = found, expected
    assert image.shape == cpu_image.shape and image.dtype == torch.float32
    assert radii.shape == cpu_radii.shape and radii.dtype == torch.int32
    difference = (image - cpu_image).abs().amax(2)
    assert float((difference > 1e-4).float().mean()) <= pixels_off
    assert float(difference.max()) < 0.05
    assert gradients.keys() == cpu_gradients.keys()
    for name, gradient in gradients.items():
        if cpu_gradients[name].numel():
            assert relative_error(gradient, cpu_gradients[name]) < gradients_off, name


@pytest.mark.parametrize("branch", ["original", "antialiasing", "accelerated"])
@pytest.mark.parametrize("degree", [0, 3])
def test_inrias_package_is_given_what_the_cpu_backend_renders(machine, branch, degree):
    camera, splats = off_centre_camera(1), tiny_splats(60, sh_degree=degree)
    expected = rendered("cpu", camera, splats)
    machine(inria=inria_module(branch))
    found = rendered("inria", camera, splats)
    check_agreement(found, expected, pixels_off=0.001, gradients_off=2e-3)
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gsplat_is_given_what_the_cpu_backend_renders(machine, degree):
    camera, splats = off_centre_camera(2), tiny_splats(60, sh_degree=degree)
    # Below the alpha cap of either, and with bounds from 3 to 3.33 deviations, which may take one more tile.
    splats.opacity_logits = splats.opacity_logits.clamp(max=4)
    expected = rendered("cpu", camera, splats)
    machine(gsplat=gsplat_module())
    found = rendered("gsplat", camera, splats)
    check_agreement(found, expected, pixels_off=0.2, gradients_off=0.05)
    # Which Gaussians are in view is decided alike, but for those at the rim.
    assert float(((found[1] > 0) != (expected[1] > 0)).float().mean()) < 0.05


@pytest.mark.parametrize("name", ["inria", "gsplat"])
def test_a_lower_degree_can_be_asked_for(machine, name):
    camera, splats = off_centre_camera(3), tiny_splats(20)
    machine(inria=inria_module(), gsplat=gsplat_module())
    plain = splats.clone()
    plain.sh_rest[:, 3:] = 0
    lower = render(camera, splats, BACKGROUND, backend=name, sh_degree=1).image
    assert torch.allclose(lower, render(camera, plain, BACKGROUND, backend=name).image, atol=1e-6)
    assert not torch.allclose(lower, render(camera, splats, BACKGROUND, backend=name).image, atol=1e-3)


@pytest.mark.parametrize("name", ["inria", "gsplat"])
def test_screen_gradients_of_several_renderings_add_up(machine, name):
    machine(inria=inria_module(), gsplat=gsplat_module())
    camera, splats = off_centre_camera(), tiny_splats(10).requires_grad_()
    once, twice = (torch.zeros(10, 2, requires_grad=True) for _ in range(2))
    render(camera, splats, BACKGROUND, backend=name, screen_offsets=once).image.sum().backward()
    for _ in range(2):
        render(camera, splats, BACKGROUND, backend=name, screen_offsets=twice).image.sum().backward()
    assert torch.allclose(twice.grad, 2 * once.grad)


def test_a_model_on_the_cpu_is_rendered_there_unless_told_otherwise(machine):
    machine(gsplat=gsplat_module())
    camera, splats = off_centre_camera(), tiny_splats(10)
    assert choose_backend("auto").name == "gsplat"
    expected = render(camera, splats, BACKGROUND, backend="cpu").image
    assert torch.equal(render(camera, splats, BACKGROUND).image, expected)


@pytest.mark.parametrize("name", ["inria", "gsplat"])
def test_no_gaussians_show_the_background(machine, name):
    machine(inria=inria_module(), gsplat=gsplat_module())
    result = render(off_centre_camera(), GaussianModel.empty().requires_grad_(), BACKGROUND, backend=name)
    assert torch.equal(result.image, BACKGROUND.expand(HEIGHT, WIDTH, 3)) and len(result.radii) == 0
    result.image.sum().backward()


@pytest.mark.parametrize("name", ["inria", "gsplat"])
def test_a_view_rendered_for_inference_can_be_trained_on_afterwards(machine, name):
    machine(inria=inria_module(), gsplat=gsplat_module())
    camera, splats = off_centre_camera(), tiny_splats(5).requires_grad_()
    with torch.inference_mode():
        render(camera, splats, BACKGROUND, backend=name)
    render(camera, splats, BACKGROUND, backend=name).image.sum().backward()
    assert splats.means.grad is not None


def test_ssim_by_convolutions_can_be_trained_with_after_it_was_measured():
    image, target = torch.rand(2, 20, 30, 3, dtype=torch.float64)
    ssim._window.cache_clear()
    with torch.inference_mode():
        measured = ssim._separable_ssim(image, target)
    image.requires_grad_()
    trained = ssim._separable_ssim(image, target)
    trained.backward()
    assert float(trained.detach()) == pytest.approx(float(measured)) and image.grad is not None


def shift_of_a_centre(backend: str, device: str = "cpu") -> tuple[float, float]:
    """How the brightness beside a Gaussian changes when it moves along x: from its offset, and by moving it.

    Looked at is the slope of the blob, where no pixel falls under the alpha cut.
    """
    camera, splats = off_centre_camera(), tiny_splats(1, sh_degree=0).to(device).requires_grad_()
    with torch.no_grad():
        splats.means.zero_()
        splats.log_scales.fill_(float(np.log(0.4)))
        splats.opacity_logits.zero_()
    offsets = torch.zeros(1, 2, device=device, requires_grad=True)

    def value(cx: float) -> Tensor:
        moved = replace(camera, cx=cx)
        image = render(moved, splats, BACKGROUND.to(device), backend=backend, screen_offsets=offsets).image
        return image[int(CY) - 4 : int(CY) + 4, int(CX) + 3 : int(CX) + 9].double().mean()

    step = 0.05
    numeric = float((value(CX + step) - value(CX - step)).detach()) / (2 * step)
    value(CX).backward()
    return float(offsets.grad[0, 0]), numeric


@pytest.mark.parametrize("name", ["cpu", "inria", "gsplat"])
def test_screen_gradients_are_in_pixels(machine, name):
    machine(inria=inria_module(), gsplat=gsplat_module())
    collected, numeric = shift_of_a_centre(name)
    assert collected == pytest.approx(numeric, rel=0.01)


# On a GPU.


@pytest.fixture(params=CUDA_BACKENDS)
def cuda_backend(request) -> str:
    problem = obstacle_to(request.param)
    if problem:
        pytest.skip(problem)
    return request.param


@pytest.mark.cuda
@pytest.mark.parametrize("degree", [0, 3])
def test_on_a_gpu_pictures_and_gradients_are_those_of_the_cpu(cuda_backend, degree):
    camera, splats = off_centre_camera(5), tiny_splats(400, sh_degree=degree)
    if cuda_backend == "gsplat":
        splats.opacity_logits = splats.opacity_logits.clamp(max=4)
    exact = cuda_backend != "gsplat"
    check_agreement(
        rendered(cuda_backend, camera, splats, device="cuda"),
        rendered("cpu", camera, splats),
        pixels_off=0.005 if exact else 0.3,
        gradients_off=0.01 if exact else 0.1,
    )


@pytest.mark.cuda
def test_on_a_gpu_screen_gradients_are_in_pixels(cuda_backend):
    collected, numeric = shift_of_a_centre(cuda_backend, "cuda")
    assert collected == pytest.approx(numeric, rel=0.1)


@pytest.mark.cuda
def test_on_a_gpu_no_gaussians_show_the_background(cuda_backend):
    empty = GaussianModel.empty().to("cuda")
    image = render(off_centre_camera(), empty, BACKGROUND.to("cuda"), backend=cuda_backend).image
    assert torch.equal(image.cpu(), BACKGROUND.expand(HEIGHT, WIDTH, 3))


@pytest.mark.cuda
@pytest.mark.parametrize("name", registry.names(writable_only=True))
def test_on_a_gpu_what_is_fine_tuned_is_what_is_decoded(name):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    splats = tiny_splats(300).to("cuda").requires_grad_()
    grid = registry.get(name).fit(splats.detach())
    grid.observe(splats)
    snapped = grid.snap(splats)
    sum(tensor.sum() for _, tensor in snapped.named_parameters()).backward()
    assert all(tensor.grad is not None and tensor.grad.is_cuda for _, tensor in splats.named_parameters())
    decoded = registry.decode(grid.encode(splats.detach()), name)
    assert_same_up_to_order(snapped.detach().to("cpu"), decoded)


@pytest.mark.cuda
def test_on_a_gpu_ssim_is_that_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    image, target = torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for device in ("cpu", "cuda"):
        on_device = image.to(device).requires_grad_()
        value = ssim.ssim(on_device, target.to(device))
        value.backward()
        values.append(float(value.detach()))
        gradients.append(on_device.grad.cpu())
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    assert relative_error(gradients[1], gradients[0]) < 1e-3


@pytest.mark.cuda
@pytest.mark.parametrize("data_device", ["cpu", "cuda"])
def test_on_a_gpu_a_model_is_compressed(cuda_backend, data_device, tmp_path):
    source, checkpoint = write_tiny_scene(tmp_path)
    arguments = ["-s", source, "--pretrained_dir", checkpoint, "-m", tmp_path / "out", "--eval", "--codec", "lzma"]
    schedule = ["--first_iterations", 4, "--round_iterations", 4, "--final_iterations", 6, "--max_rounds", 2]
    where = ["--backend", cuda_backend, "--data_device", data_device]
    options = train.parse([str(word) for word in [*arguments, *schedule, *where]])
    result = train.train(options)
    assert result.journal[-1].psnr > 38
    assert result.path.stat().st_size < 15_000


@pytest.mark.cuda
def test_on_a_gpu_a_model_is_trained_and_resumed(cuda_backend, tmp_path):
    source, _ = write_tiny_scene(tmp_path)
    options = pretrain.Options(
        model_path=tmp_path / "out",
        scene=SceneOptions(source_path=source, eval=True, data_device="cuda"),
        schedule=Schedule(densify_from_iter=10, densification_interval=20, opacity_reset_interval=35),
        iterations=60,
        checkpoint_iterations=(30,),
        backend=cuda_backend,
    )
    first = GaussianModel.load_ply(pretrain.pretrain(options))
    resumed = GaussianModel.load_ply(pretrain.pretrain(replace(options, resume=True)))
    # Sums on a GPU come in any order, so that only nearly the same model comes of it.
    assert len(first) > 0 and abs(len(resumed) - len(first)) <= 0.1 * len(first) + 3
