"""The consent office: the one door to voices. It grants, renews and withdraws; the front holds one.

Every method blocks (a grant for a few milliseconds): from an event loop, call it by `asyncio.to_thread`.
The stock voice has a signed record built in and needs no person's consent: its grants are not in the ledger,
and it goes on when the ledger is broken. A person's voice is granted only from a ledger that verifies.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import structlog

from consent.archive.keys import OfficeKeys
from consent.archive.tables import Archive
from consent.archive.vault import Vault
from consent.checks.checklist import Checks
from consent.checks.sound import from_pcm16
from consent.errors import ClockError, ConsentError, GrantRefused, LedgerError, OperatorError, VaultError
from consent.grants.grant import (
    ISSUER,
    LEEWAY_S,
    SPEECH_TYP,
    GrantVerifier,
    VoiceGrant,
    hash_voice,
    sign,
)
from consent.grants.revocation import Revocation
from consent.grants.scope import STOCK, Scope
from consent.ledger.acts import check_act
from consent.ledger.books import Books
from consent.ledger.chain import Row
from consent.ledger.head_keeper import HeadKeeper
from consent.ledger.merkle import tree_hash
from consent.ledger.standing import Standing, VoiceStanding
from consent.ledger.timekeeper import TOLERANCE_S, Clock, Timekeeper
from consent.ledger.witness import Outside
from consent.office.handles import Handles
from consent.office.operator_desk import acting
from consent.office.record import Record
from consent.office.record_shelf import RecordShelf
from consent.office.registration import Registrar
from consent.office.review import ReviewDesk
from consent.office.signed_revocations import SignedRevocations
from consent.office.stock import StockVoice
from consent.office.usage_notes import UsageNotes
from consent.office.voice import Voice, VoiceReference
from consent.office.withdrawal import Withdrawals

log = structlog.get_logger("consent")

MAX_BATCH_NAME: Final = 32
NOBODY: Final = Outside()


class ConsentOffice:
    """Issues grants against the ledger."""

    def __init__(
        self, archive: Archive, keys: OfficeKeys, *, grant_s: float, checks: Checks, clock: Timekeeper,
        outside: Outside,
    ) -> None:  # fmt: skip
        self.archive = archive
        self.keys = keys
        self.clock = clock
        self.books = Books(archive, keys, clock)
        self.heads = HeadKeeper.of_house(self.books, outside)
        self.vault = Vault(keys)
        self.handles = Handles(self.vault)
        self.registrar = Registrar(self.books, self.vault, checks)
        self.reviews = ReviewDesk(self.books, self.vault)
        self.checks = checks
        self.stock = StockVoice(archive, self.vault, clock)
        self.records = RecordShelf(self.books, self.vault)
        self.usage = UsageNotes(self.books, clock)
        self._revocations = SignedRevocations(archive, keys, self.handles, clock)
        self._grant_s = grant_s
        self._broken = ""
        try:
            self.books.begin()
        except LedgerError as error:
            self._broken = str(error)
            log.error("ledger.broken", error=self._broken)

    @classmethod
    def open(
        cls, sql_url: str, directory: Path, *, grant_s: float = 60.0, checks: Checks | None = None,
        clock: Timekeeper | Clock | None = None, outside: Outside = NOBODY,
    ) -> Self:  # fmt: skip
        """Opens (or makes) keys, tables and ledger.

        A bare `clock` takes the place of this machine's. A ledger that does not verify refuses persons'
        voices, not the house. Raises `VaultError`, `LedgerError` when keys or database cannot be used at all.
        """
        keys = OfficeKeys.open(directory)
        archive = Archive.open(sql_url)
        if not isinstance(clock, Timekeeper):
            clock = Timekeeper.of_host(archive, outside.redis_url, clock)
        return cls(
            archive, keys, grant_s=grant_s, checks=checks if checks is not None else Checks(), clock=clock,
            outside=outside,
        )  # fmt: skip

    @property
    def public_keys_path(self) -> Path:
        """The file that holds the public keys."""
        return self.keys.public_path

    @property
    def identity(self) -> str:
        """By what operators' acts name this office: the hash of its ledger's first row."""
        return self.books.identity

    @property
    def verifier(self) -> GrantVerifier:
        """Verifies with all of the office's keys."""
        return GrantVerifier(self.keys.public)

    def close(self) -> None:
        """Signs where the ledger stands, and closes the database."""
        if not self._broken and self.books.tip[0]:
            self.books.save_checkpoint()
            with contextlib.suppress(LedgerError):
                self.heads.close()
        self.archive.close()

    def hear_with(self, checks: Checks) -> None:
        """Registrations from now on are checked with these instruments."""
        self.checks = checks
        self.registrar.hear_with(checks)

    def look(self) -> Standing:
        """The standing as of now. Raises `LedgerError` while the ledger does not verify."""
        self._refuse_broken()
        return self.books.look()

    # ── voices ───────────────────────────────────────────────────────────────────────────────────────

    def voices(self) -> list[Voice]:
        """The stock voice, then persons' voices that may be used now."""
        try:
            self.heads.refuse()
            return [self.stock.voice, *(voice for voice in self.all_voices() if voice.state == "active")]
        except ConsentError:
            return [self.stock.voice]  # the readiness page asks each second; grants and the desk say why

    def all_voices(self) -> list[Voice]:
        """Persons' voices in any state by their signed names, the newest of each. Raises `LedgerError`.

        One that the table of names calls otherwise is `tampered`: nothing is done by its name.
        """
        standing = self.look()
        newest: dict[str, Voice] = {}
        with self.archive.reading() as connection:
            names = self.handles.names(connection, standing)
        for voice in list(standing.voices.values()):
            handle, same = names.get(voice.voice_id, ("", False))
            state = voice.state if same else "tampered"
            known = newest.get(handle)
            if handle and (known is None or known.state not in ("pending", "active") or state != "tampered"):
                newest[handle] = Voice(handle, voice.voice_hash, stock=False, state=state)
        return [newest[name] for name in sorted(newest)]

    def standing_of(self, handle: str) -> VoiceStanding | None:
        """Where the voice of that name stands. Raises `LedgerError`, `VaultError` (see `Handles.find`)."""
        standing = self.look()
        with self.archive.reading() as connection:
            return self.handles.find(connection, standing, handle)

    # ── grants ───────────────────────────────────────────────────────────────────────────────────────

    def grant(self, scope: Scope, *, now: float | None = None) -> VoiceGrant:
        """A grant for exactly this, noted in the ledger before it is given. Raises `GrantRefused`."""
        at = self.clock() if now is None else now
        jti = secrets.token_hex(16)
        if scope.voice == STOCK:
            self.usage.remember(jti, "")
            return self._issue(jti, scope, self.stock.voice.voice_hash, at, at + self._grant_s)
        try:
            self._refuse_broken()
            self.heads.refuse()
            with self.books.writing(quiet=True) as writing:
                try:
                    known = self.handles.find(writing.connection, writing.standing, scope.voice)
                except VaultError as error:
                    raise GrantRefused("tampered", str(error)) from None
                standing, record = self._allowed(known, scope, at)
                expires_at = min(at + self._grant_s, record.expires_at)
                body = {
                    "purpose": scope.purpose, "dialplan": scope.dialplan, "language": scope.language,
                    "jti": jti, "call": scope.call_id, "record_hash": standing.record_hash,
                    "voice_hash": standing.voice_hash, "exp": expires_at,
                }  # fmt: skip
                writing.append("voice.granted", standing.voice_id, body)
        except (LedgerError, VaultError) as error:
            log.error("ledger.broken", error=str(error))
            raise _refused_by(error) from None
        self.usage.remember(jti, standing.voice_id)
        return self._issue(jti, scope, standing.voice_hash, at, expires_at)

    def renew(self, grant: VoiceGrant) -> VoiceGrant:
        """The same grant, from now on, if the voice may still be used so. Raises `GrantRefused`."""
        at = self.clock()
        expires_at = at + self._grant_s
        if grant.voice != STOCK:
            try:
                known = self._by_hash(grant.voice_hash)
                _, record = self._allowed(known, grant.scope, at)
            except LedgerError as error:
                raise _refused_by(error) from None
            expires_at = min(expires_at, record.expires_at)
        return self._issue(grant.jti, grant.scope, grant.voice_hash, at, expires_at)

    def _allowed(
        self, standing: VoiceStanding | None, scope: Scope, at: float
    ) -> tuple[VoiceStanding, Record]:
        """A voice that may be used so, and the record under which it may.

        Raises `GrantRefused`, for no voice too, and `LedgerError` (`ClockError`: this clock is wrong).
        """
        voice = scope.voice
        self.books.now(behind_s=LEEWAY_S)
        if standing is None:
            raise GrantRefused("unknown", f"no voice is called {voice!r}")
        match standing.state:
            case "pending" if standing.alone:
                raise GrantRefused(
                    "pending",
                    f"the voice {voice} was put in force by checks alone, by an older version; it waits for "
                    f"review now, as every voice does: voicegate voice review {voice} --help",
                )
            case "pending":
                raise GrantRefused("pending", f"the voice {voice} waits for review")
            case "rejected":
                raise GrantRefused("unknown", f"the voice {voice} was rejected at its review")
            case "revoked":
                raise GrantRefused("revoked", f"the voice {voice} was revoked")
            case "erased":
                raise GrantRefused("erased", f"the voice {voice} was erased")
        try:
            record = self.records.open(standing)
        except VaultError as error:
            raise GrantRefused("tampered", f"the voice {voice}: {error}") from None
        if record.handle != voice:
            raise GrantRefused("tampered", f"the record behind {voice} is another voice's")
        record.refuse(scope, now=at)
        return standing, record

    def _by_hash(self, voice_hash: str) -> VoiceStanding | None:
        """Raises `LedgerError`."""
        self._refuse_broken()
        self.heads.refuse()
        voices = list(self.books.look().voices.values())
        return next((voice for voice in voices if voice.voice_hash == voice_hash), None)

    def _refuse_broken(self) -> None:
        """Raises `LedgerError` while the ledger is what it was when this office could not begin with it."""
        if self._broken:
            self.books.begin()
            self._broken = ""

    def _issue(self, jti: str, scope: Scope, voice_hash: str, at: float, expires_at: float) -> VoiceGrant:
        claims: dict[str, Any] = {
            "iss": ISSUER, "jti": jti, "sub": scope.voice, "vh": voice_hash, "pur": scope.purpose,
            "dp": scope.dialplan, "lang": scope.language, "call": scope.call_id, "iat": at, "exp": expires_at,
        }  # fmt: skip
        try:
            signer = self.keys.signer
        except VaultError as error:
            raise GrantRefused("unknown_key", str(error)) from None
        token = sign(claims, signer.private, signer.kid)
        return self.verifier.verify(token, now=at)

    # ── the engine's side ────────────────────────────────────────────────────────────────────────────

    def reference(self, token: str, voice_hash: str) -> VoiceReference:
        """The voice of a valid grant, by hash. Raises `GrantRefused`."""
        grant = self.verifier.verify(token, now=self.clock())
        if grant.voice_hash != voice_hash:
            raise GrantRefused("other_call", "the grant is for another voice")
        if grant.voice == STOCK:
            return self.stock.reference(voice_hash)
        try:
            standing, _ = self._allowed(self._by_hash(voice_hash), grant.scope, self.clock())
            with self.archive.reading() as connection:
                pcm = from_pcm16(self.vault.get(connection, standing.voice_id, "reference"))
                text = self.vault.get(connection, standing.voice_id, "text").decode()
        except LedgerError as error:
            raise _refused_by(error) from None
        except VaultError as error:
            raise GrantRefused("tampered", f"the voice {grant.voice}: {error}") from None
        if hash_voice(pcm.tobytes(), text) != voice_hash:
            raise GrantRefused("tampered", f"the reference of {grant.voice} is not the one consented to")
        return VoiceReference(grant.voice, voice_hash, pcm, text, stock=False)

    def sign_speech_statement(self, claims: Mapping[str, Any]) -> str:
        """A JWS that says of a call that its voice is synthetic (`consent.grants.grant.SPEECH_TYP`)."""
        dated = {**claims, "iat": self.clock()}
        return sign(dated, self.keys.signer.private, self.keys.signer.kid, SPEECH_TYP)

    # ── the ledger ───────────────────────────────────────────────────────────────────────────────────────

    def resume_ledger(self, reason: str, act: str) -> list[str]:
        """Accepts the ledger as it is, after a restored backup.

        What this host knows to have been withdrawn since is withdrawn again. Returns the names of those
        voices. The act binds `resume_terms`. Raises `OperatorError`, `LedgerError`.
        """
        lost = [head["hash"] for head in self.heads.given_up()]

        def sign_off(restored: Standing) -> dict[str, Any]:
            operator, claims = check_act(restored, act, "resume", self.clock())
            if claims.get("given_up", []) != lost:
                raise OperatorError(f"{operator.name} did not sign what witnesses have seen; sign again")
            body = {"reason": reason[:500], "by": operator.name, "act": act}
            return {**body, "given_up": lost} if lost else body

        before = self.books.resume(sign_off)
        self._broken = ""
        return Withdrawals(self.books, self.vault).repeat(before)

    def resume_terms(self, lost: list[dict[str, Any]]) -> dict[str, Any]:
        """What an auditor's act binds to resume: `Books.resume_terms`, and what of `heads.given_up` is lost.

        Raises `LedgerError`.
        """
        terms = self.books.resume_terms()
        return {**terms, "given_up": [head["hash"] for head in lost]} if lost else terms

    def set_clock(self, reason: str, act: str) -> Row:
        """Believes this machine's clock, by an auditor's act that says the same time, and notes it in a row.

        The line of rows begins anew there, also where the newest row's time is later. The act signs `time_ms`
        and `after` (the newest row's hash). Raises `OperatorError`, and `ClockError` while another clock
        contradicts.
        """
        now = self.clock.uncontradicted()
        with acting(self.books, act, "clock") as (writing, operator, claims):
            at_ms = claims.get("time_ms")
            if not isinstance(at_ms, int) or abs(now - at_ms / 1000) > TOLERANCE_S:
                raise OperatorError(f"{operator.name} signed another time than this machine's clock says")
            row = writing.set_clock(at_ms, {"reason": reason[:500], "by": operator.name, "act": act})
        self._broken = ""
        return row

    # ── the registry of calls ────────────────────────────────────────────────────────────────────────

    def seal_calls(self, batch: str, leaves: Sequence[str]) -> int:
        """Seals rows of the gateway's registry: a ledger row with the Merkle root over their leaves.

        `leaves` are `consent.ledger.call_leaf.call_leaf`s in order, `batch` the name under which the registry
        keeps them. Returns the row's number. A batch may be sealed again, after a death in between: both rows
        say the same. Raises `LedgerError`, and `ValueError` for what is not a batch.
        """
        if not leaves or not batch.isalnum() or len(batch) > MAX_BATCH_NAME:
            raise ValueError(f"batch {batch!r} of {len(leaves)} calls is not one")
        root = tree_hash(leaves)
        self._refuse_broken()
        with self.books.writing(quiet=True) as writing:
            body = {"batch": batch, "leaves": len(leaves), "root": root}
            return writing.append("registry.sealed", None, body).seq

    # ── usage, and withdrawn voices ──────────────────────────────────────────────────────────────────────

    def record_usage(self, *, jti: str, call_id: str, seconds: float, dialplan: str) -> None:
        """Notes in the ledger how long a person's voice spoke under a grant (see `UsageNotes.note`)."""
        self.usage.note(jti=jti, call_id=call_id, seconds=seconds, dialplan=dialplan)

    def withdrawn(self) -> list[Revocation]:
        """Every voice that may not be heard any more, signed, for `RevocationDesk`. Raises `LedgerError`."""
        return self._revocations.of(self.look())


def _refused_by(error: ConsentError) -> GrantRefused:
    """Why the ledger gives no grant."""
    return GrantRefused("clock" if isinstance(error, ClockError) else "ledger", str(error))
