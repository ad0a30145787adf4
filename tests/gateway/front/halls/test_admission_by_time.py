"""A house whose halls tell that they have no time: what callers by SIP and by browser hear, and operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.edge.proxy.lines import LineInfo
from gateway.front.halls.headroom import SILENT_S
from gateway.ipc.hall_messages import HallLoad
from tests.e2e.gateway_process import free_port
from tests.gateway.edge.peers import ANSWER, OFFER, Caller, Line, Said
from tests.gateway.front.calls.test_web_places import CAPACITY, Switch

HOUSE_TIME = True
SLOTS = 6


class NamedPeer:
    """Whoever says what a hall measured."""

    def __init__(self, name: str) -> None:
        self.name = name


class BusyHouse(Switch):
    """The front with its edge on loopback, a line for telephones, one for browsers, and callers for both."""

    async def open(self) -> None:
        await self.front.edge.start()
        self.sip = await Line("n0").open()
        self.front.edge.line_up(LineInfo("n0", "narrow", self.sip.port, SLOTS))
        self.callers: list[Caller] = []

    async def measured(self, hall: str = "hall0", **figures: Any) -> None:
        """That hall tells of itself."""
        (handled,) = [each for each in self.front._reports.for_halls if each.kind is HallLoad]
        await handled.handler(NamedPeer(hall), HallLoad(**figures))  # type: ignore[arg-type]  # its name is used

    async def invites(self) -> Caller:
        caller = Caller(self.front.edge.port)
        self.callers.append(await caller.open())
        caller.to, caller.target = "<sip:demo@127.0.0.1>", f"sip:demo@127.0.0.1:{self.front.edge.port}"
        caller.send("INVITE", OFFER)
        return caller

    async def is_taken(self) -> Said:
        """One more call, answered and acknowledged."""
        caller = await self.invites()
        invite = await self.sip.invited()
        self.sip.reply(invite, 200, body=ANSWER)
        answer = await caller.next(200)
        caller.learn(answer)
        caller.send("ACK")
        await self.sip.next(method="ACK")
        return answer

    async def is_refused(self) -> Said:
        return await (await self.invites()).next(503)

    async def options(self, status: int) -> Said:
        caller = await Caller(self.front.edge.port).open()
        self.callers.append(caller)
        caller.send("OPTIONS")
        return await caller.next(status)

    async def close(self) -> None:
        for peer in (*self.callers, self.sip):
            peer.close()
        await self.front.edge.stop()
        await self.front._tasks.stop()
        self.desk.registry.close()


@pytest.fixture
async def busy_house(tmp_path: Path) -> AsyncIterator[BusyHouse]:
    house = BusyHouse(tmp_path, sip_port=free_port(), sip_allow=("127.0.0.0/8",))
    await house.open()
    yield house
    await house.close()


async def test_quiet_figures_refuse_nobody(busy_house: BusyHouse) -> None:
    for calls in range(SLOTS):
        await busy_house.measured(calls=calls, settled=calls, pass_s=0.004, late_s=0.003, first_sound_s=0.3)
        await busy_house.is_taken()
    assert "all lines are busy" in (await busy_house.is_refused())["reason"]


@pytest.mark.parametrize(
    "figures",
    [
        {"pass_s": 0.019},
        {"late_s": 0.030},
        {"late_turns": 0.3},
        {"hearing_s": 1.4},
        {"first_sound_s": 4.1},
    ],
    ids=str,
)
async def test_a_caller_hears_503_busy_and_when_to_come_again(
    busy_house: BusyHouse, figures: dict[str, float]
) -> None:
    await busy_house.is_taken()
    await busy_house.measured(calls=1, settled=1, **figures)
    refused = await busy_house.is_refused()
    assert refused["reason"] == 'SIP;cause=503;text="busy"', "RFC 3326, and no figure for a stranger"
    assert refused["retry-after"] == "10"
    assert (await busy_house.options(503))["retry-after"] == "10"
    await busy_house.measured(calls=1, settled=1)
    await busy_house.options(200)
    await busy_house.is_taken()


async def test_a_browser_is_refused_likewise(busy_house: BusyHouse) -> None:
    await busy_house.place()
    await busy_house.measured(calls=1, settled=1, first_sound_s=4.1)
    refusal = await busy_house.refused()
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (503, "busy", 10)
    assert busy_house.desk.registry.count() == 1, "who was refused left no row"
    await busy_house.measured(calls=1, settled=1, first_sound_s=0.2)
    await busy_house.place()
    assert len(busy_house.line.calls) == 2


async def test_a_house_without_a_call_takes_one_whatever_its_hall_measured(busy_house: BusyHouse) -> None:
    await busy_house.measured(calls=0, settled=0, late_s=0.5)
    await busy_house.is_taken()
    assert (await busy_house.is_refused())["reason"] == 'SIP;cause=503;text="busy"'


async def test_calls_by_telephone_and_from_browsers_count_together(busy_house: BusyHouse) -> None:
    await busy_house.measured(calls=1, settled=1, first_sound_s=0.1)
    await busy_house.measured(calls=30, settled=16, first_sound_s=2.6)  # a bit more than a tenth each
    await busy_house.measured(calls=0, settled=0)
    for _ in range(CAPACITY):
        await busy_house.place()
    await busy_house.is_taken()  # nine on their way: ten would be past the bound
    assert (await busy_house.is_refused())["reason"] == 'SIP;cause=503;text="busy"'


async def test_readiness_follows_and_says_why(busy_house: BusyHouse) -> None:
    await busy_house.is_taken()
    assert busy_house.front.halls.why_busy() == ""
    await busy_house.measured(calls=1, settled=1, hearing_s=1.4)
    assert "hall0: hearing_s is 1.400" in busy_house.front.halls.why_busy()
    await busy_house.measured(calls=1, settled=1, hearing_s=0.1)
    assert busy_house.front.halls.why_busy() == ""


async def test_a_hall_that_falls_silent_gets_no_further_call(busy_house: BusyHouse) -> None:
    await busy_house.is_taken()
    await busy_house.measured(calls=1, settled=1)
    await asyncio.sleep(SILENT_S + 1.0)
    assert (await busy_house.is_refused())["reason"] == 'SIP;cause=503;text="busy"'
    await busy_house.measured(calls=1, settled=1)
    await busy_house.is_taken()


async def test_without_any_hall_it_is_not_busy(busy_house: BusyHouse) -> None:
    await busy_house.is_taken()
    await busy_house.measured(calls=1, settled=1, hearing_s=1.4)
    busy_house.desk.routing.halls.clear()
    refused = await busy_house.is_refused()
    assert (refused["reason"], refused["retry-after"]) == (
        'SIP;cause=503;text="no hall takes calls now"',
        "2",
    )


@pytest.mark.parametrize("busy", [False, True])
async def test_each_of_200_invites_in_a_second_is_answered_200_or_503(
    busy_house: BusyHouse, busy: bool
) -> None:
    """From a peer that the operator named. The time is the house's own: nothing that is refused waits."""
    await busy_house.is_taken()
    if busy:
        await busy_house.measured(calls=1, settled=1, first_sound_s=4.1)
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        while True:
            busy_house.sip.reply(await busy_house.sip.next(method="INVITE", within_s=60), 200, body=ANSWER)

    async def one(number: int) -> tuple[int, float]:
        await asyncio.sleep(number / 200)
        began, caller = loop.time(), await busy_house.invites()
        while True:
            for said in caller.kept:
                if said.status >= 200:
                    return said.status, loop.time() - began
            caller._came.clear()
            await caller._came.wait()

    serving = asyncio.create_task(serve())
    async with asyncio.timeout(30):
        finals = await asyncio.gather(*(one(number) for number in range(200)))
    serving.cancel()
    statuses = [status for status, _ in finals]
    assert len(statuses) == 200
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) == (0 if busy else SLOTS - 1)
    assert max(took_s for _, took_s in finals) <= 0.2
