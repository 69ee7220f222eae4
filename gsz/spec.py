"""A format with its settings in one line of text: ``NAME[:key=value,...]``, such as ``spz:version=2``."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union

from gsz.errors import UserError

_NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
TRUTHS = {"true": True, "false": False}
_NOTHING = "none"


@dataclass(frozen=True)
class Setting:
    """One setting of a format, as text may give it.

    Attributes:
        name: The key.
        default: The value where it is not given.
        choices: The only values there are; empty where any value of :attr:`kind` may be given.
        kind: ``int``, ``float``, ``bool`` or ``str``.
        optional: Whether ``none`` may be given.
    """

    name: str
    default: Any
    choices: tuple[Any, ...]
    kind: type
    optional: bool

    @property
    def values(self) -> str:
        """What may be given, in words."""
        if self.choices:
            words = [str(choice) for choice in self.choices]
        elif self.kind is bool:
            words = list(TRUTHS)
        else:
            words = [_NUMBERS.get(self.kind, "text")]
        return one_of([*words, _NOTHING] if self.optional else words)

    def parse(self, text: str) -> Any:
        """The value that ``text`` stands for.

        Raises:
            ValueError: it stands for none.
        """
        if self.optional and text == _NOTHING:
            return None
        if self.choices:
            return {str(choice): choice for choice in self.choices}[text]
        if self.kind is bool:
            return TRUTHS[text]
        value = self.kind(text)
        if value != value:
            raise ValueError("not a number")
        return value


def split(spec: str) -> tuple[str, dict[str, str]]:
    """The name of the format and the texts of its settings.

    Raises:
        UserError: a setting is not of the form ``key=value``, or is given twice.
    """
    name, _, rest = spec.partition(":")
    texts: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise UserError(f"codec {spec!r}: {pair!r} is not a setting; write NAME:key=value,key=value")
        if key in texts:
            raise UserError(f"codec {spec!r}: the setting {key!r} is given twice; give it once")
        texts[key] = value
    return name.strip(), texts


def with_settings(spec: str, settings: Mapping[str, object]) -> str:
    """The same format in one line, with these settings besides its own or in place of them."""
    name, texts = split(spec)
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**texts, **settings}.items())


def settings_of(codec: type) -> dict[str, Setting]:
    """The settings of a codec class that text can give, by name: the fields of its dataclass with simple types."""
    if not is_dataclass(codec):
        return {}
    hints = typing.get_type_hints(codec)
    found = (_setting(field.name, field.default, hints[field.name]) for field in fields(codec))
    return {setting.name: setting for setting in found if setting is not None}


def parse(name: str, codec: type, texts: dict[str, str]) -> dict[str, Any]:
    """The values of a codec's settings, by the types of its fields.

    Raises:
        UserError: a key or a value is wrong; the message lists the right ones.
    """
    known = settings_of(codec)
    values = {}
    for key, text in texts.items():
        check_names(name, known, [key])
        try:
            values[key] = known[key].parse(text)
        except (ValueError, KeyError):
            raise UserError(f"codec {name}: {key}={text} is not possible; {key} is {known[key].values}") from None
    return values


def check_names(name: str, known: dict[str, Setting], given: Sequence[str]) -> None:
    """Raise :class:`UserError`, listing the known settings, where one that is given is not among them."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has no settings"
        raise UserError(f"codec {name!r} has no setting {unknown[0]!r}; {has}")


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _setting(name: str, default: Any, hint: Any) -> Setting | None:
    """The setting of a field, or None where its type is not one that text can give."""
    optional = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional = len(parts) < len(typing.get_args(hint))
        if len(parts) != 1:
            return None
        hint = parts[0]
    default = None if default is MISSING else default
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return Setting(name, default, choices, type(choices[0]), optional)
    return Setting(name, default, (), hint, optional) if hint in (int, float, bool, str) else None
