"""The ledger as one process sees it: read on from where it was, every new row verified, writes alone.

The host's checkpoint remembers the newest row this host has seen, with the standing at that row. So a start
is quick, and a database that was cut back, or replaced by an older copy, is noticed on this host before
anything is granted from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from consent.archive.keys import OfficeKeys, SigningKey, public_raw
from consent.archive.tables import Archive
from consent.errors import LedgerError
from consent.grants.grant import b64, sign
from consent.ledger.acts import FORM
from consent.ledger.chain import (
    GENESIS,
    HEAD_TYP,
    KEY_KINDS,
    MAY_GO_BACK,
    Head,
    Proof,
    Row,
    rows_from,
    verify,
)
from consent.ledger.host_checkpoint import HostCheckpoint
from consent.ledger.row_reader import RowReader
from consent.ledger.rulings import introduced, take
from consent.ledger.standing import QUIET, Standing
from consent.ledger.timekeeper import TOLERANCE_S, Timekeeper
from consent.ledger.writing import Writing

CHECKPOINT_EVERY: Final = 1_000

log = structlog.get_logger("consent")


class Books:
    """Safe to use from several threads; several processes and hosts may have the same ledger open."""

    def __init__(self, archive: Archive, keys: OfficeKeys, clock: Timekeeper | None = None) -> None:
        self.archive = archive
        self.keys = keys
        self.clock = Timekeeper.of_host(archive) if clock is None else clock
        self.standing = Standing()
        self.tip: tuple[int, str, int] = (0, GENESIS, 0)
        """number, hash and time (ms) of the newest row seen"""
        self.loud = 0
        """number of the newest row seen that changes something of the standing"""
        self.wrote_loud = False
        """whether such a row was written here"""
        self._checkpoint = HostCheckpoint(archive, keys)
        self._ledger_id = ""
        self._lock = threading.RLock()
        self._saved = 0
        self._seen: Head | None = None
        """the head that an older version kept, until the rows up to it are judged"""
        self._unjudged: Standing | None = None
        """what that version knew: it may say more of what was withdrawn than a restored ledger does"""
        self._load_checkpoint()

    def begin(self) -> None:
        """Catches up; the first row of a new ledger is written. Raises `LedgerError`."""
        with self._lock:
            with self.archive.reading() as connection:
                self._refresh(connection)
            if self.standing.form >= FORM:
                return
            with self.writing() as writing:
                if self.tip[0] == 0:
                    body = {**self.introduction(self.keys.signer), "acts": FORM}
                    writing.append("ledger.opened", None, body)
                elif writing.standing.form < FORM:
                    writing.append("ledger.acts", None, {"acts": FORM})

    @property
    def identity(self) -> str:
        """The hash of the ledger's first row; empty while there is none."""
        if not self.standing.office:
            return self.reader.hash_of(1) or ""
        return self.standing.office

    def introduction(self, key: SigningKey) -> dict[str, str]:
        """A signing key as rows introduce it."""
        return {"kid": key.kid, "public": b64(public_raw(key.private.public_key()))}

    @property
    def reader(self) -> RowReader:
        """Reads rows, and checks them by what this process knows now."""
        return RowReader(self.archive, self.keys, self.standing)

    # ── reading and writing ──────────────────────────────────────────────────────────────────────────

    def look(self) -> Standing:
        """The standing as of now. Raises `LedgerError`."""
        with self._lock, self.archive.reading() as connection:
            self._refresh(connection)
            return self.standing

    def now(self, *, behind_s: float = TOLERANCE_S) -> float:
        """The time, by a clock that may be believed, at most `behind_s` behind the newest row seen.

        Raises `ClockError`.
        """
        return self.clock.believe(self.tip[2], behind_s=behind_s, unproven=not self.standing.voices)

    @contextmanager
    def writing(self, *, quiet: bool = False) -> Iterator[Writing]:
        """One transaction over ledger, vault and challenges, alone among all writers.

        `quiet` is as `Archive.writing` has it. Raises `LedgerError`.
        """
        with self._lock:
            with self.archive.writing(quiet=quiet) as connection:
                self._refresh(connection)
                writing = Writing(connection, self.standing, self.tip, self.keys, self.clock)
                yield writing
            for row in writing.rows:
                self._take(row)
            loud = any(row.kind not in QUIET for row in writing.rows)
            self.wrote_loud |= loud
            if loud or self.tip[0] - self._saved >= CHECKPOINT_EVERY:
                self.save_checkpoint()

    def _refresh(self, connection: Connection) -> None:
        """Catches up.

        When the ledger is not the one seen, because another process of this host resumed a restored one, it
        starts anew from what that process left; anything else is an error.
        """
        try:
            self._catch_up(connection)
            self._refuse_forgotten()
        except LedgerError:
            before = self.standing, self.tip, self._saved, self._seen
            try:
                self._load_checkpoint()
                self._catch_up(connection)
                self._refuse_forgotten()
                resumed = self.standing.resumes > before[0].resumes
            except LedgerError:
                resumed = False
            if not resumed:
                self.standing, self.tip, self._saved, self._seen = before
                self._heed()
                raise

    def _refuse_forgotten(self) -> None:
        """Raises `LedgerError` for a ledger from before this host learned that a key was revoked."""
        if self.tip[0] and (gone := self.keys.revoked.keys() - self.standing.stolen.keys()):
            raise LedgerError(
                f"the key {min(gone)} was revoked, and the ledger does not say so: it was cut back; "
                "after restoring a backup run: voicegate ledger resume"
            )

    def _catch_up(self, connection: Connection) -> None:
        seq = self.tip[0]
        seen = self._seen or Head(*self.tip)
        last: Row | None = None
        for row in rows_from(connection, max(seq, 1)):
            if row.seq == seen.seq and row.hash != seen.hash:
                raise LedgerError(f"ledger row {row.seq} is not the one this host has seen: it was replaced")
            if row.seq == seq:
                last = row
                continue
            fault = row.fault(last)
            if fault is None and row.kid in self.standing.stolen:
                fault = f"it is signed with the key {row.kid}, which was revoked before it"
            if (
                fault is None and row.kind not in QUIET
            ):  # each of these by itself, the quiet ones by the newest
                if row.signed_by({**self.reader.trusted, **introduced(self.standing, row)}):
                    self._take(row)
                else:
                    fault = "its signature fails"
            if fault is not None:
                raise LedgerError(f"ledger row {row.seq} is bad: {fault}; run: voicegate ledger verify")
            last = row
        if seen.seq and (last is None or last.seq < seen.seq):
            raise LedgerError(
                f"the ledger ends before row {seen.seq}, which this host has seen: it was cut back; "
                "after restoring a backup run: voicegate ledger resume"
            )
        if last is not None and last.seq > self.tip[0]:
            if not last.signed_by(self.reader.trusted):
                raise LedgerError(f"ledger row {last.seq} is bad: its signature fails")
            self._take(last)
        self._seen = None

    def _take(self, row: Row) -> None:
        if row.kind not in QUIET:
            self.loud = row.seq
            if (void := take(self.standing, row)) is not None:
                log.error("ledger.row_is_void", row=row.seq, kind=row.kind, why=void)
                if row.kind in MAY_GO_BACK and row.at_ms < self.tip[2]:
                    raise LedgerError(f"ledger row {row.seq} is bad: it takes the time back, and {void}")
            if row.kind in KEY_KINDS:
                self._heed()
            if row.kind in MAY_GO_BACK:
                self.clock.told(row.at_ms)
        self.tip = (row.seq, row.hash, row.at_ms)

    def _heed(self) -> None:
        """Tells the keys what the ledger says of them."""
        signers, stolen = self.standing.signers, self.standing.stolen
        if signers.keys() - stolen.keys() - self.keys.public.keys():
            self.keys.reload()  # another process may have rotated
        self.keys.heed(signers, {kid: signers[kid] for kid in stolen if kid in signers})

    # ── the checkpoint ───────────────────────────────────────────────────────────────────────────────

    def _load_checkpoint(self) -> None:
        kept = self._checkpoint.read()
        if kept is None:
            return
        if not kept.judged:
            self._seen, self._unjudged = kept.head, kept.standing
            return
        self.standing = kept.standing
        self.tip = (kept.head.seq, kept.head.hash, kept.head.at_ms)
        try:
            self._heed()
        except (KeyError, TypeError, OSError, ValueError, AttributeError):
            raise self._checkpoint.foreign() from None
        self._saved = self.tip[0]

    def save_checkpoint(self) -> None:
        """Signs and keeps where this host is; never goes back behind another process of this host."""
        with self._lock:
            if self._checkpoint.keep(Head(*self.tip), self.standing, self.clock()):
                self._saved = self.tip[0]

    def resume_terms(self) -> dict[str, Any]:
        """What an auditor's act binds to go on with the ledger as the database has it.

        That is: the head it accepts, the head that this host leaves, the key that signs from now on, and the
        keys that were revoked. Raises `LedgerError` when what is there does not verify by itself.
        """
        with self._lock:
            proof = self.prove(heads=[], revoked=())
            if not proof.ok or proof.head is None or not self.keys.signers:
                why = proof.fault or "it has no row, or this host no signing key"
                raise LedgerError(f"ledger row {proof.bad or 1} is bad: {why}")
            gone = dict.fromkeys(self.keys.revoked, 0) | self.standing.stolen
            leaves = self._seen.hash if self._seen is not None else self.tip[1]
            signer = self.introduction(self.keys.signers[-1])
            return {"accepts": proof.head.hash, "leaves": leaves, "stolen": gone, **signer}

    def resume(self, sign_off: Callable[[Standing], Mapping[str, Any]]) -> Standing:
        """Goes on with the ledger as the database has it, after a restored backup, and says so in a row.

        `sign_off` makes the row's body from the restored standing. Returns what this host knew before.

        Raises `LedgerError` when what is there does not verify by itself, and what `sign_off` raises.
        """
        with self._lock:
            terms = self.resume_terms()
            before = self.standing, self.tip, self._saved, self._seen
            knew = self._unjudged or self.standing
            self.standing, self.tip, self._saved, self._seen = Standing(), (0, GENESIS, 0), 0, None
            try:
                with self.archive.writing() as connection:
                    self._catch_up(connection)
                    writing = Writing(connection, self.standing, self.tip, self.keys, self.clock)
                    body = {**sign_off(self.standing), "seen_before": before[1][0], "left": terms["leaves"]}
                    body |= {key: terms[key] for key in ("kid", "public", "stolen")}
                    writing.append("ledger.resumed", None, body, signer=self.keys.signers[-1])
                    if self.standing.form < FORM:
                        writing.append("ledger.acts", None, {"acts": FORM}, signer=self.keys.signers[-1])
            except BaseException:
                self.standing, self.tip, self._saved, self._seen = before
                self._heed()
                raise
            for row in writing.rows:
                self._take(row)
            self._unjudged = None
            self._checkpoint.forget()
            self.save_checkpoint()
            return knew

    # ── proofs ───────────────────────────────────────────────────────────────────────────────────────

    def head(self) -> str:
        """The signed head, for keeping elsewhere.

        It names the ledger, and has the rows that put the signer's key in force, for who knows older ones.
        """
        self.look()
        signer = self.keys.signer
        rotations = self.reader.rows(kinds=("key.rotated",)) if len(self.standing.signers) > 1 else []
        claims = {
            **Head(*self.tip).to_claims(self.clock()),
            "ledger": self.ledger_id,
            "rotations": [row.to_json() for row in rotations],
        }
        return sign(claims, signer.private, signer.kid, HEAD_TYP)

    @property
    def ledger_id(self) -> str:
        """The hash of the ledger's first row, by which witnesses know it. Raises `LedgerError`."""
        if not self._ledger_id:
            self._ledger_id = self.reader.hash_of(1) or GENESIS
        return self._ledger_id

    @property
    def seen(self) -> list[Head]:
        """The heads that this host has seen."""
        kept, seen = self._checkpoint.head, Head(*self.tip)
        return [head for head in (kept, seen) if head is not None and head.seq]

    def prove(
        self,
        heads: list[Head] | None = None,
        keys: Mapping[str, Ed25519PublicKey] | None = None,
        revoked: Collection[str] | None = None,
    ) -> Proof:
        """Verifies the whole ledger against what this host has seen (or `heads`) and its keys (or `keys`).

        `revoked` are the keys of which it must say that they were revoked: by default those that this host
        knows.
        """
        if heads is None:
            heads = self.seen
        with self.archive.reading() as connection:
            gone = self.keys.revoked if revoked is None else revoked
            return verify(rows_from(connection, 1), keys or self.keys.ever, heads, gone)
