"""Cameras for a model that comes without any: where to stand and where to look, from its Gaussians alone.

The interesting part of a model is where its Gaussians are dense: its center is the median of their positions weighted
by opacity, its radius comes from quantiles of their distances, and both ignore the far outliers that every trained
model has. A model whose middle is filled is looked at from around (``orbit``); one that surrounds an empty middle, such
as a room, is looked at from within (``inside``).

The near plane, the image's emptiness and everything else that takes a renderer are for the caller to judge; what is
promised here is that no camera stands inside a Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from gsz.errors import UserError
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import PlacementOptions
from scene.rotations import rotation_matrices

Array = npt.NDArray[np.float64]
Kind = Literal["orbit", "inside"]

FIELD_OF_VIEW = math.radians(60.0)
"""Horizontal, in radians: that of a phone's main lens."""

MAX_DENSITY = 0.05
"""A place is free where no Gaussian's opacity times its fall-off exceeds this; at the photographs' positions of a
trained scene the largest was 0.04."""

_ORBIT_DISTANCES = (0.4, 0.65, 0.9)
"""Radii of the shells, as fractions of the distance from which the model's sphere just fits into the image."""
_ORBIT_SINES = (-0.3, 0.9)
"""Sines of the lowest and highest elevation of a camera on a shell: some from below, few from straight above."""
_ORBIT_AIM_SPREAD = 0.3
"""How far from the center a camera on a shell may aim, in radii."""
_INSIDE_SINES = (-0.5, 0.4)
"""Sines of the steepest looks down and up from within."""
_INSIDE_SHARE = 0.9
"""Share of the Gaussians, along each axis, that the box holds in which cameras inside are placed."""
_CLEARANCE = 0.1
"""Least distance to the center of an opaque Gaussian, in radii."""
_LEAST_DISTANCE = 1.0
"""World units from the center. Renderers draw nothing nearer than 0.2 units, which has to be little."""
_OPAQUE = 0.1
_EMPTY_MIDDLE = 0.03
"""Below this share of the opacity within half the median distance of the center, the middle counts as empty. A filled
ball has 0.06 there, a disc 0.12, a trained capture of an object 0.15, a hollow box nearly none."""
_BOUNDED = 3.0
"""How many times the median distance the farthest Gaussians may be away for the model to be an object on its own."""
_SURROUNDED = 0.6
"""Share of all directions in which there must be something for a place to count as inside."""
_MAX_TRIES = 500


@dataclass(frozen=True)
class Shape:
    """What a model looks like from afar.

    Attributes:
        center: ``(3,)`` the opacity-weighted median of the positions.
        radius: Of the sphere around it that holds what matters, in world units.
        up: ``(3,)`` unit vector, away from the floor.
        middle_share: Share of the opacity within half the median distance of the center.
    """

    center: Array
    radius: float
    up: Array
    middle_share: float

    @property
    def kind(self) -> Kind:
        """How the model should be looked at."""
        return "inside" if self.middle_share < _EMPTY_MIDDLE else "orbit"

    @staticmethod
    def of(splats: GaussianModel) -> Shape:
        """Measure a model of at least one Gaussian."""
        positions = splats.means.detach().cpu().numpy().astype(np.float64)
        opacities = splats.opacities.detach().cpu().numpy().astype(np.float64).ravel()
        center = np.array([_quantile(positions[:, axis], opacities, 0.5) for axis in range(3)])
        distances = np.linalg.norm(positions - center, axis=1)
        median, nearly_all, farthest = (_quantile(distances, opacities, share) for share in (0.5, 0.95, 0.99))
        # An object on its own ends somewhere; within far surroundings, the median still tells its size.
        radius = nearly_all if farthest <= _BOUNDED * median else 1.5 * median
        radius = max(radius, float(splats.scales.median()), 1e-6)
        middle = opacities[distances <= 0.5 * median].sum() / max(opacities.sum(), 1e-12)
        return Shape(center, radius, estimate_up(splats), float(middle))


def estimate_up(splats: GaussianModel) -> Array:
    """``(3,)`` unit vector that points away from the floor.

    COLMAP's worlds, hence those of most trained models, have their first camera's y axis point roughly down, so -y is
    up unless the Gaussians say better. Floors, tables and streets are made of flat Gaussians that share a normal, while
    walls and objects face every way around. If the direction near -y that most flat, opaque, large Gaussians face
    stands out, it is taken. If one near z stands out by much more, the world is taken for one with z up, as modelling
    tools write them.
    """
    default = np.array([0.0, -1.0, 0.0])
    splats = splats.select(torch.arange(0, len(splats), max(1, len(splats) // _UP_SAMPLE), device=splats.device))
    scales = splats.scales.detach().cpu().numpy().astype(np.float64)
    opacities = splats.opacities.detach().cpu().numpy().astype(np.float64).ravel()
    normals = _axes(splats)[np.arange(len(scales)), :, scales.argmin(1)]
    small, middle, large = np.sort(scales, axis=1).T
    weights = opacities * middle * large * (1.0 - small / np.maximum(middle, 1e-12))
    # A few giants, such as a sky's, must not decide.
    weights = np.minimum(weights, np.quantile(weights, 0.98))
    if not weights.sum() > 0.0:
        return default
    directions = _half_sphere_points(600)
    votes = np.zeros(len(directions))
    for start in range(0, len(normals), _CHUNK):
        part = slice(start, start + _CHUNK)
        votes += weights[part] @ (np.abs(normals[part] @ directions.T) > _UP_COSINE)
    votes /= votes.mean()

    def best_near(axis: Array) -> int:
        return int(np.where(np.abs(directions @ axis) > _UP_TRUSTED_COSINE, votes, -1.0).argmax())

    other = np.array([0.0, 0.0, 1.0])
    best = best_near(default)
    if votes[best_near(other)] > max(_UP_VOTES_OTHER, _UP_MARGIN_OTHER * votes[best]):
        default, best = other, best_near(other)
    elif votes[best] < _UP_VOTES:
        return default
    # The mean of the normals that voted for the winner, all turned to one side, is finer than the grid of directions.
    cosines = normals @ directions[best]
    voters = np.abs(cosines) > _UP_COSINE
    mean = (weights * np.sign(cosines))[voters] @ normals[voters]
    mean /= np.linalg.norm(mean)
    return mean if mean @ default >= 0.0 else -mean


_CHUNK = 20_000
_UP_SAMPLE = 100_000
"""Of a larger model, about so many Gaussians are asked for the vertical."""
_UP_COSINE = 0.97
"""Of the angle within which a normal votes for a direction."""
_UP_TRUSTED_COSINE = 0.7
"""Of the angle around the y axis, or else the z axis, within which the vertical is expected."""
_UP_VOTES = 1.5
"""Votes, relative to the mean over all directions, that it takes to be believed near the y axis."""
_UP_VOTES_OTHER = 4.0
"""The same near the z axis."""
_UP_MARGIN_OTHER = 2.5
"""How many times the votes of the best direction near the y axis it takes besides."""


class NoPlaceError(UserError):
    """There are no views of one kind of a model.

    Attributes:
        reason: What was tried, and why it came to nothing.
    """

    def __init__(self, reason: str, kind: Kind) -> None:
        super().__init__(f"{reason}; try --views {'inside' if kind == 'orbit' else 'orbit'}")
        self.reason = reason


class CameraPlacer:
    """An endless sequence of candidate cameras for a model, none of which stands inside a Gaussian.

    The same model, options and seed give the same sequence. Positions follow a low-discrepancy sequence, so that any
    run of candidates covers the model evenly.

    Args:
        splats: The model, of at least one Gaussian.
        options: Where to look from, and the size of the images.
        seed: Of everything that is random.

    Raises:
        UserError: an option makes no sense. Later, by ``next``: there is no free place left to stand
            (:class:`NoPlaceError`).
    """

    def __init__(self, splats: GaussianModel, options: PlacementOptions, seed: int = 0) -> None:
        options.check()
        self.shape = Shape.of(splats)
        self.kind: Kind = self.shape.kind if options.views == "auto" else options.views
        self._width, self._height = options.size
        self._focal = self._width / (2.0 * math.tan(FIELD_OF_VIEW / 2.0))
        self._space = FreeSpace(splats)
        self._random = np.random.default_rng((seed, 1))
        self._offset = self._random.random(_DIMENSIONS)
        self._drawn = 0

    def __iter__(self) -> Iterator[Camera]:
        return self

    def __next__(self) -> Camera:
        candidate = self._orbit_candidate if self.kind == "orbit" else self._inside_candidate
        exposed = 0
        for _ in range(_MAX_TRIES):
            position, forward, zoom = candidate(self._next_point())
            if self.kind == "inside" and not self._space.is_surrounded(position):
                exposed += 1
            elif self._is_free(position):
                return self._camera(position, forward, zoom)
        tried = f"{_MAX_TRIES - exposed} are in or close to Gaussians"
        if self.kind == "inside":
            tried += f" and {exposed} have too little around them"
        where = "around" if self.kind == "orbit" else "inside"
        raise NoPlaceError(
            f"no free place to look from was found {where} the model "
            f"(--views {self.kind}: of {_MAX_TRIES} places, {tried})",
            self.kind,
        )

    def _next_point(self) -> Array:
        """The next point of Roberts' additive recurrence in the unit cube, a Kronecker sequence."""
        self._drawn += 1
        return (self._offset + self._drawn * _STEPS) % 1.0

    def _orbit_candidate(self, point: Array) -> tuple[Array, Array, float]:
        """A place on one of the shells, looking near the center, and how much longer than usual the lens is."""
        shape = self.shape
        half_angle = math.atan(min(self._width, self._height) / (2.0 * self._focal))
        wanted = shape.radius / math.sin(half_angle) * _ORBIT_DISTANCES[int(point[2] * len(_ORBIT_DISTANCES))]
        # A model that is small in its own units is looked at from farther away, or else the near plane would cut it.
        distance = max(wanted, _LEAST_DISTANCE)
        outward = _direction(shape.up, point[0], _between(_ORBIT_SINES, point[1]))
        position = shape.center + distance * outward
        aim = shape.center + self._random.uniform(-1.0, 1.0, 3) * (_ORBIT_AIM_SPREAD * shape.radius)
        return position, aim - position, distance / wanted

    def _inside_candidate(self, point: Array) -> tuple[Array, Array, float]:
        """A place in the box that holds most Gaussians, looking around."""
        low, high = self._space.box
        position = low + point[:3] * (high - low)
        azimuth, elevation = self._random.random(2)
        return position, _direction(self.shape.up, azimuth, _between(_INSIDE_SINES, elevation)), 1.0

    def _is_free(self, position: Array) -> bool:
        clearance = _CLEARANCE * self.shape.radius
        return self._space.clearance(position) >= clearance and self._space.density(position) <= MAX_DENSITY

    def _camera(self, position: Array, forward: Array, zoom: float = 1.0) -> Camera:
        return _camera_at(position, forward, self.shape.up, (self._width, self._height), zoom * self._focal)


def cameras_all_around(shape: Shape, count: int, side: int) -> list[Camera]:
    """About ``count`` cameras far outside of a model, in all directions evenly, that have it in a square image.

    Args:
        side: Of the image, in pixels.
    """
    directions = _half_sphere_points(count // 2)
    distance = max(_FAR * shape.radius, _LEAST_DISTANCE)
    focal = side / 2.0 * distance / (_FRAME * shape.radius)
    return [
        _camera_at(shape.center + distance * outward, -outward, shape.up, (side, side), focal)
        for outward in np.concatenate([directions, -directions])
    ]


_FAR = 4.0
_FRAME = 1.25
"""Distance and half the width of what is in the image, in radii."""


def _camera_at(position: Array, forward: Array, up: Array, size: tuple[int, int], focal: float) -> Camera:
    world_to_camera = np.eye(4)
    rotation = _look_rotation(forward, up)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = rotation, -rotation @ position
    return Camera("", *size, focal, focal, size[0] / 2, size[1] / 2, world_to_camera)


class FreeSpace:
    """Where in a model there is room to stand."""

    def __init__(self, splats: GaussianModel) -> None:
        self._positions = splats.means.detach().cpu().numpy().astype(np.float32)
        self._opacities = splats.opacities.detach().cpu().numpy().astype(np.float32).ravel()
        scales = splats.scales.detach().cpu().numpy()
        # Maps an offset from the center to standard deviations along the Gaussian's own axes.
        self._whitening = (_axes(splats) / np.maximum(scales, 1e-12)[:, None, :]).astype(np.float32)
        self._reach = 3.5 * scales.max(1)
        opaque = self._opacities > _OPAQUE
        self._tree = cKDTree(self._positions[opaque] if opaque.any() else self._positions)
        weights = self._opacities.astype(np.float64)
        tails = ((1.0 - _INSIDE_SHARE) / 2.0, (1.0 + _INSIDE_SHARE) / 2.0)
        columns = self._positions.T.astype(np.float64)
        self.box = (
            np.array([_quantile(column, weights, tails[0]) for column in columns]),
            np.array([_quantile(column, weights, tails[1]) for column in columns]),
        )

    def density(self, position: Array) -> float:
        """The largest opacity times fall-off that any Gaussian has at a place, in [0, 1)."""
        offsets = position.astype(np.float32) - self._positions
        # Beyond 3.5 standard deviations the fall-off is 0.002.
        near = np.flatnonzero(np.square(offsets).sum(1) < np.square(self._reach))
        if not len(near):
            return 0.0
        deviations = np.einsum("ni,nij->nj", offsets[near], self._whitening[near])
        return float((self._opacities[near] * np.exp(-0.5 * np.square(deviations).sum(1))).max())

    def clearance(self, position: Array) -> float:
        """Distance to the nearest center of a Gaussian that is not nearly transparent, world units."""
        return float(self._tree.query(position)[0])

    def is_surrounded(self, position: Array) -> bool:
        """Whether there are Gaussians in most directions."""
        step = max(1, len(self._positions) // _CHUNK)
        offsets = self._positions[::step] - position.astype(np.float32)
        faces = np.abs(offsets).argmax(1)
        side = offsets[np.arange(len(offsets)), faces]
        others = [np.take_along_axis(offsets, ((faces + k) % 3)[:, None], 1)[:, 0] for k in (1, 2)]
        # A cube map of 6 x 4 x 4 directions.
        cells = [np.clip((other / np.maximum(np.abs(side), 1e-12) + 1.0) * 2.0, 0, 3).astype(int) for other in others]
        hit = np.zeros((6, 4, 4), bool)
        hit[2 * faces + (side > 0), cells[0], cells[1]] = True
        return bool(hit.mean() >= _SURROUNDED)


_DIMENSIONS = 3
_RATIO = 1.2207440846057596  # The real root of x**4 = x + 1, which Roberts' sequence in three dimensions is made of.
_STEPS = np.array([_RATIO**-power for power in range(1, _DIMENSIONS + 1)])


def _quantile(values: Array, weights: Array, share: float) -> float:
    """The value below which that share of the weights lies."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(cumulated, share * cumulated[-1]), len(values) - 1)])


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _direction(up: Array, azimuth: float, sine: float) -> Array:
    """The unit vector at an azimuth (in turns) around ``up`` and an elevation above its horizon."""
    first, second = _horizon(up)
    angle = 2.0 * math.pi * azimuth
    return sine * up + math.sqrt(1.0 - sine**2) * (math.cos(angle) * first + math.sin(angle) * second)


def _horizon(up: Array) -> tuple[Array, Array]:
    """Two unit vectors that are orthogonal to ``up`` and to each other."""
    first = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    first /= np.linalg.norm(first)
    return first, np.cross(up, first)


def _look_rotation(forward: Array, up: Array) -> Array:
    """``(3, 3)`` world to camera: z along ``forward``, y down."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(z, up)
    length = np.linalg.norm(x)
    x = x / length if length > 1e-6 else _horizon(z)[0]
    return np.stack([x, np.cross(z, x), z])


def _axes(splats: GaussianModel) -> Array:
    """``(N, 3, 3)``: the columns are the Gaussians' own axes in the world."""
    return rotation_matrices(splats.rotations.detach().cpu().numpy())


def _half_sphere_points(count: int) -> Array:
    """``(count, 3)`` unit vectors spread evenly over half a sphere (Fibonacci's lattice); the other half is theirs
    with the sign changed."""
    heights = (np.arange(count) + 0.5) / count
    angles = np.arange(count) * math.pi * (3.0 - math.sqrt(5.0))
    radii = np.sqrt(1.0 - heights**2)
    return np.stack([radii * np.cos(angles), heights, radii * np.sin(angles)], axis=1)
