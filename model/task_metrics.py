"""Failures of background tasks (`model.tasks`), as Prometheus wants them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from model.tasks import failures


def family(name: str, by_process: Mapping[str, Mapping[str, float]]) -> CounterMetricFamily:
    """The counter `name` from failures by task, of each process."""
    counter = CounterMetricFamily(
        name, "Background tasks that failed, by process and task", labels=["process", "task"]
    )
    for process, counts in by_process.items():
        for task, count in counts.items():
            counter.add_metric([process, task], count)
    return counter


class TaskFailures:
    """A collector of prometheus_client: this process's failures as the counter `name`."""

    def __init__(self, name: str, process: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._process = process
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before something fails."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The counts now."""
        yield family(self._name, {self._process: failures})
