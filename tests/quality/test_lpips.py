"""Proves that LPIPS in plain torch is the published network.

An implementation of its own in numpy and scipy, written from the paper and VGG16's table of layers, must give the same
distances. Beyond that: a distance is zero for equal images, symmetric, and grows with noise; and weights files that are
missing, damaged or lying are refused in one line before they cost memory.
"""

from __future__ import annotations

import io
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from gsz.errors import UserError
from quality import lpips as module
from quality.lpips import VggLpips, load_lpips, read_weights, weight_shapes


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of the real shapes, scaled (He) so that activations keep their size through 13 layers."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes().items():
        if name.startswith("lin"):
            weights[name] = random.random(shape, dtype=np.float32)
        elif name.endswith("bias"):
            weights[name] = 0.1 * random.standard_normal(shape, dtype=np.float32)
        else:
            fan_in = shape[1] * shape[2] * shape[3]
            weights[name] = random.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5)
    return weights


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights()


@pytest.fixture(scope="module")
def distance(weights: dict[str, np.ndarray]) -> VggLpips:
    return VggLpips(weights)


def random_image(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


# VGG16 ("configuration D"), in torchvision's numbering: every convolution and the ReLU after it take a number, and so
# does the pooling. LPIPS taps the last ReLU before each pooling.
VGG16 = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def reference_distance(image: np.ndarray, target: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    """LPIPS in float64 with scipy's correlation, one channel pair at a time."""

    def taps(picture: np.ndarray) -> list[np.ndarray]:
        features = (picture.transpose(2, 0, 1) - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        found, number = [], 0
        for layer in VGG16:
            if layer == "pool":
                found.append(features)
                rows, columns = features.shape[1] // 2 * 2, features.shape[2] // 2 * 2
                corners = [features[:, y:rows:2, x:columns:2] for y in (0, 1) for x in (0, 1)]
                features = np.maximum.reduce(corners)
                number += 1
            else:
                kernel = weights[f"features.{number}.weight"].astype(np.float64)
                padded = np.pad(features, ((0, 0), (1, 1), (1, 1)))
                maps = [correlate(padded, kernel[output], mode="valid", method="direct")[0] for output in range(layer)]
                features = np.maximum(np.stack(maps) + weights[f"features.{number}.bias"][:, None, None], 0)
                number += 2
        return found

    total = 0.0
    for stage, (first, second) in enumerate(zip(taps(image), taps(target), strict=True)):
        first, second = (part / np.sqrt((part**2).sum(0)) for part in (first, second))
        total += ((first - second) ** 2 * weights[f"lin{stage}.weight"][0]).sum(0).mean()
    return total


def test_equals_an_independent_implementation(weights, distance):
    image, target = random_image(19, 17, 1), random_image(19, 17, 2)
    expected = reference_distance(image.double().numpy(), target.double().numpy(), weights)
    assert distance(image, target) == pytest.approx(expected, rel=1e-5)


def test_layer_numbers_are_torchvisions():
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    names = {f"features.{number}.{kind}" for number in convolutions for kind in ("weight", "bias")}
    assert set(weight_shapes()) == names | {f"lin{number}.weight" for number in range(5)}


def test_equal_images_have_distance_zero(distance):
    image = random_image(32, 48, 3)
    assert distance(image, image.clone()) == 0.0


def test_is_symmetric(distance):
    image, target = random_image(32, 24, 4), random_image(32, 24, 5)
    assert distance(image, target) == pytest.approx(distance(target, image), rel=1e-6)


def test_grows_with_noise(distance):
    image, noise = 0.5 * random_image(48, 48, 6) + 0.25, random_image(48, 48, 7) - 0.5
    distances = [distance(image, image + amount * noise) for amount in (0.02, 0.1, 0.4)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_bands_of_rows_change_nothing(distance, monkeypatch):
    image, target = random_image(40, 24, 8), random_image(40, 24, 9)
    whole = distance(image, target)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert distance(image, target) == pytest.approx(whole, rel=1e-6)


def test_refuses_images_that_vanish_in_the_network(distance):
    with pytest.raises(UserError, match="at least 16 px"):
        distance(random_image(15, 40, 0), random_image(15, 40, 1))


def test_refuses_images_of_two_sizes(distance):
    with pytest.raises(ValueError, match="one size"):
        distance(random_image(20, 20, 0), random_image(20, 21, 1))


@pytest.fixture
def no_package(monkeypatch):
    """The machine without torchvision: ``import lpips`` fails."""
    monkeypatch.setitem(sys.modules, "lpips", None)


def test_weights_file_round_trip(weights, tmp_path, no_package):
    path = tmp_path / "weights.npz"
    np.savez(path, **weights)
    loaded = load_lpips(path)
    assert isinstance(loaded, VggLpips)
    image, target = random_image(20, 20, 1), random_image(20, 20, 2)
    assert loaded(image, target) == VggLpips(weights)(image, target)


def test_neither_package_nor_file_says_how_to_get_it(capsys, no_package):
    assert load_lpips(None) is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "--lpips_weights" in lines[0]


def test_prefers_a_package_that_works(monkeypatch):
    class Network(torch.nn.Module):
        def forward(self, first, second):
            return (first - second).abs().mean().view(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=lambda **_: Network()))
    packaged = load_lpips(Path("never_opened.npz"))
    assert packaged is not None
    assert packaged(torch.zeros(16, 16, 3), torch.full((16, 16, 3), 0.25)) == 0.25


def test_a_package_that_breaks_is_passed_over(monkeypatch, weights, tmp_path):
    def broken(**_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=broken))
    path = tmp_path / "weights.npz"
    np.savez(path, **weights)
    assert isinstance(load_lpips(path), VggLpips)


def lying_npz(path: Path, shape: tuple[int, ...], data: bytes) -> None:
    """A file whose first array claims ``shape`` and holds ``data``."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.0.weight.npy", header.getvalue() + data)


def test_bad_weights_files(tmp_path):
    path = tmp_path / "weights.npz"
    with pytest.raises(UserError, match=r"weights\.npz: cannot be read"):
        read_weights(path)

    path.write_bytes(b"no zip at all")
    with pytest.raises(UserError, match=r"weights\.npz: is not an intact \.npz"):
        read_weights(path)

    np.savez(path, something=np.zeros(3))
    with pytest.raises(UserError, match=r"features\.0\.weight is missing"):
        read_weights(path)

    lying_npz(path, (10**12,), b"")
    with pytest.raises(UserError, match=r"expected float32 \(64, 3, 3, 3\)"):
        read_weights(path)

    lying_npz(path, (64, 3, 3, 3), b"\0" * 100)
    with pytest.raises(UserError, match="wrong number of bytes"):
        read_weights(path)

    lying_npz(path, (64, 3, 3, 3), np.full(64 * 27, np.nan, np.float32).tobytes())
    with pytest.raises(UserError, match="NaN"):
        read_weights(path)

    np.savez(path, **{"features.0.weight": np.array([print], dtype=object)})
    with pytest.raises(UserError, match="expected float32"):
        read_weights(path)


def test_damaged_archive(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: np.zeros(shape, np.float32) for name, shape in weight_shapes().items()})
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"weights\.npz: is not an intact \.npz"):
        read_weights(path)
