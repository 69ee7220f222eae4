"""The web viewer as one classic script, which a page may hold in itself: it then works from disk, without a server.

The modules of ``web/`` import each other by lines that begin with ``import {`` and name what they offer by ``export``
in front of a declaration; no two have a name of their own in common. So they become one program when these words are
taken away and they are put one after another; so do comments and white space that means nothing. Browsers do not start
workers from files on disk, so the whole is a function, which starts its workers from its own text.
"""

from __future__ import annotations

import re
from pathlib import Path

from gsz.errors import UserError

_MODULES = (
    "gsz", "ply", "pack", "sort", "worker", "camera", "shaders", "renderer", "model", "splatview", "controls",
    "element",
)  # fmt: skip
_PACKAGED = Path(__file__).parent / "web"
_IN_CLONE = Path(__file__).parent.parent / "web"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async |const|class|function))", re.MULTILINE)
_COMMENT = re.compile(r"/\*\*(?:.|\n)*?\*/ ?|^ *//.*\n", re.MULTILINE)
_INDENTATION = re.compile(r"^\s+", re.MULTILINE)
_SHADER = re.compile(r"`#version[^`]*`")
_STYLE = re.compile(r"`\n:host[^`]*`")
_LINE_OF_CODE = re.compile(r"^(?![#`])(.*)\n(?!#)", re.MULTILINE)

_SCRIPT = """\
(function gszProgram() {
"use strict";
const startWorker = () => new Worker(URL.createObjectURL(new Blob([`(${gszProgram})()`], { type: "text/javascript" })));
%s
if (typeof document === "undefined") serveModel(globalThis);
else {
  defineElement();
  globalThis.gsz = { decode, decodeLayers, readPly, SplatView, Controls, GszViewer };
}
})();
"""


def viewer_script() -> str:
    """JavaScript for a ``<script>`` without attributes, which makes ``<gsz-viewer>`` known and the global ``gsz``.

    Raises:
        UserError: the viewer's files were not installed.
    """
    folder = _PACKAGED if _PACKAGED.is_dir() else _IN_CLONE
    try:
        modules = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in _MODULES]
    except OSError as error:
        raise UserError(f"{error.filename}: the web viewer is not there; install gsz again") from error
    program = "\n".join(_EXPORT.sub("", _IMPORT.sub("", module)) for module in modules)
    program = _INDENTATION.sub("", _COMMENT.sub("", program))
    return _SCRIPT % _STYLE.sub(_dense_style, _SHADER.sub(_dense_shader, program))


def _dense_shader(shader: re.Match[str]) -> str:
    """GLSL without white space; only the lines of its preprocessor have to be lines."""
    return _LINE_OF_CODE.sub(r"\1", re.sub(r" ?([-+*/=<>!&|?:;,(){}]) ?", r"\1", shader[0]))


def _dense_style(style: re.Match[str]) -> str:
    """CSS without white space where it separates nothing."""
    return re.sub(r"\s*([{};,]|:(?= ))\s*", r"\1", style[0])


if __name__ == "__main__":
    print(viewer_script(), end="")
