"""Proves that what is given in place of a model is called what it is, and that a SOG in loose files is read."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import gsz
from gsz.errors import UserError
from gsz.foreign import explain
from tests.helpers import assert_same_up_to_order, random_model


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, means=np.zeros(3), colors=np.ones(3))
    return stream.getvalue()


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save(({"means": torch.zeros(3)}, 30_000), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(scan__point_cloud_dot_ply=b"ply"), "is a zip that holds scan/point_cloud.ply; unzip it"),
        (
            zipped(a_dot_ply=b"", b_dot_spz=b"", c_dot_sog=b"", d_dot_ply=b""),
            "a.ply, b.spz, c.sog and 1 more; unzip it",
        ),
        (zipped(photo_dot_jpg=b"", notes_dot_txt=b""), "is a zip without a model (photo.jpg, notes.txt)"),
        (zipped(**{"line\nbreak": b""}), r"is a zip without a model (line\nbreak)"),
        (zipped(), "empty"),
        (npz(), "is a NumPy archive (.npz) of means.npy, colors.npy"),
        (checkpoint(), "is a PyTorch checkpoint, which is not read, since it can run programs"),
        (b"\x80\x04\x95abc", "is a Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"LASF\0\0", "is a LAS point cloud"),
        (gzip.compress(b"ply\nformat ascii 1.0\n"), "is compressed with gzip; unpack it"),
        (b"BLENDER-v402", "is a scene of Blender"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
    ],
)
@pytest.mark.parametrize("name", ["model.ply", "model.sog"])
def test_foreign_files_are_named_in_the_message(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (gsz.read, gsz.info):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and said in message and "\n" not in message


def test_files_of_the_registry_are_not_foreign() -> None:
    for path in (Path(__file__).parents[1] / "golden").iterdir():
        if path.suffix != ".sha256":
            assert explain(path.read_bytes()) is None


def test_a_sog_in_loose_files_is_read(tmp_path: Path) -> None:
    """The folder of its files, and its ``meta.json``, are what the zip of them is."""
    bundled = tmp_path / "model.sog"
    gsz.write(bundled, random_model(50, sh_degree=1))
    with zipfile.ZipFile(bundled) as archive:
        archive.extractall(tmp_path / "scan")
    (tmp_path / "scan" / "secret.txt").write_text("no part of it")
    expected = gsz.read(bundled)
    for path in (tmp_path / "scan", tmp_path / "scan" / "meta.json"):
        assert_same_up_to_order(gsz.read(path), expected)
        assert gsz.info(path)["count"] == 50
    (tmp_path / "scan" / "quats.webp").unlink()
    with pytest.raises(UserError, match=r"quats\.webp: cannot be read"):
        gsz.read(tmp_path / "scan")


@pytest.mark.parametrize(("before", "folder"), [("./", ""), (".\\", ""), ("images/", "images"), ("images\\", "images")])
def test_the_names_of_a_sog_may_have_folders_and_backslashes(tmp_path: Path, before: str, folder: str) -> None:
    """In its ``meta.json``, and in the zip of it that a program of Windows wrote."""
    bundled = tmp_path / "model.sog"
    gsz.write(bundled, random_model(50, sh_degree=1))
    expected = gsz.read(bundled)
    (tmp_path / "scan" / folder).mkdir(parents=True)
    with zipfile.ZipFile(bundled) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(files.pop("meta.json"))
    for entry in meta.values():
        if isinstance(entry, dict) and "files" in entry:
            entry["files"] = [before + name for name in entry["files"]]
    (tmp_path / "scan" / "meta.json").write_text(json.dumps(meta), encoding="utf-8-sig")
    with zipfile.ZipFile(tmp_path / "windows.sog", "w") as archive:
        archive.writestr("scan\\meta.json", json.dumps(meta))
        for name, content in files.items():
            (tmp_path / "scan" / folder / name).write_bytes(content)
            archive.writestr("\\".join(filter(None, ["scan", folder, name])), content)
    for path in (tmp_path / "scan", tmp_path / "windows.sog"):
        assert_same_up_to_order(gsz.read(path), expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"means": 3}',
        '{"means": {"files": [3]}}',
        '{"means": {"files": ["../../etc/passwd"]}}',
        '{"a": {"files": ["/etc/passwd"]}}',
        "[" * 9999,
    ],
)
def test_a_meta_json_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    for path in (tmp_path, tmp_path / "meta.json"):
        with pytest.raises(UserError, match=r"meta\.json: names no images beside it, as the meta\.json of a SOG does"):
            gsz.read(path)


def test_other_folders_are_told_which_file_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; give the file of a model"):
        gsz.read(tmp_path)
    model = tmp_path / "point_cloud" / "iteration_7000" / "point_cloud.ply"
    random_model(3).save_ply(model)
    with pytest.raises(UserError, match=rf"is a folder; give a file, such as {model}"):
        gsz.read(tmp_path)
    with pytest.raises(UserError, match=rf"is a folder; give a file, such as {model}"):
        gsz.read(model.parent)
