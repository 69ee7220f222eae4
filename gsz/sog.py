"""PlayCanvas' ``.sog``, version 2: lossless WebP images of bytes and a ``meta.json``, in one zip.

Written after the public specification (developer.playcanvas.com, "The SOG Format") and checked against files and
readers of others. A pixel of each image is a Gaussian; spherical harmonics are one palette of vectors for all
Gaussians. ``docs/formats.md`` has the layout.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gsz.coding.morton import morton_order
from gsz.contract import Codec, CodecError, Grid
from gsz.errors import UserError
from gsz.rounding.codebooks import (
    CODEBOOK_SIZE,
    Float32s,
    Palette,
    PaletteFitter,
    centroids_of,
    fit_codebook,
    nearest_centroids,
    short_decimal,
    sums_of,
)
from gsz.rounding.quantizers import (
    MORE_SH_BITS,
    MOST_SH_BITS,
    OPACITY_LOGITS,
    OPACITY_MIDPOINTS,
    SH_UNIT,
    Bytes,
    as_array,
    bits_of_sh,
    check_viewer_settings,
    constant,
    drop_largest,
    log2_prominence,
    look_up,
    midpoints_of,
    nearest_levels,
    restore_largest,
    round_to_multiples,
    signed_log,
    straight_through,
    straight_through_rotation,
    whole,
)
from scene.gaussian_model import MAX_SH_DEGREE, GaussianModel

VERSION = 2
META = "meta.json"
FILES = {
    "means": ["means_l.webp", "means_u.webp"],
    "quats": ["quats.webp"],
    "scales": ["scales.webp"],
    "sh0": ["sh0.webp"],
    "shN": ["shN_centroids.webp", "shN_labels.webp"],
}
ATTRIBUTES = {
    "means": "means",
    "quats": "quaternions",
    "scales": "log_scales",
    "sh0": "sh_dc and opacity_logits",
    "shN": "sh_rest",
}
"""What each entry of ``meta.json`` is called in this program."""

ZIP_MAGIC = b"PK\x03\x04"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that equal models make equal files."""

PALETTE_ROW = 64
"""Palette vectors in a row of their image."""

MAX_PALETTE = 1 << 16
MEAN_STEPS = (1 << 16) - 1
LARGEST_FLOAT = float(np.finfo(np.float32).max)
ROTATION_UNIT = 255 * math.sqrt(2)
"""Rotation components are bytes ``b`` for ``(2 b - 255) / 255``, full scale being 1 / sqrt(2)."""

ROTATION_TAG = 252
"""The fourth byte of a rotation, plus the index of the largest component in the order w x y z."""

MOST_META_BYTES = 1 << 20
MOST_UNZIPPED = 1032
"""Most bytes that a byte of a member becomes under deflate."""

PIXELS_FREE = 1 << 18
PIXELS_A_BYTE = 64
"""An image may claim :data:`PIXELS_FREE` pixels, and this many more for every byte of the file."""


@dataclass(frozen=True, eq=False)
class _Tables:
    """What the bytes of a file stand for.

    Attributes:
        lows, highs: ``(3,)`` float64 ends of the positions' range, as ``sign(x) log(1 + abs(x))``.
        scales, colors: Ascending codebooks of log-scales and of SH of degree 0.
    """

    lows: npt.NDArray[np.float64]
    highs: npt.NDArray[np.float64]
    scales: Float32s
    colors: Float32s

    @cached_property
    def _on_devices(self) -> dict[torch.device, _DeviceTables]:
        return {}

    def on(self, device: torch.device) -> _DeviceTables:
        """These tables on a device; they are copied there once."""
        if device not in self._on_devices:
            self._on_devices[device] = _DeviceTables(
                means=constant(self.means.reshape(-1), device),
                mean_lows=constant(self.lows, device, torch.float64),
                mean_rates=constant(self.rates, device, torch.float64),
                mean_offsets=constant(np.arange(3) << 16, device, torch.int32),
                scales=constant(self.scales, device),
                scale_thresholds=constant(midpoints_of(self.scales), device),
                colors=constant(self.colors, device),
                color_thresholds=constant(midpoints_of(self.colors), device),
                opacities=constant(OPACITY_LOGITS, device),
                opacity_thresholds=constant(OPACITY_MIDPOINTS, device),
            )
        return self._on_devices[device]

    @property
    def rates(self) -> npt.NDArray[np.float64]:
        """``(3,)`` levels of positions in a unit of their logarithm."""
        spans = self.highs - self.lows
        return np.divide(MEAN_STEPS, spans, out=np.zeros(3), where=spans > 0)

    @cached_property
    def means(self) -> Float32s:
        """``(3, 65536)`` coordinates by axis and 16-bit level."""
        share = np.arange(MEAN_STEPS + 1) / MEAN_STEPS
        logs = self.lows[:, None] + (self.highs - self.lows)[:, None] * share
        coordinates = np.sign(logs) * (np.exp(np.abs(logs)) - 1)
        return np.clip(coordinates, -LARGEST_FLOAT, LARGEST_FLOAT).astype(np.float32)


class _DeviceTables(NamedTuple):
    """Ascending values, and the thresholds between them at which the nearest one changes.

    Attributes:
        means: ``(3 * 65536,)``, axis by axis; an axis begins at its entry of ``mean_offsets``.
        mean_lows, mean_rates: ``(3,)`` float64, logarithms of the first levels, and levels in a unit of them.
    """

    means: Tensor
    mean_lows: Tensor
    mean_rates: Tensor
    mean_offsets: Tensor
    scales: Tensor
    scale_thresholds: Tensor
    colors: Tensor
    color_thresholds: Tensor
    opacities: Tensor
    opacity_thresholds: Tensor


@dataclass(eq=False)
class _Levels:
    """The integers of a file, a row a Gaussian; int32 but for ``largest``.

    Attributes:
        means: ``(N, 3)`` of 16 bits.
        largest: ``(N,)`` int64 index of the largest component of the rotation, w x y z.
        others: ``(N, 3)`` bytes of the other components.
        scales, colors: ``(N, 3)`` indices into the codebooks.
        opacities: ``(N,)`` bytes.
        sh_rest: ``(N, K, 3)`` values of the palette.
    """

    means: Tensor
    largest: Tensor
    others: Tensor
    scales: Tensor
    colors: Tensor
    opacities: Tensor
    sh_rest: Tensor

    def values(self, tables: _DeviceTables) -> GaussianModel:
        """What the integers stand for: the one path that both decoding and snapping take."""
        return GaussianModel(
            means=look_up(tables.means, self.means + tables.mean_offsets),
            log_scales=look_up(tables.scales, self.scales),
            quaternions=restore_largest(self.largest, 2 * self.others - 255, ROTATION_UNIT),
            opacity_logits=look_up(tables.opacities, self.opacities)[:, None],
            sh_dc=look_up(tables.colors, self.colors)[:, None],
            sh_rest=self.sh_rest,
        )


LEAST_SCALE_WEIGHT = 1e-3
"""Added to the weights of scales in their codebook, whose average is 1."""

FOLLOW_EVERY = 4
"""Iterations after which the palette moves to where its Gaussians have gone: it costs as much as a snap."""

EVEN_LEVELS = 96
"""Entries of the codebook of SH coefficients to either side of 0 that are evenly spaced."""

SAME_PLACE = 0.02
"""How far the median Gaussian may have moved, in radii of the model, before it is taken for another one."""

WITNESSES = 4096
"""Gaussians that are looked at for that, evenly spread over the order."""


class _Shared(torch.autograd.Function):
    """Palette vectors in the place of rows. The gradient of a vector is the sum of its rows', and each of them gets it.

    So Adam moves them all alike, as if the vector itself were what is optimised. With gradients of their own, rows that
    hardly matter would move as fast as those that do, and nothing would bring any back to the vector it is shown as.
    """

    @staticmethod
    def forward(ctx: Any, sh_rest: Tensor, values: Tensor, labels: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(labels)
        ctx.count = count
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (labels,) = ctx.saved_tensors
        rows = _rows(gradients[0])
        sums, _ = sums_of(rows, torch.ones_like(rows[:, 0]), labels, ctx.count)
        return sums.float().index_select(0, labels).reshape(gradients[0].shape), None, None, None


class _ShGrid:
    """The palette of spherical harmonics: vectors for rows, and a codebook for the vectors' numbers.

    Which vector a Gaussian has is settled when the grid is fitted, since searching among thousands of vectors anew
    in every iteration would take seconds. Where the vectors are follows their Gaussians. A vector's numbers are
    multiples of its own step before they become entries of the codebook: an image of few different bytes is small.

    Attributes:
        codebook: ``(256,)`` float32, on the CPU.
        entries: ``(vectors, 3 K)`` int32 indices into it, on the device of the model.
    """

    def __init__(
        self,
        palette: Palette,
        steps: npt.NDArray[np.floating],
        codebook: Float32s,
        weights: Float32s,
        splats: GaussianModel,
    ) -> None:
        device = splats.device
        self.codebook = codebook
        self._labels = constant(palette.labels, device, torch.int64)
        self._weights = constant(weights, device)
        self._steps = constant(steps, device)
        self._scale = constant(np.full(palette.centroids.shape[1], SH_UNIT), device)
        self._levels, self._thresholds = constant(codebook, device), constant(midpoints_of(codebook), device)
        self._observed = 0
        self._know(splats.means)
        self._follow(constant(palette.centroids, device))

    def observe(self, splats: GaussianModel) -> None:
        """Take note of where the Gaussians are, and now and then move the vectors to their means."""
        if not self._are_the_same(splats.means):
            return
        self._know(splats.means)
        self._observed += 1
        if self._observed % FOLLOW_EVERY == 1:
            self._follow(centroids_of(_rows(splats.sh_rest), self._weights, self._labels, self._centroids))

    def labels_of(self, splats: GaussianModel) -> Tensor:
        """``(N,)`` int64 vectors of rows: as settled for the Gaussians fitted, the nearest, unrounded, for others."""
        if self._are_the_same(splats.means):
            return self._labels
        labels, _ = nearest_centroids(as_array(_rows(splats.sh_rest)), as_array(self._centroids))
        return constant(labels, splats.device, torch.int64)

    def values(self, labels: Tensor) -> Tensor:
        """``(N, 3 K)`` numbers of the vectors."""
        return look_up(self._levels, self.entries).index_select(0, labels)

    def _follow(self, centroids: Tensor) -> None:
        self._centroids = centroids
        multiples = round_to_multiples(centroids, self._scale, self._steps, -LARGEST_FLOAT, LARGEST_FLOAT)
        self.entries = nearest_levels(multiples / SH_UNIT, self._thresholds)

    def _know(self, means: Tensor) -> None:
        self._known = ref(means)
        self._means = _witnesses(means).clone()

    def _are_the_same(self, means: Tensor) -> bool:
        """Whether these are the Gaussians last observed, in their order: as many, and about where they were.

        The very tensor that was observed is known at once: fine-tuning moves it in place, and on a GPU need not wait.
        """
        if self._known() is means:
            return True
        if len(means) != len(self._labels):
            return False
        if len(means) == 0:
            return True
        witnesses, known = as_array(_witnesses(means)), as_array(self._means)
        distances = np.abs(known - np.median(known, axis=0))
        return bool(np.median(np.abs(witnesses - known)) <= SAME_PLACE * np.median(distances))


def _witnesses(means: Tensor) -> Tensor:
    return means.detach()[:: max(1, len(means) // WITNESSES)]


@dataclass(eq=False)
class SogGrid(Grid):
    """The range of positions, three codebooks and the palette of one model.

    The grid belongs to the Gaussians it was fitted to, in their order: as long as they are passed, each keeps its
    palette vector, and :meth:`observe` moves the vectors to the means of their Gaussians. Others, or the same in
    another order, are matched to the nearest vectors anew, which takes seconds for large models.
    """

    tables: _Tables
    sh: _ShGrid | None

    def observe(self, splats: GaussianModel) -> None:
        if self.sh is not None:
            self.sh.observe(splats)

    def snap(self, splats: GaussianModel) -> GaussianModel:
        levels, labels, signs = self._levels(splats)
        values, tables = levels.values(self.tables.on(splats.device)), self.tables

        def shared(sh_rest: Tensor, snapped: Tensor) -> Tensor:
            if self.sh is None or labels is None:
                return straight_through(sh_rest, snapped)
            return _Shared.apply(sh_rest, snapped, labels, len(self.sh.entries))

        return GaussianModel(
            # Bounds by axis would matter little: positions leave the model's own box rarely and not far.
            means=straight_through(splats.means, values.means),
            log_scales=straight_through(splats.log_scales, values.log_scales, *_ends(tables.scales)),
            quaternions=straight_through_rotation(splats.quaternions, values.quaternions, signs),
            opacity_logits=straight_through(splats.opacity_logits, values.opacity_logits, *_ends(OPACITY_LOGITS)),
            sh_dc=straight_through(splats.sh_dc, values.sh_dc, *_ends(tables.colors)),
            sh_rest=shared(splats.sh_rest, values.sh_rest),
        )

    def encode(self, splats: GaussianModel) -> bytes:
        levels, labels, _ = self._levels(splats)
        order = morton_order(as_array(splats.means))
        count = len(splats)
        width = 4 * max(1, math.ceil(math.sqrt(count) / 4))
        height = 4 * max(1, math.ceil(count / width / 4))

        def image(columns: Tensor) -> bytes:
            pixels = np.zeros((height * width, columns.shape[1]), np.uint8)
            pixels[:count] = columns.to(torch.uint8).cpu().numpy()[order]
            return _write_webp(pixels.reshape(height, width, -1))

        tag = (levels.largest + ROTATION_TAG)[:, None]
        members = {
            "means_l.webp": image(levels.means & 255),
            "means_u.webp": image(levels.means >> 8),
            "quats.webp": image(torch.cat([levels.others, tag], 1)),
            "scales.webp": image(levels.scales),
            "sh0.webp": image(torch.cat([levels.colors, levels.opacities[:, None]], 1)),
        }
        meta = {
            "version": VERSION,
            "asset": {"generator": "gsz"},
            "count": count,
            "means": {"mins": self.tables.lows.tolist(), "maxs": self.tables.highs.tolist(), "files": FILES["means"]},
            "scales": {"codebook": _decimals(self.tables.scales), "files": FILES["scales"]},
            "quats": {"files": FILES["quats"]},
            "sh0": {"codebook": _decimals(self.tables.colors), "files": FILES["sh0"]},
        }
        if self.sh is not None and labels is not None:
            entries = self.sh.entries.to(torch.uint8).cpu().numpy()
            members["shN_centroids.webp"] = _write_webp(_palette_image(entries))
            members["shN_labels.webp"] = image(torch.stack([labels & 255, labels >> 8, torch.zeros_like(labels)], 1))
            meta["shN"] = {
                "count": len(entries),
                "bands": splats.sh_degree,
                "codebook": _decimals(self.sh.codebook),
                "files": FILES["shN"],
            }
        return _write_zip({META: json.dumps(meta, separators=(",", ":")).encode(), **members})

    def _levels(self, splats: GaussianModel) -> tuple[_Levels, Tensor | None, Tensor]:
        """The integers of every Gaussian in the order of ``splats``, its palette vector, and its quaternion's sign."""
        tables = self.tables.on(splats.device)
        labels, sh_rest = None, splats.sh_rest.detach()
        if self.sh is not None:
            labels = self.sh.labels_of(splats)
            sh_rest = self.sh.values(labels).reshape(sh_rest.shape)
        largest, signs, others = drop_largest(splats.quaternions)
        levels = _Levels(
            means=whole((signed_log(splats.means) - tables.mean_lows) * tables.mean_rates, 0, MEAN_STEPS),
            largest=largest,
            others=whole((others * math.sqrt(2) + 1.0) * 127.5, 0, 255),
            scales=nearest_levels(splats.log_scales, tables.scale_thresholds),
            colors=nearest_levels(splats.sh_dc.reshape(-1, 3), tables.color_thresholds),
            opacities=nearest_levels(splats.opacity_logits.reshape(-1), tables.opacity_thresholds),
            sh_rest=sh_rest,
        )
        return levels, labels, signs


def _rows(sh_rest: Tensor) -> Tensor:
    """``(N, 3 K)`` coefficients of ``(N, K, 3)``, the channels of one adjacent."""
    return sh_rest.detach().reshape(len(sh_rest), 3 * sh_rest.shape[1])


def _ends(table: Float32s) -> tuple[float, float]:
    return float(table[0]), float(table[-1])


def _decimals(codebook: Float32s) -> list[float]:
    return [short_decimal(level) for level in codebook]


def _palette_image(entries: Bytes) -> Bytes:
    """``(rows, 64 K, 3)``: the ``K`` coefficients of a vector are adjacent pixels, 64 vectors make a row."""
    count, numbers = entries.shape
    rows = math.ceil(count / PALETTE_ROW)
    padded = np.zeros((rows * PALETTE_ROW, numbers), np.uint8)
    padded[:count] = entries
    return padded.reshape(rows, PALETTE_ROW * numbers // 3, 3)


def _write_webp(pixels: Bytes) -> bytes:
    """A lossless image; ``exact`` keeps the colours where alpha, here a number like any other, is 0."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=50, method=3)
    return buffer.getvalue()


def _write_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)
    return buffer.getvalue()


@dataclass(frozen=True)
class SogCodec(Codec):
    """The settings of files written.

    Attributes:
        palette: Most vectors of spherical harmonics, 1 to 65536. Gaussians share vectors only where there are more of
            them; fewer vectors make smaller files of less than they cost in quality.
        sh_bits: Bits of the SH coefficients of an average Gaussian, 2 to 16; vectors that show more get up to 8, and
            all of them at 16. Readers need not know it.
        quality: best, high, medium, low or tiny: these bits (medium), one more or less, two less, or all 8 (best).
        iterations: Of k-means for the palette.
        seed: Of its starting points.
    """

    name = "sog"
    suffix = ".sog"

    palette: int = MAX_PALETTE
    sh_bits: float = 6.0
    quality: str = "medium"
    iterations: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.palette <= MAX_PALETTE:
            raise UserError(f"codec sog: palette {self.palette} is not between 1 and {MAX_PALETTE}")
        check_viewer_settings(self.name, self.sh_bits, self.quality)

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        return head.startswith(ZIP_MAGIC) or (head.lstrip().startswith(b"{") and b'"version"' in head)

    def fit(self, splats: GaussianModel) -> SogGrid:
        if len(splats) == 0:
            lows = highs = np.zeros(3)
        else:
            logs = signed_log(splats.means).cpu().numpy()
            lows, highs = logs.min(axis=0), logs.max(axis=0)
        # What a Gaussian covers is its prominence squared; the few largest need the finest steps.
        scale_weights = np.broadcast_to(_weights(splats, 2.0)[:, None] + LEAST_SCALE_WEIGHT, (len(splats), 3))
        scales = fit_codebook(as_array(splats.log_scales), scale_weights)
        colors = fit_codebook(as_array(splats.sh_dc))
        return SogGrid(_Tables(lows, highs, scales, colors), self._fit_sh(splats))

    def _fit_sh(self, splats: GaussianModel) -> _ShGrid | None:
        if splats.sh_degree == 0:
            return None
        rows = as_array(_rows(splats.sh_rest))
        weights = _weights(splats)
        palette = self._fit_palette(rows, weights)
        bits = self._bits(palette, splats)
        # Neighbours in the image are vectors of like steps, and among these neighbours in space.
        first = np.full(len(bits), len(rows))
        np.minimum.at(first, palette.labels[morton_order(as_array(splats.means))], np.arange(len(rows)))
        order = np.lexsort((first, -bits))
        palette = Palette(np.argsort(order)[palette.labels], palette.centroids[order])
        steps = np.exp2(MOST_SH_BITS - bits[order])
        return _ShGrid(palette, steps, _sh_codebook(rows), weights, splats)

    def _bits(self, palette: Palette, splats: GaussianModel) -> npt.NDArray[np.int32]:
        """Bits of each vector's numbers. Squares of what its Gaussians show add up, as those of their errors do."""
        logs = log2_prominence(splats).cpu().numpy()
        average = float(logs.mean()) if len(logs) else 0.0
        squares = np.bincount(palette.labels, np.exp2(2 * (logs - average)), len(palette.centroids))
        together = 0.5 * np.log2(np.maximum(squares, np.finfo(np.float64).tiny))
        return bits_of_sh(torch.from_numpy(together), 0.0, self.sh_bits + MORE_SH_BITS[self.quality]).numpy()

    def _fit_palette(self, rows: Float32s, weights: Float32s) -> Palette:
        """A palette in which rows of zeros have the first vector for themselves.

        In the cell of another vector the view dependence that was pruned from them would come back.
        """
        size = self.palette
        fitter = PaletteFitter(size, self.iterations, self.seed)
        colored = np.flatnonzero(rows.any(axis=1))
        if len(rows) and (len(colored) == len(rows) or size == 1):
            return fitter.fit(rows, weights)
        fitted = replace(fitter, size=size - 1).fit(rows[colored], weights[colored])
        labels = np.zeros(len(rows), np.int64)
        labels[colored] = 1 + fitted.labels
        return Palette(labels, np.concatenate([np.zeros((1, rows.shape[1]), np.float32), fitted.centroids]))

    def decode(self, data: bytes, source: str = "<bytes>") -> GaussianModel:
        return _Reader(data, source).model()

    def info(self, data: bytes, source: str = "<bytes>") -> dict[str, Any]:
        reader = _Reader(data, source)
        sizes = {ATTRIBUTES[key]: sum(map(reader.packed_size, files)) for key, files in reader.files.items()}
        return {
            "format": self.name,
            "version": VERSION,
            "count": reader.count,
            "sh_degree": reader.sh_degree,
            "palette": reader.palette_size,
            "bytes": {**sizes, "tables": reader.packed_size(META)},
        }


def _weights(splats: GaussianModel, power: float = 1.0) -> Float32s:
    """``(N,)`` powers of the prominence of Gaussians, 1 on average.

    As weights in the palette they halve what an unweighted one loses on the demo's model.
    """
    if len(splats) == 0:
        return np.zeros(0, np.float32)
    logs = log2_prominence(splats).cpu().numpy()
    prominence = np.exp2(power * (logs - logs.max()))
    return (prominence / prominence.mean() + 1e-6).astype(np.float32)


def _sh_codebook(rows: Float32s) -> Float32s:
    """256 ascending numbers: multiples of ``1 / SH_UNIT`` up to :data:`EVEN_LEVELS` of them to either side of 0, then
    growing steps up to the largest coefficient, or to 1."""
    reach = max(float(np.abs(rows).max(initial=0.0)), 1.0)
    tail = np.geomspace(EVEN_LEVELS / SH_UNIT, reach, CODEBOOK_SIZE // 2 - EVEN_LEVELS + 1)[1:]
    positive = np.concatenate([np.arange(1, EVEN_LEVELS + 1) / SH_UNIT, tail])
    levels = np.concatenate([-positive[::-1], [0.0], positive[:-1]])
    return np.array([short_decimal(level) for level in levels], np.float32)


class _Reader:
    """A file opened and its ``meta.json`` checked; nothing else is read until asked for."""

    def __init__(self, data: bytes, source: str) -> None:
        self._data, self._source = data, source
        if not data.startswith(ZIP_MAGIC):
            raise CodecError(f"{source}: an unbundled SOG or none at all; bundle its folder into one .sog zip file")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError) as error:
            raise CodecError(f"{source}: a truncated or corrupted zip ({error}); write or download it again") from error
        self._members = {member.filename: member for member in self._zip.infolist()}
        meta = self._parse_meta()
        version = meta.get("version")
        if version != VERSION:
            raise CodecError(f"{source}: SOG version {version!r} is unknown; version {VERSION} can be read")
        self.count = self._whole(meta, "count", 0, PIXELS_FREE + PIXELS_A_BYTE * len(data))
        keys = [key for key in FILES if key != "shN" or isinstance(meta.get("shN"), dict)]
        sections = {key: self._section(meta, key) for key in keys}
        self.files = {key: self._names(sections[key], key) for key in keys}
        lows, highs = (self._numbers(sections["means"], key, 3, 3).astype(np.float64) for key in ("mins", "maxs"))
        if np.abs([lows, highs]).max() > 89:
            raise self._bad("its range of positions is beyond float32")
        scales, colors = (self._codebook(sections[key]) for key in ("scales", "sh0"))
        self._tables = _Tables(lows, highs, scales, colors)
        self.sh_degree = self.palette_size = 0
        if "shN" in sections:
            self.sh_degree = self._whole(sections["shN"], "bands", 1, MAX_SH_DEGREE)
            self.palette_size = self._whole(sections["shN"], "count", 1, MAX_PALETTE)
            self._sh_codebook = self._codebook(sections["shN"])

    def model(self) -> GaussianModel:
        count = self.count
        low, high = (self._image(name)[:count, :3] for name in self.files["means"])
        rotations = self._image(self.files["quats"][0])[:count]
        scales = self._image(self.files["scales"][0])[:count, :3]
        colors = self._image(self.files["sh0"][0])[:count]
        if count and rotations[:, 3].min() < ROTATION_TAG:
            raise self._bad("a rotation names no largest component")
        for indices, codebook in ((scales, self._tables.scales), (colors[:, :3], self._tables.colors)):
            if count and indices.max() >= len(codebook):
                raise self._bad("an index is past the end of its codebook")

        def levels(columns: Bytes) -> Tensor:
            return torch.from_numpy(columns.astype(np.int32))

        read = _Levels(
            means=levels(low) | levels(high) << 8,
            largest=torch.from_numpy(rotations[:, 3].astype(np.int64)) - ROTATION_TAG,
            others=levels(rotations[:, :3]),
            scales=levels(scales),
            colors=levels(colors[:, :3]),
            opacities=levels(colors[:, 3]),
            sh_rest=torch.from_numpy(self._sh_rest()),
        )
        return read.values(self._tables.on(torch.device("cpu")))

    def _sh_rest(self) -> Float32s:
        coefficients = (self.sh_degree + 1) ** 2 - 1
        if self.sh_degree == 0:
            return np.zeros((self.count, 0, 3), np.float32)
        centroids, label_image = self.files["shN"]
        rows = math.ceil(self.palette_size / PALETTE_ROW)
        entries = self._image(centroids, (PALETTE_ROW * coefficients, rows))[:, :3]
        entries = entries.reshape(-1, 3 * coefficients)[: self.palette_size]
        pixels = self._image(label_image)[: self.count].astype(np.int64)
        labels = pixels[:, 0] | pixels[:, 1] << 8
        if entries.max() >= len(self._sh_codebook):
            raise self._bad("a palette entry is past the end of its codebook")
        if self.count and labels.max() >= self.palette_size:
            raise self._bad("a label is past the end of the palette")
        return np.take(self._sh_codebook[entries], labels, axis=0).reshape(self.count, coefficients, 3)

    def _bad(self, what: str) -> CodecError:
        return CodecError(f"{self._source}: corrupted, {what}; write or download it again")

    def packed_size(self, name: str) -> int:
        return self._members[name].compress_size

    def _read(self, name: str, most: int) -> bytes:
        """A member's bytes, its claimed size held against its packed one and ``most`` before anything is inflated."""
        member = self._members.get(name)
        if member is None:
            raise self._bad(f"{name!r} is missing")
        packed = min(member.compress_size, len(self._data))
        inflated = MOST_UNZIPPED if member.compress_type == zipfile.ZIP_DEFLATED else 1
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._bad(f"{name!r} is compressed in a way that SOG does not use")
        if member.file_size > min(most, inflated * packed):
            raise self._bad(f"{name!r} claims to be of {member.file_size} bytes")
        try:
            return self._zip.read(member)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            zlib.error,
        ) as error:
            raise self._bad(f"{name!r} cannot be unzipped ({error})") from error

    def _parse_meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._read(META, MOST_META_BYTES))
        except (ValueError, RecursionError) as error:
            raise self._bad(f"{META} is not JSON ({type(error).__name__})") from error
        if not isinstance(meta, dict):
            raise self._bad(f"{META} is not an object")
        return meta

    def _section(self, meta: dict[str, Any], key: str) -> dict[str, Any]:
        section = meta.get(key)
        if not isinstance(section, dict):
            raise self._bad(f"{META} lacks {key}")
        return section

    def _whole(self, section: dict[str, Any], key: str, least: int, most: int) -> int:
        value = section.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._bad(f"{META} claims a {key} that is no number from {least} to {most}")
        return value

    def _names(self, section: dict[str, Any], key: str) -> list[str]:
        names = section.get("files")
        if not isinstance(names, list) or len(names) != len(FILES[key]):
            raise self._bad(f"{META} does not name the {len(FILES[key])} files of {key}")
        for name in names:
            if not isinstance(name, str) or name not in self._members:
                raise self._bad(f"{META} names a file of {key} that is missing")
        return names

    def _numbers(self, section: dict[str, Any], key: str, least: int, most: int) -> npt.NDArray[np.float64]:
        values = section.get(key)
        if not isinstance(values, list) or not least <= len(values) <= most:
            raise self._bad(f"{META} has no list {key} of {least} to {most} numbers")
        if not all(isinstance(value, (int, float)) and abs(value) < LARGEST_FLOAT for value in values):
            raise self._bad(f"{META} has something other than finite numbers in {key}")
        return np.array(values, np.float64)

    def _codebook(self, section: dict[str, Any]) -> Float32s:
        return self._numbers(section, "codebook", 1, CODEBOOK_SIZE).astype(np.float32)

    def _image(self, name: str, size: tuple[int, int] | None = None) -> Bytes:
        """``(pixels, 4)`` of a member: of ``size``, or of enough pixels for the Gaussians."""
        data = self._read(name, len(self._data) * 4 + (1 << 16))
        width, height = self._image_size(data, name)
        if size is not None and (width != size[0] or height < size[1]):
            raise self._bad(f"{name!r} is of {width} x {height} pixels, not {size[0]} x {size[1]}")
        if not self.count <= width * height <= PIXELS_FREE + PIXELS_A_BYTE * len(self._data) and size is None:
            raise self._bad(f"{name!r} is of {width} x {height} pixels for {self.count} Gaussians")
        try:
            with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
                pixels = np.asarray(image.convert("RGBA"))
        except (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
            raise self._bad(f"{name!r} is no image that can be read ({type(error).__name__})") from error
        if pixels.shape != (height, width, 4):
            raise self._bad(f"{name!r} is not of the size that its header says")
        return pixels.reshape(-1, 4)

    def _image_size(self, data: bytes, name: str) -> tuple[int, int]:
        """Width and height by the header of a lossless or extended WebP file, before anything is allocated for it."""
        kind = data[12:16]
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
            raise self._bad(f"{name!r} is no WebP image")
        if kind == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        raise self._bad(f"{name!r} is a lossy image, which does not keep numbers")
