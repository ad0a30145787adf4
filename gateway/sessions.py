"""The living state of calls, in Redis or Valkey: one hash and one event stream per call.

    vg:call:<id>      hash    state, who called whom, route, voice, how it ended
    vg:events:<id>    stream  what happened, in order; each entry {kind, at, data (JSON)}
    vg:offer:<id>     string  what a new hall needs to take the call over (JSON); gone when the call ended
    vg:history:<id>   list    items of the conversation, to restore it on a new engine; gone likewise
    vg:live           zset    living calls by when they were last known to live
    vg:ended          zset    ended calls by when they ended
    vg:writer:<name>  string  number of a writer's last batch, so that a retry is not applied twice

Writers never wait: a write goes into a bounded queue (`gateway.session_writer`) that survives a Redis that is
slow, restarting or away. Everything has a TTL, refreshed while the call lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.dialplan_routes import Route
from gateway.errors import StartError
from gateway.session_writer import Command, Writer

LIVE: Final = "vg:live"
ENDED: Final = "vg:ended"
STALE_S: Final = 45.0
"""A living call that was not refreshed for so long is lost: its hall is gone."""
REFRESH_S: Final = 10.0
WATCH_S: Final = 1.0
MAX_EVENTS: Final = 2000
MAX_HISTORY_ITEMS: Final = 64
MAX_HISTORY_BYTES: Final = 4 << 20
MAX_ENDED: Final = 10_000
OFFERED: Final = (
    "call_id", "caller", "called", "display", "source", "transport", "user", "targets", "grant_refused",
    "payload", "at",
)  # fmt: skip
"""Of an offer, what Redis keeps beside its routes. The grant is a secret: a new hall asks for a new one."""


class Offer(Protocol):
    """What the front decided about a call (`gateway.hall.call.Offer`)."""

    call_id: str
    caller: str
    called: str
    display: str
    source: str
    transport: str
    user: str | None
    routes: dict[str, Route]
    first: str
    targets: dict[str, str]
    grant_refused: str | None
    payload: int
    at: float


class Session:
    """One call's pen. No method waits, none fails: what cannot be kept is counted by the writer.

    What was said and heard is written only when the route keeps transcripts.
    """

    def __init__(self, call_id: str, sessions: Sessions) -> None:
        self.call_id = call_id
        self.keeps_text = False
        self._sessions = sessions
        self._history: deque[int] = deque()
        """sizes of the items kept, the oldest first"""
        self._saying: tuple[str, str, float] | None = None
        """item, its text so far, since when: written once it is whole"""

    @property
    def key(self) -> str:
        return f"vg:call:{self.call_id}"

    def open(self, offer: Offer, *, resumed: bool = False) -> None:
        """The call is here, or, `resumed`, its hall is a new one."""
        now = time.time()
        route = offer.routes[offer.first]
        self.keeps_text = route.keep.transcript
        self._sessions._living.add(self.call_id)
        live: Command = ("ZADD", LIVE, f"{now:.3f}", self.call_id)
        if resumed:
            self._put(live, self._event("resumed", {}, now), *self._ttl(), important=True)
            return
        facts = {
            "state": "offered",
            "started_at": f"{offer.at:.3f}",
            "caller": offer.caller,
            "called": offer.called,
            "display": offer.display,
            "source": offer.source,
            "transport": offer.transport,
            "user": offer.user,
            "route": route.name,
            "voice": route.voice,
            "voice_refused": offer.grant_refused,
            "payload": f"{offer.payload:012x}",
        }
        others = [other for name, other in offer.routes.items() if name != offer.first]
        kept = {name: getattr(offer, name) for name in OFFERED}
        kept["routes"] = [each.to_json() for each in (route, *others)]
        self._put(
            ("HSET", self.key, *_flat(facts)),
            live,
            ("SET", f"vg:offer:{self.call_id}", json.dumps(kept), "EX", self._sessions.ttl),
            self._event("opened", {key: facts[key] for key in ("caller", "called", "route", "voice")}, now),
            *self._ttl(),
            important=True,
        )

    def state(self, state: str, **facts: object) -> None:
        """ringing, answered, confirmed, …; `answered` also notes when."""
        now = time.time()
        when = {"answered_at": f"{now:.3f}"} if state == "answered" else {}
        self._put(
            ("HSET", self.key, "state", state, *_flat({**when, **facts})),
            self._event("state", {"state": state, **facts}, now),
            important=True,
        )

    def note(self, **facts: object) -> None:
        """Facts that changed: voice, codec, line, …"""
        self._put(("HSET", self.key, *_flat(facts)), important=True)

    def event(self, kind: str, **data: object) -> None:
        """Something that may be lost when Redis stays away long: DTMF, barge-in, hold, an alarm."""
        self._put(self._event(kind, data, time.time()))

    def said(self, item: str, text: str) -> None:
        """The bot says `text`, all of the item's so far. Written once the item is whole."""
        now = time.time()
        if self._saying is not None and self._saying[0] == item:
            self._saying = (item, text, self._saying[2])
            return
        self._said_all()
        self._saying = (item, text, now)

    def heard(self, text: str | None, duration_s: float, confidence: float | None) -> None:
        """The caller spoke; `text` is None where nothing transcribes."""
        self._said_all()
        data = {"text": self._text(text), "duration_s": round(duration_s, 2), "confidence": confidence}
        self._put(self._event("heard", data, time.time()), important=True)

    def turn(
        self,
        number: int,
        *,
        heard: str | None,
        confidence: float | None,
        speech_s: float,
        latency: Mapping[str, float],
    ) -> None:
        """A caller's turn was answered. `latency`: seconds by stage, from the end of speech on."""
        data = {
            "number": number,
            "heard": self._text(heard),
            "confidence": confidence,
            "speech_s": round(speech_s, 2),
            "latency": {stage: round(seconds, 3) for stage, seconds in latency.items()},
        }
        count: Command = ("HSET", self.key, "turns", str(number))
        self._put(self._event("turn", data, time.time()), count, important=True)

    def remember(self, item: Mapping[str, Any]) -> None:
        """An item for restoring the conversation. The oldest go when there are too many or too large ones."""
        body = json.dumps(item, separators=(",", ":"))
        self._history.append(len(body))
        key = f"vg:history:{self.call_id}"
        commands: list[Command] = [("RPUSH", key, body)]
        kept = len(self._history)
        while len(self._history) > 1 and (
            len(self._history) > MAX_HISTORY_ITEMS or sum(self._history) > MAX_HISTORY_BYTES
        ):
            self._history.popleft()
        if len(self._history) < kept:
            commands.append(("LTRIM", key, str(-len(self._history)), "-1"))
        self._put(*commands, ("EXPIRE", key, self._sessions.ttl))

    def ended(self, how: str, **facts: object) -> None:
        """The call is over. From now on its TTL runs down; what could restore it goes at once."""
        self._said_all()
        now = time.time()
        self._sessions._living.discard(self.call_id)
        self._put(
            ("HSET", self.key, "state", "ended", "ended_at", f"{now:.3f}", "how", how, *_flat(facts)),
            self._event("ended", {"how": how, **facts}, now),
            ("ZREM", LIVE, self.call_id),
            ("ZADD", ENDED, f"{now:.3f}", self.call_id),
            ("ZREMRANGEBYRANK", ENDED, "0", str(-MAX_ENDED - 1)),
            ("UNLINK", f"vg:history:{self.call_id}", f"vg:offer:{self.call_id}"),
            *self._ttl(),
            important=True,
        )

    def _said_all(self) -> None:
        if self._saying is not None:
            item, text, at = self._saying
            self._saying = None
            self._put(self._event("said", {"item": item, "text": self._text(text)}, at), important=True)

    def _text(self, text: str | None) -> str | None:
        return text if self.keeps_text else None

    def _event(self, kind: str, data: Mapping[str, object], at: float) -> Command:
        body = json.dumps({key: value for key, value in data.items() if value is not None}, default=str)
        entry = ("kind", kind, "at", f"{at:.3f}", "data", body)
        return ("XADD", f"vg:events:{self.call_id}", "MAXLEN", "~", str(MAX_EVENTS), "*", *entry)

    def _ttl(self) -> tuple[Command, ...]:
        ttl = self._sessions.ttl
        return (("EXPIRE", self.key, ttl), ("EXPIRE", f"vg:events:{self.call_id}", ttl))

    def _put(self, *commands: Command, important: bool = False) -> None:
        self._sessions.writer.put(commands, important=important)


class Sessions:
    """The sessions of one process's calls, and a reader of everybody's.

    `url`: redis://, rediss:// or unix://; `ttl_s`: how long an ended call is remembered.
    Raises `StartError` when `url` is none.
    """

    def __init__(self, url: str, *, ttl_s: float = 86_400.0) -> None:
        try:
            self.redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=2.0,
                socket_connect_timeout=1.0,
                retry=Retry(NoBackoff(), 0),  # the writer retries, and it knows what was applied
            )
        except ValueError as error:
            raise StartError(f"VOICEGATE_REDIS_URL: {error}") from None
        self._read: Any = self.redis  # its types know neither decode_responses nor our shapes
        self.writer = Writer(self.redis, secrets.token_hex(6))
        self.ttl = str(max(1, round(ttl_s)))
        self._living: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self._answered = False

    async def start(self) -> None:
        """Begins to write, also when nobody answers yet. Stop it with `close`, so that all writes arrive."""
        self.writer.start(self._refresh, every_s=REFRESH_S)
        self._answered = await self.ready()
        self._watching = asyncio.create_task(self._watch())

    async def close(self, timeout_s: float = 2.0) -> int:
        """Waits for the last writes, then closes. Returns how many were lost (0 is what you want)."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        lost = await self.writer.close(timeout_s)
        await self.redis.aclose()
        return lost

    @property
    def connected(self) -> bool:
        """Whether Redis answered when it was last asked, a second ago at most."""
        return self._answered and not self.writer.down

    def counters(self) -> dict[str, int]:
        """For the metrics: living calls of this process, writes waiting, writes lost."""
        return {"living": len(self._living), "waiting": self.writer.waiting, "lost": self.writer.lost}

    async def ready(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(await self._read.ping())
        except (RedisError, OSError):
            return False

    def session(self, call_id: str) -> Session:
        return Session(call_id, self)

    async def live(self) -> list[dict[str, Any]]:
        """Living calls as JSON, the oldest first. Raises `RedisError` or `OSError`, as all readers do."""
        ids = await self._read.zrangebyscore(LIVE, time.time() - STALE_S, "+inf")
        return sorted(await self._heads(ids), key=lambda call: float(call.get("started_at", 0)))

    async def recent(self, count: int = 50) -> list[dict[str, Any]]:
        """Ended calls, the latest first."""
        return await self._heads(await self._read.zrevrange(ENDED, 0, count - 1))

    async def get(self, call_id: str) -> dict[str, Any] | None:
        """A call with its `events` and `turns`; None when Redis does not know it (any more)."""
        heads = await self._heads([call_id])
        if not heads:
            return None
        events = [
            {"at": float(entry["at"]), "kind": entry["kind"], "data": json.loads(entry["data"])}
            for _, entry in await self._read.xrange(f"vg:events:{call_id}")
        ]
        return {**heads[0], "turns": turns_of(events), "events": events}

    async def offer_of(self, call_id: str) -> dict[str, Any] | None:
        """What a new hall needs to take over a call that still lives: all of its offer but the grant."""
        kept = await self._read.get(f"vg:offer:{call_id}")
        return dict(json.loads(kept)) if kept else None

    async def history(self, call_id: str) -> list[dict[str, Any]]:
        """The conversation's items, the oldest first."""
        return [json.loads(item) for item in await self._read.lrange(f"vg:history:{call_id}", 0, -1)]

    async def reap(self) -> list[str]:
        """Ends the sessions that nobody refreshes any more; returns their calls."""
        ids: list[str] = await self._read.zrangebyscore(LIVE, "-inf", time.time() - STALE_S)
        for call_id in ids:
            self.session(call_id).ended("failed: its hall went away")
        return ids

    async def _heads(self, ids: list[str]) -> list[dict[str, Any]]:
        async with self._read.pipeline(transaction=False) as pipe:
            for call_id in ids:
                pipe.hgetall(f"vg:call:{call_id}")
            found = await pipe.execute()
        return [
            {"call_id": call_id, **{key: _number(key, value) for key, value in facts.items()}}
            for call_id, facts in zip(ids, found, strict=True)
            if facts
        ]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self._answered = await self.ready()

    def _refresh(self) -> None:
        """Says of each living call that it lives; called by the writer every `REFRESH_S`."""
        now = f"{time.time():.3f}"
        for call_id in self._living:
            keys = [f"vg:{kind}:{call_id}" for kind in ("call", "events", "offer", "history")]
            lives: Command = ("ZADD", LIVE, now, call_id)
            self.writer.put((lives, *(("EXPIRE", key, self.ttl) for key in keys)))


def turns_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who said what, in order; a caller's turn carries the latencies of its answer once that was heard."""
    turns: list[dict[str, Any]] = []
    for event in events:
        data = event["data"]
        if event["kind"] == "said":
            turns.append({"at": event["at"], "who": "bot", "text": data.get("text")})
        elif event["kind"] == "heard":
            turns.append({"at": event["at"], "who": "caller", "text": data.get("text"), **data})
        elif event["kind"] == "turn":
            asked = next((turn for turn in reversed(turns) if turn["who"] == "caller"), None)
            if asked is None or "latency" in asked:  # an engine that does not transcribe
                asked = {"at": event["at"], "who": "caller", "text": data.get("heard")}
                turns.append(asked)
            asked |= {"duration_s": data["speech_s"], "latency": data["latency"]}
    return turns


def _flat(facts: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        part
        for key, value in facts.items()
        if value is not None
        for part in (key, value if isinstance(value, str) else json.dumps(value))
    )


def _number(key: str, value: str) -> str | float | int:
    if key.endswith(("_at", "_s")):
        return float(value)
    return int(value) if key in ("turns", "underruns") else value
