"""The log of a call: each line names it, they are few, and the first says who called whom from where."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.caller.testphone import place_call
from gateway.config.runtime import runtime_for
from gateway.store.refused_calls import RefusedCalls
from gateway.store.registry import Registry
from gateway.store.sessions import Sessions
from model.trace_context import trace_of
from tests.e2e.gateway_process import House
from tests.gateway.front.events.trace_collector import CollectorThread, SeenSpan
from tests.gateway.line.rawbrowser import Browser
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

Start = Callable[..., House]
SLOTS = ("voicegate_web_slots", "voicegate_web_slots_free")
KEY = "a key that stands in a file alone"
"""What the collector is shown."""
LINES_OF_A_CALL = 10
"""docs/operations.md names it, too."""
SOUNDS_POOR = {"call.poor", "call.not_poor"}
"""A machine that is too busy sends late packets."""
OF_NO_CALL = {"line.ticks_dropped", "rpc.stuck", "receiver.refused", "receiver.away", "receiver.back"}
"""What a machine that is too busy may make a process say."""


@pytest.fixture
def collector() -> Iterator[CollectorThread]:
    with CollectorThread(KEY) as running:
        yield running


def since(house: House, began: int) -> list[dict[str, Any]]:
    """The lines of the log from that byte on, of whatever process."""
    text = house.log_path.read_bytes()[began:].decode(errors="replace")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    ours = [line for line in lines if not str(line.get("call_id", "")).startswith("prompts-")]
    return [line for line in ours if line["event"] not in OF_NO_CALL]


def engine_says(house: House, began: int, event: str) -> bool:
    """Whether the engine's log has that event of the call of these lines, in whatever form."""
    call_id = since(house, began)[0]["call_id"]
    text = house.log_path.read_bytes()[began:].decode(errors="replace")
    return any(event in line and call_id in line for line in text.splitlines())


def offer(house: House, sdp: bytes, number: str) -> str:
    headers = {"Content-Type": "application/sdp", "Origin": house.url, **house.bearer}
    request = urllib.request.Request(f"{house.url}/api/call?dialled={number}", sdp, headers, method="POST")
    with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
        return str(answer.read().decode())


def slots(house: House) -> tuple[float, float]:
    """Places for browsers' calls, and how many are free."""
    metrics = house.get("/metrics")
    places, free = (float(re.findall(rf"^{name} (.*)$", metrics, re.MULTILINE)[0]) for name in SLOTS)
    return places, free


def _confirmed_in_hall(house: House, began: int) -> bool:
    return any((e["event"], e["process"]) == ("call.confirmed", "hall0") for e in since(house, began))


async def browse(house: House, began: int) -> None:
    """A browser's call that says goodbye once it is up."""
    browser = Browser()
    answer = await asyncio.to_thread(offer, house, (await browser.offer()).encode(), "demo")
    await browser.accept(answer)
    async with asyncio.timeout(HANGS_S):
        await browser.opened.wait()
    await asyncio.to_thread(house.wait_for, "the call", lambda: _confirmed_in_hall(house, began))
    places, free = await asyncio.to_thread(slots, house)
    assert free == places - 1
    await browser.says(bye=True)
    async with asyncio.timeout(HANGS_S):
        await browser.closed.wait()
    await browser.connection.close()


def assert_named(lines: list[dict[str, Any]], processes: set[str], caller: str, transport: str) -> None:
    first = lines[0]
    assert first["call_id"]
    assert [line for line in lines if line.get("call_id") != first["call_id"]] == []
    assert (first["event"], first["process"], first["transport"]) == ("call.offered", "front", transport)
    assert caller in first["caller"]
    assert "demo" in first["called"]
    assert first["source"] == "127.0.0.1"
    assert {line["process"] for line in lines} >= processes


def assert_within_budget(lines: list[dict[str, Any]]) -> None:
    """Docs say the number: a call has so many lines at `info`, however much is said in it."""
    steady = [line for line in lines if line["level"] == "info"]
    told = Counter((line["process"], line["event"]) for line in steady)
    assert not {which: count for which, count in told.items() if count > 1}, "a line for each turn?"
    assert len(steady) <= LINES_OF_A_CALL, told
    wrong = [line for line in lines if line["level"] not in ("debug", "info")]
    assert {line["event"] for line in wrong} <= SOUNDS_POOR, wrong


@pytest.mark.long("two calls in real time, one with a turn that is answered")
def test_each_line_about_a_call_names_it_and_they_are_few(
    own_house: Start, say: Callable[[str], Path], collector: CollectorThread, tmp_path: Path
) -> None:
    shown = tmp_path / "otlp headers"
    shown.touch(mode=0o600)
    shown.write_text(f"X-Api-Key: {KEY}\n")
    house = own_house(wide_calls=0, otlp_url=collector.url, otlp_headers_file=shown, otlp_metrics_s=1)

    began = house.log_path.stat().st_size
    turns = [say("one two three")]
    assert place_call(house.uri, script=turns, codec="pcmu").answered
    house.wait_for("its end", lambda: "call.ended" in {line["event"] for line in since(house, began)})
    house.wait_for("the engine's word of it", lambda: engine_says(house, began, "session.closed"))
    assert_named(since(house, began), {"front", "hall0", "sip0"}, "sip:", "udp")
    assert_within_budget(since(house, began))
    assert re.search(r"^voicegate_turns_total [1-9]", house.get("/metrics"), re.MULTILINE)

    began = house.log_path.stat().st_size
    asyncio.run(browse(house, began))
    house.wait_for("its end", lambda: "call.ended" in {line["event"] for line in since(house, began)}, 60)
    house.wait_for("the engine's word of it", lambda: engine_says(house, began, "session.closed"))
    assert_named(since(house, began), {"front", "hall0", "web0"}, "web", "webrtc")
    assert_within_budget(since(house, began))
    assert_traced(house, collector)
    assert_measured(house, collector)
    assert KEY not in house.log_path.read_text(errors="replace")
    by_browser, by_phone = (call["call_id"] for call in house.calls())
    asyncio.run(kept_beside(house, by_phone, ["INVITE", "200", "ACK", "BYE", "200"]))
    asyncio.run(kept_beside(house, by_browser, ["POST", "201"]))


async def kept_beside(house: House, call_id: str, messages: list[str]) -> None:
    """Redis has the call's messages in order, and the lines that the log has of it, of all processes."""
    lines = [line for line in since(house, 0) if line.get("call_id") == call_id and line["level"] != "debug"]
    sessions = await Sessions.open(f"unix://{runtime_for(house.folder / 'data').redis}")
    log: list[dict[str, Any]] = []
    async with asyncio.timeout(HANGS_S):
        while True:
            log = await sessions.log(call_id)
            if len(log) >= len(lines):
                break
            await asyncio.sleep(0.05)  # the last ones are on their way
    ladder = await sessions.ladder(call_id)
    await sessions.close()
    assert sorted((line["process"], line["event"]) for line in log) == sorted(
        (line["process"], line["event"]) for line in lines
    )
    said = [one["first"].removeprefix("SIP/2.0 ").split()[0] for one in ladder]
    assert said[0] == messages[0]
    assert said[-len(messages) + 1 :] == messages[1:], said
    assert all("vg=" not in one["text"].replace("vg=(blanked)", "") for one in ladder)


def assert_traced(house: House, collector: CollectorThread) -> None:
    """Both calls are traces at the collector; the first has its turns, and none says who called."""

    def told(name: str, count: int) -> bool:
        return len({span.id for span in collector.spans() if span.name == name}) == count

    house.wait_for("both calls' traces", lambda: told("call", 2), HANGS_S)
    spoken = trace_of(house.calls()[1]["call_id"])
    house.wait_for("its turns", lambda: any(of_turn(span, spoken) for span in collector.spans()), HANGS_S)
    roots = {span.trace: span for span in collector.spans() if span.name == "call"}
    assert all(span.trace in roots for span in collector.spans())
    root = roots[spoken[0]]
    for span in collector.spans():
        if of_turn(span, spoken):
            assert root.begun <= span.begun <= span.over <= root.over + 1.0
    assert not any(b"127.0.0.1" in body or b"sip:" in body for body in collector.bodies)
    sessions = [line for line in house.events("session.started") if "trace_id" in line]
    assert {line["trace_id"] for line in sessions} >= set(roots), "the engine knows of which trace a call is"


def assert_measured(house: House, collector: CollectorThread) -> None:
    """The collector is told what `/metrics` shows, with the same names and labels."""

    house.wait_for("the calls' end in the metrics", lambda: ended(collector) == 2, HANGS_S)
    points = collector.metrics()
    shown = {
        (sample.name.removesuffix("_total").removesuffix("_count"), *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(house.get("/metrics"))
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }
    assert {(one.name, *sorted(one.labels.items())) for one in points} >= shown
    (turns,) = (one for one in points if one.name == "voicegate_turns")
    assert turns.value >= 1
    for one in points:
        assert (one.since == 0.0) is (one.kind == "gauge"), one
        assert one.since <= one.at, one
    assert not any(b"127.0.0.1" in body or b"sip:" in body for body in collector.metric_bodies)


def ended(collector: CollectorThread) -> float:
    return sum(point.value for point in collector.metrics() if point.name == "voicegate_calls")


def of_turn(span: SeenSpan, call: tuple[str, str]) -> bool:
    return span.name == "turn.heard" and (span.trace, span.parent) == call


def test_a_refused_call_is_in_the_log_the_metrics_and_the_list(own_house: Start, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "10.toml").write_text(
        '[[route]]\nname = "only"\ncalled = ["only"]\ndo = [{ verb = "answer" }, { verb = "hangup" }]\n'
    )
    house = own_house(wide_calls=0, dialplans=tmp_path / "plans")
    report = place_call(f"sip:+4930123@127.0.0.1:{house.sip_port}", duration_s=1)
    assert report.status == 404
    with pytest.raises(urllib.error.HTTPError) as refused:
        offer(house, b"v=0\r\n", "%2B4930456")
    status = refused.value.code
    house.wait_for("both lines", lambda: len(house.events("call.refused")) == 2)
    by_phone, by_browser = house.events("call.refused")
    assert (by_phone["status"], by_phone["transport"], by_phone["source"]) == (404, "udp", "127.0.0.1")
    assert "+4930123" in by_phone["called"]
    assert (by_browser["status"], by_browser["transport"], by_browser["called"]) == (
        status,
        "webrtc",
        "+4930456",
    )
    assert by_phone["call_id"] != by_browser["call_id"]

    metrics = house.get("/metrics")
    assert 'voicegate_calls_refused_total{status="404",transport="udp"} 1.0' in metrics
    assert f'voicegate_calls_refused_total{{status="{status}",transport="webrtc"}} 1.0' in metrics

    assert 'voicegate_web_refused_total{reason="' in metrics
    for process in ("front", "hall0", "sip0", "web0", "engine", "supervisor"):
        assert f'voicegate_process_memory_bytes{{process="{process}"}} ' in metrics
    assert "voicegate_build_info{" in metrics
    places, free = slots(house)
    assert places == free > 0

    registry = Registry.open(f"sqlite:///{house.folder / 'data' / 'voicegate.db'}")
    table = RefusedCalls(registry)
    house.wait_for("the rows", lambda: len(table.listed()) == 2)
    assert {row.call_id for row in table.listed()} == {by_phone["call_id"], by_browser["call_id"]}
    registry.close()
