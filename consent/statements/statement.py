"""The statement that a person reads aloud: who, for whom, for what, until when, and today's random words.

It is made of parts. Critical parts must be heard exactly (name, company, the consent itself, the limits, the
random words and digits); in the rest a recogniser may slip.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, Self

from consent.errors import RegistrationError
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import tokens

VERSION: Final = "2026-12"
"""Changes with any change of the wording; in every record."""
PERSON: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .'’-]){0,98}[^\W\d_.]?\.?\Z")
COMPANY: Final = re.compile(r"[^\W_](?:[^\W_]|[ .,'’&+-]){0,98}\Z")
PURPOSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
USE: Final = re.compile(r"[^\W\d_](?:[^\W_]|[ ,'’-]){0,118}[^\W_]\Z")
USE_WORDS: Final = range(2, 15)
"""A described use says more than a word, and can be repeated after it was heard once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is consented to. `until` is the last day, `dialplans` empty for all of the company's."""

    name: str
    company: str
    purposes: tuple[str, ...]
    languages: tuple[str, ...]
    until: date
    dialplans: tuple[str, ...] = ()
    spoken: str = "en"
    """the language the statement is read in"""
    uses: tuple[tuple[str, str], ...] = ()
    """(purpose, what is done for it in words), for the purposes whose name alone says too little"""

    def to_json(self) -> dict[str, Any]:
        """For the challenge's token."""
        table = {**asdict(self), "until": self.until.isoformat()}
        if not self.uses:  # what was signed before there were any had no such key
            del table["uses"]
        return table

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        """Reads what `to_json` wrote. Raises `KeyError`, `ValueError`."""
        lists = {key: tuple(table[key]) for key in ("purposes", "languages", "dialplans")}
        uses = tuple((purpose, use) for purpose, use in table.get("uses", ()))
        return cls(**{**table, **lists, "uses": uses, "until": date.fromisoformat(table["until"])})

    def hash(self, salt: str) -> str:
        """SHA-256 with a salt: says nothing of the terms to whom they are not shown."""
        return hashlib.sha256(f"{salt}{json.dumps(self.to_json(), sort_keys=True)}".encode()).hexdigest()

    def check(self, today: date) -> None:
        """Raises `RegistrationError` naming what cannot be read aloud, kept, or meant."""
        if not PERSON.match(self.name) or not _plain(self.name):
            raise RegistrationError(
                "name", f"{self.name!r} is not a person's name: letters, spaces, ' . and - only, at most 100"
            )
        if not COMPANY.match(self.company) or not _plain(self.company):
            raise RegistrationError(
                "name", f"{self.company!r} is not a company's name: letters, digits, spaces, . , ' & + - only"
            )
        if self.spoken not in LEXICA:
            known = ", ".join(LEXICA)
            raise RegistrationError("terms", f"the statement can be read in {known}, not in {self.spoken!r}")
        for purpose in self.purposes:
            if not PURPOSE.match(purpose):
                raise RegistrationError(
                    "terms", f"{purpose!r} is not a purpose: a word like support or booking"
                )
        for purpose, use in self.uses:
            self._check_use(purpose, use)
        for language in self.languages:
            if language not in LEXICA[self.spoken].languages:
                known = ", ".join(LEXICA[self.spoken].languages)
                raise RegistrationError(
                    "terms", f"{language!r} is not a language that the statement names: {known}"
                )
        if not self.purposes or not self.languages:
            raise RegistrationError("terms", "a consent names at least one purpose and one language")
        if self.until < today:
            raise RegistrationError("terms", f"{self.until} is over")
        if self.until.year - today.year > 10:
            raise RegistrationError("terms", f"{self.until} is more than ten years away: consent is limited")

    def _check_use(self, purpose: str, use: str) -> None:
        if purpose not in self.purposes or [name for name, _ in self.uses].count(purpose) > 1:
            raise RegistrationError(
                "terms", f"{purpose!r} is described, and is not a purpose or is one twice"
            )
        if not USE.match(use) or not _plain(use) or len(use.split()) not in USE_WORDS:
            raise RegistrationError(
                "terms",
                f"{use!r} describes no use: write {USE_WORDS[0]} to {USE_WORDS[-1]} words, such as "
                '"answering questions about orders"',
            )
        if LEXICA[self.spoken].denials & set(tokens(use, self.spoken)):
            raise RegistrationError("terms", f"{use!r} says what is not done; write what is")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the statement."""

    text: str
    critical: bool
    proper: bool = False
    """a name of a person or a company"""
    drawn: bool = False
    """today's words or digits, drawn by chance: they prove that the statement is fresh"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is read aloud."""

    version: str
    language: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The whole statement."""
        return "".join(part.text for part in self.parts)


def render(terms: Terms, words: Sequence[str], digits: Sequence[int]) -> Statement:
    """The statement in words a person would say."""
    lexicon = LEXICA[terms.spoken]
    uses = dict(terms.uses)
    purposes = [uses.get(name) or name.replace("_", " ").replace("-", " ") for name in terms.purposes]
    month = lexicon.months[terms.until.month - 1]
    fields = {
        "name": terms.name,
        "company": terms.company,
        "purposes": _listed(purposes, lexicon.both),
        "languages": _listed([lexicon.languages[language] for language in terms.languages], lexicon.both),
        "until": lexicon.date.format(day=terms.until.day, month=month, year=terms.until.year),
        "words": ", ".join(words),
        "digits": ", ".join(lexicon.digits[digit] for digit in digits),
    }
    parts: list[Part] = []
    for piece in re.split(r"(\{[^}]*\})", lexicon.statement):
        if piece.startswith("{"):
            inner = piece[1:-1]
            proper, drawn = inner in ("name", "company"), inner in ("words", "digits")
            parts.append(Part(fields.get(inner, inner), critical=True, proper=proper, drawn=drawn))
        else:
            parts += [Part(text, critical=False) for text in re.split(r"(?<=[.] )", piece) if text]
    return Statement(f"{VERSION}/{terms.spoken}", terms.spoken, tuple(parts))


def _plain(name: str) -> bool:
    """Letters of one person's alphabet only: no control, format or combining tricks."""
    return unicodedata.normalize("NFC", name) == name and name.isprintable() and "  " not in name


def _listed(things: list[str], both: str) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} {both} {things[-1]}"
