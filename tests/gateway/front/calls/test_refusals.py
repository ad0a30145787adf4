"""A refused call is one event: a line of the log, a count, a row; and a flood of them costs little."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.testclient import TestClient

from gateway.config.settings import Settings
from gateway.errors import CallRefused
from gateway.front.calls import refusals as module
from gateway.front.calls.refusals import Refusals
from gateway.front.house.metrics import Metrics
from gateway.front.http.app import build_app
from gateway.front.http.refused_offers import OTHER_CAUSE, RefusedOffers
from gateway.ipc.call_facts import CallFacts
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import Registry, RegistryError
from tests.gateway.front.house.test_metrics import samples
from tests.gateway.front.http.test_app import OFFER, SDP, FakeHouse
from tests.needs import HANGS_S

FACTS = CallFacts("sip:+4930123@x", "sip:nobody@y", "Bob", "192.0.2.7", "udp")


class Kept:
    """A front's refusals, and all that came of them."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry.open(f"sqlite:///{folder / 'calls.db'}")
        self.table = RefusedCalls(self.registry)
        self.table.open()
        self.metrics = Metrics()
        self.refusals = Refusals(self.table, self.metrics)

    async def rows(self) -> list[RefusedCall]:
        await self.refusals.write()
        return self.table.listed()

    def counted(self, status: int, transport: str) -> float:
        labels = (("status", str(status)), ("transport", transport))
        return samples(self.metrics).get(("voicegate_calls_refused_total", labels), 0.0)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.registry.close()


async def test_a_refused_call_is_logged_counted_and_kept(kept: Kept) -> None:
    with structlog.testing.capture_logs() as lines:
        kept.refusals.note(FACTS, 404, "no route", sip_call_id="a84b", call_id="c1")
    (line,) = lines
    said = {
        "event": "call.refused",
        "log_level": "info",
        "call_id": "c1",
        "sip_call_id": "a84b",
        "status": 404,
    }
    assert said.items() <= line.items()
    assert line["reason"] == "no route"
    assert (line["caller"], line["called"], line["source"]) == (FACTS.caller, FACTS.called, FACTS.source)
    assert kept.counted(404, "udp") == 1
    (row,) = await kept.rows()
    assert (row.call_id, row.caller, row.status, row.reason) == ("c1", FACTS.caller, 404, "no route")


async def test_a_call_that_never_had_an_id_is_found_in_log_and_list_by_the_same_one(kept: Kept) -> None:
    with structlog.testing.capture_logs() as lines:
        kept.refusals.note(FACTS, 503, "all lines are busy")
    (row,) = await kept.rows()
    assert lines[0]["call_id"] == row.call_id != ""
    assert lines[0]["log_level"] == "warning", "an operator may do something about it"


@pytest.mark.parametrize(
    ("status", "level"), [(401, "warning"), (480, "warning"), (503, "warning"), (486, "info")]
)
async def test_what_an_operator_should_look_at_is_a_warning(kept: Kept, status: int, level: str) -> None:
    with structlog.testing.capture_logs() as lines:
        kept.refusals.note(FACTS, status, "why")
    assert lines[0]["log_level"] == level


async def test_a_flood_is_counted_in_full_and_written_in_part(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    for number in range(100):
        kept.refusals.note(FACTS, 404, f"no route {number}")
    assert kept.counted(404, "udp") == 100
    assert kept.refusals.unkept == 90
    assert len(await kept.rows()) == 10


async def test_a_flood_fills_no_log_and_hides_nobody_else(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: at)
    other = replace(FACTS, source="192.0.2.8")
    with structlog.testing.capture_logs() as lines:
        for _ in range(module.LINES_OF_SOURCE + 80):
            kept.refusals.note(FACTS, 404, "no route")
        kept.refusals.note(other, 404, "no route")
        at += module.LINES_S + 1
        kept.refusals.note(FACTS, 404, "no route")
    said = [(line["event"], line["source"]) for line in lines]
    assert said.count(("call.refused", FACTS.source)) == module.LINES_OF_SOURCE + 1
    assert said.count(("call.refused", other.source)) == 1
    (summed,) = [line for line in lines if line["event"] == "calls.refused_unlogged"]
    assert (summed["source"], summed["count"]) == (FACTS.source, 80)
    assert kept.counted(404, "udp") == module.LINES_OF_SOURCE + 82


async def test_a_database_that_is_away_is_said_once_and_calls_go_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise RegistryError("the disk is full")

    with structlog.testing.capture_logs() as lines, monkeypatch.context() as broken:
        broken.setattr(kept.table, "note", away)
        for _ in range(3):
            kept.refusals.note(FACTS, 404, "no route")
            await kept.refusals.write()
    assert [line["event"] for line in lines].count("refused_calls.not_kept") == 1
    kept.refusals.note(FACTS, 404, "no route")
    assert len(await kept.rows()) == 1


async def test_what_waits_is_written_by_itself(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    written, note = asyncio.Event(), kept.table.note

    def noted(calls: list[RefusedCall]) -> None:
        note(calls)
        loop.call_soon_threadsafe(written.set)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(kept.table, "note", noted)
    writing = asyncio.create_task(kept.refusals.run())
    kept.refusals.note(FACTS, 404, "no route")
    async with asyncio.timeout(HANGS_S):
        await written.wait()
    writing.cancel()
    assert len(kept.table.listed()) == 1


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────


class Web:
    """An app with its eye, and what that saw."""

    def __init__(self) -> None:
        self.house = FakeHouse()
        self.seen: list[tuple[CallFacts, int, str, str | None]] = []
        app = build_app(self.house, Settings(host="127.0.0.1"))
        self.causes: list[str] = []
        watched = RefusedOffers(app, lambda *event: self.seen.append(event), self.causes.append)
        self.client = TestClient(watched, base_url="http://localhost:8080", raise_server_exceptions=False)
        self.client.get("/")


@pytest.fixture
def web() -> Web:
    return Web()


def test_a_call_that_is_taken_is_not_refused(web: Web) -> None:
    assert web.client.post("/api/call", content=SDP, headers=OFFER).status_code == 201
    assert (web.seen, web.causes) == ([], [])


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (CallRefused(404, "no route for 'nobody'", call_id=None), 404),
        (CallRefused(480, "the voice may not be used: revoked", call_id="c9"), 503),
        (CallRefused(503, "all web lines are busy", retry_after_s=10), 503),
        (CallRefused(603, "not from there"), 403),
    ],
)
def test_what_the_front_refuses_is_seen(web: Web, refusal: CallRefused, status: int) -> None:
    web.house.refuses = refusal
    answer = web.client.post("/api/call", json={"sdp": SDP, "dialled": "nobody"})
    assert answer.status_code == status
    ((facts, seen_status, reason, call_id),) = web.seen
    assert (seen_status, reason, call_id) == (status, refusal.reason, refusal.call_id)
    assert (facts.caller, facts.called, facts.source, facts.transport) == (
        "web",
        "nobody",
        "testclient",
        "webrtc",
    )


def test_an_offer_counts_by_its_cause_or_else_by_its_status(web: Web) -> None:
    refusals = [
        CallRefused(503, "all web lines are busy", cause="lines busy"),
        CallRefused(404, "no route for 'nobody'"),
        CallRefused(699, "what nobody foresaw"),
    ]
    for web.house.refuses in refusals:
        web.client.post("/api/call", json={"sdp": SDP, "dialled": "nobody"})
    web.client.post("/api/call", content="no sdp", headers=OFFER)
    web.client.get("/api/calls/nobody")
    assert web.causes == ["lines busy", "no route", OTHER_CAUSE, "malformed"]


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        (OFFER, "no sdp", 400),
        ({"Content-Type": "text/plain"}, SDP, 415),
        ({**OFFER, "Origin": "http://elsewhere.example"}, SDP, 403),
        ({**OFFER, "Host": "elsewhere.example"}, SDP, 421),
        ({**OFFER, "Content-Length": "9999999"}, SDP, 413),
    ],
)
def test_what_never_came_to_the_front_is_seen_too(
    web: Web, headers: dict[str, str], content: str, status: int
) -> None:
    answer = web.client.post("/api/call?dialled=%2B4930123", content=content, headers=headers)
    assert answer.status_code == status
    ((facts, seen_status, reason, call_id),) = web.seen
    assert (facts.called, seen_status, call_id) == ("+4930123", status, None)
    assert reason == answer.json()["detail"]


def test_an_error_of_ours_is_seen(web: Web) -> None:
    web.house.refuses = RuntimeError("a bug")
    assert web.client.post("/api/call", content=SDP, headers=OFFER).status_code == 500
    assert [status for _, status, _, _ in web.seen] == [500]


def test_other_requests_that_are_refused_are_no_calls(web: Web) -> None:
    for method, path in (("GET", "/api/call"), ("DELETE", "/api/calls/c7"), ("GET", "/nowhere")):
        assert web.client.request(method, path).status_code >= 400
    assert web.seen == []


def test_what_a_stranger_dials_is_bounded(web: Web) -> None:
    facts: Any
    web.client.post("/api/call?dialled=" + "9" * 5000, content=SDP, headers=OFFER)
    ((facts, *_),) = web.seen
    assert len(facts.called) == 64
