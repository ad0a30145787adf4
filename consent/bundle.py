"""One voice's proof in one file: record, reviews, ledger rows, operators' keys. It verifies with nothing but
the office's public key, on a machine that has never seen the gateway.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.errors import GrantRefused, LedgerError, VaultError
from consent.grant import GrantVerifier, unb64
from consent.keys import kid_of
from consent.ledger import Row
from consent.office import ConsentOffice
from consent.operators import ACT_TYP
from consent.record import Record, hash_record
from consent.sound import from_pcm16, wav_bytes
from consent.standing import VoiceStanding

FORMAT: Final = "voicegate-consent-bundle/1"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle proves."""

    record: Record
    state: str
    reviews: tuple[str, ...]
    rows: int


def export(office: ConsentOffice, voice: VoiceStanding, *, with_sound: bool) -> dict[str, Any]:
    """The bundle. Raises `VaultError` for an erased voice, `LedgerError`."""
    record = office.record(voice)
    kinds = ("ledger.opened", "key.rotated", "operator.added", "operator.revoked")
    rows = office.books.rows(kinds=kinds) + [
        row for row in office.books.rows(subject=voice.voice_id) if not row.kind.startswith("voice.granted")
    ]
    bundle: dict[str, Any] = {
        "format": FORMAT,
        "record": record.token,
        "rows": [row.to_json() for row in sorted(rows, key=lambda row: row.seq)],
        "head": office.books.head(),
    }
    if with_sound:
        with office.archive.reading() as connection:
            for kind in ("statement", "reference"):
                pcm = from_pcm16(office.vault.get(connection, voice.voice_id, kind))
                bundle[kind] = base64.b64encode(wav_bytes(pcm)).decode()
    return bundle


def verify(bundle: Mapping[str, Any], keys: Mapping[str, Ed25519PublicKey]) -> Verified:
    """Checks a bundle against public keys alone. Raises `LedgerError`, `VaultError` naming what fails."""
    try:
        if bundle["format"] != FORMAT:
            raise LedgerError("this is no bundle that this program reads")
        rows = [Row(**row) for row in bundle["rows"]]
        token = str(bundle["record"])
    except (KeyError, TypeError):
        raise LedgerError("this is no consent bundle") from None
    trusted = dict(keys)
    operators: dict[str, Ed25519PublicKey] = {}
    submitted: dict[str, Any] | None = None
    state, approvals = "unknown", 0
    reviews: list[str] = []
    last = 0
    for row in rows:
        _check(row, last, trusted)
        last = row.seq
        body = row.table
        match row.kind:
            case "key.rotated":
                trusted[body["kid"]] = Ed25519PublicKey.from_public_bytes(unb64(body["public"]))
            case "operator.added":
                operators[body["name"]] = Ed25519PublicKey.from_public_bytes(unb64(body["public"]))
            case "voice.submitted":
                submitted = body
                state = "active" if body["outcome"] == "passed" else "pending"
            case "voice.reviewed":
                _check_act(body["act"], "review", body["by"], operators)
                reviews.append(f"{body['by']}: {body['decision']}")
                approvals += body["decision"] == "approve"
                needed = 2 if submitted is not None and submitted["registrar"] == "gateway" else 1
                if body["decision"] != "approve":
                    state = "rejected"
                elif approvals >= needed:
                    state = "active"
            case "voice.revoked":
                state = "revoked"
            case "voice.erased":
                state = "erased"
    if submitted is None or submitted["record_hash"] != hash_record(token):
        raise VaultError("the record is not the one that the ledger's row names")
    record = Record.read(token, GrantVerifier(trusted))
    act = record.claims["registrar_act"]
    if act is not None:
        _check_act(act, "register", record.claims["registrar"], operators)
    _check_sound(bundle, record)
    return Verified(record, state, tuple(reviews), len(rows))


def _check(row: Row, last: int, keys: Mapping[str, Ed25519PublicKey]) -> None:
    if row.seq <= last:
        raise LedgerError(f"row {row.seq} is out of order")
    if row.edited or not row.signed_by(keys):
        raise LedgerError(f"row {row.seq} was edited, or signed with another key")


def _check_act(token: str, what: str, name: str, operators: Mapping[str, Ed25519PublicKey]) -> None:
    key = operators.get(name)
    try:
        if key is None:
            raise LedgerError(f"the bundle does not know the operator {name}")
        claims = GrantVerifier({kid_of(key): key}).claims(token, ACT_TYP)
    except GrantRefused:
        raise LedgerError(f"the {what} was not signed by {name}") from None
    if (claims.get("act"), claims.get("op")) != (what, name):
        raise LedgerError(f"the {what} was not signed by {name}")


def _check_sound(bundle: Mapping[str, Any], record: Record) -> None:
    if "statement" not in bundle:
        return
    wav = base64.b64decode(bundle["statement"])
    kept = record.claims["statement"]["recording"]["sound_sha256"]
    if hashlib.sha256(wav[44:]).hexdigest() != kept:  # after the 44 bytes of our own WAV header
        raise VaultError("the statement in the bundle is not the one in the record")


def dump(bundle: Mapping[str, Any]) -> str:
    return json.dumps(bundle, indent=1)
