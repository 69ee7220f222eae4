"""What is given in place of a model's file: folders, archives, pages, files of other programs."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from gsz.errors import UserError
from gsz.files import read_bytes

META = "meta.json"
"""The file that names the images of a SOG."""

MODEL_SUFFIXES = (".ply", ".splat", ".ksplat", ".spz", ".sog", ".gsz", ".glb", ".gslzma")
SHOWN = 3
"""Names of an archive's files in a message."""

ZIP = (b"PK\3\4", b"PK\5\6")
"""How a zip begins, and an empty one."""

GZIP = b"\x1f\x8b"
SPZ = b"NGSP"
"""What is below the gzip of an SPZ."""

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
    b"%pdf": "a PDF, not a model; check the path",
    b"blender": "a scene of Blender, not a model; export it to .ply",
    b"bzh": "compressed with bzip2; unpack it and give the file in it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it and give the file in it",
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
    if data.startswith(GZIP):
        return _explain_gzip(data)
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


def plain_name(name: object) -> str | None:
    """The name of a file in or below a folder as the folder has it, whoever has written it, or None for all others."""
    if not isinstance(name, str) or "\0" in name:
        return None
    path = PurePosixPath(name.replace("\\", "/"))
    safe = path.parts and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
    return str(path) if safe else None


def _bundled(meta: Path) -> bytes:
    """The zip that a SOG in loose files is bundled into."""
    text = read_bytes(meta)
    try:
        named = [
            name for entry in json.loads(text).values() if isinstance(entry, dict) for name in entry.get("files", [])
        ]
    except (ValueError, AttributeError, TypeError, RecursionError):
        named = []
    names = [plain_name(name) for name in named]
    if not names or None in names:
        raise UserError(f"{meta}: names no images beside it, as the meta.json of a SOG does; check the path")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(META, text)
        for name in filter(None, dict.fromkeys(names)):
            archive.writestr(name, read_bytes(meta.parent / name))
    return stream.getvalue()


def _explain_gzip(data: bytes) -> str | None:
    try:
        head = zlib.decompressobj(wbits=31).decompress(data[: 1 << 12], 64)
    except zlib.error:
        return None  # The reader of SPZ says what is wrong with it.
    return None if head.startswith(SPZ) or not head else "compressed with gzip; unpack it and give the file in it"


def _explain_zip(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return None  # The reader of SOG says what is wrong with it.
    if any(PurePosixPath(name.replace("\\", "/")).name == META for name in names):
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
