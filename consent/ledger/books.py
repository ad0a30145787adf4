"""The ledger as one process sees it: read on from where it was, every new row verified, writes alone.

The signed checkpoint beside the keys (`ledger-head`) remembers number and hash of the newest row this host
has seen, with the standing at that row. So a start is quick, and a database that was cut back, or replaced by
an older copy, is noticed on this host before anything is granted from it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from consent.archive.keys import OfficeKeys, SigningKey, public_raw, write_private
from consent.archive.tables import LEDGER, Archive
from consent.errors import GrantRefused, LedgerError
from consent.grants.grant import GrantVerifier, b64, sign, unb64
from consent.ledger.chain import GENESIS, HEAD_TYP, Head, Proof, Row, head_of, put, rows_from, verify
from consent.ledger.standing import QUIET, Standing

CHECKPOINT: Final = "ledger-head"
CHECKPOINT_TYP: Final = "ledger-checkpoint+jws"
CHECKPOINT_EVERY: Final = 1_000

log = structlog.get_logger("consent")

Clock = Callable[[], float]


@dataclass
class Writing:
    """An open transaction: `connection` for the tables beside the ledger, `append` for its rows."""

    connection: Connection
    standing: Standing
    _books: Books
    _rows: list[Row] = field(default_factory=list)

    def append(
        self, kind: str, subject: str | None, body: Mapping[str, Any], signer: SigningKey | None = None
    ) -> Row:
        """Adds a row; it stands when the transaction does."""
        books = self._books
        seq, prev, at_ms = books.tip
        if self._rows:
            seq, prev, at_ms = self._rows[-1].seq, self._rows[-1].hash, self._rows[-1].at_ms
        # the ledger's time never goes back; whether the clock did is for `ConsentOffice.grant` to judge
        at_ms = max(at_ms, round(books.clock() * 1000))
        row = Row.make(seq + 1, at_ms, kind, subject, body, prev, signer or books.keys.signer)
        put(self.connection, row)
        self._rows.append(row)
        return row


class Books:
    """Safe to use from several threads; several processes and hosts may have the same ledger open."""

    def __init__(self, archive: Archive, keys: OfficeKeys, clock: Clock = time.time) -> None:
        self.archive = archive
        self.keys = keys
        self.clock = clock
        self.standing = Standing()
        self.tip: tuple[int, str, int] = (0, GENESIS, 0)
        """number, hash and time (ms) of the newest row seen"""
        self._lock = threading.RLock()
        self._saved = 0
        self._load_checkpoint()

    def begin(self) -> None:
        """Catches up; the first row of a new ledger is written. Raises `LedgerError`."""
        with self._lock:
            with self.archive.reading() as connection:
                self._refresh(connection)
            signer = self.keys.signer
            if signer.kid in self.standing.signers:
                return
            with self.writing() as writing:
                if self.tip[0] == 0:
                    writing.append("ledger.opened", None, self._introduction(signer.kid))
                elif signer.kid not in self.standing.signers:
                    # a rotation that was cut short has written the new key, and no row that introduces it
                    known = [key for key in self.keys.signers if key.kid in self.standing.signers]
                    if not known:
                        raise LedgerError(
                            "this ledger was begun with other office keys; restore office-keys.json"
                        )
                    writing.append("key.rotated", None, self._introduction(signer.kid), signer=known[-1])

    def _introduction(self, kid: str) -> dict[str, str]:
        return {"kid": kid, "public": b64(public_raw(self.keys.public[kid]))}

    @property
    def _trusted(self) -> dict[str, Ed25519PublicKey]:
        introduced = {
            kid: Ed25519PublicKey.from_public_bytes(unb64(raw)) for kid, raw in self.standing.signers.items()
        }
        return {**introduced, **self.keys.public}

    # ── reading and writing ──────────────────────────────────────────────────────────────────────────

    def look(self) -> Standing:
        """The standing as of now. Raises `LedgerError`."""
        with self._lock, self.archive.reading() as connection:
            self._refresh(connection)
            return self.standing

    @contextmanager
    def writing(self, *, quiet: bool = False) -> Iterator[Writing]:
        """One transaction over ledger, vault and challenges, alone among all writers.

        `quiet` is as `Archive.writing` has it. Raises `LedgerError`.
        """
        with self._lock:
            with self.archive.writing(quiet=quiet) as connection:
                self._refresh(connection)
                writing = Writing(connection, self.standing, self)
                yield writing
            for row in writing._rows:
                self._take(row)
            if self.tip[0] - self._saved >= CHECKPOINT_EVERY or any(
                row.kind not in QUIET for row in writing._rows
            ):
                self.save_checkpoint()

    def _refresh(self, connection: Connection) -> None:
        """Catches up.

        When the ledger is not the one seen, because another process of this host resumed a restored one, it
        starts anew from what that process left; anything else is an error.
        """
        try:
            self._catch_up(connection)
        except LedgerError:
            before = self.standing, self.tip, self._saved
            try:
                self._load_checkpoint()
                self._catch_up(connection)
                resumed = self.standing.resumes > before[0].resumes
            except LedgerError:
                resumed = False
            if not resumed:
                self.standing, self.tip, self._saved = before
                raise

    def _catch_up(self, connection: Connection) -> None:
        seq, digest, _ = self.tip
        last: Row | None = None
        fresh: list[Row] = []
        for row in rows_from(connection, max(seq, 1)):
            if row.seq == seq:
                if row.hash != digest:
                    raise LedgerError(f"ledger row {seq} is not the one this host has seen: it was replaced")
                last = row
                continue
            fault = row.fault(last)
            if fault is not None:
                raise LedgerError(f"ledger row {row.seq} is bad: {fault}; run: voicegate ledger verify")
            fresh.append(row)
            last = row
        if seq and (last is None or last.seq < seq):
            raise LedgerError(
                f"the ledger ends before row {seq}, which this host has seen: it was cut back; "
                "after restoring a backup run: voicegate ledger resume"
            )
        self._check_signatures(fresh)
        for row in fresh:
            self._take(row)

    def _check_signatures(self, fresh: list[Row]) -> None:
        """The newest row's signature vouches for those before it, by their hashes."""
        if not fresh:
            return
        trusted = self._trusted
        for row in fresh:
            if row.kind == "key.rotated":
                if not row.signed_by(trusted):
                    raise LedgerError(f"ledger row {row.seq} is bad: its signature fails")
                body = row.table
                trusted[body["kid"]] = Ed25519PublicKey.from_public_bytes(unb64(body["public"]))
        if not fresh[-1].signed_by(trusted):
            raise LedgerError(f"ledger row {fresh[-1].seq} is bad: its signature fails")

    def _take(self, row: Row) -> None:
        if row.kind not in QUIET:
            try:
                self.standing.apply(row.kind, row.subject, row.at_ms, row.table)
            except (KeyError, TypeError, ValueError):
                raise LedgerError(f"ledger row {row.seq} makes no sense after those before it") from None
            if row.kind == "key.rotated" and row.table["kid"] not in self.keys.public:
                self.keys.reload()
        self.tip = (row.seq, row.hash, row.at_ms)

    # ── the checkpoint ───────────────────────────────────────────────────────────────────────────────

    def _verifier(self) -> GrantVerifier:
        return GrantVerifier(self.keys.public)

    def _load_checkpoint(self) -> None:
        path = self.keys.directory / CHECKPOINT
        if not path.exists():
            return
        try:
            claims = self._verifier().claims(path.read_text(), CHECKPOINT_TYP)
            self.standing = Standing.from_json(claims["standing"])
            self.tip = (int(claims["seq"]), str(claims["hash"]), int(claims["at_ms"]))
        except (GrantRefused, KeyError, TypeError, OSError, ValueError):
            raise LedgerError(
                f"{path} was not signed by this office; run `voicegate ledger verify`, then remove it"
            ) from None
        self._saved = self.tip[0]

    def save_checkpoint(self) -> None:
        """Signs and keeps where this host is; never goes back behind another process of this host."""
        with self._lock:
            path = self.keys.directory / CHECKPOINT
            head = self._kept_head()
            if head is not None and head.seq >= self.tip[0]:
                return
            self.archive.settle()  # a head must never name a row that a power cut takes
            claims = {**self._head_claims(), "standing": self.standing.to_json()}
            signer = self.keys.signer
            token = sign(claims, signer.private, signer.kid, CHECKPOINT_TYP)
            try:
                write_private(path, token.encode(), replace_it=True)
            except OSError as error:  # what was done stands all the same
                log.error("ledger.head_not_kept", path=str(path), error=error.strerror)
                return
            self._saved = self.tip[0]

    def _kept_head(self) -> Head | None:
        try:
            text = (self.keys.directory / CHECKPOINT).read_text()
            return head_of(self._verifier().claims(text, CHECKPOINT_TYP))
        except (OSError, GrantRefused, LedgerError):
            return None

    def _head_claims(self) -> dict[str, Any]:
        seq, digest, at_ms = self.tip
        return {"seq": seq, "hash": digest, "at_ms": at_ms, "iat": self.clock()}

    def resume(self, sign_off: Callable[[Standing], Mapping[str, Any]]) -> Standing:
        """Goes on with the ledger as the database has it, after a restored backup, and says so in a row.

        `sign_off` makes the row's body from the restored standing. Returns what this host knew before.

        Raises `LedgerError` when what is there does not verify by itself, and what `sign_off` raises.
        """
        with self._lock:
            proof = self.prove(heads=[])
            if not proof.ok:
                raise LedgerError(f"ledger row {proof.bad} is bad: {proof.fault}")
            before = self.standing, self.tip, self._saved
            self.standing, self.tip, self._saved = Standing(), (0, GENESIS, 0), 0
            try:
                with self.writing() as writing:
                    body = {**sign_off(writing.standing), "seen_before": before[1][0]}
                    writing.append("ledger.resumed", None, body)
            except BaseException:
                self.standing, self.tip, self._saved = before
                raise
            (self.keys.directory / CHECKPOINT).unlink(missing_ok=True)
            self.save_checkpoint()
            return before[0]

    # ── proofs ───────────────────────────────────────────────────────────────────────────────────────

    def head(self) -> str:
        """The signed head, for keeping elsewhere."""
        self.look()
        signer = self.keys.signer
        return sign(self._head_claims(), signer.private, signer.kid, HEAD_TYP)

    def prove(
        self, heads: list[Head] | None = None, keys: Mapping[str, Ed25519PublicKey] | None = None
    ) -> Proof:
        """Verifies the whole ledger against what this host has seen (or `heads`) and its keys (or `keys`)."""
        if heads is None:
            kept, seen = self._kept_head(), Head(*self.tip)
            heads = [head for head in (kept, seen) if head is not None and head.seq]
        with self.archive.reading() as connection:
            return verify(rows_from(connection, 1), keys or self.keys.public, heads)

    def rows(
        self, *, subject: str | None = None, kinds: tuple[str, ...] = (), since_ms: int = 0, holding: str = ""
    ) -> list[Row]:
        """Rows of one voice, of some kinds, or whose body holds a text (a jti), in order."""
        wanted = select(LEDGER).where(LEDGER.c.at_ms >= since_ms).order_by(LEDGER.c.seq)
        if subject is not None:
            wanted = wanted.where(LEDGER.c.subject == subject)
        if kinds:
            wanted = wanted.where(LEDGER.c.kind.in_(kinds))
        if holding:
            wanted = wanted.where(LEDGER.c.body.contains(holding, autoescape=True))
        with self.archive.reading() as connection:
            return [Row(*found) for found in connection.execute(wanted)]
