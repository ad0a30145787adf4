"""A call's SIP messages and lines of the log in Redis: what is kept, what goes, and what a stranger wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.ipc.wire_message import WireMessage
from gateway.store.call_trails import (
    FIRST_MESSAGES,
    LADDER_OF_CALL,
    LAST_LINES,
    LAST_MESSAGES,
    LogLine,
)
from gateway.store.living_calls import ladder_keys, log_keys
from gateway.store.sessions import Sessions


def invite(at: float = 5.0, first: str = "INVITE sip:demo@x SIP/2.0") -> WireMessage:
    return WireMessage(at, "caller", "us", "udp", first, f"{first}\r\n\r\n")


async def test_a_ladder_is_read_as_it_was_written(sessions: Sessions, raw: Any) -> None:
    pen = sessions.ladders()
    pen.message("c1", invite())
    pen.message(
        "c1", WireMessage(5.25, "us", "caller", "udp", "SIP/2.0 100 Trying", "SIP/2.0 100 Trying\r\n\r\n")
    )
    await sessions.writer.flush()
    assert await sessions.ladder("c1") == [
        {"at": 5.0, "from": "caller", "to": "us", "protocol": "udp", "first": "INVITE sip:demo@x SIP/2.0",
         "text": "INVITE sip:demo@x SIP/2.0\r\n\r\n"},
        {"at": 5.25, "from": "us", "to": "caller", "protocol": "udp", "first": "SIP/2.0 100 Trying",
         "text": "SIP/2.0 100 Trying\r\n\r\n"},
    ]  # fmt: skip
    assert await sessions.ladder("c2") == []
    assert 90 < await raw.ttl("vg:ladder:c1") <= 100


async def test_a_long_call_keeps_its_first_and_last_messages_and_says_what_is_missing(
    sessions: Sessions,
) -> None:
    pen = sessions.ladders()
    most = FIRST_MESSAGES + LAST_MESSAGES
    for n in range(most + 7):
        pen.message("c1", invite(float(n), f"INFO {n}"))
    await sessions.writer.flush()
    ladder = await sessions.ladder("c1")
    assert len(ladder) == most
    assert [message.get("left_out") for message in ladder if "left_out" in message] == [7]
    assert ladder[FIRST_MESSAGES]["left_out"] == 7
    assert (ladder[0]["first"], ladder[-1]["first"]) == ("INFO 0", f"INFO {most + 6}")


async def test_a_front_that_began_within_the_call_does_not_lose_its_end(sessions: Sessions) -> None:
    before, after = sessions.ladders(), sessions.ladders()
    for n in range(FIRST_MESSAGES):
        before.message("c1", invite(float(n)))
    after.message("c1", invite(999.0, "BYE"), under_way=True)
    await sessions.writer.flush()
    assert (await sessions.ladder("c1"))[-1]["first"] == "BYE"


async def test_the_oldest_calls_ladders_go_for_newer_ones(sessions: Sessions, raw: Any) -> None:
    pen = sessions.ladders(most_bytes=2_000)
    for n in range(20):
        pen.message(f"c{n}", invite())
    await sessions.writer.flush()
    kept = sorted(await raw.keys("vg:ladder:*"))
    assert "vg:ladder:c0" not in kept
    assert "vg:ladder:c19" in kept
    assert pen.forgotten == 20 - len(kept) > 0


def message_of(size: int) -> WireMessage:
    return WireMessage(5.0, "caller", "us", "udp", "INFO sip:demo@x SIP/2.0", "x" * size)


async def bytes_of(raw: Any, key: str) -> int:
    return sum(map(len, await raw.lrange(key, 0, -1)))


async def test_of_all_calls_no_more_is_kept_than_promised_however_they_grow(
    sessions: Sessions, raw: Any
) -> None:
    """Whoever begins with short messages and goes on with long ones takes no more room than others."""
    pen = sessions.ladders(most_bytes=100_000)
    for call in range(4):
        for n in range(FIRST_MESSAGES + 2 * LAST_MESSAGES):
            pen.message(f"c{call}", message_of(1 if n < FIRST_MESSAGES + LAST_MESSAGES else 4000))
    await sessions.writer.flush()
    kept = sum([await bytes_of(raw, key) for key in await raw.keys("vg:ladder*")])
    assert LAST_MESSAGES * 4000 < kept < LAST_MESSAGES * 4500, "the newest call's alone"


async def test_messages_that_nobody_looked_at_hide_no_bytes(sessions: Sessions, raw: Any) -> None:
    pen = sessions.ladders(most_bytes=100_000)
    for call in range(8):
        for _ in range(20):
            pen.message(f"c{call}", replace(message_of(4000), left_out=500))
    await sessions.writer.flush()
    kept = sum([await bytes_of(raw, key) for key in await raw.keys("vg:ladder*")])
    assert kept < 2 * 20 * 4500


async def test_one_call_takes_a_small_part_of_the_room(sessions: Sessions, raw: Any) -> None:
    """Some write 12 bytes for a character."""
    pen = sessions.ladders()
    wide = replace(message_of(1), text="\U0001f600" * 4000)
    pen.message("c1", invite())
    for _ in range(FIRST_MESSAGES + LAST_MESSAGES):
        pen.message("c1", wide)
    pen.message("c1", invite(9.0, "BYE"))
    await sessions.writer.flush()
    assert sum([await bytes_of(raw, key) for key in ladder_keys("c1")]) <= LADDER_OF_CALL
    ladder = await sessions.ladder("c1")
    assert (ladder[0]["at"], ladder[-1]["first"], ladder[-1]["at"]) == (5.0, "BYE", 9.0)
    assert len(ladder) + sum(one.get("left_out", 0) for one in ladder) == FIRST_MESSAGES + LAST_MESSAGES + 2


async def test_while_redis_takes_nothing_what_matters_more_has_the_room(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = sessions.ladders()
    pen.message("c1", invite())
    monkeypatch.setattr(type(sessions.writer), "crowded", True)
    pen.message("c1", invite(6.0, "INFO"))
    monkeypatch.undo()
    pen.message("c1", invite(7.0, "BYE"))
    await sessions.writer.flush()
    ladder = await sessions.ladder("c1")
    assert [(one["at"], one.get("left_out")) for one in ladder] == [(5.0, None), (7.0, 1)]


async def test_the_log_is_read_in_order_of_time(sessions: Sessions) -> None:
    pen = sessions.logs()
    pen.line("c1", LogLine(7.0, "hall0", "info", "call.answered", {"voice": "heart"}))
    pen.line("c1", LogLine(6.5, "front", "info", "call.offered", {"caller": "bob"}))
    await sessions.writer.flush()
    assert await sessions.log("c1") == [
        {
            "at": 6.5,
            "process": "front",
            "level": "info",
            "event": "call.offered",
            "fields": {"caller": "bob"},
        },
        {
            "at": 7.0,
            "process": "hall0",
            "level": "info",
            "event": "call.answered",
            "fields": {"voice": "heart"},
        },
    ]


async def test_a_living_call_renews_them(sessions: Sessions, raw: Any) -> None:
    sessions.session("c1").opened(caller="bob")
    sessions.ladders().message("c1", invite())
    sessions.logs().line("c1", LogLine(6.5, "front", "info", "call.offered", {}))
    await sessions.writer.flush()
    keys = (ladder_keys("c1")[0], log_keys("c1")[0])
    for key in keys:
        await raw.expire(key, 5)
    sessions._living.refresh()
    await sessions.writer.flush()
    assert all([await raw.ttl(key) > 90 for key in keys])


STRANGE = [
    "", "[", "[" * 100_000, "{}", "null", '{"at": 1' + "0" * 400 + "}",
    '{"at": "soon"}', '{"at": 1e999}', '{"at": true}', '{"at": 1, "first": 3}',
    json.dumps({"at": 1, "from": "a", "to": "b", "protocol": "gopher", "first": "x", "text": "x"}),
    json.dumps({"at": 1, "process": "p", "level": "info", "event": "e", "fields": []}),
]  # fmt: skip


async def test_what_a_stranger_wrote_spoils_nothing(sessions: Sessions, raw: Any) -> None:
    sessions.ladders().message("c1", invite())
    sessions.logs().line("c1", LogLine(6.5, "front", "info", "call.offered", {}))
    await sessions.writer.flush()
    for key in (*ladder_keys("c1"), *log_keys("c1")):
        await raw.rpush(key, *STRANGE)
    assert [message["first"] for message in await sessions.ladder("c1")] == ["INVITE sip:demo@x SIP/2.0"]
    assert [line["event"] for line in await sessions.log("c1")] == ["call.offered"]
    for key in (*ladder_keys("c1"), *log_keys("c1")):
        await raw.set(key, "x")
    assert (await sessions.ladder("c1"), await sessions.log("c1")) == ([], [])


async def test_there_are_never_more_lines_than_promised(sessions: Sessions) -> None:
    pen = sessions.logs()
    for n in range(400):
        pen.line("c1", LogLine(float(n), "hall0", "info", f"e{n}", {}))
    await sessions.writer.flush()
    log = await sessions.log("c1")
    assert (len(log), log[0]["event"], log[-1]["event"]) == (200 + LAST_LINES, "e0", "e399")
