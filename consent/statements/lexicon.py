"""Words, numbers and the statement's wording by language, from `lexicon.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One language in which a statement can be read."""

    statement: str
    """with `{fields}`, and other words in braces, that must be heard exactly"""
    words: tuple[str, ...]
    digits: tuple[str, ...]
    numbers: tuple[str, ...]
    """10 to 99; where one has several words, hyphens stand between them"""
    years: tuple[str, ...]
    """how a number from 10 to 99 is said after two thousand, with `{n}`"""
    hesitations: frozenset[str]
    months: tuple[str, ...]
    denials: frozenset[str]
    both: str
    """the word for "and" """
    date: str
    languages: Mapping[str, str]
    """how it names the languages, by ISO 639-1"""
    sentences: tuple[str, ...]
    day: str
    usage: Mapping[str, str]
    again: Mapping[str, str]

    @classmethod
    def read(cls, table: dict[str, Any]) -> Self:
        """Reads one language's table. Raises `KeyError`."""
        return cls(
            statement=" ".join(table["statement"].split()),
            words=tuple(table["words"].split()),
            digits=tuple(table["digits"].split()),
            numbers=tuple(table["numbers"].split()),
            years=tuple(table["years"]),
            hesitations=frozenset(table["hesitations"].split()),
            months=tuple(table["months"].split()),
            denials=frozenset(table["denials"].split()),
            both=table["and"],
            date=table["date"],
            languages=table["languages"],
            sentences=tuple(table["sentences"]),
            day=table["day"],
            usage=table["usage"],
            again=table["again"],
        )


LEXICA: Final[Mapping[str, Lexicon]] = {
    language: Lexicon.read(table)
    for language, table in tomllib.loads(
        Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8")
    ).items()
}
