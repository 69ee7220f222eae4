"""Proves that view.py serves the models it is given, value for value, to this machine alone; that a run is shown while
it runs; and that what it exports holds all of it."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
from gsz import registry
from gsz.errors import UserError
from programs import viewing
from programs.options import parse_view
from scene.model_dir import read_cameras, write_cameras
from tests.compress.test_compress import SCHEDULE
from tests.compress.test_run_dir import killed_after_states
from tests.helpers import assert_same_up_to_order
from tests.programs.test_render_cli import random_model
from tests.synthetic_scenes import ring_poses

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(*words: str | Path) -> Iterator[str]:
    """The address of a server in this process."""
    with viewing.Server(parse_view([*map(str, words), "--no_open"])) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.address
        server.shutdown()


def get(address: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "garden.spz"
    registry.write(path, random_model(0))
    return path


def test_a_model_of_any_format_is_served_value_for_value(model: Path, tmp_path: Path) -> None:
    with serving(model) as address:
        assert b"<gsz-viewer" in get(address)
        (listed,) = json.loads(get(f"{address}state.json"))["models"]
        (tmp_path / "served").write_bytes(get(f"{address}models/{listed['id']}"))
        assert json.loads(get(f"{address}cameras.json")) == []
    assert_same_up_to_order(registry.read(tmp_path / "served"), registry.read(model))


def test_nothing_else_is_served_and_only_under_this_machines_name(model: Path) -> None:
    with serving(model) as address:
        assert address.startswith("http://127.0.0.1:")
        for path in ("models/../garden.spz", "garden.spz", "models/", f"models/{model}"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}{path}")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(f"{address}state.json", Host="evil.example")


def test_a_run_is_shown_while_it_runs_and_when_it_has_ended(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    source, checkpoint = tiny
    words = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(tmp_path), *SCHEDULE]
    words += ["--max_psnr_drop", "inf", "--max_ssim_drop", "inf"]
    with killed_after_states(3):
        train.train(train.parse(words))
    with serving(tmp_path) as address:
        state = json.loads(get(f"{address}state.json"))
        assert state["running"]
        assert [model["name"] for model in state["models"]] == ["original", "first", "round 1"]
        train.train(train.parse(["-m", str(tmp_path), "--resume"]))
        state = json.loads(get(f"{address}state.json"))
        assert not state["running"]
        names = ["original", "first", "round 1", "round 2", "round 3", "final"]
        assert [model["name"] for model in state["models"]] == names
        assert get(f"{address}models/{state['models'][-1]['id']}") == (tmp_path / "compressed.gsz").read_bytes()
        assert len(json.loads(get(f"{address}cameras.json"))) == len(read_cameras(tmp_path))


def test_an_exported_page_holds_the_models_and_cameras(model: Path, tmp_path: Path) -> None:
    from scene.cameras import Camera

    camera = Camera("front", 80, 60, 90.0, 95.0, 40.0, 30.0, ring_poses(1)[0])
    write_cameras(tmp_path, [camera])
    other = tmp_path / "other.gsz"
    registry.write(other, random_model(1))
    viewing.run(parse_view([str(model), str(other), "--export", str(tmp_path / "page.html")]), print)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    models = [base64.b64decode(found) for found in re.findall(r'id="model-\d">([^<]*)<', text)]
    assert len(models) == 2 and models[1] == other.read_bytes()
    assert '"img_name":"front"' in text and 'data-names="garden.spz|other.gsz"' in text


def test_mistakes_are_answered_before_anything_is_served(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        viewing.Server(parse_view([str(tmp_path / "absent.ply")]))
    with pytest.raises(UserError, match="give one or two"):
        parse_view([str(model)] * 3)
    with pytest.raises(UserError, match="must be 0 to 65535"):
        viewing.run(parse_view([str(model), "--port", "99999"]), print)
    with serving(model) as address, pytest.raises(UserError, match="leave it out for a free one"):
        viewing.Server(parse_view([str(model), "--port", address.rsplit(":")[-1].strip("/")]))


def test_it_ends_at_ctrl_c(model: Path) -> None:
    words = [sys.executable, "view.py", str(model), "--no_open"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert "http://127.0.0.1:" in program.stdout.readline()
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=20) == 0
