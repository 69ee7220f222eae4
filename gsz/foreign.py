"""What is given in place of a model's file: folders, archives, pages, files of other programs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from gsz.errors import UserError
from gsz.files import read_bytes

META = "meta.json"
"""The file that names the images of a SOG."""

MODEL_SUFFIXES = (".ply", ".splat", ".ksplat", ".spz", ".sog", ".gsz", ".glb", ".gslzma")
SHOWN = 3
"""Names of an archive's files in a message."""

ZIP = (b"PK\3\4", b"PK\5\6")
"""How a zip begins, and an empty one."""

FOREIGN = {
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; run git lfs pull",
    b"<!doctype html": "a web page, not a model; download the file itself",
    b"<html": "a web page, not a model; download the file itself",
    b"lasf": "a LAS point cloud, not a trained model; give the point_cloud.ply of a trained model",
    b"astm-e57": "an E57 point cloud, not a trained model; give the point_cloud.ply of a trained model",
    b"\x93numpy": "a NumPy array, not a model; give the point_cloud.ply of a trained model",
    b"\x80\2": "a Python pickle, which is not read, since it can run programs; export the model to .ply",
    b"\x80\4": "a Python pickle, which is not read, since it can run programs; export the model to .ply",
    b"\x89png": "a PNG picture, not a model; check the path",
    b"\xff\xd8\xff": "a JPEG picture, not a model; check the path",
    b"7z\xbc\xaf": "a 7z archive; unpack it and give the file in it",
    b"rar!": "a RAR archive; unpack it and give the file in it",
}
"""How files begin that are no models, in small letters, and what to say of them."""


def explain(data: bytes) -> str | None:
    """What a file is that is certainly of no format of the registry, and what to do; None for all others."""
    head = data[:64].lstrip().lower()
    for magic, explanation in FOREIGN.items():
        if head.startswith(magic):
            return explanation
    return _explain_zip(data) if data.startswith(ZIP) else None


def read_model(path: str | Path) -> bytes:
    """The bytes of a file; for a folder with the files of a SOG, or its ``meta.json``, those of the zip of them.

    Raises:
        UserError: the file is missing or cannot be read, or it is another folder.
    """
    path = Path(path)
    if path.is_dir():
        if (path / META).is_file():
            return _bundled(path / META)
        models = sorted(found for found in path.iterdir() if found.name.lower().endswith(MODEL_SUFFIXES))
        models += sorted(path.glob("point_cloud/iteration_*/point_cloud.ply"))
        hint = f"give a file, such as {models[-1]}" if models else "give the file of a model"
        raise UserError(f"{path}: is a folder; {hint}")
    return _bundled(path) if path.suffix.lower() == ".json" else read_bytes(path)


def _bundled(meta: Path) -> bytes:
    """The zip that a SOG in loose files is bundled into."""
    text = read_bytes(meta)
    try:
        names = [
            name for entry in json.loads(text).values() if isinstance(entry, dict) for name in entry.get("files", [])
        ]
    except (ValueError, AttributeError, TypeError, RecursionError):
        names = []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{meta}: names no images beside it, as the meta.json of a SOG does; check the path")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(META, text)
        for name in dict.fromkeys(names):
            archive.writestr(name, read_bytes(meta.parent / name))
    return stream.getvalue()


def _explain_zip(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return None  # The reader of SOG says what is wrong with it.
    if any(Path(name).name == META for name in names):
        return None
    models = [name for name in names if name.lower().endswith(MODEL_SUFFIXES)]
    if models:
        return f"a zip that holds {_some(models)}; unzip it and give that file"
    if names and all(name.endswith(".npy") for name in names):
        return f"a NumPy archive (.npz) of {_some(names)}; give the point_cloud.ply of a trained model"
    if any(Path(name).name == "data.pkl" for name in names):
        return "a PyTorch checkpoint, which is not read, since it can run programs; export the model to .ply"
    return f"a zip without a model ({_some(names) if names else 'it is empty'}); check the path"


def _some(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
