"""The folder INRIA's training leaves behind, which viewers and scripts know how to read::

point_cloud/iteration_30000/point_cloud.ply    the model
cameras.json                                   the views it was made from
cfg_args                                       the options it was made with
input.ply                                      the points it was started from
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsz.errors import UserError
from gsz.files import read_bytes, read_json, write_text
from gsz.ply_header import abridged
from scene.cameras import Camera

if TYPE_CHECKING:
    from scene.gaussian_model import GaussianModel  # It needs PyTorch, which names of files and options do not.

log = logging.getLogger(__name__)

CAMERAS_FILE = "cameras.json"
OPTIONS_FILE = "cfg_args"
POINTS_FILE = "input.ply"

_ITERATION_FOLDER = re.compile(r"iteration_([0-9]{1,9})")
_MAX_OPTIONS_BYTES = 1 << 16


# --- The model -------------------------------------------------------------------------------------------------------


def checkpoint_path(model_dir: Path, iteration: int) -> Path:
    """Where the model of an iteration is, or goes."""
    return model_dir / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply"


def latest_iteration(model_dir: Path) -> int:
    """The highest iteration that has a ``point_cloud.ply``.

    Raises:
        UserError: there is none.
    """
    folders = (model_dir / "point_cloud").glob("iteration_*")
    matches = (_ITERATION_FOLDER.fullmatch(folder.name) for folder in folders)
    iterations = [int(match[1]) for match in matches if match]
    complete = [iteration for iteration in iterations if checkpoint_path(model_dir, iteration).is_file()]
    if not complete:
        raise UserError(
            f"{model_dir}: holds no point_cloud/iteration_*/point_cloud.ply; give the folder of a trained model"
        )
    return max(complete)


def load_checkpoint(
    model_dir: Path, iteration: int | None = None, sh_degree: int | None = None
) -> tuple[GaussianModel, int]:
    """The model of an iteration, or else of the latest, and which iteration it is.

    Args:
        sh_degree: The degree the model must have; ``None`` takes what is there.

    Raises:
        UserError: there is no such iteration, or its file is no usable model.
    """
    from scene.gaussian_model import GaussianModel

    if not model_dir.is_dir():
        raise UserError(f"{model_dir}: there is no such folder; give the folder of a trained model")
    found = latest_iteration(model_dir) if iteration is None else iteration
    return GaussianModel.load_ply(checkpoint_path(model_dir, found), sh_degree), found


def save_checkpoint(model_dir: Path, iteration: int, model: GaussianModel) -> Path:
    """Write the model of an iteration, atomically, and return where."""
    path = checkpoint_path(model_dir, iteration)
    model.save_ply(path)
    return path


# --- cameras.json ----------------------------------------------------------------------------------------------------


def write_cameras(model_dir: Path, cameras: Iterable[Camera]) -> None:
    """Write ``cameras.json``.

    ``position`` and the rows of ``rotation`` map the camera's axes (x right, y down, z forward) to the world.
    ``cx`` and ``cy``, which INRIA's files do not have, are written only where the principal point is off-center.
    """
    write_text(model_dir / CAMERAS_FILE, json.dumps(camera_entries(cameras)))


def camera_entries(cameras: Iterable[Camera]) -> list[dict[str, Any]]:
    """What ``cameras.json`` holds of cameras."""
    return [_camera_entry(i, camera) for i, camera in enumerate(cameras)]


def read_cameras(model_dir: Path) -> list[Camera]:
    """The cameras of ``cameras.json``, in its order, without photographs.

    Raises:
        UserError: the file is missing or damaged, or an entry is no camera.
    """
    return read_cameras_file(model_dir / CAMERAS_FILE)


def read_cameras_file(path: Path) -> list[Camera]:
    """As :func:`read_cameras`, of a file of any name."""
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: is not a list of cameras; copy it again")
    return [_camera(entry, path) for entry in entries]


def _camera_entry(index: int, camera: Camera) -> dict[str, Any]:
    entry = {
        "id": index,
        "img_name": camera.name,
        "width": camera.width,
        "height": camera.height,
        "position": camera.center.tolist(),
        "rotation": camera.world_to_camera[:3, :3].T.tolist(),
        "fy": camera.fy,
        "fx": camera.fx,
    }
    if (camera.cx, camera.cy) != (camera.width / 2, camera.height / 2):
        entry |= {"cx": camera.cx, "cy": camera.cy}
    return entry


def _camera(entry: Mapping[str, Any], path: Path) -> Camera:
    name = entry.get("img_name")
    if not isinstance(name, str) or not name.isprintable() or not name.strip("."):
        raise UserError(f"{path}: a camera has img_name {name!r}; correct it")
    width, height = _number(entry, "width", path), _number(entry, "height", path)
    if not (width.is_integer() and height.is_integer()):
        raise UserError(f"{path}: camera {name!r} has size {width}x{height}; correct it")
    try:
        rotation = np.array(entry["rotation"], np.float64).reshape(3, 3)
        position = np.array(entry["position"], np.float64).reshape(3)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: camera {name!r} lacks a 3x3 rotation or a position; copy the file again") from error
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation.T
    world_to_camera[:3, 3] = -rotation.T @ position
    return Camera(
        # The name keys what is written for a view, so it must not lead into another folder.
        name=name.replace("/", "_").replace("\\", "_"),
        width=int(width),
        height=int(height),
        fx=_number(entry, "fx", path),
        fy=_number(entry, "fy", path),
        cx=_number(entry, "cx", path) if "cx" in entry else width / 2,
        cy=_number(entry, "cy", path) if "cy" in entry else height / 2,
        world_to_camera=world_to_camera,
    ).check(str(path))


def _number(entry: Mapping[str, Any], key: str, path: Path) -> float:
    value = entry.get(key)
    # The bound also turns away NaN, infinity and integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise UserError(f"{path}: camera {entry.get('img_name')!r} has {key} = {str(value)[:40]}; correct it")
    return float(value)


# --- cfg_args --------------------------------------------------------------------------------------------------------


def write_options(model_dir: Path, options: Mapping[str, Any]) -> None:
    """Write ``cfg_args``, the text of an ``argparse.Namespace``; paths become strings."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    write_text(model_dir / OPTIONS_FILE, repr(argparse.Namespace(**plain)))


def read_options(model_dir: Path) -> dict[str, Any]:
    """The options in ``cfg_args``: the text of a Namespace, or, as some programs write it, JSON.

    The text is taken apart, never evaluated. Only literals and the paths of :mod:`pathlib`, which become strings, are
    admitted; other values are passed over with a warning.

    Raises:
        UserError: the file is missing or is anything but ``Namespace(name=value, ...)`` or a JSON object.
    """
    path = model_dir / OPTIONS_FILE
    data = read_bytes(path)
    # Deep nesting exhausts the parsers' stacks, which they report as MemoryError or RecursionError.
    try:
        if len(data) > _MAX_OPTIONS_BYTES:
            raise ValueError("too long")
        text = data.decode("utf-8-sig").strip()
        if text.startswith("{"):
            return dict(json.loads(text))
        values = _namespace(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: is not the Namespace(...) that training writes; copy it again") from error
    unknown = [name for name, value in values.items() if value is _UNKNOWN]
    if unknown:
        log.warning("%s: the values of %s are not plain, so they are passed over", path, abridged(unknown))
    return {name: value for name, value in values.items() if value is not _UNKNOWN}


def find_options(model_dir: Path) -> dict[str, Any]:
    """As :func:`read_options`; none where there is no file, or, with a warning, where it cannot be read."""
    if not (model_dir / OPTIONS_FILE).is_file():
        return {}
    try:
        return read_options(model_dir)
    except UserError as error:
        log.warning("%s; going on without it", error)
        return {}


_UNKNOWN = object()
"""In place of a value that is neither a literal nor a path."""
_OBJECT = re.compile(r"<[^<>]*>")
_PATH_TYPES = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")


def _namespace(text: str) -> dict[str, Any]:
    """The values of ``Namespace(name=value, ...)`` by name.

    Raises:
        ValueError: it is something else; or whatever else :func:`ast.parse` raises.
    """
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        # Objects that repr() shows as <...> are no expressions; a name in their place is passed over like them.
        call = ast.parse(_OBJECT.sub("_", text), mode="eval").body
    if not isinstance(call, ast.Call) or _name(call.func) != "Namespace" or call.args:
        raise ValueError("no Namespace")
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        # What is no Python name stands in a dictionary at the end.
        value = _value(keyword.value)
        values |= {keyword.arg: value} if keyword.arg else dict(value)
    return values


def _name(function: ast.expr) -> str | None:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def _value(node: ast.expr) -> Any:
    match node:
        # A path as repr() shows it, perhaps behind the name of its module.
        case ast.Call(func=function, args=[ast.Constant(value=str(path))], keywords=[]) if (
            _name(function) in _PATH_TYPES
        ):
            return path
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return _UNKNOWN
