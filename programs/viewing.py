"""What ``view.py`` does: show models in the browser, from a server that only this machine reaches, or in one file."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from compress.run_dir import OPTIONS_FILE, RECIPE_FILE, RunDir
from gsz import registry
from gsz.errors import UserError
from gsz.files import read_bytes, write_text
from programs import page
from programs.comparing import cameras_beside
from programs.options import ViewOptions
from programs.own_renders import known_cameras
from programs.reporting import encoded_for_viewer
from scene import open_scene
from scene.cache import ImageCache
from scene.model_dir import CAMERAS_FILE, camera_entries, checkpoint_path, latest_iteration
from scene.options import options_of_model
from utils import interrupts

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

_SHOWN_AS_THEY_ARE = ("gsz",)
"""Formats that the viewer reads itself; others are handed to it as INRIA's PLY, with the same values."""


# --- What there is to see --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A model that can be looked at.

    Attributes:
        name: What it is called on the page.
        path: Its file.
    """

    name: str
    path: Path

    @property
    def id(self) -> str:
        """What it is asked for by: another one once the file has changed."""
        status = self.path.stat()
        return f"{status.st_mtime_ns:x}-{status.st_size:x}-{self.path.name}"

    def data(self) -> bytes:
        """Its Gaussians as the viewer reads them, value for value.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self.path.is_file() and registry.info(self.path)["format"] in _SHOWN_AS_THEY_ARE:
            return read_bytes(self.path)
        splats = registry.read(self.path)
        return registry.codec("ply").fit(splats).encode(splats)


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run of train.py, finished or not."""
    return (path / RECIPE_FILE).is_file()


def models_of_run(path: Path) -> list[Shown]:
    """What a run has written so far: the original, every round, and the compressed file once it is there."""
    folder = RunDir(path).folder
    original = _original_of_run(folder)
    models = [Shown("original", original)] if original is not None and original.is_file() else []
    rounds = [file for file in (folder / "front").glob("*") if registry.format_of_suffix(file) is not None]
    rounds = [file for file in rounds if not file.name.startswith(".")]
    models += [Shown(file.stem.replace("_", " "), file) for file in sorted(rounds, key=_number)]
    if RunDir(path).is_finished() and folder == path:
        models += [
            Shown("final", file) for file in sorted(path.glob("compressed.*")) if registry.format_of_suffix(file)
        ]
    return models


def _number(file: Path) -> int:
    """The number of a round; 0 for what was there before the first."""
    digits = "".join(filter(str.isdecimal, file.stem.split(".")[0]))
    return int(digits) if digits else 0


def _original_of_run(folder: Path) -> Path | None:
    """The model that a run began with, if its options say so."""
    options = folder / OPTIONS_FILE
    if not options.is_file():
        return None
    try:
        written = yaml.safe_load(read_bytes(options))
        if written.get("pretrained_ply"):
            return Path(written["pretrained_ply"])
        trained = Path(written["pretrained_dir"])
        return checkpoint_path(trained, written.get("iteration") or latest_iteration(trained))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UserError):
        return None


def models_of(paths: tuple[Path, ...]) -> list[Shown]:
    """One or two files, the latest model of a model directory, or all of a run.

    Raises:
        UserError: there is no such thing.
    """
    if len(paths) == 1 and is_run(paths[0]):
        return models_of_run(paths[0])
    found = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the path")
        if is_run(path):
            models = models_of_run(path)
            if not models:
                raise UserError(f"{path}: the run has no model yet; wait for its first round")
            found.append(replace(models[-1], name=path.name))
        elif (path / "point_cloud").is_dir():
            found.append(Shown(path.name, checkpoint_path(path, latest_iteration(path))))
        else:
            registry.info(path)  # Damaged and foreign files are refused at once.
            found.append(Shown(path.name, path))
    return found


def cameras_of(options: ViewOptions) -> list[dict[str, Any]]:
    """The cameras to look from: the scene's, or those of a cameras.json that is given or lies beside a model.

    Raises:
        UserError: what is given is missing or damaged.
    """
    if options.scene.source_path is not None:
        opened = open_scene(replace(options.scene, eval=True), 0, cache=ImageCache(0))
        return camera_entries([*opened.test, *opened.train])
    beside = (_cameras_near(path) for path in options.models)
    known = options.cameras or next(filter(None, beside), None)
    return [] if known is None else camera_entries(known_cameras(known))


def _cameras_near(path: Path) -> Path | None:
    if not path.is_dir():
        return cameras_beside(path)
    return next((file for folder in (path, RunDir(path).folder) if (file := folder / CAMERAS_FILE).is_file()), None)


def background_of(options: ViewOptions) -> str:
    """White where that is asked for, or what a model's folder says it was trained on."""
    beside = next(filter(None, map(_cameras_near, options.models)), None)
    white = options.scene.white_background or (beside is not None and options_of_model(beside.parent).white_background)
    return "#ffffff" if white else "#000000"


# --- One file --------------------------------------------------------------------------------------------------------


def exported(options: ViewOptions) -> str:
    """A page that holds the models, the cameras and the viewer."""
    models = models_of(options.models)
    if not models:
        raise UserError(f"{options.models[0]}: the run has no model yet; wait for its first round")
    shown = models if len(models) <= 2 else [models[0], models[-1]]
    data: dict[str, bytes] = {}
    notes = []
    for model in shown:
        data[model.name] = model.data()
        if not data[model.name].startswith(b"\x89GSZ"):
            data[model.name], quality = encoded_for_viewer(registry.read(model.path), sys.maxsize)
            notes.append(f"{model.name} is written as .gsz of quality {quality}.")
    stage, behind = page.Scene3D(data, cameras_of(options), background_of(options), notes, starts=True).html()
    title = " and ".join(data)
    return page.whole_page(title, f"<h1>{page.escape(title)}</h1>{stage}", behind)


# --- A server --------------------------------------------------------------------------------------------------------


def served_page(background: str) -> str:
    """The page that the server shows."""
    style, script = ((page.ASSETS / f"view.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    body = (
        '<div class="choice"><label>first <select></select></label><label hidden>second <select></select></label>'
        f'<span class="dim" role="status"></span></div><gsz-viewer background="{background}"></gsz-viewer>'
    )
    return page.whole_page("gsz view", body, page.viewer_element(), extra_style=style, script=script)


class Server(ThreadingHTTPServer):
    """Serves a page and the models that it shows, to programs of this machine alone.

    Attributes:
        address: Of the page.
    """

    daemon_threads = True

    def __init__(self, options: ViewOptions) -> None:
        models_of(options.models)  # Mistakes are answered before a browser is opened.
        self._paths = options.models
        self._cameras = json.dumps(cameras_of(options)).encode()
        self._page = served_page(background_of(options)).encode()
        try:
            super().__init__((HOST, options.port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {options.port}: cannot be used ({error.strerror}); leave it out for a free one"
            ) from error
        self.address = f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """What there is at a path, and its type."""
        if path == "/":
            return self._page, "text/html; charset=utf-8"
        if path == "/cameras.json":
            return self._cameras, "application/json"
        if path == "/state.json":
            return json.dumps(self._state()).encode(), "application/json"
        if path.startswith("/models/"):
            wanted = path.removeprefix("/models/")
            found = next((model for model in models_of(self._paths) if model.id == wanted), None)
            return (found.data(), "application/octet-stream") if found is not None else None
        return None

    def _state(self) -> dict[str, Any]:
        models = models_of(self._paths)
        running = len(self._paths) == 1 and is_run(self._paths[0]) and not _has_ended(self._paths[0])
        return {
            "running": running,
            "models": [
                {"id": model.id, "name": model.name, "bytes": model.path.stat().st_size if model.path.is_file() else 0}
                for model in models
            ],
        }


def _has_ended(path: Path) -> bool:
    run = RunDir(path)
    return run.is_finished() and run.folder == path


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        # A page of another site may know a name that leads here; it does not know this one.
        if self.headers.get("Host") not in (
            f"{HOST}:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            self.send_error(403)
            return
        try:
            found = self.server.answer(urlsplit(self.path).path)
        except (UserError, OSError) as error:
            log.warning("%s", error)
            found = None
        if found is None:
            self.send_error(404)
            return
        content, kind = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        """Nothing is printed of what a browser asks for."""


def run(options: ViewOptions, say: Callable[[str], None]) -> None:
    """Show what the options name until the program is interrupted, or write a page.

    Raises:
        UserError: a model, a scene or a cameras.json is missing or damaged, or the port is taken.
    """
    if not 0 <= options.port < 1 << 16:
        raise UserError(f"--port {options.port}: must be 0 to 65535")
    if options.export is not None:
        text = exported(options)
        write_text(options.export, text)
        say(f"wrote {options.export}: {len(text.encode()) / 1e6:.1f} MB, opens in any browser, without a network")
        return
    with Server(options) as server:
        try:
            say(f"{server.address} shows {', '.join(map(str, options.models))}; Ctrl-C ends it")
            if options.open and _has_browser():
                threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt:
            interrupts.welcome()
            say("ended")


def _has_browser() -> bool:
    """Whether a browser would have somewhere to appear."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
