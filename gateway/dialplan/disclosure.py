"""What a caller is told first: a machine speaks, for whom, in whose voice, and who processes what is said.

The words come from `disclosure.toml`, by language. A plan names for whom the machine speaks and may add to
the words; it cannot leave them out (EU AI Act Art. 50(1); see docs/compliance.md).
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

PRINCIPAL_CHARACTERS: Final = 80
INTENT: Final = "disclosure"
"""What a caller asks for who asks whether this is a machine; also the tool that an engine then uses."""
KEY: Final = "*"
"""The key that does the same in a conversation."""
_NAME: Final = re.compile(r"[^\W_](?:[^\W_]|[ .,'’&+/()-])*")


@dataclass(frozen=True, slots=True)
class Wording:
    """One language's words; `disclosure.toml` says what each is for."""

    speaks: str
    cloned: str
    processed: str
    about: str
    ask: tuple[str, ...]
    machine: frozenset[str]
    library: str | None

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """Reads one language's table. Raises `KeyError`."""
        machine = frozenset(_folded(word) for word in table["machine"].split())
        return cls(
            table["speaks"],
            table["cloned"],
            table["processed"],
            table["about"],
            tuple(table["ask"]),
            machine,
            table.get("library"),
        )


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A disclosure as a call keeps it once it was heard whole."""

    principal: str
    language: str
    voice: str
    """the person's voice that it was said of; empty for the stock voice"""
    text: str
    """all that was said, word for word"""
    at: float
    """when its last word was heard, seconds since the epoch"""


def sentence(principal: str, language: str, *, cloned: bool, processor: str = "") -> str:
    """What must be said. `cloned`: the voice is a person's; `processor`: who else processes what callers say.

    Raises `KeyError` for an unknown language.
    """
    wording = WORDINGS[language]
    said = [wording.speaks.replace("{principal}", principal).replace("..", ".")]
    if cloned:
        said.append(wording.cloned)
    if processor:
        said.append(wording.processed.replace("{processor}", processor).replace("..", "."))
    return " ".join(said)


def asked_again(language: str) -> dict[str, Any]:
    """How an engine that recognises is told that callers may ask who speaks: one of a plan's `answers`."""
    wording = WORDINGS[language]
    answer = {"intent": INTENT, "ask": list(wording.ask), "about": wording.about, "tool": INTENT}
    return answer if wording.library is None else {**answer, "library": wording.library}


def spoken_language(language: str) -> str:
    """The table's name of a route's language: "de" for "de-AT"."""
    return language.partition("-")[0]


def why_no_principal(name: str, whose: str = "for whom the machine speaks") -> str | None:
    """Why nobody could learn from `name` `whose` it is; None when it is a name."""
    if not name.strip():
        return f"it is empty; write the company or person {whose}"
    if len(name) > PRINCIPAL_CHARACTERS:
        return f"it has {len(name)} characters; at most {PRINCIPAL_CHARACTERS} can be kept in mind"
    if not name.isprintable() or unicodedata.normalize("NFKC", name) != name:
        return "it holds characters that cannot be said; write letters, digits and spaces"
    if _NAME.fullmatch(name) is None or name.endswith(" ") or "  " in name or ".." in name:
        return (
            "it is not a name: a letter or digit, then letters, digits, single spaces and . , ' & + / ( ) -"
        )
    if sum(map(str.isalnum, name)) < 2:
        return "it is too short; write the name by which callers know the company or person"
    scripts = [
        {unicodedata.name(letter, "").split(" ")[0] for letter in word if letter.isalpha()}
        for word in name.split(" ")
    ]
    if any(len(script) > 1 for script in scripts):
        return "one of its words mixes two alphabets; write each word in one"
    words = [_folded(word) for word in re.findall(r"[^\W_]+", name)]
    if "".join(words) in MACHINE or all(word in MACHINE for word in words):
        return f"it names the machine itself; write the company or person {whose}"
    return None


def _folded(word: str) -> str:
    """A word as it is compared: small letters, no accents."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


WORDINGS: Final[Mapping[str, Wording]] = {
    language: Wording.read(table)
    for language, table in tomllib.loads(
        Path(__file__).with_name("disclosure.toml").read_text(encoding="utf-8")
    ).items()
}
MACHINE: Final = frozenset[str]().union(*(wording.machine for wording in WORDINGS.values()))
