"""Calls that their hall does not end: SQL and Redis say the same of them, and the truth."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import RpcError, RpcTimeout
from gateway.front.admission.routing import RoutedCall
from gateway.front.calls import closing as module
from gateway.front.calls.closing import Closing
from gateway.front.house.metrics import Metrics
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Ask, Message
from gateway.ipc.hall_messages import (
    CallClosed,
    CallOffer,
    CallRated,
    EndCall,
    HallHealth,
    Health,
    LiveCall,
    WayRated,
)
from gateway.store.living_calls import LIVE
from gateway.store.registry import CallRow, RegistryError
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey
from tests.gateway.front.admission.test_routing import Desk

HERE = "hall0"


class HallPeer:
    """A hall that has what calls it is given, until it is told to end them."""

    def __init__(self) -> None:
        self.has: dict[str, LiveCall] = {}
        self.asked: list[EndCall] = []
        self.fails: Exception | None = None

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> Any:
        if self.fails is not None:
            raise self.fails
        match message:
            case CallOffer():
                self.has[message.call_id] = LiveCall(message.call_id, message.route, message.at, "talking")
            case Health():
                return HallHealth(calls=tuple(self.has.values()))
            case EndCall():
                if message.call_id not in self.has:
                    raise RpcError(f"no call {message.call_id} here")
                self.asked.append(message)
        return None

    def tell(self, message: Message) -> None:
        """Nothing is told here that a test looks for."""


class House:
    """A front's routing and closing, on a real Redis and a real registry."""

    def __init__(self, folder: Path, sessions: Sessions) -> None:
        self.desk = Desk(folder)
        self.routing, self.registry, self.sessions = self.desk.routing, self.desk.registry, sessions
        self.hall = HallPeer()
        self.routing.halls[HERE] = self.hall  # type: ignore[assignment]
        self.closing = self.boots()

    def boots(self) -> Closing:
        """Another boot's."""
        return Closing(self.routing, self.registry, self.sessions, Metrics(), time.time())

    async def call(self) -> str:
        """One that runs: in its hall, in Redis, in the registry."""
        call: RoutedCall = await self.desk.offer()
        self.sessions.session(call.call_id).opened(caller="sip:bob@x", called="sip:demo@y")
        await self.sessions.writer.flush()
        return call.call_id

    async def dies(self) -> Closing:
        """The whole gateway, as by `kill -9`; the closing of the next boot, before it has begun."""
        self.routing.calls.clear()
        self.routing.halls.clear()
        self.sessions._living._ids.clear()
        return self.boots()

    def row(self, call_id: str) -> CallRow:
        row = self.registry.get(call_id)
        assert row is not None
        return row

    async def says(self, call_id: str) -> str:
        """How it ended, in which both stores agree, and that it does not live any more."""
        await self.sessions.writer.flush()
        record = await self.sessions.get(call_id)
        assert record is not None
        assert record.state == "ended"
        assert call_id not in {call["call_id"] for call in await self.sessions.live()}
        assert [call["call_id"] for call in await self.sessions.recent()].count(call_id) == 1
        row = self.row(call_id)
        assert row.how == record.facts["how"]
        assert [event["data"]["how"] for event in record.events if event["kind"] == "ended"] == [row.how]
        assert row.ended_at == pytest.approx(float(record.facts["ended_at"]), abs=0.01)
        return str(row.how)

    async def lives(self, call_id: str) -> bool:
        """In both stores."""
        await self.sessions.writer.flush()
        living = call_id in {call["call_id"] for call in await self.sessions.live()}
        assert living == (self.row(call_id).ended_at is None)
        return living


@pytest.fixture
async def house(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(module, "SAID_WITHIN_S", 0.01)
    monkeypatch.setattr(module, "TAKEN_UP_WITHIN_S", 0.01)
    sessions = await Sessions.open(valkey.url)
    opened = House(tmp_path, sessions)
    yield opened
    opened.registry.close()
    await sessions.close()


# ── the gateway died ─────────────────────────────────────────────────────────────────────────────────


async def test_after_a_crash_of_all_no_call_of_the_last_boot_lives_and_both_stores_say_why(
    house: House,
) -> None:
    calls = [await house.call() for _ in range(3)]
    booting = await house.dies()
    await booting.last_boot()
    for call_id in calls:
        assert await house.says(call_id) == "failed: the gateway died"


async def test_a_call_that_the_gateway_died_with_ended_when_it_was_last_seen(house: House) -> None:
    call_id = await house.call()
    seen_at = time.time() - 3600  # the machine was off meanwhile
    await house.sessions._read.zadd(LIVE, {call_id: seen_at})
    booting = await house.dies()
    await booting.last_boot()
    assert house.row(call_id).ended_at == pytest.approx(seen_at, abs=0.01)
    await house.says(call_id)


async def test_what_a_hall_said_before_the_end_is_believed(house: House) -> None:
    call_id = await house.call()
    house.sessions.session(call_id).ended(CallEnding(End.GATEWAY_STOPPED))  # and the front was gone already
    await house.sessions.writer.flush()
    booting = await house.dies()
    await booting.last_boot()
    assert await house.says(call_id) == "failed: the gateway was stopped"


@pytest.mark.parametrize("said_by", ["its hall", "redis"])
async def test_how_a_call_sounded_stands_in_its_row(house: House, said_by: str) -> None:
    """The worse way's; of a call that its hall could not close, as Redis has it."""
    call_id = await house.call()
    ways = [WayRated(mos, loss=0.1, jitter_s=None) for mos in (3.123, 4.2)]
    if said_by == "its hall":
        house.closing.rated(CallRated(call_id, ways[1], WayRated(1.0, 0.5, None), None, target=True))
        house.closing.rated(CallRated(call_id, ways[0], ways[1], None))
        await house.closing.closed(CallClosed(call_id, CallEnding(End.CALLER), ()))
    else:
        house.sessions.session(call_id).note(mos=4.2, far_mos=3.12)
        await house.sessions.writer.flush()
        await (await house.dies()).last_boot()
    assert house.row(call_id).sounded == 3.12


async def test_what_the_registry_says_is_believed_when_redis_never_heard_of_the_end(house: House) -> None:
    call_id = await house.call()
    house.registry.close_call(call_id, CallEnding(End.CALLER), time.time() - 1)
    booting = await house.dies()
    await booting.last_boot()
    await house.sessions.writer.flush()
    record = await house.sessions.get(call_id)
    assert record is not None
    assert (record.state, record.facts["how"]) == ("ended", "caller hung up")
    assert await house.sessions.live() == []


async def test_a_crash_without_redis_is_still_told_by_the_registry(
    house: House, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_id = await house.call()
    valkey.kill()
    monkeypatch.setattr(module, "REDIS_PAUSES_S", (0.01, 0.01))
    booting = await house.dies()
    await booting.last_boot()
    assert house.row(call_id).how == "failed: the gateway died"
    valkey.start()
    assert await house.says(call_id) == "failed: the gateway died"


async def test_calls_of_another_gateway_and_calls_of_this_boot_are_left_alone(house: House) -> None:
    running = await house.call()
    other = house.row(running)
    house.registry.enter(
        CallRow(
            call_id="theirs",
            payload=7,
            gateway="wm-9999",
            route="demo",
            caller="sip:a@x",
            called="sip:b@y",
            source="192.0.2.1",
            started_at=time.time() - 60,
        )
    )
    house.sessions.session("theirs").opened(caller="sip:a@x")
    await house.closing.last_boot()  # a front that died alone: this boot began before the call
    await house.closing.tidy(1)
    assert await house.lives(running)
    assert await house.lives("theirs")
    assert other.ended_at is None


# ── a hall, or a line, died ──────────────────────────────────────────────────────────────────────────


async def test_a_hall_that_has_the_call_decides(house: House) -> None:
    call_id = await house.call()
    await house.closing.ended(call_id, CallEnding(End.CONSOLE))
    await house.closing.left(call_id, CallEnding(End.CALLER))
    assert house.hall.asked == [EndCall(call_id, CallEnding(End.CONSOLE))]
    assert await house.lives(call_id), "until the hall says that it is over"
    house.sessions.session(call_id).ended(CallEnding(End.CONSOLE))
    await house.closing.closed(CallClosed(call_id, CallEnding(End.CONSOLE), ()))
    row, record = house.row(call_id), await house.sessions.get(call_id)
    assert row.how == "hung up by the console"
    assert record is not None


async def test_a_hall_that_is_slow_is_not_spoken_for(house: House) -> None:
    call_id = await house.call()
    house.hall.fails = RpcTimeout("nobody answers")
    await house.closing.ended(call_id, CallEnding(End.CALLER))
    await house.closing.left(call_id, CallEnding(End.CALLER))
    await house.closing.tidy(1)
    assert await house.lives(call_id)


async def test_a_hall_that_died_is_told_by_the_line_that_gave_its_call_up(house: House) -> None:
    call_id = await house.call()
    del house.routing.halls[HERE]
    await house.closing.left(call_id, CallEnding(End.HALL_DIED))
    assert await house.says(call_id) == "failed: its hall died"


async def test_a_hall_that_died_with_its_line_is_noticed_in_time(house: House) -> None:
    gone, taken_up = await house.call(), await house.call()
    del house.hall.has[gone]
    await house.closing.hall_lost(HERE)
    assert await house.says(gone) == "failed: its hall died"
    assert await house.lives(taken_up)


async def test_a_hall_that_died_before_it_said_a_word_of_a_call_is_spoken_for(house: House) -> None:
    """So that there is an event of its end, with its record."""
    call = await house.desk.offer()
    house.hall.has.clear()
    await house.closing.hall_lost(HERE)
    assert await house.says(call.call_id) == "failed: its hall died"


async def test_a_line_knows_more_than_the_edge_that_saw_its_bye(house: House) -> None:
    call_id = await house.call()
    del house.routing.halls[HERE]
    line = asyncio.create_task(house.closing.left(call_id, CallEnding(End.HALL_DIED)))
    await asyncio.sleep(0)
    await house.closing.ended(call_id, CallEnding(End.VOICE))
    await line
    assert await house.says(call_id) == "failed: its hall died"


async def test_a_caller_who_hung_up_while_the_hall_was_away_hung_up(house: House) -> None:
    call_id = await house.call()
    del house.routing.halls[HERE]
    await house.closing.ended(call_id, CallEnding(End.CALLER))
    await house.closing.left(call_id, CallEnding(End.HALL_DIED))
    assert await house.says(call_id) == "caller hung up"


async def test_a_hall_and_a_line_that_speak_at_once_leave_one_end(house: House) -> None:
    call_id = await house.call()
    del house.hall.has[call_id]
    house.sessions.session(call_id).ended(CallEnding(End.VOICE))
    await asyncio.gather(
        house.closing.ended(call_id, CallEnding(End.CALLER)),
        house.closing.left(call_id, CallEnding(End.CALLER)),
        house.closing.closed(CallClosed(call_id, CallEnding(End.VOICE), ())),
    )
    row = house.row(call_id)
    record = await house.sessions.get(call_id)
    assert record is not None
    assert (row.how, record.facts["how"]) == ("hung up", "hung up")
    assert [event["kind"] for event in record.events].count("ended") == 1


async def test_a_front_and_a_hall_that_died_together_leave_the_end_to_the_line(house: House) -> None:
    call_id, other = await house.call(), await house.call()
    house.routing.calls.clear()  # the front is new, and no hall has told it of the call
    del house.hall.has[call_id]
    await house.closing.left(call_id, CallEnding(End.HALL_DIED))
    await house.closing.left(other, CallEnding(End.HALL_DIED))
    assert await house.says(call_id) == "failed: its hall died"
    assert await house.lives(other), "a hall has it"


async def test_a_call_that_ends_now_ends_now_whenever_it_was_seen_last(house: House) -> None:
    call_id = await house.call()
    await house.sessions._read.zadd(LIVE, {call_id: time.time() - 20})
    del house.routing.halls[HERE]
    await house.closing.ended(call_id, CallEnding(End.CALLER))
    assert house.row(call_id).ended_at == pytest.approx(time.time(), abs=5)
    await house.says(call_id)


# ── what a front that was away did not hear ──────────────────────────────────────────────────────────


async def test_a_call_that_ended_while_the_front_was_away_is_closed_as_its_hall_said(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNKNOWN_FOR_S", -1.0)
    call_id = await house.call()
    house.sessions.session(call_id).ended(CallEnding(End.TRANSFERRED))
    await house.sessions.writer.flush()
    house.routing.calls.clear()
    house.hall.has.clear()
    await house.closing.tidy(2)
    assert house.row(call_id).ended_at is None, "a hall is missing, and may have it"
    await house.closing.tidy(1)
    assert await house.says(call_id) == "transferred"


# ── Redis was away, or the clock was set ─────────────────────────────────────────────────────────────


async def test_a_call_that_was_not_refreshed_lives_as_long_as_a_hall_has_it(house: House) -> None:
    """So it looks when Redis was away for a minute, or the clock was set forward by one."""
    call_id, gone = await house.call(), await house.call()
    await house.sessions._read.zadd(LIVE, dict.fromkeys((call_id, gone), time.time() - 60))
    assert set(await house.sessions.stale()) == {call_id, gone}
    house.hall.fails = RpcTimeout("nobody answers")
    await house.closing.tidy(1)
    assert house.row(call_id).ended_at is None, "a hall that is slow may have it"
    house.hall.fails = None
    del house.hall.has[gone]
    await house.closing.tidy(1)
    assert house.row(call_id).ended_at is None
    assert house.routing.calls[call_id].call_id == call_id, "its grant can be renewed"
    assert await house.says(gone) == "failed: its hall died"


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
async def test_a_clock_that_is_set_changes_no_calls_length(
    house: House, monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    call_id = await house.call()
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + by_s)
    house.routing.adopt((LiveCall("adopted", house.routing.calls[call_id].route, wall(), "talking"),), HERE)
    assert 0 <= house.routing.calls[call_id].lasted_s < 60
    assert house.routing.calls["adopted"].lasted_s >= 0
    await house.closing.closed(CallClosed(call_id, CallEnding(End.CALLER), ()))
    said = house.closing._metrics.expose().decode()
    (total,) = re.findall(r"^voicegate_call_seconds_sum ([-\d.e]+)", said, re.MULTILINE)
    assert 0 <= float(total) < 60


async def test_a_row_that_the_database_did_not_close_is_closed_later_in_the_same_words(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNKNOWN_FOR_S", -1.0)

    def away(*_: object) -> str:
        raise RegistryError("database is locked")

    call_id = await house.call()
    house.sessions.session(call_id).ended(CallEnding(End.CALLER))
    await house.sessions.writer.flush()
    del house.hall.has[call_id]
    with monkeypatch.context() as locked:
        locked.setattr(house.registry, "close_call", away)
        await house.closing.closed(CallClosed(call_id, CallEnding(End.CALLER), ()))
    assert house.row(call_id).ended_at is None
    await house.closing.tidy(1)
    assert await house.says(call_id) == "caller hung up"
