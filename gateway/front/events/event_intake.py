"""Takes what happens in calls to the shelf: from Redis, where halls write it, and from this front.

What was read of Redis and what was kept are committed together, so that a front that dies anywhere goes on
where it was: nothing is lost, and nothing has two numbers. Only what is kept is deleted in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog
from redis.exceptions import RedisError, ResponseError

from gateway.front.events.call_detail import call_detail
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_reading import StrangeEntry, ToldEntry
from gateway.front.events.event_shelf import REMEDY, EventShelf, NewEvent
from gateway.ipc.ending import CallEnding
from gateway.store.call_events import CallData, CallNote, CallNotTaken, CallOffered, CallSettled, MessageLeft
from gateway.store.call_record import CallRecord
from gateway.store.call_session import TOLD
from gateway.store.registry import CallRow, Registry, RegistryError
from gateway.store.sessions import Sessions

log = structlog.get_logger("events")

AT_ONCE: Final = 200
WAIT_MS: Final = 1000
"""How long Redis is asked to wait for the next one; its client gives up after 2 s."""
PAUSE_S: Final = 1.0
"""Before the next try, when Redis or the disk does not answer."""
PLACE: Final = "redis"
WAITING: Final = 1024
"""Events of this front's own that may wait to be kept."""
REFUSED_EACH_S: Final = 20
"""Refused calls that are told in a second; of more, the next one tells how many they were."""
FORGET_S: Final = 60.0
DAY_S: Final = 86_400.0


class EventIntake:
    """Fills `shelf`. `recordings`: the folder of messages; `link`: where one is fetched, before its name."""

    def __init__(
        self,
        shelf: EventShelf,
        sessions: Sessions,
        registry: Registry,
        recordings: Path,
        link: str,
        alarm: Callable[[str], None],
    ) -> None:
        """`alarm` is told "events lost" when Redis had too many before a front took them, and "events not
        kept" when the disk begins to take none."""
        self._shelf = shelf
        self._sessions = sessions
        self._registry = registry
        self._recordings = recordings
        self._link = link.rstrip("/")
        self._own: deque[NewEvent] = deque()
        self._some = asyncio.Event()
        self._second = 0
        self._in_second = 0
        self._untold = 0
        self._away = False
        self._alarm = alarm
        self._taken = 0
        """entries of Redis' stream that were taken, or deleted by others, since there is that stream"""
        self.unreadable = 0
        self._bell = asyncio.Event()

    @property
    def _redis(self) -> Any:
        return self._sessions.redis  # its types know neither decode_responses nor our shapes

    def bell(self) -> asyncio.Event:
        """Rings when something is kept from now on."""
        return self._bell

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    # ── what this front has to tell itself ───────────────────────────────────────────────────────────

    def refused(self, call_id: str, at: float, event: CallNotTaken) -> bool:
        """A call was not taken. Never waits; False when there are too many to tell it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        if self._in_second >= REFUSED_EACH_S or len(self._own) >= WAITING:
            self._untold += 1
            return False
        self._in_second += 1
        if self._untold:
            known = event.to_json() | {"untold": self._untold}
            event, self._untold = CallNotTaken(**known), 0
        self._own.append(NewEvent(call_id, at, event))
        self._some.set()
        return True

    async def keep_own(self) -> None:
        """Keeps this front's own events, until cancelled."""
        while True:
            await self._some.wait()
            await self.keep_waiting()
            if self._own:
                await asyncio.sleep(PAUSE_S)

    async def keep_waiting(self) -> None:
        """Keeps those that wait now; they go on waiting while the disk takes none."""
        self._some.clear()
        batch = list(self._own)[:AT_ONCE]
        if batch and await self._kept(batch):
            for _ in batch:
                self._own.popleft()
        if self._own:
            self._some.set()

    # ── what halls tell ──────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Takes what Redis has, until cancelled. Redis, the disk or the registry may be away."""
        place, task = "", asyncio.current_task()
        while task is None or not task.cancelling():  # redis-py swallows a cancellation now and then
            try:
                place = place or await self._place()
                place = await self._take(place)
            except (RedisError, OSError):
                place = ""  # `RedisWatch` has told the log; it may come back with less than it had
                await asyncio.sleep(PAUSE_S)
            except ShelfError as error:
                place = ""
                self._disk_away(error)
                await asyncio.sleep(PAUSE_S)

    async def forget(self) -> None:
        """Deletes what is past its time, every minute, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._shelf.forget)
            except ShelfError as error:
                log.error("events.not_deleted", error=str(error))
            await asyncio.sleep(FORGET_S)

    async def _place(self) -> str:
        """Where to read on in Redis, by what the disk and Redis say."""
        place, _, count = (await asyncio.to_thread(self._shelf.place, PLACE)).partition(" ")
        place, self._taken = place or "0-0", int(count or -1)
        try:
            last = str((await self._redis.xinfo_stream(TOLD))["last-generated-id"])
            if _order(last) < _order(place):  # another Redis, or the same one without what it had
                place, self._taken = "0-0", -1
            await self._redis.xtrim(TOLD, minid=_next(place), approximate=False)
            stream = await self._redis.xinfo_stream(TOLD)
        except ResponseError:  # there is no stream: what comes begins a new one
            self._taken = 0
            return "0-0"
        gone = int(stream.get("entries-added", 0)) - int(stream["length"])
        if 0 <= self._taken < gone:
            why = "no front took them for too long: docs/events.md"
            log.error("events.lost", count=gone - self._taken, remedy=why)
            self._alarm("events lost")
        self._taken = gone
        return place

    async def _take(self, place: str) -> str:
        """Keeps the next ones; returns where to read on. Raises `RedisError`, `OSError`."""
        try:
            answer = await self._redis.xread({TOLD: place}, count=AT_ONCE, block=WAIT_MS)
        except ResponseError:  # somebody made something else of the key
            await asyncio.sleep(PAUSE_S)
            return place
        entries = answer[0][1] if answer else []
        if not entries:
            return place
        new: list[NewEvent] = []
        for _, fields in entries:
            try:
                told = ToldEntry.read(fields)
                new += [NewEvent(told.call_id, told.at, data) for data in await self._events(told, new)]
            except StrangeEntry:
                self.unreadable += 1
        last = str(entries[-1][0])
        if not await self._kept(new, (PLACE, f"{last} {self._taken + len(entries)}")):
            await asyncio.sleep(PAUSE_S)
            return place
        self._taken += len(entries)
        await self._redis.xdel(TOLD, *(entry for entry, _ in entries))
        return last

    async def _kept(self, new: list[NewEvent], place: tuple[str, str] | None = None) -> bool:
        try:
            await asyncio.to_thread(self._shelf.keep, new, place)
        except ShelfError as error:
            self._disk_away(error)
            return False
        if self._away:
            log.warning("events.kept_again")
        self._away = False
        self._ring()
        return True

    def _disk_away(self, error: ShelfError) -> None:
        """Said once, until it is back."""
        if not self._away:
            log.error("events.not_kept", error=str(error), remedy=REMEDY)
            self._alarm("events not kept")
        self._away = True

    async def _events(self, told: ToldEntry, before: list[NewEvent]) -> list[CallData]:
        """What an entry comes to. `before`: those of the same batch. Raises `StrangeEntry`, `RedisError`."""
        if told.kind == "recorded":
            return [await self._left(told)]
        if told.kind == "ended":
            return await self._over(told, before)
        return [told.event()]

    async def _left(self, told: ToldEntry) -> CallData:
        path, seconds = told.said.get("path"), told.said.get("seconds")
        if not isinstance(path, str) or not isinstance(seconds, int | float) or told.said.get("error"):
            facts = {name: value for name, value in told.said.items() if name != "path"}
            return CallNote(what="recorded", facts=facts)
        record = await self._record(told.call_id)
        return self._message(Path(path), float(seconds), record)

    def _message(
        self, path: Path, seconds: float, record: CallRecord | None, *, cut_short: bool | None = None
    ) -> MessageLeft:
        name = f"{path.parent.name}/{path.name}"
        facts = {} if record is None else record.facts
        return MessageLeft(
            recording=name, seconds=seconds, link=f"{self._link}/{quote(name)}",
            caller=facts.get("caller"), route=facts.get("route"), cut_short=cut_short,
        )  # fmt: skip

    async def _over(self, told: ToldEntry, before: list[NewEvent]) -> list[CallData]:
        """The end, with the CDR; before it a message of which its hall could not tell any more."""
        how = CallEnding.read(str(told.said.get("how", "")))
        record = await self._record(told.call_id)
        row = await asyncio.to_thread(self._row, told.call_id)
        messages = await asyncio.to_thread(self._shelf.messages, told.call_id)
        messages += sum(one.call_id == told.call_id and one.data.type == "message.left" for one in before)
        began = (row.started_at if row is not None else None) or told.at
        files = await asyncio.to_thread(self._files, told.call_id, began, told.at)
        untold = [self._message(path, _seconds(path), record, cut_short=True) for path in files[messages:]]
        detail = call_detail(told.call_id, how, told.at, record, row, max(messages, len(files)))
        begun: list[CallData] = []
        known = any(one.call_id == told.call_id for one in before)
        known = known or await asyncio.to_thread(self._shelf.knows, told.call_id)
        if row is not None and not known:
            begun.append(_offered(row))
        return [*begun, *untold, CallSettled(how=str(how), cdr=detail)]

    async def _record(self, call_id: str) -> CallRecord | None:
        try:
            return await self._sessions.get(call_id)
        except ResponseError:  # somebody made something else of the key
            return None

    def _row(self, call_id: str) -> CallRow | None:
        try:
            return self._registry.get(call_id)
        except RegistryError:
            return None

    def _files(self, call_id: str, began: float, ended: float) -> list[Path]:
        """The call's recordings, the oldest first."""
        days = {
            time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (began, ended, *_days_between(began, ended))
        }
        found: list[tuple[float, Path]] = []
        for path in (path for day in days for path in (self._recordings / day).glob(f"{call_id}-*.wav")):
            with contextlib.suppress(OSError):  # it is gone, or not ours
                state = path.stat()
                if state.st_size > HEADER:
                    found.append((state.st_mtime, path))
        return [path for _, path in sorted(found)]


def _offered(row: CallRow) -> CallOffered:
    """Of a call whose hall died before it could say that it has it."""
    return CallOffered(
        caller=row.caller, called=row.called, source=row.source, route=row.route, voice=row.voice
    )


def _days_between(began: float, ended: float) -> list[float]:
    """A moment of each day between; of a call that lasted longer than any may, of its last few."""
    return [ended - DAY_S * k for k in range(1, min(7, int((ended - began) / DAY_S) + 1))]


HEADER: Final = 44
"""Bytes of a WAV file before its sound."""
BYTES_EACH_S: Final = 48_000
"""24 kHz mono PCM16, as `gateway.hall.verbs.recording` writes it."""


def _seconds(path: Path) -> float:
    return round(max(0, path.stat().st_size - HEADER) / BYTES_EACH_S, 2)


def _order(place: str) -> tuple[int, int]:
    """An id of a stream, to be compared."""
    first, _, second = place.partition("-")
    return int(first), int(second or 0)


def _next(place: str) -> str:
    first, second = _order(place)
    return f"{first}-{second + 1}"
