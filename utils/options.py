"""Types of options that people write in several ways, read alike on the command line and in YAML.

Each is an annotation for tyro; :func:`read_value` reads a value of any annotated type from a YAML file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gsz.errors import UserError
from gsz.sizes import parse_size
from gsz.spec import TRUTHS

T = TypeVar("T")

_NOTHING = ("", "none", "null", "~")


def parse_number(text: str) -> float:
    """A number as Python, YAML and people write it: ``0.1``, ``1e-6``, ``inf``, ``.inf``."""
    return float(re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", text.strip(), flags=re.IGNORECASE))


def parse_truth(text: str) -> bool:
    """A truth as Python and YAML write it."""
    truth = TRUTHS.get(text.strip().lower())
    if truth is None:
        raise ValueError(f"{text!r}: give {'|'.join(TRUTHS)}")
    return truth


def _annotation(metavar: str, read: Callable[[str], T], write: Callable[[T], str] = str) -> PrimitiveConstructorSpec[T]:
    def from_words(words: list[str]) -> T:
        try:
            return read(words[0])
        except UserError as error:
            raise ValueError(str(error)) from error

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=from_words,
        # tyro asks this of defaults alone, which the dataclasses that hold them have typed.
        is_instance=lambda value: True,
        str_from_instance=lambda value: [write(value)],
    )


def _or_nothing(read: Callable[[str], T], *nothing: str) -> Callable[[str], T | None]:
    """A reader that takes "none", and older spellings of it, for ``None``."""
    return lambda text: None if text.strip().lower() in (*_NOTHING, *nothing) else read(text)


Number = Annotated[float, _annotation("FLOAT", parse_number)]
"""A real number."""

OptionalNumber = Annotated[float | None, _annotation("FLOAT", _or_nothing(parse_number))]
"""A real number, or none."""

OptionalTruth = Annotated[bool | None, _annotation("|".join(TRUTHS), _or_nothing(parse_truth))]
"""True or false, or none where the program may decide."""

OptionalSize = Annotated[int | None, _annotation("SIZE", _or_nothing(parse_size))]
"""Bytes, written such as 5MB."""

OptionalCount = Annotated[int | None, _annotation("INT", _or_nothing(int, "0"))]
"""A positive number of things; 0 is an older spelling of none."""

OptionalRatio = Annotated[float | None, _annotation("FLOAT", _or_nothing(parse_number, "0", "0.0"))]
"""A positive fraction; 0 is an older spelling of none."""

OptionalIteration = Annotated[int | None, _annotation("INT", _or_nothing(int, "-1"))]
"""An iteration; -1 is an older spelling of none."""

IterationOrLatest = Annotated[
    int | Literal["latest"] | None,
    _annotation("INT|latest", _or_nothing(lambda text: "latest" if text in ("latest", "-1") else int(text))),
]
"""An iteration, or the latest there is; -1 is an older spelling of that."""


def read_value(value: Any, kind: Any) -> Any:
    """A value from a YAML file as the type that an option is annotated with, by the rules of the command line.

    Raises:
        ValueError: it cannot be read as that type; the message says what it has to be.
    """
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
    if isinstance(spec, Exception) or isinstance(value, list | dict):
        raise ValueError(f"{value!r}: give a single value")
    text = str(value)  # "None" is how tyro writes that there is none.
    wanted = " or ".join(spec.choices) if spec.choices else _KINDS.get(spec.metavar, spec.metavar)
    if spec.choices and text not in spec.choices:
        raise ValueError(f"{value!r}: give {wanted}")
    try:
        return spec.instance_from_str([text])
    except ValueError as error:
        raise ValueError(
            str(error) if isinstance(error.__cause__, UserError) else f"{value!r}: give {wanted}"
        ) from error


_KINDS = {"FLOAT": "a number", "INT": "a whole number", "STR": "a text"}


def look_for(kind: type[T], arguments: Sequence[str]) -> tuple[T, list[str]]:
    """A few options among all the others of a command line, and the command line without them.

    Args:
        kind: A dataclass of options that all have defaults.
    """
    return tyro.cli(
        kind,
        args=list(arguments),
        use_underscores=True,
        return_unknown_args=True,
        add_help=False,
    )


def to_plain(options: Any) -> dict[str, Any]:
    """A dataclass of options as a YAML file can hold it; paths are absolute, so that they hold from anywhere."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return str(value.resolve()) if isinstance(value, Path) else value

    return plain(asdict(options))


def from_plain(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """The inverse of :func:`to_plain`. Options that ``values`` lacks keep their defaults.

    Raises:
        UserError: there is no such option, or its value is of another type; the message names ``source``.
    """
    hints = get_type_hints(kind, include_extras=True)
    options: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{source}: there is no option {name!r}; the options are {', '.join(hints)}")
        if is_dataclass(hints[name]) and isinstance(value, dict):
            options[name] = from_plain(hints[name], value, source)
            continue
        try:
            options[name] = read_value(value, hints[name])
        except ValueError as error:
            raise UserError(f"{source}: {name}: {error}") from error
    return kind(**options)
