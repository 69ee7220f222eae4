"""Each step of the projection's gradient is that of the step forward: central differences, in float64.

The steps are plain Python on single lanes, where they take any float; ``test_lanes.py`` runs this file so. With vectors
they are only parts of kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest

from gaussian_renderer.cpu import lanes, projection
from gaussian_renderer.cpu.spherical_harmonics import HARMONICS

pytestmark = pytest.mark.skipif(
    not numba.config.DISABLE_JIT or "scalar" not in lanes.DESCRIPTION, reason="kernels are compiled, for vectors"
)
VIEW = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
VIEW = np.concatenate([VIEW, [[0.1], [-0.2], [0.3]]], 1)
LENS = projection.Intrinsics(60.0, 70.0, 31.0, 24.0, -2.0, 2.0, -2.0, 2.0)


def differences(loss: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of a function of a vector."""
    return np.array([(loss(at + step * unit) - loss(at - step * unit)) / (2 * step) for unit in np.eye(len(at))])


def in_view(rng: np.random.Generator) -> np.ndarray:
    """A point in front of the camera."""
    return VIEW[:, :3].T @ (np.append(rng.uniform(-1, 1, 2), rng.uniform(2, 5)) - VIEW[:, 3])


@pytest.mark.parametrize("seed", range(3))
def test_center(seed: int) -> None:
    rng = np.random.default_rng([1, seed])
    d_center, d_t = rng.normal(size=2), rng.normal(size=6)

    def loss(mean: np.ndarray) -> float:
        center = projection.project_center(mean, VIEW, LENS)
        on_screen = np.array([LENS.fx * center.x_ratio, LENS.fy * center.y_ratio])
        return float(d_center @ on_screen + d_t @ np.array(projection.linearize(center, VIEW, LENS)))

    mean = in_view(rng)
    center = projection.project_center(mean, VIEW, LENS)
    assert center.in_front and center.inside_x and center.inside_y
    gradient = projection.center_gradient(center, VIEW, LENS, d_center, projection.Matrix(*d_t))
    np.testing.assert_allclose(gradient, differences(loss, mean), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_axes(seed: int) -> None:
    rng = np.random.default_rng([2, seed])
    scale, d_u, quaternion, t = rng.uniform(0.1, 2, 3), rng.normal(size=6), rng.normal(size=4), rng.normal(size=6)

    def loss(values: np.ndarray) -> float:
        rotation, matrix = projection.rotate(values[:4]), projection.Matrix(*values[4:])
        return float(d_u @ np.array(projection.project_axes(matrix, rotation, scale)))

    d_quaternion, d_t = projection.axes_gradient(
        projection.Matrix(*t), projection.rotate(quaternion), scale, projection.Matrix(*d_u)
    )
    expected = differences(loss, np.concatenate([quaternion, t]))
    np.testing.assert_allclose([*d_quaternion, *d_t], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_shape(seed: int) -> None:
    """Of the exponent, which is the logarithm of alpha, at one pixel: there alpha dL/dalpha is 1."""
    rng = np.random.default_rng([3, seed])
    offset, u = rng.normal(size=2), rng.normal(size=6)

    def factors(u: np.ndarray, offset: np.ndarray) -> tuple[float, float]:
        """z₁ and z₂."""
        _, b, c, determinant = projection.covariance(projection.Matrix(*u))
        root_a = np.sqrt(c / determinant)
        return root_a * offset[0] - b / (determinant * root_a) * offset[1], offset[1] / np.sqrt(c)

    def loss(values: np.ndarray) -> float:
        scaled = values[5:] * np.exp(np.tile(values[2:5], 2))
        return -0.5 * float(np.square(factors(scaled, values[:2])).sum())

    z_1, z_2 = factors(u, offset)
    matrix = projection.Matrix(*u)
    moments = projection.Moments(z_1, z_2, z_1 * z_1, z_1 * z_2, z_2 * z_2)
    d_center, d_log_scale, d_u = projection.shape_gradient(matrix, projection.covariance(matrix), moments)
    expected = differences(loss, np.concatenate([offset, np.zeros(3), u]))
    np.testing.assert_allclose([*d_center, *d_log_scale, *d_u], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("degree", range(4))
def test_color(degree: int) -> None:
    rng = np.random.default_rng([4, degree])
    mean, eye, d_color = in_view(rng), rng.normal(size=3), rng.normal(size=3)
    dc, coefficients, scratch = rng.normal(size=3), rng.normal(size=3 * HARMONICS), np.empty(HARMONICS)

    def loss(values: np.ndarray) -> float:
        direction, _ = projection.look(values[:3], eye)
        return float(d_color @ np.array(projection.colors(direction, degree, dc, values[3:], scratch)))

    active = 3 * ((degree + 1) ** 2 - 1)
    expected = differences(loss, np.concatenate([mean, coefficients]))
    direction, inverse_distance = projection.look(mean, eye)
    d_mean = projection.color_gradient(direction, inverse_distance, degree, d_color, coefficients, scratch)
    np.testing.assert_allclose(d_mean, expected[:3], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(coefficients[:active], expected[3 : 3 + active], rtol=1e-6, atol=1e-8)
