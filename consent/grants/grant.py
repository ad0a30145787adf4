"""Voice grants: what lets an engine open a voice, and nothing else does.

A grant is a compact JWS (RFC 7515) signed with Ed25519 (RFC 8037): this voice, this purpose, this dialplan,
this call, this connection (`jti`), for about a minute. Halls and engines verify with public keys only.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent.errors import GrantRefused
from consent.grants.boot_clock import boot_time
from consent.grants.scope import Scope

ISSUER: Final = "voicegate-consent"
SPEECH_TYP: Final = "synthetic-speech+jws"
"""The kind of a statement that a call's voice is synthetic."""
LEEWAY_S: Final = 5.0
"""How far the clocks of two hosts may differ."""
REREAD_S: Final = 1.0
MOST_CHARS: Final = 64 << 20
"""A longer token is refused unread; the longest of consent's tokens lists all rows of one voice."""
REASONS: Final = frozenset(
    {"none", "unknown", "revoked", "expired", "not_yet_valid", "tampered", "unknown_key", "other_call",
     "purpose", "dialplan", "language", "replayed", "erased", "pending", "clock", "ledger", "office",
     "scope"}
)  # fmt: skip
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class VoiceGrant:
    """A verified grant; made only in `consent`. Times are seconds since the epoch."""

    token: str
    jti: str
    scope: Scope
    voice_hash: str
    issued_at: float
    expires_at: float
    seal: object = None
    lapses_at: float = field(default=0.0, compare=False)
    """`expires_at` by `boot_time`, as of its verification: a clock that is set back does not make it last"""

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("a VoiceGrant is made by consent only: ask ConsentOffice, or verify a token")

    @property
    def voice(self) -> str:
        """The name of the voice that it opens."""
        return self.scope.voice

    @property
    def call_id(self) -> str:
        """The call that it is for."""
        return self.scope.call_id

    def left_s(self, now: float) -> float:
        """Seconds until it lapses, by this machine's clock (`now`) and by the one that nobody sets."""
        return min(self.expires_at - now, self.lapses_at - boot_time())


def b64(raw: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Raises `ValueError`."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def hash_voice(pcm: bytes, text: str) -> str:
    """A voice's hash, which grants name, and by which an engine checks what it fetched.

    SHA-256 of the reference (float32 little-endian, 24 kHz mono) and its text.
    """
    return hashlib.sha256(b"voicegate-voice\0" + pcm + b"\0" + text.encode()).hexdigest()


def sign(claims: Mapping[str, Any], key: Ed25519PrivateKey, kid: str, typ: str = "voice-grant+jws") -> str:
    """A compact JWS of `claims`."""
    head = {"alg": "EdDSA", "typ": typ, "kid": kid}
    body = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(dict(claims)).encode())}"
    return f"{body}.{b64(key.sign(body.encode()))}"


def public_keys(table: Mapping[str, str]) -> dict[str, Ed25519PublicKey]:
    """Public keys (base64url by kid). Raises `ValueError`, `TypeError`, `AttributeError`."""
    return {kid: Ed25519PublicKey.from_public_bytes(unb64(raw)) for kid, raw in table.items()}


def read_public_keys(path: Path, *, revoked: bool = False) -> dict[str, Ed25519PublicKey]:
    """The public keys' JSON (`{"keys": {kid: base64url}, "revoked": {kid: base64url}}`).

    `revoked` asks for the revoked ones instead: rows from before still verify with them, grants never. Raises
    `GrantRefused`.
    """
    try:
        table = json.loads(path.read_text())
        found = table.get("revoked", {}) if revoked else table["keys"]
        return public_keys(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GrantRefused("unknown_key", f"{path}: no public keys of grants: {error}") from None


class GrantVerifier:
    """Verifies with public keys by kid; made by `load`, it follows the file: keys come, and are revoked."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], path: Path | None = None) -> None:
        self._keys = dict(keys)
        self._path = path
        self._looked_at = time.monotonic()
        self._state: tuple[int, int, int] | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the public keys' JSON. Raises `GrantRefused`."""
        return cls(read_public_keys(path), path)

    def _key(self, kid: str) -> Ed25519PublicKey:
        now = time.monotonic()
        if self._path is not None and now - self._looked_at >= REREAD_S:
            self._looked_at = now  # at most so often: a stranger's kid shall not cost a look each time
            self._follow(self._path)
        if kid not in self._keys:
            raise GrantRefused("unknown_key", f"signed with a key that is not ours, or was revoked: {kid}")
        return self._keys[kid]

    def _follow(self, path: Path) -> None:
        """Reads the file anew when it is another than the one that was read.

        While it cannot be read, half copied or gone, what was read before holds.
        """
        with contextlib.suppress(OSError, GrantRefused):
            found = path.stat()
            state = (found.st_mtime_ns, found.st_ino, found.st_size)
            if state != self._state:
                self._keys = read_public_keys(path)
                self._state = state

    def verify(
        self, token: str, *, call_id: str | None = None, now: float | None = None, leeway_s: float = LEEWAY_S
    ) -> VoiceGrant:
        """The grant in `token`. Raises `GrantRefused` with one of `REASONS`."""
        claims = self.claims(token, "voice-grant+jws")
        at = time.time() if now is None else now
        try:
            grant = VoiceGrant(
                token,
                claims["jti"],
                Scope(claims["sub"], claims["pur"], claims["dp"], claims["lang"], claims["call"]),
                claims["vh"],
                float(claims["iat"]),
                float(claims["exp"]),
                seal=_SEAL,
                lapses_at=boot_time() + float(claims["exp"]) - at,
            )
        except (KeyError, TypeError, ValueError):
            raise GrantRefused("tampered", "no valid grant: a claim is missing") from None
        if at > grant.expires_at + leeway_s:
            raise GrantRefused("expired", f"the grant lapsed {at - grant.expires_at:.0f} s ago")
        if at < grant.issued_at - leeway_s:
            raise GrantRefused("not_yet_valid", "the grant is from the future: check the clocks")
        if call_id is not None and grant.call_id != call_id:
            raise GrantRefused("other_call", f"the grant is for call {grant.call_id}, not {call_id}")
        return grant

    def claims(self, token: str, typ: str) -> dict[str, Any]:
        """The verified claims of any of consent's tokens. Raises `GrantRefused`, whatever it is."""
        try:
            if len(token) > MOST_CHARS:
                raise ValueError("far too long")
            head_part, body_part, signature = token.split(".")
            head = json.loads(unb64(head_part))
            if head.get("alg") != "EdDSA" or head.get("typ") != typ:
                raise ValueError("another kind of token")
            key = self._key(str(head.get("kid")))
            key.verify(unb64(signature), f"{head_part}.{body_part}".encode())
            return dict(json.loads(unb64(body_part)))
        except (
            ValueError, binascii.Error, InvalidSignature, AttributeError, TypeError, RecursionError
        ) as error:  # fmt: skip
            raise GrantRefused("tampered", f"no valid token: {type(error).__name__}") from None
