"""Events as spans of OpenTelemetry: a call is a trace, each turn and each step of it a span with its times.

Each event is one span, made out of it alone, with ids that follow from the call's and the event's: so a
call's spans may come in any order, late, and twice, and are still one trace. Its root is `call.ended`'s. No
attribute has what people said, pressed or call themselves; numbers are hashed with a key of this house
(`SpanMaker`), so that one caller's calls are found together, and nobody reads who that is.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.front.events.collector import attributes
from gateway.front.events.event_shelf import KeptEvent
from model import __version__
from model.trace_context import trace_of

KEPT: Final[Mapping[str, tuple[str, ...]]] = {
    "call.refused": ("status", "transport"),
    "call.answered": (),
    "call.disclosed": ("language",),
    "turn.heard": ("duration_s", "interrupted"),
    "turn.said": ("duration_s", "heard_s", "interrupted"),
    "key": (),
    "transfer": ("step", "target", "via", "status"),
    "consent.refused": ("reason", "stands_in"),
    "mark.alarm": ("reason",),
    "quality": (
        "whole", "codec", "srtp", "packets", "lost", "loss_percent", "jitter_ms", "round_trip_ms", "mos",
        "mos_worst", "far_loss_percent", "far_jitter_ms", "far_mos",
    ),
    "message.left": ("seconds",),
    "call.ended": (),
}  # fmt: skip
"""Types of events that are spans, and which of their fields are attributes. No others are told."""
OF_CALL: Final = (
    "route", "transport", "trunk", "plan", "party", "codec", "srtp", "talk_s", "spoken_s", "turns",
    "messages", "packets", "lost", "jitter_ms", "mos", "mos_worst", "far_lost", "far_mos",
)  # fmt: skip
"""Fields of a CDR that are attributes of a call's span."""
HASHED: Final = ("caller", "called")
ROOTS: Final = frozenset({"call.ended", "call.refused"})
WRONG: Final = frozenset({"call.refused", "consent.refused", "mark.alarm"})
"""Types whose spans are errors."""
SERVER: Final = 2
INTERNAL: Final = 1
ERROR: Final = 2


class SpanMaker:
    """Makes OTLP's request of an event (JSON form, OTLP 1.x). `key`: what numbers are hashed with."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def request(self, event: KeptEvent, resource: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a POST to `/v1/traces`. Raises `KeyError` for a type that is not in `KEPT`."""
        scope = {"name": "voicegate", "version": __version__}
        spans = [{"scope": scope, "spans": [self._span(event)]}]
        return {"resourceSpans": [{"resource": resource, "scopeSpans": spans}]}

    def _span(self, event: KeptEvent) -> dict[str, Any]:
        trace, root = trace_of(event.call_id)
        is_root = event.type in ROOTS
        begun, over = _times(event)
        span: dict[str, Any] = {
            "traceId": trace,
            "spanId": root if is_root else hashlib.sha256(event.id.encode()).hexdigest()[:16],
            "name": "call" if event.type == "call.ended" else event.type,
            "kind": SERVER if is_root else INTERNAL,
            "startTimeUnixNano": str(round(begun * 1e9)),
            "endTimeUnixNano": str(round(over * 1e9)),
            "attributes": attributes(
                {
                    "voicegate.call_id": event.call_id,
                    "voicegate.event_id": event.id,
                    **dict(self._facts(event)),
                }
            ),
        }
        if not is_root:
            span["parentSpanId"] = root
        if event.type in WRONG or _cdr(event).get("party") == "failed":
            span["status"] = {"code": ERROR}
        return span

    def _facts(self, event: KeptEvent) -> Iterator[tuple[str, Any]]:
        cdr = _cdr(event)
        for table, names in ((event.data, KEPT[event.type]), (cdr, OF_CALL)):
            for name in names:
                if (value := table.get(name)) is not None:
                    yield f"voicegate.{name}", value
        stages = event.data.get("latency_ms")
        for stage, took_ms in stages.items() if isinstance(stages, dict) else ():
            yield f"voicegate.latency.{stage}_ms", took_ms
        for name in HASHED:
            said = cdr.get(name) or (event.data.get(name) if event.type in ROOTS else None)
            if said:
                yield f"voicegate.{name}_hash", self.hashed(str(said))

    def hashed(self, number: str) -> str:
        """What stands for a number: 16 hexadecimal digits, the same each time in this house alone."""
        return hmac.digest(self._key, number.encode(), "sha256").hex()[:16]


def _cdr(event: KeptEvent) -> dict[str, Any]:
    cdr = event.data.get("cdr") if event.type == "call.ended" else None
    return cdr if isinstance(cdr, dict) else {}


def _times(event: KeptEvent) -> tuple[float, float]:
    """When it began and ended, seconds since the epoch. A turn's `at` is when it began."""
    if event.type == "call.ended":
        begun = _cdr(event).get("started_at") or event.at
        return min(begun, event.at), event.at
    if event.type in ("turn.heard", "turn.said"):
        lasted = event.data.get("heard_s") or event.data.get("duration_s") or 0.0
        return event.at, event.at + max(0.0, float(lasted))
    return event.at, event.at
