"""What SIP calls cost and how they feel: `python -m benchmarks.calls [--calls 4,20,40] [--out FILE.json]`.

A whole gateway and as many telephones as calls, all on 127.0.0.1, speech both ways. For each number of calls
two rounds: in the first every caller listens to the greeting, asks, hears the answer, asks again; in the
second every caller begins to speak in the middle of the greeting. Times are read from a capture of the RTP
(`benchmarks.capture`), costs from /proc: CPU-seconds per call-second of everything but the engine, and
memory over the empty house. The telephones run on the same cores; their cost is not counted, their load is.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import capture, stages
from benchmarks.capture import Capture, WireCall
from benchmarks.house_meter import Meter
from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import CallRequest, arrivals
from gateway.cli.caller.testphone import place_calls
from tests.e2e.gateway_process import House

SIP_LINES = 2
"""Processes with telephones' calls: as many as a house has that is told nothing else."""
LOUD = 0.01
"""RMS from which a 20 ms frame is sound (-40 dBFS)."""
GAP_S = 0.04
BARGE_AT_S = 3.0
ALIGNED = 50
"""Packets (1 s) by which two calls are laid side by side."""
BARGE_OVER_S = 1.0
"""Callers who interrupt do so within this much of the same text."""
IN_WORDS = 10
"""Packets after an onset of which half must be loud without it, that a softer one can be told."""
SPREAD_S = 4.0
"""Callers begin within this, so that they do not all ask in the same breath."""

DIALPLAN = """
[[route]]
name = "bench"
called = ["bench"]
voice = "heart"
language = "en"
purpose = "support"
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens Bicycle Workshop"
language = "en"
[[route.do]]
verb = "converse"
instructions = "Answer."
greeting = "{greeting}"
[[route.do.answers]]
intent = "hours"
ask = ["what are your opening hours", "when are you open"]
say = "We are open on weekdays from nine in the morning to six in the evening."
"""
SHORT = "How can I help?"
LONG = (
    "We are happy that you called our workshop and we hope that you have a minute to listen to all that we "
    "have on offer, because there are many bicycles here and every one of them waits for somebody to ride it"
)


def question(folder: Path) -> Path:
    """A caller's question: espeak-ng, nobody's voice."""
    path = folder / "question.wav"
    subprocess.run(
        ["espeak-ng", "-v", "en-us", "-s", "150", "-w", path, "what are your opening hours"], check=True
    )
    return path


def fresh_house(folder: Path, calls: int, greeting: str) -> House:
    folder.mkdir()
    (folder / "plans").mkdir()
    (folder / "plans" / "bench.toml").write_text(DIALPLAN.replace("{greeting}", greeting))
    house = House(
        folder,
        sip_lines=SIP_LINES,
        narrow_calls=math.ceil(calls / SIP_LINES),
        wide_calls=0,
        web_lines=0,
        dialplans=folder / "plans",
        invites_per_s=1000,
        log_level="warning",
    )
    house.start()
    return house


def talk(
    house: House, calls: int, pcap: Path, play: list[Path], at_s: float | None, duration_s: float
) -> tuple[list[CallReport], list[WireCall], dict[str, float]]:
    """Places the calls; answers their reports, the capture, and costs while all of them talk."""
    uri = house.uri.replace("demo", "bench")
    requests = [
        # not all at the same word of ours: it may be followed by a pause
        one if one.at_s is None else replace(one, at_s=one.at_s + BARGE_OVER_S * n / calls)
        for n, one in enumerate(
            arrivals(CallRequest(uri, script=play, at_s=at_s, duration_s=duration_s), calls, SPREAD_S)
        )
    ]
    reports: list[CallReport] = []
    costs: dict[str, float] = {}
    with Capture(pcap):
        meter = Meter(house)
        empty = meter.memory()["gateway"]
        phones = threading.Thread(target=lambda: reports.extend(place_calls(requests)))
        phones.start()
        house.wait_for(
            "all calls", lambda: sum(c["state"] == "confirmed" for c in house.calls()) >= calls, 30
        )
        before, began = meter.cpu(), time.monotonic()
        time.sleep(duration_s - SPREAD_S - 3.0)
        after, lasted = meter.cpu(), time.monotonic() - began
        full = meter.memory()["gateway"]
        phones.join()
    for part in after:
        costs[part] = 100 * (after[part] - before[part]) / lasted / calls
    costs["MB"] = (full - empty) / calls
    costs["MB of a full house"] = full / calls
    return reports, capture.calls(pcap, house.sip_port), costs


# ── what the capture says ────────────────────────────────────────────────────────────────────────────────


def first_sound_s(call: WireCall) -> float:
    """From the 200 OK to our first loud packet."""
    assert call.answered_at is not None
    loud = capture.loudness(call.sent) > LOUD
    return call.sent[int(np.argmax(loud))].at - call.answered_at if loud.any() else math.nan


def turn_latencies_s(call: WireCall) -> list[float]:
    """From the end of each thing the caller said to our next loud packet."""
    spoke = [p.at for p, loud in zip(call.heard, capture.loudness(call.heard) > LOUD, strict=True) if loud]
    said = [p.at for p, loud in zip(call.sent, capture.loudness(call.sent) > LOUD, strict=True) if loud]
    ends = [a + capture.FRAME_S for a, b in pairwise([*spoke, math.inf]) if b - a > 1.0]
    answers = [next((at for at in said if at > end), math.nan) - end for end in ends]
    return [latency for latency in answers if latency < 5]


def duck_s(call: WireCall, reference: NDArray[np.float32]) -> float:
    """From the caller's first loud packet to the first of ours that is 8 dB softer than the same words were
    in a call that nobody interrupted (`reference`: the loudness of its packets)."""
    heard = capture.loudness(call.heard) > LOUD
    ours = capture.loudness(call.sent)
    if not heard.any():
        return math.nan
    onset = call.heard[int(np.argmax(heard))].at
    first = next((at for at, packet in enumerate(call.sent) if packet.at > onset), None)
    if first is None or first < ALIGNED:
        return math.nan
    # pauses between texts differ by a frame or two: the second before the onset tells how far
    before = ours[first - ALIGNED : first]
    starts = range(min(len(reference) - ALIGNED - ALIGNED, 2 * first))
    start = min(starts, key=lambda at: float(np.abs(reference[at : at + ALIGNED] - before).sum()))
    expected = reference[start + ALIGNED :]
    if np.mean(expected[:IN_WORDS] > 2 * LOUD) < 0.5:  # in a pause: nothing could be softer
        return math.nan
    for packet, level, undisturbed in zip(call.sent[first:], ours[first:], expected, strict=False):
        if undisturbed > 2 * LOUD and level < 0.4 * undisturbed:
            return packet.at - onset
    return math.nan


def gaps(call: WireCall) -> int:
    return sum(b.at - a.at > GAP_S for a, b in pairwise(call.sent))


def spread(values: list[float]) -> dict[str, float]:
    """p50 and p95 in ms, and of how many."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"p50": math.nan, "p95": math.nan, "of": 0}
    p50, p95 = np.percentile(known, [50, 95]) * 1000
    return {"p50": round(float(p50)), "p95": round(float(p95)), "of": len(known)}


def measure(calls: int, folder: Path, sound: Path) -> dict[str, Any]:
    with_short = fresh_house(folder / f"short{calls}", calls, SHORT)
    try:
        reports, wire, costs = talk(with_short, calls, folder / f"{calls}.pcap", [sound, sound], None, 28.0)
        counters = with_short.get("/metrics")
    finally:
        with_short.stop()
    with_long = fresh_house(folder / f"long{calls}", calls, LONG)
    try:
        _, alone, _ = talk(with_long, 1, folder / f"{calls}-reference.pcap", [], None, 18.0)
        _, cut, _ = talk(with_long, calls, folder / f"{calls}-barge.pcap", [sound], BARGE_AT_S + 3, 18.0)
    finally:
        with_long.stop()
    reference = capture.loudness(alone[0].sent)
    late = [line for line in counters.splitlines() if line.startswith("voicegate_hall_late_turns")]
    return {
        "calls": calls,
        "answered": sum(report.answered for report in reports),
        "cut": sum(report.ended != "we hung up" for report in reports),
        "answers": sum(turn.latency_s is not None for report in reports for turn in report.turns),
        "asked": sum(len(report.turns) for report in reports),
        "gaps over 40 ms": sum(gaps(call) for call in wire),
        "packets": sum(len(call.sent) for call in wire),
        "late turns": float(late[0].split()[-1]) if late else math.nan,
        "% of a core per call": {part: round(cost, 2) for part, cost in costs.items() if "MB" not in part},
        "stages alone, %": stages.apart(calls),
        "MB per call": round(costs["MB"], 2),
        "MB per call, whole house": round(costs["MB of a full house"], 1),
        "greeting after 200 OK, ms": spread([first_sound_s(call) for call in wire]),
        "end of speech to first audio, ms": spread([s for call in wire for s in turn_latencies_s(call)]),
        "onset to ducked, ms": spread([duck_s(call, reference) for call in cut]),
    }


@click.command()
@click.option("--calls", default="4,20,40", show_default=True, help="numbers of simultaneous calls")
@click.option("--out", type=click.Path(path_type=Path), help="also write the figures here, as JSON")
def main(calls: str, out: Path | None) -> None:
    """Load, cost and latency of SIP calls."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="voicegate-bench-") as name:
        folder = Path(name)
        sound = question(folder)
        for count in (int(word) for word in calls.split(",")):
            row = measure(count, folder, sound)
            rows.append(row)
            for key, value in row.items():
                click.echo(f"{key:34} {value}")
            click.echo("")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
