"""Tells a collector of OpenTelemetry each event as a span.

It is a receiver like a webhook: what it has not taken waits on disk, and no call waits for it.
"""

from __future__ import annotations

from typing import Final

from gateway.front.events.collector import Collector
from gateway.front.events.courier import TAKEN, TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.trace_spans import KEPT, SpanMaker

NEVER: Final = frozenset({400, 413})
"""What says that this span will not be taken, however often it is told (OTLP 1.x, "Failures")."""


class TraceExport:
    """The collector's courier is told this one. `key`: what numbers are hashed with."""

    name = "otlp traces"
    at_once = 8
    retry_s = 3600.0

    def __init__(self, collector: Collector, key: bytes) -> None:
        self._collector = collector
        self._maker = SpanMaker(key)
        self._misses = False
        """the last span was one that the collector will never take"""

    def wants(self, event: KeptEvent) -> bool:
        """Whether it is a span."""
        return event.type in KEPT

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Posts its span."""
        request = self._maker.request(event, self._collector.resource)
        answer = await self._collector.post("traces", request)
        if not answer.took and answer.status not in NEVER:
            return TellOutcome("later", answer.why, answer.after_s)
        missed_before, self._misses = self._misses, not answer.took or bool(answer.rejected)
        if not self._misses:
            return TAKEN
        why = answer.why or "it took the request and not the span"
        return TellOutcome("never", why, silent=missed_before)
