"""What halls write into Redis comes to the shelf once, in order, typed; whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.front.events import event_intake as module
from gateway.front.events.schemas import schema_of
from gateway.ipc.ending import CallEnding, End
from gateway.store.call_events import (
    TYPES,
    CallDisclosed,
    CallNotTaken,
    ConsentRefused,
    KeyInput,
    MarkAlarm,
    SoundRecorded,
    TransferStep,
    Turn,
)
from gateway.store.call_session import TOLD
from gateway.store.registry import CallRow
from gateway.store.sessions import Sessions
from tests.full_disk import full_disk
from tests.gateway.conftest import Valkey
from tests.gateway.front.events.event_house import LINK, EventHouse, told_in
from tests.needs import HANGS_S

WHO = {"caller": "sip:bob@x", "called": "sip:demo@y", "source": "192.0.2.7", "transport": "udp"}


@pytest.fixture
async def house(tmp_path: Path, valkey: Valkey) -> AsyncIterator[EventHouse]:
    opened = await EventHouse.open(tmp_path, valkey.url)
    yield opened
    await opened.close()


def lives(sessions: Sessions, call_id: str) -> None:
    """A call's life, with one event of each kind that a hall writes."""
    call = sessions.session(call_id)
    call.opened(**WHO, route="demo", voice="jane", plan="p1", offer={"secret": "s"}, nothing=None)
    call.tell(ConsentRefused(reason="revoked", voice="jane", stands_in=True))
    call.state("ringing")
    call.state("answered")
    call.tell(CallDisclosed(principal="Lindens", language="en", text="I am a machine."))
    call.turn(Turn("caller", "when are you open", duration_s=1.2))
    call.turn(Turn("bot", None, latency_ms={"engine": 41.26}, interrupted=True))
    call.tell(KeyInput(digit="5"))
    call.tell(KeyInput(digits="12"))
    call.tell(TransferStep(target="desk", via="trunk:x"))
    call.tell(TransferStep(step="failed", target="desk", status=486, why="busy"))
    call.tell(MarkAlarm(reason="not marked", error="no carrier"))
    call.tell(MarkAlarm(reason="not found"))
    call.tell(ConsentRefused(reason="expired", voice="jane"))
    call.event("quality", line="n0", mos=4.1, loss_percent=0.4, jitter_ms=3.0)
    call.event("line_quality", line="n0", codec="PCMU", packets=500, lost=2)
    call.event("hold", sending=False, receiving=True)
    call.note(mos=4.1, packets=500, lost=2)
    call.ended(CallEnding(End.CALLER), spoken_s=2.5, underruns=0, spoken={"jti": 2.5})


TYPES_OF_A_LIFE = [
    "call.offered", "consent.refused", "call.note", "call.answered", "call.disclosed", "turn.heard",
    "turn.said", "key", "key", "transfer", "transfer", "mark.alarm", "mark.alarm", "consent.refused",
    "quality", "quality", "call.note", "call.ended",
]  # fmt: skip


async def test_a_calls_life_is_told_in_order_with_numbers(house: EventHouse) -> None:
    house.begin()
    lives(house.sessions, "c1")
    events = await house.has(18)
    assert [event.type for event in events] == TYPES_OF_A_LIFE
    assert [event.number for event in events] == list(range(1, 19))
    assert [event.call_number for event in events] == list(range(1, 19))
    assert {event.id for event in events} == {f"{house.shelf.series}-{n}" for n in range(1, 19)}
    by_number = {event.number: event.data for event in events}
    assert by_number[1] == {**WHO, "route": "demo", "voice": "jane", "plan": "p1"}, "and no offer"
    assert by_number[6] == {
        "who": "caller", "text": "when are you open", "duration_s": 1.2,
    }  # fmt: skip
    assert by_number[11] == {"step": "failed", "target": "desk", "status": 486, "why": "busy"}
    assert by_number[13] == {"reason": "not found"}
    assert by_number[16]["whole"] is True
    cdr = by_number[18]["cdr"]
    assert (cdr["how"], cdr["party"]) == ("caller hung up", "caller hung up")
    assert (cdr["turns"], cdr["plan"]) == (2, "p1")
    assert (cdr["caller"], cdr["mos"], cdr["packets"], cdr["spoken_s"]) == ("sip:bob@x", 4.1, 500, 2.5)
    assert cdr["talk_s"] >= 0
    assert cdr["duration_s"] >= cdr["talk_s"]


async def test_every_event_fits_its_schema(house: EventHouse) -> None:
    house.begin()
    lives(house.sessions, "c1")
    house.intake.refused("c2", 1.0, CallNotTaken(transport="udp", status=404, reason="no route"))
    for event in await house.has(19):
        data = schema_of(event.type)["properties"]["data"]
        assert set(data.get("required", ())) <= set(event.data) <= set(data["properties"]), event.type


async def test_what_is_kept_is_gone_from_redis(house: EventHouse) -> None:
    house.begin()
    lives(house.sessions, "c1")
    await house.has(18)
    while await house.sessions.redis.xlen(TOLD):  # noqa: ASYNC110  # Redis tells nobody when an entry is deleted
        await asyncio.sleep(0.01)


async def test_a_call_ends_once_whoever_says_so(house: EventHouse) -> None:
    """The hall said so, and the front, which did not hear of it."""
    house.begin()
    call = house.sessions.session("c1")
    call.opened(**WHO)
    call.ended(CallEnding(End.CALLER))
    call.ended(CallEnding(End.HALL_DIED))
    house.sessions.session("c2").opened(**WHO)
    events = await house.has(3)
    assert [event.type for event in events] == ["call.offered", "call.ended", "call.offered"]
    assert events[1].data["how"] == "caller hung up"


async def test_the_registry_completes_a_record(house: EventHouse) -> None:
    row = CallRow(
        call_id="c1", payload=7, route="night", caller="a", called="b", source="c", dialplan="x.toml:3"
    )
    house.registry.enter(row)
    house.begin()
    house.sessions.session("c1").ended(CallEnding(End.GATEWAY_DIED))
    begun, over = await house.has(2)
    assert begun.type == "call.offered", "which its hall could not say any more"
    assert begun.data == {"caller": "a", "called": "b", "source": "c", "route": "night"}
    assert over.data["cdr"]["dialplan"] == "x.toml:3"
    assert over.data["cdr"]["party"] == "failed"


async def test_a_message_is_told_with_its_link_and_not_with_its_path(house: EventHouse) -> None:
    house.begin()
    call = house.sessions.session("c1")
    call.opened(**WHO, route="night")
    call.tell(SoundRecorded(path="/var/lib/voicegate/recordings/2026-11-30/c1-7.wav", seconds=3.5))
    call.tell(SoundRecorded(path="/x/2026-11-30/c1-8.wav", seconds=0.0, error="disk full"))
    events = await house.has(3)
    assert events[1].type == "message.left"
    assert events[1].data == {
        "recording": "2026-11-30/c1-7.wav", "seconds": 3.5, "link": f"{LINK}/2026-11-30/c1-7.wav",
        "caller": "sip:bob@x", "route": "night",
    }  # fmt: skip
    assert (events[2].type, events[2].data["facts"]["error"]) == ("call.note", "disk full")
    assert "/x/" not in str(events[2].data)


async def test_a_message_that_a_dead_hall_could_not_tell_of_is_found(house: EventHouse) -> None:
    day = house.recordings / time.strftime("%Y-%m-%d", time.gmtime())
    day.mkdir(parents=True)
    (day / "c1-7.wav").write_bytes(bytes(44 + 48_000))
    (day / "c1-8.wav").write_bytes(bytes(44))  # nobody said anything
    house.begin()
    call = house.sessions.session("c1")
    call.opened(**WHO)
    call.ended(CallEnding(End.HALL_DIED))
    events = await house.has(3)
    assert [event.type for event in events] == ["call.offered", "message.left", "call.ended"]
    assert events[1].data["recording"] == f"{day.name}/c1-7.wav"
    assert (events[1].data["seconds"], events[1].data["cut_short"]) == (1.0, True)
    assert events[2].data["cdr"]["messages"] == 1


async def test_a_message_that_was_told_is_not_found_again(house: EventHouse) -> None:
    day = house.recordings / time.strftime("%Y-%m-%d", time.gmtime())
    day.mkdir(parents=True)
    (day / "c1-7.wav").write_bytes(bytes(44 + 48_000))
    house.begin()
    call = house.sessions.session("c1")
    call.opened(**WHO)
    call.tell(SoundRecorded(path=str(day / "c1-7.wav"), seconds=1.0))
    call.ended(CallEnding(End.CALLER))
    house.sessions.session("c2").opened(**WHO)
    events = await house.has(4)
    assert [event.type for event in events] == ["call.offered", "message.left", "call.ended", "call.offered"]


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "opened"},
        {"call": "../x", "kind": "opened", "at": "1", "data": "{}"},
        {"call": "c", "kind": "opened", "at": "nan", "data": "{}"},
        {"call": "c", "kind": "opened", "at": "1", "data": "[" * 9000},
        {"call": "c", "kind": "dtmf", "at": "1", "data": '{"digit": ["x"]}'},
        {"call": "c", "kind": "quality", "at": "1", "data": '{"mos": NaN}'},
        {"call": "c", "kind": "x", "at": "1", "data": '{"a": "' + "x" * 90_000 + '"}'},
        {"call": "c", "kind": "turn", "at": "1", "data": '{"who": "president"}'},
    ],
    ids=range(8),
)
async def test_what_a_stranger_writes_is_left_out_and_stops_nothing(
    house: EventHouse, entry: dict[Any, Any]
) -> None:
    await house.sessions.redis.xadd(TOLD, entry)
    house.begin()
    house.sessions.session("c1").opened(**WHO)
    (event,) = await house.has(1)
    assert event.call_id == "c1"
    assert house.intake.unreadable == 1


async def test_a_key_of_another_type_stops_no_other_call(house: EventHouse) -> None:
    await house.sessions.redis.set("vg:call:c1", "x")
    house.begin()
    await house.sessions.redis.xadd(
        TOLD, {"call": "c1", "kind": "ended", "at": "5", "data": '{"how": "refused"}'}
    )
    (event,) = await house.has(1)
    assert event.data["how"] == "refused"


async def test_refused_calls_are_told_and_a_flood_of_them_is_counted(house: EventHouse) -> None:
    event = CallNotTaken(transport="udp", status=404, reason="no route", caller="sip:bob@x")
    taken = [house.intake.refused(f"c{n}", 5.0, event) for n in range(module.REFUSED_EACH_S + 30)]
    assert module.REFUSED_EACH_S <= sum(taken) <= 2 * module.REFUSED_EACH_S, "a second may have ended between"
    house.begin()
    events = await house.has(sum(taken))
    assert {event.type for event in events} == {"call.refused"}
    house.intake._second = 0
    assert house.intake.refused("later", 6.0, event)
    assert (await house.has(sum(taken) + 1))[-1].data["untold"] == taken.count(False)


async def test_a_full_disk_loses_nothing(house: EventHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    with capture_logs() as lines, full_disk():
        house.begin()
        lives(house.sessions, "c1")
        house.intake.refused("c2", 1.0, CallNotTaken(transport="udp", status=404, reason="x" * 9000))
        async with asyncio.timeout(HANGS_S):
            while not house.intake._away:  # noqa: ASYNC110  # it tells the log alone
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert house.shelf.after(0).events == ()
    with capture_logs() as later:
        events = await house.has(19)
    assert sorted(event.type for event in events) == sorted([*TYPES_OF_A_LIFE, "call.refused"])
    said = [line["event"] for line in (*lines, *later) if line["event"].startswith("events.")]
    assert said == ["events.not_kept", "events.kept_again"]
    assert house.alarms == ["events not kept"]


async def test_redis_that_lost_all_is_read_from_its_beginning(house: EventHouse, valkey: Valkey) -> None:
    house.shelf.keep([], (module.PLACE, f"{10**14}-0 7"))  # as after a clock that was set back
    house.begin()
    house.sessions.session("c1").opened(**WHO)
    assert len(await house.has(1)) == 1


async def test_what_redis_dropped_before_a_front_took_it_is_said(house: EventHouse) -> None:
    house.sessions.session("c1").opened(**WHO)
    await house.sessions.writer.flush()
    house.begin()
    await house.has(1)
    await house.close()
    again = await EventHouse.open(
        house.folder, f"unix://{house.sessions.redis.connection_pool.connection_kwargs['path']}"
    )
    raw: Any = again.sessions.redis
    for n in range(3):
        await raw.xadd(TOLD, {"call": f"d{n}", "kind": "x", "at": "5", "data": "{}"})
    await raw.xtrim(TOLD, maxlen=1, approximate=False)
    with capture_logs() as lines:
        again.begin()
        events = await again.has(2)
    assert (events[-1].call_id, again.alarms) == ("d2", ["events lost"])
    assert "events.lost" in [line["event"] for line in lines]
    house.sessions, house.shelf, house.registry = again.sessions, again.shelf, again.registry
    house._running = again._running


STEPS = ("after the reading", "before the commit", "after the commit", "after the deletion")


@pytest.mark.parametrize("step", STEPS)
async def test_a_front_that_is_killed_anywhere_loses_nothing_and_numbers_nothing_twice(
    tmp_path: Path, valkey: Valkey, step: str
) -> None:
    """It reads three events at once and is killed at that step, again and again, until all are told."""
    sessions = await Sessions.open(valkey.url)
    lives(sessions, "c1")
    await sessions.writer.flush()
    await sessions.close()
    argv = [sys.executable, "-m", "tests.gateway.front.events.event_house", str(tmp_path), valkey.url, step]
    killed = 0
    for nth in (2, 3):
        process = await asyncio.create_subprocess_exec(*argv, str(nth), stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(HANGS_S):
            idle = await process.stdout.readline()
        if idle:  # it has nothing to do any more
            process.kill()
        await process.wait()
        killed += not idle
    assert killed == 2
    house = await EventHouse.open(tmp_path, valkey.url)
    house.begin()
    await house.has(18)
    await house.close()
    events = told_in(tmp_path)
    assert [event["type"] for event in events] == TYPES_OF_A_LIFE
    assert [event["call_number"] for event in events] == list(range(1, 19))
    assert len({event["id"] for event in events}) == 18


def test_every_type_has_a_dataclass() -> None:
    assert {kind for cls in TYPES.values() for kind in cls.types} == set(TYPES)
