"""What blending knows of a Gaussian on the screen, and which pixels it can reach."""

from __future__ import annotations

import warp as wp

ALPHA_MIN = wp.constant(1.0 / 255.0)
"""Below it a Gaussian does not touch a pixel."""

_SLACK = wp.constant(1e-3)
"""Pixels by which an ellipse is widened against rounding."""


@wp.struct
class ScreenSplat:
    """A Gaussian on the screen, in pixels whose centers have whole coordinates.

    With ``d = center - pixel`` and the Cholesky factor L of the inverse covariance, ``z = Lᵀ d`` is

        z₁ = factor₀ dx + factor₁ dy,    z₂ = factor₂ dy,    alpha = opacity exp(-|z|² / 2),

    which cannot turn negative and does not cancel for needles, as a quadratic form in dx and dy does in float32.

    Attributes:
        cutoff: |z|² at which alpha is 1/255, grown a little so that rounding cannot lose a pixel.
        color: RGB, not yet clamped at 0.
    """

    center: wp.vec2
    factor: wp.vec3
    opacity: wp.float32
    cutoff: wp.float32
    color: wp.vec3


FLOATS = 10
"""Of a :class:`ScreenSplat`."""


@wp.func
def whitened(splat: ScreenSplat, x: int, y: int):
    """z at a pixel; see :class:`ScreenSplat`."""
    d = splat.center - wp.vec2(float(x), float(y))
    return wp.vec2(splat.factor[0] * d[0] + splat.factor[1] * d[1], splat.factor[2] * d[1])


@wp.func
def falloff(splat: ScreenSplat, z: wp.vec2):
    """The alpha of a Gaussian, not yet capped."""
    return splat.opacity * wp.exp(-0.5 * wp.dot(z, z))


@wp.func
def span(splat: ScreenSplat, top: int, bottom: int):
    """From where to where, in x, the ellipse alpha = 1/255 reaches over the rows ``top`` to ``bottom``.

    Returns the left and the right end; the left one lies right of the other where it misses the rows.

    With ``dy = center.y - y`` the ellipse spans ``x = center.x + (factor₁ dy ± h) / factor₀`` where
    ``h² = cutoff - (factor₂ dy)²``. Its rightmost point lies at ``dy = skew`` and its leftmost at ``dy = -skew``;
    within the rows the extreme is there, or at the row that is nearest to it.
    """
    root = wp.sqrt(splat.cutoff)
    reach = root / splat.factor[2]
    low = splat.center[1] - float(bottom)
    high = splat.center[1] - float(top)
    if low > reach or high < -reach:
        return wp.vec2(1.0, 0.0)
    low = wp.max(low, -reach)
    high = wp.min(high, reach)
    skew = reach * splat.factor[1] / wp.length(wp.vec2(splat.factor[1], splat.factor[2]))
    left = wp.clamp(-skew, low, high)
    right = wp.clamp(skew, low, high)
    left_width = wp.sqrt(wp.max(0.0, splat.cutoff - splat.factor[2] * splat.factor[2] * left * left))
    right_width = wp.sqrt(wp.max(0.0, splat.cutoff - splat.factor[2] * splat.factor[2] * right * right))
    return wp.vec2(
        splat.center[0] + (splat.factor[1] * left - left_width) / splat.factor[0] - _SLACK,
        splat.center[0] + (splat.factor[1] * right + right_width) / splat.factor[0] + _SLACK,
    )
