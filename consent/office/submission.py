"""What is handed in to register a voice, and what of it needs no listening to refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from consent.checks.sound import Recording
from consent.errors import RegistrationError
from consent.grants.scope import STOCK
from consent.office import pin as pins
from consent.office.record import Reference

HANDLE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
MAX_TEXT: Final = 2_000


@dataclass(frozen=True)
class Submission:
    """What is handed in. `adult`: who hands it in attests that the speaker is of age."""

    handle: str
    references: tuple[Reference, ...]
    statement: Recording
    challenge_id: str
    adult: bool
    pin: str | None = None

    @property
    def digest(self) -> dict[str, Any]:
        """What an operator signs when registering."""
        return {
            "handle": self.handle,
            "challenge": self.challenge_id,
            "references": [reference.recording.file_sha256 for reference in self.references],
            "texts": [reference.text for reference in self.references],
            "statement": self.statement.file_sha256,
            "adult": self.adult,
        }

    def check(self) -> None:
        """Raises `RegistrationError` for what needs no listening."""
        if not HANDLE.match(self.handle):
            raise RegistrationError(
                "name",
                f"{self.handle!r} is not a name for a voice: "
                "small letters, digits, '.', '_', '-', at most 64",
            )
        if self.handle == STOCK:
            raise RegistrationError("name", f"{STOCK} is the stock voice; choose another name")
        if not self.adult:
            raise RegistrationError(
                "adult", "voices of minors are not taken; attest that the speaker is of age"
            )
        if not self.references:
            raise RegistrationError("reference", "give at least one reference")
        for reference in self.references:
            text = reference.text.strip()
            if not text or len(text) > MAX_TEXT or not text.isprintable():
                raise RegistrationError(
                    "reference", f"{reference.recording.name}: its text is empty, too long, or not plain text"
                )
        if self.pin is not None:
            pins.check_form(self.pin)
