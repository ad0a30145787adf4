"""Taking a voice back: revocation, erasure, and what is deleted by schedule. Each leaves its row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from consent.archive.file_search import PlaceSearched, in_writing, search_files
from consent.archive.vault import HOUSE, Item, Vault
from consent.errors import RegistrationError, VaultError
from consent.grants.grant import GrantVerifier
from consent.ledger.books import Books
from consent.ledger.rulings import MAX_REASON, OWNER, UNDECIDED_S
from consent.ledger.standing import Standing, VoiceStanding
from consent.ledger.writing import Writing
from consent.office.handles import Handles
from consent.office.operator_desk import acting
from consent.office.prints import lapsed_prints, take_stock
from consent.office.record import Record
from consent.office.registration import VOICEPRINT_S
from consent.statements import challenge as challenges

log = structlog.get_logger("consent")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted, as the ledger has it: provable later without what was deleted.

    `items`: sealed items; `challenges`: statements that nobody had read aloud, with the person's name. Times
    are seconds since the epoch.
    """

    voice_id: str
    seq: int
    hash: str
    items: int
    challenges: int = 0
    fingerprints: int = 0
    """fingerprints of its recordings, which stay, so that nobody hands the recordings in again"""
    fingerprints_until: float | None = None
    shredded: bool = True
    """whether the deleted bytes have left the database's files; else the next tidying sees to it"""
    places: tuple[PlaceSearched, ...] = ()
    """files that were searched afterwards, and what is left there"""


class Withdrawals:
    """Revokes, erases and tidies."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault
        self._handles = Handles(vault)

    def revoke(self, handle: str, reason: str, act: str) -> VoiceStanding:
        """By an operator's act. Raises `RegistrationError`, `OperatorError`, `LedgerError`."""
        with acting(self._books, act, "revoke") as (writing, operator, claims):
            voice = self._living(writing, handle)
            self._refuse_other(claims.get("voice_id"), voice)
            _revoke(writing, voice, reason, f"operator {operator.name}", act)
        return voice

    def revoke_by_owner(self, voice_id: str, reason: str, call_id: str) -> VoiceStanding:
        """By the owner, whose PIN `OwnerDesk` has checked."""
        with self._books.writing() as writing:
            voice = writing.standing.voices[voice_id]
            if voice.state in ("pending", "active"):
                _revoke(writing, voice, reason, f"{OWNER}{call_id}", "")
        return voice

    def erase(self, handle: str, reason: str, act: str, search: Path | None = None) -> Receipt:
        """Destroys a voice's key and everything sealed with it, and unused challenges of the same person.

        Then every byte of the files below `search` is looked at for what is left of it. Raises as `revoke`
        does.
        """
        with acting(self._books, act, "erase") as (writing, operator, claims):
            voice = self._known(writing, handle)
            self._refuse_other(claims.get("voice_id"), voice)
            record = self._record(writing.connection, voice)
            sought = self._sought(writing, voice, handle, record)
            receipt = self._erase(writing, voice, record, reason, operator.name, act)
        shredded = self._books.archive.shred()
        places = () if search is None else tuple(search_files(search, sought))
        return replace(receipt, shredded=shredded, places=places)

    def repeat(self, before: Standing) -> list[str]:
        """Withdraws again what was withdrawn in `before` and is not now, since a backup was restored.

        Returns the names of those voices. Raises `LedgerError`, `VaultError`.
        """
        again = []
        with self._books.writing() as writing:
            connection = writing.connection
            for voice in before.voices.values():
                now = writing.standing.voices.get(voice.voice_id)
                if now is None or voice.state == now.state or voice.state not in ("revoked", "erased"):
                    continue
                again.append(self._handles.name(connection, now))
                body: dict[str, Any] = {
                    "reason": "was so before the backup was restored", "by": "office", "act": "",
                }  # fmt: skip
                if voice.state == "erased":
                    body["handle_mac"] = self._handles.hash_of(connection, now)
                    items = [item.to_json() for item in self._vault.erase(connection, voice.voice_id)]
                    body |= {"items": items, "record_hash": now.record_hash}
                writing.append(f"voice.{voice.state}", voice.voice_id, body)
        return again

    def tidy(self) -> list[Receipt]:
        """Deletes what is due.

        That is: voiceprints and fingerprints past their time, registrations that came to nothing, challenges
        long over. The front does this once an hour, `voicegate voice tidy` at will. Raises `ClockError`: by a
        clock that may be wrong nothing is deleted.
        """
        receipts: list[Receipt] = []
        take_stock(self._books, self._vault)
        with self._books.writing() as writing:
            now = writing.now()
            challenges.forget(writing.connection, now)
            for voice_id, items in self._lapsed(writing, now).items():
                for item in items:
                    self._vault.remove(writing.connection, voice_id, item.kind, item.number)
                body = {"items": [item.to_json() for item in items], "why": "its time was over"}
                row = writing.append("items.deleted", voice_id, body)
                receipts.append(Receipt(voice_id, row.seq, row.hash, len(items)))
            for voice in list(writing.standing.voices.values()):
                old = now * 1000 - voice.submitted_ms > UNDECIDED_S * 1000
                if old and not voice.alone and voice.state in ("pending", "rejected"):
                    record = self._record(writing.connection, voice)
                    why = f"{voice.state} for too long"
                    receipts.append(self._erase(writing, voice, record, why, "schedule", ""))
        if not self._books.archive.shred():
            log.warning("consent.not_shredded", remedy="the next tidying tries again")
        return receipts

    def _lapsed(self, writing: Writing, now: float) -> dict[str, list[Item]]:
        """What is past its time, by voice, counted from the ledger's rows: a table's time can be edited."""
        due: dict[str, list[Item]] = {}
        voices = writing.standing.voices
        for voice_id, items in self._vault.of_kind(writing.connection, "voiceprint").items():
            voice = voices.get(voice_id)
            if voice is not None and now >= voice.submitted_ms / 1000 + VOICEPRINT_S:
                due[voice_id] = items
        if prints := lapsed_prints(self._vault, writing.connection, writing.standing, now):
            due[HOUSE] = prints
        return due

    def _erase(
        self, writing: Writing, voice: VoiceStanding, record: Record | None, reason: str, by: str, act: str
    ) -> Receipt:
        connection = writing.connection
        unused: list[str] = []
        prints: list[Item] = []
        if record is not None:
            unused = challenges.of_person(connection, self._verifier, str(record.claims["name"]))
            challenges.remove(connection, unused)
            prints = self._fingerprints(connection, record)
        handle_mac = self._handles.hash_of(connection, voice)
        items = self._vault.erase(connection, voice.voice_id)
        body = {
            "handle_mac": handle_mac,
            "items": [item.to_json() for item in items],
            "challenges": unused,
            "fingerprints_kept": [item.number for item in prints],
            "record_hash": voice.record_hash,
            "reason": reason[:MAX_REASON],
            "by": by,
            "act": act,
        }
        row = writing.append("voice.erased", voice.voice_id, body)
        until = max((item.expires_at or 0.0 for item in prints), default=None)
        return Receipt(voice.voice_id, row.seq, row.hash, len(items), len(unused), len(prints), until)

    @property
    def _verifier(self) -> GrantVerifier:
        return GrantVerifier(self._books.keys.ever)

    def _record(self, connection: Connection, voice: VoiceStanding) -> Record | None:
        """The voice's record while it can be opened."""
        try:
            token = self._vault.get(connection, voice.voice_id, "record").decode()
            return Record.read(token, self._verifier)
        except VaultError:
            return None

    def _fingerprints(self, connection: Connection, record: Record) -> list[Item]:
        """Items of the house with fingerprints of the recordings that the record names.

        None when the house's own key or items were tampered with: that keeps nobody from an erasure.
        """
        recordings = [record.claims["statement"]["recording"], *record.claims["references"]]
        hashes = {str(recording["sound_sha256"]).encode() for recording in recordings}
        try:
            kept = self._vault.all(connection, HOUSE, "fingerprint")
        except VaultError as error:
            log.error("fingerprints.tampered", error=str(error))
            return []
        mine = {number for number, content in kept.items() if content[:64] in hashes}
        found = self._vault.items(connection, HOUSE)
        return [item for item in found if item.kind == "fingerprint" and item.number in mine]

    def _sought(
        self, writing: Writing, voice: VoiceStanding, handle: str, record: Record | None
    ) -> dict[str, list[bytes]]:
        """What to look for after the erasure, by what it is called in the receipt."""
        connection = writing.connection
        sought = {"the voice's short name": in_writing(handle)}
        if record is not None:
            sought["the person's name"] = in_writing(str(record.claims["name"]))
        if (key := self._vault.wrapped_key(connection, voice.voice_id)) is not None:
            sought["the voice's key"] = [key]
        sought["sealed sound, record, voiceprint or PIN"] = self._vault.openings(connection, voice.voice_id)
        return sought

    def _known(self, writing: Writing, handle: str) -> VoiceStanding:
        voice = self._handles.find(writing.connection, writing.standing, handle)
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
