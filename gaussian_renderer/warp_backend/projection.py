"""From the six parameters of each Gaussian to what blending needs of it, and the gradient back.

Notation as in :mod:`gaussian_renderer.cpu.projection`: T = J W (2 x 3) is the affine approximation of the projection,
U = T R S (2 x 3), and the covariance on the screen U Uᵀ + 0.3 I = [[a, b], [b, c]] (Zwicker et al., EWA splatting,
2001; the dilation of 0.3 px is INRIA's). The determinant comes from the minors of U, and the gradients from Q = Lᵀ U,
where L is the Cholesky factor of the inverse covariance: nothing cancels for needles.
"""

from __future__ import annotations

import warp as wp

from gaussian_renderer.warp_backend.harmonics import COEFFICIENTS, SH0, Harmonics, basis, direction_gradient
from gaussian_renderer.warp_backend.splats import ALPHA_MIN, ScreenSplat
from gaussian_renderer.warp_backend.tiles import count_tiles, tiles_meeting
from gaussian_renderer.warp_backend.view import View

wp.set_module_options({"enable_backward": False})

_NEAR_PLANE = wp.constant(0.2)
_DILATION = wp.constant(0.3)
_COLOR_LIMIT = wp.constant(1e20)  # A brighter Gaussian is culled: its gradients, squared on the way, would overflow.
_DETERMINANT_LIMIT = wp.constant(1e30)
_FAR = wp.constant(1e9)  # Pixels.
_INFINITY = wp.constant(float("inf"))

Sums = wp.types.vector(length=9, dtype=wp.float32)
"""Gradient sums of a Gaussian over all pixels: of the color weights, and moments of s = alpha dL/dalpha.

Columns: weight times dL/dR, dL/dG, dL/dB; then s, s z₁, s z₂, s z₁², s z₁ z₂, s z₂².
"""


@wp.struct
class Projected:
    """The geometry of a Gaussian in camera space and on the screen; see the module's notation.

    Attributes:
        position: In camera space.
        clamped: Its x and y with x/z and y/z clamped as INRIA does for the Jacobian.
        is_inside: 1 for each axis that was not clamped, else 0.
        quaternion, inverse_norm: The unit quaternion wxyz, and the factor that made it one.
        scales, rotation: S and R.
        t_0, t_1, u_0, u_1: The rows of T and U.
    """

    position: wp.vec3
    inverse_depth: wp.float32
    clamped: wp.vec2
    is_inside: wp.vec2
    quaternion: wp.vec4
    inverse_norm: wp.float32
    scales: wp.vec3
    rotation: wp.mat33
    t_0: wp.vec3
    t_1: wp.vec3
    u_0: wp.vec3
    u_1: wp.vec3


@wp.func
def rotation_of(q: wp.vec4):
    """The matrix of a unit quaternion wxyz."""
    w = q[0]
    x = q[1]
    y = q[2]
    z = q[3]
    return wp.matrix_from_rows(
        wp.vec3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        wp.vec3(2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        wp.vec3(2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )


@wp.func
def placed(mean: wp.vec3, log_scale: wp.vec3, quaternion: wp.vec4, view: View):
    """The geometry of one Gaussian. One that is not in front of the camera gets a depth of 1 in place of its own."""
    g = Projected()
    g.position = view.rotation * mean + view.translation
    depth = g.position[2]
    g.inverse_depth = 1.0 / wp.where(depth > _NEAR_PLANE, depth, 1.0)
    ratio = wp.vec2(g.position[0], g.position[1]) * g.inverse_depth
    limited = wp.min(wp.max(ratio, view.low), view.high)
    g.clamped = limited * depth
    g.is_inside = wp.vec2(float(limited[0] == ratio[0]), float(limited[1] == ratio[1]))

    g.inverse_norm = 1.0 / wp.sqrt(wp.max(wp.dot(quaternion, quaternion), 1.0e-24))
    g.quaternion = quaternion * g.inverse_norm
    g.scales = wp.vec3(wp.exp(log_scale[0]), wp.exp(log_scale[1]), wp.exp(log_scale[2]))
    g.rotation = rotation_of(g.quaternion)

    scaled = view.focal * g.inverse_depth
    slope = wp.cw_mul(scaled, g.clamped) * g.inverse_depth
    g.t_0 = scaled[0] * view.rotation[0] - slope[0] * view.rotation[2]
    g.t_1 = scaled[1] * view.rotation[1] - slope[1] * view.rotation[2]
    g.u_0 = wp.cw_mul(g.t_0 * g.rotation, g.scales)
    g.u_1 = wp.cw_mul(g.t_1 * g.rotation, g.scales)
    return g


@wp.func
def covariance(g: Projected):
    """a, b, c of the dilated covariance on the screen and its determinant, the latter without cancellation."""
    minors = wp.cross(g.u_0, g.u_1)
    xx = wp.dot(g.u_0, g.u_0)
    yy = wp.dot(g.u_1, g.u_1)
    determinant = wp.dot(minors, minors) + _DILATION * (xx + yy) + _DILATION * _DILATION
    return wp.vec4(xx + _DILATION, wp.dot(g.u_0, g.u_1), yy + _DILATION, determinant)


@wp.func
def cholesky(cov: wp.vec4):
    """L of the inverse covariance [[A, B], [B, C]], as (L₀₀, L₁₀, L₁₁): (√A, B/√A, 1/√c)."""
    root = wp.sqrt(cov[2] / cov[3])
    return wp.vec3(root, -cov[1] / (cov[3] * root), 1.0 / wp.sqrt(cov[2]))


@wp.func
def sigmoid(x: float):
    return 1.0 / (1.0 + wp.exp(-x))


@wp.func
def center_of(g: Projected, view: View):
    """On the screen, in pixels whose centers have whole coordinates."""
    ratio = wp.vec2(g.position[0], g.position[1]) * g.inverse_depth
    return wp.cw_mul(view.focal, ratio) + view.principal - wp.vec2(0.5, 0.5)


@wp.kernel
def project(
    means: wp.array[wp.vec3],
    log_scales: wp.array[wp.vec3],
    quaternions: wp.array[wp.vec4],
    opacity_logits: wp.array[wp.float32],
    sh_dc: wp.array[wp.vec3],
    sh_rest: wp.array2d[wp.vec3],
    degree: int,
    view: View,
    splats: wp.array[ScreenSplat],
    depths: wp.array[wp.float32],
    tile_rects: wp.array[wp.vec4i],
    pair_counts: wp.array[wp.int32],
    radii: wp.array[wp.int32],
):
    """Project every Gaussian and decide which can touch a pixel.

    Writes ``radii`` (INRIA's 3-sigma radius in pixels, 0 where that square misses the image or the center is behind the
    near plane), ``pair_counts`` (the number of tiles that need it), ``depths`` (infinite where none does), and, where
    some do, ``splats`` and ``tile_rects`` (x first, x end, y first, y end).
    """
    i = wp.tid()
    pair_counts[i] = 0
    radii[i] = 0
    depths[i] = _INFINITY
    g = placed(means[i], log_scales[i], quaternions[i], view)
    # Comparisons with NaN are false: what is not a number is culled.
    if not (g.position[2] > _NEAR_PLANE):
        return
    cov = covariance(g)
    if not (cov[3] > 0.0 and cov[3] < _DETERMINANT_LIMIT):
        return
    center = center_of(g, view)
    if not (wp.abs(center[0]) < _FAR and wp.abs(center[1]) < _FAR):
        return
    half_difference = 0.5 * (cov[0] - cov[2])
    spread = wp.sqrt(wp.max(0.1, half_difference * half_difference + cov[1] * cov[1]))
    radius = wp.ceil(3.0 * wp.sqrt(0.5 * (cov[0] + cov[2]) + spread))
    # INRIA's square: a tile counts where [u - radius, u + radius + 15] reaches it.
    square = tiles_meeting(center, wp.vec2(radius, radius), wp.vec2(radius - 1.0, radius - 1.0), view.tiles)
    if square[0] >= square[1] or square[2] >= square[3]:
        return
    radii[i] = int(wp.min(radius, _FAR))

    splat = ScreenSplat()
    splat.center = center
    splat.opacity = sigmoid(opacity_logits[i])
    if not (splat.opacity >= ALPHA_MIN):
        return
    splat.cutoff = 2.0 * wp.log(255.0 * splat.opacity) * 1.0001 + 1.0e-4
    reach = wp.vec2(wp.sqrt(splat.cutoff * cov[0]), wp.sqrt(splat.cutoff * cov[2]))
    near = tiles_meeting(center, reach, reach, view.tiles)
    rect = wp.vec4i(
        wp.max(square[0], near[0]), wp.min(square[1], near[1]), wp.max(square[2], near[2]), wp.min(square[3], near[3])
    )
    if rect[0] >= rect[1] or rect[2] >= rect[3]:
        return

    harmonics = basis(degree, wp.normalize(means[i] - view.eye))
    splat.color = SH0 * sh_dc[i] + wp.vec3(0.5, 0.5, 0.5)
    for k in range(COEFFICIENTS):
        if k < (degree + 1) * (degree + 1) - 1:
            splat.color += harmonics[k] * sh_rest[i, k]
    if not (wp.abs(splat.color[0]) + wp.abs(splat.color[1]) + wp.abs(splat.color[2]) < _COLOR_LIMIT):
        return

    splat.factor = cholesky(cov)
    splats[i] = splat
    depths[i] = g.position[2]
    tile_rects[i] = rect
    pair_counts[i] = count_tiles(splat, rect)


@wp.kernel
def project_backward(
    means: wp.array[wp.vec3],
    log_scales: wp.array[wp.vec3],
    quaternions: wp.array[wp.vec4],
    opacity_logits: wp.array[wp.float32],
    sh_rest: wp.array2d[wp.vec3],
    degree: int,
    view: View,
    splats: wp.array[ScreenSplat],
    pair_counts: wp.array[wp.int32],
    sums: wp.array[Sums],
    d_means: wp.array[wp.vec3],
    d_log_scales: wp.array[wp.vec3],
    d_quaternions: wp.array[wp.vec4],
    d_opacity_logits: wp.array[wp.float32],
    d_sh_dc: wp.array[wp.vec3],
    d_sh_rest: wp.array2d[wp.vec3],
    d_centers: wp.array[wp.vec2],
):
    """Gradients of the loss with respect to all parameters, from the sums that blending has made.

    The outputs must hold zeros: Gaussians that are not drawn keep them. ``d_centers`` is the gradient with respect to
    the center on the screen, in pixels.
    """
    i = wp.tid()
    if pair_counts[i] == 0:
        return
    total = sums[i]
    g = placed(means[i], log_scales[i], quaternions[i], view)
    cov = covariance(g)
    factor = cholesky(cov)

    # alpha = sigmoid(logit) * exp(...), and total[3] sums alpha * dL/dalpha.
    d_opacity_logits[i] = total[3] * (1.0 - sigmoid(opacity_logits[i]))
    d_center = -wp.vec2(factor[0] * total[4], factor[1] * total[4] + factor[2] * total[5])
    d_centers[i] = d_center

    # dL/dU = L M Q with Q = Lᵀ U, and the gradient of log-scale j is Q_jᵀ M Q_j. Row 0 of Q is (A U₀ + B U₁) / √A;
    # A U₀ + B U₁ is row 0 of Σ⁻¹ U, written with the minors of U.
    q_0 = (_DILATION * g.u_0 + wp.cross(g.u_1, wp.cross(g.u_0, g.u_1))) / (cov[3] * factor[0])
    q_1 = g.u_1 * factor[2]
    mq_0 = total[6] * q_0 + total[7] * q_1
    mq_1 = total[7] * q_0 + total[8] * q_1
    d_log_scales[i] = wp.cw_mul(q_0, mq_0) + wp.cw_mul(q_1, mq_1)

    # U = T (R S): gradients of R, of the quaternion, and of T.
    e_0 = wp.cw_mul(factor[0] * mq_0, g.scales)
    e_1 = wp.cw_mul(factor[1] * mq_0 + factor[2] * mq_1, g.scales)
    d_quaternions[i] = quaternion_gradient(g, wp.outer(g.t_0, e_0) + wp.outer(g.t_1, e_1))
    d_t_0 = g.rotation * e_0
    d_t_1 = g.rotation * e_1

    # T = J W. As INRIA does, a clamped coordinate counts as a constant.
    d_j_z = wp.vec2(wp.dot(d_t_0, view.rotation[2]), wp.dot(d_t_1, view.rotation[2]))
    d_j_xy = wp.vec2(wp.dot(d_t_0, view.rotation[0]), wp.dot(d_t_1, view.rotation[1]))
    scaled = view.focal * g.inverse_depth
    d_xy = wp.cw_mul(scaled, d_center - g.inverse_depth * wp.cw_mul(d_j_z, g.is_inside))
    xy = wp.vec2(g.position[0], g.position[1])
    along = wp.cw_mul(xy, d_center) + d_j_xy - 2.0 * g.inverse_depth * wp.cw_mul(g.clamped, d_j_z)
    d_position = wp.vec3(d_xy[0], d_xy[1], -g.inverse_depth * wp.dot(scaled, along))

    # A color that was clamped at 0 has no gradient.
    color = splats[i].color
    d_color = wp.vec3(
        wp.where(color[0] < 0.0, 0.0, total[0]),
        wp.where(color[1] < 0.0, 0.0, total[1]),
        wp.where(color[2] < 0.0, 0.0, total[2]),
    )
    d_sh_dc[i] = SH0 * d_color
    offset = means[i] - view.eye
    inverse_distance = 1.0 / wp.length(offset)
    direction = offset * inverse_distance
    harmonics = basis(degree, direction)
    weights = Harmonics()
    for k in range(COEFFICIENTS):
        if k < (degree + 1) * (degree + 1) - 1:
            d_sh_rest[i, k] = harmonics[k] * d_color
            weights[k] = wp.dot(sh_rest[i, k], d_color)
    d_direction = direction_gradient(degree, direction, weights)
    d_direction -= direction * wp.dot(direction, d_direction)
    d_means[i] = d_position * view.rotation + d_direction * inverse_distance


@wp.func
def quaternion_gradient(g: Projected, d: wp.mat33):
    """Of the quaternion as stored, given the gradient ``d`` of the rotation matrix."""
    q = g.quaternion
    w = q[0]
    x = q[1]
    y = q[2]
    z = q[3]
    antisymmetric = wp.vec3(d[2, 1] - d[1, 2], d[0, 2] - d[2, 0], d[1, 0] - d[0, 1])
    d_xy = d[0, 1] + d[1, 0]
    d_xz = d[0, 2] + d[2, 0]
    d_yz = d[1, 2] + d[2, 1]
    d_unit = 2.0 * wp.vec4(
        x * antisymmetric[0] + y * antisymmetric[1] + z * antisymmetric[2],
        w * antisymmetric[0] + y * d_xy + z * d_xz - 2.0 * x * (d[1, 1] + d[2, 2]),
        w * antisymmetric[1] + x * d_xy + z * d_yz - 2.0 * y * (d[0, 0] + d[2, 2]),
        w * antisymmetric[2] + x * d_xz + y * d_yz - 2.0 * z * (d[0, 0] + d[1, 1]),
    )
    return (d_unit - q * wp.dot(q, d_unit)) * g.inverse_norm
