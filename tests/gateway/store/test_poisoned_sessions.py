"""Somebody writes into our sessions: what is not ours is left out, and spoils nothing of another call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.store.call_events import Turn
from gateway.store.living_calls import LIVE
from gateway.store.sessions import Sessions
from gateway.store.sound_track import steps_row
from model.tasks import failures
from tests.gateway.conftest import Valkey

NESTED = "[" * 100_000
KEYS = ("vg:call:bad", "vg:events:bad", "vg:history:bad", "vg:sound:bad")


@pytest.fixture
async def sessions(valkey: Valkey) -> AsyncIterator[Sessions]:
    opened = await Sessions.open(valkey.url, ttl_s=100)
    for call_id in ("good", "bad"):
        call = opened.session(call_id)
        call.opened(caller="sip:bob@x", route="demo")
        call.turn(Turn("caller", "hello"))
        call.note(disclosed=["this is a machine"])
        call.sound(steps_row(1.0, b"\x0c\x14\x01"))
        call.remember({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]})
    await opened.writer.flush()
    yield opened
    await opened.close()


@pytest.fixture
async def raw(valkey: Valkey) -> AsyncIterator[Any]:
    client = Redis.from_url(valkey.url)
    yield client
    await client.aclose()


async def _facts(raw: Any, **facts: object) -> None:
    await raw.hset("vg:call:bad", mapping=facts)


async def _all_of_another_type(raw: Any, what: str) -> None:
    for key in KEYS:
        await raw.delete(key)
        if what == "string":
            await raw.set(key, b"\xff")
        elif what == "list":
            await raw.rpush(key, b"\xff")
        elif what == "hash":
            await raw.hset(key, b"\xff", b"\xfe")
        else:
            await raw.xadd(key, {b"\xff": b"\xfe"})


POISONS = {
    "numbers": lambda raw: _facts(
        raw, started_at="soon", ended_at="inf", turns="many", spoken_s="nan", packets="1e999", lost=NESTED
    ),
    "bytes": lambda raw: _facts(raw, started_at=b"\xff", caller=b"\xff\xfe", state=b"\x00", route=b"\xc3"),
    "nesting": lambda raw: _facts(raw, disclosed=NESTED, offer=NESTED),
    "another's id": lambda raw: _facts(raw, call_id="good", events="x"),
    "fields": lambda raw: raw.hset("vg:call:bad", b"\xff", b"\xff"),
    "strings": lambda raw: _all_of_another_type(raw, "string"),
    "lists": lambda raw: _all_of_another_type(raw, "list"),
    "hashes": lambda raw: _all_of_another_type(raw, "hash"),
    "streams": lambda raw: _all_of_another_type(raw, "stream"),
    "ids": lambda raw: raw.zadd(LIVE, dict.fromkeys([b"\xff", "../../x", "a\x00b", "é", "x" * 9000], 4e9)),
    "scores": lambda raw: raw.zadd(LIVE, {"bad": float("inf")}),
}


@pytest.mark.parametrize("poison", POISONS)
async def test_the_other_calls_are_read_as_before(sessions: Sessions, raw: Any, poison: str) -> None:
    await POISONS[poison](raw)
    live = {call["call_id"]: call for call in await sessions.live()}
    assert set(live) <= {"good", "bad"}
    assert live["good"]["caller"] == "sip:bob@x"
    assert live["good"]["disclosed"] == ["this is a machine"]
    json.dumps(list(live.values()), allow_nan=False)
    assert set(await sessions.begun_before(5e9)) <= {"good", "bad"}
    assert set(await sessions.stale()) <= {"good", "bad"}
    await sessions.last_seen("bad")
    good = await sessions.show("good")
    assert good is not None
    assert good["turns"][0]["text"] == "hello"
    assert len(await sessions.history("good")) == 1
    assert [part["caller"] for part in (await sessions.sound("good"))["parts"]] == [[-12]]
    json.dumps(await sessions.sound("bad"), allow_nan=False)


EVENTS = (
    {"at": "soon", "kind": "turn", "data": "{}"},
    {"at": "1", "kind": "turn", "data": NESTED},
    {"at": "1", "kind": "turn", "data": "[1]"},
    {"at": "nan", "kind": "turn", "data": "{}"},
    {"at": "1", "kind": "quality", "data": '{"mos": NaN}'},
    {"at": "1", "kind": "quality", "data": '{"loss_percent": 1e999}'},
    {b"\xff": b"\xff"},
    {"at": "1", "data": "{}"},
)
ITEMS = (b"\xff", NESTED, "5", "null", "[]", '"x"')
"""Whether a table is a message, the hall sees (tests/gateway/hall/test_resume.py)."""


async def test_of_a_poisoned_call_what_is_ours_is_left(sessions: Sessions, raw: Any) -> None:
    for entry in EVENTS:
        await raw.xadd("vg:events:bad", entry)
    await raw.rpush("vg:history:bad", *ITEMS)
    await raw.rpush("vg:sound:bad", *ITEMS)
    shown = await sessions.show("bad")
    assert shown is not None
    assert [turn["text"] for turn in shown["turns"]] == ["hello"]
    assert "quality" not in {event["kind"] for event in shown["events"]}
    assert [item["content"][0]["text"] for item in await sessions.history("bad")] == ["hi"]
    assert [part["voice"] for part in (await sessions.sound("bad"))["parts"]] == [[-20]]


async def test_half_a_character_is_no_reason_not_to_tell_a_call(sessions: Sessions, raw: Any) -> None:
    for n, text in enumerate(("half \ud83d", "\ude00 half", "whole \U0001f600", "\\ud83d written")):
        data = json.dumps({"who": "bot", "text": text, "text\udc80": "a name"})
        await raw.xadd("vg:events:bad", {"at": str(n + 2), "kind": "turn", "data": data})
    shown = await sessions.show("bad")
    assert shown is not None
    assert [turn["text"] for turn in shown["turns"] if turn["who"] == "bot"] == [
        "half ?", "? half", "whole \U0001f600", "\\ud83d written",
    ]  # fmt: skip
    json.dumps(shown, ensure_ascii=False).encode()


async def test_a_poisoned_writer_writes_on(sessions: Sessions, raw: Any, valkey: Valkey) -> None:
    key = sessions.writer._key
    valkey.kill()
    sessions.session("good").state("talking")
    valkey.start()
    await raw.delete(key)
    await raw.rpush(key, b"\xff")
    await sessions.writer.flush()
    sessions.session("good").state("answered")
    await sessions.writer.flush()
    assert (await raw.hget("vg:call:good", "state")) == b"answered"
    assert not failures["sessions.write"]
