"""The consent record: what one person agreed to, and how that was established. Signed by the office.

It is sealed with the voice's key; the ledger holds its hash only. The registrar's signed acts are inside it:
one for what was handed in, one for what was found. Reviews stand beside it in the ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import numpy as np

from consent.archive.keys import SigningKey
from consent.checks.checklist import Finding
from consent.checks.sound import RATE_HZ, Floats, Recording, from_pcm16, pcm16
from consent.errors import GrantRefused, OperatorError, VaultError
from consent.grants.grant import ISSUER, LEEWAY_S, GrantVerifier, hash_voice, sign
from consent.grants.scope import Scope
from consent.ledger.acts import digest, signed_act
from consent.ledger.standing import GATEWAY, OperatorStanding, VoiceStanding
from consent.statements.challenge import Challenge

TYP: Final = "consent-record+jws"
PAUSE_S: Final = 0.4
"""Silence between references that are joined."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference clip and the words spoken in it."""

    recording: Recording
    text: str


def join(references: Sequence[Reference]) -> tuple[Floats, str]:
    """All references as the one clip and text that an engine gets; float32 24 kHz, 16 bits deep."""
    pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
    pieces: list[Floats] = []
    for reference in references:
        pieces += [reference.recording.pcm, pause]
    joined = from_pcm16(pcm16(np.concatenate(pieces[:-1])))
    return joined, " ".join(reference.text.strip() for reference in references)


@dataclass(frozen=True, slots=True)
class Record:
    """A verified record. `claims` is all of it; times are seconds since the epoch."""

    token: str
    claims: Mapping[str, Any]
    voice_id: str
    handle: str
    voice_hash: str
    purposes: frozenset[str]
    dialplans: frozenset[str]
    languages: frozenset[str]
    not_before: float
    expires_at: float

    @property
    def hash(self) -> str:
        """By what the ledger names it."""
        return hash_record(self.token)

    @classmethod
    def read(cls, token: str, verifier: GrantVerifier) -> Self:
        """Raises `VaultError` for a record that this office did not sign."""
        try:
            claims = verifier.claims(token, TYP)
            return cls(
                token, claims, claims["jti"], claims["handle"], claims["voice_hash"],
                frozenset(claims["purposes"]), frozenset(claims["dialplans"]), frozenset(claims["languages"]),
                float(claims["nbf"]), float(claims["exp"]),
            )  # fmt: skip
        except (GrantRefused, KeyError, TypeError, ValueError):
            raise VaultError(
                "the consent record was not signed by this office, or was tampered with"
            ) from None

    def check_acts(self, voice: VoiceStanding, operators: Mapping[str, OperatorStanding]) -> None:
        """Whether the registrar signed this: what was handed in, and what was found.

        Raises `VaultError`. Records of older versions have no signed findings.
        """
        claims, name = self.claims, voice.registrar
        if claims.get("registrar") != name:
            raise VaultError("the record names another registrar than the ledger")
        if name == GATEWAY:
            return
        try:
            if name not in operators:
                raise OperatorError(f"the ledger knows no operator {name}")
            handed_in = signed_act(str(claims["registrar_act"]), "register", operators[name])
            signed = {
                "handle": self.handle,
                "challenge": claims["statement"]["challenge"],
                "references": [reference["file_sha256"] for reference in claims["references"]],
                "texts": [reference["text"] for reference in claims["references"]],
                "statement": claims["statement"]["recording"]["file_sha256"],
            }
            if any(handed_in.get(key) != value for key, value in signed.items()):
                raise OperatorError(f"{name} signed another registration")
            if not voice.findings:
                return
            found = signed_act(str(claims["registrar_confirm"]), "confirm", operators[name])
            findings = digest(claims["checks"])
            if (found.get("record"), found.get("findings")) != (digest_of(claims), findings):
                raise OperatorError(f"{name} signed other findings")
            if findings != voice.findings:
                raise OperatorError("the ledger names other findings")
        except OperatorError as error:
            raise VaultError(f"the record's registration does not hold: {error}") from None
        except (KeyError, TypeError, ValueError):
            raise VaultError("the record names no registration that somebody signed") from None

    def refuse(self, scope: Scope, *, now: float) -> None:
        """Raises `GrantRefused` when this use is not what was consented to."""
        if now < self.not_before - LEEWAY_S:
            raise GrantRefused(
                "not_yet_valid", f"the consent for {self.handle} begins later; check the clock"
            )
        if now >= self.expires_at:
            ended = datetime.fromtimestamp(self.expires_at, UTC) - timedelta(seconds=1)
            raise GrantRefused("expired", f"the consent for {self.handle} ended on {ended:%Y-%m-%d}")
        if scope.purpose not in self.purposes:
            allowed = ", ".join(sorted(self.purposes))
            raise GrantRefused("purpose", f"{self.handle} consented to {allowed}, not to {scope.purpose}")
        if self.dialplans and scope.dialplan not in self.dialplans:
            raise GrantRefused("dialplan", f"{self.handle} did not consent to the dialplan {scope.dialplan}")
        if scope.language.split("-")[0].lower() not in self.languages:
            raise GrantRefused("language", f"{self.handle} did not consent to speaking {scope.language}")


def agreed(claims: Mapping[str, Any]) -> str:
    """A record's purposes in words: "support (answering questions about orders), news"."""
    uses = claims.get("uses", {})
    return ", ".join(f"{one} ({uses[one]})" if one in uses else one for one in claims["purposes"])


def hash_record(token: str) -> str:
    """SHA-256 of the signed record, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def digest_of(claims: Mapping[str, Any]) -> str:
    """What a registrar confirms of a record: all of it but the confirmation."""
    return digest({key: value for key, value in claims.items() if key != "registrar_confirm"})


def seal(claims: Mapping[str, Any], confirm: str | None, signer: SigningKey) -> str:
    """The record, signed by the office, with the act by which its registrar confirms it."""
    return sign({**claims, "registrar_confirm": confirm}, signer.private, signer.kid, TYP)


def draft(
    *, voice_id: str, handle: str, challenge: Challenge, references: Sequence[Reference],
    statement: Recording, findings: Sequence[Finding], registrar: str, act: str | None, pin: bool, now: float,
) -> dict[str, Any]:  # fmt: skip
    """What a record says, before anybody signs it."""
    terms = challenge.terms
    pcm, text = join(references)
    voice_hash = hash_voice(pcm.tobytes(), text)
    end = datetime(terms.until.year, terms.until.month, terms.until.day, tzinfo=UTC) + timedelta(days=1)
    return {
        "iss": ISSUER,
        "jti": voice_id,
        "iat": now,
        "nbf": now,
        "exp": end.timestamp(),
        "handle": handle,
        "voice_hash": voice_hash,
        "name": terms.name,
        "company": terms.company,
        "purposes": list(terms.purposes),
        **({"uses": dict(terms.uses)} if terms.uses else {}),
        "dialplans": list(terms.dialplans),
        "languages": list(terms.languages),
        "statement": {
            "version": challenge.statement.version,
            "text": challenge.statement.text,
            "challenge": challenge.challenge_id,
            "challenge_issued_by": challenge.registrar,
            "challenge_issued_at": challenge.issued_at,
            "recording": _described(statement),
        },
        "references": [
            {**_described(reference.recording), "text": reference.text} for reference in references
        ],
        "attested": "the speaker is at least eighteen years old and is the person named",
        "checks": [finding.to_json() for finding in findings],
        "registrar": registrar,
        "registrar_act": act,
        "pin": pin,
    }


def _described(recording: Recording) -> dict[str, Any]:
    return {
        "file_sha256": recording.file_sha256,
        "sound_sha256": recording.sha256,
        "seconds": round(recording.seconds, 2),
        "source_hz": recording.source_hz,
    }
