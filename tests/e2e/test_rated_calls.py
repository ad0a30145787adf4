"""A whole gateway, telephones behind lines that lose packets both ways, and what operators learn."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.e2e.gateway_process import House
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

CLEAN, ROUGH = ("0", "0"), ("5", "10")
"""Percent that the caller's line loses: of what goes, and of what comes."""
METRICS = [f'{name}_count{{way="{way}"}}' for name in ("mos", "loss_ratio") for way in ("from", "to")]


def voicegate(house: House, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gateway.cli", *argv]
    return subprocess.Popen(command, env=house.environ, stdout=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=2 * HANGS_S)
    return said


@pytest.mark.long("two calls in real time, through at least two reports of RTCP")
def test_what_got_lost_each_way_and_the_score_are_shown_and_counted(house: House) -> None:
    known = {call["call_id"] for call in house.calls()}
    counted = {metric: rated(house, metric) for metric in METRICS}
    calls = [
        voicegate(house, "call", house.uri, "--duration", "14", "--loss", gone, "--heard-loss", missed)
        for gone, missed in (CLEAN, ROUGH)
    ]
    for call in calls:
        said_by(call)
    ids = {call["call_id"] for call in house.calls()} - known
    assert len(ids) == 2
    house.wait_for("both calls' last word", lambda: all(is_rated(house, one) for one in ids), HANGS_S)
    shown = {said_by(voicegate(house, "calls", "show", one)) for one in ids}
    clean, rough = sorted(shown, key=lambda text: figures(text)[0])
    lost, mos, far_lost, far_mos = figures(rough)
    # a busy machine may make packets late besides, which makes it worse, never better
    assert lost >= 4
    assert far_lost >= 7
    assert mos < min(4.1, figures(clean)[1])
    assert far_mos < min(3.8, figures(clean)[3])
    assert "round trip" in rough
    assert re.search(r"\n  \S+  quality line=\S+ .*mos=", rough), "it was said while the call went on"
    for metric, before in counted.items():
        house.wait_for(
            metric, lambda metric=metric, before=before: rated(house, metric) >= before + 2, HANGS_S
        )


def rated(house: House, metric: str) -> float:
    """How many calls a metric has counted."""
    found = re.search(rf"^voicegate_call_{re.escape(metric)} (\S+)$", house.get("/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def is_rated(house: House, call_id: str) -> bool:
    """Whether its line's last word has come."""
    return any(event["kind"] == "line_quality" for event in house.get(f"/api/calls/{call_id}")["events"])


def figures(shown: str) -> tuple[float, float, float, float]:
    """What `calls show` prints: percent lost and MOS, from the caller and to the caller."""
    here = re.search(r"packets came, \d+ were lost \((\S+) %\).*MOS (\d\.\d)", shown)
    there = re.search(r"the caller missed \d+ of our \d+ packets \((\S+) %\).*MOS (\d\.\d)", shown)
    assert here is not None, shown
    assert there is not None, shown
    return float(here[1]), float(here[2]), float(there[1]), float(there[2])
