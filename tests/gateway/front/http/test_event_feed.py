"""Listeners on the stream of events: over real HTTP, from where they were, and never at another's cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from gateway.config.settings import Settings
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf, NewEvent
from gateway.front.http import event_feed as module
from gateway.front.http.app import build_app
from gateway.front.http.event_feed import EventFeed
from gateway.store.call_events import CallAnswered, CallNote, CallOffered
from gateway.store.sip_users import console_token
from tests.gateway.front.http.test_app import TOKEN, FakeHouse
from tests.needs import HANGS_S


class Fed:
    """A feed behind a real server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = FakeHouse()
        self.shelf = EventShelf(folder / "events.db", 3600.0).open()
        self._bell = asyncio.Event()
        self.feed = EventFeed(self.shelf, lambda: self._bell)
        self.url = ""

    async def tell(self, *events: NewEvent) -> list[str]:
        kept = await asyncio.to_thread(self.shelf.keep, events)
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
        return [event.id for event in kept]

    async def calls(self, *call_ids: str) -> list[str]:
        return await self.tell(*(NewEvent(one, 5.0, CallOffered(caller="sip:bob@x")) for one in call_ids))

    @asynccontextmanager
    async def listens(self, query: str = "", **headers: str) -> AsyncIterator[Listener]:
        async with (
            httpx.AsyncClient(timeout=HANGS_S) as client,
            client.stream("GET", f"{self.url}/api/events{query}", headers=headers) as response,
        ):
            listener = Listener(response)
            if response.status_code == 200:
                assert await listener.next_part() == "retry: 2000\n: events from here on"
            yield listener


class Listener:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next_part(self) -> str:
        lines = []
        async for line in self._lines:
            if not line:
                return "\n".join(lines)
            lines.append(line)
        raise EOFError

    async def parts(self) -> AsyncIterator[str]:
        """To the end."""
        with contextlib.suppress(EOFError):
            while True:
                yield await self.next_part()

    async def event(self) -> dict[str, Any]:
        """The next one; comments are passed over."""
        while (part := await self.next_part()).startswith(":"):
            pass
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        told: dict[str, Any] = json.loads(fields["data"])
        assert fields["event"] == told["type"]
        assert fields.get("id") == told.get("id")
        return told

    async def calls(self, count: int) -> list[str]:
        return [(await self.event())["call_id"] for _ in range(count)]


@asynccontextmanager
async def feeding(tmp_path: Path) -> AsyncIterator[Fed]:
    made = Fed(tmp_path)
    settings = Settings(host="127.0.0.1", data_dir=tmp_path)
    app = build_app(made.house, settings, console_token(tmp_path), [made.feed.route()])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", log_config=None, lifespan="off"))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        serving = asyncio.create_task(server.serve([listener]))
        yield made
        made.feed.close()
        server.should_exit = True
        async with asyncio.timeout(HANGS_S):
            await serving
    made.shelf.close()


@pytest.fixture
async def fed(tmp_path: Path) -> AsyncIterator[Fed]:
    async with feeding(tmp_path) as made:
        yield made


async def test_a_listener_hears_what_happens_from_now_on(fed: Fed) -> None:
    await fed.calls("before")
    async with fed.listens() as listener:
        assert listener.response.headers["content-type"].startswith("text/event-stream")
        (event_id,) = await fed.calls("c1")
        event = await listener.event()
        assert (event["id"], event["type"], event["call_id"]) == (event_id, "call.offered", "c1")
        assert event["data"] == {"caller": "sip:bob@x"}
        await fed.calls("c2", "c3")
        assert await listener.calls(2) == ["c2", "c3"]


async def test_who_comes_again_goes_on_where_it_was(fed: Fed) -> None:
    ids = await fed.calls("c1", "c2", "c3")
    async with fed.listens(**{"Last-Event-ID": ids[0]}) as listener:
        assert await listener.calls(2) == ["c2", "c3"]
    async with fed.listens(f"?after={ids[1]}") as listener:
        assert await listener.calls(1) == ["c3"]
    async with fed.listens("?after=start") as listener:
        assert await listener.calls(3) == ["c1", "c2", "c3"]
    async with fed.listens("?after=start", **{"Last-Event-ID": ids[2]}) as listener:
        await fed.calls("c4")
        assert await listener.calls(1) == ["c4"], "the browser's own word goes first"


async def test_who_was_away_for_too_long_is_told_of_the_gap(fed: Fed) -> None:
    ids = await fed.calls("c1", "c2")
    with fed.shelf.file.writing() as connection:
        connection.execute("DELETE FROM events")
    (later,) = await fed.calls("c3")
    async with fed.listens(**{"Last-Event-ID": ids[0]}) as listener:
        part = await listener.next_part()
        assert part.split("\n")[0] == "event: gap"
        assert json.loads(part.split("data: ")[1]) == {"type": "gap", "version": 1, "after": ids[0]}
        assert (await listener.event())["id"] == later
    async with fed.listens(**{"Last-Event-ID": ids[1]}) as listener:
        assert (await listener.event())["id"] == later, "nothing is missing between"
    async with fed.listens(**{"Last-Event-ID": "0123456789abcdef-5"}) as listener:
        assert "gap" in await listener.next_part(), "an id of another house's file"


async def test_a_listener_hears_of_a_file_that_broke_and_then_what_happens(fed: Fed) -> None:
    """The numbers of the next file begin anew: nothing of it is taken for what was told already."""
    before = await fed.calls("c1", "c2", "c3")
    async with fed.listens("?after=start") as listener:
        assert await listener.calls(3) == ["c1", "c2", "c3"]
        fed.shelf.close()
        (fed.folder / "events.db").write_bytes(b"no database, " * 1000)
        with contextlib.suppress(ShelfError):  # unless the listener has met it first
            fed.shelf.last()
        after = await fed.calls("c4", "c5")
        gap = await listener.event()
        assert (gap["type"], gap["after"]) == ("gap", before[-1])
        assert [(await listener.event())["id"] for _ in after] == after
    async with fed.listens(**{"Last-Event-ID": before[1]}) as listener:
        assert (await listener.event())["type"] == "gap"
        assert await listener.calls(2) == ["c4", "c5"]


async def test_a_listener_may_ask_for_one_call_or_some_types(fed: Fed) -> None:
    await fed.tell(
        NewEvent("c1", 5.0, CallOffered()),
        NewEvent("c2", 5.0, CallOffered()),
        NewEvent("c1", 6.0, CallAnswered()),
        NewEvent("c2", 6.0, CallNote(what="hold")),
    )
    async with fed.listens("?after=start&call_id=c1") as listener:
        assert [(await listener.event())["type"] for _ in range(2)] == ["call.offered", "call.answered"]
    async with fed.listens("?after=start&type=call.answered&type=call.note") as listener:
        assert await listener.calls(2) == ["c1", "c2"]


@pytest.mark.parametrize(
    "query",
    ["?type=call.x", "?call_id=..%2Fx", "?after=x", "?after=" + "9" * 90, "?after=a-b", "?after=-"],
)
async def test_what_nobody_can_mean_is_refused(fed: Fed, query: str) -> None:
    async with fed.listens(query) as listener:
        assert listener.response.status_code == 400


async def test_there_are_only_so_many_places(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTENERS", 1)
    async with fed.listens(), fed.listens() as second:
        assert second.response.status_code == 503
        assert second.response.headers["retry-after"] == "5"
    async with asyncio.timeout(HANGS_S):
        while fed.feed.listening:  # noqa: ASYNC110  # the server tells nobody that a connection is over
            await asyncio.sleep(0.01)
    async with fed.listens() as third:
        assert third.response.status_code == 200


async def test_silence_is_filled(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    async with fed.listens() as listener:
        assert await listener.next_part() == ": still here"
        assert await listener.next_part() == ": still here"
        await fed.calls("c1")
        assert await listener.calls(1) == ["c1"]


async def test_a_front_that_stops_says_so(fed: Fed) -> None:
    async with fed.listens() as listener:
        fed.feed.close()
        assert await listener.next_part() == ": the gateway stops; come again"
        with pytest.raises(EOFError):
            await listener.next_part()


async def test_who_takes_nothing_is_let_go_and_told_why(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKEN_WITHIN_S", 0.2)
    big = CallNote(what="x", facts={"x": "y" * 30_000})
    await fed.tell(*(NewEvent("c1", 5.0, big) for _ in range(400)))
    async with fed.listens("?after=start") as slow:
        async with asyncio.timeout(HANGS_S):
            while not fed.feed.let_go:  # noqa: ASYNC110  # it is in the log alone
                await asyncio.sleep(0.02)
        async with fed.listens() as other:  # who is not slow hears all the same
            await fed.calls("c2")
            assert await other.calls(1) == ["c2"]
        parts = [part async for part in slow.parts()]
        assert parts[-1] == ": you were too slow; come again, with Last-Event-ID"
        assert 1 < len(parts) < 400


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[TestClient]:
    shelf = EventShelf(tmp_path / "events.db", 3600.0).open()
    feed = EventFeed(shelf, asyncio.Event)
    feed.close()
    app = build_app(FakeHouse(), Settings(host="0.0.0.0"), TOKEN, [feed.route()])
    with TestClient(app, base_url="http://192.0.2.7:8080") as client:
        yield client
    shelf.close()


def test_beyond_loopback_the_stream_wants_the_token(lan: TestClient) -> None:
    assert lan.get("/api/events").status_code == 401
    allowed = lan.get("/api/events", headers={"Authorization": f"Bearer {TOKEN}"})
    assert allowed.status_code == 503, "it came past the boundary, to a feed that is closed"
    assert lan.get("/api/events", headers={"Origin": "https://evil.example"}).status_code == 403
