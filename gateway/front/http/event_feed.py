"""`GET /api/events`: what happens in calls, as server-sent events (HTML Standard §9.2), for as long as one
listens.

    ?call_id=…            of one call
    ?type=…&type=…        of some types
    ?after=start | ID     from the oldest that is kept, or after that one; without it, from now on
    Last-Event-ID: ID     what a browser sends by itself when its connection broke; it goes before `after`

Each event has its `id`, its type as `event` and its JSON as `data`. Who asks for what is not kept any more is
told so by an event `gap`, once, before those that are. A listener costs a place, and no memory: events are
read from disk at its pace. One that takes nothing for a while is told so in a last comment, and let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventPage, EventShelf, KeptEvent
from gateway.front.http.problems import refusal
from gateway.store.call_events import TYPES
from gateway.store.sessions import CALL_ID
from model.tasks import Tasks, race

log = structlog.get_logger("http")

LISTENERS: Final = 64
"""Who may listen at once."""
HEARTBEAT_S: Final = 15.0
TAKEN_WITHIN_S: Final = 10.0
"""How long a listener may take nothing of what waits for it."""
LET_GO_S: Final = 30.0
"""How long the last comment waits for it."""
AT_ONCE: Final = 32
"""Events that are sent together, and wait for it: 2 MB at most."""
AGAIN_MS: Final = 2000
"""When a browser that lost its connection comes again."""
AWAY_S: Final = 1.0

Bell = Callable[[], asyncio.Event]


class EventFeed:
    """The listeners. `bell` rings when there is more on the shelf; then there is another one."""

    def __init__(self, shelf: EventShelf, bell: Bell) -> None:
        self._shelf = shelf
        self._bell = bell
        self._tasks = Tasks()
        self._over = asyncio.Event()
        self.listening = 0
        self.let_go = 0
        """listeners that took nothing for too long"""

    def route(self) -> Route:
        """Where they come."""
        return Route("/api/events", self.serve)

    def close(self) -> None:
        """Sends all of them away, and takes no more: the front stops."""
        self._over.set()

    async def serve(self, request: Request) -> Response:
        """The stream; 400 when what is asked for is not known, 503 when there is no place."""
        asked = request.query_params
        types = tuple(dict.fromkeys(asked.getlist("type")))
        if wrong := next((one for one in types if one not in TYPES), None):
            return refusal(400, f"there is no type {wrong[:40]!r}; docs/events.md has them")
        call_id = asked.get("call_id")
        if call_id is not None and not CALL_ID.fullmatch(call_id):
            return refusal(400, "that is not a call's id")
        if self.listening >= LISTENERS or self._over.is_set():
            return refusal(503, f"{LISTENERS} listen already, or the gateway stops", retry_after_s=5)
        try:
            begin = await asyncio.to_thread(
                self._begin, request.headers.get("last-event-id") or asked.get("after")
            )
        except ShelfError as error:
            log.error("events.not_read", error=str(error))
            return refusal(503, "the events cannot be read", retry_after_s=2)
        if begin is None:
            return refusal(400, "after is `start`, or an event's id")
        return _Listening(self, begin, call_id, types)

    def _begin(self, after: str | None) -> tuple[int, str | None] | None:
        """Where to begin, and after which id there is a gap; None for what is not an id. Blocks."""
        shelf = self._shelf
        if not after:
            return shelf.last(), None
        forgotten = shelf.forgotten()
        if after == "start":
            return forgotten, None
        number = shelf.number_of(after)
        if number is None:
            series, dash, digits = after.partition("-")
            if not dash or not series.isalnum() or not digits.isdigit() or len(after) > 64:
                return None
            return forgotten, after  # of another file, that is no more
        return (forgotten, after) if number < forgotten else (number, None)

    async def listen(
        self, begin: tuple[int, str | None], call_id: str | None, types: tuple[str, ...], send: Send
    ) -> None:
        """Sends what is asked for until the front stops, or the listener takes nothing."""
        place, gap_after = begin
        series = self._shelf.series
        self.listening += 1
        try:
            text = f"retry: {AGAIN_MS}\n: events from here on\n\n"
            if gap_after is not None:
                text += told_gap(gap_after)
            while True:
                bell = self._bell()
                page = await self._page(place, call_id, types)
                if self._shelf.series != series:  # another file, whose numbers begin anew
                    text += told_gap(f"{series}-{place}")
                    series, place = self._shelf.series, 0
                    continue
                text += "".join(told(event) for event in page.events)
                place = page.upto
                if text and not await self._taken(text, send):
                    return
                text = ""
                if page.events:
                    continue
                heard, over = await race(bell.wait(), self._over.wait(), within_s=HEARTBEAT_S)
                if over is not None:
                    await self._say_last(": the gateway stops; come again\n\n", send)
                    return
                if heard is None:
                    text = ": still here\n\n"
        finally:
            self.listening -= 1

    async def _page(self, place: int, call_id: str | None, types: tuple[str, ...]) -> EventPage:
        while True:
            try:
                asked = partial(self._shelf.after, place, call_id=call_id, types=types, count=AT_ONCE)
                return await asyncio.to_thread(asked)
            except ShelfError:
                await asyncio.sleep(AWAY_S)

    async def _taken(self, text: str, send: Send) -> bool:
        """Whether the listener took it in time."""
        sending = self._tasks.short(_send(text, send), "events.send")
        try:
            done, _ = await asyncio.wait((sending,), timeout=TAKEN_WITHIN_S)
            if done:
                await sending
                return True
            self.let_go += 1
            log.info("events.let_go", why="it took nothing for too long")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LET_GO_S):
                    await asyncio.shield(sending)
                    await self._say_last(": you were too slow; come again, with Last-Event-ID\n\n", send)
            return False
        finally:
            sending.cancel()

    async def _say_last(self, text: str, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_S):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": False})


class _Listening(Response):
    """One listener's answer."""

    media_type = "text/event-stream"

    def __init__(
        self, feed: EventFeed, begin: tuple[int, str | None], call_id: str | None, types: tuple[str, ...]
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._asked = (begin, call_id, types)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        listened, _ = await race(self._feed.listen(*self._asked, send), _gone(receive))
        if listened is not None:
            listened.result()


async def _send(text: str, send: Send) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def told(event: KeptEvent) -> str:
    """An event on the wire. JSON has no bare line end, so that one line holds it."""
    body = json.dumps(event.to_json(), separators=(",", ":"), ensure_ascii=False)
    body = body.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    return f"id: {event.id}\nevent: {event.type}\ndata: {body}\n\n"


def told_gap(after: str) -> str:
    """That some events after this id are not kept any more."""
    return f"event: gap\ndata: {json.dumps({'type': 'gap', 'version': 1, 'after': after})}\n\n"
