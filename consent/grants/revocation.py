"""Revocations: signed, pushed through Redis, reread on every (re)connect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from consent.archive.keys import SigningKey
from consent.errors import ConsentError, GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant, sign
from consent.grants.redis_watch import Backoff, RedisWatch

CHANNEL: Final = "vg:revoked"
KEY: Final = "vg:revocations"
TYP: Final = "voice-revocation+jws"
CONNECT_S: Final = 2.0
QUIET_S: Final = 5.0
"""A Redis that said nothing for this long is asked whether it is there, and has as long to say so."""
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
        """Whether a revocation names the voice of this grant."""
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
    """Follows the channel for as long as `run` runs. `watch` is the process's, where it has one."""

    def __init__(self, redis_url: str, verifier: GrantVerifier, watch: RedisWatch | None = None) -> None:
        self._url = redis_url
        self._watch = RedisWatch(redis_url) if watch is None else watch
        self.revocations = RevocationList(verifier)

    async def run(self, told: Callable[[Revocation], Awaitable[None]]) -> None:
        """Calls `told` for each new revocation; comes back to a Redis that went."""
        backoff = Backoff()
        while True:
            redis: Any = Redis.from_url(
                self._url,
                decode_responses=True,
                socket_connect_timeout=CONNECT_S,
                retry=Retry(NoBackoff(), 0),  # a connection made anew unseen would not know what it missed
            )
            try:
                async with redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    for token in (await redis.hgetall(KEY)).values():
                        await self._take(token, told)
                    self._watch.reached("revocations")
                    backoff.reset()
                    await self._follow(channel, told)
            except (RedisError, OSError) as error:
                self._watch.failed("revocations", error)
                await asyncio.sleep(backoff.pause_s())
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await redis.aclose()

    async def _follow(self, channel: Any, told: Callable[[Revocation], Awaitable[None]]) -> None:
        """Until Redis is gone, which a quiet one must deny. Raises `RedisError`."""
        asked = False
        while True:
            message = await channel.get_message(timeout=QUIET_S)
            if message is None:
                if asked:
                    raise RedisTimeout(f"it has not answered for {QUIET_S:g} s")
                await channel.ping()
            elif message["type"] == "message":
                await self._take(message["data"], told)
            asked = message is None

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
        self,
        redis_url: str,
        withdrawn: Callable[[], list[Revocation]],
        signer: Callable[[], SigningKey],
        watch: RedisWatch | None = None,
    ) -> None:
        self._url = redis_url
        self._watch = RedisWatch(redis_url) if watch is None else watch
        self._withdrawn = withdrawn
        self._signer = signer
        self.published = 0

    async def run(self) -> None:
        """Until cancelled; comes back to a Redis or a database that went."""
        trouble = ""
        backoff = Backoff()
        while True:
            redis: Any = Redis.from_url(
                self._url,
                decode_responses=True,
                socket_timeout=2.0,
                socket_connect_timeout=CONNECT_S,
                retry=Retry(NoBackoff(), 0),
            )
            told: set[str] = set()
            rounds = 0
            try:
                while True:
                    gone = await asyncio.to_thread(self._withdrawn)
                    if rounds % RECHECK_ROUNDS == 0:
                        told = set(await redis.hkeys(KEY))
                        self._watch.reached("withdrawals")
                        backoff.reset()
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
            except (RedisError, OSError) as error:
                self._watch.failed("withdrawals", error)
                await asyncio.sleep(backoff.pause_s())
            except ConsentError as error:
                if str(error) != trouble:  # once, not at every try
                    trouble = str(error)
                    log.warning("revocations.not_published", error=trouble)
                await asyncio.sleep(backoff.pause_s())
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await redis.aclose()
