"""What makes a site of the documents: no links to what is no page; the viewer, and the demo's model.

MkDocs calls these functions when ``make docs`` builds the site.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gsz
from gsz.viewer_script import viewer_script

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "snowmiku" / "pretrained"
CODEC = "gsz:quality=low"


def on_config(config: Any) -> Any:
    """List every experiment under its own heading."""
    experiments = next(section["Experiments"] for section in config["nav"] if "Experiments" in section)
    folder = Path(config["docs_dir"])
    pages = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("experiments/*.md"))]
    experiments += [page for page in pages if page not in experiments]
    return config


_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository that are no pages become the words that they stand at."""
    docs = Path(config["docs_dir"]).resolve()
    folder = Path(page.file.abs_src_path).parent

    def without(link: re.Match[str]) -> str:
        return link[0] if (folder / link[2]).resolve().is_relative_to(docs) else link[1]

    return _LINK.sub(without, markdown)


def on_post_build(config: Any) -> None:
    """Write the viewer and the model that the first page shows."""
    site = Path(config["site_dir"])
    (site / "gsz-viewer.js").write_text(viewer_script(), encoding="utf-8")
    (model,) = DEMO.glob("point_cloud/*/point_cloud.ply")
    gsz.convert(model, site / "snowmiku.gsz", CODEC)
    shutil.copy(DEMO / "cameras.json", site / "snowmiku.json")
