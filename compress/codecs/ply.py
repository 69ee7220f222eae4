"""INRIA's ``.ply``: six float32 parameters before their activations. Every model is already on its grid."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.codecs.contract import Codec, CodecError, Grid
from scene.gaussian_model import GaussianModel
from utils.errors import UserError


class PlyGrid(Grid):
    """All of float32."""

    def snap(self, splats: GaussianModel) -> GaussianModel:
        return splats

    def encode(self, splats: GaussianModel) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            splats.detach().to("cpu").save_ply(path)
            return path.read_bytes()


@dataclass(frozen=True)
class PlyCodec(Codec):
    """INRIA's checkpoint layout, read and written by :class:`GaussianModel`. Its order of Gaussians is kept."""

    name = "ply"
    suffix = ".ply"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith((b"ply\n", b"ply\r\n"))

    def fit(self, splats: GaussianModel) -> Grid:
        return PlyGrid()

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            path.write_bytes(data)
            try:
                return GaussianModel.load_ply(path)
            except UserError as error:
                raise CodecError(str(error).replace(str(path), source)) from error
