"""Constants of the rasterizer and the columns of the tables its stages hand to each other."""

from __future__ import annotations

import math

import numpy as np

f32 = np.float32

TILE = 16
"""Side of a tile in pixels."""

NEAR_PLANE = f32(0.2)
DILATION = f32(0.3)
ALPHA_MIN = f32(1 / 255)
LOG2_E = f32(math.log2(math.e))

# Columns of a record: what tiles and blending know of a drawn Gaussian. Exponents are to base 2.
# alpha = 2**(LOG2_OPACITY - t**2 - FALLOFF_Y * dy**2),  t = SLOPE_X * dx + SLOPE_Y * dy,  d = (U, V) - pixel.
# Its ellipse alpha = 1/255 is t**2 + FALLOFF_Y * dy**2 = CUTOFF, whose rightmost point lies at dy = -SKEW.
U, V, SLOPE_X, SLOPE_Y, FALLOFF_Y, LOG2_OPACITY, RED, GREEN, BLUE, CUTOFF, SKEW = range(11)
RECORD_WIDTH = 12

# Columns of a gradient slot: sums over pixels of the colour weights, and moments of s = alpha * dL/dalpha.
D_RED, D_GREEN, D_BLUE, M_0, M_T, M_Y, M_TT, M_TY, M_YY = range(9)
SLOT_WIDTH = 9
