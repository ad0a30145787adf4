"""Consent as a vCon, the container for conversations that other programs read (draft-ietf-vcon-vcon-core).

The conversation is the statement that a person read aloud, or a call. What proves the consent behind it is
attached as it is, signed by the office: a voice's bundle in its parts, and a call's rows of the ledger. So
`prove` finds in a vCon what `consent.proof.bundle` finds in a bundle, with the public keys alone. The vCon
around them is not signed: nothing in it is to be believed but what the attachments say.
"""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.errors import LedgerError
from consent.grants.grant import b64, unb64
from consent.ledger.chain import Row
from consent.proof import bundle
from consent.proof.evidence import Evidence

VERSION: Final = "0.4.0"
"""The syntax of the draft's containers. Its newest form deprecates the field; readers still ask for it."""
JOSE: Final = "application/jose"
JSON: Final = "application/json"
WAV: Final = "audio/x-wav"
BYTES_PER_S: Final = 48_000
"""Our own WAV, after its header: 24 kHz mono, 16 bits."""
WAV_HEADER: Final = 44
TOKENS: Final = {
    "record": "consent record",
    "status": "the office's list of the voice's rows",
    "head": "the ledger's head",
}
ROWS: Final = "rows.json"
GRANTED: Final = ("voice.granted", "voice.used")
"""The kinds of the ledger's rows that tell of a call."""
NUMBER: Final = re.compile(r"\+?[0-9]{3,}")


@dataclass(frozen=True, slots=True)
class Proved:
    """What a vCon proves: the voices' bundles, and the rows that tell of a call's grants."""

    voices: tuple[bundle.Verified, ...]
    rows: tuple[Row, ...]


def of_voice(proof: Mapping[str, Any]) -> dict[str, Any]:
    """A voice's bundle (`bundle.export`) as a vCon. The dialog is the statement: its sound, or else its text.

    Raises `LedgerError`.
    """
    claims = _claims(proof, "record")
    made_at = float(_claims(proof, "status")["iat"])
    parties = [
        {"type": "person", "name": str(claims["name"])},
        {"type": "organization", "name": str(claims["company"])},
    ]
    said: dict[str, Any] = {"type": "text", "start": _date(claims["iat"]), "parties": [0]}
    if "statement" in proof:
        wav = base64.b64decode(proof["statement"])
        said |= {
            "type": "recording",
            "duration": round((len(wav) - WAV_HEADER) / BYTES_PER_S, 3),
            **_inline(f"{claims['handle']}/statement.wav", wav, WAV),
        }
    else:
        said |= {"mediatype": "text/plain", "body": claims["statement"]["text"], "encoding": "none"}
    subject = f"{claims['name']} consents to {claims['company']} speaking in their voice"
    attached = _attached(proof, str(claims["handle"]), made_at, party=1)
    return {**_container(made_at, subject), "parties": parties, "dialog": [said], "attachments": attached}


def of_call(
    evidence: Evidence, call: Mapping[str, Any], rows: Iterable[Row], proofs: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """A call's consent as a vCon: its chain of evidence, the rows of its grants, each voice's bundle.

    `call` is as for `evidence.gather`. The dialog has no content: no sound or word of the call is exported.
    Raises `LedgerError`.
    """
    bundles = [(proof, _claims(proof, "record")) for proof in proofs]
    made_at = evidence.made_at
    began = float(call.get("started_at") or made_at)
    dialog: dict[str, Any] = {"type": "recording", "start": _date(began), "parties": [0, 1], "originator": 0}
    if call.get("ended_at") is not None:
        dialog["duration"] = round(max(0.0, float(call["ended_at"]) - began), 3)
    house = {"type": "bot", "name": f"voicegate {call.get('route') or call.get('called') or ''}".strip()}
    parties = [_caller(call), house]
    attached = [
        _attachment("chain of evidence", "evidence.json", evidence.to_json(), JSON, made_at, 1),
        _attachment("the ledger's rows of the call", ROWS, [row.to_json() for row in rows], JSON, made_at, 1),
    ]
    for proof, claims in bundles:
        parties.append({"type": "person", "name": str(claims["name"]), "org": str(claims["company"])})
        attached += _attached(proof, str(claims["handle"]), made_at, party=1)
    container = _container(made_at, f"Consent behind call {call.get('call_id')}")
    redacted = {"type": "the call's sound and words are left out"}
    return {
        **container, "redacted": redacted, "parties": parties, "dialog": [dialog], "attachments": attached,
    }  # fmt: skip


def prove(
    table: Mapping[str, Any],
    keys: Mapping[str, Ed25519PublicKey],
    revoked: Mapping[str, Ed25519PublicKey] | None = None,
) -> Proved:
    """Checks what is attached against public keys alone, as `bundle.verify` does.

    A row of a call's grant that a revoked key signed is refused, since nothing here says whether it is from
    before the theft. Raises `LedgerError`, `VaultError` naming what fails.
    """
    try:
        bundles, rows = _proofs(table)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LedgerError("this is not a vCon of a consent that this program reads") from None
    if not bundles and not rows:
        raise LedgerError("this vCon has no consent attached")
    for row in rows:
        if row.edited or not row.signed_by(keys):
            raise LedgerError(f"row {row.seq} was edited, or signed with another key")
        if row.kind not in GRANTED:
            raise LedgerError(f"row {row.seq} tells of no call: {row.kind}")
    return Proved(tuple(bundle.verify(proof, keys, revoked) for proof in bundles), tuple(rows))


def dump(table: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(table, indent=1)


# ── written ──────────────────────────────────────────────────────────────────────────────────────────────


def _container(made_at: float, subject: str) -> dict[str, Any]:
    return {"vcon": VERSION, "uuid": _fresh_uuid(made_at), "created_at": _date(made_at), "subject": subject}


def _fresh_uuid(made_at: float) -> str:
    """A version 8 UUID (RFC 9562 §5.8): milliseconds and chance, since a house need not have a DNS name."""
    drawn = bytearray(round(made_at * 1000).to_bytes(6, "big") + os.urandom(10))
    drawn[6] = 0x80 | drawn[6] & 0x0F
    drawn[8] = 0x80 | drawn[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(drawn)))


def _attached(proof: Mapping[str, Any], handle: str, made_at: float, party: int) -> list[dict[str, Any]]:
    """A bundle in its parts; the statement's sound is the dialog."""
    attached = [
        _attachment(purpose, f"{handle}/{name}.jws", proof[name], JOSE, made_at, party)
        for name, purpose in TOKENS.items()
    ]
    attached.append(
        _attachment("the ledger's rows of the voice", f"{handle}/{ROWS}", proof["rows"], JSON, made_at, party)
    )
    if "reference" in proof:
        wav = base64.b64decode(proof["reference"])
        attached.append(_attachment("the voice", f"{handle}/reference.wav", wav, WAV, made_at, party))
    return attached


def _attachment(
    purpose: str, filename: str, content: object, mediatype: str, made_at: float, party: int
) -> dict[str, Any]:
    stands = {"purpose": purpose, "start": _date(made_at), "party": party, "dialog": 0}
    return {**stands, **_inline(filename, content, mediatype)}


def _inline(filename: str, content: object, mediatype: str) -> dict[str, Any]:
    """A file in the container: bytes, JSON, or text that stands as it is."""
    file: dict[str, Any] = {"filename": filename, "mediatype": mediatype}
    if isinstance(content, bytes):
        return {**file, "body": b64(content), "encoding": "base64url"}
    return {**file, "body": content, "encoding": "none" if isinstance(content, str) else "json"}


def _caller(call: Mapping[str, Any]) -> dict[str, str]:
    caller = str(call.get("caller") or "unknown")
    if NUMBER.fullmatch(caller):
        return {"tel": f"tel:{caller}"}
    return {"sip": caller} if caller.startswith(("sip:", "sips:")) else {"name": caller}


def _claims(proof: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a token of the office's own bundle says, which nobody has to believe here."""
    try:
        return dict(json.loads(unb64(str(proof[name]).split(".")[1])))
    except (KeyError, IndexError, TypeError, ValueError):
        raise LedgerError("this is not a consent bundle") from None


def _date(at: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(float(at), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ── read ─────────────────────────────────────────────────────────────────────────────────────────────────


def _proofs(table: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Row]]:
    """The bundles in a container, put together again, and a call's rows. Raises what a file can cause."""
    bundles: dict[str, dict[str, Any]] = {}
    rows: list[Row] = []
    for file in (*table["dialog"], *table["attachments"]):
        handle, _, name = str(file.get("filename", "")).rpartition("/")
        if not handle:
            if name == ROWS:
                rows = [Row(**row) for row in file["body"]]
            continue
        proof = bundles.setdefault(handle, {"format": bundle.FORMAT})
        kind, _, how = name.partition(".")
        proof[kind] = base64.b64encode(unb64(file["body"])).decode() if how == "wav" else file["body"]
    return list(bundles.values()), rows
