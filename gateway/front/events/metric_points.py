"""The metrics of `/metrics` as OTLP has them (`ExportMetricsServiceRequest`, JSON form, OTLP 1.x).

Counters are cumulative monotonic sums, histograms cumulative with explicit bounds, all else gauges; labels
become attributes, and there are no others. What is counted is counted since the process that counts began.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from gateway.front.events.collector import attributes
from gateway.front.house.process_starts import own_start, wall_time
from model import __version__

CUMULATIVE: Final = 2
"""AGGREGATION_TEMPORALITY_CUMULATIVE."""
MOST_POINTS: Final = 5000
"""A house has some hundreds; what is beyond is left out, and counted."""
UNITS: Final = {"seconds": "s", "bytes": "By"}
"""UCUM's, by how a metric's name ends."""
OF_PROCESS: Final = ("process", "hall")
"""Labels that name the process which counts."""

Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Counted:
    """One series as it was told last."""

    process: float
    """when the process that counts began, in seconds since the machine's start"""
    since_ns: int
    told_ns: int
    value: float


class MetricPoints:
    """Makes requests, one after the other. `starts`: see `process_starts`."""

    def __init__(self, starts: Callable[[], Mapping[str, float]]) -> None:
        self._starts = starts
        self._own = own_start()
        self._told: dict[Series, _Counted] = {}
        self.left_out = 0
        """points of the last request that were too many"""

    def request(self, families: Iterable[Metric], resource: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a POST to `/v1/metrics`."""
        made = _Round({**self._starts(), "front": self._own}, self._told, time.time_ns())
        metrics = [metric for family in families if (metric := made.metric(family)) is not None]
        self._told, self.left_out = made.told, made.left_out
        scoped = {"scope": {"name": "voicegate", "version": __version__}, "metrics": metrics}
        return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scoped]}]}


class _Round:
    """One request's points. `last`: the series as they were told before it."""

    def __init__(self, starts: Mapping[str, float], last: Mapping[Series, _Counted], now_ns: int) -> None:
        self._starts = starts
        self._last = last
        self._now_ns = now_ns
        self._room = MOST_POINTS
        self.told: dict[Series, _Counted] = {}
        self.left_out = 0

    def metric(self, family: Metric) -> dict[str, Any] | None:
        """OTLP's `Metric`; None when it has no point."""
        kind = {"counter": "sum", "histogram": "histogram"}.get(family.type, "gauge")
        points = self._histograms(family) if kind == "histogram" else self._numbers(family, kind == "sum")
        self.left_out += max(0, len(points) - self._room)
        points = points[: self._room]
        self._room -= len(points)
        if not points:
            return None
        data: dict[str, Any] = {"dataPoints": points}
        if kind != "gauge":
            data["aggregationTemporality"] = CUMULATIVE
        if kind == "sum":
            data["isMonotonic"] = True
        unit = UNITS.get(family.name.rpartition("_")[2], "")
        name = f"{family.name}_info" if family.type == "info" else family.name
        return {"name": name, "description": family.documentation, "unit": unit, kind: data}

    def _numbers(self, family: Metric, counts: bool) -> list[dict[str, Any]]:
        points = []
        for sample in family.samples:
            if not math.isfinite(sample.value) or (counts and not sample.name.endswith("_total")):
                continue  # the latter is when it was made, which `_times` says
            times = self._times(family.name, sample.labels, sample.value) if counts else self._now
            points.append({"attributes": attributes(sample.labels), "asDouble": float(sample.value), **times})
        return points

    def _histograms(self, family: Metric) -> list[dict[str, Any]]:
        points = []
        for labels, samples in _by_labels(family.samples).items():
            by_bound = sorted((float(one.labels["le"]), one.value) for one in samples if "le" in one.labels)
            upto = [0.0, *(count for _, count in by_bound)]  # Prometheus' buckets hold those below, too
            counts = [int(count - below) for below, count in pairwise(upto)]
            point = {
                "attributes": attributes(dict(labels)),
                "count": str(sum(counts)),
                "sum": float(next((one.value for one in samples if one.name.endswith("_sum")), 0.0)),
                "bucketCounts": [str(count) for count in counts],
                "explicitBounds": [bound for bound, _ in by_bound if math.isfinite(bound)],
            }
            points.append({**point, **self._times(family.name, dict(labels), upto[-1])})
        return points

    @property
    def _now(self) -> dict[str, str]:
        return {"timeUnixNano": str(self._now_ns)}

    def _times(self, name: str, labels: Mapping[str, str], value: float) -> dict[str, str]:
        """Since when that was counted, and now. What became less was counted anew since it was told last."""
        series = (name, tuple(sorted(labels.items())))
        last = self._last.get(series)
        counts = next((labels[label] for label in OF_PROCESS if label in labels), "front")
        process = self._starts.get(counts, self._starts["front"] if last is None else last.process)
        if last is None:
            since_ns = min(self._now_ns, int(wall_time(process) * 1e9))
        elif process != last.process or value < last.value:
            since_ns = min(self._now_ns, max(last.told_ns, int(wall_time(process) * 1e9)))
        else:
            since_ns = last.since_ns
        self.told[series] = _Counted(process, since_ns, self._now_ns, value)
        return {"startTimeUnixNano": str(since_ns), **self._now}


def _by_labels(samples: Iterable[Sample]) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    """A histogram's samples by its labels."""
    found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = sorted((name, value) for name, value in sample.labels.items() if name != "le")
        found.setdefault(tuple(labels), []).append(sample)
    return found
