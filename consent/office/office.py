"""The consent office: the one door to voices. It grants, renews and withdraws; the front holds one.

Every method blocks (a grant for a few milliseconds): from an event loop, call it by `asyncio.to_thread`.
The stock voice has a signed record built in and needs no person's consent: its grants are not in the ledger,
and it goes on when the ledger is broken. A person's voice is granted only from a ledger that verifies.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

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
from consent.grants.revocation import Revocation, signed
from consent.grants.scope import STOCK, Scope
from consent.ledger.acts import check_act
from consent.ledger.books import Books
from consent.ledger.chain import Row
from consent.ledger.head_keeper import HeadKeeper
from consent.ledger.merkle import tree_hash
from consent.ledger.standing import Standing, VoiceStanding
from consent.ledger.timekeeper import TOLERANCE_S, Clock, Timekeeper
from consent.ledger.witness import Outside
from consent.office import stock
from consent.office.handles import Handles
from consent.office.operator_desk import acting
from consent.office.record import Record
from consent.office.registration import Registrar
from consent.office.stock import StockClip

log = structlog.get_logger("consent")

REMEMBERED: Final = 4_096
"""Grants whose voice is remembered, for their usage; older ones are found in the ledger."""
MAX_BATCH_NAME: Final = 32
SOUGHT_S: Final = 90 * 86_400.0
"""How old a grant may be whose use is noted late, after a gateway was down."""
NOBODY: Final = Outside()


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that may be asked for. `state` is `active`, or why it may not be used."""

    name: str
    voice_hash: str
    stock: bool
    state: str = "active"


@dataclass(frozen=True, slots=True)
class VoiceReference:
    """What an engine needs to speak as a voice; `pcm` float32 24 kHz, None for a stock voice without a clip.

    `consent.grants.grant.hash_voice(pcm.tobytes(), text)` is `voice_hash` wherever there is a clip.
    """

    voice: str
    voice_hash: str
    pcm: NDArray[np.float32] | None
    text: str
    stock: bool


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
        self.checks = checks
        self._grant_s = grant_s
        self._records: dict[str, Record] = {}
        self._voice_of: OrderedDict[str, str] = OrderedDict()
        """jti -> voice id; none is noted for the stock voice's"""
        self._withdrawn: dict[str, tuple[tuple[str, str], Revocation]] = {}
        """by voice hash: (reason, key) and what was signed so"""
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        """held by who notes a grant's use: each is noted once"""
        self._heart = self._stock()
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
    def stock(self) -> Voice:
        """The stock voice."""
        return self._heart

    def _stock(self) -> Voice:
        """The stock voice, by its clip's hash where there is a clip that holds."""
        try:
            clip = self._stock_clip()
        except VaultError as error:
            log.error("stock.clip_refused", error=str(error))
            clip = None
        return Voice(STOCK, stock.UNHEARD_HASH if clip is None else clip.voice_hash, stock=True)

    @property
    def has_stock_clip(self) -> bool:
        """Whether a clip of the stock voice is kept that holds."""
        return self._heart.voice_hash != stock.UNHEARD_HASH

    def _stock_clip(self) -> StockClip | None:
        with self.archive.reading() as connection:
            return stock.kept(connection, self.vault, self.keys)

    def keep_stock_clip(self, pcm: NDArray[np.float32], text: str) -> None:
        """Keeps the clip of the stock voice that the gateway rendered (float32, 24 kHz mono)."""
        with self.archive.writing() as connection:
            stock.keep(connection, self.vault, self.keys, pcm, text, self.clock())
        self._heart = self._stock()

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
            return [self._heart, *(voice for voice in self.all_voices() if voice.state == "active")]
        except ConsentError:
            return [self._heart]  # the readiness page asks each second; grants and the desk say why

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

    def record(self, voice: VoiceStanding) -> Record:
        """A voice's record, opened and verified against the ledger's rows and the acts in both.

        Raises `VaultError`, `LedgerError`.
        """
        if voice.state == "erased":
            self._records.pop(voice.record_hash, None)
            raise VaultError("the record was erased")
        known = self._records.get(voice.record_hash)
        if known is not None:
            return known
        with self.archive.reading() as connection:
            token = self.vault.get(connection, voice.voice_id, "record").decode()
        record = Record.read(token, GrantVerifier(self.keys.ever))
        if record.hash != voice.record_hash or record.voice_id != voice.voice_id:
            raise VaultError("the record is not the one that the ledger names")
        standing = self.books.standing
        record.check_acts(voice, standing.operators)
        _, proved = self.books.judged(voice)
        if proved is None or proved.record_hash != voice.record_hash or proved.state != voice.state:
            raise VaultError(
                "the ledger's rows do not make the voice what this host took it for; "
                "run: voicegate ledger verify, then remove ledger-head"
            )
        self._records[voice.record_hash] = record
        return record

    # ── grants ───────────────────────────────────────────────────────────────────────────────────────

    def grant(self, scope: Scope, *, now: float | None = None) -> VoiceGrant:
        """A grant for exactly this, noted in the ledger before it is given. Raises `GrantRefused`."""
        at = self.clock() if now is None else now
        jti = secrets.token_hex(16)
        if scope.voice == STOCK:
            self._remember(jti, "")
            return self._issue(jti, scope, self._heart.voice_hash, at, at + self._grant_s)
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
        self._remember(jti, standing.voice_id)
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
            record = self.record(standing)
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
            return self._stock_reference(voice_hash)
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

    def _stock_reference(self, voice_hash: str) -> VoiceReference:
        """The engine's own voice; with the clip that the gateway made of it for an engine that has none."""
        try:
            clip = self._stock_clip()
        except VaultError as error:
            raise GrantRefused("tampered", str(error)) from None
        if clip is None:
            return VoiceReference(STOCK, stock.UNHEARD_HASH, None, "", stock=True)
        if clip.voice_hash != voice_hash:
            raise GrantRefused("tampered", "the stock voice's clip is not the one that the grant names")
        return VoiceReference(STOCK, clip.voice_hash, clip.pcm, clip.text, stock=True)

    def sign_speech_statement(self, claims: Mapping[str, Any]) -> str:
        """A JWS that says of a call that its voice is synthetic (`consent.grants.grant.SPEECH_TYP`)."""
        dated = {**claims, "iat": self.clock()}
        return sign(dated, self.keys.signer.private, self.keys.signer.kid, SPEECH_TYP)

    # ── usage ────────────────────────────────────────────────────────────────────────────────────────

    def record_usage(self, *, jti: str, call_id: str, seconds: float, dialplan: str) -> None:
        """Notes in the ledger how long a person's voice spoke under a grant; the stock voice's is not noted.

        Once for each grant: what is told later of the same one changes nothing. Raises `LedgerError`.
        """
        with self._noting:
            voice_id = self._voice_of.get(jti)
            if voice_id is None:
                voice_id = self._search(jti)
            if not voice_id:
                return
            with self.books.writing(quiet=True) as writing:
                body = {"jti": jti, "call": call_id, "seconds": round(seconds, 2), "dialplan": dialplan}
                writing.append("voice.used", voice_id, body)
            with self._lock:
                self._voice_of.pop(jti, None)

    def _search(self, jti: str) -> str | None:
        """The voice of a grant that another process, or this one before it restarted, has given.

        None when its use is in the ledger already.
        """
        # a row's time: this clock may be wrong
        since_ms = round(min(self.clock() * 1000, self.books.tip[2]) - SOUGHT_S * 1000)
        found = self.books.rows(kinds=("voice.granted", "voice.used"), since_ms=since_ms, holding=jti)
        rows = [row for row in found if row.table["jti"] == jti]
        if any(row.kind == "voice.used" for row in rows):
            return None
        return next((row.subject for row in rows), None)

    def _remember(self, jti: str, voice_id: str) -> None:
        with self._lock:
            self._voice_of[jti] = voice_id
            if len(self._voice_of) > REMEMBERED:
                self._voice_of.popitem(last=False)

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
        again = []
        with self.books.writing() as writing:
            for voice in before.voices.values():
                now = writing.standing.voices.get(voice.voice_id)
                if now is None or voice.state == now.state or voice.state not in ("revoked", "erased"):
                    continue
                again.append(self.handles.name(writing.connection, now))
                body = {"reason": "was so before the backup was restored", "by": "office", "act": ""}
                if voice.state == "erased":
                    body["handle_mac"] = self.handles.hash_of(writing.connection, now)
                    items = [item.to_json() for item in self.vault.erase(writing.connection, voice.voice_id)]
                    body |= {"items": items, "record_hash": now.record_hash}  # type: ignore[dict-item]  # a list
                writing.append(f"voice.{voice.state}", voice.voice_id, body)
        return again

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

    # ── withdrawn voices ─────────────────────────────────────────────────────────────────────────────

    def withdrawn(self) -> list[Revocation]:
        """Every voice that may not be heard any more, signed, for `RevocationDesk`. Raises `LedgerError`."""
        standing = self.look()
        gone = [voice for voice in list(standing.voices.values()) if voice.state in ("revoked", "erased")]
        signer = self.keys.signer
        with self.archive.reading() as connection:
            for voice in gone:
                reason = "erased" if voice.state == "erased" else "revoked"
                known = self._withdrawn.get(voice.voice_hash)
                if known is None or known[0] != (reason, signer.kid):
                    handle = self.handles.name(connection, voice)
                    word = signed(handle, voice.voice_hash, reason, self.clock(), signer.private, signer.kid)
                    self._withdrawn[voice.voice_hash] = (reason, signer.kid), word
        return [self._withdrawn[voice.voice_hash][1] for voice in gone]


def _refused_by(error: ConsentError) -> GrantRefused:
    """Why the ledger gives no grant."""
    return GrantRefused("clock" if isinstance(error, ClockError) else "ledger", str(error))
