"""Write docs/api.md from the docstrings of the package ``gsz``; a test compares the two.

python scripts/api_page.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re

from _root import ROOT

import gsz
from gsz.files import write_text

PAGE = ROOT / "docs" / "api.md"

_PREFACE = """\
# The Python package `gsz`

<!-- Written by scripts/api_page.py from the docstrings; change them, and run it again. -->

What `import gsz` gives, in the words of its docstrings. `pip install .` in the repository installs it, with the command
`gsz` and without PyTorch. Formats and their settings are listed by `gsz formats`, and described in
[formats.md](formats.md).

```python
import gsz

splats = gsz.read("garden.gsz")
gsz.write("garden.spz", splats, "spz:version=3")
```
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_PREFACE, *(_entry(name, getattr(gsz, name)) for name in sorted(gsz.__all__, key=_rank))])


def _rank(name: str) -> tuple[bool, str]:
    """Functions first, then classes, each by name."""
    return inspect.isclass(getattr(gsz, name)), name.lower()


def _entry(name: str, thing: object) -> str:
    """Heading, signature and docstring of a function or class, and of a class's own public methods."""
    if not inspect.isclass(thing):
        return _section("##", f"gsz.{name}", _signature(f"gsz.{name}", thing), inspect.getdoc(thing))
    signature = _signature(f"gsz.{name}", thing) if dataclasses.is_dataclass(thing) else None
    parts = [_section("##", f"gsz.{name}", signature, inspect.getdoc(thing))]
    parts += [
        _section("###", f"{name}.{member}", _member_signature(f"{name}.{member}", value), inspect.getdoc(value))
        for member, value in vars(thing).items()
        if not member.startswith("_") and inspect.getdoc(value) and _is_own(value)
    ]
    return "\n".join(parts)


def _is_own(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)


def _member_signature(name: str, value: object) -> str | None:
    if isinstance(value, property):
        return None
    return _signature(name, value.__func__ if isinstance(value, classmethod | staticmethod) else value)


def _signature(name: str, thing: object) -> str:
    """``name(parameters) -> result`` as in the source, without the instance."""
    signature = inspect.signature(thing)  # type: ignore[arg-type]
    parameters = [value for key, value in signature.parameters.items() if key not in ("self", "cls")]
    text = str(signature.replace(parameters=parameters))
    return f"{name}{text}".replace("'", "")


def _section(heading: str, title: str, signature: str | None, text: str | None) -> str:
    code = [] if signature is None else ["```text", signature, "```", ""]
    return "\n".join([f"{heading} {title}", "", *code, _markdown(text or ""), ""])


def _markdown(docstring: str) -> str:
    """A docstring with its roles as plain code, and its sections (Args, Returns, Raises) as lists."""
    lines, in_section = [], False
    for line in re.sub(r":[a-z]+:`", "`", docstring.replace("``", "`")).splitlines():
        if in_section and re.match(r" {4}\S", line):
            line = f"- {line.strip()}"
        elif in_section and line.startswith(" "):
            line = f"  {line.strip()}"
        in_section = in_section and (not line or line[0] in " -")
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            line, in_section = f"{line}\n", True
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, page())
