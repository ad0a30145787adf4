"""Voices at rest: each voice has a key of its own, which the master key wraps.

The voice's sound, record, voiceprints and PIN are sealed with it (AES-256-GCM). Who destroys the key destroys
them all, wherever copies lie.

The house has such a key too, for what belongs to no voice: fingerprints of recordings handed in before, and
voiceprints of blocked people. Functions take the connection of the transaction they are part of.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, delete, func, insert, select, update

from consent.archive.keys import MasterKey, OfficeKeys
from consent.archive.tables import ITEMS, VOICES
from consent.errors import VaultError

HOUSE: Final = "house"
"""The voice id under which the house keeps its own items."""
NONCE: Final = 12
PIECE: Final = 24
PIECES: Final = 6
"""Bytes of a piece, and about how many pieces, by which a sealed item is sought."""


@dataclass(frozen=True, slots=True)
class Item:
    """What was kept: for lists and receipts, never the content. `digest` is of the sealed bytes."""

    kind: str
    number: int
    digest: str
    expires_at: float | None

    def to_json(self) -> dict[str, object]:
        """What a receipt says of it."""
        return {"kind": self.kind, "number": self.number, "sealed_sha256": self.digest}


def _seal(key: bytes, content: bytes, bound_to: str) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, content, bound_to.encode())


def _unseal(key: bytes, sealed: bytes, bound_to: str) -> bytes:
    """Raises `VaultError` when the content, or the place it stands at, was changed."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], bound_to.encode())
    except (InvalidTag, ValueError):
        raise VaultError(f"{bound_to} was tampered with, or its key is another's") from None


class Vault:
    """Sealed items by voice. Holds the masters, never a voice's open key."""

    def __init__(self, keys: OfficeKeys) -> None:
        self.keys = keys

    def open_voice(self, connection: Connection, voice_id: str, handle: str, at: float) -> None:
        """Makes a voice's key."""
        master = self.keys.master
        wrapped = _seal(master.secret, AESGCM.generate_key(256), f"key of {voice_id}")
        row = {
            "voice_id": voice_id,
            "handle": handle,
            "wrapped_key": wrapped,
            "master_kid": master.kid,
            "made_at": at,
        }
        connection.execute(insert(VOICES).values(row))

    def open_house(self, connection: Connection, at: float) -> None:
        """Makes the house's key when there is none."""
        if connection.execute(select(VOICES.c.voice_id).where(VOICES.c.voice_id == HOUSE)).first() is None:
            self.open_voice(connection, HOUSE, HOUSE, at)

    def _key(self, connection: Connection, voice_id: str) -> bytes:
        found = connection.execute(
            select(VOICES.c.wrapped_key, VOICES.c.master_kid).where(VOICES.c.voice_id == voice_id)
        ).first()
        if found is None or found.wrapped_key is None:
            raise VaultError(f"the key of {voice_id} is gone: it was erased")
        master = self.keys.master_by(found.master_kid)
        return _unseal(master.secret, found.wrapped_key, f"key of {voice_id}")

    def put(
        self, connection: Connection, voice_id: str, kind: str, content: bytes, *,
        expires_at: float | None = None,
    ) -> Item:  # fmt: skip
        """Seals one more item of a kind."""
        newest = select(func.max(ITEMS.c.number)).where(
            (ITEMS.c.voice_id == voice_id) & (ITEMS.c.kind == kind)
        )
        found = connection.execute(newest).scalar()
        number = 0 if found is None else int(found) + 1
        sealed = _seal(self._key(connection, voice_id), content, f"{voice_id}/{kind}/{number}")
        row = {
            "voice_id": voice_id,
            "kind": kind,
            "number": number,
            "sealed": sealed,
            "expires_at": expires_at,
        }
        connection.execute(insert(ITEMS).values(row))
        return Item(kind, number, hashlib.sha256(sealed).hexdigest(), expires_at)

    def get(self, connection: Connection, voice_id: str, kind: str, number: int = 0) -> bytes:
        """One item, open. Raises `VaultError`."""
        sealed = connection.execute(
            select(ITEMS.c.sealed).where(
                (ITEMS.c.voice_id == voice_id) & (ITEMS.c.kind == kind) & (ITEMS.c.number == number)
            )
        ).scalar()
        if sealed is None:
            raise VaultError(f"{voice_id} has no {kind}: it was erased")
        return _unseal(self._key(connection, voice_id), sealed, f"{voice_id}/{kind}/{number}")

    def all(self, connection: Connection, voice_id: str, kind: str) -> dict[int, bytes]:
        """All items of a kind by number, open; none when the voice has no key."""
        found = connection.execute(
            select(ITEMS.c.number, ITEMS.c.sealed)
            .where((ITEMS.c.voice_id == voice_id) & (ITEMS.c.kind == kind))
            .order_by(ITEMS.c.number)
        ).all()
        if not found:
            return {}
        key = self._key(connection, voice_id)
        return {number: _unseal(key, sealed, f"{voice_id}/{kind}/{number}") for number, sealed in found}

    def items(self, connection: Connection, voice_id: str) -> list[Item]:
        """What is kept of a voice, by kind and number."""
        found = connection.execute(
            select(ITEMS).where(ITEMS.c.voice_id == voice_id).order_by(ITEMS.c.kind, ITEMS.c.number)
        )
        return [
            Item(row.kind, row.number, hashlib.sha256(row.sealed).hexdigest(), row.expires_at)
            for row in found
        ]

    def erase(self, connection: Connection, voice_id: str) -> list[Item]:
        """Destroys a voice's key and items; answers what there was, for the receipt."""
        gone = self.items(connection, voice_id)
        connection.execute(
            update(VOICES).where(VOICES.c.voice_id == voice_id).values(wrapped_key=None, master_kid=None)
        )
        connection.execute(delete(ITEMS).where(ITEMS.c.voice_id == voice_id))
        return gone

    def wrapped_key(self, connection: Connection, voice_id: str) -> bytes | None:
        """A voice's key as it is kept; None when there is none any more."""
        wanted = select(VOICES.c.wrapped_key).where(VOICES.c.voice_id == voice_id)
        found = connection.execute(wanted).scalar()
        return None if found is None else bytes(found)

    def openings(self, connection: Connection, voice_id: str) -> list[bytes]:
        """Pieces of each sealed item, by which it is found again wherever it may lie."""
        found = connection.execute(select(ITEMS.c.sealed).where(ITEMS.c.voice_id == voice_id)).scalars().all()
        pieces = []
        for sealed in map(bytes, found):
            step = max(PIECE, len(sealed) // PIECES)
            pieces += [sealed[at : at + PIECE] for at in range(0, len(sealed) - PIECE + 1, step)]
        return pieces

    def remove(self, connection: Connection, voice_id: str, kind: str, number: int) -> None:
        """Deletes one item."""
        connection.execute(
            delete(ITEMS).where(
                (ITEMS.c.voice_id == voice_id) & (ITEMS.c.kind == kind) & (ITEMS.c.number == number)
            )
        )

    def of_kind(self, connection: Connection, kind: str) -> dict[str, list[Item]]:
        """Items of a kind, by voice."""
        found = connection.execute(select(ITEMS).where(ITEMS.c.kind == kind).order_by(ITEMS.c.number))
        kept: dict[str, list[Item]] = {}
        for row in found:
            item = Item(row.kind, row.number, hashlib.sha256(row.sealed).hexdigest(), row.expires_at)
            kept.setdefault(row.voice_id, []).append(item)
        return kept

    def masters(self, connection: Connection) -> set[str]:
        """The masters that wrap a key now."""
        found = connection.execute(select(VOICES.c.master_kid).where(VOICES.c.master_kid.is_not(None)))
        return {str(kid) for kid in found.scalars()}

    def rewrap(self, connection: Connection, master: MasterKey) -> int:
        """Wraps every key anew with `master`, which the ring holds before the commit; returns how many."""
        found = connection.execute(
            select(VOICES.c.voice_id, VOICES.c.wrapped_key, VOICES.c.master_kid).where(
                VOICES.c.wrapped_key.is_not(None)
            )
        ).all()
        for voice_id, _, _ in found:
            key = self._key(connection, voice_id)
            wrapped = _seal(master.secret, key, f"key of {voice_id}")
            connection.execute(
                update(VOICES)
                .where(VOICES.c.voice_id == voice_id)
                .values(wrapped_key=wrapped, master_kid=master.kid)
            )
        return len(found)
