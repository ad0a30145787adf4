"""The ledger as one process sees it: read on from where it was, every new row verified, writes alone.

The signed checkpoint beside the keys (`ledger-head`) remembers number and hash of the newest row this host
has seen, with the standing at that row. So a start is quick, and a database that was cut back, or replaced by
an older copy, is noticed on this host before anything is granted from it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from consent.archive.keys import OfficeKeys, SigningKey, public_raw, read_public, write_private
from consent.archive.tables import LEDGER, Archive
from consent.errors import ClockError, GrantRefused, LedgerError, OperatorError
from consent.grants.grant import GrantVerifier, b64, sign, unb64
from consent.ledger.acts import FORM
from consent.ledger.chain import (
    GENESIS,
    HEAD_TYP,
    KEY_KINDS,
    MAY_GO_BACK,
    RESET,
    Head,
    Proof,
    Row,
    head_of,
    put,
    rows_from,
    verify,
)
from consent.ledger.rulings import HOUSE_KINDS, VOID, introduced, judge, replay, take
from consent.ledger.standing import QUIET, Standing, VoiceStanding
from consent.ledger.timekeeper import TAKEN_ANYWAY, TOLERANCE_S, Timekeeper

CHECKPOINT: Final = "ledger-head"
CHECKPOINT_TYP: Final = "ledger-checkpoint+jws"
CHECKPOINT_EVERY: Final = 1_000

log = structlog.get_logger("consent")


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
        """Adds a row; it stands when the transaction does.

        Raises `OperatorError` for one that is void, `ClockError` when this clock may not be believed, except
        for rows of `TAKEN_ANYWAY`.
        """
        seq, prev, newest_ms = self._newest
        return self._put(seq + 1, self._time_of(kind, newest_ms), kind, subject, body, prev, signer)

    def _time_of(self, kind: str, newest_ms: int) -> int:
        clock = self._books.clock
        if kind in MAY_GO_BACK:
            return round(clock.uncontradicted() * 1000)
        lonely = kind == "operator.added" and not self.standing.has_auditor  # who could say the time?
        try:
            now = clock.believe(newest_ms, unproven=lonely or not self.standing.voices)
        except ClockError:
            if kind not in TAKEN_ANYWAY:
                raise
            return newest_ms
        return max(newest_ms, round(now * 1000))

    def set_clock(self, at_ms: int, body: Mapping[str, Any]) -> Row:
        """Adds the row by which an auditor says what the time is: the line begins anew there."""
        seq, prev, _ = self._newest
        return self._put(seq + 1, at_ms, RESET, None, body, prev, None)

    def now(self, *, behind_s: float = TOLERANCE_S) -> float:
        """The time, for what this transaction decides by it. Raises `ClockError`."""
        return self._books.now(behind_s=behind_s)

    @property
    def _newest(self) -> tuple[int, str, int]:
        if not self._rows:
            return self._books.tip
        return self._rows[-1].seq, self._rows[-1].hash, self._rows[-1].at_ms

    def _put(
        self, seq: int, at_ms: int, kind: str, subject: str | None, body: Mapping[str, Any], prev: str,
        signer: SigningKey | None,
    ) -> Row:  # fmt: skip
        if signer is None:
            signer = self._books.keys.signer
            if self.standing.signers and signer.kid not in self.standing.signers:
                raise LedgerError(
                    "this host has no signing key in force; copy office-keys.json from the host that rotated"
                )
        row = Row.make(seq, at_ms, kind, subject, body, prev, signer)
        if kind not in QUIET and (fault := judge(self.standing, row)) is not None:
            raise OperatorError(fault.removeprefix(VOID))
        put(self.connection, row)
        self._rows.append(row)
        return row


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
            with self.archive.reading() as connection:
                return str(connection.execute(select(LEDGER.c.hash).where(LEDGER.c.seq == 1)).scalar() or "")
        return self.standing.office

    def introduction(self, key: SigningKey) -> dict[str, str]:
        """A signing key as rows introduce it."""
        return {"kid": key.kid, "public": b64(public_raw(key.private.public_key()))}

    @property
    def _trusted(self) -> dict[str, Ed25519PublicKey]:
        known = {kid: read_public(raw) for kid, raw in self.standing.signers.items()} | dict(self.keys.ever)
        return {kid: key for kid, key in known.items() if kid not in self.standing.stolen}

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
                writing = Writing(connection, self.standing, self)
                yield writing
            for row in writing._rows:
                self._take(row)
            loud = any(row.kind not in QUIET for row in writing._rows)
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
                if row.signed_by({**self._trusted, **introduced(self.standing, row)}):
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
            if not last.signed_by(self._trusted):
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

    def _verifier(self) -> GrantVerifier:
        return GrantVerifier(self.keys.public)

    def _load_checkpoint(self) -> None:
        path = self.keys.directory / CHECKPOINT
        if not path.exists():
            return
        try:
            text = path.read_text()
            if json.loads(unb64(text.split(".")[0]))["kid"] in self.keys.revoked:
                log.warning(
                    "ledger.head_by_a_revoked_key", path=str(path)
                )  # it says nothing: read from row 1
                return
            claims = self._verifier().claims(text, CHECKPOINT_TYP)
            if claims.get("form") != FORM:  # an older version's: its standing is of rows that nobody judged
                self._seen, self._unjudged = head_of(claims), Standing.from_json(claims["standing"])
                return
            self.standing = Standing.from_json(claims["standing"])
            self.tip = (int(claims["seq"]), str(claims["hash"]), int(claims["at_ms"]))
            self._heed()
        except (GrantRefused, KeyError, TypeError, OSError, ValueError, AttributeError):
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
            claims = {**self._head_claims(), "form": FORM, "standing": self.standing.to_json()}
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
                    writing = Writing(connection, self.standing, self)
                    body = {**sign_off(self.standing), "seen_before": before[1][0], "left": terms["leaves"]}
                    body |= {key: terms[key] for key in ("kid", "public", "stolen")}
                    writing.append("ledger.resumed", None, body, signer=self.keys.signers[-1])
                    if self.standing.form < FORM:
                        writing.append("ledger.acts", None, {"acts": FORM}, signer=self.keys.signers[-1])
            except BaseException:
                self.standing, self.tip, self._saved, self._seen = before
                self._heed()
                raise
            for row in writing._rows:
                self._take(row)
            self._unjudged = None
            (self.keys.directory / CHECKPOINT).unlink(missing_ok=True)
            self.save_checkpoint()
            return knew

    # ── proofs ───────────────────────────────────────────────────────────────────────────────────────

    def head(self) -> str:
        """The signed head, for keeping elsewhere.

        It names the ledger, and has the rows that put the signer's key in force, for who knows older ones.
        """
        self.look()
        signer = self.keys.signer
        rotations = self.rows(kinds=("key.rotated",)) if len(self.standing.signers) > 1 else []
        claims = {
            **self._head_claims(),
            "ledger": self.ledger_id,
            "rotations": [row.to_json() for row in rotations],
        }
        return sign(claims, signer.private, signer.kid, HEAD_TYP)

    @property
    def ledger_id(self) -> str:
        """The hash of the ledger's first row, by which witnesses know it. Raises `LedgerError`."""
        if not self._ledger_id:
            self._ledger_id = self.hash_of(1) or GENESIS
        return self._ledger_id

    def hash_of(self, seq: int) -> str | None:
        """A row's hash as the database has it; None when there is no such row. Raises `LedgerError`."""
        with self.archive.reading() as connection:
            found = connection.execute(select(LEDGER.c.hash).where(LEDGER.c.seq == seq)).scalar()
        return None if found is None else str(found)

    @property
    def seen(self) -> list[Head]:
        """The heads that this host has seen."""
        kept, seen = self._kept_head(), Head(*self.tip)
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

        Of those behind row number `after` the first `most`, where it is given. Each is checked by its hash
        and signature; that none is missing, only `prove` says. `proved` spares the check: the whole ledger
        was just proved, or the rows shall be seen as they are. Raises `LedgerError` naming a row that was
        edited.
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
        with self.archive.reading() as connection:
            found = [Row(*row) for row in connection.execute(wanted)]
            if not proved:
                self._check(connection, found)
        return found

    def _check(self, connection: Connection, rows: list[Row]) -> None:
        """Raises `LedgerError` naming the first of these rows that was edited.

        What a stolen key signed counts where the chain holds it, before the row that revoked the key.
        """
        trusted = self._trusted
        for row in rows:
            stolen = row.kid in self.standing.stolen
            keys = self.keys.ever if stolen else trusted
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
