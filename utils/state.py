"""States to resume from: a JSON object and plain arrays in an uncompressed ``.npz``, nothing that could be executed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsz.errors import UserError
from gsz.files import atomic_path
from gsz.splats import MAX_SH_DEGREE, PARAMETERS, Splats, parameter_shapes, sh_coefficients

Arrays = dict[str, npt.NDArray[Any]]

_DESCRIPTION = "description"
_SH_DEGREES = {(sh_coefficients(degree),): degree for degree in range(MAX_SH_DEGREE + 1)}


def write_state(path: Path, description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a state atomically.

    Args:
        description: A JSON object.
        arrays: Numbers, by name.
    """
    text = np.frombuffer(json.dumps(dict(description), sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_DESCRIPTION: text}, **arrays)


def read_state(path: Path, remedy: str) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays that :func:`write_state` wrote.

    Raises:
        UserError: the file is missing or damaged; the message ends with ``remedy``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): _read_array(archive, member, path.stat().st_size)
                for member in archive.infolist()
            }
        return _description(arrays.pop(_DESCRIPTION)), arrays
    except _DAMAGE as error:
        raise damaged(path, error, remedy) from error


def read_description(path: Path, remedy: str) -> dict[str, Any]:
    """The description alone; raises as :func:`read_state` does."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _description(_read_array(archive, archive.getinfo(f"{_DESCRIPTION}.npy"), path.stat().st_size))
    except _DAMAGE as error:
        raise damaged(path, error, remedy) from error


_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile)


def _description(text: npt.NDArray[Any]) -> dict[str, Any]:
    description = json.loads(text.tobytes())
    if not isinstance(description, dict):
        raise ValueError("its description is not an object")
    return description


def damaged(path: Path, error: Exception, remedy: str) -> UserError:
    """What to tell the user of a state that cannot be read."""
    return UserError(f"{path}: is not a readable state of this program ({error}); {remedy}")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file_size: int) -> npt.NDArray[Any]:
    """One array of an uncompressed ``.npz``; no length is believed before the bytes for it are there."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > file_size:
        raise ValueError(f"{member.filename} is not stored as it should be")
    data = archive.read(member)
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{member.filename} is of an unknown version")
    shape, column_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fiu" or column_order:
        raise ValueError(f"{member.filename} holds something unexpected")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape).copy()


def splats_to_arrays(splats: Splats, prefix: str) -> Arrays:
    """The six parameters by name, each name after ``prefix.``."""
    return {f"{prefix}.{name}": array for name, array in splats.numpy().named_parameters()}


def splats_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Splats[npt.NDArray[np.float32]]:
    """The model that :func:`splats_to_arrays` took apart.

    Raises:
        KeyError, ValueError: an array is missing or of another shape or type.
    """
    count, degree = len(arrays[f"{prefix}.means"]), _SH_DEGREES.get(arrays[f"{prefix}.sh_rest"].shape[1:2])
    if degree is None:
        raise ValueError(f"{prefix}.sh_rest has a wrong shape")
    shapes = parameter_shapes(count, degree)
    return Splats(**{name: floats(arrays[f"{prefix}.{name}"], shapes[name]) for name in PARAMETERS})


def floats(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The array, once it is known to be float32 of that shape; :class:`ValueError` if it is not."""
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"an array of {values.dtype} {values.shape} stands where float32 {shape} should")
    return values


def check_settings(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str) -> None:
    """Find out whether what is to go on was begun with the same settings.

    Raises:
        UserError: it was not; the message names the settings that differ and ends with ``remedy``.
    """
    wanted = json.loads(json.dumps(dict(wanted)))  # Tuples come back as lists.
    names = sorted(name for name in {*saved, *wanted} if saved.get(name) != wanted.get(name))
    if names:
        first, others = names[0], names[1:]
        more = f" (and {', '.join(others)})" if others else ""
        raise UserError(
            f"{path}: was made with {first} = {_short(saved.get(first))}, not {_short(wanted.get(first))}{more}; "
            f"{remedy}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
