"""Registering a voice: challenge, checks, and one transaction that keeps it all or nothing.

What a registration keeps (sealed): the references joined to one clip, the statement, the record, voiceprints
for as long as `VOICEPRINT_S`, the PIN's hash; for the house: fingerprints of the recordings. What it leaves
in the ledger: hashes, verdicts, who did it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from consent.archive.vault import HOUSE, Vault
from consent.checks.checklist import Checks, Earlier, Finding, Material, Outcome
from consent.checks.sound import pcm16
from consent.errors import ChallengeError, OperatorError, RegistrationError, VaultError
from consent.grants.grant import LEEWAY_S, GrantVerifier
from consent.ledger.acts import check_act, digest, read_act
from consent.ledger.books import Books
from consent.ledger.standing import GATEWAY, Standing
from consent.ledger.writing import Writing
from consent.office import pin as pins
from consent.office import record as records
from consent.office.handles import Handles
from consent.office.operator_desk import acting
from consent.office.prints import keep_print, read_prints, take_stock
from consent.office.record import join
from consent.office.submission import Submission
from consent.statements import challenge as challenges
from consent.statements.challenge import Challenge
from consent.statements.statement import Terms

VOICEPRINT_S: Final = 30 * 24 * 3600.0
"""Voiceprints are deleted so long after a registration, with a receipt in the ledger."""


@dataclass(frozen=True)
class Draft:
    """A registration whose checks are done, and that nobody has confirmed yet. Nothing of it is kept."""

    submission: Submission
    challenge: Challenge
    outcome: Outcome
    registrar: str
    act: str | None
    now: float
    claims: Mapping[str, Any]
    """what the record will say"""

    @property
    def found(self) -> dict[str, Any]:
        """What its registrar confirms: the record as it will be written, and the findings in it."""
        return {
            "voice_id": self.claims["jti"],
            "voice_hash": self.claims["voice_hash"],
            "challenge": self.challenge.challenge_id,
            "record": records.digest_of(self.claims),
            "findings": digest(self.claims["checks"]),
            "checks": {finding.check: finding.verdict for finding in self.outcome.findings},
        }


@dataclass(frozen=True, slots=True)
class Registered:
    """A voice that was taken, and that another operator must hear: `state` is `pending`."""

    voice_id: str
    handle: str
    state: str
    findings: tuple[Finding, ...]


class Registrar:
    """Takes registrations. Blocking: seconds of listening, then one short transaction."""

    def __init__(self, books: Books, vault: Vault, checks: Checks) -> None:
        self._books = books
        self._vault = vault
        self._checks = checks
        self._handles = Handles(vault)

    def hear_with(self, checks: Checks) -> None:
        """Checks with these instruments from now on."""
        self._checks = checks

    @property
    def _verifier(self) -> GrantVerifier:
        return GrantVerifier(self._books.keys.public)

    # ── challenge ────────────────────────────────────────────────────────────────────────────────────

    def challenge(
        self,
        terms: Terms,
        act: str,
        *,
        salt: str = "",
        by_phone: bool = False,
        life_s: float = challenges.LIFE_S,
    ) -> Challenge:
        """Issues a challenge by an operator's act.

        `by_phone`: it may be answered in a call, without an operator. The act binds `by_phone`, and
        `terms.hash(salt)` as `terms`, so that the ledger holds no name. Raises `RegistrationError`,
        `OperatorError`, `LedgerError`.
        """
        with acting(self._books, act, "challenge") as (writing, operator, claims):
            now = writing.now(behind_s=LEEWAY_S)
            if claims.get("terms") != terms.hash(salt):
                raise OperatorError(f"{operator.name} signed other terms")
            issued = challenges.issue(
                writing.connection, self._books.keys.signer, terms, registrar=operator.name,
                by_phone=by_phone, now=now, life_s=life_s,
            )  # fmt: skip
            body = {
                "challenge": issued.challenge_id, "terms": claims["terms"], "by_phone": by_phone,
                "by": operator.name, "act": act,
            }  # fmt: skip
            writing.append("challenge.issued", None, body)
            return issued

    # ── registration ─────────────────────────────────────────────────────────────────────────────────

    def submit(
        self,
        submission: Submission,
        act: str | None,
        told: Callable[[Finding], None] = lambda _: None,
        confirm: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> Registered:
        """Examines and keeps a registration; `confirm` signs what was found (see `keep`).

        Raises as `examine` and `keep` do.
        """
        draft = self.examine(submission, act, told)
        return self.keep(draft, confirm(draft.found) if confirm is not None else None)

    def examine(
        self, submission: Submission, act: str | None, told: Callable[[Finding], None] = lambda _: None
    ) -> Draft:
        """Checks a registration by its registrar's act (`register`); None: the gateway took it in a call.

        Raises `RegistrationError`, `ChallengeError`, `OperatorError`, `LedgerError`; then nothing of it is
        kept but a row that says it was refused.
        """
        submission.check()
        now = self._books.clock()
        take_stock(self._books, self._vault)
        standing = self._books.look()
        with self._books.archive.reading() as connection:
            challenge = challenges.read(connection, self._verifier, submission.challenge_id, now)
            earlier = self._earlier(connection, standing)
        registrar, spent = self._who(submission, act, challenge, now)
        material = Material(
            tuple(reference.recording for reference in submission.references),
            submission.statement,
            challenge.statement,
        )
        outcome = self._checks.run(material, earlier, told)
        if (refusal := outcome.refusal) is not None:
            self._note_refused(submission, refusal, registrar, spent)
            raise RegistrationError(refusal.check, f"{refusal.check}: {refusal.detail}")
        claims = records.draft(
            voice_id=secrets.token_hex(8), handle=submission.handle, challenge=challenge,
            references=submission.references, statement=submission.statement, findings=outcome.findings,
            registrar=registrar, act=act, pin=submission.pin is not None, now=now,
        )  # fmt: skip
        return Draft(submission, challenge, outcome, registrar, act, now, claims)

    def keep(self, draft: Draft, act: str | None) -> Registered:
        """Keeps what was examined, pending, by its registrar's second act (`confirm`).

        The act binds `draft.found`, so that nobody changes a finding afterwards. Raises as `examine` does.
        """
        if draft.registrar == GATEWAY:
            with self._books.writing() as writing:
                return self._keep(writing, draft, "")
        if act is None:
            raise OperatorError("a registrar confirms what the checks found, by a second act")
        with acting(self._books, act, "confirm") as (writing, _, _):
            return self._keep(writing, draft, act)

    def _who(
        self, submission: Submission, act: str | None, challenge: Challenge, now: float
    ) -> tuple[str, dict[str, Any]]:
        """Who registers, and the id and time of their act, by which the ledger knows that it was taken."""
        standing = self._books.look()
        self._books.now(behind_s=LEEWAY_S)
        self._refuse_taken(standing, submission.handle)
        if act is None:
            if not challenge.by_phone:
                raise OperatorError("this challenge is not for the telephone; an operator registers it")
            return GATEWAY, {}
        operator, claims = check_act(standing, act, "register", now)
        if any(claims.get(key) != value for key, value in submission.digest.items()):
            raise OperatorError(f"{operator.name} signed another registration")
        return operator.name, {"jti": claims["jti"], "iat": claims["iat"]}

    def _refuse_taken(self, standing: Standing, handle: str) -> None:
        with self._books.archive.reading() as connection:
            voice = self._handles.find(connection, standing, handle)
        if voice is not None and voice.state in ("pending", "active"):
            raise RegistrationError(
                "name", f"{handle} is registered already ({voice.state}); revoke it or take another name"
            )

    def _refuse_rivals(self, writing: Writing, submission: Submission) -> None:
        """What another registration may have kept while this one was listened to."""
        voice = self._handles.find(writing.connection, writing.standing, submission.handle)
        if voice is not None and voice.state in ("pending", "active"):
            raise RegistrationError("name", f"{submission.handle} was registered a moment ago by another")
        hashes = self._earlier(writing.connection, writing.standing).hashes
        for recording in (submission.statement, *(r.recording for r in submission.references)):
            if recording.sha256 in hashes:
                raise RegistrationError("copies", f"copies: {recording.name} was handed in before")

    def _earlier(self, connection: Connection, standing: Standing) -> Earlier:
        """Raises `VaultError` when some of it is gone from the database: the ledger says what there is."""
        kept = read_prints(self._vault, connection, standing)
        hashes = frozenset(content[:64].decode() for content in kept)
        prints = [np.frombuffer(content[64:], "<u4") for content in kept]
        blocked = {}
        for content in self._vault.all(connection, HOUSE, "blocked").values():
            table = json.loads(content)
            if table["block"] in standing.blocked:
                blocked[table["label"]] = np.array(table["voiceprint"], np.float32)
        if gone := set(standing.blocked.values()) - set(blocked):
            raise VaultError(
                f"the voiceprints of blocked people are gone from the database ({', '.join(sorted(gone))}); "
                "restore consent_items from a backup, or lift them and block them again"
            )
        return Earlier(prints, hashes, blocked)

    def _note_refused(
        self, submission: Submission, refusal: Finding, registrar: str, spent: Mapping[str, Any]
    ) -> None:
        with self._books.writing() as writing:
            body = {"challenge": submission.challenge_id, "check": refusal.check, "registrar": registrar}
            body |= spent
            writing.append("voice.refused", None, body)

    def _keep(self, writing: Writing, draft: Draft, confirm: str) -> Registered:
        connection, vault = writing.connection, self._vault
        submission, outcome, now = draft.submission, draft.outcome, draft.now
        voice_id = str(draft.claims["jti"])
        self._refuse_rivals(writing, submission)
        spent = (voice.challenge for voice in writing.standing.voices.values())
        if draft.challenge.challenge_id in spent:  # by the ledger: the table's row may have been put back
            used = f"the challenge {submission.challenge_id} was used already"
            raise ChallengeError(f"{used}; issue a new one")
        challenges.use(connection, draft.challenge.challenge_id, now)
        token = records.seal(draft.claims, confirm or None, self._books.keys.signer)
        pcm, text = join(submission.references)
        vault.open_house(connection, now)
        vault.open_voice(connection, voice_id, submission.handle, now)
        vault.put(connection, voice_id, "record", token.encode())
        vault.put(connection, voice_id, "reference", pcm16(pcm))
        vault.put(connection, voice_id, "text", text.encode())
        vault.put(connection, voice_id, "statement", pcm16(submission.statement.pcm))
        for voiceprint in outcome.voiceprints:
            content = voiceprint.astype("<f4").tobytes()
            vault.put(connection, voice_id, "voiceprint", content, expires_at=now + VOICEPRINT_S)
        if submission.pin is not None:
            vault.put(connection, voice_id, "pin", pins.hash_pin(submission.pin))
        recordings = (submission.statement, *(r.recording for r in submission.references))
        prints = [
            keep_print(vault, connection, recording.sha256.encode() + bits.astype("<u4").tobytes(), now)
            for recording, bits in zip(recordings, outcome.fingerprints, strict=True)
        ]
        writing.append(
            "voice.submitted",
            voice_id,
            {
                **draft.found,
                "findings": draft.found["findings"] if confirm else "",
                "outcome": outcome.verdict,
                "record_hash": records.hash_record(token),
                "statement": draft.challenge.statement.version,
                "registrar": draft.registrar,
                "register": self._spent(writing.standing, draft),
                "act": confirm,
                "prints": prints,
                "handle_mac": vault.keys.mac_of(submission.handle),
            },
        )
        return Registered(voice_id, submission.handle, "pending", tuple(outcome.findings))

    def _spent(self, standing: Standing, draft: Draft) -> dict[str, Any]:
        """Id and time of the first act, looked at once more: another process may have taken it meanwhile."""
        if draft.act is None:
            return {}
        _, claims = read_act(standing, draft.act, "register")
        return {"jti": claims["jti"], "iat": claims["iat"]}
