"""Each alert rule, judged by Prometheus' own tool: it fires on a house that is ill so, and on no sound one.

Series are written as promtool has them: `0+6x30` is 0 and then 30 values, each 6 more; one a minute, where a
rule looks back for a day one in 10 minutes.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needs import need_program
from tests.test_dashboards import RULES, rules

WITHIN_S = 60.0
Series = dict[str, str]


@dataclass(frozen=True)
class AlertCase:
    """What one alert sees. `labels`: those that it fires with, beside its severity."""

    ill: Series
    at: str
    labels: dict[str, str]
    sound: list[Series] = field(default_factory=list)


def histogram(name: str, labels: str, counts: dict[str, str]) -> Series:
    """Buckets by bound; what `+Inf` has is the count."""
    found = {f'{name}_bucket{{{labels},le="{bound}"}}': values for bound, values in counts.items()}
    return {**found, f"{name}_count{{{labels}}}": counts["+Inf"]}


HERE = {"instance": "a:8080"}
A = 'instance="a:8080"'
HALL = {**HERE, "hall": "hall0"}
LOSS, JITTER = "voicegate_call_loss_ratio", "voicegate_call_jitter_seconds"
LATENCY, TURNS = "voicegate_latency_seconds", f"voicegate_turns_total{{{A}}}"
WHOLE = f'{A},stage="whole"'
FROM = f'{A},way="from"'
FAILED, HUNG_UP = (f'voicegate_calls_total{{{A},how="{how}"}}' for how in ("failed", "caller hung up"))
MEMORY = f'voicegate_process_memory_bytes{{{A},process="hall0"}}'
FREE, PLACES = f"voicegate_web_slots_free{{{A}}}", f"voicegate_web_slots{{{A}}}"

CASES = {
    "VoicegateDown": AlertCase(
        {f'up{{job="voicegate",{A}}}': "1 0x5"}, "3m", {**HERE, "job": "voicegate"},
        [{f'up{{job="voicegate",{A}}}': "1x5"}, {f'up{{job="other",{A}}}': "0x5"}],
    ),
    "VoicegateCallsFail": AlertCase(
        {FAILED: "0+1x30", HUNG_UP: "0+5x30"}, "20m", HERE,
        [{FAILED: "0+1x30", HUNG_UP: "0+50x30"}, {FAILED: "0x10 2x20", HUNG_UP: "0x30"}],
    ),
    "VoicegateCallsRefused": AlertCase(
        {f'voicegate_calls_refused_total{{{A},status="503",transport="udp"}}': "0+6x30"}, "20m",
        {**HERE, "status": "503"},
        [{f'voicegate_calls_refused_total{{{A},status="404",transport="udp"}}': "0+60x30"},
         {f'voicegate_calls_refused_total{{{A},status="503",transport="udp"}}': "0+1x30"}],
    ),
    "VoicegateWebSlotsFull": AlertCase(
        {FREE: "0x20", PLACES: "8x20"}, "10m", HERE,
        [{FREE: "1x20", PLACES: "8x20"}, {FREE: "0x20", PLACES: "0x20"},
         {FREE: "0x4 4x1 0x20", PLACES: "8x20"}],
    ),
    "VoicegateWebGuesses": AlertCase(
        {f'voicegate_http_refused_total{{{A},why="token"}}': "0+60x40"}, "30m", HERE,
        [{f'voicegate_http_refused_total{{{A},why="token"}}': "0+6x40",
          f'voicegate_http_refused_total{{{A},why="page"}}': "0+600x40"}],
    ),
    "VoicegatePoorSound": AlertCase(
        histogram(LOSS, FROM, {"0.05": "0+1x60", "0.1": "0+1x60", "0.5": "0+2x60", "+Inf": "0+2x60"}),
        "45m", {**HERE, "way": "from"},
        [histogram(LOSS, FROM, {"0.05": "0+2x60", "0.1": "0+2x60", "0.5": "0+2x60", "+Inf": "0+2x60"}),
         histogram(LOSS, FROM, {"0.05": "0x60", "0.1": "0x60", "0.5": "0x10 3x50", "+Inf": "0x10 3x50"})],
    ),
    "VoicegateJitter": AlertCase(
        histogram(JITTER, FROM, {"0.05": "0+1x60", "0.1": "0+2x60", "+Inf": "0+2x60"}), "45m",
        {**HERE, "way": "from"},
        [histogram(JITTER, FROM, {"0.05": "0+2x60", "0.1": "0+2x60", "+Inf": "0+2x60"})],
    ),
    "VoicegateSlowAnswers": AlertCase(
        {**histogram(LATENCY, WHOLE, {"1.5": "0+1x60", "2.0": "0+2x60", "+Inf": "0+2x60"}), TURNS: "0+2x60"},
        "40m", HERE,
        [{**histogram(LATENCY, WHOLE, {"1.5": "0+2x60", "2.0": "0+2x60", "+Inf": "0+2x60"}), TURNS: "0+2x60"},
         {**histogram(LATENCY, WHOLE, {"1.5": "0x60", "2.0": "0x5 1x55", "+Inf": "0x5 1x55"}),
          TURNS: "0x5 1x55"}],
    ),
    "VoicegateHallLate": AlertCase(
        {f'voicegate_hall_late_share{{{A},hall="hall0"}}': "0.05x20"}, "10m", HALL,
        [{f'voicegate_hall_late_share{{{A},hall="hall0"}}': "0.01x20"},
         {f'voicegate_hall_late_share{{{A},hall="hall0"}}': "0.05x3 0x17"}],
    ),
    "VoicegatePartDown": AlertCase(
        {f'voicegate_hall_up{{{A},hall="hall0",part="engine"}}': "1 0x9"}, "5m", {**HALL, "part": "engine"},
        [{f'voicegate_hall_up{{{A},hall="hall0",part="engine"}}': "1x9"}],
    ),
    "VoicegateTrunkDown": AlertCase(
        {f'voicegate_trunk_up{{{A},trunk="out"}}': "1 0x9"}, "6m", {**HERE, "trunk": "out"},
        [{f'voicegate_trunk_up{{{A},trunk="out"}}': "1x9"},
         {f'voicegate_trunk_up{{{A},trunk="out"}}': "0x9", f'voicegate_trunk_out{{{A},trunk="out"}}': "1x9"}],
    ),
    "VoicegateTaskFails": AlertCase(
        {f'voicegate_task_failures_total{{{A},process="front",task="front.seal"}}': "0+1x15"}, "10m",
        {**HERE, "process": "front", "task": "front.seal"},
        [{f'voicegate_task_failures_total{{{A},process="front",task="front.seal"}}': "0x5 1x10"}],
    ),
    "VoicegateMemory": AlertCase(
        {MEMORY: "400000000x144 700000000x20"}, "1560m", {**HERE, "process": "hall0"},
        [{MEMORY: "400000000x144 500000000x20"}, {MEMORY: "100000000x144 250000000x20"},
         {MEMORY: "400000000x144 700000000x3 400000000x17"}],
    ),
    "VoicegateEventsWait": AlertCase(
        {f'voicegate_events_waiting{{{A},receiver="crm"}}': "2000x30"}, "15m", {**HERE, "receiver": "crm"},
        [{f'voicegate_events_waiting{{{A},receiver="crm"}}': "100x30",
          f'voicegate_events_missed_total{{{A},receiver="crm"}}': "7x30"}],
    ),
    "VoicegateEventsNotKept": AlertCase(
        {f'voicegate_alarms_total{{{A},kind="events not kept"}}': "0x3 1x10"}, "5m",
        {**HERE, "kind": "events not kept"},
        [{f'voicegate_alarms_total{{{A},kind="events not kept"}}': "4x15",
          f'voicegate_alarms_total{{{A},kind="rtp moved"}}': "0x3 1x10"}],
    ),
    "VoicegateSessionsLost": AlertCase(
        {f'voicegate_sessions{{{A},hall="hall0",what="lost"}}': "0x5 5x10"}, "8m", {**HALL, "what": "lost"},
        [{f'voicegate_sessions{{{A},hall="hall0",what="lost"}}': "5x15",
          f'voicegate_sessions{{{A},hall="hall0",what="living"}}': "0+500x15",
          f'voicegate_sessions{{{A},hall="hall0",what="waiting"}}': "30x15"}],
    ),
    "VoicegateUnmarked": AlertCase(
        {f'voicegate_hall_mark_alarms_total{{{A},hall="hall0"}}': "0x3 1x10"}, "5m", HALL,
        [{f'voicegate_hall_mark_alarms_total{{{A},hall="hall0"}}': "4x15",
          f'voicegate_alarms_total{{{A},kind="mark failed"}}': "4x15"}],
    ),
    "VoicegateLedgerUnwitnessed": AlertCase(
        {f'voicegate_alarms_total{{{A},kind="ledger unwitnessed"}}': "0x3 1x10"}, "5m",
        {**HERE, "kind": "ledger unwitnessed"},
        [{f'voicegate_alarms_total{{{A},kind="ledger unwitnessed"}}': "0x15",
          f'voicegate_alarms_total{{{A},kind="rtp moved"}}': "0+1x15"}],
    ),
    "VoicegateRevocationsInDoubt": AlertCase(
        {f'voicegate_revocations_in_doubt{{{A},process="hall0"}}': "1x9"}, "5m", {**HERE, "process": "hall0"},
        [{f'voicegate_revocations_in_doubt{{{A},process="hall0"}}': "0x4 1 0x4"}],
    ),
    "VoicegateForgedRevocations": AlertCase(
        {f'voicegate_revocations_not_ours_total{{{A},process="hall0",what="forged"}}': "0x3 1x10"}, "5m",
        {**HERE, "process": "hall0", "what": "forged"},
        [{f'voicegate_revocations_not_ours_total{{{A},process="hall0",what="failed"}}': "0+1x15"}],
    ),
}  # fmt: skip
SECOND_WAYS = {
    "VoicegateCallsFail": AlertCase({FAILED: "0x10 8x20", HUNG_UP: "0x30"}, "17m", HERE),
    "VoicegateEventsWait": AlertCase(
        {f'voicegate_events_missed_total{{{A},receiver="crm"}}': "0x3 4x30"}, "20m",
        {**HERE, "receiver": "crm"},
    ),
    "VoicegateSessionsLost": AlertCase(
        {f'voicegate_sessions{{{A},hall="hall0",what="waiting"}}': "2000x9"}, "3m",
        {**HALL, "what": "waiting"},
    ),
    "VoicegateUnmarked": AlertCase(
        {f'voicegate_alarms_total{{{A},kind="mark failed"}}': "0x3 1x10"}, "5m",
        {**HERE, "kind": "mark failed"},
    ),
}  # fmt: skip
"""Alerts that look at two things fire for each; calls that fail all at once, after none did."""


@cache
def by_name() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules()}


def told(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{\s*\$labels\.([a-z_]+)\s*\}\}", lambda found: labels[found[1]], text)


def step(alert: str) -> str:
    return "10m" if "1d" in by_name()[alert]["expr"] else "1m"


def trial(alert: str, series: Series, at: str, fires: dict[str, str] | None) -> dict[str, Any]:
    """One of promtool's tests. `fires`: the labels of the alert; None: it does not."""
    rule = by_name()[alert]
    expected = []
    if fires is not None:
        texts = {name: told(text, fires) for name, text in rule["annotations"].items()}
        expected = [{"exp_labels": {**fires, **rule["labels"]}, "exp_annotations": texts}]
    return {
        "interval": step(alert),
        "name": alert,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
    }


def judged(folder: Path, trials: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """What promtool says of the rules."""
    files = []
    for every in sorted({one["interval"] for one in trials}):
        of_these = [one for one in trials if one["interval"] == every]
        files.append(folder / f"{every}.yml")
        table = {"rule_files": [str(RULES)], "evaluation_interval": every, "tests": of_these}
        files[-1].write_text(yaml.safe_dump(table))
    promtool = need_program("promtool", "prometheus")
    return subprocess.run(
        [promtool, "test", "rules", *map(str, files)], capture_output=True, text=True, timeout=WITHIN_S
    )


def test_prometheus_reads_the_rules() -> None:
    promtool = need_program("promtool", "prometheus")
    said = subprocess.run(
        [promtool, "check", "rules", str(RULES)], capture_output=True, text=True, timeout=WITHIN_S
    )
    assert said.returncode == 0, said.stderr
    assert f"{len(by_name())} rules found" in said.stdout


def test_each_alert_has_its_case() -> None:
    assert set(CASES) == set(by_name())
    assert all(case.sound for case in CASES.values())


def test_each_alert_fires_on_what_it_is_for_and_on_nothing_sound(tmp_path: Path) -> None:
    trials = [
        trial(alert, case.ill, case.at, case.labels) for alert, case in [*CASES.items(), *SECOND_WAYS.items()]
    ]
    for alert, case in CASES.items():
        trials += [trial(alert, series, case.at, None) for series in case.sound]
    said = judged(tmp_path, trials)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("alert", ["VoicegateDown", "VoicegatePoorSound"])
def test_a_case_that_is_wrong_is_noticed(tmp_path: Path, alert: str) -> None:
    case = CASES[alert]
    assert judged(tmp_path, [trial(alert, case.sound[0], case.at, case.labels)]).returncode != 0
    assert judged(tmp_path, [trial(alert, case.ill, case.at, None)]).returncode != 0
