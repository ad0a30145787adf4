"""One voice's proof in one file: record, reviews, ledger rows, operators' keys.

It verifies with nothing but the office's public key, on a machine that has never seen the gateway.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.archive.keys import read_public
from consent.checks.sound import Floats, wav_bytes
from consent.errors import GrantRefused, LedgerError, VaultError
from consent.grants.grant import GrantVerifier, sign
from consent.ledger.chain import HEAD_TYP, Row, head_of
from consent.ledger.rulings import introduced, take
from consent.ledger.standing import Standing, VoiceStanding
from consent.office.office import ConsentOffice
from consent.office.record import Record

FORMAT: Final = "voicegate-consent-bundle/1"
STATUS_TYP: Final = "voice-status+jws"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle proves."""

    record: Record
    state: str
    as_of: float
    """when the office said so; later it may have been revoked"""
    reviews: tuple[str, ...]
    rows: int
    void: tuple[str, ...]
    """rows that do not count, since the act that they need is not there, and why"""


def export(
    office: ConsentOffice, voice: VoiceStanding, sounds: Mapping[str, Floats] | None = None
) -> dict[str, Any]:
    """The bundle, with the sounds that `ReviewDesk.listen` gave.

    Raises `VaultError` for an erased voice, `LedgerError`.
    """
    record = office.records.open(voice)
    rows, _ = office.books.reader.judged(voice)
    signer = office.keys.signer
    status = {
        "voice_id": voice.voice_id,
        "state": voice.state,
        "rows": [row.hash for row in rows if row.subject == voice.voice_id],
        "house": [row.hash for row in rows if row.subject != voice.voice_id],
        "iat": office.clock(),
    }
    bundle: dict[str, Any] = {
        "format": FORMAT,
        "record": record.token,
        "rows": [row.to_json() for row in rows],
        "status": sign(status, signer.private, signer.kid, STATUS_TYP),
        "head": office.books.head(),
    }
    for kind, pcm in (sounds or {}).items():
        bundle[kind] = base64.b64encode(wav_bytes(pcm)).decode()
    return bundle


def verify(
    bundle: Mapping[str, Any],
    keys: Mapping[str, Ed25519PublicKey],
    revoked: Mapping[str, Ed25519PublicKey] | None = None,
) -> Verified:
    """Checks a bundle against public keys alone, and no row but by the act that it needs.

    `revoked` are keys that were stolen: rows from before their revocation verify with them, and nothing else.
    Raises `LedgerError`, `VaultError` naming what fails.
    """
    try:
        if bundle["format"] != FORMAT:
            raise LedgerError("this is not a bundle that this program reads")
        rows = [Row(**row) for row in bundle["rows"]]
        token, status_token, head_token = (str(bundle[key]) for key in ("record", "status", "head"))
    except (KeyError, TypeError):
        raise LedgerError("this is not a consent bundle") from None
    gone = dict(revoked or {})
    trusted = {**keys, **gone}
    standing = Standing()
    void: dict[int, str] = {}
    last = 0
    for row in rows:
        if row.seq <= last:
            raise LedgerError(f"row {row.seq} is out of order")
        signers = {**trusted, **introduced(standing, row)}
        if row.edited or not row.signed_by(signers) or row.kid in standing.stolen:
            raise LedgerError(f"row {row.seq} was edited, or signed with another key")
        last = row.seq
        known = set(standing.signers)
        if (fault := take(standing, row)) is not None:
            void[row.seq] = fault
        if row.kind != "ledger.opened":
            trusted |= {kid: read_public(standing.signers[kid]) for kid in standing.signers.keys() - known}
    if unsaid := sorted({row.kid for row in rows} & gone.keys() - standing.stolen.keys()):
        raise LedgerError(f"the key {unsaid[0]} was revoked, and no row says so: the bundle may be a thief's")
    verifier = GrantVerifier({kid: key for kid, key in trusted.items() if kid not in standing.stolen})
    record = Record.read(token, GrantVerifier(trusted))
    voice = standing.voices.get(record.voice_id)
    if voice is None or voice.record_hash != record.hash:
        raise VaultError("the record is not the one that the ledger's row names")
    record.check_acts(voice, standing.operators)
    of_voice = [row for row in rows if row.kind.startswith("voice.")]
    if any(row.subject != record.voice_id for row in of_voice):
        raise LedgerError("there are rows of another voice in the bundle")
    _check_head(verifier, head_token, last)
    status = _status(verifier, status_token, record.voice_id)
    mine = [row.hash for row in rows if row.subject == record.voice_id]
    house = [row.hash for row in rows if row.subject != record.voice_id]
    if status["rows"] != mine or status["state"] != voice.state or status.get("house", house) != house:
        raise LedgerError("rows are missing: the office's own list of them is another")
    decided = [row.table for row in of_voice if row.kind == "voice.reviewed" and row.seq not in void]
    reviews = [f"{body['by']}: {body['decision']}" for body in decided]
    _check_sound(bundle, record)
    named = tuple(f"row {seq} does not count: {fault}" for seq, fault in void.items())
    return Verified(record, voice.state, float(status["iat"]), tuple(reviews), len(rows), named)


def _check_head(verifier: GrantVerifier, token: str, last: int) -> None:
    """The ledger's head, for whoever wants to compare it with one kept elsewhere, is not before the rows."""
    try:
        head = head_of(verifier.claims(token, HEAD_TYP))
    except GrantRefused:
        raise LedgerError("the ledger's head in the bundle was tampered with") from None
    if head.seq < last:
        raise LedgerError("the ledger's head in the bundle is older than its rows")


def _status(verifier: GrantVerifier, token: str, voice_id: str) -> dict[str, Any]:
    try:
        claims = verifier.claims(token, STATUS_TYP)
    except GrantRefused:
        raise LedgerError("the office's list of the voice's rows was tampered with") from None
    if claims.get("voice_id") != voice_id:
        raise LedgerError("the office's list is of another voice's rows")
    return claims


def _check_sound(bundle: Mapping[str, Any], record: Record) -> None:
    if "statement" not in bundle:
        return
    wav = base64.b64decode(bundle["statement"])
    kept = record.claims["statement"]["recording"]["sound_sha256"]
    if hashlib.sha256(wav[44:]).hexdigest() != kept:  # after the 44 bytes of our own WAV header
        raise VaultError("the statement in the bundle is not the one in the record")


def dump(bundle: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(bundle, indent=1)
