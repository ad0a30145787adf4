"""kill -9 of each part during a call: what dies, what survives, how fast it is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consent.service.office_rooms import OfficePlace
from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.testphone import place_call
from gateway.hall.dialogue.engine_life import RECONNECT_FOR_S
from gateway.store.call_cause import AWAY_S, causes
from gateway.store.registry import Registry
from tests.consent.service.served import serving
from tests.e2e.gateway_process import House
from tests.e2e.talking import Talking
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

Start = Callable[..., House]
Say = Callable[[str], Path]
Notice = Callable[[str, object], None]
OPENING = "what are your opening hours"
HOURS = "nine in the morning"
"""Of the answer to when the workshop is open."""


class Calling:
    """A call in a thread."""

    def __init__(self, house: House, **options: object) -> None:
        self._report: list[CallReport] = []
        self._thread = threading.Thread(
            target=lambda: self._report.append(place_call(house.uri, **options))  # type: ignore[arg-type]
        )
        self._thread.start()
        house.wait_for("the call", lambda: any(c["state"] == "confirmed" for c in house.calls()), 15)

    def ended(self, within_s: float = 40.0) -> CallReport:
        self._thread.join(within_s)
        assert self._report, "the call did not end"
        return self._report[0]


def test_a_line_dies_its_caller_gets_a_bye_and_others_talk_on(own_house: Start, say: Say) -> None:
    house = own_house(sip_lines=2)
    doomed = Calling(house, duration_s=20, codec="pcmu")
    (its,) = house.events("call.started")
    spared = Calling(house, duration_s=10, codec="g722", script=[say("where are you")])
    house.wait_for("both calls", lambda: sum(c["state"] == "confirmed" for c in house.calls()) == 2, 15)
    processes = {event["process"] for event in house.events("call.started")}
    assert processes == {"sip0", "sip1"}, "each has half of the calls"
    began = time.monotonic()
    house.kill(its["process"])
    report = doomed.ended()
    assert "they hung up" in report.ended, report.ended
    assert time.monotonic() - began < 5, "the BYE comes at once"
    house.wait_for("a new line", house.ready, 10)
    (life,) = (one for one in house.get("/api/house")["processes"] if one["name"] == its["process"])
    assert (life["state"], life["restarts"]) == ("up", 1), "the console's page says what happened"
    assert "SIGKILL" in life["error"]
    assert place_call(house.uri, duration_s=1, codec="pcmu").answered
    assert "we hung up" in spared.ended().ended


@pytest.mark.long("an engine that loads, and a question in real time")
async def test_the_engine_dies_and_the_conversation_goes_on(
    own_house: Start, say: Say, record_property: Notice
) -> None:
    house = await asyncio.to_thread(own_house)
    async with Talking.calls(house) as caller:  # inside the greeting
        house.kill("engine")
        await asyncio.to_thread(
            house.wait_for, "the engine or its end", lambda: engine_fate(house, caller.call_id), HANGS_S
        )
        fate = engine_fate(house, caller.call_id)
        answered = await caller.asks(say(OPENING), HOURS)
    if fate["event"] == "engine.back":
        assert answered, "the new engine answered"
        record_property("caller", f"the conversation went on {fate['after_s']:.1f} s later")
    else:  # the machine had no time for it: what is told then is told
        assert fate["how"] == "failed: the engine was lost"
        record_property("caller", f"`engine_lost`: nobody was back within {RECONNECT_FOR_S:.0f} s")
    shown = await asyncio.to_thread(house.get, f"/api/calls/{caller.call_id}")
    if fate.get("after_s", AWAY_S) >= AWAY_S:  # of a shorter time the caller notices nothing
        assert {"engine away", "engine lost"} & {cause.name for cause in causes(shown)}
    await asyncio.to_thread(house.wait_for, "all of it", house.ready, HANGS_S)
    async with Talking.calls(house) as caller:
        assert await caller.asks(say(OPENING), HOURS)
    record_property("operator", "`process.died`, `engine.away`, `engine.back`; part `engine`")
    assert house.events("engine.away")


def engine_fate(house: House, call_id: str) -> dict[str, Any]:
    """What its hall logged of a call whose engine died: that it is back, or how the call ended."""
    told = [*house.events("engine.back"), *house.events("call.ended")]
    return next((event for event in told if event["call_id"] == call_id), {})


@pytest.mark.long("ears that load, and a question in real time")
async def test_the_ears_die_and_the_caller_is_heard_by_the_next(own_house: Start, say: Say) -> None:
    house = await asyncio.to_thread(own_house)
    async with Talking.calls(house) as caller:  # inside the greeting
        first = house.kill("ears")
        await asyncio.to_thread(house.wait_for, "new ears", lambda: new(house, "ears", first), HANGS_S)
        assert await caller.asks(say(OPENING), HOURS)
    assert not house.events("engine.process_died")


@pytest.mark.long("a front that starts, and a question in real time")
async def test_the_front_dies_and_calls_go_on(own_house: Start, say: Say) -> None:
    house = await asyncio.to_thread(own_house)
    async with Talking.calls(house) as caller:
        first = house.kill("front")
        await asyncio.to_thread(
            house.wait_for, "a new front", lambda: new(house, "front", first) and house.ready(), HANGS_S
        )
        assert await caller.asks(say(OPENING), HOURS), "sound never went through the front"
    await asyncio.to_thread(
        house.wait_for, "the BYE's effect", lambda: not [c for c in house.calls() if c["state"] != "ended"],
        HANGS_S,
    )  # fmt: skip


@pytest.mark.long("an office that starts, and a question in real time")
async def test_the_office_dies_calls_go_on_and_new_ones_are_taken_again(own_house: Start, say: Say) -> None:
    """The grant is renewed by the office that comes back, which knows the call by its token alone."""
    house = await asyncio.to_thread(own_house, grant_s=30)  # renewed at its half, and good for a while longer
    async with Talking.calls(house) as caller:
        first = house.kill("office")
        await asyncio.to_thread(house.wait_for, "a new office", lambda: new(house, "office", first), HANGS_S)
        await asyncio.to_thread(house.wait_for, "all of it", house.ready, HANGS_S)
        async with Talking.calls(house):
            pass  # a new one is taken
        await asyncio.sleep(20)  # past the renewal
        assert await caller.asks(say(OPENING), HOURS), "its grants were renewed"
    assert not house.events("voice.muted")


def test_without_an_office_a_call_is_refused_with_a_reason(tmp_path: Path) -> None:
    """The socket is another service's, which ends: no grant, no voice, not even the stock one."""
    place = OfficePlace(
        f"sqlite:///{tmp_path}/consent.db", tmp_path / "office", tmp_path / "k", tmp_path / "m", 60.0
    )
    path = tmp_path / "office" / "office.sock"
    house = House(tmp_path / "house", office_socket=path)
    house.folder.mkdir()
    with contextlib.ExitStack() as served:
        served.enter_context(serving(place, path))
        house.start()
        try:
            assert place_call(house.uri, duration_s=1, codec="pcmu").answered
            assert "office" not in house.pids()
            served.close()
            refused = place_call(house.uri, duration_s=1, codec="pcmu")
            assert not refused.answered
            assert "503" in refused.ended, refused.ended
            house.wait_for("readiness", lambda: not house.ready())
            served.enter_context(serving(place, path))
            house.wait_for("readiness again", house.ready)
            assert place_call(house.uri, duration_s=1, codec="pcmu").answered
        finally:
            house.stop()
    assert not (house.folder / "data" / "consent" / "office-keys.json").exists(), "the gateway made no keys"


@pytest.mark.long("a hall that starts, and a question in real time")
async def test_the_hall_dies_and_takes_its_calls_up_again(
    own_house: Start, say: Say, record_property: Notice
) -> None:
    house = await asyncio.to_thread(own_house)
    async with Talking.calls(house) as caller:
        first = house.kill("hall0")
        await asyncio.to_thread(house.wait_for, "a new hall", lambda: new(house, "hall0", first), HANGS_S)
        if await caller.asks(say(OPENING), HOURS):
            record_property("caller", "the new hall answered")
        else:  # the machine had no time for it: what is told then is told
            assert (await caller.shown())["how"] == "failed: its hall died"
            record_property("caller", "a BYE: nobody was back within 5 s")
    await asyncio.to_thread(house.wait_for, "all of it", house.ready, HANGS_S)
    async with Talking.calls(house) as caller:
        assert await caller.asks(say(OPENING), HOURS)


def new(house: House, name: str, first: int) -> bool:
    """Another process than that one has its place."""
    return house.pids().get(name) not in (None, first)


def test_the_supervisor_dies_nothing_is_left_and_the_next_start_closes_the_books(own_house: Start) -> None:
    house = own_house()
    calling = Calling(house, duration_s=30)
    call_id = house.calls()[0]["call_id"]
    pids = house.pids()
    assert house.process is not None
    house.process.kill()
    house.process.wait()
    house.wait_for("the end of all", lambda: not [n for n, pid in pids.items() if _alive(pid)], 15)
    calling.ended()
    house.start()
    row = Registry.open(f"sqlite:///{house.folder / 'data' / 'voicegate.db'}").get(call_id)
    assert row is not None
    assert row.how is not None
    assert row.ended_at is not None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
