"""A write-behind queue to Redis: the caller never waits, order is kept, a retry is applied once.

When Redis is slow or away, writes wait here. When `capacity` of them wait, unimportant ones are refused and
counted; important ones have a reserve beyond it. Nothing is logged per write: one line when the trouble
begins, one when it ends (`consent.grants.redis_watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from consent.grants.redis_watch import Backoff, RedisWatch
from model.tasks import Tasks

Command = tuple[str, ...]
"""A Redis command as its words."""

BATCH: Final = 256
"""Commands sent at once."""
WRITER_TTL_S: Final = 3600
"""How long Redis remembers a writer's last batch: longer than any retry after a lost answer."""
PASSING: Final = (BusyLoadingError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
"""Refusals that a later try may not meet."""
PASSING_WORDS: Final = ("MISCONF", "NOREPLICAS")
"""What others of them begin with: Redis' own disk is full; its replicas are away."""

log = structlog.get_logger("sessions")


class Writer:
    """`capacity` counts writes (each of a few commands); `lost` those refused or given up."""

    def __init__(
        self, redis: Redis, name: str, watch: RedisWatch, *, capacity: int = 8192, reserve: int = 8192
    ) -> None:
        self._redis = redis
        self._watch = watch
        self._key = f"vg:writer:{name}"
        self._capacity = capacity
        self._reserve = reserve
        self._waiting: deque[tuple[Command, ...]] = deque()
        self._batch: list[tuple[Command, ...]] = []
        """Taken from the queue, not yet known to be applied."""
        self._number = 0
        self._singly = 0
        """How many writes still go one by one, because one of them spoiled its batch."""
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks = Tasks()
        self._refreshers = Tasks()
        self._full = False
        self._down = False
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Writes not yet in Redis."""
        return len(self._waiting) + len(self._batch)

    @property
    def crowded(self) -> bool:
        """So much waits that what can be missed should leave the rest of the room to others."""
        return 2 * self.waiting >= self._capacity

    @property
    def down(self) -> bool:
        """True while Redis does not take writes."""
        return self._down

    def put(self, commands: Iterable[Command], *, important: bool = False) -> None:
        """Applies `commands` together, after everything put before. Never waits, never fails."""
        limit = self._capacity + (self._reserve if important else 0)
        if self.waiting >= limit:
            self.lost += 1
            if not self._full:
                self._full = True
                log.error("sessions.full", waiting=self.waiting, remedy="see why Redis takes no writes")
            return
        self._waiting.append(tuple(commands))
        self._empty.clear()
        self._wake.set()

    def start(self, refresh: Callable[[], None] | None = None, every_s: float = 10.0) -> None:
        """Begins to write; calls `refresh` every `every_s`."""
        self._tasks.lasting(self._run, "sessions.write")
        if refresh is not None:
            self._refreshers.lasting(lambda: self._refreshing(refresh, every_s), "sessions.refresh")

    async def flush(self) -> None:
        """Waits until everything put so far is in Redis."""
        await self._empty.wait()

    async def close(self, timeout_s: float) -> int:
        """Waits at most `timeout_s` for the last writes. Returns how many were lost in this writer's life."""
        await self._refreshers.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        await self._tasks.stop()
        if self.waiting:
            log.error("sessions.unwritten", writes=self.waiting)
            self.lost += self.waiting
        return self.lost

    async def _refreshing(self, refresh: Callable[[], None], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if not self._down:
                refresh()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            await self._wake.wait()
            if not self._batch:
                self._take()
            try:
                await self._write()
            except (RedisError, OSError, TimeoutError) as error:
                if isinstance(error, ResponseError) and not _passes(error):
                    self._split(error)
                    continue
                self._note_down(error)
                await asyncio.sleep(backoff.pause_s())
                continue
            backoff.reset()
            self._note_up()
            self._rest()

    def _take(self) -> None:
        commands = 0
        while self._waiting and commands < BATCH:
            write = self._waiting.popleft()
            self._batch.append(write)
            commands += len(write)
            if self._singly:
                self._singly -= 1
                break
        self._number += 1

    async def _write(self) -> None:
        """One transaction that also notes its number: a batch whose answer was lost is not applied again."""
        if self._down and await self._is_applied():
            self._batch.clear()
            return
        async with self._redis.pipeline(transaction=True) as pipe:
            for write in self._batch:
                for command in write:
                    pipe.execute_command(*command)
            pipe.set(self._key, self._number, ex=WRITER_TTL_S)
            results = await pipe.execute(raise_on_error=False)
        commands = [command for write in self._batch for command in write]
        for command, result in zip(commands, results, strict=False):
            if isinstance(result, Exception):  # the others were applied all the same
                self._refused(command, result)
        self._batch.clear()

    async def _is_applied(self) -> bool:
        try:
            return bool(await self._redis.get(self._key) == str(self._number))
        except ResponseError as error:
            if _passes(error):
                raise
            return False  # somebody made something else of the key; what is set there next is ours again

    def _split(self, error: ResponseError) -> None:
        """The transaction was refused for good and none of it applied: find the write that is at fault."""
        if len(self._batch) == 1:
            self._refused(self._batch[0][0], error)
        else:
            self._singly = len(self._batch)
            self._waiting.extendleft(reversed(self._batch))
        self._batch.clear()
        self._rest()

    def _refused(self, command: Command, error: Exception) -> None:
        self.lost += 1
        log.error("sessions.refused", command=command[:2], error=_said(error))

    def _rest(self) -> None:
        if not self._waiting:
            self._wake.clear()
            self._empty.set()

    def _note_down(self, error: Exception) -> None:
        self._down = True
        told = type(error)(_said(error)) if isinstance(error, ResponseError) else error
        self._watch.failed("sessions", told)

    def _note_up(self) -> None:
        self._down = False
        self._watch.reached("sessions")
        if self._full and self.waiting < self._capacity:
            self._full = False
            log.warning("sessions.took_again", lost=self.lost)


def _passes(error: ResponseError) -> bool:
    """Whether a later try may not meet this refusal."""
    return isinstance(error, PASSING) or _said(error).startswith(PASSING_WORDS)


def _said(error: Exception) -> str:
    """What Redis said, without the command that redis-py puts before it: that may hold a caller's words."""
    _, annotated, said = str(error).rpartition(" caused error: ")
    return said.lstrip("('\"").rstrip(",)'\"") if annotated else said
