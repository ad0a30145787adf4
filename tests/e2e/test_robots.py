"""Three callers at once, by one script, on lines that lose packets, with noise behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import House
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

SCRIPT = """
# asks three times, the last time over the answer
listen
say what are your opening hours
listen
say where are you
interrupt 1
say what are your opening hours
listen
hold 1
hang up
"""


@pytest.mark.long("three conversations in real time, and the mark is sought in each")
def test_three_robots_talk_and_report_what_they_heard(house: House, tmp_path: Path) -> None:
    script, report = tmp_path / "caller.txt", tmp_path / "report.json"
    script.write_text(SCRIPT)
    known = {call["call_id"] for call in house.calls()}
    keys = house.folder / "data" / "watermark-keys.json"
    command = [
        sys.executable, "-m", "gateway.cli", "call", house.uri, "--script", str(script), "--calls", "3",
        "--over", "2", "--snr", "20", "--loss", "5", "--jitter", "40", "--reorder", "2",
        "--report", str(report), "--record", str(tmp_path / "heard.wav"), "--mark-keys", str(keys),
    ]  # fmt: skip
    done = subprocess.run(command, env=house.environ, capture_output=True, text=True, timeout=2 * HANGS_S)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["summary"]["ended_by"] == {"us": 3}
    assert told["summary"]["marked"] == 3
    for number, call in enumerate(told["calls"], 1):
        assert (call["status"], call["ended"]) == (200, "we hung up")
        assert [turn["kind"] for turn in call["turns"]] == ["speech", "speech", "speech"]
        # of one that is asked over the answer it is chance whether a rough line lets it be heard
        assert None not in [turn["latency_s"] for turn in call["turns"][:2]], "it was quiet, then answered"
        assert 0.04 * call["packets_sent"] <= call["packets_dropped"] <= 0.06 * call["packets_sent"]
        assert call["packets"] > 50 * 5
        assert call["longest_hole_s"] > 0
        assert (tmp_path / f"heard-{number}.wav").stat().st_size > 16_000 * 5
    assert "3 of 3 calls answered" in done.stdout

    calls = [call["call_id"] for call in house.calls() if call["call_id"] not in known]
    assert len(calls) == 3
    for call_id in calls:
        house.wait_for("what its line counted", lambda call_id=call_id: counted(house, call_id), HANGS_S)
        (said,) = counted(house, call_id)
        assert said["lost"] > 0, "the line saw what the robot's line lost"
        shown = subprocess.run(
            [*command[:3], "calls", "show", call_id], env=house.environ, capture_output=True, text=True
        ).stdout
        assert f"{said['lost']} were lost" in shown
        assert f"MOS {said['mos']:.1f}" in shown
        assert 1.0 < said["mos"] < 4.2, "5 % lost leave less than 4.2 of 4.4"
    assert 'voicegate_call_mos_count{way="from"}' in house.get("/metrics")


def counted(house: House, call_id: str) -> list[dict[str, Any]]:
    """What a call's line said of it at its end."""
    events = house.get(f"/api/calls/{call_id}")["events"]
    return [event["data"] for event in events if event["kind"] == "line_quality"]
