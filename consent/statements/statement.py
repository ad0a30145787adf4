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

VERSION: Final = "2026-12"
"""Changes with any change of the wording; in every record."""
SLIPS: Final = 0.20
"""Share of the uncritical words that may be heard wrong."""
PERSON: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .'’-]){0,98}[^\W\d_.]?\.?\Z")
COMPANY: Final = re.compile(r"[^\W_](?:[^\W_]|[ .,'’&+-]){0,98}\Z")
PURPOSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
USE: Final = re.compile(r"[^\W\d_](?:[^\W_]|[ ,'’-]){0,118}[^\W_]\Z")
USE_WORDS: Final = range(2, 15)
"""A described use says more than a word, and can be repeated after it was heard once."""
LEFT_OUT: Final = 0.5
"""A sentence of which more than this share was not heard was left out, however well the rest was read."""


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
            parts.append(Part(fields.get(inner, inner), critical=True))
        else:
            parts += [Part(text, critical=False) for text in re.split(r"(?<=[.] )", piece) if text]
    return Statement(f"{VERSION}/{terms.spoken}", terms.spoken, tuple(parts))


def _plain(name: str) -> bool:
    """Letters of one person's alphabet only: no control, format or combining tricks."""
    return unicodedata.normalize("NFC", name) == name and name.isprintable() and "  " not in name


def _listed(things: list[str], both: str) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} {both} {things[-1]}"


# ── was it said? ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Heard:
    """How a transcript fits a statement."""

    said: bool
    why: str
    """what was not said, in the operator's words; empty when all was"""
    slips: float
    """share of the uncritical words that were not heard"""


def match(statement: Statement, transcript: str) -> Heard:
    """Whether a transcript says the statement: its critical parts word for word, the rest nearly so."""
    wanted: list[str] = []
    part_of: list[int] = []
    for number, part in enumerate(statement.parts):
        for token in tokens(part.text, statement.language):
            wanted.append(token)
            part_of.append(number)
    heard = tokens(transcript, statement.language)
    denials = {folded for word in LEXICA[statement.language].denials for folded in _fold(word)}
    if turned := sorted(denials & set(heard) - set(wanted)):
        return Heard(False, f"it holds {turned[0]!r}, which no statement does", 1.0)
    pairs = _align(wanted, heard)
    found = [False] * len(wanted)
    extra_in: set[int] = set()
    last = -1
    for at, other in pairs:
        if at is not None:
            last = at
            found[at] = other is not None and wanted[at] == heard[other]
        elif 0 <= last < len(wanted) - 1 and part_of[last] == part_of[last + 1]:
            extra_in.add(part_of[last])
    for number, part in enumerate(statement.parts):
        if part.critical:
            missing = [wanted[at] for at in range(len(wanted)) if part_of[at] == number and not found[at]]
            if missing:
                return Heard(False, f"{part.text!r} was not heard: {' '.join(missing)!r} is missing", 1.0)
            if number in extra_in:
                return Heard(False, f"{part.text!r} was not heard: there are words in between", 1.0)
    loose = [at for at in range(len(wanted)) if not statement.parts[part_of[at]].critical]
    missed = sum(not found[at] for at in loose)
    extra = sum(1 for at, _ in pairs if at is None)
    slips = (missed + extra) / max(1, len(loose))
    if slips > SLIPS:
        return Heard(False, f"{slips:.0%} of the other words differ", slips)
    for number, part in enumerate(statement.parts):
        own = [at for at in loose if part_of[at] == number]
        if sum(not found[at] for at in own) > max(2, LEFT_OUT * len(own)):
            return Heard(False, f"{slips:.0%} of the other words differ, most of {part.text!r}", slips)
    return Heard(True, "", slips)


def tokens(text: str, language: str) -> list[str]:
    """Words as they are compared: small letters, no accents, no punctuation; numbers as single digits."""
    return [
        token
        for word in re.findall(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)*", text)
        for token in _word(word, language)
    ]


def _word(word: str, language: str) -> list[str]:
    if word.isdigit():
        return list(word)
    folded = _fold(word)
    if len(folded) == 1 and folded[0] in _ORDINALS:
        return []  # the "st" of 1st
    digits = [_fold(name)[0] for name in LEXICA[language].digits]
    return [str(digits.index(part)) if part in digits else part for part in folded]


_ORDINALS: Final = frozenset({"st", "nd", "rd", "th"})


def _fold(word: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    return ["".join(letter for letter in plain if letter.isalpha())]


def _align(wanted: list[str], heard: list[str]) -> list[tuple[int | None, int | None]]:
    """The cheapest way from one to the other (Levenshtein): pairs of positions, None where one has none."""
    rows, columns = len(wanted) + 1, len(heard) + 1
    cost = [[0] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            if i == 0 or j == 0:
                cost[i][j] = i + j
            else:
                cost[i][j] = min(
                    cost[i - 1][j - 1] + (wanted[i - 1] != heard[j - 1]),
                    cost[i - 1][j] + 1,
                    cost[i][j - 1] + 1,
                )
    pairs: list[tuple[int | None, int | None]] = []
    i, j = rows - 1, columns - 1
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (wanted[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]
