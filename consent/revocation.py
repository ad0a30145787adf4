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

from consent.errors import ConsentError, GrantRefused
from consent.grant import GrantVerifier, VoiceGrant, sign
from consent.keys import SigningKey

CHANNEL: Final = "vg:revoked"
KEY: Final = "vg:revocations"
TYP: Final = "voice-revocation+jws"
RETRY_S: Final = 0.3
LOOK_S: Final = 0.2
"""How often the front looks into the ledger for withdrawn voices."""
RECHECK_ROUNDS: Final = 25
"""Looks (5 s) between readings of Redis' own set, which somebody may have emptied."""

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
            reason, at = str(claims.get("reason", "")), float(claims["iat"])
            revocation = Revocation(claims["sub"], claims["vh"], reason, at)
        except (GrantRefused, KeyError, TypeError, ValueError):
            self.forged += 1
            return None
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


class RevocationDesk:
    """The front's side: tells Redis of every voice that was withdrawn, wherever it was done.

    The ledger is what counts: it is looked at every `LOOK_S`, so a revocation by the command line, by phone
    or by another host's front reaches every hall within a second, and a Redis that lost the set, or had it
    taken away, gets it again.
    """

    def __init__(
        self, redis_url: str, withdrawn: Callable[[], list[Revocation]], signer: Callable[[], SigningKey]
    ) -> None:
        self._url = redis_url
        self._withdrawn = withdrawn
        self._signer = signer
        self.published = 0

    async def run(self) -> None:
        """Until cancelled; comes back to a Redis or a database that went."""
        trouble = ""
        while True:
            redis: Any = Redis.from_url(self._url, decode_responses=True, socket_timeout=2.0)
            told: set[str] = set()
            rounds = 0
            try:
                while True:
                    gone = await asyncio.to_thread(self._withdrawn)
                    if rounds % RECHECK_ROUNDS == 0:
                        told = set(await redis.hkeys(KEY))
                    for revocation in gone:
                        if revocation.voice_hash not in told:
                            signer = self._signer()
                            await publish(redis, revocation, signer.private, signer.kid)
                            told.add(revocation.voice_hash)
                            self.published += 1
                            log.warning("voice.withdrawn", voice=revocation.voice, reason=revocation.reason)
                    rounds += 1
                    trouble = ""
                    await asyncio.sleep(LOOK_S)
            except (RedisError, OSError, ConsentError) as error:
                if str(error) != trouble:  # once, not at every try
                    trouble = str(error)
                    log.warning("revocations.not_published", error=trouble)
                await asyncio.sleep(RETRY_S)
            finally:
                await redis.aclose()
