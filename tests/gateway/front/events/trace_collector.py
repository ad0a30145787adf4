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
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class CollectorThread:
    """A collector in a thread, for a gateway of other processes; with `with`."""

    def __init__(self) -> None:
        bodies: list[bytes] = []
        self.bodies = bodies

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                right = self.path == "/v1/traces" and self.headers["content-type"] == "application/json"
                if right:
                    bodies.append(body)
                self.send_response(200 if right else 404)
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
            assert {one.key for one in resource.resource.attributes} == {"service.name", "service.version"}
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
