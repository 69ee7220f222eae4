"""What the site has besides its pages: the viewer, and the demo's model, made of what is in the repository.

MkDocs calls these functions when ``make docs`` builds the site.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gsz
from gsz.viewer_script import viewer_script

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "snowmiku" / "pretrained"
CODEC = "gsz:quality=low"


def on_post_build(config: Any) -> None:
    """Write the viewer and the model that the first page shows."""
    site = Path(config["site_dir"])
    (site / "gsz-viewer.js").write_text(viewer_script(), encoding="utf-8")
    (model,) = DEMO.glob("point_cloud/*/point_cloud.ply")
    gsz.convert(model, site / "snowmiku.gsz", CODEC)
    shutil.copy(DEMO / "cameras.json", site / "snowmiku.json")
