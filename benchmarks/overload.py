"""What callers get when there is too little time: `python -m benchmarks.overload [--calls 10,20,40,60]`.

For each number of calls two rounds, one after the other: a quiet one, and one in which a neighbour spins on
each core (`--neighbours` of them, pinned), begun before the first call. Callers arrive evenly, ask twice, and
hang up; each round has a house of its own, with places for all. What is printed of the round with neighbours
stands beside the quiet one's: how many calls were taken, how many of those were cut, how often the house let
more than 40 ms go by between two packets (read on its interface), how late the greeting and the answers were.
`--no-admission` lets everybody in who finds a line, as the gateway did before it went by time.

The telephones run on the same cores and spin nobody's niceness: a gap that is theirs is not in the capture.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import capture
from benchmarks.calls import DIALPLAN, SHORT, SIP_LINES, first_sound_s, gaps, question, spread
from benchmarks.capture import Capture
from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import CallRequest, arrivals
from gateway.cli.caller.testphone import place_calls
from tests.e2e.gateway_process import House

OURS: Final = "we hung up"
"""How a call ends that was not cut."""


def _spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Has that many processes spin meanwhile, one pinned to each core in turn."""
    cores = sorted(os.sched_getaffinity(0))
    spinning = [
        multiprocessing.get_context("spawn").Process(
            target=_spin, args=(cores[at % len(cores)],), daemon=True
        )
        for at in range(count)
    ]
    for process in spinning:
        process.start()
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.join()


def house_for(folder: Path, calls: int, by_time: bool) -> House:
    """A house with a place for every call."""
    folder.mkdir()
    (folder / "plans").mkdir()
    (folder / "plans" / "bench.toml").write_text(DIALPLAN.replace("{greeting}", SHORT))
    house = House(
        folder, sip_lines=SIP_LINES, narrow_calls=math.ceil(calls / SIP_LINES), wide_calls=0, web_lines=0,
        dialplans=folder / "plans", invites_per_s=1000, sip_allow="127.0.0.0/8", log_level="warning",
        admit_by_time=by_time,
    )  # fmt: skip
    house.start()
    return house


def placed(
    house: House, requests: list[CallRequest], pcap: Path
) -> tuple[list[CallReport], list[capture.WireCall]]:
    """The calls' reports, and what went over the wire."""
    reports: list[CallReport] = []
    with Capture(pcap):
        phones = threading.Thread(target=lambda: reports.extend(place_calls(requests)))
        phones.start()
        phones.join()
    return reports, capture.calls(pcap, house.sip_port)


def measure(
    folder: Path, sound: Path, calls: int, spinning: int, *, over_s: float, lasts_s: float, by_time: bool
) -> dict[str, Any]:
    """One round."""
    house = house_for(folder, calls, by_time)
    try:
        uri = house.uri.replace("demo", "bench")
        request = CallRequest(uri, script=[sound, sound], duration_s=lasts_s)
        with neighbours(spinning):
            reports, wire = placed(house, arrivals(request, calls, over_s), folder / "calls.pcap")
    finally:
        house.stop()
    taken = [report for report in reports if report.answered]
    full = [json.loads(line) for line in house.log_path.read_text().splitlines() if "admission.full" in line]
    return {
        "asked": calls,
        "taken": len(taken),
        "refused 503": sum(report.status == 503 for report in reports),
        "failed otherwise": sum(not report.answered and report.status != 503 for report in reports),
        "cut": sum(report.ended != OURS for report in taken),
        "gaps over 40 ms": sum(gaps(call) for call in wire),
        "packets": sum(len(call.sent) for call in wire),
        "turns": sum(len(report.turns) for report in taken),
        "turns answered": sum(turn.latency_s is not None for report in taken for turn in report.turns),
        "greeting after 200 OK, ms": spread([first_sound_s(call) for call in wire if call.answered_at]),
        "answers, ms": spread([seconds for report in taken for seconds in report.latencies_s]),
        "why": sorted({line["why"].partition(" is ")[0] for line in full}),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return ", ".join(value) or "-" if isinstance(value, list) else str(value)


def _ratio(quiet: Any, spun: Any) -> str:
    """The ratio of a number, or of percentiles, to that of the quiet run, as text; empty without one."""
    if isinstance(quiet, dict):
        return ", ".join(_ratio(quiet[name], spun[name]) for name in ("p50", "p95"))
    return f"{spun / quiet:.2f}" if isinstance(quiet, (int, float)) and quiet else "-"


def beside(quiet: dict[str, Any], spun: dict[str, Any]) -> list[str]:
    """Lines of a table: the quiet round, the other one, and their ratio."""
    return [
        f"{key:28} {_shown(was):34} {_shown(spun[key]):34} {_ratio(was, spun[key])}"
        for key, was in quiet.items()
    ]


@click.command()
@click.option("--calls", default="10,20,40,60", show_default=True, help="numbers of calls, each two rounds")
@click.option("--neighbours", "spinning", type=int, default=os.cpu_count(), help="processes that spin")
@click.option("--over", default=10.0, show_default=True, help="seconds in which the calls come")
@click.option("--lasts", default=30.0, show_default=True, help="seconds of a call")
@click.option("--admission/--no-admission", default=True, help="whether the gateway goes by time")
@click.option("--out", type=click.Path(path_type=Path), help="also write the figures here, as JSON")
def main(calls: str, spinning: int, over: float, lasts: float, admission: bool, out: Path | None) -> None:
    """Calls beside neighbours who take the processor, against the same calls without."""
    load = os.getloadavg()[0]
    click.echo(f"{os.cpu_count()} cores, load before the run {load:.1f}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="voicegate-bench-") as name:
        folder = Path(name)
        sound = question(folder)
        for count in (int(word) for word in calls.split(",")):
            rounds = [
                measure(
                    folder / f"{count}-{beside_us}", sound, count, beside_us,
                    over_s=over, lasts_s=lasts, by_time=admission,
                )
                for beside_us in (0, spinning)
            ]  # fmt: skip
            rows.append({"quiet": rounds[0], "neighbours": rounds[1]})
            click.echo(f"\n{'':28} {'quiet':34} {f'{spinning} neighbours':34} ratio")
            for line in beside(*rounds):
                click.echo(line)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"load before": load, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
