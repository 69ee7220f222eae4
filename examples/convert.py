"""Write a model in every format that viewers and archives take, and say how large each file is.

python examples/convert.py garden.ply
"""

import sys
from pathlib import Path

import gsz

FORMATS = {".gsz": "gsz:quality=low", ".spz": "spz:version=3", ".sog": "sog"}


def main(source: Path) -> None:
    print(f"{source}: {source.stat().st_size:,} bytes")
    for suffix, spec in FORMATS.items():
        target = source.with_suffix(suffix)
        gsz.convert(source, target, spec)
        print(f"{target}: {target.stat().st_size:,} bytes, {gsz.info(target)['count']:,} Gaussians")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
