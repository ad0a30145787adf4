"""The living state of calls, in Redis or Valkey: one hash and one event stream per call.

    vg:call:<id>      hash    state, who called whom, route, voice, how it ended
    vg:events:<id>    stream  what happened, in order; each entry {kind, at, data (JSON)}
    vg:history:<id>   list    items of the conversation, to restore it on a new engine or hall
    vg:sound:<id>     list    how loud both sides were, step by step (`gateway.store.sound_track`)
    vg:ladder:<id>    list    its SIP messages, and vg:log:<id> its log's lines (`gateway.store.call_trails`)
    vg:live           zset    living calls by when they were last known to live
    vg:ended          zset    ended calls by when they ended
    vg:writer:<name>  string  number of a writer's last batch, so that a retry is not applied twice

Writers never wait: a write goes into a bounded queue (`gateway.store.session_writer`) that survives a Redis
that is slow, restarting or away. Everything has a TTL, refreshed while the call lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from consent.grants.redis_watch import RedisWatch
from gateway.errors import StartError
from gateway.store.call_record import CallRecord, read_event, read_json
from gateway.store.call_session import ENDED, MAX_EVENTS, MAX_HISTORY_ITEMS, Session
from gateway.store.call_trails import (
    FIRST_LINES,
    FIRST_MESSAGES,
    LADDER_BYTES,
    LADDER_OF_CALL,
    LAST_LINES,
    LAST_MESSAGES,
    LOG_BYTES,
    LOG_OF_CALL,
    TrailPen,
    read_trail,
    shown_line,
    shown_message,
)
from gateway.store.living_calls import LIVE, REFRESH_S, STALE_S, LivingCalls, ladder_keys, log_keys
from gateway.store.session_writer import Writer
from gateway.store.sound_track import MAX_ROWS, read_track, sound_key

MAX_READ: Final = 10_000
"""Calls that are read at once, whatever stands in Redis."""
CALL_ID: Final = re.compile(r"[0-9A-Za-z_.:-]{1,128}", re.ASCII)
"""What an id of ours may look like; other members of our sets are a stranger's."""


class Sessions:
    """All calls' sessions of one process, and a reader of everybody's."""

    def __init__(self, redis: Redis, writer: Writer, watch: RedisWatch, ttl_s: float) -> None:
        self.redis = redis
        self.watch = watch
        """Whether this process reaches Redis: for others who talk to the same one."""
        self._read: Any = redis  # its types know neither decode_responses nor our shapes
        self.writer = writer
        self._living = LivingCalls(writer, ttl_s)

    @classmethod
    async def open(cls, url: str, *, ttl_s: float = 86_400.0, name: str | None = None) -> Self:
        """Begins to write to `url` (redis://, rediss://, unix://), also when nobody answers there yet.

        Raises `StartError` when it is not such a URL. Close it, so that the last writes arrive.
        """
        try:
            redis = Redis.from_url(
                url,
                decode_responses=True,
                encoding_errors="replace",  # a stranger's bytes spoil no other answer
                socket_timeout=2.0,
                socket_connect_timeout=1.0,
                retry=Retry(NoBackoff(), 0),  # the writer retries, and it knows what was applied
            )
        except ValueError as error:
            raise StartError(f"VOICEGATE_REDIS_URL: {error}") from None
        watch = RedisWatch(url)
        writer = Writer(redis, name or secrets.token_hex(6), watch)
        sessions = cls(redis, writer, watch, ttl_s)
        writer.start(sessions._living.refresh, every_s=REFRESH_S)
        return sessions

    def counters(self) -> dict[str, int]:
        """Figures for the metrics: living calls of this process, writes waiting, writes lost."""
        return {"living": len(self._living), "waiting": self.writer.waiting, "lost": self.writer.lost}

    async def close(self, timeout_s: float = 2.0) -> int:
        """Waits for the last writes, then closes. Returns how many were lost (0 is what you want)."""
        lost = await self.writer.close(timeout_s)
        await self.redis.aclose()
        return lost

    async def ready(self) -> bool:
        """Whether Redis answers now, and in time."""
        with contextlib.suppress(TimeoutError):
            return await self.asked_ready()
        return False

    async def asked_ready(self) -> bool:
        """Whether Redis answers now. Raises `TimeoutError` when it says nothing."""
        try:
            return bool(await self.redis.ping())
        except RedisTimeout as error:
            raise TimeoutError(str(error)) from None
        except (RedisError, OSError):
            return False

    def session(self, call_id: str) -> Session:
        """The pen of one call."""
        return Session(call_id, self._living)

    def ladders(self, most_bytes: int = LADDER_BYTES) -> TrailPen:
        """The pen of calls' SIP messages."""
        return TrailPen(
            self._living, "ladder", first=FIRST_MESSAGES, last=LAST_MESSAGES, of_call=LADDER_OF_CALL,
            most_bytes=most_bytes,
        )  # fmt: skip

    def logs(self, most_bytes: int = LOG_BYTES) -> TrailPen:
        """The pen of calls' lines of the log."""
        return TrailPen(
            self._living,
            "log",
            first=FIRST_LINES,
            last=LAST_LINES,
            of_call=LOG_OF_CALL,
            most_bytes=most_bytes,
        )

    async def live(self) -> list[dict[str, Any]]:
        """Living calls as JSON, the oldest first. Raises `RedisError` or `OSError`, as all readers do."""
        calls = (await self.heads(await self._living_ids())).values()
        return sorted(calls, key=lambda call: call.get("started_at", 0.0))

    async def living(self) -> set[str]:
        """The ids of all living calls."""
        return set(await self._living_ids())

    async def recent(self, count: int = 50) -> list[dict[str, Any]]:
        """Ended calls as JSON, the latest first."""
        ids = _ours(await self._read.zrevrange(ENDED, 0, min(count, MAX_READ) - 1))
        return list((await self.heads(ids)).values())

    async def show(self, call_id: str) -> dict[str, Any] | None:
        """A call as JSON, with its `turns` and `events`; None when Redis does not know it (any more)."""
        record = await self.get(call_id)
        return record.to_json(events=True) if record else None

    async def get(self, call_id: str) -> CallRecord | None:
        """All that Redis knows of a call; None when it does not know it (any more)."""
        facts = await self._read.hgetall(f"vg:call:{call_id}")
        if not facts:
            return None
        try:
            entries = await self._read.xrange(f"vg:events:{call_id}", count=2 * MAX_EVENTS)
        except ResponseError:  # somebody made something else of the key
            entries = []
        read = [event for _, fields in entries if (event := read_event(fields)) is not None]
        events = tuple(sorted(read, key=lambda event: event["at"]))  # a turn is noted when it is over
        return CallRecord(call_id, facts, events)

    async def history(self, call_id: str) -> list[dict[str, Any]]:
        """The conversation's items, the oldest first; what is not an item of one is left out."""
        kept = await self._read.lrange(f"vg:history:{call_id}", -MAX_HISTORY_ITEMS, -1)
        return [item for text in kept if isinstance(item := read_json(text), dict)]

    async def sound(self, call_id: str) -> dict[str, Any]:
        """A call's sound track as JSON (`SoundTrack.to_json`); no parts where there is none (any more)."""
        try:
            rows = await self._read.lrange(sound_key(call_id), 0, MAX_ROWS - 1)
        except ResponseError:  # somebody made something else of the key
            rows = []
        return await asyncio.to_thread(lambda: read_track(rows).to_json())  # four hours of it take .2 s

    async def ladder(self, call_id: str) -> list[dict[str, Any]]:
        """A call's SIP messages (a browser's HTTP), the first one first; empty when Redis knows none.

        Each is `{"at": seconds since the epoch, "from", "to", "protocol", "first": its first line, "text"}`,
        with `left_out` where so many before it were not kept. Parties are `caller`, `us`, a trunk or a user.
        """
        return [shown for entry in await read_trail(self._read, ladder_keys(call_id))
                if (shown := shown_message(entry)) is not None]  # fmt: skip

    async def log(self, call_id: str) -> list[dict[str, Any]]:
        """A call's lines of the log, in order of time.

        Each is `{"at": seconds since the epoch, "process", "level", "event", "fields": {…}}`.
        """
        lines = [shown for entry in await read_trail(self._read, log_keys(call_id))
                 if (shown := shown_line(entry)) is not None]  # fmt: skip
        return sorted(lines, key=lambda line: float(line["at"]))

    async def stale(self) -> list[str]:
        """Living calls that nobody refreshes any more."""
        return _ours(await self._read.zrangebyscore(LIVE, "-inf", time.time() - STALE_S, 0, MAX_READ))

    async def begun_before(self, before: float) -> list[str]:
        """Living calls, stale or not, that were there before that time."""
        ids = _ours(await self._read.zrange(LIVE, 0, MAX_READ - 1))
        heads = (await self.heads(ids)).values()
        return [call["call_id"] for call in heads if call.get("started_at", 0.0) < before]

    async def last_seen(self, call_id: str) -> float | None:
        """When a living call was last known to live, seconds since the epoch; None when it does not live."""
        score = await self._read.zscore(LIVE, call_id)
        return None if score is None or not math.isfinite(score) else float(score)

    async def heads(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The calls of these ids as JSON, by id and in their order; those that Redis knows."""
        return (await self.seen(ids, ()))[0]

    async def seen(
        self, ids: Sequence[str], undecided: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """`heads` of these ids, and those of the `undecided` that live, in one exchange."""
        async with self._read.pipeline(transaction=False) as pipe:
            for call_id in ids:
                pipe.hgetall(f"vg:call:{call_id}")
            for call_id in undecided:
                pipe.zscore(LIVE, call_id)
            found = await pipe.execute(raise_on_error=False)  # a key of another type spoils no other call's
        fresh = time.time() - STALE_S
        scores = zip(undecided, found[len(ids) :], strict=True)
        living = {call_id for call_id, score in scores if isinstance(score, float) and score >= fresh}
        return _heads(ids, found[: len(ids)]), living

    async def _living_ids(self) -> list[str]:
        return _ours(await self._read.zrangebyscore(LIVE, time.time() - STALE_S, "+inf", 0, MAX_READ))


def _heads(ids: Sequence[str], found: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """What was found under each of these ids, where that is a call."""
    return {
        call_id: CallRecord(call_id, facts).to_json()
        for call_id, facts in zip(ids, found, strict=True)
        if isinstance(facts, dict) and facts
    }


def _ours(ids: Sequence[str]) -> list[str]:
    """Those that can be ids of calls."""
    return [call_id for call_id in ids if CALL_ID.fullmatch(call_id)]
