"""Read a model, compute what its numbers mean, and write the part of it that is opaque.

python examples/read_in_python.py garden.gsz opaque.ply
"""

import sys
from pathlib import Path

import numpy as np

import gsz

SH0 = 0.28209479177387814  # The spherical harmonic of degree 0.


def main(source: Path, target: Path) -> None:
    splats = gsz.read(source)
    opacities = 1 / (1 + np.exp(-splats.opacity_logits[:, 0]))
    sizes = np.exp(splats.log_scales).max(axis=1)
    colors = np.clip(0.5 + SH0 * splats.sh_dc[:, 0], 0, 1)
    print(f"{len(splats):,} Gaussians of SH degree {splats.sh_degree} around {np.median(splats.means, axis=0)}")
    print(f"median size {np.median(sizes):.3g}, median opacity {np.median(opacities):.2f}, mean color {colors.mean(0)}")

    kept = splats.select(opacities > 0.5)
    gsz.write(target, kept)
    print(f"{target}: {len(kept):,} of them are more opaque than not")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
