"""Proves that the photographs' benchmark counts what is kept, and that reading is what a full cache saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bench_photographs
import pytest


def test_every_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    json_path = tmp_path / "found.json"
    arguments = ["--views", "4", "--width", "64", "--height", "48", "--epochs", "2", "--json", str(json_path)]
    monkeypatch.setattr(sys, "argv", ["bench_photographs.py", *arguments])
    bench_photographs.main()
    found = json.loads(json_path.read_text())
    one = 64 * 48 * 3
    kept = {(row["kept_share"], row["epoch"]): row["held_bytes"] for row in found["rows"]}
    assert kept == {(share, epoch): int(4 * share) * one for share in (1.0, 0.5, 0.0) for epoch in (1, 2)}
    assert all(row["cpu_seconds"] >= 0 for row in found["rows"]) and found["file_bytes"] > 4 * 500
    assert "4 photographs of 64x48" in capsys.readouterr().out
