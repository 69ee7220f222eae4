"""What is missing or misnamed in the folders of a batch, found in seconds, before anything is run."""

from __future__ import annotations

import difflib
import json
import struct
from pathlib import Path

from batch.datasets import Dataset
from scene.transforms import TRAIN_TRANSFORMS, TRANSFORMS

_PHOTOGRAPHS = {".jpg", ".jpeg", ".png"}


def check_dataset(dataset: Dataset, folder: Path, checkpoints: Path) -> list[str]:
    """One line for each thing that would stop or skip a scene; none where all is there."""
    if not folder.is_dir():
        return [f"{folder}: there is no such folder; check --{dataset.key}"]
    problems = []
    for scene, images in dataset.images.items():
        source = folder / scene
        if not source.is_dir():
            problems.append(f"{source}: the scene is missing{_similar(scene, folder)}")
            continue
        problems += _check_photographs(source, images)
        problems += _check_checkpoint(checkpoints / scene, checkpoints, scene)
    return problems


def _check_photographs(source: Path, images: str) -> list[str]:
    folder = source / images
    if not folder.is_dir():
        return [f"{folder}: the photographs are missing{_similar(images, source)}"]
    there = {path.name for path in folder.iterdir() if path.suffix.lower() in _PHOTOGRAPHS}
    if not there:
        return [f"{folder}: holds no .jpg or .png"]
    if any((source / name).is_file() for name in (TRANSFORMS, TRAIN_TRANSFORMS)):
        return []
    model = next((path for path in (source / "sparse" / "0", source / "sparse") if _images_file(path)), None)
    if model is None:
        return [f"{source / 'sparse' / '0'}: holds no COLMAP model (images.bin or images.txt)"]
    cameras = _registered_images(model)
    if cameras is not None and cameras > len(there):
        return [f"{folder}: holds {len(there)} photographs, the COLMAP model has {cameras} cameras"]
    return []


def _check_checkpoint(folder: Path, checkpoints: Path, scene: str) -> list[str]:
    if not folder.is_dir():
        return [f"{folder}: the checkpoint is missing{_similar(scene, checkpoints)}"]
    if not list(folder.glob("point_cloud/iteration_*/point_cloud.ply")):
        return [f"{folder}: holds no point_cloud/iteration_*/point_cloud.ply"]
    cameras = folder / "cameras.json"
    if cameras.is_file():
        try:
            count = len(json.loads(cameras.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return [f"{cameras}: is damaged; copy it again"]
        if count == 0:
            return [f"{cameras}: lists no cameras"]
    return []


def _images_file(model: Path) -> Path | None:
    return next((path for path in (model / "images.bin", model / "images.txt") if path.is_file()), None)


def _registered_images(model: Path) -> int | None:
    """How many photographs a COLMAP model has, by the header of its binary file; ``None`` where only text is there."""
    path = _images_file(model)
    if path is None or path.suffix != ".bin":
        return None
    with path.open("rb") as stream:
        head = stream.read(8)
    return struct.unpack("<Q", head)[0] if len(head) == 8 else 0


def _similar(name: str, folder: Path) -> str:
    """``, but NAME is there`` where a folder of nearly the same name is."""
    if not folder.is_dir():
        return ""
    names = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"; {names[close[0]]} is there: rename it" if close else ""
