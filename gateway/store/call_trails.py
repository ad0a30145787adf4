"""Lists kept beside a call in Redis: its SIP messages (the ladder) and its lines of the log.

    vg:ladder:<id>  vg:ladder_late:<id>  lists of JSON; the first entries, and the last ones
    vg:log:<id>     vg:log_late:<id>

Of a call with too many entries the first and the last are kept, and the reader says how many are missing
between them. Of many calls with many entries the oldest calls' lists go. Entries are unimportant writes, live
as long as the call does in Redis, and are judged when they are read: a stranger may have written them.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from redis.exceptions import ResponseError

from gateway.ipc.wire_message import PROTOCOLS, WireMessage
from gateway.store.call_record import read_json
from gateway.store.living_calls import LivingCalls, ladder_keys, log_keys
from gateway.store.session_writer import Command

LADDER_BYTES: Final = 32 << 20
"""Of all calls' ladders that one process keeps in Redis; the embedded one has 256 MB for everything."""
LOG_BYTES: Final = 8 << 20
LADDER_OF_CALL: Final = 1 << 20
"""Bytes of one call's ladder: half of them its first messages', half its last ones'."""
LOG_OF_CALL: Final = 256 << 10
FIRST_MESSAGES: Final = 150
LAST_MESSAGES: Final = 50
FIRST_LINES: Final = 200
LAST_LINES: Final = 100
MAX_CALLS: Final = 20_000
"""Calls whose lists one process counts, however small they are."""
MAX_TEXT: Final = 4096
"""Characters of one message."""
MAX_FIELDS: Final = 1024
"""Bytes of one line of the log, as JSON."""
MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a process of the house wrote to its log."""

    at: float
    process: str
    level: str
    event: str
    fields: dict[str, Any]


@dataclass(slots=True)
class _Kept:
    """What this process put into one call's lists. `expires_at` is monotonic."""

    count: int
    begins_late: bool
    """its list of first entries takes no more"""
    early_size: int = 0
    late: deque[int] = field(default_factory=deque)
    """bytes of each entry that the list of last ones holds"""
    late_size: int = 0
    expires_at: float = 0.0

    @property
    def size(self) -> int:
        return self.early_size + self.late_size


class TrailPen:
    """The pen of one kind of list, for all calls. Never waits or fails.

    `first` and `last` entries of a call are kept, of each kind half of `of_call` bytes; `most_bytes` of all
    calls': the oldest calls' lists are deleted for newer ones.
    """

    def __init__(
        self,
        living: LivingCalls,
        kind: Literal["ladder", "log"],
        *,
        first: int,
        last: int,
        of_call: int,
        most_bytes: int,
    ) -> None:
        self._living = living
        self._keys = ladder_keys if kind == "ladder" else log_keys
        self._first = first
        self._last = last
        self._half = of_call // 2
        self._most_bytes = most_bytes
        self._ttl_s = int(living.ttl)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._size = 0
        self.forgotten = 0
        """calls whose lists were deleted for newer ones"""

    def message(self, call_id: str, message: WireMessage, *, under_way: bool = False) -> None:
        """Puts a message on the ladder. `under_way`: the call began before this process did."""
        entry = {
            "at": round(message.at, 4), "from": message.sender, "to": message.receiver,
            "protocol": message.protocol, "first": message.first, "text": message.text,
        }  # fmt: skip
        self._put(call_id, entry, under_way=under_way, left_out=message.left_out)

    def line(self, call_id: str, line: LogLine) -> None:
        """Puts a line on the call's log."""
        entry = {
            "at": round(line.at, 4), "process": line.process, "level": line.level, "event": line.event,
            "fields": line.fields,
        }  # fmt: skip
        self._put(call_id, entry)

    def _put(
        self, call_id: str, entry: dict[str, Any], *, under_way: bool = False, left_out: int = 0
    ) -> None:
        kept = self._kept.get(call_id)
        if kept is None:
            kept = self._kept[call_id] = _Kept(self._first if under_way else 0, under_way)
        kept.count += left_out
        kept.expires_at = time.monotonic() + self._ttl_s
        text = json.dumps({"n": kept.count, **entry}, separators=(",", ":"), default=str)
        kept.count += 1
        if self._living.crowded:
            return  # the reader sees by the numbers that it is missing
        before = kept.size
        early, late = self._keys(call_id)
        if kept.count > self._first or kept.early_size + len(text) > self._half:
            kept.begins_late = True
        key = late if kept.begins_late else early
        commands: list[Command] = [("RPUSH", key, text)]
        if key is late:
            commands.append(("LTRIM", late, str(-self._last_with(kept, len(text))), "-1"))
        else:
            kept.early_size += len(text)
            if kept.count in (1, self._first):  # a process before this one may have put many there
                commands.append(("LTRIM", early, "0", str(self._first - 1)))
        self._size += kept.size - before
        # each time: of several writes any may be lost, and what has no TTL stays for good
        self._living.put(*commands, ("EXPIRE", key, self._living.ttl))
        self._make_room()

    def _last_with(self, kept: _Kept, size: int) -> int:
        """How many of the last entries stay beside one more of that size."""
        kept.late.append(size)
        kept.late_size += size
        stay = self._last  # some may be of a process before this one
        while len(kept.late) > stay:
            kept.late_size -= kept.late.popleft()
        while kept.late_size > self._half and len(kept.late) > 1:
            kept.late_size -= kept.late.popleft()
            stay = len(kept.late)
        return stay

    def _make_room(self) -> None:
        while len(self._kept) > 1:
            oldest, kept = next(iter(self._kept.items()))
            over = kept.expires_at <= time.monotonic()
            if not over and self._size <= self._most_bytes and len(self._kept) <= MAX_CALLS:
                return
            del self._kept[oldest]
            self._size -= kept.size
            if not over:
                self.forgotten += 1
                self._living.put(("UNLINK", *self._keys(oldest)))


async def read_trail(redis: Any, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A call's entries in their order, each with `left_out` where some before it were not kept.

    What is not an entry of ours is left out. Raises `RedisError` or `OSError`.
    """
    found: list[dict[str, Any]] = []
    following: int | None = None
    for key in keys:
        try:
            texts = await redis.lrange(key, 0, FIRST_LINES - 1)
        except ResponseError:  # somebody made something else of the key
            continue
        for entry in _read(texts):
            number = entry.pop("n", None)
            if isinstance(number, int):
                if following is not None and number > following:
                    entry["left_out"] = number - following
                following = number + 1
            found.append(entry)
    return found


def _read(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for text in texts:
        entry = read_json(text)
        if isinstance(entry, dict) and _is_time(entry.get("at")):
            yield entry


def _is_time(at: object) -> bool:
    return isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at)


def shown_message(entry: dict[str, Any]) -> dict[str, Any] | None:
    """An entry of a ladder as readers get it; None for what is not one."""
    texts = {name: entry.get(name) for name in ("from", "to", "protocol", "first", "text")}
    if not all(isinstance(text, str) for text in texts.values()) or texts["protocol"] not in PROTOCOLS:
        return None
    longest = {"text": MAX_TEXT}
    shown: dict[str, Any] = {name: str(text)[: longest.get(name, MAX_NAME)] for name, text in texts.items()}
    return {"at": float(entry["at"]), **shown, **_gap(entry)}


def shown_line(entry: dict[str, Any]) -> dict[str, Any] | None:
    """An entry of a log as readers get it; None for what is not one."""
    texts = {name: entry.get(name) for name in ("process", "level", "event")}
    fields = entry.get("fields")
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(fields, dict):
        return None
    shown: dict[str, Any] = {name: str(text)[:MAX_NAME] for name, text in texts.items()}
    return {"at": float(entry["at"]), **shown, "fields": fields, **_gap(entry)}


def _gap(entry: dict[str, Any]) -> dict[str, int]:
    left_out = entry.get("left_out")
    return {"left_out": left_out} if isinstance(left_out, int) and not isinstance(left_out, bool) else {}
