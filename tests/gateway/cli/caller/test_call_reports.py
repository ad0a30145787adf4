"""Reports of calls: as JSON, in one table, and as an operator reads them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gateway.cli.caller.call_reports import CallReport, as_json, describe, describe_many, summary
from gateway.phone.phone_plan import TurnReport

ONE = CallReport(
    uri="sip:a@b", status=200, answered=True, answered_after_s=0.1, codec="PCMU", first_audio_s=0.2,
    duration_s=9.0, turns=(TurnReport("speech", 1.0, 2.5, 0.75), TurnReport("speech", 4.0, 4.5, None)),
    ended="we hung up", ended_by="us", packets=450, packets_sent=440, packets_dropped=44, gaps=2,
    longest_hole_s=0.061, marked=True, payload="00ff00ff00ff00ff",
)  # fmt: skip
TWO = dataclasses.replace(
    ONE, answered_after_s=0.3, turns=(TurnReport("digits", 1.0, 1.1, 0.25),), ended="they hung up",
    ended_by="them", gaps=0, longest_hole_s=0.03, marked=False, payload=None,
)  # fmt: skip
REFUSED = CallReport(uri="sip:a@b", status=503, reason="Busy", ended="503 Busy")


def test_a_report_cannot_be_changed_and_is_json_whole() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ONE.status = 486  # type: ignore[misc]
    told = json.loads(json.dumps(ONE.as_json()))
    assert told["turns"][0] == {"kind": "speech", "start_s": 1.0, "end_s": 2.5, "latency_s": 0.75}
    for name in (
        "status",
        "answered_after_s",
        "first_audio_s",
        "gaps",
        "longest_hole_s",
        "packets",
        "ended_by",
    ):
        assert told[name] == getattr(ONE, name)


def test_many_calls_come_to_one_table() -> None:
    told = summary([ONE, TWO, REFUSED])
    assert (told["calls"], told["answered"], told["refused"]) == (3, 2, {"503": 1})
    assert told["ended_by"] == {"us": 1, "them": 1, "nobody": 1}
    assert (told["asked"], told["answers"], told["marked"]) == (3, 2, 1)
    assert (told["gaps"], told["longest_hole_s"], told["packets"]) == (2, 0.061, 900)
    assert told["latency_s"]["p50"] == pytest.approx(0.5)
    assert told["answered_after_s"]["p95"] == pytest.approx(0.29)


def test_no_call_at_all_is_a_table_too() -> None:
    told = json.loads(json.dumps(as_json([REFUSED])))
    assert told["summary"]["latency_s"] == {"p50": None, "p95": None}
    assert told["summary"]["marked"] is None
    assert [call["status"] for call in told["calls"]] == [503]


def test_what_was_measured_on_the_wire_is_said_when_there_is_something_to_say() -> None:
    said = describe(ONE)
    assert "gaps: packets came more than 40 ms apart 2 times, once 61 ms" in said
    assert "the rough line lost 44 packets of 440 that were sent" in said
    assert "marked: 00ff00ff00ff00ff" in said
    assert "no mark of these keys was found" in describe(TWO)
    assert "gaps" not in describe(TWO)


def test_many_calls_are_a_line_each_and_a_sum() -> None:
    lines = describe_many([ONE, TWO, REFUSED]).splitlines()
    assert "answered after 100 ms, first audio 200 ms, 1 of 2 turns answered, 2 gaps; 9.0 s" in lines[0]
    assert lines[2].strip() == "3 not answered: 503 Busy"
    assert lines[3] == "2 of 3 calls answered, 2 of 3 turns; ended by nobody: 1, them: 1, us: 1"
    assert "end of a turn to its answer: p50 500 ms, p95 725 ms" in lines
    assert lines[-1] == "the mark is in 1 of them"
