"""What engines measure of themselves, as an operator reads it: a column per engine, a row per metric.

A row is there when an engine tells it. Counters and histograms are shown for the time between two readings,
or since the engine's start where there is one reading only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

MIB: Final = 1 << 20
UNITS: Final = frozenset({"bytes", "seconds"})
"""Words of a metric's name that are left out: the number shows its unit."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """An engine's metrics at a time (monotonic, seconds)."""

    at: float
    families: tuple[Metric, ...]
    values: Mapping[tuple[str, Labels], float]
    """Every sample by name and labels."""

    @classmethod
    def parse(cls, text: str, at: float) -> Self:
        """Reads what Prometheus would scrape. Raises `ValueError` for any other text."""
        families = tuple(text_string_to_metric_families(text))
        samples = (sample for family in families for sample in family.samples)
        return cls(at, families, {(s.name, _labels(s.labels)): s.value for s in samples})


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def quantile(buckets: Sequence[tuple[float, float]], q: float) -> float | None:
    """The quantile as Prometheus estimates it: evenly within its bucket, at most the last bound.

    `buckets`: (upper bound, count of all up to it), the last bound infinite. None when nothing was
    counted.
    """
    count = buckets[-1][1]
    if not count:
        return None
    below, lower = 0.0, 0.0
    for bound, upto in buckets:
        if upto >= q * count:
            if math.isinf(bound):
                break
            return lower + (bound - lower) * (q * count - below) / (upto - below)
        below, lower = upto, bound
    return lower


def rows(now: Reading, before: Reading | None) -> dict[str, str]:
    """What an engine's metrics say, by the name and labels of each."""
    found = {}
    for family in now.families:
        if family.name.endswith("_created"):
            continue
        if family.type == "histogram":
            for labels, buckets in _histograms(family, now, before).items():
                found[_title(family.name, labels)] = _spread(family.name, buckets)
            continue
        for sample in family.samples:
            title = _title(family.name, _labels(sample.labels))
            found[title] = _number(family.name, sample.value)
            if family.type == "counter" and before is not None:
                rate = _since(before, sample.name, _labels(sample.labels), sample.value) / (
                    now.at - before.at
                )
                found[title] += f"  {_number(family.name, rate)}/s"
    return found


def _since(before: Reading | None, name: str, labels: Labels, value: float) -> float:
    """The growth of a counter since `before`; an engine that was started anew began at zero."""
    past = 0.0 if before is None else before.values.get((name, labels), 0.0)
    return value - past if value >= past else value


def _histograms(
    family: Metric, now: Reading, before: Reading | None
) -> dict[Labels, list[tuple[float, float]]]:
    found: dict[Labels, list[tuple[float, float]]] = {}
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            labels = _labels(sample.labels)
            others = tuple((name, value) for name, value in labels if name != "le")
            count = _since(before, sample.name, labels, sample.value)
            found.setdefault(others, []).append((float(sample.labels["le"]), count))
    return found


def _title(name: str, labels: Labels) -> str:
    words = [word for word in name.removeprefix("voicegate_").split("_") if word not in UNITS]
    return " ".join([*words, *(value for _, value in labels)])


def _spread(name: str, buckets: Sequence[tuple[float, float]]) -> str:
    median, late = quantile(buckets, 0.5), quantile(buckets, 0.99)
    if median is None or late is None:
        return "–"
    return f"p50 {_number(name, median)}  p99 {_number(name, late)}  of {buckets[-1][1]:,.0f}"


def _number(name: str, value: float) -> str:
    if "_bytes" in name:
        return f"{value / MIB:,.1f} MiB"
    if "_seconds" in name:
        return f"{value * 1000:,.2f} ms" if value < 1 else f"{value:,.1f} s"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def table(engines: Mapping[str, dict[str, str]]) -> Table:
    """`engines`: each one's rows, by its place."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    for place in engines:
        shown.add_column(place, justify="right", overflow="fold")
    titles = dict.fromkeys(title for found in engines.values() for title in found)
    for title in titles:
        shown.add_row(title, *(found.get(title, "") for found in engines.values()))
    return shown
