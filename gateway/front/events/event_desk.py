"""What this house tells of its calls: what comes is kept, and told on; and its metrics, to a collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from prometheus_client.core import Metric

from gateway.config.paths import events_path, recordings_dir
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.front.events.collector import Collector
from gateway.front.events.event_intake import EventIntake
from gateway.front.events.event_shelf import EventShelf
from gateway.front.events.metric_export import MetricExport
from gateway.front.events.metric_points import MetricPoints
from gateway.front.events.receivers import Receivers, receivers_of
from gateway.front.house.process_starts import process_starts
from gateway.store.registry import Registry
from gateway.store.sessions import Sessions
from model.tasks import Tasks


class EventDesk:
    """See the module. `plan`: the dialplan in force; `alarm` is told what somebody must look at."""

    def __init__(
        self,
        conf: Settings,
        sessions: Sessions,
        registry: Registry,
        alarm: Callable[[str], None],
        plan: Callable[[], Dialplan],
    ) -> None:
        self._conf = conf
        self.shelf = EventShelf(events_path(conf), conf.session_ttl_s, lambda: alarm("events broken")).open()
        link = f"{(conf.public_url or '').rstrip('/')}/api/recordings"
        self.intake = EventIntake(self.shelf, sessions, registry, recordings_dir(conf), link, alarm)
        self._collector = Collector.of(conf)
        self.receivers = Receivers(self.shelf, receivers_of(conf, plan, self._collector), self.intake.bell)

    def start(
        self, tasks: Tasks, runtime: Runtime, measured: Callable[[], Awaitable[Iterable[Metric]]]
    ) -> None:
        """`measured` has the house say how it is."""
        tasks.lasting(self.intake.run, "front.events")
        tasks.lasting(self.intake.keep_own, "front.events.own")
        tasks.lasting(self.intake.forget, "front.events.forget")
        self.receivers.start()
        if self._collector is not None and self._conf.otlp_metrics_s:
            points = MetricPoints(partial(process_starts, runtime))
            export = MetricExport(self._collector, measured, points, self._conf.otlp_metrics_s)
            tasks.lasting(export.run, "front.metrics")

    async def close(self) -> None:
        """Keeps what waits, and tells nobody any more."""
        await self.intake.keep_waiting()
        await self.receivers.close()
        if self._collector is not None:
            await self._collector.close()
        self.shelf.close()
