"""The photographs: read when they are first needed, kept as bytes within a memory bound."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsz.errors import UserError
from scene.cameras import Camera, sizes_agree

DEFAULT_MEMORY_LIMIT_BYTES = 4 * 10**9


class ImageStore:
    """The photographs of a scene's cameras, at the cameras' resolution.

    Decoded photographs are kept as uint8, three bytes a pixel, until their sum would exceed ``memory_limit_bytes``;
    then those that were asked for longest ago are dropped, to be read again when they are needed. Beyond the bound
    there is only the photograph that is being decoded.

    Args:
        memory_limit_bytes: Upper bound of what is kept. Zero keeps nothing.
        white_background: What shows through transparent photographs: white, or else black.
        device: Where :meth:`load` returns its tensors.
        cache_device: Where the photographs are kept.
    """

    def __init__(
        self,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        white_background: bool = False,
        device: torch.device | str = "cpu",
        cache_device: torch.device | str = "cpu",
    ) -> None:
        self.memory_limit_bytes = memory_limit_bytes
        self.white_background = white_background
        self.device = torch.device(device)
        self.cache_device = torch.device(cache_device)
        self.cached_bytes = 0
        self._cache: OrderedDict[tuple[Path, int, int], Tensor] = OrderedDict()

    def load(self, camera: Camera) -> Tensor:
        """The photograph of ``camera``: ``(height, width, 3)`` float32 in [0, 1], a fresh tensor on :attr:`device`.

        A photograph of another size is resized as 3DGS does it, bicubic on 8-bit values.

        Raises:
            UserError: the camera has no photograph, or it does not open, or its shape is not the camera's.
        """
        if camera.image_path is None:
            raise UserError(f"camera {camera.name!r} has no photograph; give the scene's folder with -s")
        key = (camera.image_path, camera.width, camera.height)
        pixels = self._cache.get(key)
        if pixels is None:
            pixels = self._read(camera.image_path, camera).to(self.cache_device)
            self._keep(key, pixels)
        else:
            self._cache.move_to_end(key)
        return pixels.to(self.device, non_blocking=self.device.type == "cuda").to(torch.float32) / 255.0

    def _read(self, path: Path, camera: Camera) -> Tensor:
        size = (camera.width, camera.height)
        with _open(path) as image:
            check_image_size(path, image.size, size)
            pixels = _flatten(image, self.white_background)
            if pixels.size != size:
                pixels = pixels.resize(size)
            array = torch.from_numpy(np.array(pixels, dtype=np.uint8))
        # From pinned memory a GPU copies by itself, without the CPU waiting for it.
        pinned = self.device.type == "cuda" and self.cache_device.type == "cpu"
        return array.pin_memory() if pinned else array

    def _keep(self, key: tuple[Path, int, int], pixels: Tensor) -> None:
        size = pixels.nbytes
        if size > self.memory_limit_bytes:
            return
        while self.cached_bytes + size > self.memory_limit_bytes:
            _, dropped = self._cache.popitem(last=False)
            self.cached_bytes -= dropped.nbytes
        self._cache[key] = pixels
        self.cached_bytes += size


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


def _flatten(image: Image.Image, white_background: bool) -> Image.Image:
    """An RGB image of the same size, with transparent parts laid over white or black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGBA", image.size, (255, 255, 255, 255) if white_background else (0, 0, 0, 255))
    return Image.alpha_composite(background, rgba).convert("RGB")
