"""What is on disk, read into memory: a scene's cameras, split by purpose, and its photographs.

Names are imported when they are first asked for, so that a program can read its command line, for which it needs
:mod:`scene.options`, before it waits for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scene.cameras import Camera
    from scene.gaussian_model import GaussianModel
    from scene.images import ImageSource, Photographs
    from scene.points import PointCloud
    from scene.scene import Scene, background, image_cache, open_scene, scene_of_cameras
    from scene.splits import FEW_VIEWS

__all__ = [
    "FEW_VIEWS",
    "Camera",
    "GaussianModel",
    "ImageSource",
    "Photographs",
    "PointCloud",
    "Scene",
    "background",
    "image_cache",
    "open_scene",
    "scene_of_cameras",
]

_MODULES = {
    "FEW_VIEWS": "splits",
    "Camera": "cameras",
    "GaussianModel": "gaussian_model",
    "ImageSource": "images",
    "Photographs": "images",
    "PointCloud": "points",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'scene')}"), name)
