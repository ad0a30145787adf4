"""New keys for old. Either may be done while calls run; other hosts need the key file before they go on."""

from __future__ import annotations

from consent.archive.keys import SigningKey, public_raw
from consent.archive.vault import Vault
from consent.grants.grant import b64
from consent.ledger.books import Books
from consent.ledger.operators import check_act


class Rotation:
    """Rotates the office's keys. Raises `OperatorError`, `LedgerError`, `VaultError`."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault

    def signing(self, act: str) -> str:
        """A new signing key, introduced by a ledger row that the old one signs; answers its kid."""
        keys = self._books.keys
        with self._books.writing() as writing:
            operator, _ = check_act(writing.standing, act, "rotate", self._books.clock())
            fresh = SigningKey.make()
            body = {
                "kid": fresh.kid,
                "public": b64(public_raw(fresh.private.public_key())),
                "by": operator.name,
                "act": act,
            }
            writing.append("key.rotated", None, body)
            keys.add_signer(fresh)  # before the commit: a key that is in force must never be lost
        return fresh.kid

    def master(self, act: str) -> int:
        """Makes a new master key, wraps every voice's key anew, and forgets the old masters.

        Backups of the database from before then open only with a backup of the old key file. Returns how many
        keys were wrapped.
        """
        keys = self._books.keys
        with self._books.writing() as writing:
            operator, _ = check_act(writing.standing, act, "rotate", self._books.clock())
            fresh = keys.add_master()
            count = self._vault.rewrap(writing.connection, fresh)
            body = {"master": fresh.kid, "voices": count, "by": operator.name, "act": act}
            writing.append("master.rotated", None, body)
        with self._books.writing() as writing:  # alone again: another rotation may have come in between
            keys.keep_masters(self._vault.masters(writing.connection))
        self._books.archive.shred()  # the log still held the keys as the old master wrapped them
        return count
