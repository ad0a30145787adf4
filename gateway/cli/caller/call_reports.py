"""What became of calls that were placed: for operators, for programs (JSON), and over many calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gateway.phone.phone_plan import PhoneOutcome


@dataclass(frozen=True)
class CallReport(PhoneOutcome):
    """What became of a call (times in seconds; see `gateway.phone.phone_plan.PhoneOutcome`)."""

    uri: str = ""
    record: str | None = None
    marked: bool | None = None
    """Whether our mark is in what was heard; None: nobody looked."""
    payload: str | None = None
    """What the mark says, in hexadecimal; None: it is not known."""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    @property
    def latencies_s(self) -> list[float]:
        """From the end of each thing that was said to the answer's first sound; unanswered ones left out."""
        return [turn.latency_s for turn in self.turns if turn.latency_s is not None]


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """`p50` and `p95`, None where there is nothing."""
    known = list(values)
    if not known:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(known, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def summary(reports: Iterable[CallReport]) -> dict[str, Any]:
    """Many calls in one table, as JSON has it; times in seconds."""
    calls = tuple(reports)
    answered = [call for call in calls if call.answered]
    looked = [call.marked for call in calls if call.marked is not None]
    return {
        "calls": len(calls),
        "answered": len(answered),
        "refused": dict(Counter(str(call.status) for call in calls if not call.answered)),
        "ended_by": dict(Counter(call.ended_by for call in calls)),
        "asked": sum(len(call.turns) for call in calls),
        "answers": sum(len(call.latencies_s) for call in calls),
        "packets": sum(call.packets for call in calls),
        "gaps": sum(call.gaps for call in calls),
        "longest_hole_s": max((call.longest_hole_s for call in calls), default=0.0),
        "marked": None if not looked else sum(looked),
        "answered_after_s": percentiles(c.answered_after_s for c in calls if c.answered_after_s is not None),
        "first_audio_s": percentiles(c.first_audio_s for c in calls if c.first_audio_s is not None),
        "latency_s": percentiles(latency_s for call in calls for latency_s in call.latencies_s),
    }


def as_json(reports: Iterable[CallReport]) -> dict[str, Any]:
    """The reports of many calls and what they come to."""
    calls = tuple(reports)
    return {"summary": summary(calls), "calls": [call.as_json() for call in calls]}


# ── for operators ────────────────────────────────────────────────────────────────────────────────────────


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value * 1000:.0f} ms"


def describe(report: CallReport) -> str:
    """The report as an operator reads it."""
    if not report.answered:
        return f"{report.uri}: not answered: {report.ended}"
    lines = [
        f"{report.uri}: answered after {_seconds(report.answered_after_s)}, {report.codec}",
        f"first audio {_seconds(report.first_audio_s)} after the 200 OK",
    ]
    for number, turn in enumerate(report.turns, 1):
        what = "spoke" if turn.kind == "speech" else "pressed keys"
        answer = "no answer" if turn.latency_s is None else f"answered after {_seconds(turn.latency_s)}"
        lines.append(f"turn {number}: {what} at {turn.start_s:.2f} s, ended at {turn.end_s:.2f} s, {answer}")
    lines.append(
        f"ended after {report.duration_s:.1f} s: {report.ended}; "
        f"{report.packets} packets received, {report.lost} lost, jitter {report.jitter_ms:.1f} ms"
    )
    if report.gaps:
        lines.append(
            f"gaps: packets came more than 40 ms apart {report.gaps} times, "
            f"once {_seconds(report.longest_hole_s)}"
        )
    if report.packets_dropped:
        lines.append(
            f"the rough line lost {report.packets_dropped} packets of {report.packets_sent} that were sent"
        )
    if report.marked is not None:
        lines.append(
            "no mark of these keys was found" if not report.marked
            else "marked" + ("" if report.payload is None else f": {report.payload}")
        )  # fmt: skip
    if report.record:
        lines.append(f"recorded to {report.record}")
    return "\n".join(lines)


def describe_many(reports: Iterable[CallReport]) -> str:
    """Many calls as an operator reads them: a line for each, then what they come to."""
    calls = tuple(reports)
    lines = [_in_a_line(number, call) for number, call in enumerate(calls, 1)]
    told = summary(calls)
    lines.append(
        f"{told['answered']} of {told['calls']} calls answered, {told['answers']} of {told['asked']} turns; "
        f"ended by {', '.join(f'{who}: {count}' for who, count in sorted(told['ended_by'].items()))}"
    )
    lines += [
        f"{name}: p50 {_seconds(told[key]['p50'])}, p95 {_seconds(told[key]['p95'])}"
        for name, key in (
            ("INVITE to 200 OK", "answered_after_s"),
            ("200 OK to first audio", "first_audio_s"),
            ("end of a turn to its answer", "latency_s"),
        )
    ]
    lines.append(
        f"{told['packets']} packets received, {told['gaps']} times more than 40 ms apart, "
        f"once {_seconds(told['longest_hole_s'])}"
    )
    if told["marked"] is not None:
        lines.append(f"the mark is in {told['marked']} of them")
    return "\n".join(lines)


def _in_a_line(number: int, call: CallReport) -> str:
    if not call.answered:
        return f"{number:4} not answered: {call.ended}"
    return (
        f"{number:4} answered after {_seconds(call.answered_after_s)}, "
        f"first audio {_seconds(call.first_audio_s)}, "
        f"{len(call.latencies_s)} of {len(call.turns)} turns answered, {call.gaps} gaps; "
        f"{call.duration_s:.1f} s, {call.ended}"
    )
