"""Write the LPIPS VGG weights to an ``.npz`` that ``metrics.py --lpips_weights`` reads on machines without torchvision.

Run it once where the ``lpips`` and ``torchvision`` packages work (torchvision downloads VGG16 on first use)::

    python scripts/export_lpips_weights.py lpips_vgg16.npz
"""

from __future__ import annotations

if __name__ == "__main__":  # Before anything else is imported: Ctrl-C shows no traceback from here on.
    from _root import watch

    watch()

from dataclasses import dataclass
from pathlib import Path

import _root  # noqa: F401
import numpy as np
import tyro

from gsz.errors import UserError
from gsz.files import atomic_path
from quality.lpips import weight_shapes
from utils import cli


@dataclass
class Options:
    """Write the LPIPS VGG weights to an .npz."""

    output: tyro.conf.Positional[Path]
    """The .npz file to write."""


def collect_weights() -> dict[str, np.ndarray]:
    """The arrays of :func:`quality.lpips.weight_shapes`, out of the two packages."""
    try:
        import lpips
        from torchvision.models import VGG16_Weights, vgg16
    except Exception as error:
        raise UserError(
            f"lpips and torchvision cannot be imported ({error}); run this where they are installed"
        ) from error
    state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    for name, tensor in lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).state_dict().items():
        # The package calls the first linear layer "lin0.model.1.weight", after the dropout in front of it.
        layer, _, rest = name.partition(".model.")
        if rest:
            state[f"{layer}.weight"] = tensor
    return {
        name: state[name].cpu().numpy().astype(np.float32).reshape(shape) for name, shape in weight_shapes().items()
    }


def main() -> None:
    output = tyro.cli(Options, use_underscores=True).output.with_suffix(".npz")
    with atomic_path(output) as temporary:
        np.savez(temporary, **collect_weights())
    cli.say(f"wrote {output}")


if __name__ == "__main__":
    cli.run(main)
