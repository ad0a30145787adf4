"""A browser's place on a web line: taken before anything is awaited, given back whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import CallRefused, RpcError, RpcTimeout
from gateway.front.admission.routing import Routing
from gateway.front.calls.web_calls import ConnectedWebLine
from gateway.front.front import Front
from gateway.front.house.metrics import Metrics
from gateway.ipc.envelope import Ask
from gateway.ipc.hall_messages import EndCall
from gateway.ipc.line_messages import AnswerOffer, OfferAnswer
from tests.gateway.front.admission.test_routing import Desk, HallPeer

CAPACITY = 8


class LinePeer:
    """A web line as the front's peer: answers every offer, or as a test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.knocks = asyncio.Semaphore(0)
        """one for each offer that came"""
        self.answer = OfferAnswer(sdp="v=0 answer")
        self.refuses: Exception | None = None
        self.waits = asyncio.Event()
        self.waits.set()

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> OfferAnswer:
        assert isinstance(message, AnswerOffer)
        self.asked.append(message.call_id)
        self.knocks.release()
        await self.waits.wait()
        if self.refuses is not None:
            raise self.refuses
        return self.answer


class Hall(HallPeer):
    """A hall that closes what it is asked to end."""

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self._routing = routing

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> None:
        if isinstance(message, EndCall):
            await self._routing.ended(message.call_id, message.how)
        else:
            await super().ask(message, timeout_s)


class NoSessions:
    """What the front takes of them at its birth; placing a call asks none of it."""

    watch = asked_ready = None

    def ladders(self, *_: int) -> None:
        """Nobody writes."""

    logs = ladders


class Switch:
    """A front with one web line of `CAPACITY` places, and no socket."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.desk = Desk(folder)
        self.desk.office.withdrawn = None  # type: ignore[attr-defined]  # nobody withdraws here
        self.desk.office.usable = None  # type: ignore[attr-defined]  # nobody asks how it is
        self.desk.hall = Hall(self.desk.routing)
        self.desk.routing.halls["hall0"] = self.desk.hall  # type: ignore[assignment]  # what the front asks of it
        self.peer = LinePeer()
        runtime = Runtime(folder)
        token = runtime.new_token()
        (folder / "data").mkdir()
        conf = Settings(data_dir=folder / "data", host="127.0.0.1", **settings)
        self.front = Front(
            conf, runtime, token, self.desk.routing, self.desk.office, self.desk.registry,
            NoSessions(), Metrics(),  # type: ignore[arg-type]  # what a place needs
        )  # fmt: skip
        self.line = ConnectedWebLine(self.peer, "hall0", CAPACITY)  # type: ignore[arg-type]  # what the front asks of it
        self.front.web.lines["web0"] = self.line

    async def place(self, number: str = "demo") -> tuple[str, str]:
        return await self.front.place("v=0 offer", number, "192.0.2.7", "a browser")

    async def refused(self, number: str = "demo") -> CallRefused:
        with pytest.raises(CallRefused) as refusal:
            await self.place(number)
        return refusal.value


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    opened = Switch(tmp_path)
    yield opened
    opened.desk.registry.close()


async def test_of_twelve_who_ask_at_once_eight_are_taken_and_four_told_when_to_come_again(
    switch: Switch,
) -> None:
    asked = await asyncio.gather(*(switch.place() for _ in range(12)), return_exceptions=True)
    taken = [one for one in asked if isinstance(one, tuple)]
    refused = [one for one in asked if isinstance(one, CallRefused)]
    assert (len(taken), len(refused)) == (CAPACITY, 4)
    assert {refusal.status for refusal in refused} == {503}
    assert all(refusal.retry_after_s for refusal in refused)
    assert switch.line.calls == {call_id for call_id, _ in taken} == set(switch.peer.asked)
    assert switch.line.taken == 0
    assert switch.desk.registry.count() == CAPACITY, "who got no place left no row"


async def test_a_place_is_taken_while_its_call_is_on_its_way(switch: Switch) -> None:
    switch.peer.waits.clear()
    placing = [asyncio.ensure_future(switch.place()) for _ in range(CAPACITY)]
    for _ in placing:
        await switch.peer.knocks.acquire()
    assert (await switch.refused()).status == 503
    switch.peer.waits.set()
    await asyncio.gather(*placing)
    assert switch.line.load == CAPACITY


async def test_an_offer_that_cannot_be_answered_says_so_once(switch: Switch) -> None:
    switch.peer.answer = OfferAnswer(wrong="it has no DTLS fingerprint")
    refusal = await switch.refused()
    assert (refusal.status, refusal.reason) == (
        488,
        "the offer cannot be answered: it has no DTLS fingerprint",
    )
    assert switch.line.load == 0
    assert switch.desk.routing.calls == {}


async def test_a_number_that_no_route_takes_gives_its_place_back(switch: Switch) -> None:
    assert (await switch.refused("nobody")).status == 404
    assert switch.line.load == 0


@pytest.mark.parametrize(
    "why",
    [RpcError("the connection to web0 is closed"), RpcTimeout("web.offer: no answer"), RpcError("full")],
)
async def test_a_line_that_takes_no_call_gives_the_place_back_and_is_no_fault_of_the_offer(
    switch: Switch, why: Exception
) -> None:
    switch.peer.refuses = why
    refusal = await switch.refused()
    assert (refusal.status, refusal.retry_after_s is not None) == (503, True)
    assert switch.line.load == 0
    assert switch.desk.open_rows() == []


async def test_a_hall_that_refuses_gives_the_place_back(switch: Switch) -> None:
    switch.desk.hall.refuses = RpcError("the hall is full")
    assert (await switch.refused()).status == 503
    assert switch.line.load == 0


@pytest.mark.parametrize("where", ["in the hall", "at the line"])
async def test_a_browser_that_goes_away_gives_the_place_back(switch: Switch, where: str) -> None:
    asked = asyncio.Event()
    if where == "in the hall":
        switch.desk.hall.before = lambda _: asked.set()
        switch.desk.hall.waits = True
    else:
        switch.peer.waits.clear()
    placing = asyncio.ensure_future(switch.place())
    await (asked.wait() if where == "in the hall" else switch.peer.knocks.acquire())
    assert switch.line.load == 1
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    assert switch.line.load == 0
    assert switch.desk.routing.calls == {}
    assert switch.desk.open_rows() == []
