"""The three datasets that 3DGS papers report, and what the method of ``configs/fast3dgs.yaml`` reached on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quality.summary import ModelSummary, ViewMetrics

OTHER = "scenes"
"""The option that names a folder of other scenes."""


@dataclass(frozen=True)
class Dataset:
    """Scenes that are reported as one average.

    Attributes:
        key: The command-line option that names its folder.
        title: Its name in tables.
        images: The folder of photographs by scene; the resolution that the literature reports is that of the folder.
        published: The figures of Fast-3DGS by scene, as its paper gives them; none for scenes that it does not have.
        published_average: The averages, as its paper gives them.
    """

    key: str
    title: str
    images: dict[str, str]
    published: dict[str, ModelSummary]
    published_average: ModelSummary | None

    @staticmethod
    def of_folder(folder: Path) -> Dataset:
        """Whatever scenes there are in a folder, each with its photographs in ``images``."""
        scenes = sorted(path.name for path in folder.iterdir() if (path / "images").is_dir())
        return Dataset(OTHER, "Scenes", dict.fromkeys(scenes, "images"), {}, None)


def _published(
    psnr: float, ssim: float, lpips: float, gaussians: int, fps: float | None, megabytes: float
) -> ModelSummary:
    return ModelSummary(ViewMetrics(psnr, ssim, lpips), gaussians, round(megabytes * 1e6), fps)


DATASETS = (
    Dataset(
        "mipnerf360",
        "Mip-NeRF360",
        # Outdoor scenes at a quarter, indoor ones at half of the photographs' size.
        dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), "images_4")
        | dict.fromkeys(("room", "counter", "kitchen", "bonsai"), "images_2"),
        {
            "bicycle": _published(25.22, 0.755, 0.248, 579_283, 171, 21.66),
            "bonsai": _published(32.14, 0.939, 0.215, 296_058, 205, 10.56),
            "counter": _published(28.98, 0.902, 0.220, 203_121, 175, 8.04),
            "flowers": _published(21.55, 0.596, 0.368, 491_931, 234, 20.21),
            "garden": _published(27.37, 0.861, 0.125, 1_130_273, 143, 44.51),
            "kitchen": _published(30.93, 0.919, 0.150, 263_772, 185, 10.39),
            "room": _published(31.42, 0.913, 0.244, 166_795, 195, 5.62),
            "stump": _published(26.66, 0.767, 0.260, 327_342, 262, 13.05),
            "treehill": _published(22.27, 0.590, 0.457, 94_202, 304, 3.44),
        },
        _published(27.39, 0.805, 0.254, 394_753, None, 15.28),
    ),
    Dataset(
        "tanksandtemples",
        "Tanks and Temples",
        dict.fromkeys(("truck", "train"), "images"),
        {
            "truck": _published(25.04, 0.872, 0.165, 361_868, 243, 12.64),
            "train": _published(21.79, 0.764, 0.296, 87_527, 415, 3.38),
        },
        _published(23.42, 0.818, 0.230, 224_698, None, 8.01),
    ),
    Dataset(
        "deepblending",
        "Deep Blending",
        dict.fromkeys(("drjohnson", "playroom"), "images"),
        {
            "drjohnson": _published(28.99, 0.897, 0.276, 165_140, 325, 6.17),
            "playroom": _published(30.22, 0.910, 0.252, 381_647, 251, 13.93),
        },
        _published(29.61, 0.903, 0.264, 273_394, None, 10.05),
    ),
)
