"""Calls that come and go with everything on, and whether anything grows: `make soak MINUTES=60`,
`python -m benchmarks.soak [--minutes 60] [--at-once 8] [--leak BYTES] [--out FILE.json]`.

A whole gateway on 127.0.0.1 that records, writes down and marks; callers of three codecs who ask, interrupt,
press keys, hold, leave a message, hang up at once, some with noise behind them and some on a line that loses
packets. What the house uses is read all the while, and slopes are made of it (`benchmarks.slopes`): per call
that ended for what is used, per minute for times. It ends with 1 when a slope is surely above what is
allowed, or a process of the house was started again.

`--leak` has the hall keep so many bytes of each call (`benchmarks.soak_leak`): is it found?
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import click
import numpy as np

from benchmarks import house_meter, soak_leak
from benchmarks.slopes import Slope, slope
from gateway.cli.call_reports import CallReport, summary
from gateway.cli.call_request import Behind, CallRequest
from gateway.cli.call_script import CallerAct
from gateway.cli.testphone import place_calls
from gateway.phone.rough_line import RoughLine
from tests.e2e.gateway_process import House

MEAN_S: Final = 8.0
"""About what a call takes."""
EVERY_S: Final = 3.0
"""Readings are so far apart."""
WINDOW_S: Final = 300.0
"""Times are gathered over so long, or a tenth of a run that is shorter than ten of these."""

DIALPLAN: Final = """
[[route]]
name = "soak"
called = ["soak"]
voice = "heart"
language = "en"
purpose = "support"
keep = { transcript = true, caller_audio = true }
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
text = "What you say is written down."
[[route.do]]
verb = "converse"
instructions = "Answer."
greeting = "How can I help?"
[[route.do.answers]]
intent = "hours"
ask = ["what are your opening hours", "when are you open"]
say = "We are open on weekdays from nine to six."

[[route]]
name = "keys"
called = ["keys"]
voice = "heart"
language = "en"
purpose = "support"
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "gather"
prompt = "Press one to leave a message."
branches = { 1 = "message" }
[[route.do]]
verb = "hangup"

[[route]]
name = "message"
voice = "heart"
language = "en"
purpose = "support"
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "record"
announce = "This is recorded."
max_s = 3.0
[[route.do]]
verb = "hangup"
"""

ASK: Final = CallerAct("say", words="what are your opening hours")
LISTEN, LEAVE = CallerAct("listen"), CallerAct("hang up")
ROUGH: Final = RoughLine(loss_percent=5, jitter_ms=40, reorder_percent=2)

CALLERS: Final[tuple[dict[str, Any], ...]] = (
    {"dials": "soak", "script": (LISTEN, ASK, LISTEN, LEAVE)},
    {"dials": "soak", "script": (CallerAct("wait", seconds=1.0), LEAVE), "codec": "pcma"},
    {"dials": "keys", "script": (LISTEN, CallerAct("press", keys="1"), LISTEN, ASK, LISTEN), "line": ROUGH},
    {"dials": "soak", "script": (CallerAct("wait", seconds=0.5), LEAVE), "codec": "g722"},
    {"dials": "soak", "script": (CallerAct("interrupt", seconds=1.0), ASK, LEAVE), "codec": "g722"},
    {"dials": "soak", "script": (CallerAct("hold", seconds=1.5), LISTEN, LEAVE), "behind": Behind(15.0)},
    {"dials": "soak", "script": (CallerAct("wait", seconds=0.2), LEAVE), "line": ROUGH},
    {"dials": "nobody", "script": ()},
)
"""Who calls, one after the other; the last one has a wrong number."""


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Allowed:
    """By how much a gauge may grow, per call or per minute."""

    by: float
    per: Literal["call", "minute"] = "call"


ALLOWED: Final[dict[str, Allowed]] = {
    "memory of redis": Allowed(64.0),
    "memory of": Allowed(1.0),
    "descriptors of": Allowed(0.01),
    "UDP ports": Allowed(0.01),
    "Redis": Allowed(64.0),
    "SQL": Allowed(32.0),
    "log": Allowed(32.0),
    "jitter buffer": Allowed(0.2, "minute"),
    "p95": Allowed(2.0, "minute"),
}
"""By how gauges' names begin. What is kept of a call in the stores and in the log grows by intent."""


def allowed(name: str) -> Allowed:
    return next(each for begin, each in ALLOWED.items() if name.startswith(begin))


@dataclass
class Readings:
    """What was read while calls came and went."""

    ended: list[float] = field(default_factory=list)
    """calls, at each reading"""
    gauges: dict[str, list[float]] = field(default_factory=dict)
    """NaN where a process was not there"""
    restarted: list[str] = field(default_factory=list)
    """processes that another one took the place of"""

    def note(self, ended: int, values: dict[str, float]) -> None:
        self.ended.append(float(ended))
        for name in values.keys() | self.gauges.keys():
            series = self.gauges.setdefault(name, [math.nan] * (len(self.ended) - 1))
            series.append(values.get(name, math.nan))


def of_processes(house: House, pids: dict[str, int]) -> dict[str, float]:
    """The gauges of a house at this moment."""
    values: dict[str, float] = {}
    for name, pid in pids.items():
        values[f"memory of {name}, kB"] = house_meter.pss_anon_kb(pid)
        values[f"descriptors of {name}"] = float(len(house_meter.descriptors(pid)))
    values["UDP ports"] = float(house_meter.udp_ports(pids.values()))
    values["Redis, kB"] = house_meter.redis_kb(house)
    values["SQL, kB"] = house_meter.sql_kb(house)
    values["log, kB"] = house_meter.log_kb(house)
    return values


def watch(house: House, over: threading.Event, ended: Callable[[], int]) -> Readings:
    """Reads every `EVERY_S` until it is over."""
    assert house.process is not None
    readings = Readings()
    first = house.pids() | {"supervisor": house.process.pid}
    while not over.wait(EVERY_S):
        pids = house.pids() | {"supervisor": house.process.pid}
        readings.restarted += [
            name for name, pid in first.items() if pids.get(name) != pid and name not in readings.restarted
        ]
        readings.note(ended(), of_processes(house, pids))
    return readings


def windows(reports: Sequence[CallReport], window_s: float) -> dict[str, tuple[list[float], list[float]]]:
    """Times in ms over the minutes of a run, a point for each window: (minutes, values) by gauge."""
    if not reports:
        return {}
    begin = min(report.placed_at for report in reports)
    gathered: dict[str, dict[int, list[float]]] = {}
    for report in reports:
        window = int((report.placed_at - begin) // window_s)
        known: dict[str, Sequence[float | None]] = {
            "p95 of INVITE to 200 OK, ms": [report.answered_after_s],
            "p95 of 200 OK to first audio, ms": [report.first_audio_s],
            "p95 of a turn to its answer, ms": report.latencies_s,
            "jitter buffer of a caller, ms": [report.buffer_ms / 1000 if report.packets else None],
        }
        for name, values in known.items():
            some = gathered.setdefault(name, {}).setdefault(window, [])
            some += [1000 * value for value in values if value is not None]
    made = {}
    for name, by_window in gathered.items():
        points = [(window, values) for window, values in sorted(by_window.items()) if values]
        minutes = [(window + 0.5) * window_s / 60 for window, _ in points]
        share = 95 if name.startswith("p95") else 50
        made[name] = minutes, [float(np.percentile(values, share)) for _, values in points]
    return made


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SoakedGauge:
    """One gauge's slope, per call or per minute, and what is said of it."""

    name: str
    found: Slope | None
    allowed: Allowed

    @property
    def verdict(self) -> str:
        return "too short" if self.found is None else self.found.verdict(self.allowed.by)

    def line(self) -> str:
        if self.found is None:
            return f"{self.verdict:10} {self.name}"
        return (
            f"{self.verdict:10} {self.name} a {self.allowed.per}: {self.found.per:.3f} "
            f"({self.found.low:.3f} to {self.found.high:.3f}), allowed {self.allowed.by:g}"
        )


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a run found."""

    gauges: tuple[SoakedGauge, ...]
    restarted: tuple[str, ...]
    calls: dict[str, Any]
    series: dict[str, dict[str, list[float]]]
    """what the slopes were made of: by gauge the calls that had ended, or the minutes, and the readings"""

    @property
    def grown(self) -> list[str]:
        return [gauge.name for gauge in self.gauges if gauge.verdict == "grows"]

    def as_json(self) -> dict[str, Any]:
        told = {
            gauge.name: {
                "verdict": gauge.verdict,
                "per": gauge.allowed.per,
                "allowed": gauge.allowed.by,
                **({} if gauge.found is None else {
                    "slope": gauge.found.per, "low": gauge.found.low, "high": gauge.found.high,
                }),
            }
            for gauge in self.gauges
        }  # fmt: skip
        return {"gauges": told, "restarted": list(self.restarted), "calls": self.calls}


def judged(readings: Readings, reports: Sequence[CallReport], window_s: float) -> Soaked:
    """Slopes of all that was read."""
    used = {name: (readings.ended, series) for name, series in sorted(readings.gauges.items())}
    times = windows(reports, window_s)
    made = [SoakedGauge(name, slope(*points, "lowest"), allowed(name)) for name, points in used.items()]
    made += [SoakedGauge(name, slope(*points, "mean"), allowed(name)) for name, points in times.items()]
    series = {name: {f"{allowed(name).per}s": x, "readings": y} for name, (x, y) in (used | times).items()}
    return Soaked(tuple(made), tuple(readings.restarted), summary(reports), series)


def fresh_house(folder: Path, at_once: int, leak_bytes: int) -> House:
    (folder / "plans").mkdir()
    (folder / "plans" / "soak.toml").write_text(DIALPLAN)
    calls = max(4, at_once)  # of each kind in each of two processes: some are free at any time
    house = House(
        folder, sip_lines=2, narrow_calls=calls, wide_calls=calls, web_lines=0, dialplans=folder / "plans",
        invites_per_s=1000,
    )  # fmt: skip
    if leak_bytes:
        house.environ |= soak_leak.injected(folder / "leak", leak_bytes)
    house.start()
    return house


def requests(house: House, seconds: float, at_once: int) -> list[CallRequest]:
    """Calls that come evenly for so long, about `at_once` of them at a time."""
    apart_s = MEAN_S / at_once
    made = []
    for number in range(max(1, round(seconds / apart_s))):
        caller = dict(CALLERS[number % len(CALLERS)])
        uri = house.uri.replace("demo", caller.pop("dials"))
        made.append(CallRequest(uri, after_s=number * apart_s, **caller))
    return made


def soak(minutes: float, at_once: int = 8, leak_bytes: int = 0) -> Soaked:
    """Runs it; blocks for so long."""
    with tempfile.TemporaryDirectory(prefix="voicegate-soak-") as name:
        house = fresh_house(Path(name), at_once, leak_bytes)
        reports: list[CallReport] = []
        over = threading.Event()
        try:
            with ThreadPoolExecutor(1) as beside:
                watching = beside.submit(watch, house, over, lambda: len(reports))
                try:
                    place_calls(requests(house, 60 * minutes, at_once), told=reports.append)
                finally:
                    over.set()
                readings = watching.result()
        finally:
            house.stop()
    return judged(readings, reports, min(WINDOW_S, 60 * minutes / 10))


@click.command()
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0.5))
@click.option("--at-once", default=8, show_default=True, type=click.IntRange(1, 40), help="calls, about")
@click.option("--leak", default=0, help="bytes that the hall is to keep of each call")
@click.option("--out", type=click.Path(path_type=Path), help="also write what was found here, as JSON")
def main(minutes: float, at_once: int, leak: int, out: Path | None) -> None:
    """Whether anything grows while calls come and go."""
    began = time.monotonic()
    found = soak(minutes, at_once, leak)
    for gauge in found.gauges:
        click.echo(gauge.line())
    calls = found.calls
    click.echo(
        f"{calls['calls']} calls in {(time.monotonic() - began) / 60:.1f} minutes, "
        f"{calls['answered']} answered, {calls['answers']} of {calls['asked']} turns answered, "
        f"ended by {calls['ended_by']}"
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found.as_json() | {"series": found.series}, indent=1))
    for name in found.restarted:
        click.echo(f"{name} was started again")
    for name in found.grown:
        click.echo(f"GROWS: {name}")
    sys.exit(1 if found.grown or found.restarted else 0)


if __name__ == "__main__":
    main()
