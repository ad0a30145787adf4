"""People whose voice is never taken: their voiceprint, kept sealed for this one purpose until it is lifted.

It is for a person who asks for it, or a court: the label says which, and the voiceprint is itself theirs.
"""

from __future__ import annotations

import json
import secrets

from consent.archive.vault import HOUSE, Vault
from consent.checks.sound import Recording, measure
from consent.checks.speaker import SpeakerModel, voiceprint
from consent.errors import RegistrationError
from consent.ledger.books import Books
from consent.office.operator_desk import acting


class Blocklist:
    """Adds and lifts. Raises `RegistrationError`, `OperatorError`, `LedgerError`."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault

    def add(self, label: str, sample: Recording, speaker: SpeakerModel | None, act: str) -> str:
        """Blocks the speaker of a recording; returns the entry's id.

        The act binds `label`, the recording's hash as `sample`, and `lift` as false.
        """
        if speaker is None:
            raise RegistrationError(
                "blocked", "blocking needs the speaker model; fetch it with: voicegate models get speaker"
            )
        if not label.isprintable() or not 0 < len(label) <= 80:
            raise RegistrationError("name", f"{label!r} is not a label")
        if measure(sample).speech_s < 3.0:
            raise RegistrationError("sound", f"{sample.name}: less than 3 s of speech in it")
        kept = voiceprint(speaker.windows(sample.speech_16k))
        with acting(self._books, act, "block") as (writing, operator, claims):
            if claims.get("label") != label or label in writing.standing.blocked.values():
                raise RegistrationError(
                    "name", f"{label} is on the list, or the operator signed another label"
                )
            block = secrets.token_hex(6)
            content = json.dumps({"block": block, "label": label, "voiceprint": kept.tolist()})
            self._vault.open_house(writing.connection, self._books.clock())
            self._vault.put(writing.connection, HOUSE, "blocked", content.encode())
            body = {
                "block": block, "label": label, "sample": sample.sha256, "by": operator.name, "act": act,
            }  # fmt: skip
            writing.append("speaker.blocked", None, body)
        return block

    def lift(self, label: str, act: str) -> None:
        """Takes somebody off the list and deletes the voiceprint.

        The act binds `label`, and `lift` as true.
        """
        with acting(self._books, act, "block") as (writing, operator, claims):
            # by the ledger: the voiceprint may be gone from its table
            on_list = {name: block for block, name in writing.standing.blocked.items()}
            if label not in on_list or claims.get("label") != label:
                raise RegistrationError("name", f"nobody called {label} is on the list")
            for number, content in self._vault.all(writing.connection, HOUSE, "blocked").items():
                if json.loads(content)["block"] == on_list[label]:
                    self._vault.remove(writing.connection, HOUSE, "blocked", number)
            body = {"block": on_list[label], "label": label, "by": operator.name, "act": act}
            writing.append("speaker.unblocked", None, body)
        self._books.archive.shred()
