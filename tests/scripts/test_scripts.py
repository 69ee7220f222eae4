"""Proves that ``python scripts/NAME.py`` finds the program's packages, from whatever folder it is called."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path


def imported(path: Path) -> list[str]:
    """The modules that a script imports, in order."""
    names: list[str] = []
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            names += [alias.name.partition(".")[0] for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names.append(statement.module.partition(".")[0])
    return names


def test_every_script_puts_the_repository_on_the_path_before_it_imports_from_it(root: Path):
    scripts = {path.stem for path in (root / "scripts").glob("*.py")}
    ours = scripts | {path.stem for path in root.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for script in scripts - {"_root", "site_hooks"}:  # MkDocs loads the hooks, with the path that make docs gives it.
        names = imported(root / "scripts" / f"{script}.py")
        assert next(name for name in names if name in ours) == "_root", script


def test_a_script_runs_from_another_folder(root: Path, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(root / "scripts" / "export_lpips_weights.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The .npz file to write" in done.stdout


def test_scripts_that_take_long_answer_signals_before_they_import_anything(root: Path):
    """Those that run other programs or show what they have found answer in their own way."""
    watched = [
        path.stem
        for path in (root / "scripts").glob("*.py")
        if "watch()" in path.read_text(encoding="utf-8") and path.stem != "_root"
    ]
    comparisons = {path.stem for path in (root / "scripts").glob("compare_*.py")}
    assert {"demo", "measure_front", "split_model", "join_models", *comparisons} <= {*watched}
    for script in watched:
        body = ast.parse((root / "scripts" / f"{script}.py").read_text(encoding="utf-8")).body
        first = next(each for each in body[1:] if not isinstance(each, ast.ImportFrom) or each.module != "__future__")
        assert isinstance(first, ast.If) and "watch()" in ast.unparse(first), script
