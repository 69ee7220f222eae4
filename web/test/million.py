"""A model of a million Gaussians to measure by: the demo's, seventeen times, each copy shaken.

PYTHONPATH=. python web/test/million.py million.gsz gsz:layers=3
"""

from __future__ import annotations

import sys

import numpy as np
from models import DEMO

import gsz

COPIES = 17


def main(path: str, spec: str) -> None:
    model = gsz.read(DEMO)
    copies = model.select(np.tile(np.arange(len(model)), COPIES))
    copies.means += np.random.default_rng(0).normal(0, 0.02, copies.means.shape).astype(np.float32)
    copies.log_scales -= np.float32(0.9)
    gsz.write(path, copies, spec)


if __name__ == "__main__":
    main(*sys.argv[1:])
