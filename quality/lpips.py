"""LPIPS (Zhang et al., CVPR 2018), version 0.1 on VGG16, as the tables of the 3DGS papers report it.

Two facts about those tables decide the number:

* INRIA's ``metrics.py`` hands images in ``[0, 1]`` straight to LPIPS, which was trained on ``[-1, 1]``, and the
  scaling layer takes them as they are. We do the same, because a number is only useful beside the published ones.
* The weighted squared differences of five layers are averaged over the image, each layer by itself, and summed.

The ``lpips`` package needs torchvision, of which PyPI has no build for a CPU-only torch. :class:`VggLpips` needs plain
torch and one ``.npz`` of weights; ``scripts/export_lpips_weights.py`` writes it on a machine that has the package.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsz.errors import UserError
from quality.precision import exact_convolutions

log = logging.getLogger(__name__)

Lpips = Callable[[Tensor, Tensor], float]
"""``lpips(image, target)``: two ``(H, W, 3)`` float32 images in [0, 1] to a distance, 0 for equal images."""

HOW_TO_GET_LPIPS = (
    "LPIPS is n/a: give --lpips_weights FILE.npz (scripts/export_lpips_weights.py writes one), "
    "or install the packages lpips and torchvision beside a CUDA build of torch"
)

SMALLEST_SIDE = 16
"""Four poolings halve the image; a side below 16 px has nothing left in the last layer."""

# torchvision's numbering of ``vgg16().features``: convolution index -> (channels in, channels out). An index that is
# not here is a ReLU (after every convolution) or, where two are missing, a ReLU and a 2x2 max pooling.
_STAGES: tuple[dict[int, tuple[int, int]], ...] = (
    {0: (3, 64), 2: (64, 64)},
    {5: (64, 128), 7: (128, 128)},
    {10: (128, 256), 12: (256, 256), 14: (256, 256)},
    {17: (256, 512), 19: (512, 512), 21: (512, 512)},
    {24: (512, 512), 26: (512, 512), 28: (512, 512)},
)
_STAGE_CHANNELS = (64, 128, 256, 512, 512)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_ROWS_AT_ONCE = 64


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every array in a weights file: VGG16's convolutions (OIHW) and LPIPS' linear layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in _STAGES:
        for index, (channels_in, channels_out) in stage.items():
            shapes[f"features.{index}.weight"] = (channels_out, channels_in, 3, 3)
            shapes[f"features.{index}.bias"] = (channels_out,)
    for number, channels in enumerate(_STAGE_CHANNELS):
        shapes[f"lin{number}.weight"] = (1, channels, 1, 1)
    return shapes


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a weights file.

    Each array's header is compared with :func:`weight_shapes` before its data is read, so that a file cannot ask for
    more memory than the real weights need.

    Raises:
        UserError: the file is missing, is not an ``.npz``, or lacks an array of the right shape and type.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read_array(archive, name, shape, path) for name, shape in weight_shapes().items()}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check --lpips_weights") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: is not an intact .npz file ({error}); export the LPIPS weights again") from error


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    remedy = "export the weights with scripts/export_lpips_weights.py"
    if f"{name}.npy" not in archive.namelist():
        raise UserError(f"{path}: does not hold the weights of LPIPS for VGG ({name} is missing); {remedy}")
    with archive.open(f"{name}.npy") as member:
        try:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("unknown version of the npy format")
            found, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
        except ValueError as error:
            raise UserError(f"{path}: {name} has no readable header ({error}); {remedy}") from error
        if found != shape or dtype != np.float32 or fortran_order:
            raise UserError(f"{path}: {name} is {dtype} {found}, expected float32 {shape}; {remedy}")
        size = 4 * int(np.prod(shape))
        data = member.read(size + 1)
    if len(data) != size:
        raise UserError(f"{path}: {name} has the wrong number of bytes; {remedy}")
    array = np.frombuffer(data, np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds NaN or infinity; {remedy}")
    return array


class VggLpips:
    """LPIPS v0.1 on VGG16 in plain torch. See :data:`Lpips` for what calling it takes and returns.

    A 1600x1064 pair needs about 3 GB: both images go through the network layer by layer, nothing but the current layer
    is kept, and the normalized features are compared a band of rows at a time.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> None:
        def tensor(name: str) -> Tensor:
            return torch.tensor(weights[name], dtype=torch.float32, device=device)

        self.device = torch.device(device)
        self._convolutions = [
            [(tensor(f"features.{index}.weight"), tensor(f"features.{index}.bias")) for index in stage]
            for stage in _STAGES
        ]
        self._channel_weights = [tensor(f"lin{number}.weight") for number in range(len(_STAGES))]
        self._shift = torch.tensor(_SHIFT, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(_SCALE, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    @exact_convolutions()
    def __call__(self, image: Tensor, target: Tensor) -> float:
        """
        Raises:
            UserError: an image is smaller than 16 px on a side.
        """
        if image.shape != target.shape or image.dim() != 3 or image.shape[2] != 3:
            raise ValueError(f"expected two (H, W, 3) images of one size, got {image.shape} and {target.shape}")
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            raise UserError(f"LPIPS needs images of at least {SMALLEST_SIDE} px a side; these are {width}x{height}")
        distance = 0.0
        features = [self._scaled(image), self._scaled(target)]
        for stage, convolutions in enumerate(self._convolutions):
            if stage > 0:
                features = [F.max_pool2d(feature, 2) for feature in features]
            for weight, bias in convolutions:
                features = [F.conv2d(feature, weight, bias, padding=1).relu_() for feature in features]
            distance += _mean_weighted_difference(features[0], features[1], self._channel_weights[stage])
        return distance

    def _scaled(self, image: Tensor) -> Tensor:
        channels_first = image.to(self.device, torch.float32).permute(2, 0, 1).unsqueeze(0)
        return ((channels_first - self._shift) / self._scale).contiguous()


def _mean_weighted_difference(first: Tensor, second: Tensor, channel_weights: Tensor) -> float:
    """Mean over the pixels of ``sum_c w_c (f_c/|f| - g_c/|g|)**2`` for ``(1, C, H, W)`` features f and g."""
    total = torch.zeros((), dtype=torch.float64, device=first.device)
    for top in range(0, first.shape[2], _ROWS_AT_ONCE):
        band = slice(top, top + _ROWS_AT_ONCE)
        difference = _unit_length(first[:, :, band]) - _unit_length(second[:, :, band])
        total += (channel_weights * difference.square()).sum(dtype=torch.float64)
    return float(total) / (first.shape[2] * first.shape[3])


def _unit_length(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def load_lpips(weights: Path | None = None, device: torch.device | str = "cpu") -> Lpips | None:
    """LPIPS from the ``lpips`` package where it works, else from a file of weights, else ``None`` and a line that says
    how to get it.

    Raises:
        UserError: ``weights`` is needed and cannot be used (see :func:`read_weights`).
    """
    packaged = _packaged_lpips(device)
    if packaged is not None:
        return packaged
    if weights is not None:
        return VggLpips(read_weights(weights), device)
    log.info(HOW_TO_GET_LPIPS)
    return None


def _packaged_lpips(device: torch.device | str) -> Lpips | None:
    # The package breaks in as many ways as torchvision can mismatch torch (missing operators, missing libraries) and
    # downloads VGG16 on first use, which may fail too. Whatever is raised, the answer is the same: it does not work.
    try:
        import lpips

        network = lpips.LPIPS(net="vgg", verbose=False).to(device)
    except Exception:
        return None

    @torch.inference_mode()
    @exact_convolutions()
    def distance(image: Tensor, target: Tensor) -> float:
        first, second = (part.to(device).permute(2, 0, 1).unsqueeze(0) for part in (image, target))
        return float(network(first, second))

    return distance
