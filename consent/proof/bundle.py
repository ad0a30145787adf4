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

from consent.archive.keys import kid_of
from consent.checks.sound import Floats, wav_bytes
from consent.errors import GrantRefused, LedgerError, VaultError
from consent.grants.grant import GrantVerifier, sign, unb64
from consent.ledger.chain import HEAD_TYP, Row, head_of
from consent.ledger.operators import ACT_TYP
from consent.ledger.standing import QUIET, Standing, VoiceStanding
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


def export(
    office: ConsentOffice, voice: VoiceStanding, sounds: Mapping[str, Floats] | None = None
) -> dict[str, Any]:
    """The bundle, with the sounds that `Registrar.listen` gave.

    Raises `VaultError` for an erased voice, `LedgerError`.
    """
    record = office.record(voice)
    house = office.books.rows(kinds=("ledger.opened", "key.rotated", "operator.added", "operator.revoked"))
    of_voice = [row for row in office.books.rows(subject=voice.voice_id) if row.kind not in QUIET]
    signer = office.keys.signer
    status = {
        "voice_id": voice.voice_id,
        "state": voice.state,
        "rows": [row.hash for row in of_voice],
        "iat": office.clock(),
    }
    bundle: dict[str, Any] = {
        "format": FORMAT,
        "record": record.token,
        "rows": [row.to_json() for row in sorted(house + of_voice, key=lambda row: row.seq)],
        "status": sign(status, signer.private, signer.kid, STATUS_TYP),
        "head": office.books.head(),
    }
    for kind, pcm in (sounds or {}).items():
        bundle[kind] = base64.b64encode(wav_bytes(pcm)).decode()
    return bundle


def verify(bundle: Mapping[str, Any], keys: Mapping[str, Ed25519PublicKey]) -> Verified:
    """Checks a bundle against public keys alone. Raises `LedgerError`, `VaultError` naming what fails."""
    try:
        if bundle["format"] != FORMAT:
            raise LedgerError("this is no bundle that this program reads")
        rows = [Row(**row) for row in bundle["rows"]]
        token, status_token, head_token = (str(bundle[key]) for key in ("record", "status", "head"))
    except (KeyError, TypeError):
        raise LedgerError("this is no consent bundle") from None
    trusted = dict(keys)
    standing = Standing()
    operators: dict[str, Ed25519PublicKey] = {}
    last = 0
    for row in rows:
        if row.seq <= last:
            raise LedgerError(f"row {row.seq} is out of order")
        if row.edited or not row.signed_by(trusted):
            raise LedgerError(f"row {row.seq} was edited, or signed with another key")
        last = row.seq
        body = row.table
        if row.kind == "key.rotated":
            trusted[body["kid"]] = Ed25519PublicKey.from_public_bytes(unb64(body["public"]))
        elif row.kind == "operator.added":
            operators[body["name"]] = Ed25519PublicKey.from_public_bytes(unb64(body["public"]))
        try:
            standing.apply(row.kind, row.subject, row.at_ms, body)
        except (KeyError, TypeError):
            raise LedgerError(f"row {row.seq} makes no sense after those before it") from None
    verifier = GrantVerifier(trusted)
    record = Record.read(token, verifier)
    voice = standing.voices.get(record.voice_id)
    if voice is None or voice.record_hash != record.hash:
        raise VaultError("the record is not the one that the ledger's row names")
    of_voice = [row for row in rows if row.kind.startswith("voice.")]
    if any(row.subject != record.voice_id for row in of_voice):
        raise LedgerError("there are rows of another voice in the bundle")
    _check_head(verifier, head_token, last)
    status = _status(verifier, status_token, record.voice_id)
    mine = [row.hash for row in rows if row.subject == record.voice_id]
    if status["rows"] != mine or status["state"] != voice.state:
        raise LedgerError("rows are missing: the office's own list of them is another")
    reviews = []
    for row in of_voice:
        if row.kind == "voice.reviewed":
            body = row.table
            claims = _check_act(body["act"], "review", body["by"], operators)
            if (claims["voice_id"], claims["record_hash"]) != (record.voice_id, record.hash):
                raise LedgerError(f"the review by {body['by']} is another voice's")
            reviews.append(f"{body['by']}: {body['decision']}")
    act = record.claims["registrar_act"]
    if act is not None:
        _check_act(act, "register", record.claims["registrar"], operators)
    _check_sound(bundle, record)
    return Verified(record, voice.state, float(status["iat"]), tuple(reviews), len(rows))


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


def _check_act(token: str, what: str, name: str, operators: Mapping[str, Ed25519PublicKey]) -> dict[str, Any]:
    key = operators.get(name)
    try:
        if key is None:
            raise LedgerError(f"the bundle does not know the operator {name}")
        claims = GrantVerifier({kid_of(key): key}).claims(token, ACT_TYP)
    except GrantRefused:
        raise LedgerError(f"the {what} was not signed by {name}") from None
    if (claims.get("act"), claims.get("op")) != (what, name):
        raise LedgerError(f"the {what} was not signed by {name}")
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
