"""Rows of the ledger as they are read back: each is checked by its own hash and signature."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from consent.archive.keys import OfficeKeys, read_public
from consent.archive.tables import LEDGER, Archive
from consent.errors import LedgerError
from consent.ledger.chain import Row
from consent.ledger.rulings import HOUSE_KINDS, replay
from consent.ledger.standing import QUIET, Standing, VoiceStanding


class RowReader:
    """Reads rows, and checks them by the keys that a standing and this host know."""

    def __init__(self, archive: Archive, keys: OfficeKeys, standing: Standing) -> None:
        self._archive = archive
        self._keys = keys
        self._standing = standing

    @property
    def trusted(self) -> Mapping[str, Ed25519PublicKey]:
        """The keys that the ledger introduced and this host has had, by kid, without the stolen ones."""
        known = {kid: read_public(raw) for kid, raw in self._standing.signers.items()} | dict(self._keys.ever)
        return {kid: key for kid, key in known.items() if kid not in self._standing.stolen}

    def hash_of(self, seq: int) -> str | None:
        """A row's hash as the database has it; None when there is no such row. Raises `LedgerError`."""
        with self._archive.reading() as connection:
            found = connection.execute(select(LEDGER.c.hash).where(LEDGER.c.seq == seq)).scalar()
        return None if found is None else str(found)

    def rows(
        self,
        *,
        subject: str | None = None,
        kinds: tuple[str, ...] = (),
        since_ms: int = 0,
        holding: str = "",
        of_no_voice: bool = False,
        but: tuple[str, ...] = (),
        proved: bool = False,
        after: int = 0,
        most: int | None = None,
    ) -> list[Row]:
        """Rows of one voice or of none, of some kinds or but some, or whose body holds a text, in order.

        They are those behind row number `after`, and at most `most` of them where it is given. Each is
        checked by its hash and signature; that none is missing, only `Books.prove` says. `proved` spares the
        check: the whole ledger was just proved, or the rows shall be seen as they are. Raises `LedgerError`
        naming a row that was edited.
        """
        wanted = select(LEDGER).where(LEDGER.c.at_ms >= since_ms).order_by(LEDGER.c.seq).limit(most)
        if after:
            wanted = wanted.where(LEDGER.c.seq > after)
        if of_no_voice:  # an index knows these
            wanted = wanted.where(LEDGER.c.subject.is_(None))
        if subject is not None:
            wanted = wanted.where(LEDGER.c.subject == subject)
        if kinds:
            wanted = wanted.where(LEDGER.c.kind.in_(kinds))
        if but:
            wanted = wanted.where(LEDGER.c.kind.not_in(but))
        if holding:
            wanted = wanted.where(LEDGER.c.body.contains(holding, autoescape=True))
        with self._archive.reading() as connection:
            found = [Row(*row) for row in connection.execute(wanted)]
            if not proved:
                self._check(connection, found)
        return found

    def _check(self, connection: Connection, rows: list[Row]) -> None:
        """Raises `LedgerError` naming the first of these rows that was edited.

        What a stolen key signed counts where the chain holds it, before the row that revoked the key.
        """
        trusted = self.trusted
        for row in rows:
            stolen = row.kid in self._standing.stolen
            keys = self._keys.ever if stolen else trusted
            if row.edited or not row.signed_by(keys) or (stolen and not self._holds(connection, row)):
                raise LedgerError(f"ledger row {row.seq} was edited; run: voicegate ledger verify")

    def _holds(self, connection: Connection, row: Row) -> bool:
        """Whether the next row follows from this one, and is not after the row that revoked its key."""
        after = connection.execute(select(LEDGER.c.prev).where(LEDGER.c.seq == row.seq + 1)).scalar()
        wanted = select(LEDGER).where(LEDGER.c.kind.in_(("key.revoked", "ledger.resumed")))
        ends = [
            end.seq
            for end in (Row(*found) for found in connection.execute(wanted))
            if row.kid == end.table.get("kid") or row.kid in end.table.get("stolen", ())
        ]
        return after == row.hash and row.seq < min(ends, default=0)

    def judged(self, voice: VoiceStanding) -> tuple[list[Row], VoiceStanding | None]:
        """The rows by which one voice is judged, and where it stands by them alone.

        A host's checkpoint, which whoever has the office's key can write, says nothing here.
        """
        rows = self.rows(subject=voice.voice_id, but=tuple(QUIET))
        for row in list(rows):
            if row.kind == "voice.submitted" and (challenge := str(row.table.get("challenge", ""))):
                rows += self.rows(of_no_voice=True, kinds=("challenge.issued",), holding=challenge)
        rows += self.rows(of_no_voice=True, kinds=HOUSE_KINDS)
        rows.sort(key=lambda row: row.seq)
        return rows, replay(rows)[0].voices.get(voice.voice_id)
