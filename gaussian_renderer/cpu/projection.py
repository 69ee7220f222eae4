"""From the six parameters of each Gaussian to what blending needs of it, and the gradient back.

Notation, for one Gaussian: ``p`` its centre in camera space; ``T = J W`` (2 x 3) the affine approximation of the
projection; ``U = T R S`` (2 x 3), so that the covariance on the screen is ``U Uᵀ + 0.3 I = [[a, b], [b, c]]``
(Zwicker et al., EWA splatting, 2001; the dilation of 0.3 px is INRIA's).

Everything downstream works with the Cholesky factor of the inverse covariance. With ``d = centre - pixel``,

    dᵀ Σ⁻¹ d = z₁² + z₂²,   z₁ = √A dx + (B/√A) dy,   z₂ = dy / √c,   A = c / det,   B = -b / det,

which cannot turn negative and does not cancel for needles, as ``A dx² + 2 B dx dy + C dy²`` does in float32. For the
same reason the determinant is taken from the minors of U (Cauchy-Binet), never as ``a c - b b``, and the gradients of
the scales and of U from ``Q = Lᵀ U``, where L is that Cholesky factor.

The functions below compute with vectors, one Gaussian a lane (:mod:`gaussian_renderer.cpu.groups`).
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np
from numba import prange

from gaussian_renderer.cpu.compiled import njit
from gaussian_renderer.cpu.groups import (
    AHEAD,
    CACHE_LINE,
    LANES,
    clamp,
    consecutive_rows,
    gather_columns,
    larger,
    listed_rows,
    prefetch_rows,
    quadruple,
    scatter_columns,
    scatter_triple,
    smaller,
    triple,
)
from gaussian_renderer.cpu.lanes import lanes as simd
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
    RECORD_WIDTH,
    RED,
    SKEW,
    SLOPE_X,
    SLOPE_Y,
    SLOT_WIDTH,
    TILE,
    U,
    V,
)
from gaussian_renderer.cpu.spherical_harmonics import HARMONICS, SH0, basis, direction_gradient
from gaussian_renderer.cpu.tiles import Ellipse, Rect, count_tiles
from utils.kernels import INLINE, PARALLEL, SERIAL

f32 = np.float32

_ZERO, _ONE, _TWO, _THREE, _HALF = f32(0), f32(1), f32(2), f32(3), f32(0.5)
_TILE, _PER_TILE = f32(TILE), f32(1 / TILE)
_SQRT_HALF_LOG2_E = f32(math.sqrt(math.log2(math.e) / 2))
_TO_NATURAL = f32(1) / _SQRT_HALF_LOG2_E  # From t of a record to z₁.
_LOG2_255 = f32(math.log2(255))
_COLOUR_LIMIT = f32(1e20)  # A brighter Gaussian is culled: its gradients, squared on the way, would overflow.
_DETERMINANT_LIMIT = f32(1e30)
_LOG_SCALE_LIMIT = f32(60)  # Beyond it the determinant is beyond its limit.
_FAR = f32(1e9)  # Pixels; such numbers fit int32.
_FAINTEST = f32(-1e30)
_ROWS = 256

Intrinsics = namedtuple("Intrinsics", "fx fy cx cy x_min x_max y_min y_max")
"""Focal lengths and principal point in pixels, and the bounds of x/z and y/z that the Jacobian is clamped to."""

Center = namedtuple("Center", "in_front inverse_z z x_ratio y_ratio x_clamped y_clamped inside_x inside_y")
"""``p``: its depth; x/z and y/z, as they are and as the Jacobian has them; whether they are within its bounds."""

Rotation = namedtuple("Rotation", "w x y z inverse_norm r00 r01 r02 r10 r11 r12 r20 r21 r22")
"""The unit quaternion, 1 / the length of the given one, and R."""

Matrix = namedtuple("Matrix", "m00 m01 m02 m10 m11 m12")
"""T, U, or a gradient by one of them."""

Covariance = namedtuple("Covariance", "a b c determinant")
"""Of the screen, dilated."""

Moments = namedtuple("Moments", "m_1 m_2 m_11 m_12 m_22")
"""Sums over pixels of alpha dL/dalpha, times z₁, z₂ and their products."""


@njit(**INLINE)
def project_center(mean, view, lens):
    """``p``. A centre that is not in front of the near plane gets depth 1, so that nothing is divided by zero."""
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    in_front = z > NEAR_PLANE  # False for NaN.
    z = simd.select(in_front, z, simd.splat(_ONE))
    inverse_z = _ONE / z
    x_ratio, y_ratio = x * inverse_z, y * inverse_z
    return Center(
        in_front, inverse_z, z, x_ratio, y_ratio,
        clamp(x_ratio, lens.x_min, lens.x_max),
        clamp(y_ratio, lens.y_min, lens.y_max),
        (x_ratio >= lens.x_min) & (x_ratio <= lens.x_max),
        (y_ratio >= lens.y_min) & (y_ratio <= lens.y_max),
    )  # fmt: skip


@njit(**INLINE)
def may_be_seen(center, log_scale, lens, width, height):
    """Whether a Gaussian can touch the image: a few operations that spare the others.

    The longest half axis on the screen is at most the largest scale times the Frobenius norm of the Jacobian.
    """
    log_scale_limit = simd.splat(_LOG_SCALE_LIMIT)
    # Comparisons with NaN are false: what is not a number is not seen.
    shows = (log_scale[0] <= log_scale_limit) & (log_scale[1] <= log_scale_limit) & (log_scale[2] <= log_scale_limit)
    scale = simd.exp(larger(larger(log_scale[0], log_scale[1]), log_scale[2])) * center.inverse_z
    stretch_x = lens.fx * lens.fx * (_ONE + center.x_clamped * center.x_clamped)
    stretch_y = lens.fy * lens.fy * (_ONE + center.y_clamped * center.y_clamped)
    # Three deviations of the dilated ellipse, and what rounding up and whole tiles add.
    reach = _THREE * simd.square_root(scale * scale * (stretch_x + stretch_y) + _ONE) + _TWO
    u, v = lens.fx * center.x_ratio + lens.cx, lens.fy * center.y_ratio + lens.cy
    shows &= (u + reach >= _ZERO) & (v + reach >= _ZERO)
    shows &= (u - reach <= f32(width + TILE)) & (v - reach <= f32(height + TILE))
    return shows & center.in_front


@njit(**INLINE)
def rotate(quaternion):
    """R of quaternions of any length."""
    w, x, y, z = quaternion
    inverse_norm = _ONE / simd.square_root(larger(w * w + x * x + y * y + z * z, simd.splat(f32(1e-24))))
    w, x, y, z = w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm
    return Rotation(
        w, x, y, z, inverse_norm,
        _ONE - _TWO * (y * y + z * z), _TWO * (x * y - w * z), _TWO * (x * z + w * y),
        _TWO * (x * y + w * z), _ONE - _TWO * (x * x + z * z), _TWO * (y * z - w * x),
        _TWO * (x * z - w * y), _TWO * (y * z + w * x), _ONE - _TWO * (x * x + y * y),
    )  # fmt: skip


@njit(**INLINE)
def linearize(center, view, lens):
    """T, with INRIA's clamp of the Jacobian at 1.3 half fields of view."""
    j00, j02 = lens.fx * center.inverse_z, -lens.fx * center.x_clamped * center.inverse_z
    j11, j12 = lens.fy * center.inverse_z, -lens.fy * center.y_clamped * center.inverse_z
    return Matrix(
        j00 * view[0, 0] + j02 * view[2, 0],
        j00 * view[0, 1] + j02 * view[2, 1],
        j00 * view[0, 2] + j02 * view[2, 2],
        j11 * view[1, 0] + j12 * view[2, 0],
        j11 * view[1, 1] + j12 * view[2, 1],
        j11 * view[1, 2] + j12 * view[2, 2],
    )


@njit(**INLINE)
def project_axes(t, r, scale):
    """U."""
    return Matrix(
        (t.m00 * r.r00 + t.m01 * r.r10 + t.m02 * r.r20) * scale[0],
        (t.m00 * r.r01 + t.m01 * r.r11 + t.m02 * r.r21) * scale[1],
        (t.m00 * r.r02 + t.m01 * r.r12 + t.m02 * r.r22) * scale[2],
        (t.m10 * r.r00 + t.m11 * r.r10 + t.m12 * r.r20) * scale[0],
        (t.m10 * r.r01 + t.m11 * r.r11 + t.m12 * r.r21) * scale[1],
        (t.m10 * r.r02 + t.m11 * r.r12 + t.m12 * r.r22) * scale[2],
    )


@njit(**INLINE)
def covariance(u):
    """U Uᵀ + 0.3 I, and its determinant without cancellation."""
    m0 = u.m01 * u.m12 - u.m02 * u.m11
    m1 = u.m02 * u.m10 - u.m00 * u.m12
    m2 = u.m00 * u.m11 - u.m01 * u.m10
    xx = u.m00 * u.m00 + u.m01 * u.m01 + u.m02 * u.m02
    yy = u.m10 * u.m10 + u.m11 * u.m11 + u.m12 * u.m12
    xy = u.m00 * u.m10 + u.m01 * u.m11 + u.m02 * u.m12
    determinant = m0 * m0 + m1 * m1 + m2 * m2 + DILATION * (xx + yy) + DILATION * DILATION
    return Covariance(xx + DILATION, xy, yy + DILATION, determinant)


@njit(**INLINE)
def tile_range(low, high, tiles):
    """Tiles ``[first, end)`` of an axis whose pixels ``[low, high]`` are wanted, as floats; any float is safe."""
    limit = f32(tiles * TILE)
    first = simd.floor(clamp(low, _ZERO, limit) * _PER_TILE)
    end = simd.floor((clamp(high, -_ONE, limit) + _TILE) * _PER_TILE)
    return first, smaller(end, simd.splat(f32(tiles)))


@njit(**INLINE)
def sigmoid(x):
    return _ONE / (_ONE + simd.exp(_ZERO - x))


@njit(**INLINE)
def look(mean, eye):
    """Unit vectors from the eye to the centres, and 1 / the distances."""
    x, y, z = mean[0] - eye[0], mean[1] - eye[1], mean[2] - eye[2]
    inverse_distance = _ONE / simd.square_root(x * x + y * y + z * z)
    return (x * inverse_distance, y * inverse_distance, z * inverse_distance), inverse_distance


@njit(**INLINE)
def colors(direction, degree, dc, rest, harmonics):
    """Red, green and blue, not yet clamped. The basis goes to ``harmonics``, and ``rest`` holds the coefficients."""
    basis(degree, direction[0], direction[1], direction[2], harmonics)
    red, green, blue = SH0 * dc[0] + _HALF, SH0 * dc[1] + _HALF, SH0 * dc[2] + _HALF
    for k in range((degree + 1) ** 2 - 1):
        harmonic, at = simd.load(harmonics, k * LANES), 3 * k * LANES
        red = simd.multiply_add(harmonic, simd.load(rest, at), red)
        green = simd.multiply_add(harmonic, simd.load(rest, at + LANES), green)
        blue = simd.multiply_add(harmonic, simd.load(rest, at + 2 * LANES), blue)
    return red, green, blue


@njit(**SERIAL)
def _project_rows(
    begin, end, means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest, degree, view, eye, lens, width, height,
    records, depths, tile_rects, pair_counts, colour_is_clamped, radii,
):  # fmt: skip
    """What :func:`project` does, for the Gaussians from ``begin`` up to ``end``."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    sh_stride = sh_rest.shape[0] // depths.shape[0]
    seen, rows = np.empty(end - begin + 1, np.int64), np.empty(LANES, np.int64)
    harmonics, rest = np.empty(HARMONICS * LANES, np.float32), np.empty(3 * HARMONICS * LANES, np.float32)
    lane_radii, lane_pairs = np.empty(LANES, np.int32), np.empty(LANES, np.int32)
    zero = simd.splat(_ZERO)
    seen_count = 0
    for group in range(begin, end, LANES):
        consecutive_rows(group, end, rows)
        center = project_center(triple(means, rows), view, lens)
        bits = simd.mask_bits(may_be_seen(center, triple(log_scales, rows), lens, width, height))
        for lane in range(min(LANES, end - group)):
            radii[group + lane] = 0
            pair_counts[group + lane] = 0
            seen[seen_count] = group + lane
            seen_count += (bits >> lane) & 1

    for group in range(0, seen_count, LANES):
        listed_rows(seen, group, seen_count, rows)
        prefetch_rows(seen, group + AHEAD, seen_count, sh_rest, sh_stride)
        mean, log_scale = triple(means, rows), triple(log_scales, rows)
        center = project_center(mean, view, lens)
        scale = simd.exp(log_scale[0]), simd.exp(log_scale[1]), simd.exp(log_scale[2])
        axes = project_axes(linearize(center, view, lens), rotate(quadruple(quaternions, rows)), scale)
        a, b, c, determinant = covariance(axes)
        half_difference = _HALF * (a - c)
        root = simd.square_root(larger(simd.splat(f32(0.1)), half_difference * half_difference + b * b))
        radius = simd.ceil(_THREE * simd.square_root(_HALF * (a + c) + root))
        u = lens.fx * center.x_ratio + lens.cx - _HALF
        v = lens.fy * center.y_ratio + lens.cy - _HALF
        # INRIA's square: a tile counts where [u - radius, u + radius + 15] reaches it.
        x_first, x_end = tile_range(u - radius, u + radius - _ONE, tiles_x)
        y_first, y_end = tile_range(v - radius, v + radius - _ONE, tiles_y)
        shows = center.in_front & (determinant > _ZERO) & (determinant < _DETERMINANT_LIMIT)
        shows &= (simd.absolute(u) < _FAR) & (simd.absolute(v) < _FAR) & (x_end > x_first) & (y_end > y_first)
        radius = smaller(simd.select(shows, radius, zero), simd.splat(_FAR))
        simd.store_int(lane_radii, 0, simd.to_int(radius))

        logit = simd.gather(opacity_logits, rows, 1, 0)
        opacity = sigmoid(logit)
        shows &= (opacity >= ALPHA_MIN) & (logit > _FAINTEST)  # The latter is false for NaN.
        log2_opacity = simd.log2(larger(opacity, simd.splat(ALPHA_MIN)))
        # The ellipse on which alpha is 1/255, grown a little so that rounding cannot lose a pixel.
        cutoff = (log2_opacity + _LOG2_255) * f32(1.0001) + f32(1e-4)
        squared_reach = _TWO / LOG2_E * cutoff
        reach_x, reach_y = simd.square_root(squared_reach * a), simd.square_root(squared_reach * c)
        near_x_first, near_x_end = tile_range(u - reach_x, u + reach_x, tiles_x)
        near_y_first, near_y_end = tile_range(v - reach_y, v + reach_y, tiles_y)
        x_first, x_end = larger(x_first, near_x_first), smaller(x_end, near_x_end)
        y_first, y_end = larger(y_first, near_y_first), smaller(y_end, near_y_end)
        shows &= (x_end > x_first) & (y_end > y_first)

        direction, _ = look(mean, eye)
        gather_columns(sh_rest, rows, sh_stride, 3 * ((degree + 1) ** 2 - 1), rest)
        red, green, blue = colors(direction, degree, triple(sh_dc, rows), rest, harmonics)
        shows &= simd.absolute(red) + simd.absolute(green) + simd.absolute(blue) < _COLOUR_LIMIT
        root_a = simd.square_root(c / determinant)
        ellipse = Ellipse(
            u, v, root_a * _SQRT_HALF_LOG2_E, (zero - b) / (determinant * root_a) * _SQRT_HALF_LOG2_E,
            _HALF * LOG2_E / c, cutoff, b / a * reach_x,
        )  # fmt: skip
        # What does not show has no rows of tiles. The rest of it is written as well, and never read.
        rect = Rect(x_first, x_end, simd.select(shows, y_first, zero), simd.select(shows, y_end, zero))
        simd.store_int(lane_pairs, 0, simd.to_int(count_tiles(ellipse, rect)))

        simd.scatter(records, rows, RECORD_WIDTH, U, ellipse.u)
        simd.scatter(records, rows, RECORD_WIDTH, V, ellipse.v)
        simd.scatter(records, rows, RECORD_WIDTH, SLOPE_X, ellipse.slope_x)
        simd.scatter(records, rows, RECORD_WIDTH, SLOPE_Y, ellipse.slope_y)
        simd.scatter(records, rows, RECORD_WIDTH, FALLOFF_Y, ellipse.falloff_y)
        simd.scatter(records, rows, RECORD_WIDTH, LOG2_OPACITY, log2_opacity)
        simd.scatter(records, rows, RECORD_WIDTH, CUTOFF, ellipse.cutoff)
        simd.scatter(records, rows, RECORD_WIDTH, SKEW, ellipse.skew)
        simd.scatter(records, rows, RECORD_WIDTH, RED, larger(red, zero))
        simd.scatter(records, rows, RECORD_WIDTH, GREEN, larger(green, zero))
        simd.scatter(records, rows, RECORD_WIDTH, BLUE, larger(blue, zero))
        simd.scatter(depths, rows, 1, 0, center.z)
        simd.scatter(tile_rects, rows, 4, 0, rect.x_first)
        simd.scatter(tile_rects, rows, 4, 1, rect.x_end)
        simd.scatter(tile_rects, rows, 4, 2, rect.y_first)
        simd.scatter(tile_rects, rows, 4, 3, rect.y_end)
        reds, greens = simd.mask_bits(red < _ZERO), simd.mask_bits(green < _ZERO)
        blues = simd.mask_bits(blue < _ZERO)
        for lane in range(LANES):
            i = rows[lane]
            radii[i], pair_counts[i] = lane_radii[lane], lane_pairs[lane]
            clamped = ((reds >> lane) & 1) | ((greens >> lane) & 1) << 1 | ((blues >> lane) & 1) << 2
            colour_is_clamped[i] = clamped


@njit(**PARALLEL)
def project(
    means, log_scales, quaternions, opacity_logits, sh_dc, sh_rest, degree, view, eye, lens, width, height,
    records, depths, tile_rects, pair_counts, colour_is_clamped, radii,
):  # fmt: skip
    """Project every Gaussian and decide which can touch a pixel.

    All arrays but ``view`` are flat. Writes, for each of the ``N`` Gaussians: ``radii`` (INRIA's 3-sigma radius in
    pixels, 0 where that square misses the image or the centre is behind the near plane), ``pair_counts`` (the number of
    tiles that need it), and, where that is not 0, ``records``, ``depths``, ``tile_rects`` (x first, x end, y first,
    y end) and ``colour_is_clamped`` (bit by channel).
    """
    count = depths.shape[0]
    for chunk in prange((count + _ROWS - 1) // _ROWS):
        _project_rows(
            chunk * _ROWS, min(count, (chunk + 1) * _ROWS), means, log_scales, quaternions, opacity_logits, sh_dc,
            sh_rest, degree, view, eye, lens, width, height, records, depths, tile_rects, pair_counts,
            colour_is_clamped, radii,
        )  # fmt: skip


@njit(**INLINE)
def shape_gradient(u, covariance, moments):
    """Gradients by the centre on the screen, by the log-scales, and by U.

    L, the Cholesky factor of the inverse covariance, is [[root_a, 0], [shear, inverse_root_c]]. dL/dU = L M Q with
    Q = Lᵀ U, and the gradient by log-scale j is Q_jᵀ M Q_j. Row 0 of Q is (A U₀ + B U₁) / √A; A U₀ + B U₁ is row 0 of
    Σ⁻¹ U, written with the minors of U.
    """
    _, b, c, determinant = covariance
    root_a = simd.square_root(c / determinant)
    inverse = _ONE / (determinant * root_a)
    shear = (_ZERO - b) * inverse
    inverse_root_c = _ONE / simd.square_root(c)
    n_01 = u.m00 * u.m11 - u.m01 * u.m10
    n_02 = u.m00 * u.m12 - u.m02 * u.m10
    n_12 = u.m01 * u.m12 - u.m02 * u.m11
    q00 = (DILATION * u.m00 + u.m11 * n_01 + u.m12 * n_02) * inverse
    q01 = (DILATION * u.m01 - u.m10 * n_01 + u.m12 * n_12) * inverse
    q02 = (DILATION * u.m02 - u.m10 * n_02 - u.m11 * n_12) * inverse
    q10, q11, q12 = u.m10 * inverse_root_c, u.m11 * inverse_root_c, u.m12 * inverse_root_c
    m_1, m_2, m_11, m_12, m_22 = moments
    w00, w10 = m_11 * q00 + m_12 * q10, m_12 * q00 + m_22 * q10
    w01, w11 = m_11 * q01 + m_12 * q11, m_12 * q01 + m_22 * q11
    w02, w12 = m_11 * q02 + m_12 * q12, m_12 * q02 + m_22 * q12
    d_center = _ZERO - root_a * m_1, _ZERO - (shear * m_1 + inverse_root_c * m_2)
    d_log_scale = q00 * w00 + q10 * w10, q01 * w01 + q11 * w11, q02 * w02 + q12 * w12
    d_u = Matrix(
        root_a * w00, root_a * w01, root_a * w02,
        shear * w00 + inverse_root_c * w10, shear * w01 + inverse_root_c * w11, shear * w02 + inverse_root_c * w12,
    )  # fmt: skip
    return d_center, d_log_scale, d_u


@njit(**INLINE)
def axes_gradient(t, r, scale, d_u):
    """From U = T R S: gradients by the quaternion, as it was given, and by T."""
    e00, e01, e02 = d_u.m00 * scale[0], d_u.m01 * scale[1], d_u.m02 * scale[2]
    e10, e11, e12 = d_u.m10 * scale[0], d_u.m11 * scale[1], d_u.m12 * scale[2]
    dr00, dr01, dr02 = t.m00 * e00 + t.m10 * e10, t.m00 * e01 + t.m10 * e11, t.m00 * e02 + t.m10 * e12
    dr10, dr11, dr12 = t.m01 * e00 + t.m11 * e10, t.m01 * e01 + t.m11 * e11, t.m01 * e02 + t.m11 * e12
    dr20, dr21, dr22 = t.m02 * e00 + t.m12 * e10, t.m02 * e01 + t.m12 * e11, t.m02 * e02 + t.m12 * e12
    w, x, y, z = r.w, r.x, r.y, r.z
    d_w = _TWO * (x * (dr21 - dr12) + y * (dr02 - dr20) + z * (dr10 - dr01))
    d_x = _TWO * (y * (dr01 + dr10) + z * (dr02 + dr20) + w * (dr21 - dr12) - _TWO * x * (dr11 + dr22))
    d_y = _TWO * (x * (dr01 + dr10) + z * (dr12 + dr21) + w * (dr02 - dr20) - _TWO * y * (dr00 + dr22))
    d_z = _TWO * (x * (dr02 + dr20) + y * (dr12 + dr21) + w * (dr10 - dr01) - _TWO * z * (dr00 + dr11))
    along = w * d_w + x * d_x + y * d_y + z * d_z
    d_quaternion = (
        (d_w - w * along) * r.inverse_norm,
        (d_x - x * along) * r.inverse_norm,
        (d_y - y * along) * r.inverse_norm,
        (d_z - z * along) * r.inverse_norm,
    )
    d_t = Matrix(
        e00 * r.r00 + e01 * r.r01 + e02 * r.r02,
        e00 * r.r10 + e01 * r.r11 + e02 * r.r12,
        e00 * r.r20 + e01 * r.r21 + e02 * r.r22,
        e10 * r.r00 + e11 * r.r01 + e12 * r.r02,
        e10 * r.r10 + e11 * r.r11 + e12 * r.r12,
        e10 * r.r20 + e11 * r.r21 + e12 * r.r22,
    )
    return d_quaternion, d_t


@njit(**INLINE)
def center_gradient(center, view, lens, d_center, d_t):
    """From T = J W and the centre on the screen: gradients by the mean. As INRIA's, a clamped ratio is a constant."""
    dj00 = d_t.m00 * view[0, 0] + d_t.m01 * view[0, 1] + d_t.m02 * view[0, 2]
    dj02 = d_t.m00 * view[2, 0] + d_t.m01 * view[2, 1] + d_t.m02 * view[2, 2]
    dj11 = d_t.m10 * view[1, 0] + d_t.m11 * view[1, 1] + d_t.m12 * view[1, 2]
    dj12 = d_t.m10 * view[2, 0] + d_t.m11 * view[2, 1] + d_t.m12 * view[2, 2]
    inverse_z, zero = center.inverse_z, simd.splat(_ZERO)
    d_x = lens.fx * inverse_z * (d_center[0] - simd.select(center.inside_x, inverse_z * dj02, zero))
    d_y = lens.fy * inverse_z * (d_center[1] - simd.select(center.inside_y, inverse_z * dj12, zero))
    x_term = center.x_ratio * d_center[0] + inverse_z * (dj00 - _TWO * center.x_clamped * dj02)
    y_term = center.y_ratio * d_center[1] + inverse_z * (dj11 - _TWO * center.y_clamped * dj12)
    d_z = _ZERO - inverse_z * (lens.fx * x_term + lens.fy * y_term)
    return (
        view[0, 0] * d_x + view[1, 0] * d_y + view[2, 0] * d_z,
        view[0, 1] * d_x + view[1, 1] * d_y + view[2, 1] * d_z,
        view[0, 2] * d_x + view[1, 2] * d_y + view[2, 2] * d_z,
    )


@njit(**INLINE)
def color_gradient(direction, inverse_distance, degree, d_color, rest, harmonics):
    """Gradients by the mean, which the direction depends on; and those of ``rest``, written over its coefficients.

    ``harmonics`` is room for as many vectors as there are harmonics.
    """
    x, y, z = direction
    red, green, blue = d_color
    basis(degree, x, y, z, harmonics)
    for k in range((degree + 1) ** 2 - 1):
        harmonic, at = simd.load(harmonics, k * LANES), 3 * k * LANES
        weight = simd.load(rest, at) * red
        weight = simd.multiply_add(simd.load(rest, at + LANES), green, weight)
        weight = simd.multiply_add(simd.load(rest, at + 2 * LANES), blue, weight)
        simd.store(harmonics, k * LANES, weight)
        simd.store(rest, at, harmonic * red)
        simd.store(rest, at + LANES, harmonic * green)
        simd.store(rest, at + 2 * LANES, harmonic * blue)
    gx, gy, gz = direction_gradient(degree, x, y, z, harmonics)
    radial = x * gx + y * gy + z * gz
    return (
        (gx - x * radial) * inverse_distance,
        (gy - y * radial) * inverse_distance,
        (gz - z * radial) * inverse_distance,
    )


@njit(**INLINE)
def add_up_slots(slots, first_pair, end_pair, sums, at):
    """Sum the slots of one Gaussian, in their order, to ``sums[at : at + SLOT_WIDTH]``."""
    for column in range(0, M_YY, LANES):
        total = simd.load(slots, first_pair * SLOT_WIDTH + column)
        for pair in range(first_pair + 1, end_pair):
            total += simd.load(slots, pair * SLOT_WIDTH + column)
        simd.store(sums, at + column, total)
    last = slots[first_pair * SLOT_WIDTH + M_YY]
    for pair in range(first_pair + 1, end_pair):
        last += slots[pair * SLOT_WIDTH + M_YY]
    sums[at + M_YY] = last


@njit(**SERIAL)
def _project_rows_backward(
    begin, end,
    means, log_scales, quaternions, opacity_logits, sh_rest, degree, view, eye, lens,
    colour_is_clamped, pair_start, slots,
    d_means, d_log_scales, d_quaternions, d_opacity_logits, d_sh_dc, d_sh_rest, d_centres,
):  # fmt: skip
    """What :func:`project_backward` does, for the Gaussians from ``begin`` up to ``end``."""
    stride = sh_rest.shape[0] // (pair_start.shape[0] - 1)
    drawn, rows = np.empty(end - begin + 1, np.int64), np.empty(LANES, np.int64)
    sums, own_rows = np.empty(LANES * SLOT_WIDTH, np.float32), np.empty(LANES, np.int64)
    scratch, columns = np.empty(HARMONICS * LANES, np.float32), 3 * ((degree + 1) ** 2 - 1)
    rest = np.zeros(3 * HARMONICS * LANES, np.float32)  # Beyond the degree gradients stay zero.
    keeps = np.empty(3 * LANES, np.float32)
    consecutive_rows(0, LANES, own_rows)
    drawn_count = 0
    for i in range(begin, end):
        drawn[drawn_count] = i
        if pair_start[i + 1] > pair_start[i]:
            drawn_count += 1
            continue
        d_opacity_logits[i] = _ZERO
        d_means[3 * i : 3 * i + 3] = _ZERO
        d_log_scales[3 * i : 3 * i + 3] = _ZERO
        d_sh_dc[3 * i : 3 * i + 3] = _ZERO
        d_quaternions[4 * i : 4 * i + 4] = _ZERO
        d_centres[2 * i : 2 * i + 2] = _ZERO
        d_sh_rest[stride * i : stride * i + stride] = _ZERO

    for group in range(0, drawn_count, LANES):
        listed_rows(drawn, group, drawn_count, rows)
        prefetch_rows(drawn, group + AHEAD, drawn_count, sh_rest, stride)
        prefetch_rows(drawn, group + AHEAD, drawn_count, d_sh_rest, stride)
        if group + AHEAD < drawn_count:
            first_pair = pair_start[drawn[group + AHEAD]]
            end_pair = pair_start[drawn[min(group + AHEAD + LANES, drawn_count) - 1] + 1]
            for element in range(first_pair * SLOT_WIDTH, end_pair * SLOT_WIDTH, CACHE_LINE):
                simd.prefetch(slots, element)
        for lane in range(LANES):
            i = rows[lane]
            add_up_slots(slots, pair_start[i], pair_start[i + 1], sums, lane * SLOT_WIDTH)
            for channel in range(3):
                keeps[channel * LANES + lane] = _ZERO if colour_is_clamped[i] & (1 << channel) else _ONE

        # alpha = sigmoid(logit) * exp(...), and M_0 sums alpha * dL/dalpha.
        transparency = _ONE - sigmoid(simd.gather(opacity_logits, rows, 1, 0))
        simd.scatter(d_opacity_logits, rows, 1, 0, simd.gather(sums, own_rows, SLOT_WIDTH, M_0) * transparency)

        mean, log_scale = triple(means, rows), triple(log_scales, rows)
        center = project_center(mean, view, lens)
        scale = simd.exp(log_scale[0]), simd.exp(log_scale[1]), simd.exp(log_scale[2])
        t, r = linearize(center, view, lens), rotate(quadruple(quaternions, rows))
        u = project_axes(t, r, scale)
        shape = covariance(u)
        inverse_root_c = _ONE / simd.square_root(shape.c)
        moments = Moments(
            simd.gather(sums, own_rows, SLOT_WIDTH, M_T) * _TO_NATURAL,
            simd.gather(sums, own_rows, SLOT_WIDTH, M_Y) * inverse_root_c,
            simd.gather(sums, own_rows, SLOT_WIDTH, M_TT) * (_TO_NATURAL * _TO_NATURAL),
            simd.gather(sums, own_rows, SLOT_WIDTH, M_TY) * _TO_NATURAL * inverse_root_c,
            simd.gather(sums, own_rows, SLOT_WIDTH, M_YY) * inverse_root_c * inverse_root_c,
        )
        d_center, d_log_scale, d_u = shape_gradient(u, shape, moments)
        d_quaternion, d_t = axes_gradient(t, r, scale, d_u)
        d_mean = center_gradient(center, view, lens, d_center, d_t)
        d_color = (
            simd.gather(sums, own_rows, SLOT_WIDTH, D_RED) * simd.load(keeps, 0),
            simd.gather(sums, own_rows, SLOT_WIDTH, D_GREEN) * simd.load(keeps, LANES),
            simd.gather(sums, own_rows, SLOT_WIDTH, D_BLUE) * simd.load(keeps, 2 * LANES),
        )
        direction, inverse_distance = look(mean, eye)
        gather_columns(sh_rest, rows, stride, columns, rest)
        d_look = color_gradient(direction, inverse_distance, degree, d_color, rest, scratch)
        scatter_columns(d_sh_rest, rows, stride, stride, rest)
        scatter_triple(d_means, rows, (d_mean[0] + d_look[0], d_mean[1] + d_look[1], d_mean[2] + d_look[2]))
        scatter_triple(d_log_scales, rows, d_log_scale)
        scatter_triple(d_sh_dc, rows, (SH0 * d_color[0], SH0 * d_color[1], SH0 * d_color[2]))
        simd.scatter(d_centres, rows, 2, 0, d_center[0])
        simd.scatter(d_centres, rows, 2, 1, d_center[1])
        simd.scatter(d_quaternions, rows, 4, 0, d_quaternion[0])
        simd.scatter(d_quaternions, rows, 4, 1, d_quaternion[1])
        simd.scatter(d_quaternions, rows, 4, 2, d_quaternion[2])
        simd.scatter(d_quaternions, rows, 4, 3, d_quaternion[3])


@njit(**PARALLEL)
def project_backward(
    means, log_scales, quaternions, opacity_logits, sh_rest, degree, view, eye, lens,
    colour_is_clamped, pair_start, slots,
    d_means, d_log_scales, d_quaternions, d_opacity_logits, d_sh_dc, d_sh_rest, d_centres,
):  # fmt: skip
    """Gradients of the loss with respect to all parameters, from the gradient slots that blending filled.

    All arrays but ``view`` are flat. ``slots`` has ``SLOT_WIDTH`` floats a pair; those of Gaussian ``i`` are
    ``pair_start[i]`` up to ``pair_start[i + 1]``. They are summed here in a fixed order, so the result does not depend
    on the number of threads. Every row of the outputs is written. ``d_centres`` is the gradient with respect to the
    centre on the screen, in pixels.
    """
    count = pair_start.shape[0] - 1
    for chunk in prange((count + _ROWS - 1) // _ROWS):
        _project_rows_backward(
            chunk * _ROWS, min(count, (chunk + 1) * _ROWS),
            means, log_scales, quaternions, opacity_logits, sh_rest, degree, view, eye, lens,
            colour_is_clamped, pair_start, slots,
            d_means, d_log_scales, d_quaternions, d_opacity_logits, d_sh_dc, d_sh_rest, d_centres,
        )  # fmt: skip
