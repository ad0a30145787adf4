"""The list of calls, page by page and in the order asked for (`gateway.store.call_order`).

The registry has every call; Redis adds where each stands now, its turns and how it sounds. While Redis says
nothing, the list does not know which calls still live, and says why.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from gateway.front.calls.list_cursor import ListCursor
from gateway.store.call_cause import judged
from gateway.store.call_headers import CallHeaders
from gateway.store.call_order import ORDERS, Sort
from gateway.store.call_search import CallSearch
from gateway.store.known_call import KnownCall, whole_call
from gateway.store.living_calls import STALE_S
from gateway.store.refused_calls import RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions
from gateway.store.sound_track import SoundTrack

MOST_COUNTED: Final = 10_000
"""Calls that are counted at most."""
SILENT: Final = "Redis does not answer"

Placed = tuple[int, CallRow]
"""A row, and in which part of the list it stands."""
Trail = list[dict[str, Any]]
"""A call's messages or log lines, as `Sessions.ladder` and `Sessions.log` have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsWanted:
    """A page that is asked for. `counted`: how many calls there are is to be told, too."""

    search: CallSearch = field(default_factory=CallSearch)
    sort: Sort = ""
    count: int = 100
    cursor: str | None = None
    counted: bool = False

    @property
    def kind(self) -> object:
        """What a cursor of this list is good for."""
        return "calls", self.sort, self.search


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCalls:
    """A page: calls as JSON, the cursors of the pages after and before it, None where there is none."""

    calls: list[dict[str, Any]]
    following: str | None = None
    preceding: str | None = None
    found: int | None = None
    """How many there are, `MOST_COUNTED` at most; None: it was not asked."""
    found_more: bool = False
    """Whether there are more than that."""
    silence: str | None = None
    """Why it is not known which calls live; None: it is."""

    def to_json(self) -> dict[str, Any]:
        """As the API tells it."""
        return {
            "calls": self.calls, "next": self.following, "previous": self.preceding,
            "found": self.found, "found_more": self.found_more, "silence": self.silence,
        }  # fmt: skip


class CallList:
    """Of all gateways that share the registry. `sessions` is None where Redis is not asked at all."""

    def __init__(self, registry: Registry, sessions: Sessions | None) -> None:
        self._registry = registry
        self._sessions = sessions

    async def page(self, wanted: CallsWanted) -> ListedCalls:
        """The calls found, in their order: two queries at most, three with the count, and one word to Redis.

        A call that ends between two pages may stand on both. Raises `ValueError` for a cursor that is none of
        this list's, `RegistryError`.
        """
        cursor = None if wanted.cursor is None else ListCursor.read(wanted.cursor, wanted.kind)
        placed, more = await asyncio.to_thread(self._rows, wanted, cursor)
        rows = [row for _, row in placed]
        places = [(part, row.call_id) for part, row in placed]
        following, preceding = ListCursor.around(cursor, places, wanted.kind, more=more)
        counted = await asyncio.to_thread(self._counted, wanted.search) if wanted.counted else None
        facts, living, silence = await self._said_of(rows)
        shown = [
            KnownCall.of(row, facts.get(row.call_id, {}), lives=row.call_id in living).shown() for row in rows
        ]
        return ListedCalls(
            calls=shown, following=following, preceding=preceding, silence=silence,
            found=None if counted is None else min(counted, MOST_COUNTED),
            found_more=counted is not None and counted > MOST_COUNTED,
        )  # fmt: skip

    async def one(self, call_id: str) -> dict[str, Any] | None:
        """A call by its id or its caller's SIP Call-ID, with its turns and events as long as Redis has them,
        and what was wrong with it; None when no such call was entered, nor refused.

        Raises `RegistryError`; `RedisError` or `OSError` where Redis alone could know it.
        """
        call = await self._known(call_id)
        return None if call is None else {**call, **judged(call)}

    async def _known(self, call_id: str) -> dict[str, Any] | None:
        """`one`, not judged yet."""
        row = await asyncio.to_thread(self._row, call_id)
        name = call_id if row is None else row.call_id
        record: dict[str, Any] | None = None
        away: Exception | None = None
        lives = False
        if self._sessions is not None:
            try:
                record = await self._sessions.show(name)
                seen_at = await self._sessions.last_seen(name) if record is not None else None
                lives = seen_at is not None and time.time() - seen_at <= STALE_S
            except (RedisError, OSError) as error:
                away = error
        call = await asyncio.to_thread(self._whole, name, row, record, lives)
        if call is None:
            if away is not None:
                raise away
            return None
        silent = away is not None or self._sessions is None
        return {**call, "silence": SILENT} if silent else call

    async def course(self, call_id: str) -> dict[str, Any] | None:
        """What is known of a call's course: itself, what was wrong, its sound, its SIP and its log lines.

        None when nobody knows of it. Raises as `one` does.
        """
        call = await self._known(call_id)
        known = {"call_id": call_id, "state": "unknown"} if call is None else call
        sound, ladder, log = await self._told_of(known["call_id"], is_needed=call is None)
        if call is None and not ladder and not log:
            return None
        return {"call": known, **judged(known), "sound": sound, "ladder": ladder, "log": log}

    async def _told_of(self, call_id: str, *, is_needed: bool) -> tuple[dict[str, Any], Trail, Trail]:
        """A call's sound track, messages and log lines; nothing while Redis is away, where that may be."""
        if self._sessions is not None:
            try:
                sound, ladder, log = await asyncio.gather(
                    self._sessions.sound(call_id), self._sessions.ladder(call_id), self._sessions.log(call_id)
                )
            except (RedisError, OSError):
                if is_needed:
                    raise
            else:
                return sound, ladder, log
        return SoundTrack().to_json(), [], []

    def _row(self, call_id: str) -> CallRow | None:
        return self._registry.get(call_id) or self._registry.by_sip_call_id(call_id)

    def _whole(
        self, call_id: str, row: CallRow | None, record: dict[str, Any] | None, lives: bool
    ) -> dict[str, Any] | None:
        """What SQL has of a call, beside what Redis says. Blocks."""
        if record is not None:
            return whole_call(row, record, lives=lives)
        if row is None:
            return whole_call(None, None, RefusedCalls(self._registry).of(call_id))
        return whole_call(row, None, headers=CallHeaders(self._registry).of(call_id))

    def _rows(self, wanted: CallsWanted, cursor: ListCursor | None) -> tuple[list[Placed], bool]:
        """The rows of a page, and whether there are more in the direction in which it was read."""
        parts = ORDERS[wanted.sort]
        at = cursor or ListCursor(False, 0, "")
        if at.part >= len(parts):
            raise ValueError("that is not a cursor of this list")
        found: list[Placed] = []
        numbers = range(at.part, -1, -1) if at.backwards else range(at.part, len(parts))
        for number in numbers:
            part, left = parts[number], wanted.count + 1 - len(found)
            if left > 0 and wanted.search.may_find(ended=part.ended):
                beyond = cursor.place if cursor is not None and number == at.part else None
                rows = self._registry.find(wanted.search, left, part, beyond, backwards=at.backwards)
                found += [(number, row) for row in rows]
        more = len(found) > wanted.count
        last_read = {placed[1].call_id: placed for placed in found}  # one may end between two questions
        found = [placed for placed in found if placed is last_read[placed[1].call_id]][: wanted.count]
        return (found[::-1] if at.backwards else found), more

    def _counted(self, search: CallSearch) -> int:
        return self._registry.matches(search, MOST_COUNTED + 1)

    async def _said_of(self, rows: list[CallRow]) -> tuple[dict[str, dict[str, Any]], set[str], str | None]:
        """What Redis says of these calls, which of them live, and why it says nothing."""
        if self._sessions is None:
            return {}, set(), SILENT
        if not rows:
            return {}, set(), None
        open_ones = [row.call_id for row in rows if row.ended_at is None]
        try:
            return *(await self._sessions.seen([row.call_id for row in rows], open_ones)), None
        except (RedisError, OSError):
            return {}, set(), SILENT
