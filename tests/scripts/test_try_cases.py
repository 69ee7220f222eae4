"""Proves that cases are run in copies, by the programs of this repository, and that a traceback is noticed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import try_cases


def case(folder: Path, name: str, *commands: str) -> None:
    (folder / name).mkdir()
    (folder / name / "command.txt").write_text("\n".join(commands) + "\n")


def test_cases_are_run_in_copies_and_a_traceback_is_noticed(tmp_path, monkeypatch, capsys):
    case(tmp_path, "bad", "python decompress.py absent.ply out.ply")
    case(
        tmp_path, "good", "python -c \"open('made', 'w'); print('hello')\"", "python -c \"print(open('made').read())\""
    )
    case(tmp_path, "broken", 'python -c "1 / 0"')
    results = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["try_cases.py", str(tmp_path), "--json", str(results)])
    with pytest.raises(SystemExit) as ended:
        try_cases.main()
    assert ended.value.code == 1
    outcomes = {(each["case"], each["command"][:12]): each for each in json.loads(results.read_text())}
    assert outcomes["bad", "python decom"]["code"] == 2
    assert "absent.ply" in outcomes["bad", "python decom"]["last"]
    assert outcomes["broken", 'python -c "1']["traceback"]
    assert sorted(path.name for path in (tmp_path / "good").iterdir()) == ["command.txt"]
    assert "1 ended with a traceback" in capsys.readouterr().out


def test_only_the_named_cases_are_run(tmp_path, monkeypatch, capsys):
    case(tmp_path, "one", "python -c \"print('one')\"")
    case(tmp_path, "two", "python -c \"print('two')\"")
    monkeypatch.setattr(sys, "argv", ["try_cases.py", str(tmp_path), "two"])
    try_cases.main()
    out = capsys.readouterr().out
    assert "ran 1 commands of 1 cases" in out and "one" not in out.split("ran 1")[0]
