"""What a collector of OpenTelemetry makes of what it is told, read by OTLP's own messages."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class CollectorThread:
    """A collector in a thread, for a gateway of other processes; with `with`. `key`: whom it hears."""

    def __init__(self, key: str = "") -> None:
        bodies: list[bytes] = []
        metrics: list[bytes] = []
        self.bodies = bodies
        """of traces"""
        self.metric_bodies = metrics
        signals = {"/v1/traces": bodies, "/v1/metrics": metrics}

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                right = self.path in signals and self.headers["content-type"] == "application/json"
                known = self.headers.get("x-api-key", "") == key
                if right and known:
                    signals[self.path].append(body)
                self.send_response(404 if not right else 200 if known else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CollectorThread:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[SeenSpan]:
        """All that it was told."""
        return spans_in(list(self.bodies))

    def metrics(self) -> list[SeenPoint]:
        """All points that it was told last."""
        return points_in(self.metric_bodies[-1]) if self.metric_bodies else []


RESOURCE = {"service.name", "service.version", "service.instance.id"}
IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class SeenSpan:
    """One span as it arrived; times in seconds."""

    trace: str
    id: str
    parent: str
    name: str
    begun: float
    over: float
    wrong: bool
    facts: dict[str, Any]


def spans_in(bodies: Iterable[bytes]) -> list[SeenSpan]:
    """The spans of some requests. Raises what a collector would answer 400 for."""
    found = []
    for body in bodies:
        table = json.loads(body)
        for resource in table["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    for name in IDS:  # hexadecimal in OTLP's JSON, where protobuf's own has base64
                        if name in span:
                            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
        request = Parse(json.dumps(table), ExportTraceServiceRequest())
        for resource in request.resource_spans:
            assert {one.key for one in resource.resource.attributes} == RESOURCE
            for scope in resource.scope_spans:
                found += [_seen(span) for span in scope.spans]
    return found


def _seen(span: Any) -> SeenSpan:
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert len(span.parent_span_id) in (0, 8)
    facts = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    assert len(facts) == len(span.attributes)
    times = (span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9)
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return SeenSpan(*ids, span.name, *times, span.status.code == 2, facts)


@dataclass(frozen=True)
class SeenPoint:
    """One point of a metric as it arrived; times in seconds, `since` 0 for a gauge."""

    name: str
    kind: str
    unit: str
    labels: dict[str, str]
    since: float
    at: float
    value: float
    """of a histogram, how many it has"""
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    sum: float = 0.0


CUMULATIVE = 2


def points_in(body: bytes) -> list[SeenPoint]:
    """The points of a request. Raises what a collector would answer 400 for."""
    request = Parse(body.decode(), ExportMetricsServiceRequest())
    found = []
    for resource in request.resource_metrics:
        assert {one.key for one in resource.resource.attributes} == RESOURCE
        for metric in resource.scope_metrics[0].metrics:
            kind = metric.WhichOneof("data")
            data = getattr(metric, kind)
            if kind != "gauge":
                assert data.aggregation_temporality == CUMULATIVE, metric.name
            if kind == "sum":
                assert data.is_monotonic, metric.name
            found += [_seen_point(metric, kind, point) for point in data.data_points]
    assert len({(one.name, *sorted(one.labels.items())) for one in found}) == len(found), "one point a series"
    return found


def _seen_point(metric: Any, kind: str, point: Any) -> SeenPoint:
    labels = {one.key: one.value.string_value for one in point.attributes}
    times = (point.start_time_unix_nano / 1e9, point.time_unix_nano / 1e9)
    if kind != "histogram":
        return SeenPoint(metric.name, kind, metric.unit, labels, *times, point.as_double)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert sum(point.bucket_counts) == point.count
    assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
    bounds, buckets = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    return SeenPoint(metric.name, kind, metric.unit, labels, *times, point.count, bounds, buckets, point.sum)
