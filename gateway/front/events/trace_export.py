"""Tells a collector of OpenTelemetry each event as a span.

It is a receiver like a webhook: what it has not taken waits on disk, and no call waits for it.
"""

from __future__ import annotations

from typing import Final

from gateway.front.events.collector import Collector, CollectorAnswer
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

    def wants(self, event: KeptEvent) -> bool:
        """Whether it is a span."""
        return event.type in KEPT

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Posts its span."""
        request = self._maker.request(event, self._collector.resource)
        return _outcome_of(await self._collector.post("traces", request))


def _outcome_of(answer: CollectorAnswer) -> TellOutcome:
    if answer.took:
        return TellOutcome("never", "it took the request and not the span") if answer.rejected else TAKEN
    return TellOutcome("never" if answer.status in NEVER else "later", answer.why, answer.after_s)
