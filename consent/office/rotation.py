"""New keys for old. Each may be done while calls run; other hosts need the key file before they go on.

An act names the key that it replaces and the one that it puts in force, which the office has made before. So
who signs asks first (`next_signing`, `next_master`), and then hands the act in, to the same `Rotation`.
"""

from __future__ import annotations

from typing import Any

from consent.archive.keys import MasterKey, SigningKey
from consent.archive.vault import Vault
from consent.errors import OperatorError
from consent.ledger.books import Books
from consent.office.operator_desk import acting


class Rotation:
    """Rotates the office's keys. Raises `OperatorError`, `LedgerError`, `VaultError`."""

    def __init__(self, books: Books, vault: Vault) -> None:
        self._books = books
        self._vault = vault
        self._signing: SigningKey | None = None
        self._master: MasterKey | None = None

    def next_signing(self) -> dict[str, Any]:
        """What an act must bind to put a new signing key in force."""
        self._books.look()
        self._signing = SigningKey.make()
        replaces = self._books.keys.signer.kid
        return {"which": "signing", "replaces": replaces, **self._books.introduction(self._signing)}

    def signing(self, act: str) -> str:
        """A new signing key, introduced by a ledger row that the old one signs; returns its kid.

        When this process dies before the row stands, the old key goes on signing.
        """
        fresh, self._signing = self._signing, None
        if fresh is None:
            raise OperatorError("ask for the next signing key before signing for it")
        with acting(self._books, act, "rotate") as (writing, operator, _):
            body = {**self._books.introduction(fresh), "by": operator.name, "act": act}
            writing.append("key.rotated", None, body)
            self._books.keys.add_signer(fresh)  # before the commit: a key in force must never be lost
        return fresh.kid

    def revoke(self, kid: str, since: float, reason: str, act: str) -> None:
        """Declares a signing key stolen, since then (seconds since the epoch), in a row that another signs.

        From that row on nothing counts that it signed, but the ledger's rows before and the records that they
        name. The act (`revoke-key`) binds `kid` and `since_ms`.
        """
        with acting(self._books, act, "revoke-key") as (writing, operator, _):
            body = {
                "kid": kid, "since_ms": round(since * 1000), "by": operator.name, "reason": reason[:500],
                "act": act,
            }  # fmt: skip
            writing.append("key.revoked", None, body)

    def next_master(self) -> dict[str, Any]:
        """What an act must bind to put a new master key in force."""
        self._books.keys.reload()
        self._master = MasterKey.make()
        return {"which": "master", "replaces": self._books.keys.master.kid, "kid": self._master.kid}

    def master(self, act: str) -> int:
        """Makes a new master key, wraps every voice's key anew, and forgets the old masters.

        Backups of the database from before then open only with a backup of the old key file. Returns how many
        keys were wrapped.
        """
        keys = self._books.keys
        fresh, self._master = self._master, None
        if fresh is None:
            raise OperatorError("ask for the next master key before signing for it")
        with acting(self._books, act, "rotate") as (writing, operator, _):
            keys.reload()
            replaces = keys.master.kid
            count = self._vault.rewrap(writing.connection, fresh)
            body = {
                "master": fresh.kid, "replaces": replaces, "voices": count, "by": operator.name, "act": act,
            }  # fmt: skip
            writing.append("master.rotated", None, body)
            keys.add_master(fresh)  # before the commit, as above
        with self._books.writing() as writing:  # alone again: another rotation may have come in between
            keys.keep_masters(self._vault.masters(writing.connection))
        self._books.archive.shred()  # the log still held the keys as the old master wrapped them
        return count
