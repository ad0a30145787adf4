"""The records of voices, opened: each is proved by the ledger's rows and the acts in both, once."""

from __future__ import annotations

from consent.archive.vault import Vault
from consent.errors import VaultError
from consent.grants.grant import GrantVerifier
from consent.ledger.books import Books
from consent.ledger.standing import VoiceStanding
from consent.office.record import Record


class RecordShelf:
    """Opens voices' records. What was proved once is remembered, until the voice is erased."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault
        self._proved: dict[str, Record] = {}
        """by the record's hash"""

    def open(self, voice: VoiceStanding) -> Record:
        """A voice's record, opened and verified against the ledger's rows and the acts in both.

        Raises `VaultError`, `LedgerError`.
        """
        if voice.state == "erased":
            self._proved.pop(voice.record_hash, None)
            raise VaultError("the record was erased")
        known = self._proved.get(voice.record_hash)
        if known is not None:
            return known
        with self._books.archive.reading() as connection:
            token = self._vault.get(connection, voice.voice_id, "record").decode()
        record = Record.read(token, GrantVerifier(self._books.keys.ever))
        if record.hash != voice.record_hash or record.voice_id != voice.voice_id:
            raise VaultError("the record is not the one that the ledger names")
        record.check_acts(voice, self._books.standing.operators)
        _, proved = self._books.reader.judged(voice)
        if proved is None or proved.record_hash != voice.record_hash or proved.state != voice.state:
            raise VaultError(
                "the ledger's rows do not make the voice what this host took it for; "
                "run: voicegate ledger verify, then remove ledger-head"
            )
        self._proved[voice.record_hash] = record
        return record
