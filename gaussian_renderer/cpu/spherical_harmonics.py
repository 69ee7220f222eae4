"""Real spherical harmonics up to degree 3, in the order and sign that 3DGS files use, and their gradient."""

from __future__ import annotations

import numpy as np

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.lanes import lanes as simd
from utils.kernels import INLINE

f32 = np.float32
LANES = simd.LANES

HARMONICS = 15
"""Of degrees 1 to 3."""

# Normalisation of the real harmonics; the signs are those of the Condon-Shortley phase.
SH0 = f32(0.28209479177387814)
_A = f32(0.4886025119029199)
_B0, _B1, _B2, _B3, _B4 = (
    f32(value)
    for value in (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
)
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = (
    f32(value)
    for value in (
        -0.5900435899266435,
        2.890611442640554,
        -0.4570457994644658,
        0.3731763325901154,
        -0.4570457994644658,
        1.445305721320277,
        -0.5900435899266435,
    )
)
_TWO, _THREE, _FOUR, _SIX, _EIGHT = f32(2), f32(3), f32(4), f32(6), f32(8)


@njit(**INLINE)
def basis(degree, x, y, z, out):
    """Write the harmonics of degree 1 to ``degree`` at unit directions, one a lane, as vectors to ``out``."""
    if degree >= 1:
        simd.store(out, 0, -_A * y)
        simd.store(out, LANES, _A * z)
        simd.store(out, 2 * LANES, -_A * x)
    if degree >= 2:
        xx, yy, zz, xy = x * x, y * y, z * z, x * y
        simd.store(out, 3 * LANES, _B0 * xy)
        simd.store(out, 4 * LANES, _B1 * (y * z))
        simd.store(out, 5 * LANES, _B2 * (_TWO * zz - xx - yy))
        simd.store(out, 6 * LANES, _B3 * (x * z))
        simd.store(out, 7 * LANES, _B4 * (xx - yy))
        if degree >= 3:
            simd.store(out, 8 * LANES, _C0 * y * (_THREE * xx - yy))
            simd.store(out, 9 * LANES, _C1 * xy * z)
            simd.store(out, 10 * LANES, _C2 * y * (_FOUR * zz - xx - yy))
            simd.store(out, 11 * LANES, _C3 * z * (_TWO * zz - _THREE * xx - _THREE * yy))
            simd.store(out, 12 * LANES, _C4 * x * (_FOUR * zz - xx - yy))
            simd.store(out, 13 * LANES, _C5 * z * (xx - yy))
            simd.store(out, 14 * LANES, _C6 * x * (xx - _THREE * yy))


@njit(**INLINE)
def direction_gradient(degree, x, y, z, weights):
    """Gradients of ``sum_k weights[k] * basis_k(x, y, z)`` by x, y and z, the unit length not enforced.

    ``weights`` holds vectors, one for each coefficient.
    """
    gx = gy = gz = simd.splat(f32(0))
    if degree >= 1:
        gx = -_A * simd.load(weights, 2 * LANES)
        gy = -_A * simd.load(weights, 0)
        gz = _A * simd.load(weights, LANES)
    if degree >= 2:
        h3, h4, h5 = (simd.load(weights, 3 * LANES), simd.load(weights, 4 * LANES), simd.load(weights, 5 * LANES))
        h6, h7 = simd.load(weights, 6 * LANES), simd.load(weights, 7 * LANES)
        gx += _B0 * y * h3 - _TWO * _B2 * x * h5 + _B3 * z * h6 + _TWO * _B4 * x * h7
        gy += _B0 * x * h3 + _B1 * z * h4 - _TWO * _B2 * y * h5 - _TWO * _B4 * y * h7
        gz += _B1 * y * h4 + _FOUR * _B2 * z * h5 + _B3 * x * h6
    if degree >= 3:
        h8, h9, h10 = simd.load(weights, 8 * LANES), simd.load(weights, 9 * LANES), simd.load(weights, 10 * LANES)
        h11, h12 = simd.load(weights, 11 * LANES), simd.load(weights, 12 * LANES)
        h13, h14 = simd.load(weights, 13 * LANES), simd.load(weights, 14 * LANES)
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        gx += (
            _C0 * _SIX * xy * h8
            + _C1 * yz * h9
            - _C2 * _TWO * xy * h10
            - _C3 * _SIX * xz * h11
            + _C4 * (_FOUR * zz - _THREE * xx - yy) * h12
            + _C5 * _TWO * xz * h13
            + _C6 * _THREE * (xx - yy) * h14
        )
        gy += (
            _C0 * _THREE * (xx - yy) * h8
            + _C1 * xz * h9
            + _C2 * (_FOUR * zz - xx - _THREE * yy) * h10
            - _C3 * _SIX * yz * h11
            - _C4 * _TWO * xy * h12
            - _C5 * _TWO * yz * h13
            - _C6 * _SIX * xy * h14
        )
        gz += (
            _C1 * xy * h9
            + _C2 * _EIGHT * yz * h10
            + _C3 * (_SIX * zz - _THREE * xx - _THREE * yy) * h11
            + _C4 * _EIGHT * xz * h12
            + _C5 * (xx - yy) * h13
        )
    return gx, gy, gz
