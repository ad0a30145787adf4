"""A call's pen: what a process notes of one call in Redis, without ever waiting for it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from gateway.store.call_events import CallData, Turn
from gateway.store.living_calls import LIVE, LivingCalls
from gateway.store.session_writer import Command
from gateway.store.sound_track import sound_key

ENDED: Final = "vg:ended"
MAX_EVENTS: Final = 2000
MAX_HISTORY_ITEMS: Final = 64
MAX_HISTORY_BYTES: Final = 4 << 20
MAX_ENDED: Final = 10_000
TOLD: Final = "vg:told"
"""What happened in all calls, in order, until the front has taken it (`gateway.front.events`)."""
MAX_TOLD: Final = 50_000
"""Of what no front takes, the newest so many are kept."""


class Session:
    """One call's pen. No method waits or fails: the writer counts what cannot be kept."""

    def __init__(self, call_id: str, living: LivingCalls) -> None:
        self.call_id = call_id
        self._living = living
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
        self._living.begin(self.call_id)
        self._living.put(
            ("HSET", self.key, "state", "ringing", "started_at", f"{now:.3f}", *_flat(facts)),
            ("ZADD", LIVE, f"{now:.3f}", self.call_id),
            *self._events("opened", facts, now),
            *self._ttl(),
            important=True,
        )

    def resumed(self) -> None:
        """Notes that a new hall took this call over.

        Its history may be in Redis already (`Sessions.history`).
        """
        self._living.begin(self.call_id)
        self._living.put(("ZADD", LIVE, f"{time.time():.3f}", self.call_id), *self._ttl(), important=True)

    def state(self, state: str, **facts: object) -> None:
        """Notes the call's state: ringing, answered, talking, transferring, …; `answered` also notes when."""
        now = time.time()
        if state == "answered":
            facts = {"answered_at": f"{now:.3f}", **facts}
        self._living.put(
            ("HSET", self.key, "state", state, *_flat(facts)),
            *self._events("state", {"state": state, **facts}, now),
            important=True,
        )

    def note(self, **facts: object) -> None:
        """Notes facts that changed, such as voice, codec or line."""
        self._living.put(("HSET", self.key, *_flat(facts)), important=True)

    def event(self, kind: str, **data: object) -> None:
        """Notes an event that may be lost while Redis is away: DTMF, barge-in, hold, an alarm."""
        self._living.put(*self._events(kind, data, time.time()))

    def tell(self, event: CallData, *, important: bool = False) -> None:
        """Notes an event that others than `voicegate calls show` are promised; `important`: as `turn` is."""
        self._living.put(*self._events(event.kind, event.noted(), time.time()), important=important)

    def turn(self, turn: Turn, at: float | None = None) -> None:
        """Notes a turn among the events. `at`, seconds since the epoch, is when it began; None: now."""
        self._living.put(
            *self._events(turn.kind, turn.to_json(), time.time() if at is None else at),
            ("HINCRBY", self.key, "turns", "1"),
            important=True,
        )

    def sound(self, row: str) -> None:
        """Keeps a row of the call's sound track (`gateway.store.sound_track`); one that is lost is a gap.

        While Redis is away, rows take half of the queue at most: the other half is for events.
        """
        if self._living.crowded:
            return
        key = sound_key(self.call_id)
        self._living.put(("RPUSH", key, row), ("EXPIRE", key, self._living.ttl))

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
        commands.append(("EXPIRE", key, self._living.ttl))
        self._living.put(*commands)

    def ended(self, how: str, *, at: float | None = None, **facts: object) -> None:
        """Notes that the call is over, and since when: now unless `at` says it, seconds since the epoch.

        From now on its TTL runs down; its conversation's items go at once.
        """
        now = time.time() if at is None else at
        self._living.end(self.call_id)
        self._living.put(
            ("HSET", self.key, "state", "ended", "ended_at", f"{now:.3f}", "how", how, *_flat(facts)),
            *self._events("ended", {"how": how, **facts}, now),
            ("ZREM", LIVE, self.call_id),
            ("ZADD", ENDED, f"{now:.3f}", self.call_id),
            ("ZREMRANGEBYRANK", ENDED, "0", str(-MAX_ENDED - 1)),
            ("UNLINK", f"vg:history:{self.call_id}"),
            ("HDEL", self.key, "offer"),
            *self._ttl(),
            important=True,
        )

    def _events(self, kind: str, data: Mapping[str, object], at: float) -> tuple[Command, ...]:
        """An entry of the call's own stream, and the same of everybody's, which the front empties."""
        known = {key: value for key, value in data.items() if value is not None and key != "offer"}
        entry = ("kind", kind, "at", f"{at:.3f}", "data", json.dumps(known, default=str))
        return (
            ("XADD", f"vg:events:{self.call_id}", "MAXLEN", "~", str(MAX_EVENTS), "*", *entry),
            ("XADD", TOLD, "MAXLEN", "~", str(MAX_TOLD), "*", "call", self.call_id, *entry),
        )

    def _ttl(self) -> tuple[Command, ...]:
        ttl = self._living.ttl
        return (
            ("EXPIRE", self.key, ttl),
            ("EXPIRE", f"vg:events:{self.call_id}", ttl),
            ("EXPIRE", TOLD, ttl),
            ("EXPIRE", sound_key(self.call_id), ttl),
        )


def _flat(facts: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        part
        for key, value in facts.items()
        if value is not None
        for part in (key, value if isinstance(value, str) else json.dumps(value))
    )
