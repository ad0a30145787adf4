"""Prometheus metrics of every process of the house, exposed by the front.

Each process counts in its own `Metrics`. Halls report `snapshot()` by RPC as a plain dict; the front keeps
the latest of each, and `exposition()` shows all, every sample with the label `process`. A process that
restarts begins at zero, which is what `rate()` of Prometheus expects.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

LATENCY_BUCKETS_S: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.55, 0.65, 0.8, 1.0, 1.5, 2.0, 4.0)
"""The promised limits (150 to 300 ms, 550 and 650 ms) are bounds, so that they can be read off."""
LAG_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5)
DURATION_BUCKETS_S: Final = (5, 10, 30, 60, 120, 300, 600, 1800, 3600)

Snapshot = dict[str, Any]
"""Name to {type, help, samples: [[name, labels, value], …]}; travels as JSON."""


class Metrics:
    """What one process counts. Labels hold words from short lists only, never what a caller wrote.

    A metric is shown once it was used: each has labels, so that a process is silent about what it never sees.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="voicegate", registry=self.registry)
        gauge = partial(Gauge, namespace="voicegate", registry=self.registry)
        histogram = partial(Histogram, namespace="voicegate", registry=self.registry)

        self.calls = counter("calls", "Calls that ended, by route and how", ["route", "how"])
        self.calls_live = gauge("calls_live", "Calls now, by the kind of their line", ["kind"])
        self.call_seconds = histogram(
            "call_seconds", "How long calls lasted", ["route"], buckets=DURATION_BUCKETS_S
        )
        self.turns = counter("turns", "Turns, by who spoke", ["who"])
        self.barge_ins = counter("barge_ins", "Interruptions, by outcome: cut or resumed", ["outcome"])
        self.latency = histogram(
            "latency_seconds", "A reply's delay by stage", ["stage"], buckets=LATENCY_BUCKETS_S
        )
        self.lines = gauge("lines", "Lines by kind and state", ["kind", "state"])
        self.slots_free = gauge("slots_free", "Calls that lines can still take", ["kind"])
        self.underruns = counter("underruns", "Frames that a line pulled in vain", ["line"])
        self.lag = histogram(
            "tick_lag_seconds", "From a line's tick to its answer", ["kind"], buckets=LAG_BUCKETS_S
        )
        self.marked = counter("marked_frames", "Frames of 20 ms that were marked", ["kind"])
        self.alarms = counter("alarms", "What somebody must look at, by kind", ["kind"])
        self.grants_refused = counter("grants_refused", "Voices refused, by reason", ["reason"])
        self.sip_requests = counter("sip_requests", "SIP requests, by method", ["method"])
        self.sip_refused = counter(
            "sip_refused", "SIP requests refused, by status and reason", ["status", "reason"]
        )
        self.engine_up = gauge("engine_up", "1 while the engine takes conversations", ["engine"])
        self.engine_errors = counter("engine_errors", "The engine's errors, by code", ["code"])
        self.session_writes = gauge("session_writes", "Writes to Redis, waiting or lost", ["state"])
        self.restarts = counter("restarts", "Processes that died and came back, by name", ["child"])

    def snapshot(self) -> Snapshot:
        """All samples as JSON."""
        return {
            metric.name: {
                "type": metric.type,
                "help": metric.documentation,
                "samples": [
                    [s.name, dict(s.labels), s.value]
                    for s in metric.samples
                    if not s.name.endswith("_created")
                ],
            }
            for metric in self.registry.collect()
            if metric.samples
        }


class Merged:
    """The front's view: its own metrics and the latest snapshot of each other process."""

    def __init__(self, own: Metrics, name: str = "front") -> None:
        self._own = own
        self._name = name
        self._latest: dict[str, Snapshot] = {}

    def take(self, process: str, snapshot: Snapshot) -> None:
        """A process reported. Raises `ValueError` for what is no snapshot."""
        for name, metric in snapshot.items():
            try:
                right = name.startswith("voicegate_") and isinstance(metric["help"] + metric["type"], str)
                for sample, labels, value in metric["samples"]:
                    right = right and sample.startswith(name) and isinstance(labels, dict)
                    float(value)
            except (AttributeError, KeyError, TypeError, ValueError):
                right = False
            if not right:
                raise ValueError(f"{process} reported {name!r} in a form that is no metric")
        self._latest[process] = snapshot

    def forget(self, process: str) -> None:
        """A process is gone for good (a restarted one simply reports again)."""
        self._latest.pop(process, None)

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks of a collector."""
        merged: dict[str, Metric] = {}
        for process, snapshot in {**self._latest, self._name: self._own.snapshot()}.items():
            for name, metric in snapshot.items():
                family = merged.setdefault(name, Metric(name, metric["help"], metric["type"]))
                for sample, labels, value in metric["samples"]:
                    family.add_sample(sample, {**labels, "process": process}, float(value))
        return merged.values()

    def exposition(self) -> bytes:
        """The text that `/metrics` answers (content type: `prometheus_client.CONTENT_TYPE_LATEST`)."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)
