"""Whether the files of a binary COLMAP model are whole.

COLMAP's own reader believes every length in them and does not notice when they end early: it returns cameras of
chance numbers, or asks for all memory there is, or reads for minutes. So the records are walked here by their lengths
alone, before it is let near them. The layout is that of COLMAP's documentation ("Binary File Format"): little-endian,
a uint64 count, then the records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from gsz.errors import UserError
from gsz.files import read_bytes

_UINT64 = struct.Struct("<Q")
_POSE_BYTES = 4 * 8 + 3 * 8
_CAMERA_HEAD = struct.Struct("<IiQQ")
_IMAGE_HEAD_BYTES = 4 + _POSE_BYTES + 4
_IMAGE_POINT_BYTES = 2 * 8 + 8
_POINT_HEAD_BYTES = 8 + 3 * 8 + 3 + 8
_TRACK_ELEMENT_BYTES = 2 * 4
_RIG_HEAD = struct.Struct("<II")
_SENSOR_BYTES = 4 + 4
_FRAME_HEAD_BYTES = 4 + 4 + _POSE_BYTES
_FRAME_DATA_BYTES = _SENSOR_BYTES + 8
_UINT32 = struct.Struct("<I")


def check_colmap_binaries(folder: Path) -> None:
    """Raise :class:`UserError` where a file of the binary model in ``folder`` ends before its records do."""
    for name, end_of_record in _RECORDS.items():
        path = folder / f"{name}.bin"
        # Rigs and frames are there only in models of COLMAP 3.12 and later.
        if not path.is_file() and name in ("rigs", "frames"):
            continue
        data = read_bytes(path)
        try:
            (count,) = _UINT64.unpack_from(data)
            offset = _UINT64.size
            for _ in range(count):
                offset = end_of_record(data, offset)
                if offset > len(data):
                    raise ValueError("the last record is cut off")
        # struct.error: a length lies beyond the end.
        except (struct.error, ValueError) as error:
            raise UserError(
                f"{path}: is truncated or damaged ({len(data)} bytes); copy the COLMAP model again"
            ) from error


def _end_of_camera(data: bytes, offset: int) -> int:
    import pycolmap

    _, model_id, _, _ = _CAMERA_HEAD.unpack_from(data, offset)
    parameters = pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(model_id), 1.0, 1, 1).params
    return offset + _CAMERA_HEAD.size + 8 * len(parameters)


def _end_of_image(data: bytes, offset: int) -> int:
    # bytes.index raises ValueError where the name does not end.
    name_end = data.index(b"\0", offset + _IMAGE_HEAD_BYTES) + 1
    (points,) = _UINT64.unpack_from(data, name_end)
    return name_end + _UINT64.size + _IMAGE_POINT_BYTES * int(points)


def _end_of_point(data: bytes, offset: int) -> int:
    (track_length,) = _UINT64.unpack_from(data, offset + _POINT_HEAD_BYTES)
    return offset + _POINT_HEAD_BYTES + _UINT64.size + _TRACK_ELEMENT_BYTES * int(track_length)


def _end_of_rig(data: bytes, offset: int) -> int:
    _, sensors = _RIG_HEAD.unpack_from(data, offset)
    offset += _RIG_HEAD.size
    for index in range(sensors):
        offset += _SENSOR_BYTES
        # Each sensor but the first, which the others are relative to, says whether its pose follows.
        if index > 0:
            has_pose = data[offset : offset + 1]
            if not has_pose:
                raise ValueError("a sensor is cut off")
            offset += 1 + (_POSE_BYTES if has_pose != b"\0" else 0)
    return offset


def _end_of_frame(data: bytes, offset: int) -> int:
    (entries,) = _UINT32.unpack_from(data, offset + _FRAME_HEAD_BYTES)
    return offset + _FRAME_HEAD_BYTES + _UINT32.size + _FRAME_DATA_BYTES * int(entries)


_RECORDS: dict[str, Callable[[bytes, int], int]] = {
    "cameras": _end_of_camera,
    "images": _end_of_image,
    "points3D": _end_of_point,
    "rigs": _end_of_rig,
    "frames": _end_of_frame,
}
