"""A collector is told the metrics as OTLP has them, and whatever it does, the log hears of it once."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from structlog.testing import capture_logs

from gateway.config.settings import Settings
from gateway.errors import SettingsError
from gateway.front.events import collector as collectors
from gateway.front.events import metric_points
from gateway.front.events.collector import OURS, Collector, CollectorAnswer, shown_headers
from gateway.front.events.metric_export import MetricExport
from gateway.front.events.metric_points import MetricPoints
from gateway.front.house import process_starts
from gateway.front.house.metrics import Metrics
from gateway.ipc.hall_messages import CallRated, HallHealth, WayRated
from tests.gateway.edge.authority import Authority
from tests.gateway.front.events.hook_receiver import DROPS, STALLS, HookReceiver
from tests.gateway.front.events.trace_collector import SeenPoint, points_in
from tests.needs import HANGS_S

SECRET = "s3same-0123456789"


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[HookReceiver]:
    receiver = HookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest_asyncio.fixture
async def told(collector: HookReceiver) -> AsyncIterator[Collector]:
    made = Collector(f"http://127.0.0.1:{collector.port}", {"x-api-key": SECRET}, "house")
    yield made
    await made.close()


def since_boot() -> float:
    return process_starts.own_start()


def points_of(points: MetricPoints, families: list[Metric]) -> list[SeenPoint]:
    resource = Collector("http://localhost", instance="house").resource
    return points_in(json.dumps(points.request(families, resource)).encode())


def used() -> Metrics:
    metrics = Metrics()
    metrics.call_ended("caller hung up", lasted_s=12.0)
    metrics.call_ended("caller hung up", lasted_s=4000.0)
    way = WayRated(4.2, 0.0, 0.01)
    metrics.call_rated(CallRated("c1", way, way, 0.1))
    metrics.hall("hall0", HallHealth(counters={"frames": 50.0, "late_share": 0.25}))
    metrics.memory({"front": 123})
    return metrics


def test_counters_histograms_and_gauges_are_what_they_are() -> None:
    began = time.time()
    found = {
        (one.name, *one.labels.values()): one
        for one in points_of(MetricPoints(lambda: {"hall0": since_boot() - 100.0}), used().families())
    }
    calls = found["voicegate_calls", "caller hung up"]
    assert (calls.kind, calls.value) == ("sum", 2.0)
    assert calls.since == pytest.approx(began, abs=2.0)
    assert calls.at == pytest.approx(began, abs=2.0)
    lasted = found["voicegate_call_seconds",]
    assert (lasted.kind, lasted.unit, lasted.value, lasted.sum) == ("histogram", "s", 2, 4012.0)
    assert lasted.bounds == (5, 10, 30, 60, 120, 300, 600, 1800, 3600)
    assert lasted.buckets == (0, 0, 1, 0, 0, 0, 0, 0, 0, 1)
    assert found["voicegate_call_loss_ratio", "from"].buckets[0] == 1, "a bound belongs to what is below it"
    frames = found["voicegate_hall_frames", "hall0"]
    assert (frames.kind, frames.value) == ("sum", 50.0)
    assert frames.since == pytest.approx(began - 100.0, abs=2.0), "the hall is older than the front"
    share = found["voicegate_hall_late_share", "hall0"]
    assert (share.kind, share.value, share.since) == ("gauge", 0.25, 0.0)
    memory = found["voicegate_process_memory_bytes", "front"]
    assert (memory.kind, memory.unit, memory.value) == ("gauge", "By", 123.0)
    assert any(one.name == "voicegate_build_info" and "version" in one.labels for one in found.values())


def counted(hall: str, value: float) -> list[Metric]:
    family = CounterMetricFamily("voicegate_hall_frames", "Frames", labels=["hall"])
    family.add_metric([hall], value)
    return [family]


def test_what_is_counted_anew_begins_anew() -> None:
    starts = {"hall0": since_boot() - 100.0}
    points = MetricPoints(lambda: starts)
    (first,) = points_of(points, counted("hall0", 50.0))
    (second,) = points_of(points, counted("hall0", 70.0))
    assert second.since == first.since
    starts["hall0"] = since_boot()
    (third,) = points_of(points, counted("hall0", 90.0))
    assert second.at <= third.since <= third.at, "another process: not 20 more, but 90 since it began"
    starts.clear()
    (fourth,) = points_of(points, counted("hall0", 95.0))
    assert fourth.since == third.since, "nobody said that it is another process"
    (fifth,) = points_of(points, counted("hall0", 1.0))
    assert fifth.since == pytest.approx(fourth.at, abs=1e-6), "less than before: counted anew since then"


def test_numbers_that_no_json_has_are_left_out_and_many_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_points, "MOST_POINTS", 3)
    odd = GaugeMetricFamily("voicegate_odd", "Odd", labels=["n"])
    for number, value in enumerate([math.nan, math.inf, -math.inf, 1.0, 2.0, 3.0, 4.0]):
        odd.add_metric([str(number)], value)
    points = MetricPoints(dict)
    found = points_of(points, [odd, *counted("hall0", 1.0)])
    assert [one.value for one in found] == [1.0, 2.0, 3.0]
    assert points.left_out == 2


def export(told: Collector) -> MetricExport:
    registry = CollectorRegistry()
    Counter("voicegate_turns", "Turns", registry=registry).inc()
    Gauge("voicegate_calls_live", "Calls", registry=registry).set(1)

    async def measured() -> list[Metric]:
        return list(registry.collect())

    return MetricExport(told, measured, MetricPoints(dict), 0.01)


async def test_it_is_told_again_and_again_with_what_it_wants_to_be_shown(
    collector: HookReceiver, told: Collector
) -> None:
    async with asyncio.timeout(HANGS_S):
        telling = asyncio.create_task(export(told).run())
        got = await collector.has(3)
        telling.cancel()
    assert {one.path for one in got} == {"/v1/metrics"}
    assert {one.headers["x-api-key"] for one in got} == {SECRET}
    assert {one.headers["content-type"] for one in got} == {"application/json"}
    assert "accept-encoding: gzip" not in str(got[0].headers)
    assert {one.name for one in points_in(got[-1].body)} == {"voicegate_turns", "voicegate_calls_live"}
    assert SECRET.encode() not in b"".join(one.body for one in got)
    assert SECRET not in repr(told) + str(vars(told).keys())


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503, DROPS, STALLS])
async def test_a_collector_that_takes_nothing_is_told_of_once(
    collector: HookReceiver, told: Collector, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered_within = collectors.ANSWER_S
    if status == STALLS:
        monkeypatch.setattr(collectors, "ANSWER_S", 0.1)
    collector.answers = lambda _: status
    collector.more = f"Location: http://127.0.0.1:{collector.port}/elsewhere\r\nRetry-After: 7\r\n"
    teller = export(told)
    async with asyncio.timeout(HANGS_S):
        with capture_logs() as lines:
            pauses = [await teller.tell() for _ in range(3)]
            collector.answers, collector.more = (lambda _: 200), ""
            monkeypatch.setattr(collectors, "ANSWER_S", answered_within)
            await teller.tell()
            await teller.tell()
    assert [line["event"] for line in lines] == ["collector.away", "collector.back"]
    assert pauses == [7.0 if status > 0 else 0.0] * 3
    assert {one.path for one in collector.got} == {"/v1/metrics"}, "no redirect is followed"
    assert SECRET not in str(lines)


async def test_what_it_took_in_part_is_told_of_once_without_its_words(
    collector: HookReceiver, told: Collector
) -> None:
    said = {"partialSuccess": {"rejectedDataPoints": "2", "errorMessage": f"you showed {SECRET}"}}
    collector.says = json.dumps(said).encode()
    teller = export(told)
    async with asyncio.timeout(HANGS_S):
        with capture_logs() as lines:
            await teller.tell()
            await teller.tell()
            collector.says = b'{"partialSuccess": {}}'
            await teller.tell()
    assert [line["event"] for line in lines] == ["collector.partial", "collector.back"]
    assert lines[0]["rejected"] == 2
    assert SECRET not in str(lines)


@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b"null", b'{"partialSuccess": 3}', b'{"partialSuccess": {"rejectedSpans": []}}',
     b'{"partialSuccess": {"rejectedSpans": "-5"}}', b"[" * 15_000,
     b'{"a": "' + b"x" * 100_000 + b'"}', b"\xff"],
    ids=["nothing", "cut", "list", "null", "number", "no number", "negative", "deep", "long", "bytes"],
)  # fmt: skip
async def test_an_answer_that_nobody_understands_is_one(
    collector: HookReceiver, told: Collector, said: bytes
) -> None:
    collector.says = said
    async with asyncio.timeout(HANGS_S):
        assert await told.post("metrics", {}) == CollectorAnswer(200)


async def test_a_collector_that_is_not_there_costs_nothing(collector: HookReceiver, told: Collector) -> None:
    await collector.stop()
    async with asyncio.timeout(HANGS_S):
        assert (await told.post("metrics", {})).status == 0


async def test_by_tls_it_is_told_where_this_machine_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("localhost"))
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(HANGS_S):
        stranger = Collector(url, {"x-api-key": SECRET})
        assert (await stranger.post("metrics", {})).status == 0
        await stranger.close()
        assert not seen, "a stranger is shown nothing"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        known = Collector(url, {"x-api-key": SECRET})
        assert (await known.post("metrics", {})).status == 200
        await known.close()
    server.close()
    assert SECRET.encode() in seen[0]


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def headers_of(path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path.write_text(text)
    path.chmod(mode)
    return shown_headers(path)


def test_headers_stand_in_a_file_of_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    text = "# of the collector\n\nAuthorization: Bearer abc def\nX-Scope-OrgID:house-7 \n"
    assert headers_of(file, text) == {"authorization": "Bearer abc def", "x-scope-orgid": "house-7"}
    assert shown_headers(None) == {}


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (f"Authorization: {SECRET}", 0o640),
        (f"Authorization: {SECRET}", 0o604),
        (SECRET, 0o600),
        (f"Authorization: {SECRET}\0", 0o600),
        (f"Authorization: {SECRET}\r\nHost: x", 0o600),
        (f"A b: {SECRET}", 0o600),
        (f"X: {SECRET}ü", 0o600),
        (f"X: {SECRET}\nx: again", 0o600),
        (" : x", 0o600),
        ("", 0o600),
        ("".join(f"x-{n}: {SECRET}\n" for n in range(17)), 0o600),
        (f"x: {SECRET * 1000}", 0o600),
        *((f"{name}: {SECRET}", 0o600) for name in sorted(OURS)),
    ],
)
def test_a_file_that_cannot_be_meant_ends_the_start_unquoted(tmp_path: Path, text: str, mode: int) -> None:
    with pytest.raises(SettingsError) as wrong:
        headers_of(tmp_path / "headers", text, mode)
    assert "VOICEGATE_OTLP_HEADERS_FILE" in str(wrong.value)
    assert SECRET not in str(wrong.value)


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        Collector.of(
            Settings(data_dir=tmp_path, otlp_url="http://localhost:4318", otlp_headers_file=tmp_path / "none")
        )


def test_a_house_calls_itself_the_same_each_time(tmp_path: Path) -> None:
    conf = Settings(data_dir=folder(tmp_path / "a"), otlp_url="http://localhost:4318")
    other = Settings(data_dir=folder(tmp_path / "b"), otlp_url="http://localhost:4318")
    first, again, elsewhere = map(Collector.of, (conf, conf, other))
    assert first is not None
    assert again is not None
    assert elsewhere is not None
    assert first.resource == again.resource != elsewhere.resource
