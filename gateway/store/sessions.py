"""The living state of calls, in Redis or Valkey: one hash and one event stream per call.

    vg:call:<id>      hash    state, who called whom, route, voice, how it ended
    vg:events:<id>    stream  what happened, in order; each entry {kind, at, data (JSON)}
    vg:history:<id>   list    items of the conversation, to restore it on a new engine or hall
    vg:live           zset    living calls by when they were last known to live
    vg:ended          zset    ended calls by when they ended
    vg:writer:<name>  string  number of a writer's last batch, so that a retry is not applied twice

Writers never wait: a write goes into a bounded queue (`gateway.store.session_writer`) that survives a Redis
that is slow, restarting or away. Everything has a TTL, refreshed while the call lives.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from consent.grants.redis_watch import RedisWatch
from gateway.errors import StartError
from gateway.store.session_writer import Command, Writer

LIVE: Final = "vg:live"
ENDED: Final = "vg:ended"
STALE_S: Final = 45.0
"""A living call that was not refreshed for this long is lost: its hall is gone."""
REFRESH_S: Final = 10.0
MAX_EVENTS: Final = 2000
MAX_HISTORY_ITEMS: Final = 64
MAX_HISTORY_BYTES: Final = 4 << 20
MAX_ENDED: Final = 10_000
MAX_READ: Final = 10_000
"""Calls that are read at once, whatever stands in Redis."""
CALL_ID: Final = re.compile(r"[0-9A-Za-z_.:-]{1,128}", re.ASCII)
"""What an id of ours may look like; other members of our sets are a stranger's."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of either side.

    `latency_ms` splits a reply's delay by stage: for example endpoint, engine, first_audio, marking, line,
    total. `text` is None where nothing transcribed it, or where the plan keeps no transcript.
    """

    who: str
    """`caller` or `bot`."""
    text: str | None = None
    intent: str | None = None
    duration_s: float | None = None
    heard_s: float | None = None
    """How much of a bot's turn was really played."""
    interrupted: bool = False
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The turn as a history keeps it: what is None is left out, times are rounded."""
        table = {
            "who": self.who,
            "text": self.text,
            "intent": self.intent,
            "duration_s": _rounded(self.duration_s),
            "heard_s": _rounded(self.heard_s),
            "interrupted": self.interrupted or None,
            "latency_ms": {stage: round(ms, 1) for stage, ms in self.latency_ms.items()} or None,
        }
        return {key: value for key, value in table.items() if value is not None}


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What Redis knows of a call. `facts` is its hash; times are seconds since the epoch."""

    call_id: str
    facts: dict[str, str]
    events: tuple[dict[str, Any], ...] = ()

    @property
    def state(self) -> str:
        """Where the call stands: ringing, answered, talking, …, ended; `unknown` when Redis does not say."""
        return self.facts.get("state", "unknown")

    def number(self, key: str) -> float | None:
        """A fact that is a finite number; None when it is not there, or is anything else."""
        try:
            number = float(self.facts[key])
        except (KeyError, ValueError):
            return None
        return number if math.isfinite(number) else None

    @property
    def turns(self) -> tuple[dict[str, Any], ...]:
        """The turns among the events, the oldest first."""
        return tuple({"at": event["at"], **event["data"]} for event in self.events if event["kind"] == "turn")

    @property
    def spoken(self) -> dict[str, float]:
        """Seconds that a call which has ended was spoken to under each of its grants, by jti."""
        kept = _json_of(self.facts.get("spoken", "{}"))
        found = kept.items() if isinstance(kept, dict) else ()
        return {jti: float(seconds) for jti, seconds in found if isinstance(seconds, int | float)}

    def to_json(self, *, events: bool = False) -> dict[str, Any]:
        """The call for the API and the command line.

        `offer` is left out: it is for a hall that takes the call up.
        """
        facts = {key: value for key, value in self.facts.items() if key != "offer"}
        table: dict[str, Any] = {**facts, "call_id": self.call_id}
        for key in ("started_at", "answered_at", "ended_at", "spoken_s", "jitter_ms"):
            _keep(table, key, self.number(key))
        for key in ("turns", "underruns", "packets", "lost"):
            number = self.number(key)
            _keep(table, key, None if number is None else int(number))
        for key in ("disclosed", "spoken"):
            if key in facts:
                _keep(table, key, _json_of(facts[key]))
        if events:
            table["turns"] = list(self.turns)
            table["events"] = list(self.events)
        return table


class Session:
    """One call's pen. No method waits or fails: the writer counts what cannot be kept."""

    def __init__(self, call_id: str, sessions: Sessions) -> None:
        self.call_id = call_id
        self._sessions = sessions
        self._history: deque[int] = deque()
        """Sizes of the items kept, the oldest first."""

    @property
    def key(self) -> str:
        """The call's hash in Redis."""
        return f"vg:call:{self.call_id}"

    def opened(self, **facts: object) -> None:
        """Notes that the call is here: who called whom, its route, voice, line, source.

        Facts that are None are left out.
        """
        now = time.time()
        self._sessions._living.add(self.call_id)
        self._put(
            ("HSET", self.key, "state", "ringing", "started_at", f"{now:.3f}", *_flat(facts)),
            ("ZADD", LIVE, f"{now:.3f}", self.call_id),
            self._event("opened", facts, now),
            *self._ttl(),
            important=True,
        )

    def resumed(self) -> None:
        """Notes that a new hall took this call over.

        Its history may be in Redis already (`Sessions.history`).
        """
        self._sessions._living.add(self.call_id)
        self._put(("ZADD", LIVE, f"{time.time():.3f}", self.call_id), *self._ttl(), important=True)

    def state(self, state: str, **facts: object) -> None:
        """Notes the call's state: ringing, answered, talking, transferring, …; `answered` also notes when."""
        now = time.time()
        if state == "answered":
            facts = {"answered_at": f"{now:.3f}", **facts}
        self._put(
            ("HSET", self.key, "state", state, *_flat(facts)),
            self._event("state", {"state": state, **facts}, now),
            important=True,
        )

    def note(self, **facts: object) -> None:
        """Notes facts that changed, such as voice, codec or line."""
        self._put(("HSET", self.key, *_flat(facts)), important=True)

    def event(self, kind: str, **data: object) -> None:
        """Notes an event that may be lost while Redis is away: DTMF, barge-in, hold, an alarm."""
        self._put(self._event(kind, data, time.time()))

    def turn(self, turn: Turn, at: float | None = None) -> None:
        """Notes a turn among the events. `at`, seconds since the epoch, is when it began; None: now."""
        self._put(
            self._event("turn", turn.to_json(), time.time() if at is None else at),
            ("HINCRBY", self.key, "turns", "1"),
            important=True,
        )

    def remember(self, item: Mapping[str, Any]) -> None:
        """Keeps an item for restoring the conversation.

        The oldest items go when there are too many or too large ones.
        """
        body = json.dumps(item, separators=(",", ":"))
        self._history.append(len(body))
        key = f"vg:history:{self.call_id}"
        commands: list[Command] = [("RPUSH", key, body)]
        surplus = 0
        while len(self._history) > 1 and (
            len(self._history) > MAX_HISTORY_ITEMS or sum(self._history) > MAX_HISTORY_BYTES
        ):
            self._history.popleft()
            surplus += 1
        if surplus:
            commands.append(("LTRIM", key, str(-len(self._history)), "-1"))
        commands.append(("EXPIRE", key, self._sessions.ttl))
        self._put(*commands)

    def ended(self, how: str, *, at: float | None = None, **facts: object) -> None:
        """Notes that the call is over, and since when: now unless `at` says it, seconds since the epoch.

        From now on its TTL runs down; its conversation's items go at once.
        """
        now = time.time() if at is None else at
        self._sessions._living.discard(self.call_id)
        self._put(
            ("HSET", self.key, "state", "ended", "ended_at", f"{now:.3f}", "how", how, *_flat(facts)),
            self._event("ended", {"how": how, **facts}, now),
            ("ZREM", LIVE, self.call_id),
            ("ZADD", ENDED, f"{now:.3f}", self.call_id),
            ("ZREMRANGEBYRANK", ENDED, "0", str(-MAX_ENDED - 1)),
            ("UNLINK", f"vg:history:{self.call_id}"),
            ("HDEL", self.key, "offer"),
            *self._ttl(),
            important=True,
        )

    def _event(self, kind: str, data: Mapping[str, object], at: float) -> Command:
        known = {key: value for key, value in data.items() if value is not None and key != "offer"}
        entry = ("kind", kind, "at", f"{at:.3f}", "data", json.dumps(known, default=str))
        return ("XADD", f"vg:events:{self.call_id}", "MAXLEN", "~", str(MAX_EVENTS), "*", *entry)

    def _ttl(self) -> tuple[Command, ...]:
        ttl = self._sessions.ttl
        return (("EXPIRE", self.key, ttl), ("EXPIRE", f"vg:events:{self.call_id}", ttl))

    def _put(self, *commands: Command, important: bool = False) -> None:
        self._sessions.writer.put(commands, important=important)


class Sessions:
    """All calls' sessions of one process, and a reader of everybody's."""

    def __init__(self, redis: Redis, writer: Writer, watch: RedisWatch, ttl_s: float) -> None:
        self.redis = redis
        self.watch = watch
        """Whether this process reaches Redis: for others who talk to the same one."""
        self._read: Any = redis  # its types know neither decode_responses nor our shapes
        self.writer = writer
        self.ttl = str(max(1, round(ttl_s)))
        self._living: set[str] = set()

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
        sessions = cls(redis, Writer(redis, name or secrets.token_hex(6), watch), watch, ttl_s)
        sessions.writer.start(sessions._refresh, every_s=REFRESH_S)
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
        return Session(call_id, self)

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
        read = [event for _, fields in entries if (event := _event_of(fields)) is not None]
        events = tuple(sorted(read, key=lambda event: event["at"]))  # a turn is noted when it is over
        return CallRecord(call_id, facts, events)

    async def history(self, call_id: str) -> list[dict[str, Any]]:
        """The conversation's items, the oldest first; what is no item of one is left out."""
        kept = await self._read.lrange(f"vg:history:{call_id}", -MAX_HISTORY_ITEMS, -1)
        return [item for text in kept if isinstance(item := _json_of(text), dict)]

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
        async with self._read.pipeline(transaction=False) as pipe:
            for call_id in ids:
                pipe.hgetall(f"vg:call:{call_id}")
            found = await pipe.execute(raise_on_error=False)  # a key of another type spoils no other call's
        calls = zip(ids, found, strict=True)
        return {
            call_id: CallRecord(call_id, facts).to_json()
            for call_id, facts in calls
            if isinstance(facts, dict) and facts
        }

    async def _living_ids(self) -> list[str]:
        return _ours(await self._read.zrangebyscore(LIVE, time.time() - STALE_S, "+inf", 0, MAX_READ))

    def _refresh(self) -> None:
        """Says of each living call that it lives; called by the writer every `REFRESH_S`."""
        now = f"{time.time():.3f}"
        for call_id in self._living:
            keys = (f"vg:call:{call_id}", f"vg:events:{call_id}", f"vg:history:{call_id}")
            self.writer.put((("ZADD", LIVE, now, call_id), *(("EXPIRE", key, self.ttl) for key in keys)))


def _ours(ids: Sequence[str]) -> list[str]:
    """Those that can be ids of calls."""
    return [call_id for call_id in ids if CALL_ID.fullmatch(call_id)]


def _keep(table: dict[str, Any], key: str, value: object) -> None:
    """Puts a value that could be read; what could not be read is left out."""
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _json_of(text: str) -> Any:
    """What `text` says; None when it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _event_of(fields: Mapping[str, str]) -> dict[str, Any] | None:
    """An entry of a call's stream; None for what is not one."""
    data = _json_of(fields.get("data", ""))
    try:
        at = float(fields["at"])
    except (KeyError, ValueError):
        return None
    if not math.isfinite(at) or "kind" not in fields or not isinstance(data, dict):
        return None
    return {"at": at, "kind": fields["kind"], "data": data}


def _flat(facts: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        part
        for key, value in facts.items()
        if value is not None
        for part in (key, value if isinstance(value, str) else json.dumps(value))
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
