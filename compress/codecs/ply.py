"""INRIA's ``.ply``: six float32 parameters before their activations. Every model is on its grid as it is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from compress.codecs.contract import Codec, CodecError, Grid
from scene.gaussian_model import GaussianModel, describe_ply, read_ply, write_ply
from utils.errors import UserError


class PlyGrid(Grid):
    """All of float32."""

    def snap(self, splats: GaussianModel) -> GaussianModel:
        return splats

    def encode(self, splats: GaussianModel) -> bytes:
        stream = io.BytesIO()
        write_ply(splats, stream)
        return stream.getvalue()


@dataclass(frozen=True)
class PlyCodec(Codec):
    """INRIA's checkpoint layout, as :mod:`scene.gaussian_model` reads and writes it. Keeps the order of Gaussians."""

    name = "ply"
    suffix = ".ply"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith((b"ply\n", b"ply\r"))

    def fit(self, splats: GaussianModel) -> Grid:
        return PlyGrid()

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        try:
            return read_ply(io.BytesIO(data), source)
        except UserError as error:
            raise CodecError(str(error)) from error

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        try:
            count, sh_degree, widths = describe_ply(io.BytesIO(data), source)
        except UserError as error:
            raise CodecError(str(error)) from error
        sizes = {name: count * width for name, width in widths.items()}
        return {"format": self.name, "version": None, "count": count, "sh_degree": sh_degree, "bytes": sizes}
