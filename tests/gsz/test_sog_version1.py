"""Proves that SOG version 1, bytes evenly spaced over ranges, is read: values of a file that is assembled here byte by
byte, and refusals of damage. Also that the zip of a folder is read as that of its files.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsz import registry
from gsz.registry import CodecError
from gsz.splats import Splats
from tests.helpers import allocating_little, random_model

COUNT, SIDE = 10, 4
COEFFICIENTS = 8


def webp(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True, exact=True)
    return stream.getvalue()


def parts() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """``meta.json`` and the images, of :data:`COUNT` Gaussians on ``SIDE * SIDE`` pixels, with SH of degree 2."""
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 256, (SIDE, SIDE, 4), np.uint8)
        for name in ("means_l", "means_u", "scales", "quats", "sh0", "shN_labels")
    }
    images["quats"][..., 3] = 252 + np.arange(16).reshape(4, 4) % 4
    images["shN_labels"][..., 0] %= 128
    images["shN_labels"][..., 1] = 0
    images["shN_centroids"] = rng.integers(0, 256, (2, 64 * COEFFICIENTS, 4), np.uint8)

    def entry(*names: str, **rest: object) -> dict[str, Any]:
        return {**rest, "files": [f"{name}.webp" for name in names]}

    meta = {
        "means": entry("means_l", "means_u", shape=[COUNT, 3], dtype="float32", mins=[-1, -2, -3], maxs=[1, 2, 6.5]),
        "scales": entry("scales", shape=[COUNT, 3], dtype="float32", mins=[-9, -8, -7], maxs=[-1, 0, 1]),
        "quats": entry("quats", shape=[COUNT, 4], dtype="uint8", encoding="quaternion_packed"),
        "sh0": entry("sh0", shape=[COUNT, 1, 4], dtype="float32", mins=[-2, -1, -3, -5], maxs=[2, 3, 4, 9]),
        "shN": entry("shN_centroids", "shN_labels", dtype="float32", mins=-0.5, maxs=0.75, quantization=8),
    }
    return meta, images


def zipped(meta: dict[str, Any], images: dict[str, np.ndarray], folder: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{folder}meta.json", json.dumps(meta))
        for name, pixels in images.items():
            # As an image without alpha, where all pixels are opaque.
            archive.writestr(f"{folder}{name}.webp", webp(pixels))
    return stream.getvalue()


def expected(meta: dict[str, Any], images: dict[str, np.ndarray]) -> Splats:
    """By the rules of its readers, Gaussian by Gaussian."""
    pixel = {name: array.reshape(-1, 4).astype(float) for name, array in images.items() if name != "shN_centroids"}
    arrays: dict[str, list[Any]] = {name: [] for name in ("means", "scales", "quats", "opacities", "sh_dc", "sh_rest")}
    for i in range(COUNT):

        def between(key: str, channel: int, share: float) -> float:
            low, high = meta[key]["mins"][channel], meta[key]["maxs"][channel]
            return float(low + (high - low) * share)

        logs = [between("means", c, (pixel["means_u"][i, c] * 256 + pixel["means_l"][i, c]) / 65535) for c in range(3)]
        arrays["means"].append([np.sign(log) * (np.exp(abs(log)) - 1) for log in logs])
        arrays["scales"].append([between("scales", c, pixel["scales"][i, c] / 255) for c in range(3)])
        largest = int(pixel["quats"][i, 3]) - 252
        others = [(pixel["quats"][i, c] / 255 * 2 - 1) / np.sqrt(2) for c in range(3)]
        others.insert(largest, np.sqrt(max(0.0, 1 - sum(value**2 for value in others))))
        arrays["quats"].append(others)
        *color, opacity = (between("sh0", c, pixel["sh0"][i, c] / 255) for c in range(4))
        arrays["sh_dc"].append(color)
        arrays["opacities"].append(opacity)
        row, column = divmod(int(pixel["shN_labels"][i, 0]), 64)
        entry = images["shN_centroids"][row, column * COEFFICIENTS : (column + 1) * COEFFICIENTS, :3]
        arrays["sh_rest"].append(-0.5 + 1.25 * entry / 255)
    return Splats.from_arrays(*(np.array(array) for array in arrays.values()))


def test_values_are_evenly_spaced() -> None:
    meta, images = parts()
    data = zipped(meta, images)
    for (name, ours), (_, theirs) in zip(
        registry.decode(data, "f.sog").named_parameters(), expected(meta, images).named_parameters(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, err_msg=name)
    info = registry.get("sog").info(data)
    assert (info["version"], info["count"], info["sh_degree"], info["antialiased"]) == (1, COUNT, 2, False)


def test_without_harmonics_above_degree_0() -> None:
    meta, images = parts()
    del meta["shN"]
    splats = registry.decode(zipped(meta, images), "f.sog")
    assert splats.sh_degree == 0
    np.testing.assert_array_equal(splats.means, registry.decode(zipped(*parts()), "f.sog").means)


@pytest.mark.parametrize("folder", ["scan/", "a/b/", "ünïcode/"])
def test_the_zip_of_a_folder(folder: str) -> None:
    meta, images = parts()
    data, nested = zipped(meta, images), zipped(meta, images, folder)
    np.testing.assert_array_equal(registry.decode(nested, "f.sog").sh_rest, registry.decode(data, "f.sog").sh_rest)
    assert registry.identify(nested, "f.zip").name == "sog"


def test_version_2_in_a_folder() -> None:
    data = registry.get("sog").fit(random_model(20)).encode(random_model(20))
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(stream, "w") as nested:
        for name in archive.namelist():
            nested.writestr(f"scan/{name}", archive.read(name))
    np.testing.assert_array_equal(registry.decode(stream.getvalue(), "f").means, registry.decode(data, "f").means)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta, images: meta["means"].update(shape=[17, 3]), "pixels for 17 Gaussians"),
        (lambda meta, images: meta["means"].update(shape=[1 << 40, 3]), "claims a count that is no number"),
        (lambda meta, images: meta["means"].update(shape=["10", 3]), "claims a count that is no number"),
        (lambda meta, images: meta["means"].pop("shape"), "how many Gaussians"),
        (lambda meta, images: meta["means"].update(mins=[0, 0]), "no list mins of 3 to 3 numbers"),
        (lambda meta, images: meta["sh0"].update(maxs=[1, 2, 3, "4"]), "other than finite numbers in maxs"),
        (lambda meta, images: meta["shN"].update(mins=[0]), "other than finite numbers in range"),
        (lambda meta, images: meta["scales"].update(files=[]), "does not name the 1 files of scales"),
        (lambda meta, images: meta.update(version=7), "SOG version 7 is unknown; versions 1 and 2 can be read"),
        (lambda meta, images: meta.update(version="x" * 99), "SOG version xxxxxxxxxxxxxxxxxxxx is unknown"),
        (lambda meta, images: images.update(shN_centroids=np.zeros((2, 100, 3), np.uint8)), "100 pixels wide"),
        (lambda meta, images: images["shN_labels"].fill(255), "past the end of the palette"),
        (lambda meta, images: images["quats"].fill(3), "names no largest component"),
        (lambda meta, images: images.pop("sh0"), "names a file of sh0 that is missing"),
    ],
)
def test_damage_is_refused(change: Any, message: str) -> None:
    meta, images = parts()
    change(meta, images)
    with allocating_little(), pytest.raises(CodecError, match=f"^f.sog: .*{message}"):
        registry.decode(zipped(meta, images), "f.sog")
