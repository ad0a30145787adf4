"""Sessions on a real Valkey: kept, restored, expired; and nothing lost when it dies in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from consent.grants.redis_watch import RedisWatch
from gateway.errors import StartError
from gateway.store.call_events import Turn
from gateway.store.call_session import MAX_HISTORY_BYTES, MAX_HISTORY_ITEMS
from gateway.store.living_calls import LIVE, STALE_S
from gateway.store.session_writer import Writer
from gateway.store.sessions import Sessions
from gateway.store.sound_track import end_row, steps_row
from model.tasks import failures
from tests.full_disk import full_disk
from tests.gateway.conftest import Valkey, short_folder
from tests.needs import HANGS_S
from tests.slept import Slept

FACTS = {"caller": "sip:bob@x", "called": "sip:demo@y", "route": "demo", "voice": "heart", "nothing": None}


async def test_a_call_from_first_to_last(sessions: Sessions) -> None:
    call = sessions.session("c1")
    call.opened(**FACTS)
    call.note(offer={"routes": ["…"]}, codec="PCMU")
    call.state("answered")
    call.turn(Turn("caller", "when are you open", duration_s=1.23456))
    call.turn(Turn("bot", "daily", latency_ms={"engine": 41.26, "whole": 503.0}, interrupted=True))
    call.event("dtmf", digit="5")
    await sessions.writer.flush()
    (live,) = await sessions.live()
    assert live["call_id"] == "c1"
    assert live["state"] == "answered"
    assert live["answered_at"] >= live["started_at"] > time.time() - 60
    assert live["turns"] == 2
    assert "offer" not in live

    call.ended("caller hung up", spoken_s=3.5)
    await sessions.writer.flush()
    assert await sessions.live() == []
    (ended,) = await sessions.recent()
    assert (ended["state"], ended["how"], ended["spoken_s"]) == ("ended", "caller hung up", 3.5)
    shown = await sessions.show("c1")
    assert shown is not None
    assert [event["kind"] for event in shown["events"]] == [
        "opened",
        "state",
        "turn",
        "turn",
        "dtmf",
        "ended",
    ]
    asked, said = shown["turns"]
    assert (asked["text"], asked["duration_s"]) == ("when are you open", 1.235)
    assert (said["latency_ms"], said["interrupted"]) == ({"engine": 41.3, "whole": 503.0}, True)
    assert json.loads(json.dumps(shown)) == shown
    assert await sessions.show("c2") is None


async def test_a_new_hall_finds_the_offer_and_the_history(sessions: Sessions) -> None:
    call = sessions.session("c1")
    call.opened(**FACTS)
    call.note(offer={"payload": 5})
    call.remember({"role": "assistant", "text": "hello"})
    await sessions.writer.flush()
    record = await sessions.get("c1")
    assert record is not None
    assert json.loads(record.facts["offer"]) == {"payload": 5}
    assert await sessions.history("c1") == [{"role": "assistant", "text": "hello"}]
    sessions.session("c1").resumed()
    call.ended("hung up")
    await sessions.writer.flush()
    ended = await sessions.get("c1")
    assert ended is not None
    assert "offer" not in ended.facts
    assert await sessions.history("c1") == []


async def test_history_is_capped_by_count_and_by_size(sessions: Sessions) -> None:
    many, large = sessions.session("many"), sessions.session("large")
    for number in range(MAX_HISTORY_ITEMS + 5):
        many.remember({"n": number})
    for number in range(5):
        large.remember({"n": number, "audio": "x" * (MAX_HISTORY_BYTES // 3)})
    await sessions.writer.flush()
    assert [item["n"] for item in await sessions.history("many")] == list(range(5, MAX_HISTORY_ITEMS + 5))
    assert [item["n"] for item in await sessions.history("large")] == [3, 4]


async def test_everything_has_a_ttl_and_a_living_call_renews_it(sessions: Sessions, raw: Any) -> None:
    call = sessions.session("c1")
    call.opened(**FACTS)
    call.remember({"text": "x"})
    call.sound(end_row(1.0))
    await sessions.writer.flush()
    keys = [key for key in await raw.keys("vg:*:c1")]
    assert len(keys) == 4
    for key in keys:
        assert 90 < await raw.ttl(key) <= 100
        await raw.expire(key, 5)
    await raw.zadd(LIVE, {"c1": time.time() - STALE_S - 1})
    assert await sessions.live() == []
    sessions._living.refresh()
    await sessions.writer.flush()
    assert len(await sessions.live()) == 1
    assert all([await raw.ttl(key) > 90 for key in keys])


async def test_the_sound_track_is_there_after_the_call_and_has_a_ttl(sessions: Sessions, raw: Any) -> None:
    call = sessions.session("c1")
    call.opened(**FACTS)
    call.sound(steps_row(100.0, b"\x0c\x14\x01" * 50))
    call.ended("caller hung up")
    call.sound(steps_row(105.0, b"\x0c\xff\x00"))  # the last one comes when the seat is free
    await sessions.writer.flush()
    (part,) = (await sessions.sound("c1"))["parts"]
    assert (part["began_at"], part["caller"], part["voice"][-1]) == (100.0, [-12] * 51, None)
    assert 90 < await raw.ttl("vg:sound:c1") <= 100
    assert (await sessions.sound("nobody"))["parts"] == []


async def test_a_call_whose_hall_went_away_is_found(sessions: Sessions, raw: Any) -> None:
    sessions.session("lost").opened(**FACTS)
    sessions.session("lives").opened(**FACTS)
    await sessions.writer.flush()
    await raw.zadd(LIVE, {"lost": time.time() - STALE_S - 1})
    assert await sessions.stale() == ["lost"]
    sessions.session("lost").ended("failed: its hall died")
    await sessions.writer.flush()
    assert [call["call_id"] for call in await sessions.live()] == ["lives"]
    (ended,) = await sessions.recent()
    assert ended["how"].startswith("failed:")


async def test_redis_dies_in_the_middle_and_nothing_is_lost(valkey: Valkey, raw: Any) -> None:
    await raw.config_set("appendfsync", "always")  # everysec may lose a second to a crash of the machine
    sessions = await Sessions.open(valkey.url)
    call = sessions.session("c1")
    call.opened(**FACTS)
    for number in range(20):
        call.event("before", n=number)
    await sessions.writer.flush()
    valkey.kill()
    with Slept() as slept:
        for number in range(500):
            call.event("while", n=number)
    assert slept.seconds < 0.5, "a writer waited"
    assert not await sessions.ready()
    valkey.start()
    call.ended("caller hung up")
    await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
    record = await sessions.get("c1")
    assert record is not None
    kinds = [event["kind"] for event in record.events]
    assert kinds == ["opened", *["before"] * 20, *["while"] * 500, "ended"]
    assert [e["data"]["n"] for e in record.events if e["kind"] == "while"] == list(range(500))
    assert await sessions.close() == 0


async def test_a_writer_that_fails_for_a_reason_of_its_own_goes_on(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = Writer._write, ["once"]

    async def write(writer: Writer) -> None:
        if broken:
            raise TypeError(f"a bug, {broken.pop()}")
        await real(writer)

    before = failures["sessions.write"]
    monkeypatch.setattr(Writer, "_write", write)
    sessions.session("c1").opened(**FACTS)
    await asyncio.wait_for(sessions.writer.flush(), 10)
    assert len(await sessions.live()) == 1, "nothing was lost"
    assert failures["sessions.write"] == before + 1


async def test_redis_is_down_at_start_and_comes_later(valkey: Valkey) -> None:
    valkey.stop()
    sessions = await Sessions.open(valkey.url)
    sessions.session("c1").opened(**FACTS)
    assert not await sessions.ready()
    valkey.start()
    await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
    assert await sessions.ready()
    assert len(await sessions.live()) == 1
    assert await sessions.close() == 0


async def test_an_answer_that_got_lost_is_not_applied_twice(valkey: Valkey) -> None:
    """The connection breaks after Redis has done its work and before it could say so."""
    cuts = 1

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        there_reader, there_writer = await asyncio.open_unix_connection(valkey.socket)
        with contextlib.suppress(ConnectionError):
            while asked := await reader.read(1 << 16):
                there_writer.write(asked)
                answer = await there_reader.read(1 << 16)
                if b"EXEC" in asked and cuts:
                    cuts -= 1
                    break
                writer.write(answer)
        writer.close()
        there_writer.close()

    with short_folder() as folder:
        server = await asyncio.start_unix_server(relay, folder / "r.sock")
        sessions = await Sessions.open(f"unix://{folder}/r.sock")
        call = sessions.session("c1")
        call.opened(**FACTS)
        call.event("once")
        await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
        call.event("twice?")
        await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
        record = await sessions.get("c1")
        assert record is not None
        assert cuts == 0
        assert [event["kind"] for event in record.events] == ["opened", "once", "twice?"]
        assert await sessions.close() == 0
        server.close()


async def test_when_full_unimportant_writes_go_first_and_are_counted(valkey: Valkey) -> None:
    valkey.stop()
    redis = Redis.from_url(valkey.url, decode_responses=True)
    writer = Writer(redis, "w", RedisWatch("redis://x"), capacity=10, reserve=3)
    writer.start()
    for number in range(12):
        writer.put([("RPUSH", "list", f"small-{number}")])
    for number in range(5):
        writer.put([("RPUSH", "list", f"large-{number}")], important=True)
    assert writer.lost == 4
    assert writer.waiting == 13
    valkey.start()
    await asyncio.wait_for(writer.flush(), HANGS_S)
    kept: Any = redis.lrange("list", 0, -1)
    assert await kept == [*(f"small-{n}" for n in range(10)), *(f"large-{n}" for n in range(3))]
    assert await writer.close(1) == 4
    await redis.aclose()


async def test_rows_of_sound_leave_half_of_the_room_to_events(valkey: Valkey) -> None:
    valkey.stop()
    redis = Redis.from_url(valkey.url, decode_responses=True)
    writer = Writer(redis, "w", RedisWatch("redis://x"), capacity=40)
    writer.start()
    call = Sessions(redis, writer, RedisWatch(valkey.url), 100.0).session("c1")
    for second in range(100):
        call.sound(steps_row(1.0 + 5 * second, b"\x0c\x14\x01" * 50))
    for _ in range(20):
        call.event("dtmf", digit="5")
    assert writer.lost == 0
    valkey.start()
    await asyncio.wait_for(writer.flush(), HANGS_S)
    kept: Any = redis.llen("vg:sound:c1")
    told: Any = redis.xlen("vg:events:c1")
    assert (await kept, await told) == (20, 20)
    await writer.close(1)
    await redis.aclose()


async def test_a_write_that_redis_refuses_spoils_no_other(valkey: Valkey, raw: Any) -> None:
    await raw.set("text", "no list")
    writer = Writer(raw, "w", RedisWatch("redis://x"))
    writer.start()
    writer.put([("RPUSH", "list", "a")])
    writer.put([("RPUSH", "text", "b")])  # fails when executed
    writer.put([("NOSUCHCOMMAND", "c")])  # spoils its transaction
    writer.put([("RPUSH", "list", "d")])
    await asyncio.wait_for(writer.flush(), HANGS_S)
    assert await raw.lrange("list", 0, -1) == ["a", "d"]
    assert await writer.close(1) == 2


async def test_a_redis_whose_disk_is_full_is_waited_for_and_nothing_is_lost(valkey: Valkey) -> None:
    valkey.stop()
    valkey.start(outlives_full_disk=True)
    assert valkey.process is not None
    sessions = await Sessions.open(valkey.url)
    sessions.session("c1").opened(**FACTS)
    await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
    with capture_logs() as logs:
        with full_disk(valkey.process.pid):
            for number in range(20):
                sessions.session("c1").event("said", text=f"a secret {number}")
                await asyncio.sleep(0.05)
            while not sessions.writer.down:  # it notices when it appends to its file, once a second
                sessions.session("c1").event("more")
                await asyncio.sleep(0.05)
            assert not await sessions.ready()
            sessions.session("c1").state("talking")
        await asyncio.wait_for(sessions.writer.flush(), HANGS_S)
    assert sessions.writer.lost == 0
    assert [line["event"] for line in logs] == ["redis.away", "redis.back"]
    assert "MISCONF" in logs[0]["error"]
    assert "secret" not in str(logs), "the log tells no words of a caller"
    record = await sessions.get("c1")
    assert record is not None
    assert record.state == "talking"
    assert await sessions.close() == 0


async def test_what_cannot_be_written_at_the_end_is_counted(valkey: Valkey) -> None:
    valkey.stop()
    sessions = await Sessions.open(valkey.url)
    sessions.session("c1").opened(**FACTS)
    assert await sessions.close(timeout_s=0.1) == 1


async def test_a_url_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(StartError, match="VOICEGATE_REDIS_URL"):
        await Sessions.open("http://redis")


def test_sockets_of_the_tests_fit() -> None:
    with short_folder() as folder:
        assert len(str(Path(folder, "redis.sock"))) < 100
