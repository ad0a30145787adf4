"""What a hall or an engine hears of revocations through Redis: the channel, and the set on each connect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from consent.grants.grant import GrantVerifier
from consent.grants.redis_watch import Backoff, RedisWatch
from consent.grants.revocation import CHANNEL, KEY, Revocation, RevocationList

ANSWER_S: Final = 2.0
"""A Redis that does not answer for this long is taken for one that is away."""
QUIET_S: Final = 1.0
"""A Redis that said nothing for this long is asked whether it is there, and has as long to say so."""
MOST_SET_BYTES: Final = 64 << 20
"""A set that is larger is not ours alone: it is not read, and the front makes it anew."""
A_TURN: Final = 32
"""Messages that are judged before others of this process have their turn."""

log = structlog.get_logger("consent")

Told = Callable[[Revocation], Awaitable[None]]


class RevocationFeed:
    """Follows the channel for as long as `run` runs. `watch` is the process's, where it has one.

    Bytes come in, and each message is judged alone. While the feed is in doubt (`doubt` says why), a
    revocation may be missed; the front tells its halls, and engines ask it, by another way at the same time.
    """

    def __init__(self, redis_url: str, verifier: GrantVerifier, watch: RedisWatch | None = None) -> None:
        self._url = redis_url
        self._watch = RedisWatch(redis_url) if watch is None else watch
        self.revocations = RevocationList(verifier)
        self.doubt: str | None = "it has not begun"
        """Why a revocation may be missed now; None: the feed hears all of them."""
        self.failed = 0
        """Messages, and tries of the whole, that raised what nobody expected."""

    async def run(self, told: Told) -> None:
        """Calls `told` for each new revocation; comes back to a Redis that went. Ends when cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._hear(told, backoff)
            except (RedisError, OSError, TimeoutError) as error:
                self._doubt(error)
                self._watch.failed("revocations", error)
            except Exception as error:  # of a client that choked on an answer: connect anew
                self._doubt(error)
                self.failed += 1
                log.error("revocations.feed_failed", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(backoff.pause_s())

    def _doubt(self, error: BaseException) -> None:
        self.doubt = f"{type(error).__name__}: {error}"[:200]

    async def _hear(self, told: Told, backoff: Backoff) -> None:
        """One connection's life; always ends with an error."""
        redis: Any = Redis.from_url(
            self._url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),  # a connection made anew unseen would not know what it missed
        )
        try:
            async with redis.pubsub() as channel:
                async with asyncio.timeout(ANSWER_S):
                    await channel.subscribe(CHANNEL)
                await self._read_set(redis, told)
                backoff.reset()
                await self._follow(channel, told)
        finally:
            with contextlib.suppress(Exception):  # a connection that is broken already
                await redis.aclose()

    async def _read_set(self, redis: Any, told: Told) -> None:
        """What was revoked before. A set of another type, or a huge one, is the front's to make anew."""
        async for token in set_values(redis):
            await self._take(token, told)

    async def _follow(self, channel: Any, told: Told) -> None:
        """Until Redis is gone, which a quiet one must deny. Raises `RedisError`."""
        asked, judged = False, 0
        while True:
            message = await channel.get_message(timeout=QUIET_S)
            if message is None:
                if asked:
                    raise RedisTimeout(f"it has not answered for {QUIET_S:g} s")
                await channel.ping()
            else:
                if self.doubt is not None:
                    self._certain()
                if message["type"] == "message":
                    await self._take(message["data"], told)
                judged += 1
                if judged % A_TURN == 0:
                    await asyncio.sleep(0)  # messages that lie ready are read without waiting
            asked = message is None

    def _certain(self) -> None:
        """Redis has said that it sends us the channel, or something on it."""
        self.doubt = None
        self._watch.reached("revocations")
        log.info("revocations.certain", way="feed", known=len(self.revocations))

    async def _take(self, token: object, told: Told) -> None:
        revocation = self.revocations.take(token)
        if revocation is None:
            return
        try:
            await told(revocation)
        except Exception as error:  # whoever is told fails for this one; the next is told all the same
            self.failed += 1
            log.error(
                "revocations.not_told", voice=revocation.voice, error=f"{type(error).__name__}: {error}"
            )


async def set_values(redis: Any) -> AsyncIterator[object]:
    """The values of the set of revocations, none when it is of another type or huge. Raises `RedisError`."""
    async with asyncio.timeout(ANSWER_S):
        if not await is_readable(redis):
            return
    cursor: int | None = None
    while cursor != 0:
        async with asyncio.timeout(ANSWER_S):
            cursor, found = await redis.hscan(KEY, cursor or 0, count=A_TURN)
        for value in found.values():
            yield value
        await asyncio.sleep(0)


async def is_readable(redis: Any) -> bool:
    """Whether the set of revocations is a hash that can be ours, or not there. Raises `RedisError`."""
    if await redis.type(KEY) not in (b"hash", b"none"):
        return False
    try:
        size = await redis.memory_usage(KEY, samples=0)
    except ResponseError:  # a login that may not ask; what is read is read in small pieces
        return True
    return size is None or size <= MOST_SET_BYTES
