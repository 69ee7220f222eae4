"""What ``render.py`` records beside the PNG files, for ``metrics.py``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsz.errors import UserError
from gsz.files import read_bytes

FILE_NAME = "render_info.json"


@dataclass(frozen=True)
class RenderInfo:
    """What was rendered, with what, and how fast.

    Attributes:
        file: Name of the model file.
        bytes: Size of that file.
        gaussians: Number of Gaussians in it.
        backend: Name of the renderer.
        device: The renderer's own description of what it ran on.
        resolution: ``(width, height)`` of the first view.
        fps: One over the median seconds a view, rendering alone; ``None`` where it was not measured.
    """

    file: str
    bytes: int
    gaussians: int
    backend: str
    device: str
    resolution: tuple[int, int]
    fps: float | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def read(folder: Path) -> RenderInfo | None:
        """The record in a folder such as ``test/ours_30000``, or ``None`` where there is none.

        Raises:
            UserError: the record is damaged.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            return _from_json(json.loads(read_bytes(path)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path}: is damaged ({error}); run render.py again") from error


def _from_json(fields: dict[str, Any]) -> RenderInfo:
    width, height = fields["resolution"]
    fps = fields["fps"]
    return RenderInfo(
        file=str(fields["file"]),
        bytes=int(fields["bytes"]),
        gaussians=int(fields["gaussians"]),
        backend=str(fields["backend"]),
        device=str(fields["device"]),
        resolution=(int(width), int(height)),
        fps=None if fps is None or not math.isfinite(fps) else float(fps),
    )
