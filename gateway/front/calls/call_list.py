"""The list of calls, page by page: those that have not ended, then the others, the newest first in both.

The registry has every call; Redis adds where each stands now, its turns and how it sounds.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any, Final

from gateway.store.call_cause import judged
from gateway.store.call_headers import CallHeaders
from gateway.store.call_search import CallSearch
from gateway.store.known_call import KnownCall, whole_call
from gateway.store.refused_calls import RefusedCalls
from gateway.store.registry import CallRow, Registry
from gateway.store.sessions import Sessions

_CURSOR: Final = re.compile(r"([oe])~([0-9]{1,12}\.[0-9]{1,6})~([A-Za-z0-9._~-]{1,64})", re.ASCII)


class CallList:
    """Of all gateways that share the registry."""

    def __init__(self, registry: Registry, sessions: Sessions) -> None:
        self._registry = registry
        self._sessions = sessions

    async def page(
        self, search: CallSearch, count: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The calls found, `count` at most, and the cursor of the next page; None: there is none.

        A call that ends between two pages may stand on both. Raises `ValueError` for a cursor that is none of
        ours, `RegistryError`, and `RedisError` or `OSError` while Redis is away.
        """
        rows = await asyncio.to_thread(self._rows, search, count + 1, _read(cursor))
        more, rows = len(rows) > count, rows[:count]
        ids = [row.call_id for row in rows]
        facts = await self._sessions.heads(ids)
        living = await self._sessions.living() if any(row.ended_at is None for row in rows) else set()
        shown = [
            KnownCall.of(row, facts.get(row.call_id, {}), lives=row.call_id in living).shown() for row in rows
        ]
        return shown, _cursor(rows[-1]) if more else None

    async def one(self, call_id: str) -> dict[str, Any] | None:
        """A call with its turns and events, as long as Redis has them, and what was wrong with it.

        None when no such call was entered, nor refused. Raises as `page` does.
        """
        record = await self._sessions.show(call_id)
        call = await asyncio.to_thread(self._whole, call_id, record)
        return None if call is None else {**call, **judged(call)}

    async def course(self, call_id: str) -> dict[str, Any] | None:
        """What is known of a call's course: itself, what was wrong, its sound, its SIP and its log lines.

        None when nobody knows of it. Raises as `page` does.
        """
        call, sound, ladder, log = await asyncio.gather(
            self.one(call_id),
            self._sessions.sound(call_id),
            self._sessions.ladder(call_id),
            self._sessions.log(call_id),
        )
        if call is None and not ladder and not log:
            return None
        known = {"call_id": call_id, "state": "unknown"} if call is None else call
        verdict = judged(known)
        shown = {name: value for name, value in known.items() if name not in verdict}
        return {"call": shown, **verdict, "sound": sound, "ladder": ladder, "log": log}

    def _whole(self, call_id: str, record: dict[str, Any] | None) -> dict[str, Any] | None:
        """What SQL has of a call, beside what Redis says. Blocks."""
        row = self._registry.get(call_id)
        if record is not None:
            return whole_call(row, record)
        if row is None:
            return whole_call(None, None, RefusedCalls(self._registry).of(call_id))
        return whole_call(row, None, headers=CallHeaders(self._registry).of(call_id))

    def _rows(self, search: CallSearch, count: int, at: tuple[bool, float, str] | None) -> list[CallRow]:
        """Two queries at most, each by an index."""
        rows: list[CallRow] = []
        if search.ended is not True and (at is None or not at[0]):
            after = None if at is None else at[1:]
            rows = list(self._registry.find(replace(search, ended=False), count, after))
        if search.ended is not False and len(rows) < count:
            after = at[1:] if at is not None and at[0] else None
            rows += self._registry.find(replace(search, ended=True), count - len(rows), after)
        return rows


def _read(cursor: str | None) -> tuple[bool, float, str] | None:
    """Whether it stands among those that ended, when it began, its id."""
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise ValueError("that is not a cursor of this list")
    return found[1] == "e", float(found[2]), found[3]


def _cursor(row: CallRow) -> str:
    return f"{'o' if row.ended_at is None else 'e'}~{row.started_at:.6f}~{row.call_id}"
