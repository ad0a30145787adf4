"""Revocations: signed, pushed through Redis, reread on every (re)connect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from redis.exceptions import RedisError

from consent.errors import GrantRefused
from consent.grant import GrantVerifier, VoiceGrant, sign

CHANNEL: Final = "vg:revoked"
KEY: Final = "vg:revocations"
TYP: Final = "voice-revocation+jws"
RETRY_S: Final = 0.3

log = structlog.get_logger("consent")


@dataclass(frozen=True, slots=True)
class Revocation:
    """One voice that may not be used any more."""

    voice: str
    voice_hash: str
    reason: str
    at: float


class RevocationList:
    """Verified revocations; forged ones are counted and ignored."""

    def __init__(self, verifier: GrantVerifier) -> None:
        self._verifier = verifier
        self._hashes: dict[str, Revocation] = {}
        self.forged = 0

    def take(self, token: str) -> Revocation | None:
        """Adds a signed revocation; None when it is forged or known."""
        try:
            claims = self._verifier.claims(token, TYP)
        except GrantRefused:
            self.forged += 1
            return None
        reason, at = claims.get("reason", ""), float(claims["iat"])
        revocation = Revocation(claims["sub"], claims["vh"], reason, at)
        if revocation.voice_hash in self._hashes:
            return None
        self._hashes[revocation.voice_hash] = revocation
        return revocation

    def is_revoked(self, grant: VoiceGrant) -> bool:
        return grant.voice_hash in self._hashes


async def publish(redis: Any, revocation: Revocation, key: Ed25519PrivateKey, kid: str) -> None:
    """Signs and pushes a revocation."""
    claims = {
        "sub": revocation.voice,
        "vh": revocation.voice_hash,
        "reason": revocation.reason,
        "iat": revocation.at,
    }
    token = sign(claims, key, kid, TYP)
    await redis.hset(KEY, revocation.voice_hash, token)
    await redis.publish(CHANNEL, token)


class RevocationFeed:
    """Follows the channel for as long as `run` runs."""

    def __init__(self, redis_url: str, verifier: GrantVerifier) -> None:
        self._url = redis_url
        self.revocations = RevocationList(verifier)

    async def run(self, told: Callable[[Revocation], Awaitable[None]]) -> None:
        """Calls `told` for each new revocation; comes back to a Redis that went."""
        while True:
            redis: Any = Redis.from_url(self._url, decode_responses=True, health_check_interval=5)
            try:
                async with redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    for token in (await redis.hgetall(KEY)).values():
                        await self._take(token, told)
                    async for message in channel.listen():
                        if message["type"] == "message":
                            await self._take(message["data"], told)
            except (RedisError, OSError, json.JSONDecodeError) as error:
                log.warning("revocations.away", error=str(error))
                await asyncio.sleep(RETRY_S)
            finally:
                await redis.aclose()

    async def _take(self, token: str, told: Callable[[Revocation], Awaitable[None]]) -> None:
        revocation = self.revocations.take(token)
        if revocation is not None:
            await told(revocation)
