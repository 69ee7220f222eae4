"""Opacities in a byte, as all viewers' formats have them."""

from __future__ import annotations

import numpy as np

from gsz.rounding.elementary import logit

LEAST_OPACITY = 1e-6
"""Opacities of 0 and 1, which have no logit, are read as if they were this far inside, as splat-transform does."""

LOGITS_OF_BYTES = logit(np.clip(np.arange(256) / 255, LEAST_OPACITY, 1 - LEAST_OPACITY)).astype(np.float32)
"""``(256,)`` float32, the logit of each opacity byte."""
