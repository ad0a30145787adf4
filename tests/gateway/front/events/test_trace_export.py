"""A collector is told a call as a trace: each event once, with its own times, without words and numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from gateway.config.settings import Settings
from gateway.front.events.collector import Collector
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.trace_export import TraceExport
from gateway.front.events.trace_spans import HASHED, KEPT, OF_CALL, SpanMaker
from gateway.store.call_events import TYPES, CallDetail
from model.trace_context import trace_of
from tests.gateway.front.events.hook_receiver import DROPS, HookReceiver
from tests.gateway.front.events.trace_collector import spans_in
from tests.needs import HANGS_S

KEY = b"k" * 32
CDR = {
    "call_id": "c1", "started_at": 100.5, "ended_at": 109.0, "caller": "sip:+4930123456@example.org",
    "called": "demo", "source": "192.0.2.7", "user": "alice", "route": "night",
    "how": "caller hung up: bye +49", "party": "caller hung up", "turns": 1,
    "mos": 4.2, "voice": "Ada Lovelace",
}  # fmt: skip
SECRETS = ("4930123456", "192.0.2.7", "alice", "Ada", "sesame", "example.org", "bye", "secret")


def event(kind: str, number: int, at: float, **data: Any) -> KeptEvent:
    return KeptEvent(kind, 1, f"0123456789abcdef-{number}", number, number, at, "c1", data)


CALL = [
    event("call.answered", 1, 101.0),
    event("call.disclosed", 2, 102.0, principal="secret", language="en", text="secret"),
    event("turn.heard", 3, 103.0, who="caller", text="open sesame", intent="sesame", duration_s=1.5),
    event("turn.said", 4, 105.0, who="bot", text="sesame", duration_s=3.0, heard_s=2.0, interrupted=True,
          latency_ms={"endpoint": 120.5, "total": 480.0}),
    event("key", 5, 106.0, digit="7"),
    event("transfer", 6, 107.0, step="failed", target="desk", status=486, why="secret"),
    event("mark.alarm", 7, 108.0, reason="not found", error="secret"),
    event("call.ended", 8, 109.0, how="caller hung up: bye +49", cdr=CDR),
]  # fmt: skip


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[HookReceiver]:
    receiver = HookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest_asyncio.fixture
async def export(collector: HookReceiver) -> AsyncIterator[TraceExport]:
    told = Collector(f"http://127.0.0.1:{collector.port}/", instance="house")
    yield TraceExport(told, KEY)
    await told.close()


async def test_a_call_is_a_trace_and_its_turns_are_spans_with_their_own_times(
    collector: HookReceiver, export: TraceExport
) -> None:
    async with asyncio.timeout(HANGS_S):
        for one in CALL:
            assert export.wants(one)
            assert (await export.tell(one, 0)).said == "taken"
    assert {got.path for got in collector.got} == {"/v1/traces"}
    spans = {span.name: span for span in spans_in(got.body for got in collector.got)}
    assert set(spans) == {"call"} | {one.type for one in CALL[:-1]}
    call = spans.pop("call")
    assert (call.trace, call.id, call.parent) == (*trace_of("c1"), "")
    assert {(span.trace, span.parent) for span in spans.values()} == {(call.trace, call.id)}
    assert len({span.id for span in spans.values()} | {call.id}) == len(CALL)
    assert (call.begun, call.over) == (100.5, 109.0)
    assert (spans["turn.heard"].begun, spans["turn.heard"].over) == (103.0, 104.5)
    assert (spans["turn.said"].begun, spans["turn.said"].over) == (105.0, 107.0)
    assert spans["turn.said"].facts["voicegate.latency.total_ms"] == 480.0
    assert spans["turn.said"].facts["voicegate.interrupted"] is True
    assert spans["transfer"].facts["voicegate.status"] == 486
    assert call.facts["voicegate.mos"] == 4.2
    assert [name for name, span in spans.items() if span.wrong] == ["mark.alarm"]
    assert not call.wrong


async def test_nobody_reads_words_numbers_or_names_in_it(
    collector: HookReceiver, export: TraceExport
) -> None:
    refused = {"caller": "sip:+4930123456@example.org", "source": "192.0.2.7", "status": 404,
               "reason": "secret", "transport": "udp"}  # fmt: skip
    async with asyncio.timeout(HANGS_S):
        for one in [*CALL, event("call.refused", 9, 110.0, **refused)]:
            await export.tell(one, 0)
    said = b"".join(got.body for got in collector.got).decode()
    assert [word for word in SECRETS if word in said] == []
    *_, call, refusal = spans_in(got.body for got in collector.got)
    assert call.facts["voicegate.caller_hash"] == refusal.facts["voicegate.caller_hash"]
    assert refusal.wrong


def test_a_number_is_another_word_in_another_house() -> None:
    assert SpanMaker(KEY).hashed("+4930123456") == SpanMaker(KEY).hashed("+4930123456")
    assert SpanMaker(KEY).hashed("+4930123456") != SpanMaker(b"x" * 32).hashed("+4930123456")
    assert SpanMaker(KEY).hashed("+4930123456") != SpanMaker(KEY).hashed("+4930123457")


def test_only_fields_that_exist_and_are_not_personal_are_told() -> None:
    for kind, names in KEPT.items():
        data = TYPES[kind]
        known = {one.name for one in fields(data)}
        assert set(names) <= known - set(data.words), kind
    assert {*OF_CALL, *HASHED} <= {one.name for one in fields(CallDetail)}
    assert not TraceExport(Collector("http://localhost"), KEY).wants(event("call.note", 1, 1.0, what="x"))


@pytest.mark.parametrize(
    ("status", "said"), [(200, "taken"), (503, "later"), (401, "later"), (400, "never"), (DROPS, "later")]
)
async def test_what_the_collector_does_not_take_waits_unless_it_never_will(
    collector: HookReceiver, export: TraceExport, status: int, said: str
) -> None:
    answers: Callable[[object], int] = lambda _: status  # noqa: E731
    collector.answers = answers
    async with asyncio.timeout(HANGS_S):
        assert (await export.tell(CALL[0], 0)).said == said


async def test_spans_that_are_never_taken_are_told_of_once(
    collector: HookReceiver, export: TraceExport
) -> None:
    refuses: Callable[[object], int] = lambda _: 400  # noqa: E731
    takes: Callable[[object], int] = lambda _: 200  # noqa: E731
    async with asyncio.timeout(HANGS_S):
        collector.answers = refuses
        first, second = [await export.tell(one, 0) for one in CALL[:2]]
        collector.answers = takes
        collector.says = b'{"partialSuccess": {"rejectedSpans": "1"}}'
        third = await export.tell(CALL[2], 0)
        collector.says = b"{}"
        assert (await export.tell(CALL[3], 0)).said == "taken"
        collector.answers = refuses
        last = await export.tell(CALL[4], 0)
    assert [one.said for one in (first, second, third, last)] == ["never"] * 4
    assert [one.silent for one in (first, second, third, last)] == [False, True, True, False]


@pytest.mark.parametrize(
    "url",
    ["http://collector.example.com:4318", "ftp://localhost", "http://localhost.example.com", "https://u:p@x.example",
     "http://127.0.0.1@evil.example", "https://x.example/?token=1"],
)  # fmt: skip
def test_a_collector_elsewhere_is_told_by_tls_alone(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings(otlp_url=url)


def test_a_collector_here_or_by_tls_will_do() -> None:
    for url in ("http://localhost:4318", "http://[::1]:4318/", "https://otlp.example.com/tenant"):
        assert Settings(otlp_url=url).otlp_url == url
