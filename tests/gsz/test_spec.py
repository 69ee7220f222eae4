"""Proves that text names a codec with its settings, typed by its fields, and that wrong text is told the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from gsz import registry, spec
from gsz.errors import UserError
from gsz.sizes import parse_size


@dataclass(frozen=True)
class Settings:
    version: Literal[2, 3, 4] = 3
    bits: int | None = None
    share: float = 0.5
    fast: bool = False
    word: str = "medium"
    table: tuple[int, ...] = ()


def parsed(text: str) -> Settings:
    return Settings(**spec.parse("some", Settings, spec.split(text)[1]))


def test_values_have_the_types_of_the_fields() -> None:
    assert parsed("some:version=2,bits=12,share=1e-3,fast=true,word=low") == Settings(2, 12, 1e-3, True, "low")
    assert parsed("some: bits = none , share=1") == Settings(share=1.0)
    assert parsed("some") == parsed("some:") == Settings()
    assert type(parsed("some:share=1").share) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low", "'low' is not a setting; write NAME:key=value,key=value"),
        ("=3", "'=3' is not a setting"),
        ("fast=true,fast=false", "'fast' is given twice"),
        ("speed=3", "no setting 'speed'; it has version, bits, share, fast, word"),
        ("table=3", "no setting 'table'"),
        ("version=5", "version=5 is not possible; version is 2, 3 or 4"),
        ("bits=many", "bits=many is not possible; bits is a whole number or none"),
        ("bits=1.5", "a whole number or none"),
        ("share=nan", "share=nan is not possible; share is a number"),
        ("fast=1", "fast is true or false"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_ones(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parsed(f"some:{text}")


def test_settings_take_the_place_of_those_of_the_same_name() -> None:
    assert spec.with_settings("gsz", {"layers": 4}) == "gsz:layers=4"
    assert spec.with_settings("gsz: layers = 2, quality=low", {"layers": 4}) == "gsz:layers=4,quality=low"


def test_codecs_of_the_registry() -> None:
    assert registry.codec("spz:version=2") == registry.get("spz", version=2)
    assert registry.codec("gsz:quality=low,layers=1") == registry.get("gsz", quality="low", layers=1)
    assert registry.codec("ply") == registry.get("ply")
    with pytest.raises(UserError, match=r"codec 'mp3' is unknown; choose one of .*ply"):
        registry.codec("mp3:bits=3")
    with pytest.raises(UserError, match=r"codec 'sog' has no setting 'grid'; it has .*palette"):
        registry.codec("sog:grid=native")
    with pytest.raises(UserError, match="'low'"):
        registry.codec("gsz:low")


@pytest.mark.parametrize("name", registry.names(writable_only=True))
def test_defaults_are_values_that_may_be_given(name: str) -> None:
    """What ``gsz formats`` prints of a codec can be typed, and gives the codec of no settings."""
    codec = registry.find(name).load()
    for setting in spec.settings_of(codec).values():
        text = "none" if setting.default is None else str(setting.default)
        assert registry.codec(f"{name}:{setting.name}={text}") == registry.get(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5MB", 5_000_000), ("1.5 mb", 1_500_000), ("800k", 800_000), ("1234", 1234), ("2 GB", 2 * 10**9)],
)
def test_sizes_are_read_in_powers_of_a_thousand(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-5MB", "five", "5 MiB", "1e6"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 5MB"):
        parse_size(text)
