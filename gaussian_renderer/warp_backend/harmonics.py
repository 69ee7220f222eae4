"""Real spherical harmonics of degrees 1 to 3, in the order and sign that 3DGS files use, and their gradient."""

from __future__ import annotations

from typing import Any

import warp as wp

COEFFICIENTS = 15
"""Of the degrees 1 to 3."""

Harmonics = wp.types.vector(length=COEFFICIENTS, dtype=wp.float32)

# Normalization of the real harmonics; the signs are those of the Condon-Shortley phase.
SH0 = wp.constant(0.28209479177387814)
_A = wp.constant(0.4886025119029199)
_B0 = wp.constant(1.0925484305920792)
_B1 = wp.constant(0.31539156525252005)
_B2 = wp.constant(0.5462742152960396)
_C0 = wp.constant(-0.5900435899266435)
_C1 = wp.constant(2.890611442640554)
_C2 = wp.constant(-0.4570457994644658)
_C3 = wp.constant(0.3731763325901154)
_C4 = wp.constant(1.445305721320277)


@wp.func
def basis(degree: int, direction: wp.vec3):
    """The harmonics of degrees 1 to ``degree`` at a unit direction; zero beyond."""
    h = Harmonics()
    x = direction[0]
    y = direction[1]
    z = direction[2]
    xx = x * x
    yy = y * y
    zz = z * z
    if degree >= 1:
        h[0] = -_A * y
        h[1] = _A * z
        h[2] = -_A * x
    if degree >= 2:
        h[3] = _B0 * x * y
        h[4] = -_B0 * y * z
        h[5] = _B1 * (2.0 * zz - xx - yy)
        h[6] = -_B0 * x * z
        h[7] = _B2 * (xx - yy)
    if degree >= 3:
        h[8] = _C0 * y * (3.0 * xx - yy)
        h[9] = _C1 * x * y * z
        h[10] = _C2 * y * (4.0 * zz - xx - yy)
        h[11] = _C3 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy)
        h[12] = _C2 * x * (4.0 * zz - xx - yy)
        h[13] = _C4 * z * (xx - yy)
        h[14] = _C0 * x * (xx - 3.0 * yy)
    return h


@wp.func
def direction_gradient(degree: int, direction: wp.vec3, h: Any):
    """Gradient of ``sum_k h[k] * basis_k`` with respect to the direction, its unit length not enforced."""
    g = wp.vec3()
    x = direction[0]
    y = direction[1]
    z = direction[2]
    if degree >= 1:
        g += _A * wp.vec3(-h[2], -h[0], h[1])
    if degree >= 2:
        g += _B0 * wp.vec3(y * h[3] - z * h[6], x * h[3] - z * h[4], -y * h[4] - x * h[6])
        g += 2.0 * _B1 * h[5] * wp.vec3(-x, -y, 2.0 * z)
        g += 2.0 * _B2 * h[7] * wp.vec3(x, -y, 0.0)
    if degree >= 3:
        xx = x * x
        yy = y * y
        zz = z * z
        g += 3.0 * _C0 * h[8] * wp.vec3(2.0 * x * y, xx - yy, 0.0)
        g += _C1 * h[9] * wp.vec3(y * z, x * z, x * y)
        g += _C2 * h[10] * wp.vec3(-2.0 * x * y, 4.0 * zz - xx - 3.0 * yy, 8.0 * y * z)
        g += 3.0 * _C3 * h[11] * wp.vec3(-2.0 * x * z, -2.0 * y * z, 2.0 * zz - xx - yy)
        g += _C2 * h[12] * wp.vec3(4.0 * zz - 3.0 * xx - yy, -2.0 * x * y, 8.0 * x * z)
        g += _C4 * h[13] * wp.vec3(2.0 * x * z, -2.0 * y * z, xx - yy)
        g += 3.0 * _C0 * h[14] * wp.vec3(xx - yy, -2.0 * x * y, 0.0)
    return g
