"""Proves that the documents speak of what is there: links and paths lead somewhere, commands and options exist, Python
examples run, and docs/api.md is what the docstrings say.
"""

from __future__ import annotations

import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import api_page
import pytest

from gsz import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        *(ROOT / "web").glob("*.md"),
    ]
    if not path.name.startswith("_")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OF_TRAIN = re.compile(r"scripts/(compare_|demo|measure_front|run_datasets)")
"""Programs that pass the options they do not know on to train.py."""

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def blocks(path: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(path.read_text(encoding="utf-8")) if found == language]


def anchors(path: Path) -> set[str]:
    """The fragments that links to a document's headings use, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_links_lead_to_files_and_headings(path: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?://", link):
            continue
        name, _, fragment = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@every_document
def test_paths_of_the_repository_exist(path: Path):
    rooms = "gsz|compress|gaussian_renderer|quality|scene|pretraining|utils|configs|scripts|examples|tests|web"
    for name in re.findall(rf"`((?:{rooms})/[\w/.-]*)", prose(path)):
        assert "NAME" in name or (ROOT / name).exists(), name


@every_document
def test_lines_are_wrapped(path: Path):
    long = [line for line in prose(path).splitlines() if len(line) > 120 and not line.startswith(("|", "#", "!["))]
    assert long == []


def commands(path: Path) -> Iterator[list[str]]:
    """The command lines of a document, in words."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.partition(" #")[0].split("&&"):
                words = shlex.split(command, comments=True)
                if words:
                    yield words


@cache
def options_of(program: str) -> frozenset[str]:
    """All options that a program's help names, with hyphens for underscores; a flag goes by both of its names."""
    named = {word.replace("_", "-") for word in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", help_of(program))}
    return frozenset(named | {word.replace("--no-", "--") for word in named})


def help_of(program: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), pytest.raises(SystemExit) as ended:
        patch.setenv("COLUMNS", "200")
        if program.startswith("gsz "):
            cli.run(lambda: cli._main([*program.split()[1:], "--help"]))
        patch.setattr(sys, "argv", [program, "--help"])
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert ended.value.code in (0, None), program
    return said.getvalue()


def program_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Which program of ours a command runs, and its words; None for other people's programs."""
    if words[0] == "gsz":
        return (f"{words[1]}.py" if words[1] in cli.REPOSITORY_COMMANDS else " ".join(words[:2])), words[2:]
    if words[0] == "python" and words[1] != "-m":
        return words[1], words[2:]
    return ("train.py", words) if words[0].startswith("--") else None


@every_document
def test_commands_name_programs_and_options_that_exist(path: Path):
    for words in commands(path):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
        found = program_of(words)
        if found is None:
            continue
        program, arguments = found
        known = options_of(program) | (options_of("train.py") if OF_TRAIN.match(program) else frozenset())
        used = {word.partition("=")[0].replace("_", "-") for word in arguments if re.match(r"--?[A-Za-z]", word)}
        assert used <= known, f"{program}: {sorted(used - known)}"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path, "python")], ids=lambda path: path.name)
def test_python_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(ROOT / "tests" / "golden" / "gsz_v2_sh3_medium.gsz", tmp_path / "garden.gsz")
    monkeypatch.chdir(tmp_path)
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), {})
    assert (tmp_path / "garden.spz").stat().st_size > 0


def test_the_page_of_the_package_is_what_its_docstrings_say():
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run python scripts/api_page.py"
