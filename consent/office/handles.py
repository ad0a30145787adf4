"""Which voice a name means: by what the office signed. The table of names is only compared with it.

A voice's name (its handle) stands in its signed record, which is sealed and gone once the voice is erased; so
the ledger's row of the registration also has the name's keyed hash (`OfficeKeys.mac_of`), by which a name is
found without any table. Of voices registered before there was such a hash, the record decides, and their row
of erasure has the hash. Whoever can write SQL can make the table differ from that: then nothing is done by
the name, and the error says what differs. A voice's id needs no table: `id:0123456789abcdef` names it too.
"""

from __future__ import annotations

import hmac
from typing import Final

from sqlalchemy import Connection, select

from consent.archive.tables import VOICES
from consent.archive.vault import HOUSE, Vault
from consent.errors import VaultError
from consent.grants.grant import GrantVerifier
from consent.ledger.standing import Standing, VoiceStanding
from consent.office.record import Record

BY_ID: Final = "id:"
"""Begins what names a voice by its id; no handle has a colon."""


class Handles:
    """Finds voices by name, and names of voices. What was proved once is remembered: it never changes."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._proved: dict[str, str] = {}
        """voice id -> name"""

    def hash_of(self, connection: Connection, voice: VoiceStanding) -> str:
        """The keyed hash of a voice's name, for the ledger; empty when its name cannot be proved."""
        name = voice.handle_mac or self._recorded(connection, voice) or ""
        return name if voice.handle_mac or not name else self._vault.keys.mac_of(name)

    def find(self, connection: Connection, standing: Standing, handle: str) -> VoiceStanding | None:
        """The newest voice of that name, a living one before those that are over; None when there is none.

        Raises `VaultError` when the table of names is not what was signed.
        """
        if handle.startswith(BY_ID):
            return standing.voices.get(handle.removeprefix(BY_ID))
        wanted = select(VOICES.c.voice_id).where((VOICES.c.handle == handle) & (VOICES.c.voice_id != HOUSE))
        in_table = {str(voice_id) for voice_id in connection.execute(wanted).scalars()}
        signed: list[VoiceStanding] = []
        unproved: dict[str, VoiceStanding] = {}
        hashes: dict[str, str] = {}
        for voice in list(standing.voices.values()):
            fits = self._fits(connection, voice, handle, hashes)
            if fits:
                signed.append(voice)
            elif fits is None and voice.voice_id in in_table:
                unproved[voice.voice_id] = voice
        for voice_id, voice in unproved.items():
            if voice.state != "erased":
                raise VaultError(
                    f"the record of a voice that the database calls {handle} is gone or was tampered with: "
                    f"nothing proves its name; nothing was done. To act all the same: {BY_ID}{voice_id}"
                )
        by_record = {voice.voice_id for voice in signed}
        if not by_record and in_table.isdisjoint(standing.voices):
            return None  # whoever stands in the table alone is nobody
        if by_record != in_table - set(unproved):
            raise VaultError(
                f"the database's table of voices was changed: what is signed names {_ids(by_record)} "
                f"{handle}, the table names {_ids(in_table)} so; nothing was done. Restore the table, or act "
                f"by the voice's id, which is signed: {_ids(by_record or in_table)}"
            )
        candidates = signed or list(unproved.values())
        living = [voice for voice in candidates if voice.state in ("pending", "active")]
        return (living or candidates)[-1]  # the ledger's order: the newest last

    def name(self, connection: Connection, voice: VoiceStanding) -> str:
        """A voice's name as it was signed; its id (`id:…`) when nothing that is left proves a name."""
        name, _ = self._name(voice, connection, self._claimed(connection, voice.voice_id))
        return name

    def names(self, connection: Connection, standing: Standing) -> dict[str, tuple[str, bool]]:
        """All voices' names by id, and whether the table says the same."""
        found = connection.execute(select(VOICES.c.voice_id, VOICES.c.handle))
        claims = {str(row.voice_id): str(row.handle) for row in found}
        return {
            voice.voice_id: self._name(voice, connection, claims.get(voice.voice_id))
            for voice in list(standing.voices.values())
        }

    def _name(self, voice: VoiceStanding, connection: Connection, claim: str | None) -> tuple[str, bool]:
        fits = None if claim is None else self._fits(connection, voice, claim, {})
        if claim is not None and fits:
            self._proved[voice.voice_id] = claim
            return claim, True
        proved = self._recorded(connection, voice)
        if proved is None and claim is not None and fits is None and voice.state == "erased":
            return claim, True  # erased before names were hashed: nothing can be done with it
        return proved or f"{BY_ID}{voice.voice_id}", False

    def _claimed(self, connection: Connection, voice_id: str) -> str | None:
        if voice_id in self._proved:
            return self._proved[voice_id]
        found = connection.execute(select(VOICES.c.handle).where(VOICES.c.voice_id == voice_id)).scalar()
        return None if found is None else str(found)

    def _fits(
        self, connection: Connection, voice: VoiceStanding, handle: str, hashes: dict[str, str]
    ) -> bool | None:
        """Whether a voice has this name; None when nothing that is left proves its name.

        `hashes` are those of `handle` by key: made once for many voices.
        """
        proved = self._proved.get(voice.voice_id)
        if proved is not None:
            return proved == handle
        if voice.handle_mac:
            kid = voice.handle_mac.partition(":")[0]
            if kid not in hashes:
                hashes[kid] = self._vault.keys.mac_of(handle, kid)
            if expected := hashes[kid]:
                return hmac.compare_digest(expected, voice.handle_mac)
        recorded = self._recorded(connection, voice)
        return None if recorded is None else recorded == handle

    def _recorded(self, connection: Connection, voice: VoiceStanding) -> str | None:
        """The name in a voice's record; None when the record is gone, or is not the ledger's."""
        proved = self._proved.get(voice.voice_id)
        if proved is not None or voice.state == "erased":
            return proved
        try:
            token = self._vault.get(connection, voice.voice_id, "record").decode()
            record = Record.read(token, GrantVerifier(self._vault.keys.ever))
        except (VaultError, UnicodeDecodeError):
            return None
        if record.hash != voice.record_hash or record.voice_id != voice.voice_id:
            return None
        self._proved[voice.voice_id] = record.handle
        return record.handle


def _ids(voices: set[str]) -> str:
    return " and ".join(f"{BY_ID}{voice_id}" for voice_id in sorted(voices)) or "no voice"
