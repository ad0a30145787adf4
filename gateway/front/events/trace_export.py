"""Tells a collector of OpenTelemetry each event as a span: OTLP over HTTP, in its JSON form.

It is a receiver like a webhook: what it has not taken waits on disk, and no call waits for it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Final

import httpx

from gateway.front.events.courier import TAKEN, TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.failed_delivery import why_undelivered
from gateway.front.events.trace_spans import KEPT, SpanMaker
from gateway.front.events.webhook_post import client

ANSWER_S: Final = 10.0
NEVER: Final = frozenset({400, 413})
"""What says that this span will not be taken, however often it is told (OTLP 1.x, "Failures")."""


class TraceExport:
    """The collector at `url`, to which `/v1/traces` is added. `key`: what numbers are hashed with."""

    name = "otlp traces"
    at_once = 8
    retry_s = 3600.0

    def __init__(self, url: str, key: bytes) -> None:
        self._url = f"{url.rstrip('/')}/v1/traces"
        self._maker = SpanMaker(key)
        self._client: httpx.AsyncClient | None = None

    def wants(self, event: KeptEvent) -> bool:
        """Whether it is a span."""
        return event.type in KEPT

    async def close(self) -> None:
        """Lets go of its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Posts its span; of the answer nothing is read but the status."""
        body = json.dumps(self._maker.request(event), separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "voicegate"}
        if self._client is None:
            self._client = client(ssl.create_default_context())
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return _outcome_of(answer.status_code)
        except TimeoutError:
            return TellOutcome("later", f"no answer within {ANSWER_S:g} s")
        except (httpx.HTTPError, OSError, ValueError) as error:  # its text may have the URL
            return TellOutcome("later", why_undelivered(error))


def _outcome_of(status: int) -> TellOutcome:
    if 200 <= status < 300:
        return TAKEN
    return TellOutcome("never" if status in NEVER else "later", f"HTTP {status}")
