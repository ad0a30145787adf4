"""The fingerprints of recordings handed in before: which there must be, by the ledger.

Without them a recording could be handed in twice, or a statement be cut from a reference. They lie in a table
that whoever can write SQL may empty, or fill with an older item under a number that is free again. So the row
of each registration names the sealed items by their digests, and the check of copies begins by comparing.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from consent.archive.vault import HOUSE, Item, Vault
from consent.errors import VaultError
from consent.ledger.books import Books
from consent.ledger.standing import Standing
from consent.ledger.writing import Writing

FINGERPRINT_S: Final = 5 * 365 * 24 * 3600.0
"""Fingerprints are deleted so long after their registration."""
KIND: Final = "fingerprint"


def read_prints(vault: Vault, connection: Connection, standing: Standing) -> list[bytes]:
    """What is kept of earlier recordings, open. Raises `VaultError` when some is gone or changed."""
    kept = vault.all(connection, HOUSE, KIND)
    found = {str(item.number): item.digest for item in _items(vault, connection)}
    lost = [number for number, (digest, _) in standing.prints.items() if found.get(number) != digest]
    if lost:
        raise VaultError(
            f"{len(lost)} of {len(standing.prints)} fingerprints of earlier recordings are gone from the "
            "database or were changed, so that copies could not be found; restore consent_items from a backup"
        )
    return [content for number, content in kept.items() if str(number) in standing.prints]


def take_stock(books: Books, vault: Vault) -> None:
    """Notes in the ledger, once, which fingerprints there are from before registrations named them."""
    if not books.look().uncounted:
        return
    with books.writing() as writing:
        if not writing.standing.uncounted:
            return
        prints = [
            _named(item) | {"since_ms": _since_ms(item, writing)}
            for item in _items(vault, writing.connection)
            if str(item.number) not in writing.standing.prints
        ]
        writing.append("prints.counted", HOUSE, {"prints": prints})


def keep_print(vault: Vault, connection: Connection, content: bytes, now: float) -> dict[str, Any]:
    """Seals one more; returns what the registration's row says of it."""
    return _named(vault.put(connection, HOUSE, KIND, content, expires_at=now + FINGERPRINT_S))


def lapsed_prints(vault: Vault, connection: Connection, standing: Standing, now: float) -> list[Item]:
    """Those whose time is over, counted from the row that names them."""
    over = {n for n, (_, since_ms) in standing.prints.items() if since_ms / 1000 + FINGERPRINT_S <= now}
    return [item for item in _items(vault, connection) if str(item.number) in over] if over else []


def _items(vault: Vault, connection: Connection) -> list[Item]:
    return vault.of_kind(connection, KIND).get(HOUSE, [])


def _named(item: Item) -> dict[str, Any]:
    return {"number": item.number, "sealed_sha256": item.digest}


def _since_ms(item: Item, writing: Writing) -> int:
    """When it was kept, as far as a row from before says it; its time then ends as it would have."""
    newest_ms = max((voice.submitted_ms for voice in writing.standing.voices.values()), default=0)
    until = item.expires_at
    return newest_ms if until is None else min(newest_ms, round((until - FINGERPRINT_S) * 1000))
