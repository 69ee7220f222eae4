"""The photographs, decoded: 8-bit RGB at the cameras' resolution, whatever the files hold."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsz.errors import UserError
from scene.cache import ImageCache
from scene.cameras import Camera, sizes_agree


class ImageSource(Protocol):
    """Who knows what a view should look like: :class:`Photographs`, or a model that is rendered."""

    def load(self, camera: Camera) -> Tensor:
        """``(height, width, 3)`` float32 in [0, 1]; not to be changed."""
        ...


class Photographs:
    """The photographs of a scene's cameras, at the cameras' resolution, read when they are first needed.

    Decoded ones are kept as uint8, three bytes a pixel, as far as the cache goes. What is made of them for a step of
    training costs less than a hundredth of that step, and so is made again each time.

    Args:
        cache: Where they are kept.
        white_background: What shows through transparent photographs: white, or else black.
        device: Where :meth:`load` returns its tensors.
    """

    def __init__(self, cache: ImageCache, white_background: bool = False, device: torch.device | str = "cpu") -> None:
        self.cache = cache
        self.white_background = white_background
        self.device = torch.device(device)

    def load(self, camera: Camera) -> Tensor:
        """The photograph of ``camera``: ``(height, width, 3)`` float32 in [0, 1], a fresh tensor on :attr:`device`.

        A photograph of another size is resized as 3DGS does it, bicubic on 8-bit values.

        Raises:
            UserError: the camera has no photograph, or it does not open, or its shape is not the camera's.
        """
        path = camera.image_path
        if path is None:
            raise UserError(f"camera {camera.name!r} has no photograph; give the scene's folder with -s")
        pixels = self.cache.get((path, camera.width, camera.height), lambda: self._read(path, camera))
        return pixels.to(self.device, non_blocking=self.device.type == "cuda").to(torch.float32).div_(255.0)

    def _read(self, path: Path, camera: Camera) -> Tensor:
        size = (camera.width, camera.height)
        with _open(path) as image:
            check_image_size(path, image.size, size)
            pixels = _flatten(_eight_bit(image), self.white_background)
            if pixels.size != size:
                pixels = pixels.resize(size)
            array = torch.from_numpy(np.array(pixels, dtype=np.uint8))
        # From pinned memory a GPU copies by itself, without the CPU waiting for it.
        pinned = self.device.type == "cuda" and self.cache.device.type == "cpu"
        return array.pin_memory() if pinned else array


def image_size(path: Path) -> tuple[int, int]:
    """``(width, height)`` of an image file, from its header alone.

    Raises:
        UserError: the file is missing or is no image.
    """
    with _open(path) as image:
        return image.size


def check_image_size(path: Path, image: tuple[int, int], camera: tuple[int, int]) -> None:
    """Raise :class:`UserError` where an image's ``(width, height)`` has another aspect than its camera's."""
    if not sizes_agree(image, camera):
        raise UserError(
            f"{path}: is {image[0]}x{image[1]}, which is not the shape of its camera, {camera[0]}x{camera[1]}; "
            "give the folder of the photographs the cameras were made from with -i"
        )


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever Pillow raises here or while the pixels are decoded becomes a UserError."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of images large enough to be an attack; nobody trains on photographs that large.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such photograph; check the folder given with -i") from error
    except (UserError, MemoryError):
        raise
    # Damaged files raise many types: OSError, SyntaxError, ValueError, struct.error, zlib.error and more.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); replace the file") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image with its values scaled to eight bits where it is gray with more; Pillow scales colors itself.

    Pillow would clip them. It takes the upper byte of 16-bit colors, so that is what is done here.

    Raises:
        ValueError: it is gray of a kind that does not say what white is.
    """
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0.0 and values.max() <= 1.0):
            raise ValueError("its numbers are not from 0 to 1")
        return Image.fromarray(np.rint(255.0 * values).astype(np.uint8))
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("its numbers have more than 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _flatten(image: Image.Image, white_background: bool) -> Image.Image:
    """An RGB image of the same size, with transparent parts laid over white or black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGBA", image.size, (255, 255, 255, 255) if white_background else (0, 0, 0, 255))
    return Image.alpha_composite(background, rgba).convert("RGB")
