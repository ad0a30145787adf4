"""Revocations: signed by the office, pushed through Redis and by the front, believed by their signature.

Whoever reads them reads what a stranger may have written. So a `RevocationList` takes bytes, bounds them, and
judges each alone: what is not ours is counted, and nothing of it ends or stops the reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent.grants.grant import GrantVerifier, VoiceGrant, sign

CHANNEL: Final = "vg:revoked"
KEY: Final = "vg:revocations"
TYP: Final = "voice-revocation+jws"
MOST_BYTES: Final = 8192
"""A longer token is none of ours, and is not looked into."""
VOICES: Final = 200_000
"""A list holds no more revocations than this; only the office's signature adds one."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One voice that may not be used any more. `token` is the office's signed word of it."""

    voice: str
    voice_hash: str
    reason: str
    at: float
    """When it was signed, seconds since the epoch."""
    token: str = field(default="", repr=False)


def signed(
    voice: str, voice_hash: str, reason: str, at: float, key: Ed25519PrivateKey, kid: str
) -> Revocation:
    """The office's word that a voice is withdrawn."""
    claims = {"sub": voice, "vh": voice_hash, "reason": reason, "iat": at}
    return Revocation(voice, voice_hash, reason, at, sign(claims, key, kid, TYP))


class RevocationList:
    """Verified revocations; whatever else comes is counted and ignored."""

    def __init__(self, verifier: GrantVerifier) -> None:
        self._verifier = verifier
        self._hashes: dict[str, Revocation] = {}
        self.forged = 0
        """How much came that the office has not signed as a revocation."""

    def __len__(self) -> int:
        """Voices that are withdrawn."""
        return len(self._hashes)

    def take(self, token: object) -> Revocation | None:
        """Adds a signed revocation; None when it is known, or is none of ours. Raises nothing."""
        try:
            revocation = self.read(token)
        except Exception:  # whatever a stranger's bytes raise in a parser: this message is judged, no other
            self.forged += 1
            return None
        if revocation.voice_hash in self._hashes or len(self._hashes) >= VOICES:
            return None
        self._hashes[revocation.voice_hash] = revocation
        return revocation

    def read(self, token: object) -> Revocation:
        """The revocation in `token`, str or bytes. Raises `GrantRefused`, `ValueError` and other errors."""
        if not isinstance(token, str | bytes) or len(token) > MOST_BYTES:
            raise ValueError("this is not a token")
        text = token.decode("ascii") if isinstance(token, bytes) else token
        claims: dict[str, Any] = self._verifier.claims(text, TYP)
        voice, voice_hash, reason = claims["sub"], claims["vh"], claims.get("reason", "")
        if not isinstance(voice, str) or not isinstance(voice_hash, str) or not isinstance(reason, str):
            raise ValueError("a claim is of another type")
        return Revocation(voice, voice_hash, reason, float(claims["iat"]), text)

    def is_revoked(self, grant: VoiceGrant) -> bool:
        """Whether a revocation names the voice of this grant."""
        return grant.voice_hash in self._hashes


async def publish(redis: Any, revocation: Revocation) -> None:
    """Puts a signed revocation where feeds read it, and tells those that listen. Raises `RedisError`.

    In this order, since a feed listens before it reads; those that listen are told even if it cannot be put.
    """
    try:
        await redis.hset(KEY, revocation.voice_hash, revocation.token)
    finally:
        await redis.publish(CHANNEL, revocation.token)
