"""Calls that come and go with everything on, and whether anything grows: `make soak MINUTES=60`,
`python -m benchmarks.soak [--minutes 60] [--at-once 8] [--leak BYTES] [--lines hall0] [--out FILE.json]`.

A whole gateway on 127.0.0.1 that records, writes down and marks; callers of three codecs who ask, interrupt,
press keys, hold, leave a message, hang up at once, some with noise behind them and some on a line that loses
packets. They come in waves; between two of them nobody calls, and what the house uses is read. Slopes are
made of that (`benchmarks.slopes`): per call that ended for what is used, per minute for times. It ends with 1
when a slope is surely above what is allowed, a process of the house was started again, or more than a tenth
of what callers said had no answer. What a process has in use (`benchmarks.heap_watch`) tells a leak from a
few minutes; what it weighs takes hundreds of calls.

`--leak` has the hall keep so many bytes of each call (`benchmarks.soak_leak`): is it found? `--lines`, once
for each process that is to look, names the lines of source that hold more after each call
(`benchmarks.heap_lines`).
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import click
import numpy as np

from benchmarks import heap_lines, heap_watch, house_meter, soak_leak
from benchmarks.slopes import Slope, growing, slope
from benchmarks.soak_callers import DIALPLAN, LEAVES_MESSAGE, wave
from gateway.cli.caller.call_reports import CallReport, summary
from gateway.cli.caller.testphone import place_calls
from tests.e2e.gateway_process import House

LEAST_WAVES: Final = 12
"""Of fewer nothing can be said."""
REST_S: Final = 2.0
"""After a wave, before the house is read: what is written of calls is written."""
TELLS_S: Final = 10.0
"""How long the house's processes may take to say what they have in use."""
WINDOW_S: Final = 300.0
"""Times are gathered over so long, or a tenth of a run that is shorter than ten of these."""

ANSWERED: Final = 0.9
"""Share of what callers said that must have an answer: each waits for one."""

LEAST_LINE_KB: Final = 0.02
"""A call; a line of source that holds more by less is not named."""
MOST_LINES: Final = 12
"""That are named of a process."""
MANY_CALLS: Final = 600
"""Until so many have ended, much still fills its bound."""

INSIDE: Final = "inside"
"""Where the house's processes tell what they have in use."""


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Allowed:
    """By how much a gauge may grow, per call or per minute."""

    by: float
    per: Literal["call", "minute"] = "call"
    early: float | None = None
    """the same in a run of fewer than `MANY_CALLS`; infinite where such a run says nothing"""


ALLOWED: Final[dict[str, Allowed]] = {
    "memory of redis": Allowed(64.0),
    "memory of": Allowed(1.0, early=math.inf),
    "heap of": Allowed(0.5),
    "objects of": Allowed(10.0),
    "descriptors of": Allowed(0.01),
    "UDP ports": Allowed(0.01),
    "Redis": Allowed(64.0),
    "SQL": Allowed(32.0),
    "log": Allowed(32.0),
    "jitter buffer": Allowed(0.2, "minute"),
    "p95": Allowed(2.0, "minute"),
}
"""By how gauges' names begin. What is kept of a call in the stores and in the log grows by intent."""


def allowed(name: str, calls: float = math.inf) -> Allowed:
    """What a gauge may do in a run of so many calls."""
    found = next(each for begin, each in ALLOWED.items() if name.startswith(begin))
    return found if found.early is None or calls >= MANY_CALLS else replace(found, by=found.early)


@dataclass
class Readings:
    """What was read while calls came and went."""

    ended: list[float] = field(default_factory=list)
    """calls, at each reading"""
    gauges: dict[str, list[float]] = field(default_factory=dict)
    """NaN where a process was not there"""
    restarted: list[str] = field(default_factory=list)
    """processes that another one took the place of"""
    lines: dict[str, list[heap_lines.Lines]] = field(default_factory=dict)
    """by process, at each reading; where nobody looked, none"""

    def note(self, ended: int, values: dict[str, float]) -> None:
        self.ended.append(float(ended))
        for name in values.keys() | self.gauges.keys():
            series = self.gauges.setdefault(name, [math.nan] * (len(self.ended) - 1))
            series.append(values.get(name, math.nan))


def processes(house: House) -> dict[str, int]:
    """By name the pids of a house."""
    assert house.process is not None
    return house.pids() | {"supervisor": house.process.pid}


def in_use(house: House, pids: dict[str, int], number: int) -> dict[str, float]:
    """The gauges of what its processes say of themselves when asked for the `number`th time."""
    folder, values = house.folder / INSIDE, dict[str, float]()
    heap_watch.ask(folder, number)
    waiting = {name: pid for name, pid in pids.items() if heap_watch.tells(folder, pid)}
    until = time.monotonic() + TELLS_S
    while waiting and time.monotonic() < until:
        time.sleep(heap_watch.LOOK_S)
        for name, pid in list(waiting.items()):
            if (told := heap_watch.told(folder, pid, number)) is not None:
                values[f"heap of {name}, kB"], values[f"objects of {name}"] = told
                del waiting[name]
    return values


def held_lines(house: House, pids: dict[str, int], number: int) -> dict[str, heap_lines.Lines]:
    """By process what its lines held when it was asked for the `number`th time."""
    told = {name: heap_lines.told(house.folder / INSIDE, pid, number) for name, pid in pids.items()}
    return {name: lines or {} for name, lines in told.items()}


def gauges(house: House, pids: dict[str, int]) -> dict[str, float]:
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


def _said(report: CallReport) -> str:
    return "a message to the thanks" if LEAVES_MESSAGE in report.uri else "a turn to its answer"


def unanswered(reports: Sequence[CallReport]) -> Counter[str]:
    """What was said and had no answer: who said it, and which of the things that they said it was."""
    return Counter(
        f"{report.uri.partition('@')[0]}, {report.codec}: {turn.kind} {number} of {len(report.turns)}"
        for report in reports
        for number, turn in enumerate(report.turns, 1)
        if turn.latency_s is None
    )


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
            f"p95 of {_said(report)}, ms": report.latencies_s,
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
    unanswered: dict[str, int]
    lines: dict[str, list[tuple[str, Slope]]]
    """by process those that surely hold more after each call"""
    series: dict[str, dict[str, list[float]]]
    """what the slopes were made of: by gauge the calls that had ended, or the minutes, and the readings"""

    @property
    def grown(self) -> list[str]:
        return [gauge.name for gauge in self.gauges if gauge.verdict == "grows"]

    @property
    def heard(self) -> bool:
        """Whether what callers said had an answer, most of it."""
        return bool(self.calls["answers"] >= ANSWERED * self.calls["asked"])

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
        return {
            "gauges": told, "restarted": list(self.restarted), "calls": self.calls,
            "unanswered": self.unanswered, "heard": self.heard,
        }  # fmt: skip


def judged(readings: Readings, reports: Sequence[CallReport], window_s: float) -> Soaked:
    """Slopes of all that was read."""
    used = {name: (readings.ended, series) for name, series in sorted(readings.gauges.items())}
    times = windows(reports, window_s)
    calls = readings.ended[-1] if readings.ended else 0.0
    made = []
    for name, points in used.items():
        bound = allowed(name, calls)
        made.append(SoakedGauge(name, None if math.isinf(bound.by) else slope(*points, "lowest"), bound))
    made += [SoakedGauge(name, slope(*points, "mean"), allowed(name)) for name, points in times.items()]
    series = {name: {f"{allowed(name).per}s": x, "readings": y} for name, (x, y) in (used | times).items()}
    lines = {
        name: growing(readings.ended, held, LEAST_LINE_KB, MOST_LINES)
        for name, held in readings.lines.items()
    }
    return Soaked(
        tuple(made), tuple(readings.restarted), summary(reports), dict(unanswered(reports)), lines, series
    )  # fmt: skip


def fresh_house(folder: Path, at_once: int, leak_bytes: int, lines: Sequence[str]) -> House:
    (folder / "plans").mkdir()
    (folder / "plans" / "soak.toml").write_text(DIALPLAN)
    calls = max(4, at_once)  # of each kind in each of two processes: some are free at any time
    house = House(
        folder, sip_lines=2, narrow_calls=calls, wide_calls=calls, web_lines=0, dialplans=folder / "plans",
        invites_per_s=1000,
    )  # fmt: skip
    house.environ |= soak_leak.injected(folder / INSIDE, leak_bytes)
    house.environ |= {heap_lines.VARIABLE: " ".join(lines)}
    house.start()
    return house


def soak(minutes: float, at_once: int = 8, leak_bytes: int = 0, lines: Sequence[str] = ()) -> Soaked:
    """Runs it; blocks for so long, or for `LEAST_WAVES`."""
    reports: list[CallReport] = []
    readings = Readings()
    with tempfile.TemporaryDirectory(prefix="voicegate-soak-") as name:
        house = fresh_house(Path(name), at_once, leak_bytes, lines)
        try:
            first, until = processes(house), time.monotonic() + 60 * minutes
            for number in itertools.count(1):
                place_calls(wave(house, at_once, number - 1), told=reports.append)
                time.sleep(REST_S)
                pids = processes(house)
                readings.note(len(reports), in_use(house, pids, number) | gauges(house, pids))
                for name, held in held_lines(house, pids, number).items():
                    readings.lines.setdefault(name, [{}] * (number - 1)).append(held)
                readings.restarted = [each for each, pid in first.items() if pids.get(each) != pid]
                if time.monotonic() > until and number >= LEAST_WAVES:
                    break
        finally:
            house.stop()
    return judged(readings, reports, min(WINDOW_S, 60 * minutes / 10))


@click.command()
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0.5))
@click.option("--at-once", default=8, show_default=True, type=click.IntRange(1, 40), help="calls, about")
@click.option("--leak", default=0, help="bytes that the hall is to keep of each call")
@click.option("--lines", multiple=True, help="a process, to name the lines that hold more after each call")
@click.option("--out", type=click.Path(path_type=Path), help="also write what was found here, as JSON")
def main(minutes: float, at_once: int, leak: int, lines: tuple[str, ...], out: Path | None) -> None:
    """Whether anything grows while calls come and go."""
    began = time.monotonic()
    found = soak(minutes, at_once, leak, lines)
    for gauge in found.gauges:
        click.echo(gauge.line())
    calls = found.calls
    click.echo(
        f"{calls['calls']} calls in {(time.monotonic() - began) / 60:.1f} minutes, "
        f"{calls['answered']} answered, {calls['answers']} of {calls['asked']} turns answered, "
        f"ended by {calls['ended_by']}"
    )
    for what, times in sorted(found.unanswered.items()):
        click.echo(f"{times} times without an answer: {what}")
    for name, lines_found in found.lines.items():
        for where, per in lines_found:
            click.echo(f"{name}: {per.per:.2f} kB a call ({per.low:.2f} to {per.high:.2f}): {where}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found.as_json() | {"series": found.series}, indent=1))
    for name in found.restarted:
        click.echo(f"{name} was started again")
    for name in found.grown:
        click.echo(f"GROWS: {name}")
    if not found.heard:
        click.echo("UNANSWERED: more than a tenth of what callers said")
    sys.exit(1 if found.grown or found.restarted or not found.heard else 0)


if __name__ == "__main__":
    main()
