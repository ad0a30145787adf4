"""Tells a collector of OpenTelemetry the metrics, again and again.

Nothing waits for one that is away: what it missed stands in what it is told next, since all is cumulative.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from prometheus_client.core import Metric

from gateway.front.events.collector import Collector
from gateway.front.events.metric_points import MetricPoints

LONGEST_ASKED_S: Final = 3600.0
"""How long a collector may ask to be left alone (`Retry-After`)."""

log = structlog.get_logger("events")


class MetricExport:
    """`measured` has the house say how it is; `every_s` is the pause between two requests."""

    def __init__(
        self,
        collector: Collector,
        measured: Callable[[], Awaitable[Iterable[Metric]]],
        points: MetricPoints,
        every_s: float,
    ) -> None:
        self._collector = collector
        self._measured = measured
        self._points = points
        self._every_s = every_s
        self._wrong = ""
        """what was told of it last; nothing while all is well"""

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = self._every_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = max(self._every_s, min(LONGEST_ASKED_S, await self.tell()))

    async def tell(self) -> float:
        """Tells it once; returns how long it wants to be left alone. The log hears what changed, once."""
        request = self._points.request(await self._measured(), self._collector.resource)
        answer = await self._collector.post("metrics", request)
        if not answer.took:
            self._say("collector.away", answer.why)
        elif answer.rejected or self._points.left_out:
            self._say("collector.partial", "it did not take, or was not told, some of the metrics",
                      rejected=answer.rejected, left_out=self._points.left_out)  # fmt: skip
        elif self._wrong:
            log.info("collector.back")
            self._wrong = ""
        return answer.after_s

    def _say(self, event: str, why: str, **facts: int) -> None:
        if self._wrong != event:
            log.warning(event, error=why, **facts)
            self._wrong = event
