"""From the six parameters of each Gaussian to what blending needs of it, and the gradient back.

Notation, for one Gaussian: ``p`` its centre in camera space; ``T = J W`` (2 x 3) the affine approximation of the
projection; ``U = T R S`` (2 x 3), so that the covariance on the screen is ``U Uᵀ + 0.3 I = [[a, b], [b, c]]``
(Zwicker et al., EWA splatting, 2001; the dilation of 0.3 px is INRIA's).

Everything downstream works with the Cholesky factor of the inverse covariance. With ``d = centre - pixel``,

    dᵀ Σ⁻¹ d = z₁² + z₂²,   z₁ = √A dx + (B/√A) dy,   z₂ = dy / √c,   A = c / det,   B = -b / det,

which cannot turn negative and does not cancel for needles, as ``A dx² + 2 B dx dy + C dy²`` does in float32. For the
same reason the determinant is taken from the minors of U (Cauchy-Binet), never as ``a c - b b``, and the gradients of
the scales and of U from ``Q = Lᵀ U``, where L is that Cholesky factor.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np
from numba import prange

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.layout import (
    ALPHA_MIN,
    BLUE,
    CUTOFF,
    D_BLUE,
    D_GREEN,
    D_RED,
    DILATION,
    FALLOFF_Y,
    GREEN,
    LOG2_E,
    LOG2_OPACITY,
    M_0,
    M_T,
    M_TT,
    M_TY,
    M_Y,
    M_YY,
    NEAR_PLANE,
    RED,
    SKEW,
    SLOPE_X,
    SLOPE_Y,
    SLOT_WIDTH,
    TILE,
    U,
    V,
)
from gaussian_renderer.cpu.spherical_harmonics import SH0, basis, direction_gradient
from gaussian_renderer.cpu.tiles import count_pairs
from utils.kernels import PARALLEL, SERIAL

f32 = np.float32

_ZERO, _ONE, _TWO, _HALF = f32(0), f32(1), f32(2), f32(0.5)
_SQRT_HALF_LOG2_E = f32(math.sqrt(math.log2(math.e) / 2))
_COLOUR_LIMIT = f32(1e20)  # A brighter Gaussian is culled: its gradients, squared on the way, would overflow.
_CHUNK = 256

Intrinsics = namedtuple("Intrinsics", "fx fy cx cy x_min x_max y_min y_max")
"""Focal lengths and principal point in pixels, and the bounds of x/z and y/z that the Jacobian is clamped to."""

_Projected = namedtuple(
    "_Projected",
    "in_front x y z inverse_z x_clamped y_clamped inside_x inside_y "
    "qw qx qy qz inverse_norm s0 s1 s2 "
    "r00 r01 r02 r10 r11 r12 r20 r21 r22 "
    "t00 t01 t02 t10 t11 t12 "
    "u00 u01 u02 u10 u11 u12",
)


@njit(**SERIAL)
def _may_be_seen(mean, log_scale, view, lens, width, height):
    """Whether a Gaussian can be in front of the camera and touch the image: a few operations that spare the others.

    The longest half axis on the screen is at most the largest scale times the Frobenius norm of the Jacobian.
    """
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    if not (z > NEAR_PLANE):
        return False
    inverse_z = _ONE / z
    x_ratio = (view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]) * inverse_z
    y_ratio = (view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]) * inverse_z
    x_clamped = min(lens.x_max, max(lens.x_min, x_ratio))
    y_clamped = min(lens.y_max, max(lens.y_min, y_ratio))
    scale = math.exp(max(log_scale[0], log_scale[1], log_scale[2])) * inverse_z
    stretch_x = lens.fx * lens.fx * (_ONE + x_clamped * x_clamped)
    stretch_y = lens.fy * lens.fy * (_ONE + y_clamped * y_clamped)
    # Three deviations of the dilated ellipse, and what rounding up and whole tiles add.
    reach = f32(3) * math.sqrt(scale * scale * (stretch_x + stretch_y) + _ONE) + f32(2)
    u, v = lens.fx * x_ratio + lens.cx, lens.fy * y_ratio + lens.cy
    beyond = f32(TILE) + reach
    # Comparisons with NaN are false: whatever is not a number is looked at closely.
    return not (u < -reach or v < -reach or u > f32(width) + beyond or v > f32(height) + beyond)


@njit(**SERIAL)
def _project(mean, log_scale, quaternion, view, lens):
    """Geometry of one Gaussian on the screen; see the module's notation. INRIA's 1.3 clamp of the Jacobian included."""
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    in_front = z > NEAR_PLANE  # False for NaN.
    inverse_z = _ONE / (z if in_front else _ONE)
    x_ratio, y_ratio = x * inverse_z, y * inverse_z
    inside_x = x_ratio >= lens.x_min and x_ratio <= lens.x_max
    inside_y = y_ratio >= lens.y_min and y_ratio <= lens.y_max
    x_clamped = min(lens.x_max, max(lens.x_min, x_ratio)) * z
    y_clamped = min(lens.y_max, max(lens.y_min, y_ratio)) * z

    qw, qx, qy, qz = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    inverse_norm = _ONE / math.sqrt(max(qw * qw + qx * qx + qy * qy + qz * qz, f32(1e-24)))
    qw *= inverse_norm
    qx *= inverse_norm
    qy *= inverse_norm
    qz *= inverse_norm
    r00, r01, r02 = _ONE - _TWO * (qy * qy + qz * qz), _TWO * (qx * qy - qw * qz), _TWO * (qx * qz + qw * qy)
    r10, r11, r12 = _TWO * (qx * qy + qw * qz), _ONE - _TWO * (qx * qx + qz * qz), _TWO * (qy * qz - qw * qx)
    r20, r21, r22 = _TWO * (qx * qz - qw * qy), _TWO * (qy * qz + qw * qx), _ONE - _TWO * (qx * qx + qy * qy)
    s0, s1, s2 = math.exp(log_scale[0]), math.exp(log_scale[1]), math.exp(log_scale[2])

    j00, j02 = lens.fx * inverse_z, -lens.fx * x_clamped * inverse_z * inverse_z
    j11, j12 = lens.fy * inverse_z, -lens.fy * y_clamped * inverse_z * inverse_z
    t00 = j00 * view[0, 0] + j02 * view[2, 0]
    t01 = j00 * view[0, 1] + j02 * view[2, 1]
    t02 = j00 * view[0, 2] + j02 * view[2, 2]
    t10 = j11 * view[1, 0] + j12 * view[2, 0]
    t11 = j11 * view[1, 1] + j12 * view[2, 1]
    t12 = j11 * view[1, 2] + j12 * view[2, 2]
    return _Projected(
        in_front, x, y, z, inverse_z, x_clamped, y_clamped, inside_x, inside_y,
        qw, qx, qy, qz, inverse_norm, s0, s1, s2,
        r00, r01, r02, r10, r11, r12, r20, r21, r22,
        t00, t01, t02, t10, t11, t12,
        (t00 * r00 + t01 * r10 + t02 * r20) * s0,
        (t00 * r01 + t01 * r11 + t02 * r21) * s1,
        (t00 * r02 + t01 * r12 + t02 * r22) * s2,
        (t10 * r00 + t11 * r10 + t12 * r20) * s0,
        (t10 * r01 + t11 * r11 + t12 * r21) * s1,
        (t10 * r02 + t11 * r12 + t12 * r22) * s2,
    )  # fmt: skip


@njit(**SERIAL)
def _covariance(g):
    """``a, b, c`` of the dilated covariance on the screen and its determinant, the latter without cancellation."""
    m0 = g.u01 * g.u12 - g.u02 * g.u11
    m1 = g.u02 * g.u10 - g.u00 * g.u12
    m2 = g.u00 * g.u11 - g.u01 * g.u10
    xx = g.u00 * g.u00 + g.u01 * g.u01 + g.u02 * g.u02
    yy = g.u10 * g.u10 + g.u11 * g.u11 + g.u12 * g.u12
    xy = g.u00 * g.u10 + g.u01 * g.u11 + g.u02 * g.u12
    determinant = m0 * m0 + m1 * m1 + m2 * m2 + DILATION * (xx + yy) + DILATION * DILATION
    return xx + DILATION, xy, yy + DILATION, determinant


@njit(**SERIAL)
def _tile_range(low, high, tiles):
    """Tiles ``[first, end)`` of an axis whose pixels ``[low, high]`` are wanted; any float is safe."""
    limit = f32(tiles * TILE)
    first = int(min(max(low, _ZERO), limit)) // TILE
    end = int(min(max(high, -_ONE), limit) + f32(TILE)) // TILE
    return first, min(end, tiles)


@njit(**SERIAL)
def _sigmoid(x):
    return _ONE / (_ONE + math.exp(-x))


@njit(**PARALLEL)
def project(
    means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest, degree, view, eye, lens, width, height,
    records, depths, tile_rects, pair_counts, colour_is_clamped, radii,
):  # fmt: skip
    """Project every Gaussian and decide which can touch a pixel.

    Writes, for each of the ``N`` Gaussians: ``radii`` (INRIA's 3-sigma radius in pixels, 0 where that square misses the
    image or the centre is behind the near plane), ``pair_counts`` (the number of tiles that need it), and, where that
    is not 0, ``records``, ``depths``, ``tile_rects`` (x first, x end, y first, y end) and ``colour_is_clamped`` (bit by
    channel).
    """
    count = means.shape[0]
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    coefficients = (degree + 1) ** 2 - 1
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        harmonics = np.empty(15, np.float32)
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            pair_counts[i] = 0
            radii[i] = 0
            if not _may_be_seen(means[i], log_scales[i], view, lens, width, height):
                continue
            g = _project(means[i], log_scales[i], quaternions[i], view, lens)
            if not g.in_front:
                continue
            a, b, c, determinant = _covariance(g)
            if not (determinant > _ZERO and determinant < f32(1e30)):
                continue
            half_difference = _HALF * (a - c)
            largest = _HALF * (a + c) + math.sqrt(max(f32(0.1), half_difference * half_difference + b * b))
            radius = f32(math.ceil(f32(3) * math.sqrt(largest)))
            u = lens.fx * g.x * g.inverse_z + lens.cx - _HALF
            v = lens.fy * g.y * g.inverse_z + lens.cy - _HALF
            if not (abs(u) < f32(1e9) and abs(v) < f32(1e9)):
                continue
            # INRIA's square: a tile counts where [u - radius, u + radius + 15] reaches it.
            x_first, x_end = _tile_range(u - radius, u + radius - _ONE, tiles_x)
            y_first, y_end = _tile_range(v - radius, v + radius - _ONE, tiles_y)
            if x_end <= x_first or y_end <= y_first:
                continue
            radii[i] = int(min(radius, f32(1e9)))

            opacity = _sigmoid(opacity_logits[i])
            if not (opacity >= ALPHA_MIN):
                continue
            # The ellipse on which alpha is 1/255, grown a little so that rounding cannot lose a pixel.
            cutoff = math.log2(f32(255) * opacity) * f32(1.0001) + f32(1e-4)
            squared_reach = _TWO * cutoff / LOG2_E
            reach_x, reach_y = math.sqrt(squared_reach * a), math.sqrt(squared_reach * c)
            near_x_first, near_x_end = _tile_range(u - reach_x, u + reach_x, tiles_x)
            near_y_first, near_y_end = _tile_range(v - reach_y, v + reach_y, tiles_y)
            x_first, x_end = max(x_first, near_x_first), min(x_end, near_x_end)
            y_first, y_end = max(y_first, near_y_first), min(y_end, near_y_end)
            if x_end <= x_first or y_end <= y_first:
                continue

            dx, dy, dz = means[i, 0] - eye[0], means[i, 1] - eye[1], means[i, 2] - eye[2]
            inverse_distance = _ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
            basis(degree, dx * inverse_distance, dy * inverse_distance, dz * inverse_distance, harmonics)
            red = SH0 * sh_dc[i, 0] + _HALF
            green = SH0 * sh_dc[i, 1] + _HALF
            blue = SH0 * sh_dc[i, 2] + _HALF
            for k in range(coefficients):
                red += harmonics[k] * sh_rest[i, k, 0]
                green += harmonics[k] * sh_rest[i, k, 1]
                blue += harmonics[k] * sh_rest[i, k, 2]
            if not (abs(red) + abs(green) + abs(blue) < _COLOUR_LIMIT):
                continue

            depths[i] = g.z
            tile_rects[i, 0] = x_first
            tile_rects[i, 1] = x_end
            tile_rects[i, 2] = y_first
            tile_rects[i, 3] = y_end
            root_a = math.sqrt(c / determinant)
            record = records[i]
            record[U] = u
            record[V] = v
            record[SLOPE_X] = root_a * _SQRT_HALF_LOG2_E
            record[SLOPE_Y] = -b / (determinant * root_a) * _SQRT_HALF_LOG2_E
            record[FALLOFF_Y] = _HALF * LOG2_E / c
            record[LOG2_OPACITY] = math.log2(opacity)
            record[CUTOFF] = cutoff
            record[SKEW] = b / a * reach_x
            colour_is_clamped[i] = (1 if red < 0 else 0) | (2 if green < 0 else 0) | (4 if blue < 0 else 0)
            record[RED] = max(red, _ZERO)
            record[GREEN] = max(green, _ZERO)
            record[BLUE] = max(blue, _ZERO)
            pair_counts[i] = count_pairs(record, tile_rects[i])


@njit(**PARALLEL)
def project_backward(
    means, log_scales, quaternions, opacity_logits, sh_rest, degree, view, eye, lens,
    colour_is_clamped, pair_start, slots,
    d_means, d_log_scales, d_quaternions, d_opacity_logits, d_sh_dc, d_sh_rest, d_centres,
):  # fmt: skip
    """Gradients of the loss with respect to all parameters, from the gradient slots that blending filled.

    ``slots`` is flat, ``SLOT_WIDTH`` floats a pair; those of Gaussian ``i`` are ``pair_start[i]`` up to
    ``pair_start[i + 1]``. They are summed here in a fixed order, so the result does not depend on the number of
    threads. Every output row is written.
    ``d_centres`` is the gradient with respect to the centre on the screen, in pixels.
    """
    count = means.shape[0]
    coefficients = (degree + 1) ** 2 - 1
    all_coefficients = sh_rest.shape[1]
    to_natural = _ONE / _SQRT_HALF_LOG2_E  # From t of a record to z₁.
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        harmonics = np.empty(15, np.float32)
        weighted = np.empty(15, np.float32)
        total = np.empty(SLOT_WIDTH, np.float32)
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            if pair_start[i + 1] == pair_start[i]:
                for j in range(3):
                    d_means[i, j] = _ZERO
                    d_log_scales[i, j] = _ZERO
                    d_sh_dc[i, j] = _ZERO
                for j in range(4):
                    d_quaternions[i, j] = _ZERO
                d_opacity_logits[i] = _ZERO
                d_centres[i, 0] = _ZERO
                d_centres[i, 1] = _ZERO
                for k in range(all_coefficients):
                    for j in range(3):
                        d_sh_rest[i, k, j] = _ZERO
                continue

            for j in range(SLOT_WIDTH):
                total[j] = _ZERO
            for pair in range(pair_start[i], pair_start[i + 1]):
                for j in range(SLOT_WIDTH):
                    total[j] += slots[pair * SLOT_WIDTH + j]

            g = _project(means[i], log_scales[i], quaternions[i], view, lens)
            _, b, c, determinant = _covariance(g)

            # alpha = sigmoid(logit) * exp(...), and M_0 sums alpha * dL/dalpha.
            d_opacity_logits[i] = total[M_0] * (_ONE - _sigmoid(opacity_logits[i]))

            # L, the Cholesky factor of the inverse covariance, is [[root_a, 0], [shear, inverse_root_c]].
            root_a = math.sqrt(c / determinant)
            shear = -b / (determinant * root_a)
            inverse_root_c = _ONE / math.sqrt(c)
            m_1 = total[M_T] * to_natural
            m_2 = total[M_Y] * inverse_root_c
            m_11 = total[M_TT] * to_natural * to_natural
            m_12 = total[M_TY] * to_natural * inverse_root_c
            m_22 = total[M_YY] * inverse_root_c * inverse_root_c
            d_u = -root_a * m_1
            d_v = -(shear * m_1 + inverse_root_c * m_2)
            d_centres[i, 0] = d_u
            d_centres[i, 1] = d_v

            # dL/dU = L M Q with Q = Lᵀ U, and the gradient of log-scale j is Q_jᵀ M Q_j.
            # Row 0 of Q is (A U₀ + B U₁) / √A; A U₀ + B U₁ is row 0 of Σ⁻¹ U, written with the minors of U.
            n_01 = g.u00 * g.u11 - g.u01 * g.u10
            n_02 = g.u00 * g.u12 - g.u02 * g.u10
            n_12 = g.u01 * g.u12 - g.u02 * g.u11
            scale = _ONE / (determinant * root_a)
            q00 = (DILATION * g.u00 + g.u11 * n_01 + g.u12 * n_02) * scale
            q01 = (DILATION * g.u01 - g.u10 * n_01 + g.u12 * n_12) * scale
            q02 = (DILATION * g.u02 - g.u10 * n_02 - g.u11 * n_12) * scale
            q10, q11, q12 = g.u10 * inverse_root_c, g.u11 * inverse_root_c, g.u12 * inverse_root_c
            w00, w10 = m_11 * q00 + m_12 * q10, m_12 * q00 + m_22 * q10
            w01, w11 = m_11 * q01 + m_12 * q11, m_12 * q01 + m_22 * q11
            w02, w12 = m_11 * q02 + m_12 * q12, m_12 * q02 + m_22 * q12
            d_log_scales[i, 0] = q00 * w00 + q10 * w10
            d_log_scales[i, 1] = q01 * w01 + q11 * w11
            d_log_scales[i, 2] = q02 * w02 + q12 * w12
            du00, du10 = root_a * w00, shear * w00 + inverse_root_c * w10
            du01, du11 = root_a * w01, shear * w01 + inverse_root_c * w11
            du02, du12 = root_a * w02, shear * w02 + inverse_root_c * w12

            # U = T (R S): gradients of R, of the quaternion, and of T.
            e00, e01, e02 = du00 * g.s0, du01 * g.s1, du02 * g.s2
            e10, e11, e12 = du10 * g.s0, du11 * g.s1, du12 * g.s2
            dr00, dr01, dr02 = g.t00 * e00 + g.t10 * e10, g.t00 * e01 + g.t10 * e11, g.t00 * e02 + g.t10 * e12
            dr10, dr11, dr12 = g.t01 * e00 + g.t11 * e10, g.t01 * e01 + g.t11 * e11, g.t01 * e02 + g.t11 * e12
            dr20, dr21, dr22 = g.t02 * e00 + g.t12 * e10, g.t02 * e01 + g.t12 * e11, g.t02 * e02 + g.t12 * e12
            w, x, y, z = g.qw, g.qx, g.qy, g.qz
            d_w = _TWO * (x * (dr21 - dr12) + y * (dr02 - dr20) + z * (dr10 - dr01))
            d_x = _TWO * (y * (dr01 + dr10) + z * (dr02 + dr20) + w * (dr21 - dr12) - _TWO * x * (dr11 + dr22))
            d_y = _TWO * (x * (dr01 + dr10) + z * (dr12 + dr21) + w * (dr02 - dr20) - _TWO * y * (dr00 + dr22))
            d_z = _TWO * (x * (dr02 + dr20) + y * (dr12 + dr21) + w * (dr10 - dr01) - _TWO * z * (dr00 + dr11))
            along = w * d_w + x * d_x + y * d_y + z * d_z
            d_quaternions[i, 0] = (d_w - w * along) * g.inverse_norm
            d_quaternions[i, 1] = (d_x - x * along) * g.inverse_norm
            d_quaternions[i, 2] = (d_y - y * along) * g.inverse_norm
            d_quaternions[i, 3] = (d_z - z * along) * g.inverse_norm
            dt00 = e00 * g.r00 + e01 * g.r01 + e02 * g.r02
            dt01 = e00 * g.r10 + e01 * g.r11 + e02 * g.r12
            dt02 = e00 * g.r20 + e01 * g.r21 + e02 * g.r22
            dt10 = e10 * g.r00 + e11 * g.r01 + e12 * g.r02
            dt11 = e10 * g.r10 + e11 * g.r11 + e12 * g.r12
            dt12 = e10 * g.r20 + e11 * g.r21 + e12 * g.r22

            # T = J W. As INRIA does, a clamped coordinate counts as a constant.
            dj00 = dt00 * view[0, 0] + dt01 * view[0, 1] + dt02 * view[0, 2]
            dj02 = dt00 * view[2, 0] + dt01 * view[2, 1] + dt02 * view[2, 2]
            dj11 = dt10 * view[1, 0] + dt11 * view[1, 1] + dt12 * view[1, 2]
            dj12 = dt10 * view[2, 0] + dt11 * view[2, 1] + dt12 * view[2, 2]
            iz = g.inverse_z
            iz2 = iz * iz
            d_px = lens.fx * iz * d_u - (lens.fx * iz2 * dj02 if g.inside_x else _ZERO)
            d_py = lens.fy * iz * d_v - (lens.fy * iz2 * dj12 if g.inside_y else _ZERO)
            d_pz = -iz2 * (
                lens.fx * (g.x * d_u + dj00 - _TWO * g.x_clamped * iz * dj02)
                + lens.fy * (g.y * d_v + dj11 - _TWO * g.y_clamped * iz * dj12)
            )
            d_mean_x = view[0, 0] * d_px + view[1, 0] * d_py + view[2, 0] * d_pz
            d_mean_y = view[0, 1] * d_px + view[1, 1] * d_py + view[2, 1] * d_pz
            d_mean_z = view[0, 2] * d_px + view[1, 2] * d_py + view[2, 2] * d_pz

            clamped = colour_is_clamped[i]
            d_red = _ZERO if clamped & 1 else total[D_RED]
            d_green = _ZERO if clamped & 2 else total[D_GREEN]
            d_blue = _ZERO if clamped & 4 else total[D_BLUE]
            d_sh_dc[i, 0] = SH0 * d_red
            d_sh_dc[i, 1] = SH0 * d_green
            d_sh_dc[i, 2] = SH0 * d_blue
            dx, dy, dz = means[i, 0] - eye[0], means[i, 1] - eye[1], means[i, 2] - eye[2]
            inverse_distance = _ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
            dx *= inverse_distance
            dy *= inverse_distance
            dz *= inverse_distance
            basis(degree, dx, dy, dz, harmonics)
            for k in range(coefficients):
                d_sh_rest[i, k, 0] = harmonics[k] * d_red
                d_sh_rest[i, k, 1] = harmonics[k] * d_green
                d_sh_rest[i, k, 2] = harmonics[k] * d_blue
                weighted[k] = sh_rest[i, k, 0] * d_red + sh_rest[i, k, 1] * d_green + sh_rest[i, k, 2] * d_blue
            for k in range(coefficients, all_coefficients):
                for j in range(3):
                    d_sh_rest[i, k, j] = _ZERO
            gx, gy, gz = direction_gradient(degree, dx, dy, dz, weighted)
            radial = dx * gx + dy * gy + dz * gz
            d_means[i, 0] = d_mean_x + (gx - dx * radial) * inverse_distance
            d_means[i, 1] = d_mean_y + (gy - dy * radial) * inverse_distance
            d_means[i, 2] = d_mean_z + (gz - dz * radial) * inverse_distance
