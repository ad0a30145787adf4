"""A line's front and hall: joined, lost, joined again."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.runtime import Runtime
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hello import LineFacts
from gateway.ipc.line_messages import AskFailures, CallLeft, StopLine
from gateway.line import joined_house
from gateway.line.joined_house import Handling, JoinedHouse
from model.tasks import Tasks, failures
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall

AT_MOST_S = 10.0


class BareLine:
    """A line without calls that says what happens to it."""

    def __init__(self, runtime: Runtime) -> None:
        self.happened: asyncio.Queue[str] = asyncio.Queue()
        self.ticks: socket.socket | None = None
        self.house = JoinedHouse(self, runtime, "n0", TOKEN)

    def facts(self) -> LineFacts:
        return LineFacts("narrow", 8_000, "hall0", 4, ())

    def from_front(self) -> Handling:
        return []

    def from_hall(self) -> Handling:
        return []

    def hall_joined(self, ticks: socket.socket) -> None:
        self.ticks = ticks
        self.happened.put_nowait("joined")

    def ticks_lost(self, ticks: socket.socket) -> None:
        assert ticks is self.ticks
        assert ticks.fileno() >= 0, "it can still be taken off the loop"
        self.happened.put_nowait("ticks lost")

    def hall_given_up(self) -> None:
        self.happened.put_nowait("given up")

    async def next(self) -> str:
        return await asyncio.wait_for(self.happened.get(), AT_MOST_S)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as folder:
        yield Runtime(Path(folder))


@asynccontextmanager
async def joining(runtime: Runtime) -> AsyncIterator[BareLine]:
    line, tasks = BareLine(runtime), Tasks()
    tasks.short(line.house.keep_front(), "test")
    tasks.short(line.house.keep_hall(), "test")
    try:
        yield line
    finally:
        line.house.stop()
        await tasks.stop()
        line.house.close()


async def test_a_hall_that_comes_back_in_time_is_joined_again(runtime: Runtime) -> None:
    hall = await FakeHall(runtime).start()
    async with joining(runtime) as line:
        assert await line.next() == "joined"
        assert line.house.has_hall
        assert await hall.hears_hello("n0") == line.facts()
        await hall.stop()
        assert await line.next() == "ticks lost"
        assert not line.house.has_hall
        hall = await FakeHall(runtime).start()
        assert await line.next() == "joined"
        await hall.stop()


async def test_a_hall_that_stays_away_is_given_up_each_time_that_it_is_wanted(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_house, "HALL_BACK_WITHIN_S", 0.05)
    async with joining(runtime) as line:
        line.house.tell_both(CallLeft("c1", CallEnding(End.CALLER)))  # nobody hears it, and nothing breaks
        for _ in range(2):
            line.house.expect_hall()
            line.house.expect_hall()  # it is expected already
            assert await line.next() == "given up"
        assert line.happened.empty()


async def test_broken_ticks_are_a_lost_hall(runtime: Runtime) -> None:
    hall = await FakeHall(runtime).start()
    async with joining(runtime) as line:
        assert await line.next() == "joined"
        line.house.break_with_hall()
        assert line.house.ticks is None
        assert await line.next() == "ticks lost"
        assert await line.next() == "joined"
    await hall.stop()


async def test_a_line_that_stops_waits_for_no_hall(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_house, "HALL_BACK_WITHIN_S", 0.0)
    async with joining(runtime) as line:
        line.house.stop()
        line.house.expect_hall()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert line.happened.empty()


async def test_the_front_has_a_line_stop_and_count_its_failures(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(failures, "test.losses", 3)
    front = await FakeFront(runtime).start()
    async with joining(runtime) as line:
        await front.hears_hello("n0")
        peer = front.lines["n0"]
        assert (await peer.ask(AskFailures()))["test.losses"] == 3
        line.house.tell_both(CallLeft("c1", CallEnding(End.CALLER)))
        assert await asyncio.wait_for(front.ended.get(), AT_MOST_S) == ("c1", "caller hung up")
        await peer.ask(StopLine())
        await asyncio.wait_for(line.house.stop_asked.wait(), AT_MOST_S)
    await front.stop()
