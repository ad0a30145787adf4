"""The front's side of revocations: looks into the ledger, and tells Redis and whoever else asks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from consent.grants.grant import GrantVerifier
from consent.grants.redis_watch import Backoff, RedisWatch
from consent.grants.revocation import KEY, Revocation, RevocationList, publish
from consent.grants.revocation_feed import ANSWER_S, is_readable

LOOK_S: Final = 0.2
"""How often the front looks into the ledger for withdrawn voices."""
STALE_S: Final = 1.0
"""A look that is older leaves it in doubt which voices are withdrawn."""
RECHECK_ROUNDS: Final = 25
"""Rounds (5 s) between readings of Redis' own set, which somebody may have emptied or spoilt."""
A_READING: Final = 500
"""Fields of the set that are asked for at once."""

log = structlog.get_logger("consent")


class RevocationDesk:
    """Knows every voice that was withdrawn, wherever it was done, and tells Redis of it.

    The ledger is what counts: it is looked at every `LOOK_S`, so a revocation by the command line, by phone
    or by another host's front reaches every hall within a second, and a Redis that lost the set, or had it
    taken away or spoilt, gets it again. Looking does not wait for Redis, nor Redis for looking. The desk
    holds no key: what it passes on was signed by the office.
    """

    def __init__(
        self,
        redis_url: str,
        withdrawn: Callable[[], Sequence[Revocation]],
        verifier: GrantVerifier,
        watch: RedisWatch | None = None,
    ) -> None:
        """`withdrawn` looks into the ledger, and blocks; `verifier` has the office's public keys."""
        self._url = redis_url
        self._watch = RedisWatch(redis_url) if watch is None else watch
        self._withdrawn = withdrawn
        self._read = RevocationList(verifier)
        self._known: dict[str, Revocation] = {}
        self._news = asyncio.Event()
        self._looked_at: float | None = None
        self.series = secrets.token_hex(8)
        """Names the order in which this desk learnt of the voices; another desk's is another."""
        self.published = 0
        self.failed = 0
        """Looks and rounds that raised what nobody expected."""
        self.ledger_doubt: str | None = "the ledger has not been looked at"
        """Why the ledger cannot be looked at; None: it was, just now."""
        self.redis_doubt: str | None = "Redis has not been told"
        """Why Redis may not know what it should; None: it does."""

    async def run(self) -> None:
        """Until cancelled; comes back to a Redis or a database that went."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_on())
            group.create_task(self._publish_on())

    # ── what is known ────────────────────────────────────────────────────────────────────────────────

    def since(self, number: int, most: int) -> list[Revocation]:
        """At most `most` of the withdrawn voices from `number` on, in the order in which they were learnt."""
        return list(islice(self._known.values(), max(0, number), max(0, number) + most))

    def looked_ago_s(self) -> float | None:
        """How old the last good look into the ledger is; None when there was none."""
        return None if self._looked_at is None else asyncio.get_running_loop().time() - self._looked_at

    @property
    def ledger_is_read(self) -> bool:
        """Whether the last good look is of now."""
        ago_s = self.looked_ago_s()
        return ago_s is not None and ago_s <= STALE_S + LOOK_S

    async def news(self, within_s: float) -> None:
        """Waits until another voice is withdrawn, at most `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()

    # ── the ledger ───────────────────────────────────────────────────────────────────────────────────

    async def _look_on(self) -> None:
        # a thread of its own, so that a look waits for no other work of the front
        thread = ThreadPoolExecutor(1, thread_name_prefix="withdrawn")
        try:
            await self._look_by(thread)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _look_by(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                began = loop.time()
                gone = await loop.run_in_executor(thread, self._withdrawn)
                self._looked_at = began
                self._take(gone)
                if self.ledger_doubt is not None:
                    self.ledger_doubt = None
                    log.info("revocations.certain", way="ledger", known=len(self._known))
            except Exception as error:  # a database, a ledger that does not verify, or a mistake: look again
                self.failed += 1
                why = f"{type(error).__name__}: {error}"[:200]
                if self.ledger_doubt != why:  # once, not at every look
                    log.error("revocations.in_doubt", way="ledger", error=why)
                self.ledger_doubt = why
            await asyncio.sleep(LOOK_S)

    def _take(self, gone: Sequence[Revocation]) -> None:
        before = len(self._known)
        for revocation in gone:
            if revocation.voice_hash not in self._known:
                log.warning("voice.withdrawn", voice=revocation.voice, reason=revocation.reason)
            self._known[revocation.voice_hash] = revocation  # signed anew after the key was rotated
        if len(self._known) != before:
            self._news.set()
            self._news = asyncio.Event()

    # ── Redis ────────────────────────────────────────────────────────────────────────────────────────

    async def _publish_on(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._tell_redis(backoff)
            except (RedisError, OSError, TimeoutError) as error:
                self._doubt_redis(error)
                self._watch.failed("withdrawals", error)
            except Exception as error:  # of a client that choked on an answer: connect anew
                self.failed += 1
                self._doubt_redis(error)
                log.error("revocations.desk_failed", error=self.redis_doubt)
            await asyncio.sleep(backoff.pause_s())

    def _doubt_redis(self, error: BaseException) -> None:
        self.redis_doubt = f"{type(error).__name__}: {error}"[:200]

    async def _tell_redis(self, backoff: Backoff) -> None:
        """One connection's life; always ends with an error."""
        redis: Any = Redis.from_url(
            self._url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        told: set[str] = set()
        try:
            for rounds in range(1 << 62):
                if rounds % RECHECK_ROUNDS == 0:
                    told = await self._held(redis)
                    self._watch.reached("withdrawals")
                    self.redis_doubt = None
                    backoff.reset()
                if len(told) < len(self._known):
                    for revocation in [one for one in self._known.values() if one.voice_hash not in told]:
                        await publish(redis, revocation)
                        told.add(revocation.voice_hash)
                        self.published += 1
                await self.news(LOOK_S)
        finally:
            with contextlib.suppress(Exception):  # a connection that is broken already
                await redis.aclose()

    async def _held(self, redis: Any) -> set[str]:
        """Which of the known voices Redis has a good token of. A key that is not our set is made anew."""
        if not await is_readable(redis):
            log.error("revocations.replaced", key=KEY, why="it is of another type, or far too large")
            await redis.delete(KEY)
            return set()
        hashes, held = list(self._known), set()
        for at in range(0, len(hashes), A_READING):
            asked = hashes[at : at + A_READING]
            for voice_hash, value in zip(asked, await redis.hmget(KEY, asked), strict=True):
                if value is not None and self._is_good(voice_hash, value):
                    held.add(voice_hash)
            await asyncio.sleep(0)
        return held

    def _is_good(self, voice_hash: str, value: object) -> bool:
        if value == self._known[voice_hash].token.encode():
            return True
        try:
            return self._read.read(value).voice_hash == voice_hash  # of another host's front
        except Exception:  # a stranger's bytes in a field of ours: it is written again
            return False
