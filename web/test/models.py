"""Files of every kind, and the bits of what Python decodes them to.

python web/test/models.py FOLDER

Writes for each file NAME.gsz and NAME.f32: the six arrays one after the other, as the JavaScript decoder names them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gsz
from gsz.native.codec import GszCodec
from gsz.native.container import Header

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden"
DEMO = REPOSITORY / "demo/snowmiku/pretrained/point_cloud/iteration_15000/point_cloud.ply"
FIELDS = ("means", "log_scales", "quaternions", "opacity_logits", "sh_dc", "sh_rest")


def random_model(count: int, sh_degree: int, seed: int = 0) -> gsz.Splats:
    """Gaussians in clumps, some of them giants, needles or far away, and of many amounts of light."""
    numbers = np.random.default_rng(seed)
    coefficients = (sh_degree + 1) ** 2 - 1
    loudness = numbers.choice([0.0, 0.02, 0.2, 2.0], size=(count, 1, 1), p=[0.3, 0.3, 0.3, 0.1])
    arrays = (
        numbers.normal(size=(count, 3)) * numbers.choice([0.1, 1, 50], size=(count, 1)),
        numbers.normal(-4, 1.5, size=(count, 3)),
        numbers.normal(size=(count, 4)),
        numbers.normal(0, 3, size=(count, 1)),
        numbers.normal(size=(count, 1, 3)),
        numbers.normal(size=(count, coefficients, 3)) * loudness,
    )
    return gsz.Splats(*(array.astype(np.float32) for array in arrays))


def bits(model: gsz.Splats) -> bytes:
    return b"".join(np.ascontiguousarray(getattr(model, field), "<f4").tobytes() for field in FIELDS)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, model: gsz.Splats, spec: str) -> None:
        path = folder / f"{name}.gsz"
        gsz.write(path, model, spec)
        (folder / f"{name}.f32").write_bytes(bits(gsz.read(path)))

    for degree in range(4):
        for quality in ("best", "high", "medium", "low", "tiny"):
            write(f"sh{degree}_{quality}", random_model(700, degree), f"gsz:quality={quality}")
        for layers in (2, 3, 16):
            write(f"sh{degree}_{layers}_layers", random_model(5000, degree), f"gsz:layers={layers}")
        write(f"sh{degree}_fast3dgs", random_model(900, degree), "gsz:grid=fast3dgs")
    for count in (0, 1, 7, 8, 9, 127, 128, 129, 20_000):
        write(f"count_{count}", random_model(count, 3), "gsz")
    write("demo", gsz.read(DEMO), "gsz")
    write("count_500000", random_model(500_000, 0), "gsz:quality=low")

    data = (folder / "sh3_3_layers.gsz").read_bytes()
    header = Header.parse(data, "")
    for level in (1, 2):
        model = GszCodec().decode(data[: header.size + sum(map(header.layer_bytes, range(level)))])
        (folder / f"sh3_3_layers.{level}.f32").write_bytes(bits(model))
    for path in GOLDEN.glob("gsz_v2*.gsz"):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).with_suffix(".f32").write_bytes(bits(gsz.read(path)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
