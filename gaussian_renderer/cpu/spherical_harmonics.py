"""Real spherical harmonics up to degree 3, in the order and sign that 3DGS files use, and their gradient."""

from __future__ import annotations

import numpy as np

from gaussian_renderer.cpu.compiled import njit
from utils.kernels import SERIAL

f32 = np.float32

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


@njit(**SERIAL)
def basis(degree, x, y, z, out):
    """Write the harmonics of degree 1 to ``degree`` at a unit direction to ``out[:(degree + 1)**2 - 1]``."""
    if degree < 1:
        return
    out[0] = -_A * y
    out[1] = _A * z
    out[2] = -_A * x
    if degree < 2:
        return
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    out[3] = _B0 * xy
    out[4] = _B1 * yz
    out[5] = _B2 * (_TWO * zz - xx - yy)
    out[6] = _B3 * xz
    out[7] = _B4 * (xx - yy)
    if degree < 3:
        return
    out[8] = _C0 * y * (_THREE * xx - yy)
    out[9] = _C1 * xy * z
    out[10] = _C2 * y * (_FOUR * zz - xx - yy)
    out[11] = _C3 * z * (_TWO * zz - _THREE * xx - _THREE * yy)
    out[12] = _C4 * x * (_FOUR * zz - xx - yy)
    out[13] = _C5 * z * (xx - yy)
    out[14] = _C6 * x * (xx - _THREE * yy)


@njit(**SERIAL)
def direction_gradient(degree, x, y, z, h):
    """Gradient of ``sum_k h[k] * basis_k(x, y, z)`` with respect to (x, y, z), the unit length not enforced."""
    gx = gy = gz = f32(0)
    if degree >= 1:
        gx -= _A * h[2]
        gy -= _A * h[0]
        gz += _A * h[1]
    if degree >= 2:
        gx += _B0 * y * h[3] - _TWO * _B2 * x * h[5] + _B3 * z * h[6] + _TWO * _B4 * x * h[7]
        gy += _B0 * x * h[3] + _B1 * z * h[4] - _TWO * _B2 * y * h[5] - _TWO * _B4 * y * h[7]
        gz += _B1 * y * h[4] + _FOUR * _B2 * z * h[5] + _B3 * x * h[6]
    if degree >= 3:
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        gx += (
            _C0 * _SIX * xy * h[8]
            + _C1 * yz * h[9]
            - _C2 * _TWO * xy * h[10]
            - _C3 * _SIX * xz * h[11]
            + _C4 * (_FOUR * zz - _THREE * xx - yy) * h[12]
            + _C5 * _TWO * xz * h[13]
            + _C6 * _THREE * (xx - yy) * h[14]
        )
        gy += (
            _C0 * _THREE * (xx - yy) * h[8]
            + _C1 * xz * h[9]
            + _C2 * (_FOUR * zz - xx - _THREE * yy) * h[10]
            - _C3 * _SIX * yz * h[11]
            - _C4 * _TWO * xy * h[12]
            - _C5 * _TWO * yz * h[13]
            - _C6 * _SIX * xy * h[14]
        )
        gz += (
            _C1 * xy * h[9]
            + _C2 * _EIGHT * yz * h[10]
            + _C3 * (_SIX * zz - _THREE * xx - _THREE * yy) * h[11]
            + _C4 * _EIGHT * xz * h[12]
            + _C5 * (xx - yy) * h[13]
        )
    return gx, gy, gz
