"""Taking a voice back: revocation, erasure, and what is deleted by schedule. Each leaves its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consent.archive.vault import Vault
from consent.errors import RegistrationError
from consent.ledger.books import Books, Writing
from consent.ledger.operators import check_act
from consent.ledger.standing import VoiceStanding
from consent.office.registration import find
from consent.statements import challenge as challenges

MAX_REASON: Final = 500
UNDECIDED_S: Final = 30 * 24 * 3600.0
"""A registration that nobody decided on, or that was rejected, is erased after so long."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted, as the ledger has it: provable later without what was deleted."""

    voice_id: str
    seq: int
    hash: str
    items: int


class Withdrawals:
    """Revokes, erases and tidies."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault

    def revoke(self, handle: str, reason: str, act: str) -> VoiceStanding:
        """By an operator's act. Raises `RegistrationError`, `OperatorError`, `LedgerError`."""
        with self._books.writing() as writing:
            operator, claims = check_act(writing.standing, act, "revoke", self._books.clock())
            voice = self._living(writing, handle)
            self._refuse_other(claims.get("voice_id"), voice)
            _revoke(writing, voice, reason, f"operator {operator.name}", act)
        return voice

    def revoke_by_owner(self, voice_id: str, reason: str, call_id: str) -> VoiceStanding:
        """By the owner, whose PIN `OwnerDesk` has checked."""
        with self._books.writing() as writing:
            voice = writing.standing.voices[voice_id]
            if voice.state in ("pending", "active"):
                _revoke(writing, voice, reason, f"owner by phone, call {call_id}", "")
        return voice

    def erase(self, handle: str, reason: str, act: str) -> Receipt:
        """Destroys a voice's key and everything sealed with it. Raises as `revoke` does."""
        with self._books.writing() as writing:
            operator, claims = check_act(writing.standing, act, "erase", self._books.clock())
            voice = self._known(writing, handle)
            self._refuse_other(claims.get("voice_id"), voice)
            return self._erase(writing, voice, reason, operator.name, act)

    def tidy(self) -> list[Receipt]:
        """Deletes what is due.

        That is: voiceprints and fingerprints past their time, registrations that came to nothing, challenges
        long over. The front does this once an hour, `voicegate voice tidy` at will.
        """
        receipts: list[Receipt] = []
        with self._books.writing() as writing:
            now = self._books.clock()
            challenges.forget(writing.connection, now)
            for voice_id, items in self._vault.lapsed(writing.connection, now).items():
                for item in items:
                    self._vault.remove(writing.connection, voice_id, item.kind, item.number)
                body = {"items": [item.to_json() for item in items], "why": "its time was over"}
                row = writing.append("items.deleted", voice_id, body)
                receipts.append(Receipt(voice_id, row.seq, row.hash, len(items)))
            for voice in list(writing.standing.voices.values()):
                old = now * 1000 - voice.submitted_ms > UNDECIDED_S * 1000
                if old and voice.state in ("pending", "rejected"):
                    receipts.append(
                        self._erase(writing, voice, f"{voice.state} for too long", "schedule", "")
                    )
        return receipts

    def _erase(self, writing: Writing, voice: VoiceStanding, reason: str, by: str, act: str) -> Receipt:
        items = self._vault.erase(writing.connection, voice.voice_id)
        body = {
            "items": [item.to_json() for item in items],
            "record_hash": voice.record_hash,
            "reason": reason[:MAX_REASON],
            "by": by,
            "act": act,
        }
        row = writing.append("voice.erased", voice.voice_id, body)
        return Receipt(voice.voice_id, row.seq, row.hash, len(items))

    def _known(self, writing: Writing, handle: str) -> VoiceStanding:
        voice = writing.standing.voices.get(find(writing.connection, handle) or "")
        if voice is None:
            raise RegistrationError("name", f"no voice is called {handle!r}; see: voicegate voice list")
        if voice.state == "erased":
            raise RegistrationError("state", f"{handle} was erased already")
        return voice

    def _living(self, writing: Writing, handle: str) -> VoiceStanding:
        voice = self._known(writing, handle)
        if voice.state not in ("pending", "active"):
            raise RegistrationError("state", f"{handle} is {voice.state} already")
        return voice

    def _refuse_other(self, signed: object, voice: VoiceStanding) -> None:
        if signed != voice.voice_id:
            raise RegistrationError("state", "the operator signed this for another voice")


def _revoke(writing: Writing, voice: VoiceStanding, reason: str, by: str, act: str) -> None:
    body = {"reason": reason[:MAX_REASON], "by": by, "act": act, "voice_hash": voice.voice_hash}
    writing.append("voice.revoked", voice.voice_id, body)
